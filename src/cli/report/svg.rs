//! The picture: temperature and target, and below them heater, switch and link, over time.

use std::fmt::Write;

use crate::cli::report::series::{Lane, Series};
use crate::session::Millis;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 120.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const CHART: f64 = 240.0;
const LANE: f64 = 26.0;
const BAR: f64 = 14.0;
const LANES: f64 = 3.0;
const HEIGHT: f64 = TOP + CHART + 20.0 + LANES * LANE + 36.0;
/// Between two times on the axis there are at least so many pixels.
const TICK: f64 = 80.0;
/// Times that look well on an axis, seconds.
const ROUND: [u64; 14] = [
    1, 2, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 86_400,
];

const STYLE: &str = "\
.page{fill:#fff}text{font:12px sans-serif;fill:#333}.title{font-weight:bold}\
.grid{stroke:#ddd}.axis{fill:none;stroke:#888}.temperature{fill:none;stroke:#c2410c;stroke-width:2}\
.target{fill:none;stroke:#1d4ed8;stroke-width:1.5;stroke-dasharray:5 3}\
.heater{fill:#ea580c}.switch{fill:#1d4ed8}.link{fill:#15803d}.off{fill:#eee}.lost{fill:#fca5a5}.unknown{fill:#c8c8c8}";

/// Where things are.
struct Scale {
    end: Millis,
    low: f64,
    high: f64,
}

impl Scale {
    fn of(series: &Series) -> Self {
        let targets = series.target.iter().filter_map(|(_, target)| *target);
        let all = series.temperature.iter().map(|reading| reading.celsius);
        let (low, high) = all
            .chain(targets)
            .fold((f64::MAX, f64::MIN), |(low, high), c| {
                (low.min(c), high.max(c))
            });
        let (low, high) = if low > high {
            (20.0, 30.0)
        } else {
            (low, high)
        };
        let low = ((low - 1.0) / 5.0).floor() * 5.0;
        let high = (((high + 1.0) / 5.0).ceil() * 5.0).max(low + 10.0);
        Self {
            end: series.end.max(1),
            low,
            high,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
    fn x(&self, ms: Millis) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * ms as f64 / self.end as f64
    }

    fn y(&self, celsius: f64) -> f64 {
        TOP + CHART * (self.high - celsius) / (self.high - self.low)
    }
}

/// A picture of its own.
pub(crate) fn svg(series: &Series) -> String {
    let scale = Scale::of(series);
    let mut out = String::new();
    // Writing to a string never fails.
    let _ = draw(&mut out, series, &scale);
    out
}

fn draw(out: &mut String, series: &Series, scale: &Scale) -> std::fmt::Result {
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
         <title>Temperature, target, heater, switch and link over time</title>\n\
         <style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>"
    )?;
    legend(out)?;
    grid(out, scale)?;
    temperature(out, series, scale)?;
    target(out, series, scale)?;
    let top = TOP + CHART + 20.0;
    let heater = if series.tells_heating {
        "heater"
    } else {
        "heater (calc.)"
    };
    lane(out, scale, top, ("heater", heater), &series.heater)?;
    lane(out, scale, top + LANE, ("switch", "device on"), &series.on)?;
    lane(out, scale, top + 2.0 * LANE, ("link", "link"), &series.link)?;
    writeln!(out, "</svg>")
}

fn legend(out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "<text class=\"title\" x=\"{LEFT}\" y=\"22\">Panda Breath</text>\n\
         <path class=\"temperature\" d=\"M240 18h28\"/><text x=\"274\" y=\"22\">temperature</text>\n\
         <path class=\"target\" d=\"M370 18h28\"/><text x=\"404\" y=\"22\">target while on</text>\n\
         <rect class=\"unknown\" x=\"520\" y=\"12\" width=\"28\" height=\"12\"/>\
         <text x=\"554\" y=\"22\">not known</text>"
    )
}

fn grid(out: &mut String, scale: &Scale) -> std::fmt::Result {
    let right = WIDTH - RIGHT;
    let step = if scale.high - scale.low > 40.0 {
        10.0
    } else {
        5.0
    };
    let mut celsius = scale.low;
    while celsius <= scale.high + 0.1 {
        let y = scale.y(celsius);
        let label = LEFT - 8.0;
        let middle = y + 4.0;
        writeln!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\
             <text x=\"{label}\" y=\"{middle:.1}\" text-anchor=\"end\">{celsius:.0} °C</text>"
        )?;
        celsius += step;
    }
    let bottom = HEIGHT - 30.0;
    #[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
    let end = scale.end as f64 / 1e3;
    let least = end * TICK / (WIDTH - LEFT - RIGHT);
    #[expect(clippy::cast_precision_loss, reason = "at most a day")]
    let fits = |seconds: &&u64| **seconds as f64 >= least;
    // Longer than a fortnight: so many days that they fit.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of days"
    )]
    let days = 86_400 * (least / 86_400.0).ceil().max(1.0) as u64;
    let step = ROUND.iter().find(fits).copied().unwrap_or(days);
    let mut seconds = 0;
    while seconds * 1_000 <= scale.end {
        let x = scale.x(seconds * 1_000);
        let label = HEIGHT - 14.0;
        let time = time(seconds);
        writeln!(
            out,
            "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/>\
             <text x=\"{x:.1}\" y=\"{label}\" text-anchor=\"middle\">{time}</text>"
        )?;
        seconds += step;
    }
    let floor = TOP + CHART;
    writeln!(
        out,
        "<path class=\"axis\" d=\"M{LEFT} {TOP}V{floor}H{right}\"/>"
    )
}

