//! Orders that are watched and cancelled while others work on them.

use std::collections::{HashMap, HashSet};
use std::process::Command;
use std::time::Duration;

use minishop_core::clock::Clock as _;
use minishop_platform::clock::SystemClock;
use minishop_testkit::blocking::eventually;
use minishop_testkit::process::Process;
use minishop_testkit::rest::{get, post};
use serde_json::Value;
use uuid::Uuid;

use crate::support::checker::{Ledger as _, settled};
use crate::support::events::Events;
use crate::support::shop::Shop;

const ORDER: &str = r#"{"customerId":"c1","items":[{"productId":"p1","qty":2,"price":10.5}]}"#;

fn order(api: &Process, body: &str) -> String {
    let answer = post(api.addr("http"), "/orders", &[], body);
    assert_eq!(answer.status, 201, "{answer:?}");
    serde_json::from_str::<Value>(&answer.body).unwrap()["orderId"].as_str().unwrap().to_owned()
}

fn signal(process: &Process, name: &str) {
    assert!(Command::new("kill").args([name, &process.pid().to_string()]).status().unwrap().success());
}

/// Watches orders one after the other while a worker in another process handles them; returns each watcher's delay in ms, sorted.
fn lateness(with_redis: bool) -> Vec<i64> {
    let shop = Shop::new();
    let start = |role: &str| {
        let mut command = shop.command(&[role]);
        if !with_redis {
            command.env_remove("REDIS_URL");
        }
        Process::start(command)
    };
    let (api, worker) = (start("api"), start("worker"));
    order(&api, ORDER);
    settled(&shop);
    let mut heard = HashMap::new();
    for _ in 0..15 {
        // The worker is stopped until the order is watched.
        signal(&worker, "-STOP");
        let id = order(&api, ORDER);
        let mut events = Events::open(api.addr("http"), &id, None);
        assert_eq!(events.next(), Some((1, "created".to_owned())));
        signal(&worker, "-CONT");
        assert_eq!(events.next(), Some((2, "processed".to_owned())));
        heard.insert(id.parse::<Uuid>().unwrap(), SystemClock.now().timestamp_millis());
        assert_eq!(events.next(), None, "the stream ends behind a final status");
    }
    let changed = "SELECT order_id, (1000 * extract(epoch FROM at))::bigint FROM timeline WHERE version = 2";
    let changed: HashMap<Uuid, i64> = shop.rows::<(Uuid, i64)>(changed).into_iter().collect();
    let mut late: Vec<i64> = heard.iter().map(|(id, at)| at - changed[id]).collect();
    late.sort_unstable();
    late
}

#[test]
fn a_watcher_hears_of_another_processs_change_soon_and_sooner_with_redis() {
    for (with_redis, most) in [(true, 300), (false, 1500)] {
        let late = lateness(with_redis);
        let median = late[late.len() / 2];
        println!("heard after ms, Redis {with_redis}: median {median}, all {late:?}");
        assert!(median < most, "median {median} ms, Redis {with_redis}: {late:?}");
    }
}

#[test]
fn a_watch_goes_on_at_another_replica_after_kill_9_without_gap_or_repeat() {
    let shop = Shop::new();
    let (mut one, two) = (shop.api(), shop.api());
    let id = order(&one, ORDER);
    let mut events = Events::open(one.addr("http"), &id, None);
    assert_eq!(events.next(), Some((1, "created".to_owned())));
    one.kill();
    assert_eq!(events.next(), None, "cut");
    let mut events = Events::open(two.addr("http"), &id, Some(1));
    let _worker = shop.worker();
    assert_eq!(events.next(), Some((2, "processed".to_owned())));
    assert_eq!(events.next(), None);
    let one = shop.api();
    let mut again = Events::open(one.addr("http"), &id, Some(1));
    assert_eq!((again.next(), again.next()), (Some((2, "processed".to_owned())), None), "also after a restart");
    assert_eq!(get(one.addr("http"), &format!("/orders/{id}/events?resumeToken=2")).status, 204, "nothing follows");
}

