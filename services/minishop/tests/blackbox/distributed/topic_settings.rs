//! `topics check` on topics whose settings were changed.

use std::process::Output;
use std::time::Duration;

use minishop_testkit::blocking::{block_on, eventually};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use crate::support::servers::OwnServer;
use crate::support::shop::Shop;

fn check(shop: &Shop) -> Output {
    shop.command(&["topics", "check"]).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn what_create_makes_passes_check_whatever_the_brokers_defaults_are() {
    // A broker of its own, because its defaults are changed, which must not affect other tests' topics.
    let server = OwnServer::start("kafka");
    let addresses = server.addresses();
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &addresses.kafka).create().unwrap();
    let defaults = AlterConfig::new(ResourceSpecifier::Broker(1))
        .set("log.retention.ms", "86400000")
        .set("log.cleanup.policy", "compact")
        .set("message.max.bytes", "500000");
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(20)));
    for done in block_on(client.alter_configs(&[defaults], &options)).unwrap() {
        done.unwrap();
    }
    let shop = Shop::on(addresses);
    let found = check(&shop);
    assert_eq!((found.status.code(), said(&found).contains("error[")), (Some(0), false), "{}", said(&found));
    for prefix in ["others.", "more.", "yet-others."] {
        let run = |what| shop.command(&["topics", what, "--topic-prefix", prefix]).output().unwrap();
        let told = String::from_utf8(run("create").stdout).unwrap();
        for setting in ["cleanup.policy=delete", "retention.ms=604800000", "max.message.bytes=2000000"] {
            assert!(told.contains(setting), "{setting}: {told}");
        }
        let at_once = run("check");
        assert_eq!(at_once.status.code(), Some(0), "{}", said(&at_once));
    }
}

#[test]
fn topics_that_lose_events_by_their_settings_are_named_all_at_once() {
    let shop = Shop::new();
    let sound = check(&shop);
    assert_eq!((sound.status.code(), said(&sound).contains("error[")), (Some(0), false), "{}", said(&sound));
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", shop.brokers()).create().unwrap();
    let (created, dead, failed) = (shop.topic("orders.created"), shop.topic("orders.created.dlq"), shop.topic("orders.failed"));
    let changes = [
        AlterConfig::new(ResourceSpecifier::Topic(&created)).set("cleanup.policy", "compact").set("retention.ms", "60000"),
        AlterConfig::new(ResourceSpecifier::Topic(&dead)).set("max.message.bytes", "1048588"),
    ];
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(20)));
    for done in block_on(client.alter_configs(&changes, &options)).unwrap() {
        done.unwrap();
    }
    for done in block_on(client.delete_topics(&[&failed], &options)).unwrap() {
        done.unwrap();
    }
    let wanted = [
        format!("error[TOPIC_MISSING] {failed}: does not exist"),
        format!("error[TOPIC_UNSAFE] {created}: cleanup.policy compacts"),
        format!("error[TOPIC_UNSAFE] {created}: retention.ms is 60000"),
        format!("error[TOPIC_UNSAFE] {dead}: max.message.bytes is 1048588"),
    ];
    // The brokers apply a change a moment after they accepted it.
    eventually(Duration::from_secs(20), "all are named", || {
        let found = check(&shop);
        let all = wanted.iter().all(|line| said(&found).contains(line)) && said(&found).matches("error[").count() == 4;
        all.then(|| assert_eq!(found.status.code(), Some(1)))
    });
}
