//! `panda-breath simulate`: simulated devices until the command is ended by a signal.

mod follow;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use self::follow::{follow, open};
use super::complain;
use crate::driver::mqtt::Broker;
use crate::sim::esphome::{self, BangBang, Discovery, Platform, Thermostat};
use crate::sim::{
    Cavity, Dialect, Enclosure, Firmware, Identity, Options, Setup, Simulator, address, broker,
};

/// Simulate Panda Breath devices, to try things without hardware.
///
/// Each prints where it is and then runs until it gets a signal.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What the devices speak: stock (WebSocket), esphome, or `stock_mqtt` (firmware 1.0.4).
    #[arg(long, value_name = "DIALECT", default_value = "stock", value_parser = dialect)]
    dialect: Dialect,
    /// Stock firmware: 0.0.0, 1.0.1, 1.0.2, 1.0.3 or 1.0.4 [default: 1.0.3].
    #[arg(long, value_name = "VERSION")]
    firmware: Option<Firmware>,
    /// Address and port of the first device; port 0 takes any that is free [default: 127.0.0.1:0].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Connect to this broker: `mqtt://[user:password@]host[:port]`. Without it a `stock_mqtt`
    /// device waits until it is bound to one.
    #[arg(long, value_name = "URL", value_parser = broker)]
    broker: Option<Broker>,
    /// First part of all topics [default: the node's name, or `panda_breath` for `stock_mqtt`].
    #[arg(long, value_name = "TEXT", value_parser = prefix)]
    topic_prefix: Option<String>,
    /// How long a device waits before it connects to the broker again [default: 10].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    reconnect_seconds: Option<f64>,
    /// Name of the ESPHome node [default: panda-breath].
    #[arg(long, value_name = "NAME", value_parser = node)]
    node: Option<String>,
    /// Climate of the ESPHome node: thermostat (0 to 80 C), clamped (10 to 30 C) or `bang_bang`
    /// (low and high target) [default: thermostat].
    #[arg(long, value_name = "PLATFORM", value_parser = platform)]
    platform: Option<Platform>,
    /// `min_heating_run_time` of the thermostat, which off waits for [default: 0].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    min_run_seconds: Option<f64>,
    /// `update_interval` of the ESPHome node's sensors [default: 5].
    #[arg(long, value_name = "SECONDS", value_parser = update)]
    update_seconds: Option<f64>,
    /// Send discovery messages for Home Assistant, with short or full keys.
    #[arg(long, value_name = "KEYS", value_parser = ["short", "full"])]
    discovery: Option<String>,
    /// The ESPHome node says None, not nan, when a sensor is broken.
    #[arg(long)]
    nan_as_none: bool,
    /// The relay of the ESPHome node can be switched past its climate.
    #[arg(long)]
    relay: bool,
    /// Simulate N devices, on consecutive ports.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count)]
    count: usize,
    /// Warm up, cool down and dry N times as fast; readings still come as often.
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// How long a restart of a device takes.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    reboot_seconds: f64,
    /// Write what happens to FILE, as JSON lines.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Follow FILE (- for standard input) and do what its lines say, e.g. `drop` or `button on`.
    #[arg(long, value_name = "FILE")]
    inject: Option<PathBuf>,
    /// Keep the devices' settings in FILE.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Where the chamber starts, in C.
    #[arg(long, value_name = "C", default_value_t = 22.0, value_parser = temperature)]
    chamber: f64,
    /// Room around the chamber, in C [default: 22, or the chamber's if that is colder].
    #[arg(long, value_name = "C", value_parser = temperature)]
    ambient: Option<f64>,
    /// Simulate the air around the device and the rest of the chamber, its cavity, apart: that one
    /// lags behind and stays 5 to 9 C cooler.
    #[arg(long)]
    cavity: bool,
    /// The same, and write the cavity's temperature to FILE each second, in thousandths of a degree:
    /// what Klipper's `temperature_host` reads with `sensor_path`.
    #[arg(long, value_name = "FILE")]
    cavity_file: Option<PathBuf>,
    /// MAC address of the first device.
    #[arg(long, value_name = "MAC", default_value_t = Identity::default())]
    identity: Identity,
    /// Network name in the snapshot [default: Simulated].
    #[arg(long, value_name = "TEXT")]
    wifi_ssid: Option<String>,
    /// Network password in the snapshot [default: not-a-password].
    #[arg(long, value_name = "TEXT")]
    wifi_password: Option<String>,
    /// Access point password in the snapshot [default: 987654321].
    #[arg(long, value_name = "TEXT")]
    ap_password: Option<String>,
    /// Bind a Bambu printer with this access code, which is in the snapshot then.
    #[arg(long, value_name = "TEXT")]
    access_code: Option<String>,
}

