//! `panda-breath report`: a recording as one page that can be attached to a bug report.
//!
//! * `series`: what is drawn; `svg`: the picture

mod series;
mod svg;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::monitor::screen::span;
use crate::cli::record::format::Recording;
use crate::cli::record::{about, clock};
use crate::cli::replay::observer::{Conclusion, Wanted};
use crate::cli::replay::{conclude, open};
use series::Series;

/// Nobody reads more.
const MOST_LINES: usize = 500;

const STYLE: &str = "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#222;background:#fff}svg{width:100%;height:auto;border:1px solid #ddd}table{border-collapse:\
collapse;margin-bottom:1rem}td,th{text-align:left;padding:.1rem 1rem .1rem 0;vertical-align:top}td:first-child{\
white-space:nowrap;color:#555}";

/// Make a page with pictures from a recording: one HTML file that needs nothing else.
///
/// Temperature, target, heater, switch and link over time, and what happened when. It has no scripts
/// and loads nothing, so it opens offline; and like the recording it has no secrets.
#[derive(Debug, Args)]
#[command(after_help = "\
Stock firmware does not say whether the heating element has power; the page says what follows \
from\nswitch, mode, target and temperature. An ESPHome node says it.\n\n\
Example:\n  panda-breath record PandaBreath.local heat-up.jsonl --for 3600\n  \
panda-breath report heat-up.jsonl\n\n\
Exit status: 0 when the page is written, 1 if FILE is no recording, 2 for wrong arguments.")]
pub(super) struct Arguments {
    /// A recording, made by 'panda-breath record'.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to write the page; - for standard output [default: FILE with .html, or .svg].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only the picture, as SVG.
    #[arg(long)]
    svg: bool,
}

pub(super) fn run(arguments: &Arguments) -> io::Result<()> {
    let recording = open(&arguments.file)?;
    let (text, extension) = if arguments.svg {
        (svg::svg(&Series::of(&recording)), "svg")
    } else {
        (page(&recording), "html")
    };
    let output = match &arguments.output {
        Some(output) => output.clone(),
        None => arguments.file.with_extension(extension),
    };
    if output == Path::new("-") {
        let written = io::stdout().write_all(text.as_bytes());
        return match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        };
    }
    if output == arguments.file {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the page would overwrite the recording: give another --output",
        ));
    }
    std::fs::write(&output, text).map_err(|error| about(&output, &error))?;
    let _ = writeln!(io::stderr(), "{}", output.display());
    Ok(())
}

/// The page of a recording in this file, for a look at it from outside.
pub fn page_of(path: &Path) -> io::Result<String> {
    open(path).map(|recording| page(&recording))
}

fn page(recording: &Recording) -> String {
    let series = Series::of(recording);
    let mut out = String::new();
    // Writing to a string never fails.
    let _ = write_page(&mut out, recording, &series);
    out
}

fn write_page(out: &mut String, recording: &Recording, series: &Series) -> std::fmt::Result {
    let started = escape(&recording.header.started);
    write!(
        out,
        "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n<head>\n\
         <meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width\"/>\n\
         <title>Panda Breath, {started}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>Panda Breath</h1>\n"
    )?;
    summary(out, recording, series)?;
    out.push_str(&svg::svg(series));
    let events = series.events.iter();
    let events: Vec<_> = events.map(|event| (event.at, event.text.clone())).collect();
    table(out, "What happened", &events, series.more_events)?;
    let mut lines = said(recording);
    let more = lines.len().saturating_sub(MOST_LINES);
    lines.truncate(MOST_LINES);
    table(out, "What the driver would say about it", &lines, more)?;
    let heater = if series.tells_heating {
        ""
    } else {
        " Whether the heating element has power is not told by the firmware: it is calculated."
    };
    let others = if recording.header.mqtt.is_some() {
        "Topics are the ones that a device has whose user has chosen no names."
    } else {
        "What others set is told only to new connections: a change of the target may be older than \
         it is shown, by the time from one connection to the next."
    };
    write!(
        out,
        "<h2>What is not in here</h2>\n<p>Networks, addresses, printers, brokers, serial numbers \
         and passwords were left out when this was recorded.{heater} {others}</p>\n</body>\n</html>\n"
    )
}

fn summary(out: &mut String, recording: &Recording, series: &Series) -> std::fmt::Result {
    let extremes = series.extremes();
    let extremes = extremes.map_or("none".to_owned(), |(low, high)| {
        format!("{low} to {high} °C")
    });
    let whole = if recording.cut {
        ", cut off at its end"
    } else {
        ""
    };
    let rows = [
        (
            "Recorded",
            format!(
                "{}, for {}{whole}",
                recording.header.started,
                span(series.end / 1_000)
            ),
        ),
        ("By", format!("panda-breath {}", recording.header.program)),
        (
            "Firmware",
            series.firmware.clone().unwrap_or("unknown".to_owned()),
        ),
        ("Temperature", extremes),
        (
            "Messages",
            format!("{}, {} not understood", series.messages, series.ignored),
        ),
        ("Connection lost", times(series.reconnects)),
    ];
    out.push_str("<table>\n");
    for (name, text) in rows {
        writeln!(out, "<tr><td>{name}</td><td>{}</td></tr>", escape(&text))?;
    }
    out.push_str("</table>\n");
    Ok(())
}

fn times(number: u32) -> String {
    match number {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        n => format!("{n} times"),
    }
}

fn table(out: &mut String, title: &str, lines: &[(u64, String)], more: usize) -> std::fmt::Result {
    writeln!(out, "<h2>{title}</h2>")?;
    if lines.is_empty() {
        return writeln!(out, "<p>Nothing.</p>");
    }
    out.push_str("<table>\n");
    for (ms, text) in lines {
        let text = escape(text);
        writeln!(out, "<tr><td>{}</td><td>{text}</td></tr>", clock(*ms))?;
    }
    out.push_str("</table>\n");
    if more > 0 {
        writeln!(out, "<p>And {more} more.</p>")?;
    }
    Ok(())
}

/// The lines that the driver of this version would write to the console.
fn said(recording: &Recording) -> Vec<(u64, String)> {
    let concluded = conclude(recording, Wanted::WhatItDoes);
    let said = concluded
        .into_iter()
        .filter_map(|(ms, conclusion)| match conclusion {
            Conclusion::Says(text) => Some((ms, text)),
            Conclusion::State(_) | Conclusion::WouldSend(_) => None,
        });
    said.collect()
}

/// A recording may come from anybody.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // Not allowed in XML, not even escaped.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
