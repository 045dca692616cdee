//! Which devices printer.cfg names, and how to get there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::finding::Findings;
use super::klipper::number;
use super::options::truth;
use super::printer_cfg::Section;
use crate::cli::bind::Place;
use crate::dialect::Dialect;
use crate::dialect::mqtt::{Options, Role};
use crate::driver::mqtt::{Broker, Files, Login, Tls};

/// A password in a file is no longer than MQTT has room for.
const MOST_PASSWORD: u64 = 65535;

/// What a section asks for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Its name.
    pub(super) section: String,
    /// Where the device is; `None`: that cannot be told.
    pub(super) target: Option<Target>,
    /// `device_id`.
    pub(super) device_id: Option<String>,
    /// `max_target`.
    pub(super) max_target: f64,
}

/// Where a device is.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// Spoken to directly.
    Stock(Place),
    /// Behind a broker.
    Broker(Box<Broker>, Box<Options>),
}

/// What the section asks for, and what is wrong with that.
pub(super) fn want(ours: &Section, home: Option<&Path>, said: &mut Findings) -> Wanted {
    Wanted {
        section: ours.name.clone(),
        target: target(ours, home, said),
        device_id: ours.get("device_id").map(str::to_ascii_lowercase),
        max_target: ours.get("max_target").and_then(number).unwrap_or(60.0),
    }
}

fn target(ours: &Section, home: Option<&Path>, said: &mut Findings) -> Option<Target> {
    let name = &ours.name;
    let firmware = ours.get("firmware").unwrap_or("auto");
    let (host, broker) = (ours.get("host"), ours.get("mqtt_broker"));
    if ours.get("mqtt_password").is_some() {
        said.problem(
            "password",
            format!("[{name}] has 'mqtt_password', which is refused: klippy.log shows all options"),
            "write the password into a file and name it in mqtt_password_file; then change it at \
             the broker, for it has been in logs",
        );
    }
    let behind = match firmware {
        "auto" if host.is_some() && broker.is_some() => {
            said.problem(
                "place",
                format!("[{name}] has 'host' and 'mqtt_broker'"),
                "remove one of them, or say with 'firmware' what the device is",
            );
            return None;
        }
        "auto" => broker.is_some(),
        "stock" => false,
        "stock_mqtt" | "esphome" => true,
        other => {
            said.problem(
                "place",
                format!("[{name}] has 'firmware: {other}', which does not exist"),
                "choose one of auto, stock, stock_mqtt, esphome; auto is the default",
            );
            return None;
        }
    };
    let (option, value) = if behind {
        ("mqtt_broker", broker)
    } else {
        ("host", host)
    };
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        said.problem(
            "place",
            format!("[{name}] has no '{option}'"),
            "'panda-breath discover' prints what belongs there",
        );
        return None;
    };
    if value.contains("${") {
        // Kalico's way to use one value in many places.
        said.ok(
            "place",
            format!("[{name}]: '{option}: {value}' was not looked at"),
        )
        .remedy("name the device itself: panda-breath doctor ADDRESS");
        return None;
    }
    let place = value.parse::<Place>().ok();
    let bare = place.filter(|place| place.host == value.trim_matches(['[', ']']));
    let Some(place) = bare else {
        said.problem(
            "place",
            format!("[{name}]: '{option}: {value}' is not a name or an address"),
            "without http:// or mqtt:// and without slashes; the port has an option of its own",
        );
        return None;
    };
    if !behind {
        let port = port(ours, "port", 80, said)?;
        return Some(Target::Stock(Place { port, ..place }));
    }
    let tls = ours.get("mqtt_tls").and_then(truth) == Some(true);
    let port = port(ours, "mqtt_port", if tls { 8883 } else { 1883 }, said)?;
    let path = |option: &str| ours.get(option).map(|path| expand(path, home));
    let tls = if tls {
        let files = Files {
            ca: path("mqtt_ca_file"),
            cert: path("mqtt_cert_file"),
            key: path("mqtt_key_file"),
        };
        match Tls::load(files) {
            Ok(tls) => Some(tls),
            Err(why) => {
                said.problem(
                    "tls",
                    format!("[{name}]: {why}"),
                    "mend the file or the option",
                );
                return None;
            }
        }
    } else {
        None
    };
    let broker = Broker {
        host: place.host,
        port,
        login: login(ours, path("mqtt_password_file").as_deref(), said)?,
        tls,
    };
    let options = mqtt_options(ours, firmware);
    Some(Target::Broker(Box::new(broker), Box::new(options)))
}

fn port(ours: &Section, option: &str, default: u16, said: &mut Findings) -> Option<u16> {
    let Some(text) = ours.get(option) else {
        return Some(default);
    };
    let port = text.parse().ok().filter(|port| *port != 0);
    if port.is_none() {
        said.problem(
            "place",
            format!("[{}]: '{option}: {text}' is no port", ours.name),
            "a number from 1 to 65535",
        );
    }
    port
}

