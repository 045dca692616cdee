//! `panda-breath discover`: which devices are there, and what to write into printer.cfg for them.
//!
//! * [`mod@self`]: the command and what it prints
//! * `network`: what announces itself, and addresses that the user names
//! * `broker`: devices behind an MQTT broker

mod broker;
mod network;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::bind::{Place, failed, visit};
use super::{at_broker, bind};
use crate::dialect::{Dialect, Report};
use crate::driver::mdns;
use crate::driver::mqtt::Broker;

/// Find devices on this network, and at a broker.
///
/// Asks who announces a web page (mDNS), looks at those that may be a Panda Breath one after the
/// other, and prints what belongs into printer.cfg. Changes nothing on any device.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  panda-breath discover\n  \
    panda-breath discover 192.168.1.50 192.168.1.51\n  \
    panda-breath discover --broker 192.168.1.10 --username klipper\n\n\
    Exit status: 0 at least one device was found, 1 none, 2 wrong arguments.")]
pub(super) struct Arguments {
    /// Look at this address as well: name or address, with or without :PORT.
    #[arg(value_name = "HOST")]
    hosts: Vec<Place>,
    #[command(flatten)]
    broker: at_broker::BrokerArguments,
    /// Only look where told.
    #[arg(long)]
    no_mdns: bool,
    /// How long to listen for announcements.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Where to look, and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Addresses to look at.
    pub hosts: Vec<Place>,
    /// Whom to ask for announcements.
    pub group: Option<SocketAddr>,
    /// A broker to look at.
    pub broker: Option<Broker>,
    /// What topics begin with there, beside the usual.
    pub prefix: Option<String>,
    /// How long to listen for announcements.
    pub time: Duration,
    /// How long a visit may take.
    pub patience: visit::Patience,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            group: None,
            broker: None,
            prefix: None,
            time: Duration::from_secs(3),
            patience: visit::Patience {
                open: Duration::from_secs(3),
                snapshot: Duration::from_secs(3),
                ..visit::Patience::default()
            },
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The devices.
    pub devices: Vec<Device>,
    /// Where something went wrong, and what.
    pub failures: Vec<(String, String)>,
    /// Who answered, but is something else, so that it was left alone.
    pub others: usize,
}

/// A device.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub place: String,
    /// How it speaks.
    pub dialect: Dialect,
    /// Its version, if it says so.
    pub firmware: Option<String>,
    /// The last digits of its identity, as in `device_id`.
    pub id: Option<String>,
    /// Its MAC address, to know it again at a broker; never printed from here.
    mac: Option<String>,
    /// It is this one, found another way.
    pub same_as: Option<String>,
    /// What it does now.
    pub report: Report,
    /// What belongs into its section of printer.cfg.
    pub options: Vec<(&'static str, String)>,
}

pub(super) fn run(arguments: &Arguments) -> io::Result<()> {
    let plan = Plan {
        hosts: arguments.hosts.clone(),
        group: (!arguments.no_mdns).then_some(mdns::GROUP),
        broker: arguments.broker.read()?,
        prefix: arguments.broker.topic_prefix.clone(),
        time: Duration::from_secs_f64(arguments.seconds),
        ..Plan::default()
    };
    if plan.hosts.is_empty() && plan.group.is_none() && plan.broker.is_none() {
        return Err(bind::wrong(
            "with --no-mdns, name addresses or a --broker to look at",
        ));
    }
    bind::run(async {
        let found = discover(&plan).await;
        let mut out = io::stdout();
        if arguments.json {
            writeln!(out, "{}", found.json())?;
        } else {
            write!(out, "{}", found.text(&plan))?;
        }
        match found.devices.len() {
            0 => Err(failed("no Panda Breath was found")),
            _ => Ok(()),
        }
    })
}

