//! The protocols of the API.

/// The protocol of a call. It decides field names and answer formats, never the content of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// JSON over HTTP.
    Rest,
    Grpc,
}

impl Protocol {
    /// Returns the metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Grpc => "grpc",
        }
    }
}
