//! Reads the query of a REST request as strictly as a body.

use minishop_core::violation::{FieldCode, Violation, merged};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::json::tree::Node;
use crate::json::walk::{self, Names};
use crate::json::{Field, Kind, Partial, Shape, Shaped};
use crate::validate::Path;

/// Reads a message from a query: each name known and given once, each value of its type. An empty value means absent.
///
/// Does not validate values: use [`Validate`](crate::Validate), and [`Partial::into_violations`] for an error.
pub fn decode<T: Shaped>(query: &str) -> Result<T, Box<Partial<T>>> {
    let mut violations = Vec::new();
    let fitting = parameters(T::SHAPE, query, &mut violations);
    let message = T::deserialize(Value::Object(fitting)).unwrap_or_default();
    if violations.is_empty() { Ok(message) } else { Err(Box::new(Partial { message, violations })) }
}

/// Refuses every parameter: for requests that take none.
pub fn none(query: &str) -> Vec<Violation> {
    const NOTHING: &Shape = &Shape { tolerant: false, fields: &[] };
    let mut violations = Vec::new();
    parameters(NOTHING, query, &mut violations);
    merged(violations)
}

/// Reads a query that may hold a watch's resume token and nothing else. Does not validate the token.
///
/// Clients that cannot set a header when they reconnect send `lastEventId` and repeat the rest of the query, so `lastEventId`
/// overrides `resumeToken`.
pub fn resume_token(query: &str) -> Result<Option<String>, Vec<Violation>> {
    const SHAPE: &Shape = &Shape {
        tolerant: false,
        fields: &[
            Field { name: "last_event_id", json: "lastEventId", list: false, optional: true, kind: Kind::Text },
            Field { name: "resume_token", json: "resumeToken", list: false, optional: true, kind: Kind::Text },
        ],
    };
    let mut violations = Vec::new();
    let mut found = parameters(SHAPE, query, &mut violations);
    let token = found.remove("lastEventId").or_else(|| found.remove("resumeToken"));
    let token = token.and_then(|value| value.as_str().map(str::to_owned));
    if violations.is_empty() { Ok(token) } else { Err(merged(violations)) }
}

fn parameters(shape: &'static Shape, query: &str, out: &mut Vec<Violation>) -> Map<String, Value> {
    let mut fitting = Map::new();
    let mut names = Names::of(shape);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let name = name.replace('+', " ");
        let name = percent_decode_str(&name).decode_utf8_lossy();
        let Some(field) = names.first(&name, &Path::ROOT, out) else {
            continue;
        };
        let text = text.replace('+', " ");
        let Ok(text) = percent_decode_str(&text).decode_utf8() else {
            out.push(Path::ROOT.refuse(field.name, FieldCode::WrongType, "must be UTF-8"));
            continue;
        };
        if text.is_empty() {
            continue;
        }
        let node = Node::Text(text.into_owned());
        if let Some(value) = walk::value(shape, field, node, &Path::ROOT.field(field.name), out) {
            fitting.insert(field.json.to_owned(), value);
        }
    }
    fitting
}
