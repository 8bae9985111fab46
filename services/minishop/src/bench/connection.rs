//! One connection to a server, with one request in flight.

use uuid::Uuid;

use super::grpc::Grpc;
use super::rest::Rest;
use super::target::{Protocol, Target};

/// What a server answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The order's id.
    Accepted(Uuid),
    /// The status, and the code of the refusal if there is one.
    Refused(String),
}

/// A connection over either protocol.
#[derive(Debug)]
pub enum Connection {
    Rest(Rest),
    Grpc(Grpc),
}

impl Connection {
    /// Connects to the server of the connection `n`.
    pub async fn open(target: &Target, n: usize) -> anyhow::Result<Self> {
        let address = target.address(n);
        Ok(match target.protocol {
            Protocol::Rest => Self::Rest(Rest::open(address).await?),
            Protocol::Grpc => Self::Grpc(Grpc::open(address).await?),
        })
    }

    /// Sends one order. An error means that there was no answer: the order may be accepted or not.
    pub async fn order(&mut self, customer: &str, key: &str) -> anyhow::Result<Answer> {
        match self {
            Self::Rest(rest) => rest.order(customer, key).await,
            Self::Grpc(grpc) => grpc.order(customer, key).await,
        }
    }
}
