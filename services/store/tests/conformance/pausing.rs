//! Outages of endpoints, for which workers pause calls.

use std::time::Duration;

use chrono::TimeDelta;
use minishop_store::{Outage, PausedEndpoint};
use minishop_testkit::rows::now;

use crate::support::Fixture;

fn outage(why: &str) -> Outage {
    Outage { since: now(), why: why.to_owned(), next_probe_at: now() + TimeDelta::seconds(1) }
}

fn paused(owner: &str, outage: Outage) -> PausedEndpoint {
    PausedEndpoint { owner: owner.to_owned(), endpoint: "http://shop.test".to_owned(), outage }
}

pub async fn an_outage_is_told_for_as_long_as_it_lasts_and_its_worker_lives(f: Fixture) {
    let tell = async |owner: &str, outage: Option<Outage>| {
        f.store.endpoints.report(owner, "http://shop.test", outage.as_ref()).await.unwrap();
    };
    let list = async || f.second().await.endpoints.paused().await.unwrap();
    assert_eq!(list().await, []);
    tell("b", Some(outage("down\0"))).await;
    tell("a", Some(outage("down"))).await;
    assert_eq!(list().await, [paused("a", outage("down")), paused("b", outage("down\u{fffd}"))]);
    let later = Outage { next_probe_at: now() + TimeDelta::minutes(1), ..outage("down still") };
    tell("b", Some(later.clone())).await;
    assert_eq!(list().await[1], paused("b", later.clone()), "each worker has one word");
    f.age(Duration::from_secs(10)).await;
    tell("b", Some(later.clone())).await;
    f.age(Duration::from_secs(10)).await;
    assert_eq!(list().await, [paused("b", later)], "the other has died, or it would have told again");
    tell("b", None).await;
    assert_eq!((list().await.len(), f.count("endpoint_outage").await), (0, 0), "what the dead one told is gone, too");
}
