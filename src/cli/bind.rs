//! `panda-breath bind-broker` and `unbind-broker`: which MQTT broker a device on stock firmware
//! 1.0.4 uses.
//!
//! The frames are unconfirmed on real hardware, so a command never says that something has worked
//! because it was sent: it asks the device again, over fresh connections, until it says so itself.

pub(super) mod password;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::time::{sleep, timeout};

use crate::dialect::stock::ha::{self, Bound, Ha, Id};
use crate::dialect::{Identity, Report};
use crate::driver::mqtt::Login;
pub use crate::driver::visit::{self, Place, Visit};

/// Where brokers are.
const PORT: u16 = 1883;
/// The device keeps address, user name, password and port in 146 bytes; how they share them is not
/// known, and nobody knows what it does with more.
const MOST_BYTES: usize = 63;
const TERMS: &str = "The firmware's frames for this are a guess that nobody has tried on a real \
    device. The command\nasks the device whether it has worked, and says how to do it by hand if \
    not.";

/// Bind a device on stock firmware 1.0.4 to an MQTT broker.
///
/// Tells the device which broker to use, waits until it says that it is connected to it, and
/// prints what belongs into printer.cfg.
#[derive(Debug, Args)]
#[command(after_help = format!("Example:\n  panda-breath bind-broker PandaBreath.local \
    --broker 192.168.1.10 --username breath\n\n{TERMS}"))]
pub(super) struct BindArguments {
    /// The device: name or address, with or without :PORT.
    #[arg(value_name = "HOST")]
    host: Place,
    /// Address of the broker as the device reaches it, with or without :PORT. No name: the firmware
    /// may not take one.
    #[arg(long, value_name = "IP[:PORT]", value_parser = broker)]
    broker: SocketAddrV4,
    /// User name of the device at the broker. Its password is asked for, or is one line of standard
    /// input.
    #[arg(long, value_name = "NAME", value_parser = username)]
    username: Option<String>,
    /// Take the password from the only line of FILE.
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// Allow a broker on this computer's own loopback addresses, which no real device can reach.
    #[arg(long)]
    loopback: bool,
    /// Send it even if the device is connected to this broker already, e.g. with a new password.
    #[arg(long)]
    again: bool,
    /// Go on although the device is on.
    #[arg(long)]
    while_on: bool,
}

/// Make a device on stock firmware 1.0.4 forget its MQTT broker.
#[derive(Debug, Args)]
#[command(after_help = format!("Example:\n  panda-breath unbind-broker PandaBreath.local\n\n{TERMS}"))]
pub(super) struct UnbindArguments {
    /// The device: name or address, with or without :PORT.
    #[arg(value_name = "HOST")]
    host: Place,
    /// Go on although the device is on.
    #[arg(long)]
    while_on: bool,
}

/// Which device to bind to which broker.
#[derive(Clone, Debug)]
pub struct Order {
    /// The device.
    pub device: Place,
    /// The broker, as the device reaches it.
    pub broker: SocketAddrV4,
    /// How the device gets in there.
    pub login: Option<Login>,
    /// Also when it is connected there already.
    pub again: bool,
    /// Also when the device is on.
    pub while_on: bool,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Each visit to the device.
    pub visit: visit::Patience,
    /// From one look at the device to the next.
    pub between: Duration,
    /// All looks together.
    pub most: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            visit: visit::Patience::default(),
            between: Duration::from_secs(2),
            most: Duration::from_secs(30),
        }
    }
}

pub(super) fn run_bind(arguments: BindArguments) -> io::Result<()> {
    let order = arguments.order()?;
    run(bind(&order, &Patience::default(), &mut io::stdout()))
}

pub(super) fn run_unbind(arguments: &UnbindArguments) -> io::Result<()> {
    let UnbindArguments { host, while_on } = arguments;
    let patience = Patience::default();
    run(unbind(host, *while_on, &patience, &mut io::stdout()))
}

/// Runs a command that talks to a device, on this thread.
pub(super) fn run(command: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let result = runtime.block_on(command);
    // A thread may still be waiting for a name server: it is not waited for.
    runtime.shutdown_background();
    result
}

impl BindArguments {
    fn order(self) -> io::Result<Order> {
        if self.broker.ip().is_loopback() && !self.loopback {
            return Err(wrong(format!(
                "{} is this computer itself for every device, too: give the address that the \
                 broker has on the network (--loopback for a simulated device)",
                self.broker.ip()
            )));
        }
        let login = match self.username {
            None => None,
            Some(username) => {
                let password = password::get(self.password_file.as_deref(), &username)?;
                Some(Login { username, password })
            }
        };
        Ok(Order {
            device: self.host,
            broker: self.broker,
            login,
            again: self.again,
            while_on: self.while_on,
        })
    }
}

