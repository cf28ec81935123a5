//! Charts as SVG: groups of horizontal bars with the value beside each, and a whisker from the 10th to
//! the 90th percentile. Readable on light and on dark pages.

use crate::common::Spread;
use std::fmt::Write;

/// Bars in groups.
pub struct Chart {
    pub title: String,
    /// What the length of a bar is.
    pub unit: String,
    /// The names of a group's bars.
    pub series: Vec<String>,
    pub rows: Vec<Row>,
    /// A line across all bars, and what it stands for.
    pub mark: Option<(f64, String)>,
}

/// One group of bars.
pub struct Row {
    pub label: String,
    /// Whether it is ours, and stands out.
    pub ours: bool,
    /// One for each of the series, or for the first of them.
    pub bars: Vec<Option<Spread>>,
}

const WIDTH: f64 = 860.0;
const BAR: f64 = 13.0;
const BAR_GAP: f64 = 3.0;
const ROW_GAP: f64 = 11.0;
const TOP: f64 = 74.0;
/// Room for the values to the right of the longest bar.
const VALUES: f64 = 64.0;
const MARGIN: f64 = 16.0;

impl Chart {
    /// The picture.
    pub fn svg(&self) -> String {
        // Where all is ours, nothing needs to stand out.
        let mixed = self.rows.iter().any(|row| !row.ours);
        let size = if mixed { 13.5 } else { 12.5 };
        let labels = self.rows.iter().map(|row| text_width(&row.label, size)).fold(0.0, f64::max);
        let left = MARGIN + labels + 10.0;
        let most = self.rows.iter().flat_map(|row| row.bars.iter().flatten()).map(|spread| spread.high);
        let most = most.chain(self.mark.as_ref().map(|mark| mark.0)).fold(0.0, f64::max);
        let step = tick_step(most);
        let scale = (WIDTH - left - VALUES - MARGIN) / most.max(f64::MIN_POSITIVE);
        let bottom = TOP + self.rows.iter().map(|row| row.height() + ROW_GAP).sum::<f64>();
        let height = bottom + 40.0;

        let mut out = String::new();
        let _ = writeln!(
            out,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0} {height:.0}" width="{WIDTH:.0}" height="{height:.0}" role="img" aria-label="{}">"#,
            escaped(&self.title)
        );
        out.push_str(STYLE);
        let _ = writeln!(out, r#"<rect class="page" width="{WIDTH:.0}" height="{height:.0}" rx="6"/>"#);
        let _ = writeln!(out, r#"<text class="title" x="{MARGIN}" y="26">{}</text>"#, escaped(&self.title));
        self.legend(&mut out);

        let mut tick = 0.0;
        while tick <= most + step * 1e-6 {
            let x = left + tick * scale;
            let _ =
                writeln!(out, r#"<line class="grid" x1="{x:.1}" y1="{:.1}" x2="{x:.1}" y2="{bottom:.1}"/>"#, TOP - 8.0);
            let _ = writeln!(
                out,
                r#"<text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                bottom + 16.0,
                trimmed(tick, step)
            );
            tick += step;
        }
        let _ = writeln!(
            out,
            r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            WIDTH - MARGIN,
            bottom + 32.0,
            escaped(&self.unit)
        );

        // The values come last, so that nothing is drawn over them.
        let mut values = String::new();
        let mut top = TOP;
        for row in &self.rows {
            let class = if row.ours && mixed { "label ours" } else { "label" };
            let _ = writeln!(
                out,
                r#"<text class="{class}" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                left - 10.0,
                top + row.height() / 2.0 + 4.5,
                escaped(&row.label)
            );
            for (series, spread) in row.bars.iter().enumerate() {
                let y = top + series as f64 * (BAR + BAR_GAP);
                bar(&mut out, &mut values, (left, y, scale), series, row.ours, *spread);
            }
            top += row.height() + ROW_GAP;
        }
        if let Some((value, meaning)) = &self.mark {
            let x = left + value * scale;
            let _ =
                writeln!(out, r#"<line class="mark" x1="{x:.1}" y1="{:.1}" x2="{x:.1}" y2="{bottom:.1}"/>"#, TOP - 8.0);
            let _ = writeln!(
                out,
                r#"<text class="tick" x="{x:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                TOP - 12.0,
                escaped(meaning)
            );
        }
        out.push_str(&values);
        out.push_str("</svg>\n");
        out
    }

    fn legend(&self, out: &mut String) {
        let mut x = MARGIN;
        for (at, name) in self.series.iter().enumerate() {
            let _ = writeln!(out, r#"<rect class="s{at}" x="{x:.1}" y="38" width="12" height="12" rx="2"/>"#);
            let _ = writeln!(out, r#"<text class="legend" x="{:.1}" y="48.5">{}</text>"#, x + 17.0, escaped(name));
            x += 17.0 + text_width(name, 12.5) + 18.0;
        }
    }
}

impl Row {
    fn height(&self) -> f64 {
        self.bars.len() as f64 * (BAR + BAR_GAP) - BAR_GAP
    }
}

fn bar(
    out: &mut String,
    values: &mut String,
    (left, y, scale): (f64, f64, f64),
    series: usize,
    ours: bool,
    spread: Option<Spread>,
) {
    let middle = y + BAR / 2.0;
    let Some(Spread { low, median, high }) = spread else {
        let _ =
            writeln!(out, r#"<text class="value" x="{:.1}" y="{:.1}">not measured</text>"#, left + 5.0, middle + 4.0);
        return;
    };
    let faded = if ours { "" } else { " other" };
    let _ = writeln!(
        out,
        r#"<rect class="s{series}{faded}" x="{left:.1}" y="{y:.1}" width="{:.1}" height="{BAR}" rx="2"/>"#,
        (median * scale).max(1.0)
    );
    let (from, to) = (left + low * scale, left + high * scale);
    if to - from > 1.5 {
        let _ = writeln!(
            out,
            r#"<path class="whisker" d="M{from:.1} {middle:.1}H{to:.1}M{from:.1} {a:.1}V{b:.1}M{to:.1} {a:.1}V{b:.1}"/>"#,
            a = middle - 3.5,
            b = middle + 3.5
        );
    }
    let _ = writeln!(
        values,
        r#"<text class="value" x="{:.1}" y="{:.1}">{}</text>"#,
        to.max(left + median * scale) + 6.0,
        middle + 4.0,
        significant(median)
    );
}

/// 1, 2 or 5 times a power of ten, for about six steps.
fn tick_step(most: f64) -> f64 {
    let rough = (most / 6.0).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| *step >= rough).unwrap_or(10.0 * power)
}

fn trimmed(value: f64, step: f64) -> String {
    let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

/// Three significant digits, or all before the point.
fn significant(value: f64) -> String {
    let decimals = match value.abs() {
        under if under < 10.0 => 2,
        under if under < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// About the width in a common sans-serif: charts cannot measure.
fn text_width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.57
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "<style>
  text { font-family: system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2937; }
  .page { fill: #ffffff; }
  .title { font-size: 16px; font-weight: 600; }
  .legend, .label { font-size: 12.5px; }
  .label { fill: #4b5563; }
  .ours { font-weight: 600; fill: #111827; }
  .value { font-size: 11px; }
  .tick { font-size: 11px; fill: #6b7280; }
  .grid { stroke: #e5e7eb; stroke-width: 1; }
  .mark { stroke: #dc2626; stroke-width: 1.5; stroke-dasharray: 5 3; }
  .whisker { stroke: #111827; stroke-opacity: 0.65; stroke-width: 1.2; fill: none; }
  .s0 { fill: #2563eb; } .s1 { fill: #d97706; } .s2 { fill: #059669; } .s3 { fill: #9333ea; }
  .other { fill-opacity: 0.5; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e5e7eb; }
    .page { fill: #0d1117; }
    .label { fill: #9ca3af; }
    .ours { fill: #f9fafb; }
    .tick { fill: #9ca3af; }
    .grid { stroke: #272e38; }
    .mark { stroke: #f87171; }
    .whisker { stroke: #f9fafb; }
    .s0 { fill: #60a5fa; } .s1 { fill: #f59e0b; } .s2 { fill: #34d399; } .s3 { fill: #c084fc; }
  }
</style>
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        for (most, step) in [(3.1, 1.0), (12.0, 2.0), (0.9, 0.2), (250.0, 50.0)] {
            assert!((tick_step(most) - step).abs() < 1e-9, "{most}");
        }
    }

    #[test]
    fn names_cannot_break_the_picture() {
        let row = Row { label: "<a & \"b\">".to_owned(), ours: true, bars: vec![None] };
        let chart = Chart {
            title: "t".to_owned(),
            unit: "u".to_owned(),
            series: vec!["s".to_owned()],
            rows: vec![row],
            mark: None,
        };
        assert!(chart.svg().contains("&lt;a &amp; &quot;b&quot;&gt;"));
    }
}
