//! One transaction for a batch of records: gate, parked keys, known orders, adoption, fence, journal.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use minishop_core::clock::Clock;
use minishop_core::idempotency::IdempotencyKey;
use minishop_core::ids::{ClientId, EventId, Ids, OrderId};
use minishop_core::parking::{DeadCode, ErrorClass, State, error_fingerprint};
use minishop_platform::bus::Record;
use minishop_platform::config::Config;
use minishop_platform::relay::Relay;
use minishop_platform::store::{
    AdoptedOrder, Inbox, InboxEntry, Journal, KnownOrder, Note, OutboxRow, ParkedEvent, Position, Settlement, StoreError,
    Transition,
};

use crate::decode::{Content, Created, Incoming, Refused, decode};
use crate::judge::{Verdict, judge};
use crate::metrics::{Code, Outcome, WorkerMetrics};
use crate::outgoing::{self, Settings};

/// Settles records, batch by batch.
#[derive(Debug)]
pub struct Processor {
    /// The consumer's transactions.
    pub inbox: Arc<dyn Inbox>,
    /// Where committed outbox rows go.
    pub relay: Relay,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub ids: Arc<dyn Ids>,
    /// What the operator has set; its group is the consumer's name in the inbox.
    pub config: Arc<Config>,
    /// What is counted.
    pub metrics: WorkerMetrics,
}

/// What a batch will write, as it is decided.
#[derive(Default)]
struct Plan {
    adopt: Vec<AdoptedOrder>,
    transitions: Vec<Transition>,
    journal: Journal,
    outcomes: Vec<&'static str>,
    dead: Vec<DeadCode>,
}

impl Processor {
    /// Settles all records in their order; returns how far each partition is settled.
    ///
    /// After an error, records before the failing batch are settled; processing all of them again changes nothing.
    pub async fn step(&self, records: Vec<Record>) -> Result<Vec<Position>, StoreError> {
        let mut settled = HashMap::new();
        let mut rest = records.into_iter().map(decode).peekable();
        while rest.peek().is_some() {
            let batch = cut(&mut rest);
            let positions = self.settle_or_split(&batch).await?;
            settled.extend(positions.into_iter().map(|p| ((p.topic, p.partition), p.next_offset)));
        }
        Ok(settled.into_iter().map(|((topic, partition), next_offset)| Position { topic, partition, next_offset }).collect())
    }

    /// Settles a batch; one that the store refuses is halved until the guilty record stands alone, which is then a dead letter.
    async fn settle_or_split(&self, batch: &[Incoming]) -> Result<Vec<Position>, StoreError> {
        match self.settle(batch, None).await {
            Err(StoreError::Fail { source, .. }) if batch.len() > 1 => {
                tracing::warn!(batch.records = batch.len(), error = ?source, "the store refuses a batch; it is split");
                let (first, second) = batch.split_at(batch.len() / 2);
                Box::pin(self.settle_or_split(first)).await?;
                Box::pin(self.settle_or_split(second)).await
            }
            Err(StoreError::Fail { source, .. }) => {
                tracing::error!(error = ?source, "the store refuses an event; it becomes a dead letter");
                let reason = Refused {
                    code: DeadCode::DataInvalid,
                    message: "the store cannot hold this event".to_owned(),
                    event_type: None,
                };
                self.settle(batch, Some(&reason)).await
            }
            other => other,
        }
    }