#[test]
fn a_cancel_that_races_the_worker_ends_in_one_final_status_with_one_event() {
    const ORDERS: usize = 120;
    let shop = Shop::new();
    let (api, other, worker) = (shop.api(), shop.api(), shop.worker());
    // Once the worker has its partitions, cancels and the worker race.
    let first = order(&api, ORDER);
    settled(&shop);
    let mut answered: HashMap<Uuid, u16> = HashMap::from([(first.parse().unwrap(), 409)]);
    std::thread::scope(|scope| {
        let (api, other) = (&api, &other);
        let clients: Vec<_> = (0..4)
            .map(|client| {
                scope.spawn(move || {
                    let body = ORDER.replace("c1", &format!("c{client}"));
                    let mut answered = Vec::new();
                    for n in 0..ORDERS / 4 {
                        let id = order(api, &body);
                        // Some at once, some while the worker handles the order.
                        std::thread::park_timeout(Duration::from_millis(8 * (n as u64 % 8)));
                        let path = format!("/orders/{id}/cancel");
                        let both = [api, other].map(|api| post(api.addr("http"), &path, &[], "{}"));
                        assert_eq!(both[0].status, both[1].status, "{both:?}");
                        answered.push((id.parse().unwrap(), both[0].status));
                    }
                    answered
                })
            })
            .collect();
        answered.extend(clients.into_iter().flat_map(|client| client.join().unwrap()));
    });
    settled(&shop);
    let cancelled = answered.values().filter(|status| **status == 200).count();
    println!("{cancelled} of {ORDERS} orders were cancelled before they were processed");
    assert!(answered.values().all(|status| matches!(status, 200 | 409)), "{answered:?}");
    assert!(cancelled > 0 && cancelled < ORDERS, "no race: {cancelled}");
    let rows = "SELECT o.order_id, o.status, o.version, (SELECT count(*) FROM timeline t WHERE t.order_id = o.order_id AND \
                t.version IS NOT NULL) FROM orders o";
    let mut told = HashMap::from([("processed", HashSet::new()), ("cancelled", HashSet::new())]);
    for (id, status, version, rows) in shop.rows::<(Uuid, String, i32, i64)>(rows) {
        let wanted = if answered[&id] == 200 { "cancelled" } else { "processed" };
        assert_eq!((status.as_str(), version, rows), (wanted, 2, 1), "{id}");
        told.get_mut(wanted).unwrap().insert(id);
    }
    for (status, orders) in told {
        let mut events: HashMap<Uuid, HashSet<Uuid>> = HashMap::new();
        for record in shop.records(&format!("orders.{status}")) {
            let value: Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
            let id = |value: &Value| value.as_str().unwrap().parse::<Uuid>().unwrap();
            events.entry(id(&value["data"]["orderId"])).or_default().insert(id(&value["eventId"]));
        }
        assert_eq!(events.keys().copied().collect::<HashSet<_>>(), orders, "orders.{status}");
        assert!(events.values().all(|ids| ids.len() == 1), "one event for each: {events:?}");
    }
    // The worker settles each created event once, also that of an order that was cancelled before.
    eventually(Duration::from_secs(30), "every created event is settled", || {
        usize::try_from(shop.number("SELECT count(*) FROM inbox")) == Ok(ORDERS + 1)
    });
    assert_eq!(shop.number("SELECT count(*) FROM parked"), 0);
    drop(worker);
}

#[test]
fn the_command_line_cancels_shows_and_watches() {
    let shop = Shop::new();
    let api = shop.api();
    let server = format!("http://{}", api.addr("http"));
    let run = |words: &[&str]| {
        let done = shop.command(words).env("MINISHOP_SERVER", &server).output().unwrap();
        let said = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
        (done.status.code(), said)
    };
    let id = order(&api, ORDER);
    let (code, said) = run(&["order", "cancel", &id, "--output", "json"]);
    assert_eq!((code, serde_json::from_str::<Value>(&said).unwrap()["status"].as_str()), (Some(0), Some("cancelled")));
    assert_eq!(run(&["order", "cancel", &id]).0, Some(0), "again");
    let (code, told) = run(&["order", "show", &id]);
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].contains("KIND") && lines[1].contains(" created ") && lines[2].contains(" cancelled "), "{told}");
    let (code, told) = run(&["order", "show", &id, "--output", "json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, told["entries"].as_array().unwrap().len(), &told["parked"]), (Some(0), 2, &Value::Array(Vec::new())));
    let (code, seen) = run(&["order", "watch", &id]);
    assert_eq!(
        (code, seen.lines().map(|line| line.rsplit(' ').next().unwrap()).collect()),
        (Some(0), vec!["created", "cancelled"])
    );
    let (code, seen) = run(&["order", "watch", &id, "--since", "1", "--output", "json"]);
    assert_eq!((code, serde_json::from_str::<Value>(&seen).unwrap()["version"].as_i64()), (Some(0), Some(2)));
    assert_eq!(run(&["order", "watch", &id, "--since", "2"]), (Some(0), String::new()), "nothing follows");

    let processed = order(&api, ORDER);
    let _worker = shop.worker();
    let (code, seen) = run(&["order", "watch", &processed]);
    assert_eq!((code, seen.lines().count()), (Some(0), 2), "{seen}");
    let (code, said) = run(&["order", "cancel", &processed]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("error[ORDER_NOT_CANCELLABLE] "), "{said}");
    for what in ["cancel", "show", "watch"] {
        let (code, said) = run(&["order", what, &Uuid::nil().to_string()]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.starts_with("error[ORDER_NOT_FOUND] "), "{said}");
    }
}
