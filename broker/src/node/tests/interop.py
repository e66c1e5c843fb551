"""Talks to a broker with paho-mqtt, in each version; prints what went well, one word a line."""

import queue
import sys
import threading

from paho.mqtt import client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PORT = int(sys.argv[1])
PATIENCE = 20


class Client:
    """A connected client whose messages wait in a queue."""

    def __init__(self, name, version, clean=True, properties=None):
        self.is_v5 = version == mqtt.MQTTv5
        self.messages = queue.Queue()
        self.subscribed = threading.Event()
        self.connected = queue.Queue()
        if self.is_v5:
            self.paho = mqtt.Client(name, protocol=version)
        else:
            self.paho = mqtt.Client(name, clean_session=clean, protocol=version)
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message)
        self.paho.on_subscribe = lambda *_arguments: self.subscribed.set()
        self.paho.on_connect = lambda _c, _u, flags, code, *_p: self.connected.put((flags, code))
        more = {"clean_start": clean, "properties": properties} if self.is_v5 else {}
        self.paho.connect("127.0.0.1", PORT, **more)
        self.paho.loop_start()
        self.flags, code = self.connected.get(timeout=PATIENCE)
        assert code == 0, code

    def subscribe(self, topic, **arguments):
        self.subscribed.clear()
        self.paho.subscribe(topic, **arguments)
        assert self.subscribed.wait(PATIENCE)

    def publish(self, topic, payload, **arguments):
        self.paho.publish(topic, payload, **arguments).wait_for_publish(PATIENCE)

    def receive(self):
        return self.messages.get(timeout=PATIENCE)

    def leave(self):
        self.paho.disconnect()
        self.paho.loop_stop()


def every_qos(version):
    receiver = Client("receiver", version)
    sender = Client("sender", version)
    for qos in range(3):
        receiver.subscribe("paho/+", qos=qos)
        for sent in range(3):
            sender.publish("paho/ä", str(sent), qos=sent)
            message = receiver.receive()
            assert (message.topic, message.payload) == ("paho/ä", str(sent).encode())
            assert message.qos == min(qos, sent), (message.qos, qos, sent)
    sender.publish("kept", "retained", retain=True, qos=1)
    receiver.subscribe("kept")
    assert receiver.receive().retain
    sender.publish("kept", "", retain=True, qos=1)
    receiver.leave()
    sender.leave()


def session(version):
    properties = None
    if version == mqtt.MQTTv5:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 100
    first = Client("keeper", version, clean=False, properties=properties)
    first.subscribe("missed", qos=1)
    first.leave()
    sender = Client("sender", version)
    sender.publish("missed", "while away", qos=1)
    again = Client("keeper", version, clean=False, properties=properties)
    assert again.receive().payload == b"while away"
    assert version == mqtt.MQTTv31 or again.flags["session present"] == 1
    again.paho.unsubscribe("missed")
    again.leave()
    sender.leave()


def share(version):
    members = [Client(f"member {number}", version) for number in range(4)]
    for member in members:
        member.subscribe("$share/g/jobs", qos=1)
    sender = Client("sender", version)
    for number in range(20):
        sender.publish("jobs", str(number), qos=1)
    jobs = [member.receive().payload for member in members for _ in range(5)]
    assert sorted(map(int, jobs)) == list(range(20)), jobs
    for member in members:
        member.leave()
    sender.leave()


def version5():
    receiver = Client("receiver", mqtt.MQTTv5)
    subscribing = Properties(PacketTypes.SUBSCRIBE)
    subscribing.SubscriptionIdentifier = 300
    options = SubscribeOptions(qos=1, noLocal=True, retainAsPublished=True)
    receiver.subscribe("five/#", options=options, properties=subscribing)
    sender = Client("sender", mqtt.MQTTv5)
    for topic in ("five/alias", ""):
        properties = Properties(PacketTypes.PUBLISH)
        properties.TopicAlias = 3
        properties.ResponseTopic = "reply"
        properties.CorrelationData = b"\xff\x00"
        properties.MessageExpiryInterval = 50
        properties.UserProperty = [("b", "1"), ("a", "2"), ("b", "3")]
        sender.publish(topic, "x", qos=1, properties=properties)
        message = receiver.receive()
        got = message.properties
        assert message.topic == "five/alias"
        assert (got.ResponseTopic, got.CorrelationData) == ("reply", b"\xff\x00")
        assert got.UserProperty == [("b", "1"), ("a", "2"), ("b", "3")]
        assert got.SubscriptionIdentifier == [300]
        assert 0 < got.MessageExpiryInterval <= 50
    receiver.publish("five/own", "not for me", qos=1)
    sender.publish("five/end", "end", qos=1)
    assert receiver.receive().topic == "five/end"
    receiver.leave()
    sender.leave()


for level in (mqtt.MQTTv31, mqtt.MQTTv311, mqtt.MQTTv5):
    every_qos(level)
    session(level)
    share(level)
    print(level)
version5()
print("properties")
