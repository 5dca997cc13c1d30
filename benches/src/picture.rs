//! A picture of one table: CPU a request as a multiple of the base, with quartiles, as SVG that reads in light and dark.

use crate::{outcome::Outcome, targets::Kind};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 190.0;
const ROW: f64 = 30.0;

pub fn bars(title: &str, base: &Outcome, outcomes: &[Outcome]) -> String {
    let ratio = |outcome: &Outcome| outcome.against(base, |outcome| &outcome.cpus);
    let shown: Vec<_> = outcomes
        .iter()
        .filter(|outcome| outcome.kind != Kind::Direct)
        .map(|outcome| (outcome.kind, ratio(outcome)))
        .collect();
    let most = shown.iter().map(|(_, ratio)| ratio.spread.high).fold(1.0, f64::max);
    let base = base.kind.name();
    let scale = (WIDTH - LEFT - 110.0) / most;
    let height = 64.0 + ROW * shown.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"13\"><style>text{{fill:#333}}.own{{fill:#1769aa}}.other{{fill:#9aa5b1}}.mark{{stroke:#333}}\
         @media(prefers-color-scheme:dark){{text{{fill:#ddd}}.own{{fill:#5aa9e6}}.other{{fill:#697582}}.mark{{stroke:#ddd}}}}\
         </style><text x=\"8\" y=\"22\" font-size=\"15\" font-weight=\"600\">{title}</text>\
         <text x=\"8\" y=\"42\">CPU a request, {base} = 1; less is better; the line spans the quartiles</text>\n"
    );
    for (index, (kind, ratio)) in shown.iter().enumerate() {
        let y = 54.0 + ROW * index as f64;
        let (ratio, doubt) = (&ratio.spread, ratio.word().map_or(String::new(), |word| format!(", {word}")));
        let class = if matches!(kind, Kind::Attache(_)) { "own" } else { "other" };
        let end = LEFT + ratio.median * scale;
        let (low, high, middle) = (LEFT + ratio.low * scale, LEFT + ratio.high * scale, y + 11.0);
        svg += &format!(
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"22\" rx=\"2\"/>\
             <path class=\"mark\" d=\"M{low:.1} {middle:.0}H{high:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.0}\">{:.2}{doubt}</text>\n",
            LEFT - 8.0,
            y + 16.0,
            kind.name(),
            ratio.median * scale,
            end.max(high) + 6.0,
            y + 16.0,
            ratio.median,
        );
    }
    svg + "</svg>\n"
}
