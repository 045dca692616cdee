//! What is drawn: pure, from a view and a size to lines.

use crate::cli::monitor::view::{Link, Point, View};
use crate::dialect::{Mode, Report};
use crate::session::Millis;

/// Between the plot's lowest and highest temperature there are at least so many degrees.
const LEAST_SPAN: f64 = 10.0;
/// Rows that a plot needs to be of use, and what is enough.
const PLOT_ROWS: std::ops::RangeInclusive<usize> = 4..=14;
/// Columns before the plot: `100 C |`.
const LABEL: usize = 7;
/// A reading older than this is marked, as Klipper itself stops believing it.
const STALE: Millis = 7_000;
/// An ESPHome node tells its temperature every 5 s: by then the next reading has come, seconds.
const DUE: usize = 6;
/// Eighths of a character, from the bottom.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// How to draw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// Colours.
    pub(crate) colour: bool,
    /// The terminal knows more than ASCII.
    pub(crate) unicode: bool,
    /// What the plot shows, seconds.
    pub(crate) window: u64,
}

#[derive(Clone, Copy)]
enum Paint {
    Bold,
    Dim,
    Good,
    Bad,
}

impl Style {
    fn paint(self, text: &str, paint: Paint) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Bold => "1",
            Paint::Dim => "2",
            Paint::Good => "32",
            Paint::Bad => "1;31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// The page: at most as many lines as there are rows.
pub(crate) fn page(
    view: &View,
    place: &str,
    now: Millis,
    (columns, rows): (usize, usize),
    style: Style,
) -> Vec<String> {
    let mut lines = head(view, place, now, columns, style);
    let foot = cut(
        "q or Ctrl-C ends it. It only listens: nothing is sent to the device.",
        columns,
    );
    lines.truncate(rows.saturating_sub(1));
    let mut left = rows.saturating_sub(lines.len() + 1);
    let events = view.events.len().clamp(1, 6);
    let plot = left.saturating_sub(events + 4).min(*PLOT_ROWS.end());
    if PLOT_ROWS.contains(&plot) {
        lines.push(String::new());
        lines.extend(self::plot(view, now, (columns, plot), style));
        left -= plot + 2;
    }
    if left >= 3 {
        lines.push(String::new());
        lines.push(style.paint("Last events", Paint::Bold));
        left -= 2;
        let known = view.events.iter().rev().take(left);
        lines.extend(known.map(|event| {
            let ago = span(now.saturating_sub(event.at) / 1_000);
            cut(&format!("{ago:>9} ago  {}", event.text), columns)
        }));
    }
    lines.push(style.paint(&foot, Paint::Dim));
    lines
}

fn head(view: &View, place: &str, now: Millis, columns: usize, style: Style) -> Vec<String> {
    let is_known = view.firmware.is_some() || view.link == Link::Connected;
    let firmware = if is_known {
        format!(", {}", view.spoken_by())
    } else {
        String::new()
    };
    let id = view
        .identity
        .map_or(String::new(), |id| format!(", device_id {}", id.last4()));
    let title = cut(&format!("Panda Breath at {place}{firmware}{id}"), columns);
    let mut lines = vec![style.paint(&title, Paint::Bold), String::new()];
    let mut say = |name: &str, text: &str, paint: Option<Paint>| {
        let text = cut(text, columns.saturating_sub(13));
        let text = paint.map_or(text.clone(), |paint| style.paint(&text, paint));
        lines.push(format!("{name:<13}{text}"));
    };
    let (text, is_old) = temperature(view, now);
    say("Temperature", &text, is_old.then_some(Paint::Bad));
    if let Some(kept) = view.kept() {
        say("Kept", &self::kept(kept), Some(Paint::Dim));
    }
    say("Target", &target(view), None);
    say("Device", &device(view, now), None);
    let fault = view.fault(now);
    if let Some(fault) = fault {
        say("Fault", fault.text(), Some(Paint::Bad));
    } else if let Some(fault) = view.retained_command() {
        say("Fault", &fault, Some(Paint::Bad));
    }
    let paint = match view.link {
        Link::Connected => Paint::Good,
        Link::Connecting | Link::Failed(_) | Link::Lost(_) => Paint::Bad,
    };
    say("Link", &link(view), Some(paint));
    let ignored = match view.ignored {
        0 => String::new(),
        n => format!(", {n} not understood"),
    };
    let rate = format!("{:.1} per second{ignored}", view.rate(now));
    say("Messages", &rate, None);
    lines
}

fn temperature(view: &View, now: Millis) -> (String, bool) {
    match view.reading {
        None => ("none yet".to_owned(), false),
        Some((celsius, at)) => {
            let age = now.saturating_sub(at);
            if age < STALE {
                (format!("{celsius} C"), false)
            } else {
                (format!("{celsius} C, {} ago", span(age / 1_000)), true)
            }
        }
    }
}

/// What a broker still has of a device that does not speak.
fn kept(report: &Report) -> String {
    let mut parts = Vec::new();
    parts.extend(report.reading.map(|celsius| format!("{celsius} C")));
    let on = report.on.map(|on| if on { "on" } else { "off" });
    parts.extend(on.map(str::to_owned));
    parts.extend(report.target.map(|target| format!("target {target} C")));
    format!(
        "{}: what the broker has kept, of unknown age",
        parts.join(", ")
    )
}

fn target(view: &View) -> String {
    match (view.target, view.on) {
        (None, _) => "unknown".to_owned(),
        (Some(target), Some(true)) if view.mode == Some(Mode::Drying) => {
            format!("that of the drying programme ({target} C is set for mode on)")
        }
        (Some(target), Some(true)) => format!("{target} C"),
        (Some(target), _) => format!("none ({target} C is set, and the device is off)"),
    }
}

fn device(view: &View, now: Millis) -> String {
    let Some(on) = view.on else {
        return "unknown".to_owned();
    };
    let mut parts = vec![if on { "on" } else { "off" }.to_owned()];
    parts.extend(view.mode.map(|mode| format!("mode {}", mode.name())));
    let heats = view.heats().filter(|_| on);
    parts.extend(heats.map(|heats| {
        let not = if heats { "" } else { "not " };
        let how = if view.tells_heating() {
            ""
        } else {
            " (calculated)"
        };
        format!("{not}heating{how}")
    }));
    let left = view.remaining(now);
    parts.extend(left.map(|left| format!("drying for another {}", span(left))));
    let age = view.stated_at.map(|at| now.saturating_sub(at) / 1_000);
    parts.extend(age.map(|age| format!("as of {} ago", span(age))));
    parts.join(", ")
}

fn link(view: &View) -> String {
    let why = view
        .link
        .why()
        .map_or(String::new(), |why| format!(": {why}"));
    let again = match view.reconnects {
        0 => String::new(),
        1 => ", lost once".to_owned(),
        n => format!(", lost {n} times"),
    };
    format!("{}{why}{again}", view.link.name())
}

/// So many rows of temperatures, and one of times.
fn plot(view: &View, now: Millis, (columns, rows): (usize, usize), style: Style) -> Vec<String> {
    let width = columns.saturating_sub(LABEL).max(1);
    let cells = cells(view, now / 1_000, width, style.window);
    let (low, high) = bounds(&cells);
    #[expect(clippy::cast_precision_loss, reason = "a few rows")]
    let height = rows as f64;
    let per_row = (high - low) / height;
    let mut lines = Vec::with_capacity(rows + 1);
    for row in 0..rows {
        #[expect(clippy::cast_precision_loss, reason = "a few rows")]
        let bottom = low + per_row * (rows - 1 - row) as f64;
        let top = bottom + per_row;
        let is_labelled = row == 0 || row == rows - 1 || row == rows / 2;
        let label = match is_labelled {
            true if row == rows - 1 => format!("{low:>4.0} C"),
            true if row == 0 => format!("{high:>4.0} C"),
            true => format!("{:>4.0} C", f64::midpoint(top, bottom)),
            false => String::new(),
        };
        let mut line = format!("{label:<6}{}", if style.unicode { '│' } else { '|' });
        line.extend(
            cells
                .iter()
                .map(|cell| character(*cell, bottom, top, style)),
        );
        lines.push(line);
    }
    let left = format!("{} ago", span(style.window));
    let legend = if style.unicode {
        "█ temperature  ─ target"
    } else {
        "# temperature  - target"
    };
    let times = format!("{:LABEL$}{left}   {legend}", "");
    let pad = columns.saturating_sub(times.chars().count() + 3);
    lines.push(cut(&format!("{times}{:pad$}now", ""), columns));
    lines
}

/// Mean temperature and last target of each column's time.
type Cell = Option<(f64, Option<f64>)>;

fn cells(view: &View, now: u64, width: usize, window: u64) -> Vec<Cell> {
    let mut sums: Vec<(f64, u32, Option<f64>)> = vec![(0.0, 0, None); width];
    for Point {
        second,
        celsius,
        target,
    } in &view.points
    {
        let age = now.saturating_sub(*second);
        if age >= window {
            continue;
        }
        let from_right = usize::try_from(age)
            .unwrap_or(usize::MAX)
            .saturating_mul(width);
        let column = width - 1 - from_right / usize::try_from(window).unwrap_or(1).max(1);
        let cell = &mut sums[column];
        *cell = (cell.0 + celsius, cell.1 + 1, *target);
    }
    let mut cells: Vec<Cell> = sums
        .into_iter()
        .map(|(sum, count, target)| (count > 0).then(|| (sum / f64::from(count), target)))
        .collect();
    // On a wide page there are more columns than readings: one fills those until the next is due.
    let seconds = usize::try_from(window).unwrap_or(1).max(1);
    let spread = width.div_ceil(seconds).max(width * DUE / seconds);
    let known = cells.clone();
    for (n, cell) in cells.iter_mut().enumerate().filter(|_| spread > 1) {
        let near = &known[n.saturating_sub(spread)..n];
        *cell = cell.or_else(|| near.iter().rev().find_map(|cell| *cell));
    }
    cells
}

fn bounds(cells: &[Cell]) -> (f64, f64) {
    let known = cells.iter().flatten();
    let all = known
        .flat_map(|(celsius, target)| [Some(*celsius), *target])
        .flatten();
    let (low, high) = all.fold((f64::MAX, f64::MIN), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low > high {
        return (20.0, 20.0 + LEAST_SPAN);
    }
    let low = ((low - 1.0) / 5.0).floor() * 5.0;
    let high = ((high + 1.0) / 5.0).ceil() * 5.0;
    (low, high.max(low + LEAST_SPAN))
}

fn character(cell: Cell, bottom: f64, top: f64, style: Style) -> char {
    let Some((celsius, target)) = cell else {
        return ' ';
    };
    if target.is_some_and(|target| (bottom..top).contains(&target)) {
        return if style.unicode { '─' } else { '-' };
    }
    let share = ((celsius - bottom) / (top - bottom)).clamp(0.0, 1.0);
    if style.unicode {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 8"
        )]
        let eighths = (share * 8.0).round() as usize;
        EIGHTHS[eighths]
    } else if share >= 0.5 {
        '#'
    } else {
        ' '
    }
}

