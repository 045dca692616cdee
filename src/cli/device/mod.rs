//! `panda-breath device`: what the device's own web page can do, from the shell.
//!
//! * `desk`: the visits that a command pays, what it refuses, what it asks
//! * `status`; `restart`: reboot, factory reset, printer type; `network`; `printer`; `update`
//! * `image`: whether a file can be a firmware of this device
//!
//! A command opens one connection at a time and keeps it for seconds (`update`: a second one for
//! the file, because the firmware tells only over the first what became of it).

mod desk;
mod image;
mod network;
mod printer;
mod restart;
mod status;
mod update;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use self::desk::Desk;
use super::bind::{self, Place, password, visit, wrong};
use crate::dialect::Language;
use crate::dialect::stock::page::PrinterType;

const TERMS: &str = "For the stock firmware, 0.0.0 to 1.0.4, over its WebSocket; bind-klipper and \
    printer-type came with\n1.0.3. A device with ESPHome has none of these commands.\n\n\
    What interrupts the device asks first (--yes answers), and is refused while the device may \
    heat or,\nas far as can be known, a print runs. Passwords are typed, or come from a file.\n\n\
    Exit code: 0 done, 1 failed or refused, 2 wrong arguments. More: docs/device.md";

/// Do what the device's own web page does: status, network, printer, firmware update, restart.
#[derive(Debug, Args)]
#[command(after_help = format!("Example:\n  panda-breath device status PandaBreath.local\n\n{TERMS}"))]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what the device says about itself.
    #[command(after_help = "Example:\n  panda-breath device status PandaBreath.local --json")]
    Status {
        #[command(flatten)]
        target: Target,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Restart the device, and wait until it is back.
    #[command(after_help = "Example:\n  panda-breath device reboot PandaBreath.local")]
    Reboot(Interrupting),
    /// Look for Wi-Fi networks, or join one.
    #[command(subcommand)]
    Wifi(Wifi),
    /// Install a firmware file, and wait until the device runs it.
    #[command(
        after_help = "Example:\n  panda-breath device update PandaBreath.local panda_breath_v1.0.3.bin\n\n\
        The file is checked first: an image for an ESP32-C3, whole, that fits into the device. \
        Whether it is one for a\nPanda Breath neither this nor the device can see."
    )]
    Update {
        #[command(flatten)]
        target: Interrupting,
        /// The firmware: a .bin file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Give the device another name in the network.
    #[command(
        after_help = "Example:\n  panda-breath device hostname PandaBreath.local Breath2\n\n\
        In effect after a restart; then it is Breath2.local."
    )]
    Hostname {
        #[command(flatten)]
        target: Target,
        /// Up to 32 letters, digits and hyphens.
        #[arg(value_name = "NAME", value_parser = network::hostname_of)]
        name: String,
    },
    /// The device's own access point.
    #[command(subcommand)]
    Ap(Ap),
    /// Bind the device to Klipper, for its own mode Auto (1.0.3 and later).
    ///
    /// Klipper's `[panda_breath]` does not need this.
    #[command(
        after_help = "Example:\n  panda-breath device bind-klipper PandaBreath.local --moonraker 192.168.1.10"
    )]
    BindKlipper {
        #[command(flatten)]
        target: Asking,
        /// Address of Moonraker as the device reaches it [port: 7125]. The firmware takes no names.
        #[arg(long, value_name = "IP[:PORT]", value_parser = printer::moonraker)]
        moonraker: SocketAddrV4,
        /// What the page calls the printer.
        #[arg(long, value_name = "TEXT", default_value = "klipper", value_parser = printer::name)]
        name: String,
        /// Allow an address of this computer's own loopback, which no real device can reach.
        #[arg(long)]
        loopback: bool,
    },
    /// Unbind the device from its printer. (From its MQTT broker: `panda-breath unbind-broker`.)
    #[command(after_help = "Example:\n  panda-breath device unbind PandaBreath.local")]
    Unbind(Asking),
    /// Set the language of the device's page.
    #[command(after_help = "Example:\n  panda-breath device language PandaBreath.local en")]
    Language {
        #[command(flatten)]
        target: Target,
        /// en or zh.
        #[arg(value_name = "LANGUAGE", value_parser = language)]
        language: Language,
    },
    /// Set which printers the device can be bound to (1.0.3 and later). It restarts.
    #[command(
        after_help = "Example:\n  panda-breath device printer-type PandaBreath.local klipper"
    )]
    PrinterType {
        #[command(flatten)]
        target: Interrupting,
        /// bambu or klipper.
        #[arg(value_name = "TYPE", value_parser = printer_type)]
        kind: PrinterType,
    },
    /// Erase all settings of the device, its Wi-Fi too.
    #[command(after_help = "Example:\n  panda-breath device factory-reset PandaBreath.local")]
    FactoryReset(Interrupting),
}

