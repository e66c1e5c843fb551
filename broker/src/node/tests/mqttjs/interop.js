// Talks to a broker with MQTT.js, over each transport and in each version; prints what went well,
// one line each. Arguments: the file of the authority to trust, then a URL for each transport.
"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const mqtt = require("mqtt");

const PATIENCE = 20_000;
const V31 = 3;
const V311 = 4;
const V5 = 5;

const [authority, ...addresses] = process.argv.slice(1);
const ca = fs.readFileSync(authority);

/** A connected client whose messages wait in a queue. */
class Client {
  constructor(place, name, options) {
    this.version = place.version;
    this.messages = [];
    this.waiting = [];
    this.mqtt = mqtt.connect(place.address, {
      ca,
      clientId: name,
      protocolId: place.version === V31 ? "MQIsdp" : "MQTT",
      protocolVersion: place.version,
      // Whoever is cut off has failed, or is meant to be.
      reconnectPeriod: 0,
      ...options,
    });
    // Before the CONNACK: what a session has kept comes at its heels.
    this.mqtt.on("message", (topic, payload, packet) => {
      const message = { ...packet, topic, payload: payload.toString() };
      const receiver = this.waiting.shift();
      receiver ? receiver(message) : this.messages.push(message);
    });
  }

  static async join(place, name, options = {}) {
    const client = new Client(place, name, options);
    client.connack = await soon(`connection of ${name}`, (resolve, reject) => {
      client.mqtt.once("connect", resolve);
      client.mqtt.once("error", reject);
    });
    return client;
  }

  /** A client whose session outlives its connection. */
  static keep(place, name) {
    const properties = place.version === V5 ? { sessionExpiryInterval: 100 } : undefined;
    return Client.join(place, name, { clean: false, properties });
  }

  /** Expects the QoS that was asked for. */
  async subscribe(filter, options) {
    const [granted] = await this.mqtt.subscribeAsync(filter, options);
    assert.equal(granted.qos, options.qos);
  }

  publish(topic, payload, options) {
    return this.mqtt.publishAsync(topic, payload, options);
  }

  receive() {
    if (this.messages.length > 0) {
      return this.messages.shift();
    }
    return soon("message", (resolve) => this.waiting.push(resolve));
  }

  leave() {
    return this.mqtt.endAsync();
  }

  /** Closes the connection without a DISCONNECT. */
  vanish() {
    return this.mqtt.endAsync(true);
  }
}