/// Runs the simulator; returns only when it can't go on.
pub(super) fn run(arguments: Arguments) -> io::Result<()> {
    arguments
        .check()
        .map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text))?;
    // Opened first: a mistake here should not leave a device that was there for a moment.
    let commands = arguments.inject.as_deref().map(open).transpose()?;
    let options = options(arguments);
    let places = places(&options);
    let simulator = Simulator::start(options)?;
    let mut stdout = io::stdout();
    for address in simulator.addresses() {
        writeln!(stdout, "listening on ws://{address}/ws")?;
    }
    for place in places {
        writeln!(stdout, "{place}")?;
    }
    stdout.flush()?;
    if let Some(commands) = commands {
        follow(commands, &simulator);
    }
    simulator.join()
}

impl Arguments {
    /// Says which option does not go with the dialect.
    fn check(&self) -> Result<(), String> {
        let (name, is_node) = match self.dialect {
            Dialect::Stock => ("stock", false),
            Dialect::StockMqtt => ("stock_mqtt", false),
            Dialect::Esphome => ("esphome", true),
        };
        let is_plain = self.dialect == Dialect::Stock;
        let given = [
            ("--firmware", self.firmware.is_some(), is_plain),
            ("--listen", self.listen.is_some(), !is_node),
            ("--wifi-ssid", self.wifi_ssid.is_some(), !is_node),
            ("--wifi-password", self.wifi_password.is_some(), !is_node),
            ("--ap-password", self.ap_password.is_some(), !is_node),
            ("--access-code", self.access_code.is_some(), !is_node),
            ("--broker", self.broker.is_some(), !is_plain),
            ("--topic-prefix", self.topic_prefix.is_some(), !is_plain),
            (
                "--reconnect-seconds",
                self.reconnect_seconds.is_some(),
                !is_plain,
            ),
            ("--node", self.node.is_some(), is_node),
            ("--platform", self.platform.is_some(), is_node),
            ("--min-run-seconds", self.min_run_seconds.is_some(), is_node),
            ("--update-seconds", self.update_seconds.is_some(), is_node),
            ("--discovery", self.discovery.is_some(), is_node),
            ("--nan-as-none", self.nan_as_none, is_node),
            ("--relay", self.relay, is_node),
        ];
        for (option, is_given, fits) in given {
            if is_given && !fits {
                return Err(format!("{option} does not go with --dialect {name}"));
            }
        }
        if is_node && self.broker.is_none() {
            return Err("--dialect esphome needs a --broker".to_owned());
        }
        if self.cavity_file.is_some() && self.count > 1 {
            return Err("--cavity-file is for one device, without --count".to_owned());
        }
        let is_bang_bang = matches!(self.platform, Some(Platform::BangBang(_)));
        if is_bang_bang && self.min_run_seconds.is_some() {
            return Err("--min-run-seconds does not go with --platform bang_bang".to_owned());
        }
        Ok(())
    }
}

