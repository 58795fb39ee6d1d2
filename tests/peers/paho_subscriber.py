#!/usr/bin/env python3
"""A subscriber, and a publisher, by paho.

    paho_subscriber.py PORT FILTER

Prints one JSON line for each message: `{"topic": …, "payload": …}`, the payload as text, and
`{"subscribed": true}` whenever the broker has taken the subscription. A line `TOPIC PAYLOAD` on
stdin is published with QoS 1; `{"published": TOPIC}` says that the broker has acknowledged it.
Ends with stdin.
"""

import json
import sys

import paho.mqtt.client as mqtt


def say(**what):
    print(json.dumps(what), flush=True)


def main():
    port, topic_filter = int(sys.argv[1]), sys.argv[2]
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="paho", clean_session=False)
    client.reconnect_delay_set(1, 1)
    client.on_connect = lambda client, *_: client.subscribe(topic_filter, qos=1)
    client.on_subscribe = lambda *_: say(subscribed=True)
    client.on_message = lambda _client, _data, message: say(
        topic=message.topic, payload=message.payload.decode()
    )
    client.connect("127.0.0.1", port)
    client.loop_start()
    for line in sys.stdin:
        topic, payload = line.rstrip("\n").split(" ", 1)
        client.publish(topic, payload, qos=1).wait_for_publish()
        say(published=topic)
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    main()
