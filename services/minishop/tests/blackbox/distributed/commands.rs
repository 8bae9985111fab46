//! Commands that access the database and the brokers directly.

use crate::support::announcing;
use crate::support::outbox;
use crate::support::replaying;
use crate::support::shop::Shop;
use crate::support::topics;

#[test]
fn an_order_whose_event_is_lost_is_announced_again_and_processed() {
    let shop = Shop::new();
    let (api, _worker) = (shop.api(), shop.worker());
    let scenario = announcing::an_order_whose_event_is_lost_is_announced_again_and_processed;
    shop.place(&api, |place| scenario(place, &|sql| shop.execute(sql)));
}

#[test]
fn history_is_published_again_to_another_topic_and_to_no_live_one() {
    let shop = Shop::new();
    let (api, _worker) = (shop.api(), shop.worker());
    shop.place(&api, replaying::history_is_published_again_to_another_topic_and_to_no_live_one);
}

#[test]
fn topics_are_checked_on_the_command_line() {
    let shop = Shop::new();
    let api = shop.api();
    shop.place(&api, topics::topics_are_checked_on_the_command_line);
}

#[test]
fn the_outbox_is_looked_at_on_the_command_line() {
    let shop = Shop::new();
    let api = shop.api();
    shop.place(&api, outbox::the_outbox_is_looked_at_on_the_command_line);
}