#[derive(Debug, Subcommand)]
enum Wifi {
    /// List the networks that the device sees.
    #[command(after_help = "Example:\n  panda-breath device wifi scan PandaBreath.local")]
    Scan(Target),
    /// Take the device to another network.
    #[command(after_help = "Example:\n  panda-breath device wifi join PandaBreath.local MyNetwork")]
    Join {
        #[command(flatten)]
        target: Interrupting,
        /// Name of the network.
        #[arg(value_name = "NETWORK", value_parser = network::ssid)]
        ssid: String,
        /// Take the password from the only line of FILE.
        #[arg(long, value_name = "FILE", conflicts_with = "open")]
        password_file: Option<PathBuf>,
        /// The network has no password.
        #[arg(long)]
        open: bool,
        /// Also when the device does not see it.
        #[arg(long)]
        hidden: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Ap {
    /// Keep the access point on, also while the device is in a network.
    #[command(after_help = "Example:\n  panda-breath device ap on PandaBreath.local")]
    On(Target),
    /// Have the access point only while the device is in no network.
    #[command(after_help = "Example:\n  panda-breath device ap off PandaBreath.local")]
    Off(Asking),
    /// Change name, password or address of the access point; the others stay as they are.
    #[command(
        after_help = "Example:\n  panda-breath device ap set PandaBreath.local --new-password\n\n\
        Klipper knows the device by the name of its access point: after --name, its service has to \
        be restarted,\nand a device_id in printer.cfg is another."
    )]
    Set {
        #[command(flatten)]
        target: Asking,
        /// New name.
        #[arg(long, value_name = "TEXT", value_parser = network::ssid)]
        name: Option<String>,
        /// Ask for a new password.
        #[arg(long)]
        new_password: bool,
        /// Take the new password from the only line of FILE.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// New address of the device in its own network; in effect after a restart.
        #[arg(long, value_name = "IP", value_parser = network::ap_address)]
        ip: Option<Ipv4Addr>,
    },
}

#[derive(Debug, Args)]
struct Target {
    /// The device: name or address, with or without :PORT.
    #[arg(value_name = "HOST", value_parser = device)]
    host: Place,
}

#[derive(Debug, Args)]
struct Asking {
    /// The device: name or address, with or without :PORT.
    #[arg(value_name = "HOST", value_parser = device)]
    host: Place,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Args)]
struct Interrupting {
    #[command(flatten)]
    asking: Asking,
    /// The Moonraker that is asked whether a print runs.
    #[arg(long, value_name = "HOST[:PORT]", default_value = "127.0.0.1", value_parser = asked)]
    moonraker: Place,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Each visit to the device.
    pub visit: visit::Patience,
    /// Until the device has acknowledged something, or said what it always says.
    pub answer: Duration,
    /// Without a word before it counts as gone.
    pub silence: Duration,
    /// From a restart that was asked for until it is seen.
    pub leave: Duration,
    /// From there until the device is back.
    pub back: Duration,
    /// From one look at the device to the next.
    pub between: Duration,
    /// For a Wi-Fi scan.
    pub scan: Duration,
    /// For joining a network, and for reaching a printer.
    pub join: Duration,
    /// Until a Moonraker has answered.
    pub moonraker: Duration,
    /// How long the device may take none of a file.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            visit: visit::Patience::default(),
            answer: Duration::from_secs(5),
            silence: Duration::from_secs(4),
            leave: Duration::from_secs(15),
            back: Duration::from_secs(60),
            between: Duration::from_secs(1),
            scan: Duration::from_secs(20),
            join: Duration::from_secs(60),
            moonraker: Duration::from_secs(3),
            // It may erase its flash first.
            stall: Duration::from_secs(60),
        }
    }
}

