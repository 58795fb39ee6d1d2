#!/usr/bin/env python3
"""Prints each alarm of a gateway exactly once.

    pip install paho-mqtt
    python3 alarm_subscriber.py mqtt://127.0.0.1:1883 wheeltap/plant-a/gw-01 [STATE_FILE]

The broker keeps messages while we are away (persistent session, QoS 1) and may deliver some twice.
Every event has a stable id, so repeats are dropped by it; the last ids are remembered in a small
file, over our own restarts too. An alarm is acknowledged to the broker only once it is printed and
remembered. `sequence` has no gaps within a class: a hole is worth a warning unless the gateway has
announced it (`gateway.gap`) or begun a new epoch.
"""

import json
import os
import re
import sys
import urllib.parse

import paho.mqtt.client as mqtt

IDS_MAX = 10_000  # a gateway has at most 50 messages under way


class Memory:
    def __init__(self, path):
        self.path = path
        try:
            with open(path, encoding="utf-8") as file:
                saved = json.load(file)
        except (OSError, ValueError):
            saved = {}
        self.ids = dict.fromkeys(saved.get("ids", []))  # keeps its order
        self.last = saved.get("last", {})
        self.epoch = saved.get("epoch")

    def save(self):
        """Written beside and renamed, so that a crash leaves the old file or the new one."""
        beside = self.path + ".new"
        with open(beside, "w", encoding="utf-8") as file:
            json.dump({"ids": list(self.ids), "last": self.last, "epoch": self.epoch}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.path)

    def is_new(self, event_id):
        if event_id in self.ids:
            return False
        self.ids[event_id] = None
        if len(self.ids) > IDS_MAX:
            del self.ids[next(iter(self.ids))]
        return True


def warn(text):
    print(text, file=sys.stderr, flush=True)


def take(event, root, memory):
    if not memory.is_new(event["id"]):
        return
    kind = event["type"].removeprefix("wheeltap.")
    data = event.get("data") or {}
    if kind == "gateway.online":
        if data.get("epoch") != memory.epoch:
            memory.last, memory.epoch = {}, data.get("epoch")
        warn(f"{root} is online")
    elif kind == "gateway.offline":
        warn(f"{root} is offline: {data.get('reason')}")
    elif kind == "gateway.gap":
        warn(f"warning: the gateway gave up {data['count']} of {data['lane']} "
             f"({data['from']} to {data['to']}): {data['reason']}")
        if data["lane"] in memory.last:
            memory.last[data["lane"]] = max(memory.last[data["lane"]], data["to"])
    elif kind.startswith("alarm."):
        number = int(event["sequence"])
        last = memory.last.get("alarm")
        if last is not None and number > last + 1:
            warn(f"warning: alarms {last + 1} to {number - 1} are missing")
        memory.last["alarm"] = number
        print(event["time"], kind, event["subject"], data["severity"], data["message"], flush=True)


def main():
    arguments = dict(enumerate(sys.argv[1:]))
    url = urllib.parse.urlparse(arguments.get(0, "mqtt://127.0.0.1:1883"))
    root = arguments.get(1, "wheeltap/plant-a/gw-01")
    path = arguments.get(2, "alarm_subscriber.json")
    memory = Memory(path)
    # A client id of its own per gateway and file: the broker knows our session by it.
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=re.sub(r"[^A-Za-z0-9-]", "-", f"alarms-py-{root}-{path}"),
        clean_session=False,
        manual_ack=True,
    )
    client.reconnect_delay_set(1, 10)

    def on_connect(client, _userdata, _flags, reason, _properties):
        if reason.is_failure:
            warn(f"refused: {reason}")
            return
        client.subscribe([(f"{root}/{level}", 1) for level in ("alarm/+", "gateway", "status")])
        warn(f"connected to {url.geturl()}, listening to {root}")

    def on_message(client, _userdata, message):
        if message.payload:  # an empty message only clears a retained topic
            try:
                take(json.loads(message.payload), root, memory)
                memory.save()
            except (ValueError, KeyError) as error:
                warn(f"warning: not understood on {message.topic}: {error!r}")
        client.ack(message.mid, message.qos)

    client.on_connect = on_connect
    client.on_disconnect = lambda *_: warn("no connection; trying again")
    client.on_message = on_message
    client.connect_async(url.hostname, url.port or 1883)
    client.loop_forever(retry_first_connection=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
