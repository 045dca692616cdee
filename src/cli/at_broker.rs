//! The arguments of commands that look at an MQTT broker.

use std::io;
use std::path::PathBuf;

use clap::Args;

use super::bind::{Place, password, wrong};
use crate::dialect::mqtt::Options;
use crate::dialect::{Dialect, Identity};
use crate::driver::mqtt::{Broker, Files, Login, Tls};

/// Where brokers are, without and with encryption.
const PORTS: [u16; 2] = [1883, 8883];

/// How to get in at a broker.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct BrokerArguments {
    /// The MQTT broker to look at: name or address, with or without :PORT [port: 1883, or 8883 with
    /// --tls].
    #[arg(long, value_name = "HOST", value_parser = place)]
    pub(super) broker: Option<(String, Option<u16>)>,
    /// User name at the broker. The password is asked for, or is one line of standard input.
    #[arg(long, value_name = "NAME", requires = "broker")]
    username: Option<String>,
    /// Take the password from the only line of FILE.
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// Speak with the broker encrypted.
    #[arg(long, requires = "broker")]
    tls: bool,
    /// Believe the certificates that are signed by this one, in PEM form [default: the system's].
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca_file: Option<PathBuf>,
    /// What the topics of the device begin with, where it is not panda-breath or `panda_breath`.
    #[arg(long, value_name = "TOPIC", requires = "broker", value_parser = prefix)]
    pub(super) topic_prefix: Option<String>,
}

/// How to get to one device there.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct DeviceAtBroker {
    #[command(flatten)]
    pub(super) broker: BrokerArguments,
    /// How the device behind the broker speaks [default: as it does].
    #[arg(long, value_name = "DIALECT", requires = "broker", value_parser = ["stock_mqtt", "esphome"])]
    firmware: Option<String>,
    /// Which device it is, for a broker with several: 12 hexadecimal digits, or the node's name.
    #[arg(long, value_name = "ID", requires = "broker", value_parser = device_id)]
    mqtt_device_id: Option<String>,
}

impl DeviceAtBroker {
    /// The broker and the device there, if one was named; asks for the password.
    pub(super) fn read(&self) -> io::Result<Option<(Broker, Options)>> {
        let Some(broker) = self.broker.read()? else {
            return Ok(None);
        };
        let options = Options {
            dialect: match self.firmware.as_deref() {
                Some("stock_mqtt") => Some(Dialect::StockMqtt),
                Some("esphome") => Some(Dialect::Esphome),
                _ => None,
            },
            prefix: self.broker.topic_prefix.clone(),
            device_id: self.mqtt_device_id.clone().map(digits),
            ..Options::default()
        };
        Ok(Some((broker, options)))
    }
}

impl BrokerArguments {
    /// The broker, if one was named; asks for the password.
    pub(super) fn read(&self) -> io::Result<Option<Broker>> {
        let Some((host, port)) = &self.broker else {
            return Ok(None);
        };
        let tls = if self.tls {
            let files = Files {
                ca: self.ca_file.clone(),
                ..Files::default()
            };
            Some(Tls::load(files).map_err(|why| wrong(in_arguments(&why)))?)
        } else {
            None
        };
        let login = match &self.username {
            None => None,
            Some(username) => {
                let prompt = format!("Password of {username} at the broker: ");
                let (password, _) = password::read(self.password_file.as_deref(), &prompt)?;
                Some(Login {
                    username: username.clone(),
                    password,
                })
            }
        };
        Ok(Some(Broker {
            host: host.clone(),
            port: port.unwrap_or(PORTS[usize::from(self.tls)]),
            login,
            tls,
        }))
    }
}

fn place(text: &str) -> Result<(String, Option<u16>), String> {
    if text.contains("://") {
        return Err("not a name or an address, without mqtt://".to_owned());
    }
    let place: Place = text.parse()?;
    // A port was named unless the usual one of a web page was put in its place.
    let is_named = place.port != 80 || text.ends_with(":80") && text != place.host;
    Ok((place.host, is_named.then_some(place.port)))
}

/// What the driver says about a broker names Klipper's options: here those of the command line.
pub(super) fn in_arguments(why: &str) -> String {
    const NAMES: [(&str, &str); 6] = [
        ("mqtt_tls: True", "--tls"),
        ("mqtt_port, mqtt_tls", "port, --tls"),
        ("mqtt_username", "--username"),
        ("mqtt_password_file", "--password-file"),
        ("mqtt_ca_file", "--ca-file"),
        ("mqtt_device_id", "--mqtt-device-id"),
    ];
    let why = why.to_owned();
    NAMES
        .iter()
        .fold(why, |why, (option, argument)| why.replace(option, argument))
}

/// Of a MAC address, however it is written, its digits: those are in the topics.
fn digits(id: String) -> String {
    match Identity::of_mac(&id) {
        Some(_) => id.replace([':', '-'], ""),
        None => id,
    }
}

/// Part of a topic, and nothing else.
fn device_id(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= 64 && !text.contains(['#', '+', '/', '\0']);
    fits.then(|| text.to_owned())
        .ok_or_else(|| "not an id of 1 to 64 characters, without wildcards and slashes".into())
}

fn prefix(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= 64 && !text.contains(['#', '+', '\0']);
    if fits && !text.starts_with('/') && !text.ends_with('/') {
        Ok(text.to_owned())
    } else {
        Err("not a topic of 1 to 64 characters, without wildcards and slashes at its ends".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_a_name_or_an_address_with_or_without_a_port() {
        for (text, host, port) in [
            ("broker.lan", "broker.lan", None),
            ("192.0.2.5:1884", "192.0.2.5", Some(1884)),
            ("192.0.2.5:80", "192.0.2.5", Some(80)),
            ("fd00::5", "fd00::5", None),
            ("fd00::80", "fd00::80", None),
            ("[fd00::5]:8883", "fd00::5", Some(8883)),
        ] {
            assert_eq!(place(text).unwrap(), (host.to_owned(), port), "{text}");
        }
        assert!(place("mqtt://h").unwrap_err().contains("without mqtt://"));
        assert!(place("h:0").is_err() && place("").is_err());
    }

    #[test]
    fn a_prefix_is_a_topic() {
        assert!(prefix("shop/heater").is_ok());
        for text in ["", "/shop", "shop/", "shop/+", &"x".repeat(65)] {
            assert!(prefix(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_device_id_is_one_level_of_a_topic() {
        assert!(device_id("025042000001").is_ok() && device_id("panda-breath-2").is_ok());
        for text in ["", "a/b", "+", "#", &"x".repeat(65)] {
            assert!(device_id(text).is_err(), "{text}");
        }
        assert_eq!(digits("02:50:42:00:00:01".into()), "025042000001");
        assert_eq!(digits("panda-breath".into()), "panda-breath");
    }
}
