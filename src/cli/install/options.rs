//! The options of `[panda_breath]` that can be given on the command line.

use std::io::{self, ErrorKind};

use clap::Args;

use super::ask::Talk;

const USUAL_HOST: &str = "PandaBreath.local";

/// What `[panda_breath]` is to say; more can be written into `panda_breath.cfg` afterwards.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "The device")]
pub(super) struct DeviceOptions {
    /// Its name or address; `PandaBreath.local` if nothing is said.
    #[arg(long, value_name = "HOST", value_parser = address)]
    host: Option<String>,
    /// Its TCP port, 80 if nothing is said.
    #[arg(long, requires = "host", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// How it speaks; `auto` if nothing is said.
    #[arg(long, value_parser = ["auto", "stock", "stock_mqtt", "esphome"])]
    firmware: Option<String>,
    /// The 4 digits shown in the console when it connects: no other device is accepted.
    #[arg(long, value_name = "ID", value_parser = device_id)]
    device_id: Option<String>,
    /// The MQTT broker that it is behind, in the place of a host.
    #[arg(long, value_name = "HOST", value_parser = address, conflicts_with = "host")]
    mqtt_broker: Option<String>,
    /// The broker's port, 1883 if nothing is said.
    #[arg(long, requires = "mqtt_broker", value_parser = clap::value_parser!(u16).range(1..))]
    mqtt_port: Option<u16>,
    /// What the device's topics begin with.
    #[arg(long, value_name = "TOPIC", requires = "mqtt_broker", value_parser = text)]
    mqtt_topic_prefix: Option<String>,
    /// User name at the broker.
    #[arg(long, value_name = "NAME", requires = "mqtt_broker", value_parser = text)]
    mqtt_username: Option<String>,
    /// A file with the password, and nothing else, in it.
    #[arg(long, value_name = "FILE", requires = "mqtt_username", value_parser = text)]
    mqtt_password_file: Option<String>,
}

impl DeviceOptions {
    /// Whether nothing was given.
    pub(super) fn is_empty(&self) -> bool {
        self.options().is_empty()
    }

    /// An error if the options do not go together.
    pub(super) fn check(&self) -> io::Result<()> {
        let wrong = |text: &str| Err(io::Error::new(ErrorKind::InvalidInput, text.to_owned()));
        match self.firmware.as_deref() {
            Some("stock") if self.mqtt_broker.is_some() => {
                wrong("--firmware stock is reached with --host, not with --mqtt-broker")
            }
            Some("stock_mqtt" | "esphome") if self.mqtt_broker.is_none() => {
                wrong("a device with this --firmware is behind a broker: give --mqtt-broker")
            }
            _ => Ok(()),
        }
    }

    /// With the answer to where the device is, which is the one thing that has to be known.
    pub(super) fn asked(&self, talk: &mut Talk<'_>) -> io::Result<Self> {
        let mut answered = self.clone();
        let question = "Name or address of the Panda Breath";
        answered.host = loop {
            let answer = talk.line(question, USUAL_HOST)?;
            match address(&answer) {
                Ok(host) => break Some(host),
                Err(why) => talk.say(&format!("'{answer}': {why}."))?,
            }
        };
        Ok(answered)
    }

    /// The section, with what an older one said; what was given here counts more.
    pub(super) fn section(&self, mut options: Vec<(String, String)>) -> String {
        let is_new = |name: &str, given: Option<&String>| {
            let old = options.iter().find(|(other, _)| other == name);
            given.is_some_and(|given| old.is_none_or(|(_, old)| old != given))
        };
        // With another host or broker, how the old one was reached does not belong to the device any
        // more.
        if is_new("host", self.host.as_ref())
            || is_new("mqtt_broker", self.mqtt_broker.as_ref())
            || self.firmware.as_deref() == Some("stock")
                && options.iter().any(|(name, _)| name == "mqtt_broker")
        {
            options.retain(|(name, _)| {
                name != "firmware" && name != "host" && name != "port" && !name.starts_with("mqtt_")
            });
        }
        for (name, value) in self.options() {
            options.retain(|(other, _)| other != name);
            options.push((name.to_owned(), value));
        }
        if !options
            .iter()
            .any(|(name, _)| name == "host" || name == "mqtt_broker")
        {
            options.insert(0, ("host".to_owned(), USUAL_HOST.to_owned()));
        }
        let lines: Vec<String> = options
            .iter()
            .map(|(name, value)| format!("{name}: {value}\n"))
            .collect();
        let lines = lines.concat();
        format!(
            "# The Panda Breath. All options: docs/configuration.md of panda-breath. After a change \
             RESTART is enough.\n[panda_breath]\n{lines}"
        )
    }

    fn options(&self) -> Vec<(&'static str, String)> {
        let port = |port: Option<u16>| port.map(|port| port.to_string());
        let all = [
            ("firmware", self.firmware.clone()),
            ("host", self.host.clone()),
            ("port", port(self.port)),
            ("device_id", self.device_id.clone()),
            ("mqtt_broker", self.mqtt_broker.clone()),
            ("mqtt_port", port(self.mqtt_port)),
            ("mqtt_topic_prefix", self.mqtt_topic_prefix.clone()),
            ("mqtt_username", self.mqtt_username.clone()),
            ("mqtt_password_file", self.mqtt_password_file.clone()),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }
}

/// As the module takes it: a name or an address, nothing around it.
fn address(text: &str) -> Result<String, String> {
    let name = "a name such as PandaBreath.local or an address such as 192.168.1.50";
    if text.contains('/') {
        return Err(format!("give {name}, without http:// and without slashes"));
    }
    let host = text.rsplit_once(':');
    if host.is_some_and(|(host, port)| !host.contains([':', ']']) && port.parse::<u16>().is_ok()) {
        return Err("the port is an option of its own".to_owned());
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "._:%[]-".contains(c);
    if text.is_empty() || text.len() > 253 || !text.chars().all(fits) {
        return Err(format!("give {name}"));
    }
    Ok(text.to_owned())
}

fn device_id(text: &str) -> Result<String, String> {
    let text = text.to_lowercase();
    if text.len() == 4 && text.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(text);
    }
    Err("it is the 4 digits shown in the console when the device connects".to_owned())
}

/// What can stand in a line of the configuration.
fn text(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.trim() != text {
        return Err("it is empty, or has spaces around it".to_owned());
    }
    if text.contains(['#', ';']) || text.chars().any(char::is_control) {
        return Err("Klipper takes # and ; for the beginning of a comment".to_owned());
    }
    Ok(text.to_owned())
}