/// Looks everywhere.
pub async fn discover(plan: &Plan) -> Found {
    let mut found = Found::default();
    network::look(plan, &mut found).await;
    if let Some(at) = &plan.broker {
        broker::look(at, plan, &mut found).await;
    }
    found.find_the_same();
    found
}

impl Found {
    /// Stock firmware 1.0.4 is to be found directly and at its broker.
    fn find_the_same(&mut self) {
        for n in 1..self.devices.len() {
            let (before, rest) = self.devices.split_at_mut(n);
            let mut others = before.iter();
            let same = others.find(|other| other.mac.is_some() && other.mac == rest[0].mac);
            rest[0].same_as = same.map(|other| other.name.clone());
        }
    }

    /// For people.
    pub fn text(&self, plan: &Plan) -> String {
        let mut text = String::new();
        for device in &self.devices {
            text += &device.text();
            text += match &device.same_as {
                None => "\n  in printer.cfg:\n\n",
                Some(_) => "\n  in printer.cfg, instead of the other section:\n\n",
            };
            text += &self.section(device);
            text += "\n";
        }
        if self.devices.iter().any(Device::is_at_broker)
            && plan.broker.as_ref().is_some_and(|at| at.login.is_some())
        {
            text += "Behind the broker also mqtt_username and mqtt_password_file: Klipper has to \
                     log in there, too.\n";
        }
        for (place, why) in &self.failures {
            let _ = writeln!(text, "{place}: {why}");
        }
        if self.others > 0 {
            let others = counted(self.others, "other announcement");
            let _ = writeln!(
                text,
                "{others} that seem to be something else were left alone."
            );
        }
        if self.devices.is_empty() {
            text += NOTHING;
        }
        text
    }