    async fn settle(&self, batch: &[Incoming], refuse: Option<&Refused>) -> Result<Vec<Position>, StoreError> {
        let started = tokio::time::Instant::now();
        let mut plan = Plan { journal: Journal { positions: positions(batch), ..Journal::default() }, ..Plan::default() };
        let mut tx = self.inbox.begin(&self.config.kafka_group).await?;
        let fresh = self.gate(tx.as_mut(), batch, &mut plan).await?;
        let keys: Vec<Bytes> =
            fresh.iter().filter(|i| !matches!(i.content, Content::Refused(_))).map(|i| i.key.clone()).collect();
        let mut parked = if keys.is_empty() { HashSet::new() } else { tx.parked_keys(&keys).await? };
        // What the store refused once is not asked about again.
        let known = if refuse.is_none() { self.known(tx.as_mut(), &fresh).await? } else { Vec::new() };
        for incoming in fresh {
            self.decide(incoming, refuse, &known, &mut parked, &mut plan);
        }
        if !plan.adopt.is_empty() && tx.adopt(&plan.adopt).await?.len() < plan.adopt.len() {
            // Somebody committed one of these orders since it was looked up: the next try sees it.
            return Err(StoreError::Retry { operation: "worker.adopt", source: anyhow::anyhow!("an order appeared meanwhile") });
        }
        let passed = if plan.transitions.is_empty() { HashMap::new() } else { tx.settle(&plan.transitions).await? };
        for stopped in plan.transitions.iter().filter(|t| !passed.contains_key(&t.order_id)) {
            plan.journal.notes.push(Note {
                order_id: stopped.order_id,
                kind: "ignored",
                at: stopped.at,
                cause: stopped.cause,
                detail: None,
            });
        }
        let dead_ids = tx.record(&plan.journal).await?;
        tx.commit().await?;
        Ok(self.committed(plan, &passed, dead_ids, started))
    }

