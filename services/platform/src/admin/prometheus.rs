//! Metrics in the Prometheus text format (version 0.0.4), for scrapers that do not ask for `OpenMetrics`.

use std::collections::HashMap;
use std::fmt::Write as _;

/// Converts `OpenMetrics` text: describes counters and infos under the names of their samples; drops exemplars, units and the end
/// mark.
pub(super) fn from_open_metrics(open: &str) -> String {
    let kind = |line: &str| line.strip_prefix("# TYPE ")?.rsplit_once(' ').map(|(name, kind)| (name.to_owned(), kind.to_owned()));
    let kinds: HashMap<String, String> = open.lines().filter_map(kind).collect();
    let mut text = String::with_capacity(open.len());
    for line in open.lines() {
        match line.strip_prefix("# ").map(|rest| rest.splitn(3, ' ').collect::<Vec<_>>()).as_deref() {
            None => {
                // Label values come from closed lists: none contains this separator.
                let sample = line.split_once(" # {").map_or(line, |(sample, _)| sample);
                let _ = writeln!(text, "{sample}");
            }
            Some([what @ ("HELP" | "TYPE"), name, rest]) => {
                let (suffix, known) = match kinds.get(*name).map(String::as_str) {
                    Some("counter") => ("_total", "counter"),
                    Some("info") => ("_info", "gauge"),
                    Some("unknown") | None => ("", "untyped"),
                    Some(other) => ("", other),
                };
                let rest = if *what == "TYPE" { known } else { rest };
                let _ = writeln!(text, "# {what} {name}{suffix} {rest}");
            }
            Some(_) => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::exemplar::HistogramWithExemplars;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::info::Info;
    use prometheus_client::registry::{Registry, Unit};

    #[test]
    fn every_kind_is_described_under_the_name_of_its_samples() {
        let mut registry = Registry::default();
        let (counter, gauge) = (Counter::<u64>::default(), Gauge::<i64>::default());
        let seconds = HistogramWithExemplars::<[(&str, &str); 1]>::new([0.5].into_iter());
        registry.register("accepts", "Accepts", counter.clone());
        registry.register("depth", "Depth", gauge);
        registry.register_with_unit("wait", "Wait", Unit::Seconds, seconds.clone());
        registry.register("build", "Build", Info::new([("version", "1")]));
        counter.inc();
        seconds.observe(0.1, Some([("trace_id", "t1")]), None);
        let mut open = String::new();
        encode(&mut open, &registry).expect("a text");
        assert!(open.contains("trace_id"), "the exemplar is there: {open}");
        let expected = "\
            # HELP accepts_total Accepts.\n# TYPE accepts_total counter\naccepts_total 1\n\
            # HELP depth Depth.\n# TYPE depth gauge\ndepth 0\n\
            # HELP wait_seconds Wait.\n# TYPE wait_seconds histogram\nwait_seconds_sum 0.1\nwait_seconds_count 1\n\
            wait_seconds_bucket{le=\"0.5\"} 1\nwait_seconds_bucket{le=\"+Inf\"} 1\n\
            # HELP build_info Build.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n";
        assert_eq!(from_open_metrics(&open), expected);
    }
}
