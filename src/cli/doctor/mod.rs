//! `panda-breath doctor`: everything that a helper in a forum would ask.
//!
//! * [`mod@self`]: the command: what to look at, and what it prints
//! * `finding`: what it says
//! * `printer_cfg`: Klipper's configuration, read as Klipper does; `klipper`: what is wrong in it;
//!   `options`: of our sections; `heaters`: who calls them by which name; `spelling`: what was meant;
//!   `wanted`: the devices in it
//! * `host`: this computer, and what is installed for Klipper
//! * `stock`, `broker`: a device; `firmware`: what is known of each version
//!
//! It only looks: one short connection at a time, nothing is changed on any device.

mod broker;
mod finding;
mod firmware;
mod heaters;
mod host;
mod klipper;
mod options;
mod printer_cfg;
mod spelling;
mod stock;
mod wanted;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::json;

use super::at_broker;
use super::bind::{self, Place, failed, visit, wrong};
use super::discover::counted;
use super::klippy::Machine;
use crate::dialect::Identity;
use crate::dialect::mqtt::Options;
use crate::driver::mdns;
use finding::Findings;
pub use finding::{Finding, Level};
use printer_cfg::Config;
use wanted::{Target, Wanted};

/// Find out why a device does not work as it should.
///
/// Looks at printer.cfg, at what is installed for Klipper, and at each device: name, connection,
/// firmware, Wi-Fi, broker. Says what is wrong and what to do. Changes nothing; a Klipper that runs
/// is not disturbed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  panda-breath doctor\n  \
    panda-breath doctor --config ~/printer_data/config/printer.cfg\n  \
    panda-breath doctor 192.168.1.50\n  \
    panda-breath doctor --broker 192.168.1.10 --username klipper\n\n\
    Exit status: 0 no problem was found (there may be warnings), 1 a problem, 2 wrong arguments.")]
pub(super) struct Arguments {
    /// The device: name or address, with or without :PORT. Without it: those in printer.cfg.
    #[arg(value_name = "HOST", conflicts_with = "config")]
    host: Option<Place>,
    #[command(flatten)]
    broker: at_broker::DeviceAtBroker,
    /// Look at this printer.cfg [default: that of the Klipper that runs here, or the usual place].
    #[arg(long, value_name = "FILE", conflicts_with = "broker")]
    config: Option<PathBuf>,
    /// The Python that Klipper runs with [default: that of the Klipper that runs here].
    #[arg(long, value_name = "FILE")]
    klippy_python: Option<PathBuf>,
    /// How long to listen to each device.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What to look at, and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Klipper's configuration.
    pub config: Option<PathBuf>,
    /// A device that the user names.
    pub device: Option<Place>,
    /// A broker that the user names, and the device there.
    pub broker: Option<(crate::driver::mqtt::Broker, Options)>,
    /// The Python that Klipper runs with.
    pub python: Option<PathBuf>,
    /// Whom to ask for devices with the same name.
    pub group: Option<SocketAddr>,
    /// How long to listen to each device.
    pub time: Duration,
    /// How long a visit may take.
    pub patience: visit::Patience,
    /// The user's home.
    pub home: Option<PathBuf>,
    /// The system's services.
    pub units: PathBuf,
    /// The system's processes.
    pub proc: PathBuf,
    /// The time of day.
    pub now: SystemTime,
}

#[expect(
    clippy::disallowed_methods,
    reason = "asked once, for a person who waits for the answer"
)]
impl Default for Plan {
    fn default() -> Self {
        Self {
            config: None,
            device: None,
            broker: None,
            python: None,
            group: Some(mdns::GROUP),
            time: Duration::from_secs(10),
            patience: visit::Patience::default(),
            home: std::env::var_os("HOME").map(PathBuf::from),
            units: "/etc/systemd/system".into(),
            proc: "/proc".into(),
            now: SystemTime::now(),
        }
    }
}

pub(super) fn run(arguments: Arguments) -> io::Result<()> {
    let json = arguments.json;
    let mut plan = arguments.plan()?;
    if plan.device.is_none() && plan.broker.is_none() && plan.config.is_none() {
        plan.config = usual_config(&plan);
        if plan.config.is_none() {
            return Err(wrong(
                "no printer.cfg was found: name a device, a --broker or a --config",
            ));
        }
    }
    bind::run(async {
        let mut out = io::stdout();
        let mut error = None;
        let found = examine(&plan, |news| {
            if json || error.is_some() {
                return;
            }
            let written = match news {
                News::Begin(thing) => writeln!(out, "\n{thing}").and_then(|()| out.flush()),
                News::Found(finding) => write!(out, "{}", finding.line()),
            };
            error = written.err();
        })
        .await;
        if let Some(error) = error {
            return Err(error);
        }
        let count = |level| found.iter().filter(|one| one.level == level).count();
        let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
        if json {
            writeln!(out, "{}", to_json(&found))?;
        }
        let summary = format!(
            "{}, {}",
            counted(problems, "problem"),
            counted(warnings, "warning")
        );
        if problems > 0 {
            out.flush()?;
            return Err(failed(summary));
        }
        if !json {
            writeln!(out, "\n{summary}")?;
        }
        Ok(())
    })
}