/// Seconds for people.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        _ => format!("{} h {:02} min", seconds / 3_600, seconds / 60 % 60),
    }
}

/// No more characters than there are columns.
fn cut(text: &str, columns: usize) -> String {
    text.chars().take(columns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::mqtt::Options;
    use crate::driver::stay::Arrival;
    use crate::driver::watch::Heard;

    const STYLE: Style = Style {
        colour: false,
        unicode: true,
        window: 600,
    };

    fn warm() -> View {
        let mut view = View::default();
        let mut say = |now: Millis, text: String| {
            view.heard(now, &Heard::Message(text.into_bytes()));
        };
        say(
            0,
            r#"{"settings":{"fw_version":"V1.0.3","work_on":1,"work_mode":2,"set_temp":45}}"#
                .to_owned(),
        );
        for second in 1..=300 {
            let celsius = 22 + second / 12;
            let text = format!(r#"{{"settings":{{"warehouse_temper":{celsius}}}}}"#);
            say(second * 1_000, text);
        }
        view
    }

    #[test]
    fn everything_that_is_known_is_on_the_page() {
        let lines = page(&warm(), "192.0.2.7", 301_000, (80, 24), STYLE);
        let all = lines.join("\n");
        for part in [
            "Panda Breath at 192.0.2.7, firmware V1.0.3",
            "Temperature  47 C",
            "Target       45 C",
            "on, mode on, not heating (calculated), as of 5 min ago",
            "Link         connected",
            "Messages     1.0 per second",
            "connected, firmware V1.0.3",
            "5 min ago",
            "10 min ago",
            "now",
            "█",
            "─",
            "q or Ctrl-C ends it",
        ] {
            assert!(all.contains(part), "{part}:\n{all}");
        }
        assert!(lines.len() <= 24);
    }

    fn behind_broker(messages: &[(Millis, &str, &str, bool)]) -> View {
        let mut view = View::behind_broker(&Options::default());
        view.heard(0, &Heard::Opened);
        for (now, topic, payload, retained) in messages {
            let arrival = Arrival {
                topic: (*topic).to_owned(),
                payload: (*payload).to_owned().into(),
                retained: *retained,
            };
            view.heard(*now, &Heard::Delivered(arrival));
        }
        view
    }

    #[test]
    fn r5_what_a_broker_has_kept_is_said_to_be_of_unknown_age() {
        let chamber = "panda-breath/sensor/chamber_temperature/state";
        let mode = "panda-breath/climate/chamber/mode/state";
        let view = behind_broker(&[(1, chamber, "24.0", true), (2, mode, "heat", true)]);
        let all = page(&view, "h", 3_000, (80, 24), STYLE).join("\n");
        for part in [
            "Temperature  none yet",
            "Kept         24 C, on: what the broker has kept, of unknown age",
            "Device       unknown",
            "Link         connecting: the broker answers; waiting for the device to speak",
        ] {
            assert!(all.contains(part), "{part}:\n{all}");
        }
        assert!(!all.contains('█') || all.contains("█ temperature"), "{all}");
    }

    #[test]
    fn a_programme_has_a_target_of_its_own() {
        let state = r#"{"chamber_temp":30,"work_on":"ON","mode":"filament drying","target_temp":45,
            "drying_running":"ON","drying_remaining_min":90}"#;
        let topic = "panda_breath/AABBCCDDEE01/state";
        let view = behind_broker(&[(1_000, topic, state, false), (2_000, topic, state, false)]);
        let all = page(&view, "h", 3_000, (80, 24), STYLE).join("\n");
        for part in [
            "Target       that of the drying programme (45 C is set for mode on)",
            "on, mode drying, drying for another 89 min, as of 1 s ago",
            "Panda Breath at h, stock firmware over MQTT, device_id ee01",
        ] {
            assert!(all.contains(part), "{part}:\n{all}");
        }
    }

    #[test]
    fn readings_that_come_every_5_s_are_drawn_without_gaps_and_an_outage_is_one() {
        let mut view = View::default();
        for second in [60, 65, 70, 75, 100, 105, 110] {
            let text = r#"{"settings":{"warehouse_temper":30}}"#.to_owned();
            view.heard(second * 1_000, &Heard::Message(text.into_bytes()));
        }
        // One column per second.
        let cells = cells(&view, 110, 60, 60);
        let known = |range: std::ops::RangeInclusive<usize>| {
            range.map(|second| cells[second - 51].is_some())
        };
        assert!(known(60..=81).all(|known| known));
        assert!(known(82..=99).all(|known| !known));
        assert!(known(100..=110).all(|known| known));
        assert!(known(51..=59).all(|known| !known));
    }

    #[test]
    fn a_page_fits_any_size() {
        for columns in [1, 20, 40, 79, 80, 200, 1_000] {
            for rows in [1, 4, 8, 12, 24, 100] {
                let lines = page(&warm(), "192.0.2.7", 301_000, (columns, rows), STYLE);
                assert!(
                    lines.len() <= rows.max(1),
                    "{columns}x{rows}: {}",
                    lines.len()
                );
                for line in &lines {
                    let most = columns.max(14);
                    assert!(line.chars().count() <= most, "{columns}x{rows}: {line}");
                }
            }
        }
    }

    #[test]
    fn without_unicode_and_colour_it_is_ascii() {
        let style = Style {
            unicode: false,
            ..STYLE
        };
        let all = page(&warm(), "h", 301_000, (80, 24), style).join("\n");
        assert!(all.is_ascii() && !all.contains('\x1b'), "{all}");
        assert!(all.contains("####") && all.contains("----"), "{all}");
    }

    #[test]
    fn an_old_reading_is_told_with_its_age_and_an_empty_view_is_a_page_too() {
        let lines = page(&warm(), "h", 400_000, (80, 24), STYLE).join("\n");
        assert!(lines.contains("Temperature  47 C, 100 s ago"), "{lines}");
        let lines = page(&View::default(), "h", 0, (80, 24), STYLE).join("\n");
        assert!(lines.contains("Temperature  none yet"), "{lines}");
    }
}
