//! What a run costs others: CPU time, memory, batch sizes, write-ahead log.

use std::time::Duration;

use super::metrics::Batches;
use super::micros;
use super::processes::{self, Named};
use super::report::Report;
use super::roles::Role;

/// What is observed beside the load.
#[derive(Debug, Clone, clap::Args)]
pub struct Watched {
    /// Report CPU time and memory of a process, as NAME=PID; repeatable. Children count for the CPU time, and processes of the same
    /// name are summed.
    #[arg(long = "pid", value_name = "NAME=PID", value_parser = processes::named)]
    pids: Vec<Named>,
    /// Report batch sizes from the metrics at this admin address, as host:port; repeatable.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Vec<String>,
    /// Report the write-ahead log that this PostgreSQL server wrote, for all its databases.
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
}

/// The state at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// By name, with this program last.
    cpu: Vec<(Named, Duration)>,
    batches: Batches,
    wal_bytes: Option<u64>,
}

impl Watched {
    /// Observes a process that was started for the measurement.
    pub fn role(name: &str, role: &Role) -> anyhow::Result<Self> {
        let pids = vec![Named { name: name.to_owned(), pid: role.pid()? }];
        Ok(Self { pids, metrics: vec![role.address("admin")?], postgres: None })
    }

    /// Reads everything.
    pub async fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let mut cpu = Vec::new();
        for named in &self.pids {
            cpu.push((named.clone(), processes::cpu(named.pid)?));
        }
        cpu.push((Named { name: "bench".to_owned(), pid: std::process::id() }, processes::own_cpu()?));
        let wal_bytes = match &self.postgres {
            Some(url) => Some(minishop_store::postgres::wal_bytes(url).await?),
            None => None,
        };
        Ok(Snapshot { cpu, batches: Batches::read(&self.metrics).await?, wal_bytes })
    }

    /// The state before the observed processes have done anything.
    pub fn nothing(&self) -> Snapshot {
        let cpu = self.pids.iter().map(|named| (named.clone(), Duration::ZERO)).collect();
        Snapshot { cpu, batches: Batches::default(), wal_bytes: None }
    }

    /// Adds what happened since `before`, for each of `orders`. If a process has ended, the report fails and keeps its other figures.
    pub async fn report(&self, report: &mut Report, before: &Snapshot, orders: u64) {
        if let Err(error) = self.add(report, before, orders).await {
            report.failure(format!("{error:#}"));
        }
    }

    async fn add(&self, report: &mut Report, before: &Snapshot, orders: u64) -> anyhow::Result<()> {
        let after = self.snapshot().await?;
        let mut used: Vec<(&str, Duration, u64)> = Vec::new();
        for ((named, now), (_, then)) in after.cpu.iter().zip(&before.cpu) {
            let (cpu, memory) = (now.saturating_sub(*then), processes::resident_kib(named.pid)?);
            match used.iter_mut().find(|(name, ..)| *name == named.name) {
                Some(of_name) => (of_name.1, of_name.2) = (of_name.1 + cpu, of_name.2 + memory),
                None => used.push((&named.name, cpu, memory)),
            }
        }
        for (name, cpu, memory) in used {
            report.count(
                &format!("{name}CpuMicrosPerOrder"),
                &format!("CPU of {name}, µs an order"),
                micros(cpu) / orders.max(1),
            );
            report.count(&format!("{name}ResidentKiB"), &format!("memory of {name}, KiB"), memory);
        }
        if let Some(mean) = after.batches.orders_a_commit(&before.batches) {
            report.decimal("ordersPerCommit", "orders a commit", mean);
        }
        if let Some(mean) = after.batches.records_a_transaction(&before.batches) {
            report.decimal("recordsPerTransaction", "records a transaction", mean);
        }
        if let (Some(now), Some(then)) = (after.wal_bytes, before.wal_bytes) {
            report.count("walBytesPerOrder", "write-ahead log, bytes an order", now.saturating_sub(then) / orders.max(1));
        }
        Ok(())
    }
}
