//! Batch sizes, from the metrics of processes.

use anyhow::Context;

use super::rest::Rest;

/// Sums and counts of the batches of some processes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Batches {
    /// Orders and statements of the intake.
    intake: (f64, f64),
    /// Records and transactions of the worker.
    worker: (f64, f64),
}

impl Batches {
    /// Reads the metrics at admin addresses, and sums them.
    pub async fn read(addresses: &[String]) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for address in addresses {
            sum.add(&Rest::open(address).await?.get("/metrics").await?);
        }
        Ok(sum)
    }

    fn add(&mut self, text: &str) {
        for (name, (sum, count)) in
            [("minishop_api_intake_batch_orders", &mut self.intake), ("minishop_worker_batch_records", &mut self.worker)]
        {
            *sum += value(text, &format!("{name}_sum "));
            *count += value(text, &format!("{name}_count "));
        }
    }

    /// Returns the orders a commit since `before`; `None` if there was no commit.
    pub fn orders_a_commit(&self, before: &Self) -> Option<f64> {
        mean(self.intake, before.intake)
    }

    /// Returns the records a transaction since `before`; `None` if there was no transaction.
    pub fn records_a_transaction(&self, before: &Self) -> Option<f64> {
        mean(self.worker, before.worker)
    }
}

/// Returns how many events wait in the outbox.
pub async fn waiting_events(address: &str) -> anyhow::Result<u64> {
    let text = Rest::open(address).await?.get("/metrics").await?;
    let value = text.lines().find_map(|line| line.strip_prefix("minishop_outbox_rows ")?.parse().ok());
    value.context("the process does not say how many events wait")
}

/// Returns the value after a name at the begin of a line; 0 if the process does not have it.
fn value(text: &str, name: &str) -> f64 {
    text.lines().find_map(|line| line.strip_prefix(name)?.split(' ').next()?.parse().ok()).unwrap_or_default()
}

fn mean((sum, count): (f64, f64), (sum_before, count_before): (f64, f64)) -> Option<f64> {
    (count > count_before).then(|| (sum - sum_before) / (count - count_before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_sizes_are_means_of_what_came_since() {
        let text = |orders, statements| {
            format!(
                "# HELP minishop_api_intake_batch_orders Orders.\nminishop_api_intake_batch_orders_sum {orders}\n\
                 minishop_api_intake_batch_orders_count {statements}\n# EOF\n"
            )
        };
        let (mut before, mut after) = (Batches::default(), Batches::default());
        before.add(&text(100.0, 50));
        after.add(&text(400.0, 60));
        after.add(&text(20.0, 10));
        assert_eq!(after.orders_a_commit(&before), Some(16.0));
        assert_eq!(after.records_a_transaction(&before), None, "no worker is watched");
    }
}
