//! Whatever Redis does, the tables and topics are the same.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use minishop_testkit::process::Process;
use minishop_testkit::rest::post;
use serde_json::Value;
use uuid::Uuid;

use crate::support::checker::settled;
use crate::support::servers::OwnServer;
use crate::support::shop::Shop;

const ORDERS: usize = 200;
const CUSTOMERS: usize = 7;

/// What Redis does during a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Redis {
    On,
    Off,
    /// Emptied, and all subscriptions cut, each second.
    Flushed,
    /// Always full: it has one megabyte, and evicts the least recently used entries for each new one.
    Evicting,
    /// Publishes invalid and false hints on every channel all the time: also that every order has changed.
    Lying,
}

impl Redis {
    /// Returns the interval of the misbehaviour.
    const fn beat(self) -> Option<Duration> {
        match self {
            Self::On | Self::Off => None,
            Self::Flushed => Some(Duration::from_secs(1)),
            Self::Evicting | Self::Lying => Some(Duration::from_millis(5)),
        }
    }

    fn begin(self, server: &mut Connection) {
        if self == Self::Evicting {
            let used = server.number("memory", "used_memory");
            server.say(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru", "maxmemory", &(used + (1 << 20)).to_string()]);
        }
    }

    fn misbehave(self, server: &mut Connection, accepted: &Mutex<Vec<Uuid>>) {
        match self {
            Self::On | Self::Off => {}
            Self::Flushed => {
                server.say(&["FLUSHALL"]);
                server.say(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            }
            Self::Evicting => {
                let key = format!("entry-{}", server.number("commandstats", "cmdstat_set:calls"));
                server.say(&["SET", &key, &"x".repeat(1 << 16)]);
            }
            Self::Lying => {
                let orders = accepted.lock().unwrap().iter().flat_map(|order| *order.as_bytes()).collect::<Vec<u8>>();
                let seen = [b"liar\0", &orders[..]].concat();
                for channel in server.say(&["PUBSUB", "CHANNELS"]) {
                    for lie in [&b"liar"[..], b"", b"\0\x01{[", b"01a20dc5-4a4e-7137-844e-f3a9c206c75f", &seen] {
                        server.say(&[&b"PUBLISH"[..], channel.as_bytes(), lie]);
                    }
                }
            }
        }
    }

    fn end(self, server: &mut Connection) {
        if self == Self::Evicting {
            assert!(server.number("stats", "evicted_keys") > 10, "nothing was dropped");
            server.say(&["CONFIG", "SET", "maxmemory", "0"]);
            server.say(&["FLUSHALL"]);
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
    fn say(&mut self, words: &[impl AsRef<[u8]>]) -> Vec<String> {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words.iter().map(AsRef::as_ref) {
            command.extend(format!("${}\r\n", word.len()).into_bytes());
            command.extend([word, b"\r\n"].concat());
        }
        self.0.get_mut().write_all(&command).unwrap();
        self.answer()
    }

    /// Reads a number from the server's `INFO`; 0 if it is missing.
    fn number(&mut self, section: &str, name: &str) -> u64 {
        let told = self.say(&["INFO", section]).join("\n");
        let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix([':', '=']));
        line.map_or(0, |value| value.split(',').next().unwrap().trim().parse().unwrap())
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

/// Everything that a run leaves behind, except ids and times.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    orders: Vec<(String, String, String, i32, i64)>,
    /// Idempotency keys by topic and customer, in order.
    topics: BTreeMap<(String, String), Vec<String>>,
    answers: Vec<(u16, bool)>,
}

/// Sends the same commands in every run: orders, each fifth again, each ninth with other content.
fn order(apis: &[Process], accepted: &Mutex<Vec<Uuid>>) -> Vec<(u16, bool)> {
    let mut answers = Vec::new();
    let mut send = |n: usize, qty: usize| {
        let customer = n % CUSTOMERS;
        let body = format!(r#"{{"customerId":"c{customer}","items":[{{"productId":"p1","qty":{qty},"price":10.5}}]}}"#);
        let api = &apis[answers.len() % apis.len()];
        let answer = post(api.addr("http"), "/orders", &[("x-idempotency-key", &format!("k{n:03}"))], &body);
        if answer.status == 201 {
            let order = serde_json::from_str::<Value>(&answer.body).unwrap()["orderId"].as_str().unwrap().parse().unwrap();
            accepted.lock().unwrap().push(order);
        }
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

/// Ends the misbehaviour on drop, also when the test fails, because its thread is joined.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
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
    let (done, accepted) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let answers = std::thread::scope(|scope| {
        let misbehaving = redis.beat().map(|beat| {
            let (done, accepted, url) = (&done, &accepted, server.addresses().redis);
            scope.spawn(move || {
                let mut server = Connection::open(&url);
                redis.begin(&mut server);
                while !done.load(Ordering::SeqCst) {
                    redis.misbehave(&mut server, accepted);
                    std::thread::park_timeout(beat);
                }
                redis.end(&mut server);
            })
        });
        let ends = Ends(&done);
        let answers = order(&apis, &accepted);
        settled(&shop);
        drop(ends);
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
            // Copies are allowed.
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
    for redis in [Redis::Off, Redis::Flushed, Redis::Evicting, Redis::Lying] {
        assert_eq!(run(&server, redis), expected, "with Redis {redis:?}");
    }
}