/// Binds a device to a broker, and waits until it says that it is connected there. What people
/// want to know goes to `out`; an error is one line.
pub async fn bind(order: &Order, patience: &Patience, out: &mut impl Write) -> io::Result<()> {
    let mut device = Device::new(&order.device, patience);
    let visit = device.visit().await.map_err(failed)?;
    let before = device.introduce(&visit, out)?;
    let id = visit.mqtt.id.clone();
    let broker = order.broker;
    let is_there = |ha: Ha| ha.bound == Bound::At(broker) && ha.is_connected();
    if is_there(before) && !order.again {
        writeln!(
            out,
            "It is bound to {broker} already, and connected; nothing was sent (--again sends it)."
        )?;
        return write_config(out, order, id.as_ref());
    }
    refuse_while_on(&visit.report, order.while_on, "Binding")?;
    match before.bound {
        Bound::Nowhere => {}
        Bound::At(at) if at == broker => writeln!(out, "It is bound to {broker} already.")?,
        Bound::At(_) | Bound::Elsewhere => writeln!(out, "It was bound to another broker.")?,
    }
    let (user, password) = order.login.as_ref().map_or(("", ""), |login| {
        (login.username.as_str(), login.password.as_str())
    });
    device
        .send(visit, ha::bind(broker, user, password), out)
        .await?;
    // Right after it has left another broker it may not have noticed that yet.
    let times = if before.is_connected() { 2 } else { 1 };
    if let Err(last) = device.looks(times, is_there).await {
        return Err(failed(not_bound(order, patience, last)));
    }
    writeln!(out, "It is bound to {broker}, and connected.")?;
    write_config(out, order, id.as_ref())
}

/// Makes a device forget its broker, and waits until it says that it has none.
pub async fn unbind(
    place: &Place,
    while_on: bool,
    patience: &Patience,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut device = Device::new(place, patience);
    let visit = device.visit().await.map_err(failed)?;
    if device.introduce(&visit, out)?.bound == Bound::Nowhere {
        writeln!(out, "It is not bound to a broker; nothing was sent.")?;
        return Ok(());
    }
    refuse_while_on(&visit.report, while_on, "Unbinding")?;
    device.send(visit, ha::unbind(), out).await?;
    let is_free = |ha: Ha| ha.bound == Bound::Nowhere && !ha.is_connected();
    if let Err(last) = device.looks(1, is_free).await {
        let after = patience.most.as_secs_f32();
        let why = match last {
            Ok(ha) => format!(
                "after {after:.0} s the device still has a broker ({}): the frame that unbinds is \
                 unconfirmed on real hardware",
                state(ha)
            ),
            Err(why) => format!("the frame was sent, but the device does not say so: {why}"),
        };
        return Err(failed(format!("{why}. {}", by_hand(place, "Unbind"))));
    }
    writeln!(out, "It is bound to no broker any more.")?;
    writeln!(
        out,
        "If printer.cfg says 'firmware: stock_mqtt', Klipper loses it now: give it a 'host' and \
         'firmware: stock' instead."
    )
}

/// The device that a command is about: always the same one, whatever its name leads to later.
struct Device<'a> {
    place: &'a Place,
    patience: &'a Patience,
    /// Where it was found, and who it is.
    met: Option<(Place, Option<Identity>)>,
}

impl<'a> Device<'a> {
    fn new(place: &'a Place, patience: &'a Patience) -> Self {
        Self {
            place,
            patience,
            met: None,
        }
    }

    async fn visit(&mut self) -> Result<Visit, String> {
        let place = self.met.as_ref().map_or(self.place, |(place, _)| place);
        let visit = Visit::pay(place, &self.patience.visit).await;
        let visit = visit.map_err(|why| format!("{}: {why}", self.place))?;
        match &self.met {
            None => self.met = Some((visit.address(), visit.report.identity)),
            Some((_, identity)) if *identity != visit.report.identity => {
                return Err(format!("{}: another device answers there now", self.place));
            }
            Some(_) => {}
        }
        Ok(visit)
    }

    /// Says which device it is, and what it says about its broker.
    fn introduce(&self, visit: &Visit, out: &mut impl Write) -> io::Result<Ha> {
        let firmware = visit.report.firmware;
        let firmware = firmware.as_ref().map_or("unknown", |known| known.as_str());
        let Some(ha) = visit.mqtt.ha else {
            return Err(failed(format!(
                "{} has firmware {firmware}, which knows nothing of MQTT: that came with 1.0.4. \
                 Update it on its own web page, http://{}/",
                self.place, self.place
            )));
        };
        let at = visit.address().to_string();
        let at = if at == self.place.to_string() {
            String::new()
        } else {
            format!(" at {at}")
        };
        let id = visit.mqtt.id.as_ref();
        let id = id.map_or(String::new(), |id| format!(", device {}", id.as_str()));
        writeln!(out, "{}{at}: firmware {firmware}{id}", self.place)?;
        Ok(ha)
    }

    async fn send(&self, visit: Visit, frame: String, out: &mut impl Write) -> io::Result<()> {
        // Whether it has worked is asked afterwards; it may well have closed the connection itself.
        if let Err(why) = visit.send(frame, &self.patience.visit).await {
            writeln!(out, "Sent; whether it has arrived is not certain: {why}.")?;
        }
        Ok(())
    }

