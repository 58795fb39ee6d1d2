"""Publishes JSON messages with MQTT 5 and QoS 2, and ends when the broker has them all.

    paho_publisher.py PORT TOPIC COUNT
"""

import sys

import paho.mqtt.client as mqtt

port, topic, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.connect("127.0.0.1", port)
client.loop_start()
for number in range(count):
    client.publish(topic, '{"rms": %d}' % number, qos=2).wait_for_publish(30)
client.disconnect()
client.loop_stop()