fn options(arguments: Arguments) -> Options {
    let chamber_c = arguments.chamber;
    let defaults = Options::default();
    let ambient_c = arguments
        .ambient
        .unwrap_or(chamber_c.min(defaults.setup.ambient_c));
    let stock = defaults.setup;
    let two_nodes = arguments.cavity || arguments.cavity_file.is_some();
    let enclosure = Enclosure {
        cavity: two_nodes.then(Cavity::default),
        ..stock.enclosure
    };
    let setup = Setup {
        firmware: arguments.firmware.unwrap_or(stock.firmware),
        identity: arguments.identity,
        wifi_ssid: arguments.wifi_ssid.unwrap_or(stock.wifi_ssid),
        wifi_password: arguments.wifi_password.unwrap_or(stock.wifi_password),
        ap_password: arguments.ap_password.unwrap_or(stock.ap_password),
        access_code: arguments.access_code,
        topic_prefix: arguments.topic_prefix.clone().unwrap_or(stock.topic_prefix),
        chamber_c,
        ambient_c,
        enclosure,
    };
    let mut platform = arguments.platform.unwrap_or_default();
    if let Platform::Thermostat(thermostat) = &mut platform {
        thermostat.min_run_s = arguments.min_run_seconds.unwrap_or(thermostat.min_run_s);
    }
    let node = esphome::Setup {
        node: arguments.node.unwrap_or(defaults.node.node),
        prefix: arguments.topic_prefix,
        identity: arguments.identity,
        platform,
        relay: arguments.relay,
        update_s: arguments.update_seconds.unwrap_or(defaults.node.update_s),
        nan_as_none: arguments.nan_as_none,
        discovery: arguments.discovery.map(|keys| Discovery {
            abbreviated: keys == "short",
            ..Discovery::default()
        }),
        chamber_c,
        ambient_c,
        enclosure,
        ..esphome::Setup::default()
    };
    Options {
        dialect: arguments.dialect,
        setup,
        node,
        broker: arguments.broker,
        reconnect_s: arguments.reconnect_seconds.unwrap_or(defaults.reconnect_s),
        complain: |text| complain(&format!("broker: {text}")),
        listen: arguments.listen.unwrap_or(defaults.listen),
        count: arguments.count,
        speed: arguments.speed,
        reboot_s: arguments.reboot_seconds,
        log: arguments.log,
        state: arguments.state,
        cavity_file: arguments.cavity_file,
        keep_entries: false,
    }
}

/// Where the devices publish. Printed at the start: whether the broker can be reached is said on
/// stderr, once somebody has tried.
fn places(options: &Options) -> Vec<String> {
    let Some(broker) = &options.broker else {
        return Vec::new();
    };
    let at = address(broker);
    let place = |index| match options.dialect {
        Dialect::Esphome => {
            let setup = options.node.numbered(index, options.count);
            format!("publishing as {}/… to {at} (esphome)", setup.prefix())
        }
        Dialect::Stock | Dialect::StockMqtt => {
            let identity = options.setup.identity.offset(index);
            let prefix = &options.setup.topic_prefix;
            format!("publishing as {prefix}/{identity}/… to {at} (stock_mqtt)")
        }
    };
    (0..options.count).map(place).collect()
}

fn dialect(text: &str) -> Result<Dialect, String> {
    match text {
        "stock" => Ok(Dialect::Stock),
        "esphome" => Ok(Dialect::Esphome),
        "stock_mqtt" => Ok(Dialect::StockMqtt),
        _ => Err("not one of stock, esphome, stock_mqtt".to_owned()),
    }
}

fn platform(text: &str) -> Result<Platform, String> {
    match text {
        "thermostat" => Ok(Platform::Thermostat(Thermostat::default())),
        "clamped" => Ok(Platform::Thermostat(Thermostat::clamped())),
        "bang_bang" => Ok(Platform::BangBang(BangBang::default())),
        _ => Err("not one of thermostat, clamped, bang_bang".to_owned()),
    }
}

