//! The versions of the created event that this worker reads: the one place to change when a version is added.
//!
//! An older version is upcast step by step, each step to the next version, and then read as the newest. Stream and lot use the
//! same steps, so an event that was parked long ago is read like one that just came.

use bytes::Bytes;
use minishop_contracts::events::v1::OrderCreated;
use minishop_contracts::events::{CREATED_UNVERSIONED, Envelope, EnvelopeFields, EventType, decode_envelope, encode_created};
use minishop_contracts::json::exact_numbers;
use serde_json::Value;
use serde_json::value::RawValue;

/// Reads the data of the newest version; the error names the invalid fields.
pub type Read = fn(&Envelope<'_>) -> Result<OrderCreated, String>;

/// How the data of one version becomes that of the next.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// The versions differ only in name.
    Same,
    /// Rewrites the data; the error is one sentence.
    Rewrite(fn(Value) -> Result<Value, String>),
}

/// The versions that a worker reads: one step per version before the newest, and a reader for the newest.
///
/// Version 0 is the demo's type without a version.
#[derive(Debug, Clone)]
pub struct Versions {
    steps: Vec<Step>,
    read: Read,
}

/// The meaning of a type to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// A version that it reads.
    Known(usize),
    /// A version that only a newer worker reads.
    Newer,
    /// Not a type of this topic.
    Unknown,
}

impl Versions {
    /// Returns the versions that this build reads: the demo's, and version 1.
    pub fn current() -> Self {
        Self::new(vec![Step::Same], read_v1)
    }

    /// Combines steps and a reader.
    pub fn new(steps: Vec<Step>, read: Read) -> Self {
        Self { steps, read }
    }

    /// Lists the types that can be read.
    pub fn types(&self) -> Vec<String> {
        let numbered = (1..=self.steps.len()).map(|version| format!("{CREATED_UNVERSIONED}.v{version}"));
        std::iter::once(CREATED_UNVERSIONED.to_owned()).chain(numbered).collect()
    }

    /// Classifies a type.
    pub fn meaning(&self, event_type: &str) -> Meaning {
        let version = match EventType::parse(event_type) {
            EventType::CreatedV1 if event_type == CREATED_UNVERSIONED => 0,
            EventType::CreatedV1 => 1,
            EventType::NewerVersion(version) => usize::try_from(version).unwrap_or(usize::MAX),
            EventType::Unknown => return Meaning::Unknown,
        };
        if version <= self.steps.len() { Meaning::Known(version) } else { Meaning::Newer }
    }

    /// Reads the data of a known version.
    pub fn read(&self, envelope: &Envelope<'_>, version: usize) -> Result<OrderCreated, String> {
        match self.lift(envelope, version)? {
            None => (self.read)(envelope),
            Some(data) => (self.read)(&Envelope { data: &data, ..envelope.clone() }),
        }
    }

