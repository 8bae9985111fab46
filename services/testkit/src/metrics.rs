//! Metrics as they are scraped.

use minishop_platform::ctx::Metrics;

/// Returns all metrics.
pub fn scrape(metrics: &Metrics) -> String {
    let mut text = String::new();
    metrics.with(|registry| prometheus_client::encoding::text::encode(&mut text, registry)).unwrap();
    text
}

/// Reads a sample by its name without `minishop_`, such as `worker_events_total{outcome="copy"}`.
pub fn sample(metrics: &Metrics, name: &str) -> Option<u64> {
    let value = scrape(metrics).lines().find_map(|line| Some(line.strip_prefix(&format!("minishop_{name} "))?.to_owned()))?;
    Some(value.parse().unwrap())
}

/// Reads a sample; 0 if there is none.
pub fn metric(metrics: &Metrics, name: &str) -> u64 {
    sample(metrics, name).unwrap_or_default()
}