fn time(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// One line for each stretch without a gap. Of the readings in one pixel the lowest, the highest
/// and the last are drawn.
fn temperature(out: &mut String, series: &Series, scale: &Scale) -> std::fmt::Result {
    let mut stretches: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut pixel: Vec<(f64, f64)> = Vec::new();
    for reading in &series.temperature {
        let (x, y) = (scale.x(reading.at), scale.y(reading.celsius));
        let joined = reading.joined;
        let same = pixel.first().is_some_and(|(first, _)| x - first < 1.0);
        if !(joined && same) {
            flush(&mut stretches, &mut pixel);
        }
        if !joined {
            stretches.push(Vec::new());
        }
        pixel.push((x, y));
    }
    flush(&mut stretches, &mut pixel);
    for stretch in stretches {
        write!(out, "<polyline class=\"temperature\" points=\"")?;
        for (n, (x, y)) in stretch.iter().enumerate() {
            let space = if n == 0 { "" } else { " " };
            write!(out, "{space}{x:.1},{y:.1}")?;
        }
        writeln!(out, "\"/>")?;
    }
    Ok(())
}

fn flush(stretches: &mut [Vec<(f64, f64)>], pixel: &mut Vec<(f64, f64)>) {
    let points = std::mem::take(pixel);
    let (Some(stretch), Some(first)) = (stretches.last_mut(), points.first()) else {
        return;
    };
    let mut low = *first;
    let mut high = *first;
    for point in &points {
        if point.1 < low.1 {
            low = *point;
        }
        if point.1 > high.1 {
            high = *point;
        }
    }
    let last = points.last().copied().unwrap_or(*first);
    let mut kept = vec![*first, low, high, last];
    kept.sort_by(|a, b| a.0.total_cmp(&b.0));
    kept.dedup();
    stretch.extend(kept);
}

fn target(out: &mut String, series: &Series, scale: &Scale) -> std::fmt::Result {
    let ends = series.target.iter().skip(1).map(|(ms, _)| *ms);
    let spans = series.target.iter().zip(ends.chain([scale.end]));
    let mut path = String::new();
    let mut drawing = false;
    for ((from, target), to) in spans {
        if let Some(celsius) = target {
            let (x, y, to) = (scale.x(*from), scale.y(*celsius), scale.x(to));
            let start = if drawing {
                format!("V{y:.1}")
            } else {
                format!("M{x:.1} {y:.1}")
            };
            write!(path, "{start}H{to:.1}")?;
        }
        drawing = target.is_some();
    }
    if path.is_empty() {
        return Ok(());
    }
    writeln!(out, "<path class=\"target\" d=\"{path}\"/>")
}

fn lane(
    out: &mut String,
    scale: &Scale,
    top: f64,
    (class, name): (&str, &str),
    lane: &Lane,
) -> std::fmt::Result {
    let (label, middle) = (LEFT - 8.0, top + BAR - 3.0);
    writeln!(
        out,
        "<text x=\"{label}\" y=\"{middle}\" text-anchor=\"end\">{name}</text>"
    )?;
    let whole = WIDTH - LEFT - RIGHT;
    let off = if class == "link" { "lost" } else { "off" };
    writeln!(
        out,
        "<rect class=\"{off}\" x=\"{LEFT}\" y=\"{top}\" width=\"{whole}\" height=\"{BAR}\"/>"
    )?;
    for (class, spans) in [("unknown", &lane.unknown), (class, &lane.on)] {
        let mut path = String::new();
        let mut until = f64::MIN;
        for span in spans {
            let (x, to) = (scale.x(span.from), scale.x(span.to));
            // What ends in a pixel that is drawn already would only make the file longer.
            if to < until + 0.5 {
                continue;
            }
            let width = (to - x).max(0.5);
            write!(path, "M{x:.1} {top}h{width:.1}v{BAR}h-{width:.1}z")?;
            until = x + width;
        }
        if !path.is_empty() {
            writeln!(out, "<path class=\"{class}\" d=\"{path}\"/>")?;
        }
    }
    Ok(())
}