fn expand(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

/// The login; none is a login, too. `None`: there is a mistake in it.
#[expect(clippy::option_option, reason = "no login, or no way to have one")]
fn login(ours: &Section, file: Option<&Path>, said: &mut Findings) -> Option<Option<Login>> {
    let username = ours.get("mqtt_username");
    let Some(path) = file else {
        return Some(username.map(|username| Login {
            username: username.to_owned(),
            password: String::new(),
        }));
    };
    let shown = path.display();
    let Some(username) = username else {
        said.problem(
            "password",
            format!(
                "[{}] has mqtt_password_file, but no mqtt_username",
                ours.name
            ),
            "add mqtt_username",
        );
        return None;
    };
    let is_small = std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MOST_PASSWORD + 2);
    // No word about what is in it (rule R11).
    let text = is_small.then(|| std::fs::read(path).ok()).flatten();
    let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
    let Some(text) = text else {
        said.problem(
            "password",
            format!("the password file {shown} cannot be read, or is none"),
            "it is a text file with the password and nothing else, and belongs to the user that \
             runs Klipper",
        );
        return None;
    };
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let password = line.strip_suffix('\r').unwrap_or(line);
    if password.is_empty() {
        said.problem(
            "password",
            format!("the password file {shown} is empty"),
            "write the password into it",
        );
        return None;
    }
    if is_open_to_others(path) {
        said.warning(
            "password",
            format!("others may read the password in {shown}"),
            format!("chmod 600 {shown}"),
        );
    }
    Some(Some(Login {
        username: username.to_owned(),
        password: password.to_owned(),
    }))
}

fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

fn mqtt_options(ours: &Section, firmware: &str) -> Options {
    let text = |option: &str| ours.get(option).map(str::to_owned);
    let defaults = Options::default();
    let topics: BTreeMap<Role, String> = Role::ALL
        .into_iter()
        .filter_map(|role| Some((role, text(&format!("mqtt_{}_topic", role.name()))?)))
        .collect();
    let dialect = match firmware {
        "stock_mqtt" => Some(Dialect::StockMqtt),
        "esphome" => Some(Dialect::Esphome),
        _ => None,
    };
    let id = text("mqtt_device_id").map(|id| {
        let digits = id.replace([':', '-'], "").to_ascii_uppercase();
        let is_mac = digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_mac && dialect != Some(Dialect::Esphome) {
            digits
        } else {
            id
        }
    });
    Options {
        dialect,
        prefix: text("mqtt_topic_prefix"),
        device_id: id,
        climate: text("mqtt_climate").unwrap_or(defaults.climate),
        sensor: text("mqtt_sensor").unwrap_or(defaults.sensor),
        topics,
        discovery_prefix: text("mqtt_discovery_prefix").unwrap_or(defaults.discovery_prefix),
        foreign_topics: ours.get("mqtt_foreign_topics").and_then(truth) == Some(true),
    }
}

/// Two sections for one device.
pub(super) fn twice(before: &[Wanted], one: &Wanted, said: &mut Findings) {
    let same = before
        .iter()
        .find(|other| match (&other.target, &one.target) {
            (Some(Target::Stock(a)), Some(Target::Stock(b))) => {
                let bare = |place: &Place| place.host.trim_end_matches('.').to_ascii_lowercase();
                bare(a) == bare(b) && a.port == b.port
            }
            (Some(Target::Broker(a, options_a)), Some(Target::Broker(b, options_b))) => {
                let bare = |broker: &Broker| broker.host.trim_end_matches('.').to_ascii_lowercase();
                bare(a) == bare(b)
                    && a.port == b.port
                    && options_a.device_id == options_b.device_id
                    && prefixes(options_a)
                        .iter()
                        .any(|one| prefixes(options_b).contains(one))
            }
            _ => false,
        });
    if let Some(other) = same {
        said.problem(
            "one_device",
            format!("[{}] and [{}] are one device", other.section, one.section),
            "every device needs one section; behind a broker a mqtt_topic_prefix or \
             mqtt_device_id of its own",
        );
    }
}

fn prefixes(options: &Options) -> Vec<String> {
    match options.dialect {
        Some(dialect) => vec![options.prefix_for(dialect)],
        None => [Dialect::Esphome, Dialect::StockMqtt]
            .map(|dialect| options.prefix_for(dialect))
            .into(),
    }
}

/// Says where a device is, for people.
pub(super) fn place_of(target: &Target) -> String {
    match target {
        Target::Stock(place) => place.to_string(),
        Target::Broker(broker, options) => {
            format!("{} on broker {}", options.place(None), broker.host)
        }
    }
}

/// What is said of a section's device is under its name.
pub(super) fn about(wanted: &Wanted) -> Findings {
    let place = wanted.target.as_ref().map(place_of).unwrap_or_default();
    Findings::about(format!("[{}] {place}", wanted.section))
}
