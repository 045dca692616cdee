//! `panda-breath report`: a recording as one page that can be attached to a bug report.
//!
//! * `series`: what is drawn; `svg`: the picture

mod series;
mod svg;

use std::fmt::Write as _;
use std::fs::Metadata;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::beside::Beside;
use crate::cli::bind::wrong;
use crate::cli::monitor::screen::span;
use crate::cli::plain::{is_unseen, plain};
use crate::cli::record::format::Header;
use crate::cli::record::{about, clock};
use crate::cli::replay::observer::{Conclusion, Observer, Wanted};
use crate::cli::replay::open;
use crate::session::Millis;
use series::{Plotter, Series};

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
    let extension = if arguments.svg { "svg" } else { "html" };
    let output = match &arguments.output {
        Some(output) => output.clone(),
        None => arguments.file.with_extension(extension),
    };
    if is_same_file(&output, &arguments.file) {
        return Err(wrong(
            "the page would overwrite the recording: give another --output",
        ));
    }
    let told = Told::read(&arguments.file)?;
    let text = if arguments.svg {
        svg::svg(&told.series)
    } else {
        page(&told)
    };
    if output == Path::new("-") {
        let written = io::stdout().write_all(text.as_bytes());
        return match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        };
    }
    write_to(&output, &text).map_err(|error| about(&output, &error))?;
    let _ = writeln!(io::stderr(), "{}", plain(&output.to_string_lossy()));
    Ok(())
}

/// Whatever the two are called.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let known = |path: &Path| {
        let known = path.metadata().ok().filter(Metadata::is_file)?;
        Some((known.dev(), known.ino()))
    };
    known(one).is_some_and(|one| known(other) == Some(one))
}

/// Whole, or not at all.
fn write_to(path: &Path, text: &str) -> io::Result<()> {
    let mut file = Beside::create(path)?;
    file.write_all(text.as_bytes())?;
    file.put(true)
}

/// The page of a recording in this file, for a look at it from outside.
pub fn page_of(path: &Path) -> io::Result<String> {
    Told::read(path).map(|told| page(&told))
}

/// What a recording tells, as far as there is room for it.
struct Told {
    header: Header,
    cut: bool,
    series: Series,
    /// The lines that the driver of this version would write to the console, and how many more.
    said: Vec<(Millis, String)>,
    more_said: usize,
}

impl Told {
    fn read(path: &Path) -> io::Result<Self> {
        let mut recording = open(path)?;
        let mut plotter = Plotter::new(&recording.header);
        let mut observer = Observer::new(Wanted::WhatItDoes, recording.header.options());
        let mut said = Vec::new();
        let mut more_said = 0;
        for line in recording.by_ref() {
            let line = line.map_err(|bad| about(path, &bad))?;
            plotter.line(&line);
            for (ms, conclusion) in observer.play(&line) {
                match conclusion {
                    Conclusion::Says(text) if said.len() < MOST_LINES => said.push((ms, text)),
                    Conclusion::Says(_) => more_said += 1,
                    Conclusion::State(_) | Conclusion::WouldSend(_) => {}
                }
            }
        }
        Ok(Self {
            cut: recording.cut,
            header: recording.header,
            series: plotter.finish(),
            said,
            more_said,
        })
    }
}

fn page(told: &Told) -> String {
    let mut out = String::new();
    // Writing to a string never fails.
    let _ = write_page(&mut out, told);
    out
}

fn write_page(out: &mut String, told: &Told) -> std::fmt::Result {
    let series = &told.series;
    let started = escape(&told.header.started);
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
    summary(out, told)?;
    out.push_str(&svg::svg(series));
    let events = series.events.iter();
    let events: Vec<_> = events.map(|event| (event.at, event.text.clone())).collect();
    table(out, "What happened", &events, series.more_events)?;
    let title = "What the driver would say about it";
    table(out, title, &told.said, told.more_said)?;
    let heater = if series.tells_heating {
        ""
    } else {
        " Whether the heating element has power is not told by the firmware: it is calculated."
    };
    let others = if told.header.mqtt.is_some() {
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

fn summary(out: &mut String, told: &Told) -> std::fmt::Result {
    let (header, series) = (&told.header, &told.series);
    let extremes = series.extremes();
    let extremes = extremes.map_or("none".to_owned(), |(low, high)| {
        format!("{low} to {high} °C")
    });
    let whole = if told.cut { ", cut off at its end" } else { "" };
    let rows = [
        (
            "Recorded",
            format!(
                "{}, for {}{whole}",
                header.started,
                span(series.end / 1_000)
            ),
        ),
        ("By", format!("panda-breath {}", header.program)),
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
            c if is_unseen(c) || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    const RECORDING: &str =
        "{\"panda_breath_recording\":1,\"program\":\"0\",\"started\":\"then\"}\n";

    fn report(words: &[&Path]) -> io::Result<()> {
        let words = words.iter().map(|word| word.as_os_str());
        let words = [Path::new("report").as_os_str()].into_iter().chain(words);
        run(&Command::try_parse_from(words).unwrap().arguments)
    }

    #[test]
    fn a_recording_is_not_overwritten_by_its_page_whatever_it_is_called() {
        let folder = std::env::temp_dir().join(format!("pb-report-{}", std::process::id()));
        fs::create_dir_all(folder.join("in")).unwrap();
        let file = folder.join("r.jsonl");
        fs::write(&file, RECORDING).unwrap();
        let (link, hard) = (folder.join("link"), folder.join("hard"));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        fs::hard_link(&file, &hard).unwrap();
        let output = Path::new("--output");
        for same in [&file, &folder.join("./in/../r.jsonl"), &link, &hard] {
            for (one, other) in [(same, &file), (&file, same)] {
                let error = report(&[one, output, other]).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{same:?}");
                assert_eq!(fs::read_to_string(&file).unwrap(), RECORDING);
            }
        }
        // What another link leads to is replaced, and nothing else is left there.
        let (page, other) = (folder.join("page.html"), folder.join("other"));
        fs::write(&page, "old").unwrap();
        std::os::unix::fs::symlink(&page, &other).unwrap();
        report(&[&file, output, &other]).unwrap();
        assert!(other.is_symlink());
        assert!(fs::read_to_string(&page).unwrap().starts_with("<!DOCTYPE"));
        report(&[&file, output, Path::new("/dev/null")]).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 6);
        fs::remove_dir_all(&folder).unwrap();
    }
}
