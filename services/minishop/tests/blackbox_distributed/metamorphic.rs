//! Whatever Redis does, the tables and topics are the same.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::checker::settled;
use crate::process::Process;
use crate::rest::post;
use crate::servers::OwnServer;
use crate::shop::Shop;

const ORDERS: usize = 200;
const CUSTOMERS: usize = 7;

/// What Redis does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Redis {
    On,
    Off,
    /// Emptied, and all subscriptions cut, each second.
    Flushed,
    /// Says on every channel, all the time, what nobody has said.
    Lying,
}

impl Redis {
    /// How often it does so.
    const fn beat(self) -> Option<Duration> {
        match self {
            Self::On | Self::Off => None,
            Self::Flushed => Some(Duration::from_secs(1)),
            Self::Lying => Some(Duration::from_millis(5)),
        }
    }

    fn misbehave(self, server: &mut Connection) {
        match self {
            Self::On | Self::Off => {}
            Self::Flushed => {
                server.say(&["FLUSHALL"]);
                server.say(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            }
            Self::Lying => {
                for channel in server.say(&["PUBSUB", "CHANNELS"]) {
                    for lie in ["liar", "", "\u{0}\u{1}{[", "01a20dc5-4a4e-7137-844e-f3a9c206c75f"] {
                        server.say(&["PUBLISH", &channel, lie]);
                    }
                }
            }
        }
    }
}

/// A connection that speaks just enough of Redis's protocol (RESP 2).
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(url: &str) -> Self {
        Self(BufReader::new(TcpStream::connect(url.trim_start_matches("redis://")).unwrap()))
    }

    /// Sends a command; returns the strings of its answer.
    fn say(&mut self, words: &[&str]) -> Vec<String> {
        let server = self.0.get_mut();
        write!(server, "*{}\r\n", words.len()).unwrap();
        for word in words {
            write!(server, "${}\r\n{word}\r\n", word.len()).unwrap();
        }
        self.answer()
    }

    fn answer(&mut self) -> Vec<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let (kind, rest) = line.trim_end().split_at(1);
        match kind {
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.0.read_exact(&mut bytes).unwrap();
                bytes.truncate(bytes.len() - 2);
                vec![String::from_utf8(bytes).unwrap()]
            }
            "*" => (0..rest.parse().unwrap()).flat_map(|_| self.answer()).collect(),
            "-" => panic!("Redis refuses: {rest}"),
            _ => Vec::new(),
        }
    }
}

/// All that a run leaves behind, without what differs by nature: ids and times.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    orders: Vec<(String, String, String, i32, i64)>,
    /// Idempotency keys by topic and customer, in their order.
    topics: BTreeMap<(String, String), Vec<String>>,
    answers: Vec<(u16, bool)>,
}

/// Sends the same commands as every other run: orders, each fifth again, each ninth with another content.
fn order(apis: &[Process]) -> Vec<(u16, bool)> {
    let mut answers = Vec::new();
    let mut send = |n: usize, qty: usize| {
        let customer = n % CUSTOMERS;
        let body = format!(r#"{{"customerId":"c{customer}","items":[{{"productId":"p1","qty":{qty},"price":10.5}}]}}"#);
        let api = &apis[answers.len() % apis.len()];
        let answer = post(api.addr("http"), "/orders", &[("x-idempotency-key", &format!("k{n:03}"))], &body);
        answers.push((answer.status, answer.header("idempotent-replayed").is_some()));
    };
    for n in 0..ORDERS {
        send(n, 1 + n % 3);
        if n % 5 == 0 {
            send(n, 1 + n % 3);
        }
        if n % 9 == 0 {
            send(n, 9);
        }
    }
    answers
}

fn run(server: &OwnServer, redis: Redis) -> Outcome {
    let shop = Shop::on(server.addresses());
    let start = |role: &str| {
        let mut command = shop.command(&[role]);
        if redis == Redis::Off {
            command.env_remove("REDIS_URL");
        }
        Process::start(command)
    };
    let (apis, _workers) = ([start("api"), start("api")], [start("worker"), start("worker")]);
    let done = AtomicBool::new(false);
    let answers = std::thread::scope(|scope| {
        let misbehaving = redis.beat().map(|beat| {
            let (done, url) = (&done, server.addresses().redis);
            scope.spawn(move || {
                let mut server = Connection::open(&url);
                while !done.load(Ordering::SeqCst) {
                    redis.misbehave(&mut server);
                    std::thread::park_timeout(beat);
                }
            })
        });
        let answers = order(&apis);
        settled(&shop);
        done.store(true, Ordering::SeqCst);
        if let Some(thread) = misbehaving {
            thread.thread().unpark();
            thread.join().unwrap();
        }
        answers
    });
    Outcome { orders: orders(&shop), topics: topics(&shop), answers }
}

fn orders(shop: &Shop) -> Vec<(String, String, String, i32, i64)> {
    shop.rows("SELECT idempotency_key, customer_id, status, version, total_minor FROM orders ORDER BY idempotency_key")
}

fn topics(shop: &Shop) -> BTreeMap<(String, String), Vec<String>> {
    let mut topics = BTreeMap::<_, Vec<String>>::new();
    for topic in minishop_contracts::topics::ALL {
        let mut seen = std::collections::HashSet::new();
        for record in shop.records(topic) {
            let event: Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            // Copies are lawful.
            if seen.insert(text(&event["eventId"])) {
                let place = (topic.to_owned(), text(&event["data"]["customerId"]));
                topics.entry(place).or_default().push(text(&event["idempotencyKey"]));
            }
        }
    }
    topics
}

#[test]
fn whatever_redis_does_tables_and_topics_are_the_same() {
    let server = OwnServer::start("redis");
    let expected = run(&server, Redis::On);
    assert_eq!(expected.orders.len(), ORDERS);
    for redis in [Redis::Off, Redis::Flushed, Redis::Lying] {
        assert_eq!(run(&server, redis), expected, "with Redis {redis:?}");
    }
}
