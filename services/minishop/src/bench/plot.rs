//! Lines over the seconds of a run, as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 240.0;
/// The space around a panel's lines: left for numbers, above for title and legend.
const LEFT: f64 = 72.0;
const RIGHT: f64 = 16.0;
const ABOVE: f64 = 44.0;
const BELOW: f64 = 28.0;
/// Distinguishable also without red and green (Okabe and Ito).
const COLOURS: [&str; 4] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7"];

/// A chart with one axis of values.
#[derive(Debug, Clone)]
pub struct Panel {
    pub title: String,
    pub lines: Vec<Line>,
}

/// One value for each second.
#[derive(Debug, Clone)]
pub struct Line {
    pub name: String,
    pub values: Vec<f64>,
}

impl Line {
    /// Converts whole numbers, divided by `unit`.
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    pub fn new(name: &str, values: &[u64], unit: f64) -> Self {
        Self { name: name.to_owned(), values: values.iter().map(|value| *value as f64 / unit).collect() }
    }
}

/// Draws the panels below each other.
#[expect(clippy::cast_precision_loss, reason = "there are few panels")]
pub fn svg(title: &str, panels: &[Panel]) -> String {
    let height = HEIGHT * panels.len() as f64 + 28.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"15\">{title}</text>\n",
        title = escaped(title)
    );
    for (n, panel) in panels.iter().enumerate() {
        let _ = writeln!(svg, "<g transform=\"translate(0 {})\">\n{}</g>", HEIGHT * n as f64 + 24.0, drawn(panel));
    }
    svg + "</svg>\n"
}

#[expect(clippy::cast_precision_loss, reason = "a run has few seconds")]
fn drawn(panel: &Panel) -> String {
    let values = || panel.lines.iter().flat_map(|line| &line.values);
    let top = ceiling(values().copied().fold(0.0, f64::max));
    let seconds = panel.lines.iter().map(|line| line.values.len()).max().unwrap_or_default().max(2) as f64;
    let x = |second: f64| LEFT + (WIDTH - LEFT - RIGHT) * second / (seconds - 1.0);
    let y = |value: f64| HEIGHT - BELOW - (HEIGHT - ABOVE - BELOW) * value / top;
    let mut svg = format!("<text x=\"{LEFT}\" y=\"16\" font-weight=\"bold\">{}</text>\n", escaped(&panel.title));
    for quarter in 0..=4 {
        let value = top * f64::from(quarter) / 4.0;
        let (at, end) = (y(value), WIDTH - RIGHT);
        let _ = writeln!(svg, "<path d=\"M{LEFT} {at:.1}H{end}\" stroke=\"#ddd\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 6.0, at + 4.0, short(value));
    }
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\">1 s</text>", HEIGHT - 10.0);
    let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{seconds} s</text>", WIDTH - RIGHT, HEIGHT - 10.0);
    for (n, line) in panel.lines.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        let points: Vec<String> =
            line.values.iter().enumerate().map(|(second, value)| format!("{:.1},{:.1}", x(second as f64), y(*value))).collect();
        let _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", points.join(" "));
        let _ =
            writeln!(svg, "<text x=\"{}\" y=\"34\" fill=\"{colour}\">{}</text>", LEFT + 120.0 * n as f64, escaped(&line.name));
    }
    svg
}

/// Returns a round number that is not smaller: 1, 2 or 4 times a power of ten.
fn ceiling(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 10.0].into_iter().map(|step| step * power).find(|top| *top >= value).unwrap_or(value)
}

/// Formats a number with at most two decimals.
fn short(value: f64) -> String {
    format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that tags are closed in order and attributes quoted; returns the names of all elements.
    fn elements(xml: &str) -> Vec<String> {
        let (mut open, mut all) = (Vec::new(), Vec::new());
        for part in xml.split('<').skip(1) {
            let (tag, text) = part.split_once('>').expect("a tag ends");
            assert!(!text.contains('>'), "an unescaped bracket in {text:?}");
            for (at, _) in text.match_indices('&') {
                assert!(["&amp;", "&lt;", "&gt;", "&quot;"].iter().any(|entity| text[at..].starts_with(entity)), "{text:?}");
            }
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name), "closed in order");
                continue;
            }
            let name = tag.split([' ', '/']).next().unwrap().to_owned();
            assert_eq!(tag.matches('"').count() % 2, 0, "quotes in {tag}");
            assert_eq!(tag.matches("=\"").count(), tag.matches('=').count(), "quoted attributes in {tag}");
            if !tag.ends_with('/') {
                open.push(name.clone());
            }
            all.push(name);
        }
        assert_eq!(open, [] as [String; 0], "all is closed");
        all
    }

    #[test]
    fn a_plot_is_well_formed_and_has_a_line_for_each_row_of_values() {
        let panel = |title: &str| Panel {
            title: title.to_owned(),
            lines: vec![
                Line::new("a <b> & \"c\"", &[1, 5, 3], 1.0),
                Line::new("one second", &[7], 1000.0),
                Line::new("none", &[], 1.0),
            ],
        };
        let xml = svg("x & y", &[panel("<rate>"), panel("latency")]);
        let all = elements(&xml);
        assert_eq!(all[0], "svg");
        assert_eq!(all.iter().filter(|name| *name == "polyline").count(), 6);
        assert!(!xml.contains("NaN") && !xml.contains("inf"), "{xml}");
        elements(&svg("nothing", &[]));
    }

    #[test]
    fn the_axis_ends_at_a_round_number() {
        let tops = [0.0, 0.3, 1.0, 17.0, 39.0, 41.0, 4100.0].map(|value| format!("{:.1}", ceiling(value)));
        assert_eq!([0.0, 0.4 * 3.0 / 4.0, 1250.0].map(short), ["0", "0.3", "1250"]);
        assert_eq!(tops, ["1.0", "0.4", "1.0", "20.0", "40.0", "100.0", "10000.0"]);
    }
}