    /// The section for printer.cfg: with several, each has a name of its own.
    fn section(&self, device: &Device) -> String {
        let name = match (&device.id, self.devices.len()) {
            (Some(id), 2..) => format!("panda_breath {id}"),
            _ => "panda_breath".to_owned(),
        };
        let mut text = format!("    [{name}]\n");
        for (option, value) in &device.options {
            let _ = writeln!(text, "    {option}: {value}");
        }
        if let (Some(id), 2..) = (&device.id, self.devices.len()) {
            let _ = writeln!(text, "    device_id: {id}");
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> String {
        let devices = self.devices.iter().map(|device| {
            let options = device.options.iter();
            let options: serde_json::Map<_, _> = options
                .map(|(option, value)| ((*option).to_owned(), value.clone().into()))
                .collect();
            json!({
                "name": device.name,
                "place": device.place,
                "dialect": device.dialect.name(),
                "firmware": device.firmware,
                "device_id": device.id,
                "same_as": device.same_as,
                "on": device.report.on,
                "mode": device.report.mode.map(crate::dialect::Mode::name),
                "target": device.report.target,
                "temperature": device.report.reading,
                "fault": device.report.fault.map(crate::dialect::Fault::text),
                "section": self.section(device).replace("    ", ""),
                "options": options,
            })
        });
        let failures = self.failures.iter();
        json!({
            "devices": devices.collect::<Vec<_>>(),
            "failures": failures
                .map(|(place, why)| json!({"place": place, "why": why}))
                .collect::<Vec<_>>(),
            "others": self.others,
        })
        .to_string()
    }
}

const NOTHING: &str = "\
Nothing was found. The device announces itself only while it is on the same network:
* Is it on Wi-Fi? Its own network is called Panda_Breath_…; on its page at http://192.168.254.1 you
  choose yours (2.4 GHz).
* Are the printer and the device in the same network, without guest isolation between them?
* Many routers show its address: panda-breath discover ADDRESS
";

impl Device {
    fn is_at_broker(&self) -> bool {
        self.dialect != Dialect::Stock
    }

    fn text(&self) -> String {
        let at = if self.place == self.name {
            String::new()
        } else {
            format!(" at {}", self.place)
        };
        let firmware = self.firmware.as_deref().unwrap_or("of unknown version");
        let id = self.id.as_ref();
        let id = id.map_or(String::new(), |id| format!(", device_id {id}"));
        let same = self.same_as.as_ref();
        let same = same.map_or(String::new(), |other| {
            format!(", the same device as {other}")
        });
        format!(
            "{}{at}{same}\n  firmware {firmware}, dialect {}{id}\n  {}\n",
            self.name,
            self.dialect.name(),
            doing(&self.report)
        )
    }
}

/// What a device does, in words for people.
pub(super) fn doing(report: &Report) -> String {
    let mut parts = Vec::new();
    parts.push(match (report.present, report.on, report.mode) {
        (Some(false), ..) => "not connected".to_owned(),
        (_, Some(false), _) => "off".to_owned(),
        (_, Some(true), Some(mode)) => format!("on, mode {}", mode.name()),
        (_, Some(true), None) => "on".to_owned(),
        (_, None, _) => "does not say whether it is on".to_owned(),
    });
    if report.on == Some(true) {
        if let Some(target) = report.target {
            parts.push(format!("target {target} C"));
        }
    }
    if report.drying == Some(true) {
        let left = report.remaining_seconds.unwrap_or(0);
        parts.push(format!("drying, {} min left", left / 60));
    }
    parts.push(match report.reading {
        Some(reading) => format!("chamber {reading} C"),
        None => "no reading".to_owned(),
    });
    if let Some(fault) = report.fault {
        parts.push(format!("fault: {}", fault.text()));
    }
    parts.join(", ")
}

/// What a later message says counts more.
pub(super) fn merge(into: &mut Report, from: &Report) {
    fn take<T: Copy>(into: &mut Option<T>, from: Option<T>) {
        if from.is_some() {
            *into = from;
        }
    }
    take(&mut into.firmware, from.firmware);
    take(&mut into.identity, from.identity);
    take(&mut into.reading, from.reading);
    take(&mut into.on, from.on);
    take(&mut into.mode, from.mode);
    take(&mut into.heating, from.heating);
    take(&mut into.target, from.target);
    take(&mut into.target_limit, from.target_limit);
    take(&mut into.drying, from.drying);
    take(&mut into.remaining_seconds, from.remaining_seconds);
    take(&mut into.fault, from.fault);
    take(&mut into.present, from.present);
    into.ignored += from.ignored;
}

/// A name that a stranger has chosen, fit for a terminal.
pub(super) fn printable(text: &str) -> String {
    let fits = |c: char| c.is_alphanumeric() || " ._-:/(),".contains(c);
    let shown = text.chars().map(|c| if fits(c) { c } else { '?' });
    shown.take(100).collect()
}

/// `1 problem`, `2 problems`.
pub(super) fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok();
    let seconds = seconds.filter(|seconds| (0.1..=60.0).contains(seconds));
    seconds.ok_or_else(|| "not a number of seconds from 0.1 to 60".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{Fault, Mode};

    #[test]
    fn what_it_does_is_said_in_one_line() {
        let mut report = Report {
            on: Some(false),
            mode: Some(Mode::On),
            target: Some(45.0),
            reading: Some(24.0),
            ..Report::default()
        };
        assert_eq!(doing(&report), "off, chamber 24 C");
        report.on = Some(true);
        assert_eq!(doing(&report), "on, mode on, target 45 C, chamber 24 C");
        report.fault = Some(Fault::Heater);
        assert!(doing(&report).contains("fault: heater abnormal"));
        report = Report {
            present: Some(false),
            ..Report::default()
        };
        assert_eq!(doing(&report), "not connected, no reading");
    }

    #[test]
    fn a_stranger_cannot_write_on_the_terminal() {
        assert_eq!(printable("Panda\u{1b}[2J\nBreath"), "Panda??2J?Breath");
        assert_eq!(printable("0001, 0002"), "0001, 0002");
        assert_eq!(printable(&"x".repeat(500)).len(), 100);
    }
}