impl Arguments {
    fn plan(self) -> io::Result<Plan> {
        Ok(Plan {
            config: self.config,
            device: self.host,
            broker: self.broker.read()?,
            python: self.klippy_python,
            time: Duration::from_secs_f64(self.seconds),
            ..Plan::default()
        })
    }
}

impl Plan {
    /// Where Klipper may be.
    fn machine(&self) -> Machine {
        Machine {
            homes: self.home.iter().cloned().collect(),
            units: self.units.clone(),
            proc: Some(self.proc.clone()),
        }
    }
}

/// That of a Klipper that runs here, or of one that is where they usually are.
fn usual_config(plan: &Plan) -> Option<PathBuf> {
    let mut found = host::klippers(&plan.machine()).into_iter();
    found.next().map(|one| one.printer_cfg)
}

/// What is told while it goes on.
pub enum News<'a> {
    /// This is looked at now.
    Begin(&'a str),
    /// This was found.
    Found(&'a Finding),
}

/// Looks at everything that the plan names.
pub async fn examine(plan: &Plan, mut tell: impl FnMut(News<'_>)) -> Vec<Finding> {
    let mut all = Vec::new();
    let mut wanted = Vec::new();
    if let Some(path) = &plan.config {
        tell(News::Begin(&path.display().to_string()));
        let (said, found) = configuration(path, plan.home.as_deref());
        report(said, &mut all, &mut tell);
        wanted = found;
    }
    wanted.extend(named(plan));
    tell(News::Begin("this computer"));
    let mut said = Findings::about("this computer");
    let place = host::find(
        &plan.machine(),
        plan.config.as_deref(),
        plan.python.as_deref(),
    );
    host::check(&place, &mut said);
    let has_tls = |one: &Wanted| matches!(&one.target, Some(Target::Broker(broker, _)) if broker.tls.is_some());
    host::clock(plan.now, wanted.iter().any(has_tls), &mut said);
    report(said, &mut all, &mut tell);
    let mut met: Vec<(String, Identity)> = Vec::new();
    for one in &wanted {
        let Some(target) = &one.target else { continue };
        let mut said = wanted::about(one);
        tell(News::Begin(&format!(
            "{} (for {:.0} s)",
            said.name(),
            plan.time.as_secs_f64()
        )));
        let who = match target {
            Target::Stock(place) => {
                stock::check(place, one.device_id.as_deref(), plan, &mut said).await
            }
            Target::Broker(at, options) => {
                broker::check(at, options, one.max_target, plan, &mut said).await
            }
        };
        if let Some(who) = who {
            if let Some((other, _)) = met.iter().find(|(_, known)| *known == who) {
                said.problem(
                    "one_device",
                    format!("[{other}] and [{}] lead to one device", one.section),
                    "every device needs one section: correct an address ('panda-breath discover')",
                );
            }
            met.push((one.section.clone(), who));
        }
        report(said, &mut all, &mut tell);
    }
    all
}

fn report(said: Findings, all: &mut Vec<Finding>, tell: &mut impl FnMut(News<'_>)) {
    for finding in said.list {
        tell(News::Found(&finding));
        all.push(finding);
    }
}

fn configuration(path: &Path, home: Option<&Path>) -> (Findings, Vec<Wanted>) {
    match Config::read(path) {
        Ok(config) => klipper::check(&config, path, home),
        Err(why) => {
            let mut said = Findings::about(path.display().to_string());
            said.problem(
                "read",
                format!("{} cannot be read: {why}", path.display()),
                "--config names Klipper's printer.cfg; run it as the user that runs Klipper",
            );
            (said, Vec::new())
        }
    }
}

/// What the user names on the command line.
fn named(plan: &Plan) -> Vec<Wanted> {
    let one = |target| Wanted {
        section: "panda_breath".into(),
        target: Some(target),
        device_id: None,
        max_target: 60.0,
    };
    let device = plan.device.clone().map(Target::Stock);
    let broker = plan.broker.clone();
    let broker = broker.map(|(at, options)| Target::Broker(Box::new(at), Box::new(options)));
    device.into_iter().chain(broker).map(one).collect()
}

fn to_json(found: &[Finding]) -> String {
    let count = |level| found.iter().filter(|one| one.level == level).count();
    json!({
        "findings": found.iter().map(Finding::json).collect::<Vec<_>>(),
        "problems": count(Level::Problem),
        "warnings": count(Level::Warning),
    })
    .to_string()
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok();
    let seconds = seconds.filter(|seconds| (1.0..=600.0).contains(seconds));
    seconds.ok_or_else(|| "not a number of seconds from 1 to 600".to_owned())
}