/** What `begin` brings, unless it takes too long. */
async function soon(what, begin) {
  let timer;
  const late = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} in time`)), PATIENCE);
  });
  try {
    return await Promise.race([new Promise(begin), late]);
  } finally {
    clearTimeout(timer);
  }
}

async function everyQos(place) {
  const receiver = await Client.join(place, "receiver");
  const sender = await Client.join(place, "sender");
  for (const qos of [0, 1, 2]) {
    await receiver.subscribe("js/+", { qos });
    for (const sent of [0, 1, 2]) {
      await sender.publish("js/ä", `${sent}`, { qos: sent });
      const message = await receiver.receive();
      assert.deepEqual([message.topic, message.payload], ["js/ä", `${sent}`]);
      assert.equal(message.qos, Math.min(qos, sent));
    }
  }
  const long = "x".repeat(200_000);
  await sender.publish("js/long", long, { qos: 1 });
  assert.equal((await receiver.receive()).payload, long);
  await receiver.leave();
  await sender.leave();
}

async function retained(place) {
  const sender = await Client.join(place, "sender");
  await sender.publish("kept", "retained", { qos: 1, retain: true });
  const late = await Client.join(place, "late");
  await late.subscribe("kept", { qos: 1 });
  const kept = await late.receive();
  assert.deepEqual([kept.payload, kept.retain], ["retained", true]);
  await sender.publish("kept", "", { qos: 1, retain: true });
  const removal = await late.receive();
  assert.deepEqual([removal.payload, removal.retain], ["", false]);
  await late.subscribe("kept", { qos: 0 });
  await sender.publish("kept", "end", { qos: 0 });
  assert.equal((await late.receive()).payload, "end");
  await late.leave();
  await sender.leave();
}

async function will(place) {
  const heir = await Client.join(place, "heir");
  await heir.subscribe("will/+", { qos: 2 });
  for (const qos of [0, 1, 2]) {
    const testament = { topic: `will/${qos}`, payload: Buffer.from("gone"), qos, retain: false };
    const happy = await Client.join(place, "happy", { will: { ...testament, topic: "will/none" } });
    await happy.leave();
    const mortal = await Client.join(place, "mortal", { will: testament });
    await mortal.vanish();
    const message = await heir.receive();
    assert.deepEqual([message.topic, message.payload, message.qos], [`will/${qos}`, "gone", qos]);
  }
  await heir.leave();
}

async function share(place) {
  const members = [];
  for (const number of [0, 1, 2, 3]) {
    const member = await Client.join(place, `member ${number}`);
    await member.subscribe("$share/g/jobs/#", { qos: 1 });
    members.push(member);
  }
  const sender = await Client.join(place, "sender");
  const sent = Array.from({ length: 20 }, (_, number) => `${number}`);
  for (const job of sent) {
    await sender.publish("jobs/x", job, { qos: 1 });
  }
  const jobs = [];
  for (const member of members) {
    for (let turn = 0; turn < sent.length / members.length; turn += 1) {
      jobs.push((await member.receive()).payload);
    }
    await member.leave();
  }
  assert.deepEqual(jobs.sort(), sent.sort());
  await sender.leave();
}

async function session(place) {
  const first = await Client.keep(place, "keeper");
  assert.equal(first.connack.sessionPresent, false);
  await first.subscribe("missed/+", { qos: 2 });
  await first.leave();
  const sender = await Client.join(place, "sender");
  for (const qos of [1, 2]) {
    await sender.publish("missed/x", `while away: ${qos}`, { qos });
  }
  const again = await Client.keep(place, "keeper");
  // MQTT 3.1 has no such flag.
  assert.equal(again.connack.sessionPresent, place.version !== V31);
  for (const qos of [1, 2]) {
    const message = await again.receive();
    assert.deepEqual([message.payload, message.qos], [`while away: ${qos}`, qos]);
  }
  await again.mqtt.unsubscribeAsync("missed/+");
  await again.leave();
  const anew = await Client.join(place, "keeper", { clean: true });
  assert.equal(anew.connack.sessionPresent, false);
  await anew.leave();
  await sender.leave();
}

/** Topic aliases both ways; what is on the wire is looked at before the library fills it in. */
async function aliases(place) {
  const receiver = await Client.join(place, "receiver", { properties: { topicAliasMaximum: 5 } });
  const sender = await Client.join(place, "sender", { autoAssignTopicAlias: true });
  const nameless = { sent: 0, received: 0 };
  sender.mqtt.on("packetsend", ({ cmd, topic }) => {
    nameless.sent += Number(cmd === "publish" && topic === "");
  });
  receiver.mqtt.on("packetreceive", ({ cmd, topic }) => {
    nameless.received += Number(cmd === "publish" && topic === "");
  });
  assert.ok(sender.connack.properties.topicAliasMaximum > 0);
  await receiver.subscribe("alias/#", { qos: 1 });
  for (let turn = 0; turn < 3; turn += 1) {
    for (const topic of ["alias/first", "alias/second"]) {
      await sender.publish(topic, topic, { qos: 1 });
      const message = await receiver.receive();
      assert.deepEqual([message.topic, message.payload], [topic, topic]);
    }
  }
  assert.deepEqual(nameless, { sent: 4, received: 4 });
  await receiver.leave();
  await sender.leave();
}

async function properties(place) {
  const receiver = await Client.join(place, "receiver");
  const identified = { subscriptionIdentifier: 300 };
  await receiver.subscribe("five/#", { qos: 1, nl: true, rap: true, properties: identified });
  const sender = await Client.join(place, "sender");
  const sent = {
    contentType: "text/plain",
    correlationData: Buffer.from([0xff, 0]),
    messageExpiryInterval: 50,
    payloadFormatIndicator: true,
    responseTopic: "reply",
    userProperties: { a: "2", b: ["1", "3"] },
  };
  await sender.publish("five/all", "x", { qos: 1, retain: true, properties: sent });
  const { retain, properties: got } = await receiver.receive();
  assert.ok(retain);
  assert.ok(got.messageExpiryInterval > 0 && got.messageExpiryInterval <= 50);
  const { messageExpiryInterval, subscriptionIdentifier, ...same } = got;
  assert.equal(subscriptionIdentifier, 300);
  const { messageExpiryInterval: _, ...expected } = sent;
  assert.deepEqual({ ...same, userProperties: { ...same.userProperties } }, expected);
  await sender.publish("five/all", "", { qos: 1, retain: true });
  assert.equal((await receiver.receive()).payload, "");
  await receiver.publish("five/own", "not for me", { qos: 1 });
  await sender.publish("five/end", "end", { qos: 1 });
  assert.equal((await receiver.receive()).topic, "five/end");
  await receiver.leave();
  await sender.leave();
}

async function main() {
  for (const address of addresses) {
    const transport = new URL(address).protocol.replace(":", "");
    for (const version of [V31, V311, V5]) {
      const place = { address, version };
      for (const talk of [everyQos, retained, will, share, session]) {
        await talk(place);
      }
      if (version === V5) {
        await aliases(place);
        await properties(place);
      }
      console.log(`${transport} ${version}`);
    }
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
