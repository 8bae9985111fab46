//! Measures produce and consume against a broker: `bench HOST:PORT [RECORDS [BYTES]]`. Prints one line for each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Message};

struct Acks(AtomicUsize);

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_ok() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let broker = args.next().ok_or("usage: bench HOST:PORT [RECORDS [BYTES]]")?;
    let records = args.next().map_or(Ok(100_000), |n| n.parse::<usize>())?;
    let bytes = args.next().map_or(Ok(1024), |n| n.parse::<usize>())?;
    let mut base = ClientConfig::new();
    base.set("bootstrap.servers", &broker);
    let topic = format!("bench-{}", std::process::id());
    let admin: AdminClient<_> = base.create()?;
    admin.create_topics(&[NewTopic::new(&topic, 8, TopicReplication::Fixed(1))], &AdminOptions::new()).await?;
    produce(&base, &topic, records, bytes)?;
    consume(&base, &topic, records)?;
    one_by_one(&base, &topic)?;
    admin.delete_topics(&[&topic], &AdminOptions::new()).await?;
    Ok(())
}

fn produce(base: &ClientConfig, topic: &str, records: usize, bytes: usize) -> Result<(), Box<dyn std::error::Error>> {
    let producer: ThreadedProducer<Acks> = base
        .clone()
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "20000")
        .create_with_context(Acks(AtomicUsize::new(0)))?;
    let payload = vec![b'x'; bytes];
    let begun = Instant::now();
    for n in 0..records {
        let key = format!("key-{}", n % 997);
        let mut record = BaseRecord::to(topic).key(&key).payload(&payload);
        while let Err((e, back)) = producer.send(record) {
            if e != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(e.into());
            }
            record = back;
            producer.poll(Duration::from_millis(1));
        }
    }
    producer.flush(Duration::from_mins(1))?;
    let took = begun.elapsed();
    let acked = producer.context().0.load(Ordering::Relaxed);
    println!("produce: {acked} of {records} records of {bytes} B in {took:?} = {:.0}/s", rate(acked, took));
    Ok(())
}

fn one_by_one(base: &ClientConfig, topic: &str) -> Result<(), Box<dyn std::error::Error>> {
    let producer: ThreadedProducer<Acks> =
        base.clone().set("enable.idempotence", "true").set("linger.ms", "0").create_with_context(Acks(AtomicUsize::new(0)))?;
    let mut times = Vec::new();
    for n in 0..1_000 {
        let begun = Instant::now();
        producer.send(BaseRecord::to(topic).key("key").payload("one record")).map_err(|(e, _)| e)?;
        while producer.context().0.load(Ordering::Relaxed) == n {
            std::thread::yield_now();
        }
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    println!("one by one: p50 {:?}, p99 {:?}, the longest {:?}", times[500], times[990], times[999]);
    Ok(())
}

fn consume(base: &ClientConfig, topic: &str, records: usize) -> Result<(), Box<dyn std::error::Error>> {
    let consumer: BaseConsumer =
        base.clone().set("group.id", topic).set("auto.offset.reset", "earliest").set("enable.auto.commit", "false").create()?;
    consumer.subscribe(&[topic])?;
    let asked = Instant::now();
    let mut begun = None;
    let mut got = 0;
    while got < records && asked.elapsed() < Duration::from_secs(30) {
        // An empty poll may only have served a rebalance.
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message?;
        begun.get_or_insert_with(Instant::now);
        got += usize::from(message.payload().is_some());
    }
    let begun = begun.ok_or("nothing was consumed")?;
    println!(
        "consume: {got} of {records} records, the first after {:?}, then {:?} = {:.0}/s",
        begun - asked,
        begun.elapsed(),
        rate(got, begun.elapsed())
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no more digits")]
fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