    /// Looks at the device until it fits so many times in a row. The error is what was seen last.
    async fn looks(
        &mut self,
        times: u32,
        fits: impl Fn(Ha) -> bool,
    ) -> Result<(), Result<Ha, String>> {
        let Patience { between, most, .. } = *self.patience;
        let mut last = Err("no answer".to_owned());
        let looking = async {
            let mut fitting = 0;
            loop {
                last = self.visit().await.and_then(|visit| {
                    let ha = visit.mqtt.ha;
                    ha.ok_or_else(|| "it says nothing about a broker any more".to_owned())
                });
                let is_fit = last.as_ref().is_ok_and(|ha| fits(*ha));
                fitting = if is_fit { fitting + 1 } else { 0 };
                if fitting >= times {
                    return;
                }
                sleep(between).await;
            }
        };
        let looked = timeout(most, looking).await;
        looked.map_err(|_| last)
    }
}

fn refuse_while_on(report: &Report, while_on: bool, doing: &str) -> io::Result<()> {
    if while_on || report.on == Some(false) {
        return Ok(());
    }
    let is = match (report.on, report.mode) {
        (Some(true), Some(mode)) => format!("is on (mode {})", mode.name()),
        (Some(true), None) => "is on".to_owned(),
        _ => "does not say that it is off".to_owned(),
    };
    Err(failed(format!(
        "the device {is}. {doing} it now would take it away from whoever heats with it: turn it \
         off first, with target 0 in Klipper or its power button, or add --while-on"
    )))
}

/// Why a device is not bound, in one line.
fn not_bound(order: &Order, patience: &Patience, last: Result<Ha, String>) -> String {
    let broker = order.broker;
    let after = patience.most.as_secs_f32();
    let by_hand = by_hand(&order.device, "Bind");
    match last {
        Ok(ha) if ha.bound == Bound::At(broker) => format!(
            "the device has taken {broker}, but after {after:.0} s it does not say that it is \
             connected ({}; 3 is thought to mean that, unconfirmed on real hardware). Check that \
             a broker answers there from the device's network, and user name and password. {by_hand}",
            state(ha)
        ),
        Ok(ha) => format!(
            "after {after:.0} s the device does not have {broker} as its broker ({}): the frame \
             that binds is unconfirmed on real hardware. {by_hand}",
            state(ha)
        ),
        Err(why) => format!("the frame was sent, but the device does not say so: {why}. {by_hand}"),
    }
}

fn by_hand(place: &Place, verb: &str) -> String {
    format!("{verb} it by hand: http://{place}/, settings for MQTT or Home Assistant")
}

fn state(ha: Ha) -> String {
    ha.state.map_or_else(
        || "it tells no state".to_owned(),
        |state| format!("state {state}"),
    )
}

/// What belongs into printer.cfg.
fn write_config(out: &mut impl Write, order: &Order, id: Option<&Id>) -> io::Result<()> {
    writeln!(
        out,
        "\nIn printer.cfg, in the section [panda_breath] and instead of its 'host':\n"
    )?;
    writeln!(out, "firmware: stock_mqtt")?;
    writeln!(out, "mqtt_broker: {}", order.broker.ip())?;
    if order.broker.port() != PORT {
        writeln!(out, "mqtt_port: {}", order.broker.port())?;
    }
    if let Some(id) = id {
        writeln!(out, "mqtt_device_id: {}", id.as_str())?;
    }
    if order.login.is_some() {
        writeln!(
            out,
            "\nand mqtt_username with mqtt_password_file: Klipper has to log in at the broker, too."
        )?;
    }
    Ok(())
}

/// A failure that is the arguments' fault.
pub(super) fn wrong(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text.into())
}

pub(super) fn failed(text: impl Into<String>) -> io::Error {
    io::Error::other(text.into())
}

fn broker(text: &str) -> Result<SocketAddrV4, String> {
    let with_port = text.parse::<SocketAddrV4>();
    let found = with_port.or_else(|_| text.parse().map(|ip| SocketAddrV4::new(ip, PORT)));
    let Ok(broker) = found else {
        return Err(
            "not an IPv4 address such as 192.168.1.10 or 192.168.1.10:1883; whether the firmware \
             takes names is not known"
                .to_owned(),
        );
    };
    let ip = broker.ip();
    let is_host = !ip.is_unspecified() && !ip.is_multicast() && *ip != Ipv4Addr::BROADCAST;
    if is_host && broker.port() != 0 {
        Ok(broker)
    } else {
        Err("no broker can be there".to_owned())
    }
}

fn username(text: &str) -> Result<String, String> {
    fits_device(text)?;
    Ok(text.to_owned())
}

/// Whether a user name or a password can be one on the device.
fn fits_device(text: &str) -> Result<(), String> {
    if text.is_empty() {
        Err("it is empty".to_owned())
    } else if text.len() > MOST_BYTES {
        Err(format!(
            "it is longer than the {MOST_BYTES} bytes that the device may have room for"
        ))
    } else if text.chars().any(char::is_control) {
        Err("it has a control character in it".to_owned())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