/// ESPHome's rules for the name of a node.
fn node(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_');
    if !text.is_empty() && text.len() <= 31 && text.chars().all(is_allowed) {
        Ok(text.to_owned())
    } else {
        Err("not 1 to 31 of a-z, 0-9, - and _".to_owned())
    }
}

fn prefix(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.len() <= 64 && !text.contains(['#', '+', '\0']) {
        Ok(text.to_owned())
    } else {
        Err("not a topic of 1 to 64 characters".to_owned())
    }
}

fn count(text: &str) -> Result<usize, String> {
    let count = text
        .parse()
        .ok()
        .filter(|count| (1..=20_000).contains(count));
    count.ok_or_else(|| "not a number from 1 to 20000".to_owned())
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text
        .parse()
        .ok()
        .filter(|speed| (0.001..=10_000.0).contains(speed));
    speed.ok_or_else(|| "not a number from 0.001 to 10000".to_owned())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| (0.0..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "not a number of seconds from 0 to 3600".to_owned())
}

fn update(text: &str) -> Result<f64, String> {
    let update = text
        .parse()
        .ok()
        .filter(|update| (0.1..=3600.0).contains(update));
    update.ok_or_else(|| "not a number of seconds from 0.1 to 3600".to_owned())
}

fn temperature(text: &str) -> Result<f64, String> {
    let celsius = text
        .parse()
        .ok()
        .filter(|celsius| (-50.0..=150.0).contains(celsius));
    celsius.ok_or_else(|| "not a temperature from -50 to 150".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parsed(line: &str) -> Arguments {
        let words = std::iter::once("simulate").chain(line.split_whitespace());
        Command::try_parse_from(words).unwrap().arguments
    }

    #[test]
    fn options_that_do_not_go_with_the_dialect_are_named() {
        for (line, part) in [
            (
                "--broker mqtt://h",
                "--broker does not go with --dialect stock",
            ),
            ("--node n", "--node does not go with --dialect stock"),
            ("--dialect esphome", "needs a --broker"),
            (
                "--dialect esphome --broker mqtt://h --listen 127.0.0.1:0",
                "--listen",
            ),
            (
                "--dialect esphome --broker mqtt://h --firmware 1.0.3",
                "--firmware",
            ),
            ("--dialect stock_mqtt --firmware 1.0.4", "--firmware"),
            ("--cavity-file f --count 2", "--cavity-file is for one"),
            ("--dialect stock_mqtt --platform bang_bang", "--platform"),
            (
                "--dialect esphome --broker mqtt://h --platform bang_bang --min-run-seconds 1",
                "--min-run-seconds",
            ),
        ] {
            let error = parsed(line).check().unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
        for line in [
            "",
            "--firmware 1.0.4 --listen 127.0.0.1:0",
            "--cavity-file f --cavity --count 1",
            "--dialect stock_mqtt --listen 127.0.0.1:0",
            "--dialect esphome --broker mqtt://h --platform clamped --min-run-seconds 9",
        ] {
            assert_eq!(parsed(line).check(), Ok(()), "{line}");
        }
    }

    #[test]
    fn each_device_says_where_it_publishes_and_not_with_which_password() {
        let line = "--dialect esphome --broker mqtt://u:geheim@127.0.0.1:1884";
        assert_eq!(
            places(&options(parsed(line))),
            ["publishing as panda-breath/… to mqtt://127.0.0.1:1884 (esphome)"]
        );
        let line = "--dialect esphome --broker mqtt://h --count 2";
        assert_eq!(
            places(&options(parsed(line)))[1],
            "publishing as panda-breath-000002/… to mqtt://h:1883 (esphome)"
        );
        let line = "--dialect stock_mqtt --broker mqtt://h";
        assert_eq!(
            places(&options(parsed(line))),
            ["publishing as panda_breath/025042000001/… to mqtt://h:1883 (stock_mqtt)"]
        );
        assert!(places(&options(parsed("--dialect stock_mqtt"))).is_empty());
    }
}
