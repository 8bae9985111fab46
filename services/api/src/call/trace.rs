//! The caller's trace, as W3C Trace Context spells it.

use http::HeaderMap;
use minishop_contracts::headers::http as names;

use super::single;

/// A trace that goes on: parent and state, both checked. Empty when the caller sent none or sent one that breaks the rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// The caller's `traceparent`.
    pub parent: Option<String>,
    /// The caller's `tracestate`; only beside a parent.
    pub state: Option<String>,
}

impl TraceContext {
    /// Reads both headers. A state that is too long is dropped without its parent (W3C Trace Context, 3.3.1.5).
    pub fn read(headers: &HeaderMap) -> Self {
        let Some(parent) = single(headers, names::TRACEPARENT).filter(|text| is_parent(text)) else {
            return Self::default();
        };
        Self { parent: Some(parent.to_owned()), state: state(headers) }
    }
}

/// Tells whether a text is a `traceparent` of version 00: `00-<32 hex>-<16 hex>-<2 hex>`, ids not all zero.
fn is_parent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut hex = |len: usize| {
        parts.next().filter(|part| part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    };
    let (version, trace, span, flags) = (hex(2), hex(32), hex(16), hex(2));
    let lives = |id: Option<&str>| id.is_some_and(|id| id.bytes().any(|b| b != b'0'));
    version == Some("00") && lives(trace) && lives(span) && flags.is_some() && parts.next().is_none()
}

fn state(headers: &HeaderMap) -> Option<String> {
    let values: Option<Vec<_>> = headers.get_all(names::TRACESTATE).iter().map(|v| v.to_str().ok()).collect();
    let state = values?.join(",");
    let members = state.split(',').filter(|member| !member.trim().is_empty()).count();
    ((1..=32).contains(&members) && state.len() <= 512).then_some(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(parents: &[&str], state: Option<&str>) -> TraceContext {
        let mut headers = HeaderMap::new();
        for parent in parents {
            headers.append(names::TRACEPARENT, parent.parse().unwrap());
        }
        if let Some(state) = state {
            headers.append(names::TRACESTATE, state.parse().unwrap());
        }
        TraceContext::read(&headers)
    }

    #[test]
    fn a_good_trace_goes_on() {
        let trace = read(&[GOOD], Some("a=1,b=2"));
        assert_eq!((trace.parent.as_deref(), trace.state.as_deref()), (Some(GOOD), Some("a=1,b=2")));
    }

    #[test]
    fn a_broken_trace_is_not_taken_and_neither_is_its_state() {
        let zero = GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32));
        for bad in [zero.as_str(), &GOOD.replacen("00", "ff", 1), &GOOD.to_uppercase(), &GOOD[..54], "", "00-00"] {
            assert_eq!(read(&[bad], Some("a=1")), TraceContext::default(), "{bad}");
        }
        assert_eq!(read(&[GOOD, GOOD], None), TraceContext::default());
    }

    #[test]
    fn a_state_of_33_members_is_dropped_and_the_trace_goes_on() {
        let long = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(read(&[GOOD], Some(&long)), TraceContext { parent: Some(GOOD.to_owned()), state: None });
    }
}
