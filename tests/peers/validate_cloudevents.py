#!/usr/bin/env python3
"""Reads one CloudEvent in structured JSON mode per line from stdin and checks each with the
official SDK. Lines may also be those of tests/fixtures/cloudevents.jsonl, where the event stands in
the field `event` (null for an empty message that clears a topic).

Prints how many were valid; exit 1 and a line on stderr for each that was not.
"""

import json
import re
import sys

from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

# CloudEvents 1.0 §3.1: names of attributes are lower-case letters and digits.
NAME = re.compile(r"^[a-z0-9]+$")


def check(event):
    parsed = JSONFormat().read(CloudEvent, json.dumps(event).encode())
    for field, expected in (("id", parsed.get_id()), ("source", parsed.get_source()),
                            ("type", parsed.get_type()), ("subject", parsed.get_subject())):
        if event[field] != expected:
            raise ValueError(f"{field} was read as {expected!r}")
    if parsed.get_data() != event["data"]:
        raise ValueError("data was read differently")
    for name in event:
        if name != "data" and not NAME.match(name):
            raise ValueError(f"attribute {name!r} is misspelt")
    for name in ("replayed",):
        if not isinstance(event[name], bool):
            raise ValueError(f"{name} is no boolean")
    if "sequence" in event and not re.fullmatch(r"[0-9]{18}", event["sequence"]):
        raise ValueError("sequence has not 18 digits")


def main():
    valid = invalid = 0
    for number, line in enumerate(sys.stdin, 1):
        if not line.strip():
            continue
        event = json.loads(line)
        if "event" in event and "specversion" not in event:
            event = event["event"]
            if event is None:
                continue
        try:
            check(event)
            valid += 1
        except Exception as error:  # the SDK raises several kinds
            invalid += 1
            print(f"line {number}: {error!r}", file=sys.stderr)
    print(f"{valid} valid, {invalid} not")
    return 1 if invalid or not valid else 0


if __name__ == "__main__":
    sys.exit(main())
