//! Measures how many orders are accepted in time when more are sent than the server can accept.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::load::{self, Load};
use super::plot::{Line, Panel};
use super::report::Report;
use super::target::Target;
use super::track::Track;
use super::{micros, per_second};

/// How often the peak rate is sent.
const FACTORS: [u64; 2] = [2, 5];
/// How long after its time a request is still sent: without a queue in front of the server, all waiting is the server's.
const AT_ONCE: Duration = Duration::from_millis(10);

/// The load, and how patient its clients are.
#[derive(Debug, Clone, clap::Args)]
pub struct Overload {
    #[command(flatten)]
    target: Target,
    /// Number of connections for the peak, which is measured in a closed loop.
    #[arg(long, value_name = "NUMBER", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..))]
    peak_connections: u64,
    /// Number of connections for the overload: at most so many requests are in flight. One for which none is free is not sent.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    connections: u64,
    /// Duration of each of the three loads, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How long a client waits from the scheduled time, in milliseconds: later acknowledgements are not goodput.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    within: u64,
}

/// Measures the peak, then goodput at multiples of it. No worker is needed.
pub async fn overload(args: &Overload) -> anyhow::Result<Report> {
    let track = Arc::new(Track::new());
    let within = Duration::from_millis(args.within);
    let peak = load::Args { connections: args.peak_connections, seconds: args.seconds, warm_up: 0, rate: None };
    let peak = Load::new(&args.target, &peak, 0);
    peak.first(&track).await?;
    let tally = peak.run(&track, "peak").await?;
    let rate = per_second(tally.accepts.len(), tally.length()).max(1);
    let mut report = Report::new("overload");
    report.text("protocol", "protocol", args.target.protocol.name());
    report.count("connections", "connections", args.connections);
    report.count("seconds", "seconds of each load", args.seconds);
    report.count("withinMillis", "a client's patience, ms", args.within);
    report.count("peakPerSecond", "peak: accepted a second", rate);
    report.times("peakAcceptMicros", "peak: request to acknowledgement", &tally.accepts);
    let mut lines = vec![Line::new("peak", &tally.over_time.counts_until(args.seconds), 1.0)];
    for factor in FACTORS {
        let offered = load::Args { connections: args.connections, seconds: args.seconds, warm_up: 0, rate: Some(rate * factor) };
        let load = Load { patience: Some(AT_ONCE), ..Load::new(&args.target, &offered, 0) };
        let tally = load.run(&track, &format!("{factor} x peak")).await?;
        let good = tally.accepts.count_between(0, micros(within));
        let (name, label) = (|name: &str| format!("x{factor}{name}"), |label: &str| format!("{factor} x peak: {label}"));
        report.count(&name("OfferedPerSecond"), &label("offered a second"), rate * factor);
        report.count(&name("GoodputPerSecond"), &label("accepted in time a second"), per_second(good, load.length));
        report.count(
            &name("GoodputPercentOfPeak"),
            &label("the same, percent of the peak"),
            per_second(good, load.length) * 100 / rate,
        );
        report.count(&name("Late"), &label("accepted too late"), tally.accepts.len() - good);
        report.count(&name("Refused"), &label("refused"), tally.refused.values().sum());
        report.detail(&name("Refusals"), json!(tally.refused));
        report.count(
            &name("NotSent"),
            &label("not sent, as all connections were busy"),
            load.scheduled().saturating_sub(tally.sent),
        );
        report.count(&name("Failed"), &label("without an answer"), tally.failed);
        report.times(&name("AcceptMicros"), &label("scheduled time to acknowledgement"), &tally.accepts);
        report.times(&name("LateMicros"), &label("the generator's own delay"), &tally.late);
        lines.push(Line::new(&format!("{factor} x peak"), &tally.over_time.counts_until(args.seconds), 1.0));
    }
    report.panel(Panel { title: "Accepted a second".to_owned(), lines });
    Ok(report)
}