    /// Passes the gate; returns the events that are new. Copies are counted; another event under a known id is refused, under
    /// an id of its own.
    async fn gate<'a>(
        &self,
        tx: &mut dyn Settlement,
        batch: &'a [Incoming],
        plan: &mut Plan,
    ) -> Result<Vec<&'a Incoming>, StoreError> {
        let mut entries: Vec<InboxEntry> = batch.iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.event_id);
        let gate = tx.gate(&entries).await?;
        let (fresh, seen): (Vec<_>, Vec<_>) = batch.iter().partition(|i| gate.fresh.contains(&i.event_id));
        let conflicts: Vec<_> = seen.iter().filter(|i| gate.settled.get(&i.event_id).is_some_and(|sha| *sha != i.sha)).collect();
        plan.outcomes.extend(std::iter::repeat_n("copy", seen.len() - conflicts.len()));
        if !conflicts.is_empty() {
            let own_ids: Vec<_> = conflicts
                .iter()
                .map(|i| InboxEntry { event_id: id_of_record(&i.record), data_sha: i.sha, order_id: None })
                .collect();
            let gate = tx.gate(&own_ids).await?;
            for (incoming, own) in conflicts.iter().zip(&own_ids).filter(|(_, own)| gate.fresh.contains(&own.event_id)) {
                let refused = Refused {
                    code: DeadCode::DuplicateConflict,
                    message: "another event was settled under this event id".to_owned(),
                    event_type: None,
                };
                self.refuse(own.event_id, incoming, &refused, plan);
            }
        }
        Ok(fresh)
    }

    async fn known(&self, tx: &mut dyn Settlement, fresh: &[&Incoming]) -> Result<Vec<KnownOrder>, StoreError> {
        let created: Vec<&Created> =
            fresh.iter().filter_map(|i| if let Content::Created(c) = &i.content { Some(c.as_ref()) } else { None }).collect();
        if created.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<OrderId> = created.iter().map(|c| c.order_id).collect();
        let mut known = tx.orders(&ids, &[]).await?;
        let found: HashSet<OrderId> = known.iter().map(|k| k.order_id).collect();
        let keys: Vec<(ClientId, IdempotencyKey)> =
            created.iter().filter(|c| !found.contains(&c.order_id)).map(|c| (c.client_id.clone(), c.key.clone())).collect();
        if !keys.is_empty() {
            known.extend(tx.orders(&[], &keys).await?);
        }
        Ok(known)
    }

    fn decide(
        &self,
        incoming: &Incoming,
        refuse: Option<&Refused>,
        known: &[KnownOrder],
        parked: &mut HashSet<Bytes>,
        plan: &mut Plan,
    ) {
        let now = self.clock.now();
        let event = match (&incoming.content, refuse) {
            (_, Some(refused)) | (Content::Refused(refused), None) => {
                return self.refuse(incoming.event_id, incoming, refused, plan);
            }
            (Content::Newer { event_type }, None) => {
                parked.insert(incoming.key.clone());
                plan.outcomes.push("held");
                return plan.journal.parked.push(waiting(incoming, event_type, Some(event_type)));
            }
            (Content::Created(event), None) => event.as_ref(),
        };
        let by_id = known.iter().find(|k| k.order_id == event.order_id);
        let by_key = known.iter().find(|k| k.client_id == event.client_id && k.key == event.key);
        let earlier = plan.adopt.iter().find(|a| a.client_id == event.client_id && a.key == event.key).map(known_of);
        let verdict = judge(incoming.event_id, event, by_id, by_key.or(earlier.as_ref()));
        let note = |kind| Note { order_id: event.order_id, kind, at: now, cause: incoming.event_id, detail: None };
        let adopts = verdict == Verdict::Adopt;
        match verdict {
            Verdict::Refuse(code, message) => {
                let refused = Refused { code, message: message.to_owned(), event_type: Some(event.event_type.clone()) };
                return self.refuse(incoming.event_id, incoming, &refused, plan);
            }
            Verdict::Duplicate(of) => {
                plan.journal.duplicates.push((incoming.event_id, of));
                return plan.outcomes.push("duplicate");
            }
            Verdict::Ignore => {
                plan.journal.notes.push(note("ignored"));
                return plan.outcomes.push("ignored");
            }
            Verdict::Adopt => {
                plan.adopt.push(adopted(incoming.event_id, event));
                plan.journal.notes.push(note("adopted"));
            }
            Verdict::Handle => {}
        }
        if parked.contains(&incoming.key) {
            plan.outcomes.push("parked");
            plan.journal.notes.push(note("parked"));
            return plan.journal.parked.push(waiting(incoming, &event.event_type, None));
        }
        let settings = self.settings();
        // An adopted order begins with the event that brought it, whatever number that event bears.
        let expected_version = if adopts { 1 } else { event.sequence };
        plan.transitions.push(outgoing::processed(incoming.event_id, event, expected_version, now, &settings));
        plan.outcomes.push("processed");
        let waited = now.signed_duration_since(event.occurred_at).to_std().unwrap_or_default();
        self.metrics.latency.observe(waited.as_secs_f64());
    }

    fn refuse(&self, id: EventId, incoming: &Incoming, refused: &Refused, plan: &mut Plan) {
        let now = self.clock.now();
        plan.outcomes.push("dead");
        plan.dead.push(refused.code);
        plan.journal.events.push(outgoing::dead_letter(id, &incoming.record, refused, now, &self.settings()));
        plan.journal.parked.push(ParkedEvent {
            blocks: false,
            state: State::Dead,
            event_id: id,
            error_class: Some(ErrorClass::Refused.as_str()),
            error_code: Some(refused.code.as_str()),
            error_message: Some(refused.message.clone()),
            error_fingerprint: Some(error_fingerprint(ErrorClass::Refused, refused.code.as_str(), &refused.message)),
            failed_at: Some(now),
            client_id: None,
            ..waiting(incoming, refused.event_type.as_deref().unwrap_or_default(), None)
        });
    }

    fn settings(&self) -> Settings<'_> {
        Settings { prefix: &self.config.topic_prefix, event_key: self.config.event_key, ids: self.ids.as_ref() }
    }

    /// Hands committed rows to the relay and counts what happened.
    fn committed(
        &self,
        plan: Plan,
        passed: &HashMap<OrderId, i64>,
        dead_ids: Vec<i64>,
        started: tokio::time::Instant,
    ) -> Vec<Position> {
        let processed =
            plan.transitions.into_iter().filter_map(|t| Some(OutboxRow { id: *passed.get(&t.order_id)?, event: t.event }));
        let dead = dead_ids.into_iter().zip(plan.journal.events).map(|(id, event)| OutboxRow { id, event });
        self.relay.hand_over(processed.chain(dead).collect());
        #[expect(clippy::cast_precision_loss, reason = "a batch has at most some hundred records")]
        self.metrics.batch.observe(plan.outcomes.len() as f64);
        self.metrics.transaction.observe(started.elapsed().as_secs_f64());
        for outcome in plan.outcomes {
            self.metrics.events.get_or_create(&Outcome { outcome }).inc();
        }
        for code in plan.dead {
            self.metrics.dead_letters.get_or_create(&Code { code: code.as_str() }).inc();
        }
        plan.journal.positions
    }
}