/// Who answers questions.
pub trait Person {
    /// Whether to go on.
    fn agrees(&mut self, question: &str) -> io::Result<bool>;
    /// A password, and where it is from.
    fn password(&mut self, file: Option<&Path>, prompt: &str) -> io::Result<(String, String)>;
    /// So many bytes of a file have left.
    fn progress(&mut self, sent: usize, of: usize);
}

/// What a command works with.
pub struct World<'a> {
    /// How long things may take.
    pub patience: Patience,
    /// Who answers questions.
    pub person: &'a mut dyn Person,
    /// Where the results go.
    pub out: &'a mut dyn Write,
}

pub(super) fn run(arguments: Arguments) -> io::Result<()> {
    let mut out = io::stdout();
    let mut world = World {
        patience: Patience::default(),
        person: &mut Terminal,
        out: &mut out,
    };
    bind::run(carry_out(arguments.action, &mut world))
}

/// Runs a command that is given as words, `status` first. Its mistakes are `InvalidInput`.
pub async fn run_words(
    words: impl IntoIterator<Item = impl Into<OsString>>,
    world: &mut World<'_>,
) -> io::Result<()> {
    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }
    let words = std::iter::once("device".into()).chain(words.into_iter().map(Into::into));
    let line = Line::try_parse_from(words).map_err(|error| wrong(error.to_string()))?;
    carry_out(line.arguments.action, world).await
}

async fn carry_out(action: Action, world: &mut World<'_>) -> io::Result<()> {
    match action {
        Action::Status { target, json } => status::show(&mut target.desk(world), json).await,
        Action::Reboot(target) => restart::reboot(&mut target.desk(world)).await,
        Action::Wifi(Wifi::Scan(target)) => network::scan(&mut target.desk(world)).await,
        Action::Wifi(Wifi::Join {
            target,
            ssid,
            password_file,
            open,
            hidden,
        }) => {
            let mut desk = target.desk(world);
            let password =
                network::wifi_password(&mut desk, &ssid, password_file.as_deref(), open)?;
            network::join(&mut desk, &ssid, &password, hidden).await
        }
        Action::Update { target, file } => {
            let image = image::read(&file)?;
            update::install(&mut target.desk(world), &image).await
        }
        Action::Hostname { target, name } => {
            network::hostname(&mut target.desk(world), &name).await
        }
        Action::Ap(Ap::On(target)) => network::ap_switch(&mut target.desk(world), true).await,
        Action::Ap(Ap::Off(target)) => network::ap_switch(&mut target.desk(world), false).await,
        Action::Ap(Ap::Set {
            target,
            name,
            new_password,
            password_file,
            ip,
        }) => {
            if name.is_none() && !new_password && password_file.is_none() && ip.is_none() {
                return Err(wrong(
                    "ap set: what? --name, --new-password, --password-file or --ip",
                ));
            }
            let mut desk = target.desk(world);
            let wanted = new_password || password_file.is_some();
            let password = wanted
                .then(|| network::ap_password(&mut desk, password_file.as_deref()))
                .transpose()?;
            network::ap_set(&mut desk, name, password, ip).await
        }
        Action::BindKlipper {
            target,
            moonraker,
            name,
            loopback,
        } => {
            if moonraker.ip().is_loopback() && !loopback {
                return Err(wrong(format!(
                    "{} is this computer itself for every device, too: give the address that \
                     Moonraker has on the network (--loopback for a simulated device)",
                    moonraker.ip()
                )));
            }
            printer::bind(&mut target.desk(world), &name, moonraker).await
        }
        Action::Unbind(target) => printer::unbind(&mut target.desk(world)).await,
        Action::Language { target, language } => {
            status::set_language(&mut target.desk(world), language).await
        }
        Action::PrinterType { target, kind } => {
            restart::printer_type(&mut target.desk(world), kind).await
        }
        Action::FactoryReset(target) => restart::factory_reset(&mut target.desk(world)).await,
    }
}