    /// Rewrites an event in the version that we write ourselves; `None` if it is in that version, or cannot be read.
    pub fn renewed(&self, value: &[u8]) -> Option<Bytes> {
        let envelope = decode_envelope(value).ok()?;
        let Meaning::Known(version) = self.meaning(&envelope.r#type) else { return None };
        if version == self.steps.len() {
            return None;
        }
        let head = EnvelopeFields {
            event_id: &envelope.event_id,
            occurred_at: envelope.occurred_at,
            correlation_id: &envelope.correlation_id,
            idempotency_key: &envelope.idempotency_key,
        };
        Some(encode_created(&head, &self.read(&envelope, version).ok()?).into())
    }

    /// Applies the steps from `version` on; `None` if none of them changes the data.
    fn lift(&self, envelope: &Envelope<'_>, version: usize) -> Result<Option<Box<RawValue>>, String> {
        let unreadable = |error: serde_json::Error| error.to_string();
        let mut lifted = None;
        for step in &self.steps[version..] {
            if let Step::Rewrite(rewrite) = step {
                let data = match lifted.take() {
                    Some(data) => data,
                    None => serde_json::from_str(&exact_numbers(envelope.data.get())).map_err(unreadable)?,
                };
                lifted = Some(rewrite(data)?);
            }
        }
        lifted.map(|data| serde_json::value::to_raw_value(&data).map_err(unreadable)).transpose()
    }
}

/// Reads version 1.
pub fn read_v1(envelope: &Envelope<'_>) -> Result<OrderCreated, String> {
    envelope.created().map_err(|partial| {
        let fields: Vec<_> =
            partial.into_violations().iter().map(|v| format!("{}: {}", v.json_field(), v.code.as_str())).collect();
        fields.join(", ")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn versions() -> Versions {
        let split = |mut data: Value| {
            data["half"] = json!(data["whole"].as_f64().ok_or("no whole")? / 2.0);
            Ok(data)
        };
        let halve = |mut data: Value| {
            data["quarter"] = json!(data["half"].as_f64().ok_or("no half")? / 2.0);
            Ok(data)
        };
        Versions::new(vec![Step::Same, Step::Rewrite(split), Step::Rewrite(halve)], |envelope| {
            Err(envelope.data.get().to_owned())
        })
    }

    fn read(version: usize, data: &str) -> String {
        let text = format!(
            r#"{{"eventId":"e","type":"t","occurredAt":"2026-01-31T12:00:00Z","correlationId":"c","idempotencyKey":"k","data":{data}}}"#
        );
        let envelope = decode_envelope(text.as_bytes()).expect("an envelope");
        versions().read(&envelope, version).expect_err("the reader of this test only tells what it was given")
    }

    #[test]
    fn an_older_version_takes_every_step_from_its_own_on() {
        let all = json!({"whole": 4, "half": 2.0, "quarter": 1.0});
        for version in [0, 1] {
            assert_eq!(serde_json::from_str::<Value>(&read(version, r#"{"whole":4}"#)).expect("JSON"), all);
        }
        assert_eq!(read(2, r#"{"half":4}"#), r#"{"half":4,"quarter":2.0}"#);
        assert_eq!(read(3, r#"{ "half" : 4 }"#), r#"{ "half" : 4 }"#, "the newest is read as it came");
        assert_eq!(read(2, "{}"), "no half", "a step that cannot be taken says why");
        let digits = read(2, r#"{"half":4,"price":10.4999999999999999999999}"#);
        assert!(digits.contains(r#""price":10.499999999999998"#), "a step rounds no price: {digits}");
    }

    #[test]
    fn what_is_known_grows_with_the_steps() {
        assert_eq!(Versions::current().types(), ["orders.created", "orders.created.v1"]);
        assert_eq!(versions().types().last().map(String::as_str), Some("orders.created.v3"));
        for (event_type, now, then) in [
            ("orders.created", Meaning::Known(0), Meaning::Known(0)),
            ("orders.created.v1", Meaning::Known(1), Meaning::Known(1)),
            ("orders.created.v2", Meaning::Newer, Meaning::Known(2)),
            ("orders.created.v4", Meaning::Newer, Meaning::Newer),
            ("orders.created.v0", Meaning::Unknown, Meaning::Unknown),
        ] {
            assert_eq!((Versions::current().meaning(event_type), versions().meaning(event_type)), (now, then), "{event_type}");
        }
    }

    #[test]
    fn every_golden_event_is_read_and_renewed_to_the_newest_version() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/fixtures");
        let names = std::fs::read_dir(folder).expect("the golden events").map(|entry| entry.expect("a file").path());
        let mut versions = Vec::new();
        for path in names.filter(|path| path.to_string_lossy().contains("orders.created")) {
            let text = std::fs::read_to_string(&path).expect("a golden event");
            let envelope = decode_envelope(text.trim_end().as_bytes()).expect("an envelope");
            let Meaning::Known(version) = Versions::current().meaning(&envelope.r#type) else { panic!("{path:?} is not known") };
            let order = Versions::current().read(&envelope, version).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            let renewed = Versions::current().renewed(text.as_bytes());
            assert_eq!(renewed.is_some(), version == 0, "{path:?}");
            let renewed = renewed.unwrap_or_else(|| text.clone().into_bytes().into());
            let again = decode_envelope(&renewed).expect("an envelope");
            assert_eq!((&*again.r#type, &again.event_id), ("orders.created.v1", &envelope.event_id), "{path:?}");
            assert_eq!(again.created().expect("data"), order, "{path:?}");
            versions.push(version);
        }
        versions.sort_unstable();
        versions.dedup();
        assert_eq!(versions, [0, 1], "a golden event of each version");
    }
}
