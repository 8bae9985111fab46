//! Publishes again the `orders.created` event of orders that have lost it, with the same id and bytes.

use std::collections::BTreeSet;
use std::time::Duration;

use minishop_contracts::ops::v1::{AnnounceOrdersRequest, AnnounceOrdersResponse, SkippedOrder};
use minishop_contracts::{Validate as _, text, topics};
use minishop_core::ids::OrderId;
use minishop_core::refusal::Refusal;
use minishop_core::violation::{FieldCode, Violation};
use minishop_platform::events::rebuild::Rebuilder;
use minishop_store::{Announce, AnnouncedAgain, Left, LostAnnouncements};

use crate::app::App;
use crate::call::Call;
use crate::pages::Page;
use crate::refusals;

/// Validates a message: it has exactly one of ids and age. The refusal includes `found`, from decoding.
pub fn checked(call: &Call, message: AnnounceOrdersRequest, mut found: Vec<Violation>) -> Result<AnnounceOrdersRequest, Refusal> {
    found.extend(message.violations());
    let by_age = message.older_than_seconds.is_some();
    match (message.order_ids.is_empty(), by_age) {
        (true, false) => {
            found.push(Violation::new(
                "order_ids",
                FieldCode::Required,
                "must have at least one entry, or give older_than_seconds",
            ));
        }
        (false, true) => {
            found.push(Violation::new("older_than_seconds", FieldCode::Conflict, "must not be given together with order_ids"));
        }
        (false, false) if !message.page_token.is_empty() => {
            found.push(Violation::new("page_token", FieldCode::Conflict, "must not be given together with order_ids"));
        }
        _ => {}
    }
    if found.is_empty() { Ok(message) } else { Err(refusals::fields(call.protocol, found)) }
}

/// Announces orders again that are still `created` and whose event is neither in the outbox nor in the lot.
pub async fn announce(app: &App, call: &Call, request: AnnounceOrdersRequest) -> Result<AnnounceOrdersResponse, Refusal> {
    let AnnounceOrdersRequest { order_ids, older_than_seconds, dry_run, reason, operator, page_token } = request;
    let page = Page::of(call, &["announce", &call.client.0], 0, &page_token)?;
    let malformed: Vec<String> = order_ids.iter().filter(|id| OrderId::parse(id).is_none()).map(|id| text::shown(id)).collect();
    let ids: BTreeSet<OrderId> = order_ids.iter().filter_map(|id| OrderId::parse(id)).collect();
    let at = app.clock.now();
    let age = Duration::from_secs(older_than_seconds.unwrap_or_default().unsigned_abs().into());
    let which = match older_than_seconds {
        Some(_) => LostAnnouncements::Before { time: at - age, after: page.after.map(OrderId) },
        None => LostAnnouncements::Ids(ids.into_iter().collect()),
    };
    let ask = Announce {
        which,
        consumer: app.config.kafka_group.clone(),
        dry_run,
        requested_by: call.requested_by(operator, reason),
        at,
    };
    let rebuilder = Rebuilder::new(&app.config, &topics::prefixed(&app.config.topic_prefix, topics::CREATED));
    let (operations, commits) = (app.store.operations.clone(), app.commits.clone());
    let write = async move {
        let again =
            operations.announce(&ask, |origin| rebuilder.created(origin)).await.inspect_err(|error| commits.doubt(error))?;
        commits.report(again.rows.clone());
        Ok(again)
    };
    let again: AnnouncedAgain = app.detached_writes.write(call, write).await?;
    tracing::info!(order.count = again.orders.len(), dry_run, "an operator asks to announce orders again");
    let skipped = again.left.into_iter().map(|(id, why)| (id.to_string(), why));
    let skipped = skipped.chain(malformed.into_iter().map(|id| (id, Left::NotFound)));
    Ok(AnnounceOrdersResponse {
        order_ids: again.orders.iter().map(ToString::to_string).collect(),
        skipped: skipped.map(|(order_id, why)| SkippedOrder { order_id, reason: why.as_str().to_owned() }).collect(),
        next_page_token: page.token(again.next.map(|id| id.0)),
    })
}