impl Target {
    fn desk<'d, 'w>(self, world: &'d mut World<'w>) -> Desk<'d, 'w> {
        Desk::new(world, self.host, true, None)
    }
}

impl Asking {
    fn desk<'d, 'w>(self, world: &'d mut World<'w>) -> Desk<'d, 'w> {
        Desk::new(world, self.host, self.yes, None)
    }
}

impl Interrupting {
    fn desk<'d, 'w>(self, world: &'d mut World<'w>) -> Desk<'d, 'w> {
        let Asking { host, yes } = self.asking;
        Desk::new(world, host, yes, Some(self.moonraker))
    }
}

/// Who sits at the terminal.
struct Terminal;

impl Person for Terminal {
    fn agrees(&mut self, question: &str) -> io::Result<bool> {
        if !io::stdin().is_terminal() {
            return Err(wrong(format!(
                "{question} There is nobody to ask: add --yes if you mean it"
            )));
        }
        let mut err = io::stderr();
        write!(err, "{question} Go on? [y/N] ")?;
        err.flush()?;
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        Ok(matches!(
            line.trim().to_ascii_lowercase().as_str(),
            "y" | "yes"
        ))
    }

    fn password(&mut self, file: Option<&Path>, prompt: &str) -> io::Result<(String, String)> {
        password::read(file, prompt)
    }

    fn progress(&mut self, sent: usize, of: usize) {
        let mut err = io::stderr();
        if err.is_terminal() {
            let _ = write!(err, "\r{}", bar(sent, of));
            if sent == of {
                let _ = writeln!(err);
            }
            let _ = err.flush();
        }
    }
}

/// A progress bar of always the same length.
fn bar(sent: usize, of: usize) -> String {
    const WIDTH: usize = 40;
    let of = of.max(1);
    let full = sent * WIDTH / of;
    format!(
        "[{:<WIDTH$}] {:3} % of {} KiB",
        "#".repeat(full),
        sent * 100 / of,
        of / 1024
    )
}

fn device(text: &str) -> Result<Place, String> {
    if text.starts_with("mqtt") && text.contains("://") {
        return Err(
            "a broker: these commands talk to the device itself, by its name or address; a \
             device with ESPHome has none of them"
                .to_owned(),
        );
    }
    text.parse()
}

/// A Moonraker, at its usual port.
fn asked(text: &str) -> Result<Place, String> {
    let place: Place = text.parse()?;
    let with_port = text.ends_with(&format!(":{}", place.port)) && text != place.host;
    let port = if with_port { place.port } else { printer::PORT };
    Ok(Place { port, ..place })
}

fn language(text: &str) -> Result<Language, String> {
    match text {
        "en" => Ok(Language::English),
        "zh" => Ok(Language::Chinese),
        _ => Err("the firmware knows en and zh".to_owned()),
    }
}

fn printer_type(text: &str) -> Result<PrinterType, String> {
    match text {
        "bambu" => Ok(PrinterType::Bambu),
        "klipper" => Ok(PrinterType::Klipper),
        _ => Err("the firmware knows bambu and klipper".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_always_as_long() {
        let lengths: Vec<_> = [0, 1, 50_000, 102_400]
            .map(|sent| bar(sent, 102_400).len())
            .into();
        assert!(lengths.iter().all(|length| *length == lengths[0]));
        assert!(bar(102_400, 102_400).contains("] 100 % of 100 KiB"));
        assert!(bar(0, 0).contains("  0 %"));
    }

    #[test]
    fn a_moonraker_is_at_its_usual_port_unless_said() {
        assert_eq!(asked("127.0.0.1").unwrap().port, 7125);
        assert_eq!(asked("voron.local:80").unwrap().port, 80);
        assert_eq!(asked("fd00::80").unwrap().port, 7125);
        assert_eq!(asked("[fd00::7]:81").unwrap().port, 81);
    }

    #[test]
    fn a_broker_is_no_device() {
        let error = device("mqtt://192.0.2.5").unwrap_err();
        assert!(error.contains("ESPHome has none"), "{error}");
    }
}
