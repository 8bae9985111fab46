//! Figures for people and programs.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use comfy_table::{Table, presets};
use hdrhistogram::Histogram;
use minishop_platform::boot::print;
use serde_json::{Map, Value, json};

use super::plot::{self, Panel};
use super::track::Verdict;

/// How figures are printed: by default as a table.
#[derive(Debug, Clone, clap::Args)]
pub struct Printing {
    /// Print JSON on one line.
    #[arg(long, global = true, conflicts_with = "markdown")]
    json: bool,
    /// Print a Markdown table.
    #[arg(long, global = true)]
    markdown: bool,
    /// Also draw rates and latencies over time into this SVG file.
    #[arg(long, global = true, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// What was measured, in the order of its table.
#[derive(Debug)]
pub struct Report {
    title: String,
    /// Each figure's label and text.
    rows: Vec<[String; 2]>,
    json: Map<String, Value>,
    panels: Vec<Panel>,
    /// Why the run failed, if it did.
    failures: Vec<String>,
}

impl Report {
    /// Begins an empty report.
    pub fn new(benchmark: &str) -> Self {
        let json = Map::from_iter([("benchmark".to_owned(), Value::from(benchmark))]);
        Self { title: format!("minishop bench {benchmark}"), rows: Vec::new(), json, panels: Vec::new(), failures: Vec::new() }
    }

    fn add(&mut self, name: &str, label: &str, text: String, value: Value) {
        self.rows.push([label.to_owned(), text]);
        self.json.insert(name.to_owned(), value);
    }

    /// Adds a word.
    pub fn text(&mut self, name: &str, label: &str, text: &str) {
        self.add(name, label, text.to_owned(), Value::from(text));
    }

    /// Adds a whole number.
    pub fn count(&mut self, name: &str, label: &str, count: u64) {
        self.add(name, label, grouped(count), Value::from(count));
    }

    /// Adds a number with one decimal.
    pub fn decimal(&mut self, name: &str, label: &str, number: f64) {
        self.add(name, label, format!("{number:.1}"), json!((number * 10.0).round() / 10.0));
    }

    /// Adds a time in microseconds.
    pub fn time(&mut self, name: &str, label: &str, micros: u64) {
        self.add(name, label, millis(micros), Value::from(micros));
    }

    /// Adds the quantiles of a histogram of microseconds.
    pub fn times(&mut self, name: &str, label: &str, times: &Histogram<u64>) {
        let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];
        let values = quantiles.map(|(name, quantile)| (name, times.value_at_quantile(quantile)));
        let words = values.map(|(name, micros)| format!("{} {}", name.replace("999", "99.9"), millis(micros)));
        self.add(
            name,
            label,
            words.join(", "),
            Value::Object(values.map(|(name, v)| (name.to_owned(), v.into())).into_iter().collect()),
        );
    }

    /// Adds what only programs read.
    pub fn detail(&mut self, name: &str, value: Value) {
        self.json.insert(name.to_owned(), value);
    }

    /// Adds a panel to the plot.
    pub fn panel(&mut self, panel: Panel) {
        self.panels.push(panel);
    }

    /// Makes the run fail.
    pub fn failure(&mut self, why: String) {
        self.failures.push(why);
    }

    /// Adds the verdict on what was `done` with the orders; lost or doubled orders fail the run.
    pub fn verdict(&mut self, done: &str, verdict: Verdict) {
        let Verdict { awaited, lost, doubled, copies } = verdict;
        self.count("copies", "copies of events (lawful)", copies);
        self.count("lost", "lost orders", lost);
        self.count("doubled", "doubled orders", doubled);
        let text = if lost == 0 && doubled == 0 {
            format!("each of {} accepted orders was {done} exactly once", grouped(awaited))
        } else {
            let [awaited, lost, doubled] = [awaited, lost, doubled].map(grouped);
            format!("of {awaited} accepted orders, {lost} were lost (not {done} in time) and {doubled} {done} twice")
        };
        if lost > 0 || doubled > 0 {
            self.failure(text.clone());
        }
        self.text("verdict", "verdict", &text);
    }

    /// Prints everything, then the failures; returns the exit code.
    pub fn print(&self, printing: &Printing) -> anyhow::Result<ExitCode> {
        let text = if printing.json {
            format!("{}\n", Value::Object(self.json.clone()))
        } else if printing.markdown {
            self.markdown()
        } else {
            self.table()
        };
        let printed = print(&text);
        if let Some(path) = &printing.plot {
            let svg = plot::svg(&self.title, &self.panels);
            std::fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))?;
        }
        self.failures.iter().for_each(|failure| eprintln!("{failure}"));
        Ok(if self.failures.is_empty() { printed } else { ExitCode::FAILURE })
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).add_rows(&self.rows);
        format!("{}\n{table}\n", self.title)
    }

    fn markdown(&self) -> String {
        let rows = self.rows.iter().map(|[label, text]| format!("| {} | {} |\n", escaped(label), escaped(text)));
        format!("| {} | |\n|---|---|\n{}", self.title, rows.collect::<String>())
    }
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn millis(micros: u64) -> String {
    format!("{:.2} ms", micros as f64 / 1000.0)
}

/// Groups digits by three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let (mut grouped, first) = (String::new(), digits.len() % 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && n % 3 == first {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        assert_eq!([0, 12, 123, 1234, 123_456, 1_234_567].map(grouped), ["0", "12", "123", "1,234", "123,456", "1,234,567"]);
    }

    #[test]
    fn a_report_has_the_same_figures_for_people_and_programs() {
        let mut report = Report::new("accept");
        report.count("accepted", "accepted | taken", 1200);
        report.decimal("ordersPerCommit", "orders a commit", 12.345);
        let mut times = Histogram::new(3).unwrap();
        times.record(1500).unwrap();
        report.times("acceptMicros", "accept", &times);
        assert!(report.markdown().contains("| accepted \\| taken | 1,200 |\n"), "{}", report.markdown());
        assert!(report.table().contains("1.50 ms"), "{}", report.table());
        let p = |name: &str| report.json["acceptMicros"][name].as_u64();
        assert_eq!((p("p50"), p("max")), (Some(1500), Some(1500)));
        assert_eq!((&report.json["accepted"], &report.json["ordersPerCommit"]), (&json!(1200), &json!(12.3)));
    }

    #[test]
    fn lost_and_doubled_orders_fail_a_run_and_copies_do_not() {
        let failures = |lost, doubled| {
            let mut report = Report::new("end-to-end");
            report.verdict("processed", Verdict { awaited: 10, lost, doubled, copies: 3 });
            report.failures
        };
        assert_eq!(failures(0, 0), [] as [String; 0]);
        assert_eq!(failures(1, 0), ["of 10 accepted orders, 1 were lost (not processed in time) and 0 processed twice"]);
        assert_eq!(failures(0, 2), ["of 10 accepted orders, 0 were lost (not processed in time) and 2 processed twice"]);
    }
}