/// Takes records up to the first whose event or order is in the batch already: one statement changes an order once.
fn cut(rest: &mut std::iter::Peekable<impl Iterator<Item = Incoming>>) -> Vec<Incoming> {
    let (mut events, mut orders) = (HashSet::new(), HashSet::new());
    let mut batch = Vec::new();
    while let Some(next) = rest.next_if(|i| {
        let order_is_new = if let Content::Created(c) = &i.content { orders.insert(c.order_id) } else { true };
        order_is_new && events.insert(i.event_id)
    }) {
        batch.push(next);
    }
    batch
}

fn positions(batch: &[Incoming]) -> Vec<Position> {
    let mut next: HashMap<(&str, i32), i64> = HashMap::new();
    for incoming in batch {
        let at = next.entry((&incoming.record.topic, incoming.record.partition)).or_default();
        *at = (*at).max(incoming.record.offset + 1);
    }
    let mut list: Vec<_> = next
        .into_iter()
        .map(|((topic, partition), next_offset)| Position { topic: topic.to_owned(), partition, next_offset })
        .collect();
    // One order of rows for all workers, so that two of them cannot wait for each other.
    list.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    list
}

fn entry(incoming: &Incoming) -> InboxEntry {
    let order_id = if let Content::Created(c) = &incoming.content { Some(c.order_id) } else { None };
    InboxEntry { event_id: incoming.event_id, data_sha: incoming.sha, order_id }
}

fn id_of_record(record: &Record) -> EventId {
    EventId::of_record(&record.topic, record.partition, record.offset, record.value.as_deref().unwrap_or_default())
}

fn waiting(incoming: &Incoming, event_type: &str, needs: Option<&str>) -> ParkedEvent {
    let created = if let Content::Created(c) = &incoming.content { Some(c.as_ref()) } else { None };
    ParkedEvent {
        record_key: incoming.key.clone(),
        blocks: true,
        state: State::Waiting,
        event_id: incoming.event_id,
        order_id: created.map(|c| c.order_id),
        client_id: created.map(|c| c.client_id.clone()),
        event_type: Some(event_type.to_owned()).filter(|t| !t.is_empty()),
        needs_type: needs.map(str::to_owned),
        topic: incoming.record.topic.to_string(),
        partition: incoming.record.partition,
        offset: incoming.record.offset,
        raw_key: incoming.record.key.clone(),
        raw_value: incoming.record.value.clone(),
        raw_headers: incoming.record.headers.encode(),
        error_class: needs.map(|_| ErrorClass::Held.as_str()),
        error_code: None,
        error_message: None,
        error_fingerprint: None,
        failed_at: None,
    }
}

fn adopted(id: EventId, event: &Created) -> AdoptedOrder {
    AdoptedOrder {
        order_id: event.order_id,
        client_id: event.client_id.clone(),
        key: event.key.clone(),
        fingerprint: event.fingerprint,
        customer_id: event.order.customer_id().to_owned(),
        currency: event.order.currency().map(|c| c.code().to_owned()),
        total_minor: event.order.total_minor(),
        items: serde_json::to_string(event.order.items()).expect("lines are plain values"),
        correlation_id: event.correlation_id.clone(),
        traceparent: event.traceparent.clone(),
        created_event_id: id,
        created_at: event.occurred_at,
    }
}

fn known_of(order: &AdoptedOrder) -> KnownOrder {
    KnownOrder {
        order_id: order.order_id,
        client_id: order.client_id.clone(),
        key: order.key.clone(),
        fingerprint: order.fingerprint,
        status: minishop_core::order::Status::Created,
        version: 1,
        created_event_id: order.created_event_id,
    }
}
