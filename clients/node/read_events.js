// Prints each event of a topic on a line, from its oldest on: a plain consumer of kafkajs.
//
// Usage: node read_events.js orders.created. The brokers are taken from KAFKA_BROKERS.
import { Kafka, logLevel } from "kafkajs";

const [topic] = process.argv.slice(2);
const brokers = (process.env.KAFKA_BROKERS ?? "127.0.0.1:9092").split(",");
const kafka = new Kafka({ clientId: "read-events", brokers, logLevel: logLevel.ERROR });
const consumer = kafka.consumer({ groupId: `read-events-${process.pid}` });

consumer.on(consumer.events.CRASH, () => process.exit(1)); // without this handler kafkajs keeps running
await consumer.connect();
await consumer.subscribe({ topic, fromBeginning: true });
await consumer.run({ eachMessage: async ({ message }) => console.log(message.value.toString()) });
