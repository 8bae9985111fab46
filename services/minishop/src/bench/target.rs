//! Which servers are loaded.

use clap::ValueEnum;
use minishop_bus::consume::{Start, Tail};

/// The addresses of a running MiniShop.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Protocol of the requests.
    #[arg(long, value_enum, default_value_t = Protocol::Rest)]
    pub protocol: Protocol,
    /// REST address as host:port; for several APIs, separated by commas.
    #[arg(long, value_name = "ADDRESSES", env = "MINISHOP_BENCH_HTTP", value_delimiter = ',', default_value = "127.0.0.1:3000")]
    pub http: Vec<String>,
    /// gRPC address as host:port; for several APIs, separated by commas.
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',', default_value = "127.0.0.1:50051")]
    pub grpc: Vec<String>,
}

/// How orders are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// JSON over HTTP/1.1.
    Rest,
    /// gRPC over HTTP/2.
    Grpc,
}

impl Protocol {
    /// Returns its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Grpc => "grpc",
        }
    }
}

impl Target {
    /// Returns the address to which the connection `n` connects: they are shared evenly.
    pub fn address(&self, n: usize) -> &str {
        let all = match self.protocol {
            Protocol::Rest => &self.http,
            Protocol::Grpc => &self.grpc,
        };
        &all[n % all.len()]
    }
}

/// Where processed events are read.
#[derive(Debug, Clone, clap::Args)]
pub struct Topics {
    /// Kafka bootstrap servers, to read `orders.processed`.
    #[arg(long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092")]
    pub brokers: String,
}

impl Topics {
    /// Opens a topic. Blocks while the brokers answer.
    pub fn open(&self, prefix: &str, topic: &str, start: Start) -> anyhow::Result<Tail> {
        Tail::open(&self.brokers, &[minishop_contracts::topics::prefixed(prefix, topic)], start)
    }
}
