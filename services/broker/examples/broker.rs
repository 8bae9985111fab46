//! Serves an event log until it is killed or its standard input ends: `broker FILE [ADDR [TOPIC:PARTITIONS]…]`.
//!
//! On a terminal it is the quickest way to try Kafka tools.

use minishop_broker::{Settings, TopicSettings, open};
use std::io::Write;
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let file = args.next().ok_or("usage: broker FILE [ADDR [TOPIC:PARTITIONS]…]")?;
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:0".to_owned()).parse()?;
    let log = open(Settings::new(addr, file)).await?;
    for topic in args {
        let (name, partitions) = topic.split_once(':').ok_or("TOPIC:PARTITIONS")?;
        log.ensure_topic(name, partitions.parse()?, TopicSettings::default()).await?;
    }
    println!("ready kafka={}", log.addr());
    std::io::stdout().flush()?;
    let shutdown = CancellationToken::new();
    let input_ends = async {
        let mut rest = Vec::new();
        tokio::io::stdin().read_to_end(&mut rest).await
    };
    let run = log.run(shutdown.clone());
    tokio::pin!(run);
    tokio::select! {
        outcome = &mut run => return Ok(outcome?),
        _ = input_ends => shutdown.cancel(),
    }
    Ok(run.await?)
}
