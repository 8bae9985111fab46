//! Clients that order without a pause and record exactly what was promised to them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use minishop_testkit::rest::{Answer, try_get, try_post};
use serde_json::Value;
use uuid::Uuid;

/// How long the outcome of one command may stay unknown.
const CERTAIN: Duration = Duration::from_mins(1);
/// Timeout of one answer, whatever has failed.
const ANSWER: Duration = Duration::from_secs(6);
/// Timeout of a command whose commit is in doubt: it may use its whole deadline, because its client waits for certainty.
const IN_DOUBT: Duration = Duration::from_secs(61);
/// Pause before a client sends a command again.
const AGAIN: Duration = Duration::from_millis(20);

/// An order that a client was promised.
#[derive(Debug, Clone)]
pub struct Promise {
    pub key: String,
    pub order: Uuid,
    /// Customer of the order. Most customers order through one client and one at a time; one orders through all of them at once.
    pub customer: String,
    pub total_minor: i32,
    /// When it was first sent, and when the client read the answer: later orders of the customer were sent after that.
    pub sent: Instant,
    pub acknowledged: Instant,
}

/// State shared by the clients and the test.
#[derive(Debug, Default)]
pub struct Load {
    /// Where the APIs answer now; each client uses them in turn.
    addresses: Mutex<Vec<String>>,
    stop: AtomicBool,
    acknowledged: AtomicUsize,
    /// Refusals by status and code, and broken connections as `no answer`.
    refusals: Mutex<BTreeMap<String, usize>>,
}

impl Load {
    /// Sets the API's address.
    pub fn moved(&self, address: &str) {
        self.spread([address]);
    }

    /// Sets the addresses of several APIs. A customer's orders go to each in turn.
    pub fn spread<'a>(&self, addresses: impl IntoIterator<Item = &'a str>) {
        *self.addresses.lock().unwrap() = addresses.into_iter().map(str::to_owned).collect();
    }

    /// Returns the number of acknowledged commands.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Returns the refusals with their counts.
    pub fn refusals(&self) -> BTreeMap<String, usize> {
        self.refusals.lock().unwrap().clone()
    }

    /// Runs `clients` clients while `test` runs, and then until each knows the outcome of its last command.
    pub fn during<T>(&self, clients: u32, test: impl FnOnce() -> T) -> (T, Vec<Promise>) {
        /// Stops the clients also when the test fails.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..clients).map(|client| scope.spawn(move || self.client(client))).collect();
            let stop = Stop(&self.stop);
            let result = test();
            drop(stop);
            (result, running.into_iter().flat_map(|client| client.join().unwrap()).collect())
        })
    }

    fn client(&self, client: u32) -> Vec<Promise> {
        let mut promises = Vec::new();
        for n in 0.. {
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            promises.push(self.order(client, n));
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
        promises
    }

    /// Sends one command until its outcome is certain, then reads the order back.
    fn order(&self, client: u32, n: u32) -> Promise {
        // Odd periods, so that with two APIs a customer's next order goes to the other one.
        let customer = if n % 15 == 14 { "everybodys".to_owned() } else { format!("c{client}-{}", n % 5) };
        let key = format!("k-{client}-{n}");
        let (qty, cents) = (1 + n % 3, 50 + n % 7);
        let body = format!(r#"{{"customerId":"{customer}","items":[{{"productId":"p1","qty":{qty},"price":10.{cents}}}]}}"#);
        let sent = Instant::now();
        let answer = self.until(n, 201, |api| try_post(api, "/orders", &[("x-idempotency-key", &key)], &body));
        let acknowledged = Instant::now();
        let order = serde_json::from_str::<Value>(&answer.body).unwrap()["orderId"].as_str().unwrap().parse().unwrap();
        // An acknowledged order is readable at once; the read is repeated while nothing answers.
        self.until(n, 200, |api| try_get(api, &format!("/orders/{order}")));
        let total_minor = i32::try_from(qty * (1000 + cents)).unwrap();
        Promise { key, order, customer, total_minor, sent, acknowledged }
    }

    /// Repeats a request until its outcome is known; any answer other than `wanted` or 503 fails the test.
    fn until(&self, n: u32, wanted: u16, send: impl Fn(&str) -> std::io::Result<Answer>) -> Answer {
        let deadline = Instant::now() + CERTAIN;
        loop {
            let address = {
                let addresses = self.addresses.lock().unwrap();
                // Nothing answers before the first address is set.
                addresses.get(n as usize % addresses.len().max(1)).cloned().unwrap_or_default()
            };
            let began = Instant::now();
            let answer = send(&address);
            let limit = if may_have_been_in_doubt(wanted, &answer) { IN_DOUBT } else { ANSWER };
            assert!(began.elapsed() < limit, "{:?} until {answer:?}", began.elapsed());
            let refusal = match answer {
                Ok(answer) if answer.status == wanted => return answer,
                Ok(answer) if answer.status == 503 => {
                    let code = serde_json::from_str::<Value>(&answer.body).unwrap()["code"].clone();
                    format!("503 {}", code.as_str().unwrap())
                }
                Ok(answer) => panic!("neither {wanted} nor 503: {answer:?}"),
                Err(_) => "no answer".to_owned(),
            };
            *self.refusals.lock().unwrap().entry(refusal).or_default() += 1;
            assert!(Instant::now() < deadline, "not certain within {CERTAIN:?}: {:?}", self.refusals());
            std::thread::park_timeout(AGAIN);
        }
    }
}

/// Returns whether a command may have waited for the outcome of an earlier attempt.
fn may_have_been_in_doubt(wanted: u16, answer: &std::io::Result<Answer>) -> bool {
    wanted == 201 && answer.as_ref().is_ok_and(|answer| answer.status == 201 || answer.body.contains("OUTCOME_UNKNOWN"))
}

/// Formats minor units like the contract: `21` and `10.5`.
pub fn in_full(minor: i64) -> String {
    let text = format!("{}.{:02}", minor / 100, minor % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
