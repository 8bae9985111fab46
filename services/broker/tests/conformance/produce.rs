//! What a producer may rely on.

use std::collections::BTreeMap;

use minishop_testkit::wait::PATIENCE;
use rdkafka::Message;
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;

use super::client::{Topic, bounds, number, producer, read_all, send, send_numbers};

pub fn idempotent_records(broker: &str) {
    const COUNT: usize = 10_000;
    let topic = Topic::new(broker, 4);
    let producer = producer(broker, &[("enable.idempotence", "true"), ("batch.num.messages", "100")]);
    for n in 0..COUNT {
        let (key, value) = (format!("key {}", n % 97), n.to_string());
        send(&producer, BaseRecord::with_opaque_to(&topic.name, Box::new(n)).key(&key).payload(&value));
    }
    producer.flush(PATIENCE).unwrap();
    let acked = producer.context().stored.lock().unwrap().clone();
    assert_eq!(acked.len(), COUNT);

    let mut read = BTreeMap::new();
    let mut ends = BTreeMap::new();
    let mut newest_of_key = BTreeMap::new();
    read_all(broker, &topic.name, COUNT, |message| {
        let n = number(message);
        assert_eq!(read.insert(n, (message.partition(), message.offset())), None, "record {n} came twice");
        let end = ends.entry(message.partition()).or_insert(0);
        assert_eq!(message.offset(), *end, "a gap in partition {}", message.partition());
        *end += 1;
        let before = newest_of_key.insert(message.key().unwrap().to_vec(), n);
        assert!(before.is_none_or(|before| before < n), "the order within a key is lost");
    });
    assert_eq!(read, acked, "records are where they were acknowledged");
    for (partition, end) in ends {
        assert_eq!(bounds(broker, &topic.name, partition), (0, end));
    }
}

pub fn headers(broker: &str) {
    let topic = Topic::new(broker, 1);
    let sent: [(&str, Option<&[u8]>); 6] = [
        ("text", Some(b"value")),
        ("null", None),
        ("empty", Some(b"")),
        ("binary", Some(&[0, 0xff, 0x80])),
        ("twice", Some(b"1")),
        ("twice", Some(b"2")),
    ];
    let mut headers = OwnedHeaders::new();
    for (key, value) in sent {
        headers = headers.insert(Header { key, value });
    }
    let producer = producer(broker, &[("enable.idempotence", "true")]);
    send(&producer, BaseRecord::with_opaque_to(&topic.name, Box::new(0)).key("k").payload("v").headers(headers));
    send::<str, str>(&producer, BaseRecord::with_opaque_to(&topic.name, Box::new(1)));
    producer.flush(PATIENCE).unwrap();
    let mut read = 0;
    read_all(broker, &topic.name, 2, |message| {
        if message.offset() == 0 {
            let headers = message.headers().unwrap();
            let came: Vec<_> = headers.iter().map(|header| (header.key, header.value)).collect();
            assert_eq!(came, sent);
        } else {
            assert_eq!((message.key(), message.payload()), (None, None), "a record of nothing stays nothing");
            assert!(message.headers().is_none());
        }
        read += 1;
    });
    assert_eq!(read, 2);
}

pub fn compressions(broker: &str) {
    for compression in ["none", "lz4", "snappy", "zstd"] {
        let topic = Topic::new(broker, 1);
        let settings = [("compression.type", compression), ("enable.idempotence", "true")];
        let producer = producer(broker, &settings);
        let value = "compresses well ".repeat(100);
        for n in 0..500 {
            send(&producer, BaseRecord::with_opaque_to(&topic.name, Box::new(n)).key("k").payload(&value));
        }
        producer.flush(PATIENCE).unwrap();
        assert_eq!(producer.context().stored.lock().unwrap().len(), 500, "{compression}");
        read_all(broker, &topic.name, 500, |message| assert_eq!(message.payload(), Some(value.as_bytes())));
    }
}

pub fn other_acks(broker: &str) {
    for acks in ["0", "1"] {
        let topic = Topic::new(broker, 1);
        let producer = producer(broker, &[("acks", acks)]);
        for n in 0..100 {
            let text = n.to_string();
            send(&producer, BaseRecord::with_opaque_to(&topic.name, Box::new(n)).key(&text).payload(&text));
        }
        producer.flush(PATIENCE).unwrap();
        let mut next = 0;
        read_all(broker, &topic.name, 100, |message| {
            assert_eq!(number(message), next, "acks {acks}");
            next += 1;
        });
    }
}

pub fn too_large(broker: &str) {
    let topic = Topic::new(broker, 1);
    // The client's own limit is higher, so that the broker has to refuse.
    let producer = producer(broker, &[("message.max.bytes", "4000000"), ("enable.idempotence", "true")]);
    let huge = vec![b'x'; 2_000_000];
    send(&producer, BaseRecord::with_opaque_to(&topic.name, Box::new(0)).key("k").payload(&huge));
    producer.flush(PATIENCE).unwrap();
    let failed = producer.context().failed.lock().unwrap().clone();
    let codes: Vec<_> = failed.iter().map(rdkafka::error::KafkaError::rdkafka_error_code).collect();
    assert_eq!(codes, [Some(RDKafkaErrorCode::MessageSizeTooLarge)]);
    drop(producer);
    send_numbers(broker, &topic.name, 1);
    assert_eq!(bounds(broker, &topic.name, 0), (0, 1));
}
