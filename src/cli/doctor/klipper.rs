//! What is wrong in printer.cfg, beside what Klipper itself would say; and which devices it names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::finding::Findings;
use super::printer_cfg::{Config, Section};
use crate::cli::bind::Place;
use crate::dialect::Dialect;
use crate::dialect::mqtt::{Options, Role};
use crate::driver::mqtt::{Broker, Files, Login, Tls};

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

/// Heater options that may stand in `[panda_breath]`, and then not in the heater's own section.
const HEATER_OPTIONS: [&str; 13] = [
    "control",
    "gcode_id",
    "lost_update_tolerance",
    "max_delta",
    "max_power",
    "max_temp",
    "min_extrude_temp",
    "min_temp",
    "pid_kd",
    "pid_ki",
    "pid_kp",
    "pwm_cycle_time",
    "smooth_time",
];
/// A password in a file is no longer than MQTT has room for.
const MOST_PASSWORD: u64 = 65535;

const ORDER: &str = "Klipper reads sections from top to bottom";

/// Is this section one of ours?
fn is_ours(section: &Section) -> bool {
    section.name == "panda_breath" || section.name.starts_with("panda_breath ")
}

/// Looks at the whole configuration.
pub(super) fn check(config: &Config, path: &Path, home: Option<&Path>) -> (Findings, Vec<Wanted>) {
    let mut said = Findings::about(path.display().to_string());
    for error in &config.errors {
        said.problem("read", error, "Klipper does not start with this: mend it");
    }
    let ours: Vec<&Section> = config.sections.iter().filter(|one| is_ours(one)).collect();
    if ours.is_empty() {
        said.problem(
            "section",
            "there is no [panda_breath] section",
            "add '[panda_breath]' with 'host: ADDRESS' below it; 'panda-breath discover' prints \
             both lines",
        );
    } else if config.errors.is_empty() {
        let names: Vec<_> = ours.iter().map(|one| format!("[{}]", one.name)).collect();
        said.ok("section", names.join(", "));
    }
    let mut wanted: Vec<Wanted> = Vec::new();
    for section in &ours {
        order(config, section, &mut said);
        heater(config, section, &mut said);
        verify(config, section, &mut said);
        guard(section, &mut said);
        let one = want(section, home, &mut said);
        twice(&wanted, &one, &mut said);
        wanted.push(one);
    }
    if !ours.is_empty() {
        pause(config, &ours, &mut said);
        community(config, &mut said);
        macros(config, &mut said);
    }
    (said, wanted)
}

/// Sections that need ours must stand below it.
fn order(config: &Config, ours: &Section, said: &mut Findings) {
    let at = config.position(&ours.name);
    let mut early = Vec::new();
    for section in &config.sections {
        let sensor = section.get("sensor_type") == Some(&ours.name);
        let chip = section
            .get("heater_pin")
            .and_then(|pin| pin.rsplit_once(':'));
        let pin = chip.is_some_and(|(chip, _)| chip.trim() == ours.name);
        if (sensor || pin) && config.position(&section.name) < at {
            early.push(format!("[{}] ({})", section.name, section.spot));
        }
    }
    if early.is_empty() {
        return;
    }
    said.problem(
        "order",
        format!("{} stands above [{}]", early.join(", "), ours.name),
        format!(
            "move [{}] above it, or its include line above: {ORDER} and stops with \"Unknown \
             temperature sensor '{}'\"",
            ours.name, ours.name
        ),
    );
}

/// The heater's own section, or the one that is made for it.
fn heater_of(config: &Config, ours: &Section) -> String {
    let own = config.sections.iter().find(|section| {
        let chip = section
            .get("heater_pin")
            .and_then(|pin| pin.rsplit_once(':'));
        chip.is_some_and(|(chip, _)| chip.trim() == ours.name)
    });
    own.map_or_else(
        || format!("heater_generic {}", last_word(&ours.name)),
        |own| own.name.clone(),
    )
}

fn last_word(name: &str) -> &str {
    name.rsplit(' ').next().unwrap_or(name)
}

fn heater(config: &Config, ours: &Section, said: &mut Findings) {
    let name = heater_of(config, ours);
    let own = config.section(&name);
    for option in HEATER_OPTIONS {
        if ours.get(option).is_some() && own.is_some_and(|own| own.has_by_hand(option)) {
            said.problem(
                "twice",
                format!("'{option}' stands in [{}] and in [{name}]", ours.name),
                "remove one of them: Klipper does not start with both",
            );
        }
    }
    let heater_option = |option| {
        let own = own.and_then(|own| own.get(option));
        ours.get(option).or(own)
    };
    if let Some(control) = heater_option("control").filter(|control| *control != "watermark") {
        said.warning(
            "control",
            format!("[{name}] has 'control: {control}', which the device ignores: it regulates by itself"),
            "write 'control: watermark', or remove the line; PID_CALIBRATE is not for this heater",
        );
    }
    let max_temp = heater_option("max_temp").map_or(Some(80.0), number);
    let max_target = ours.get("max_target").map_or(Some(60.0), number);
    if let (Some(max_temp), Some(max_target)) = (max_temp, max_target) {
        if max_target > max_temp {
            said.problem(
                "max_target",
                format!(
                    "[{}]: max_target {max_target} is above the max_temp {max_temp} of [{name}]",
                    ours.name
                ),
                "lower max_target or raise max_temp: Klipper does not start like this",
            );
        }
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Klipper's own watch over heaters, whose defaults are made for hot ends.
fn verify(config: &Config, ours: &Section, said: &mut Findings) {
    let heater = heater_of(config, ours);
    let name = format!("verify_heater {}", last_word(&heater));
    let Some(section) = config.section(&name) else {
        return; // it is made, with what fits
    };
    let value = |option| section.get(option).and_then(number);
    if config.position(&name) < config.position(&ours.name) {
        said.warning(
            "verify",
            format!("[{name}] stands above [{}]", ours.name),
            format!(
                "move it below: {ORDER}, and what it leaves out gets the values of a hot end, \
                 which an open door shuts Klipper down with"
            ),
        );
    }
    let lost_after = ours.get("lost_after").and_then(number).unwrap_or(120.0);
    let max_target = ours.get("max_target").and_then(number).unwrap_or(60.0);
    let least = lost_after * max_target.max(60.0);
    let mut tight = Vec::new();
    if value("max_error").is_some_and(|max_error| max_error < least) {
        tight.push(format!("max_error: {least}"));
    }
    let gain = value("heating_gain").unwrap_or(1.0);
    if value("check_gain_time").unwrap_or(360.0) < 360.0 * gain.min(1.0) {
        tight.push("check_gain_time: 360".to_owned());
    }
    if gain > 1.0 {
        tight.push("heating_gain: 1".to_owned());
    }
    let hysteresis = if ours.get("chamber_sensor").is_some() {
        15.0
    } else {
        5.0
    };
    if value("hysteresis").is_some_and(|found| found < hysteresis) {
        tight.push(format!("hysteresis: {hysteresis}"));
    }
    if !tight.is_empty() {
        said.warning(
            "verify",
            format!("[{name}] is too strict for a chamber: Klipper may shut down in a print"),
            format!("use {}, or remove the section", tight.join(", ")),
        );
    }
}

fn pause(config: &Config, ours: &[&Section], said: &mut Findings) {
    let pauses = |one: &&Section| one.get("on_lost").is_none_or(|choice| choice == "pause");
    if ours.iter().any(pauses) && config.section("pause_resume").is_none() {
        said.warning(
            "pause",
            "there is no [pause_resume]: a device that is lost in a print shuts Klipper down",
            "add a section [pause_resume], or choose 'on_lost: shutdown' or 'warn'",
        );
    }
}

fn guard(ours: &Section, said: &mut Findings) {
    if let Some(value) = ours.get("guard").filter(|value| is_false(value)) {
        said.warning(
            "guard",
            format!(
                "[{}] has 'guard: {value}': when Klipper is killed or stopped, the device heats on",
                ours.name
            ),
            "remove the line",
        );
    }
}

fn is_false(text: &str) -> bool {
    ["0", "no", "false", "off"].contains(&text.to_ascii_lowercase().as_str())
}

fn is_true(text: &str) -> bool {
    ["1", "yes", "true", "on"].contains(&text.to_ascii_lowercase().as_str())
}

/// G-code that only the community module had: Klipper answers it with "Unknown command".
fn community(config: &Config, said: &mut Findings) {
    let is_defined = |word: &str| {
        let names = config.sections.iter();
        let mut macros = names.filter_map(|section| section.name.strip_prefix("gcode_macro "));
        macros.any(|name| name.trim().eq_ignore_ascii_case(word))
    };
    for section in &config.sections {
        let words = section
            .values()
            .flat_map(|value| value.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
        let mut found: Vec<&str> = words
            .filter(|word| word.starts_with("PANDA_BREATH_") && !is_defined(word))
            .collect();
        found.sort_unstable();
        found.dedup();
        if !found.is_empty() {
            said.problem(
                "community",
                format!(
                    "[{}] ({}) calls {}",
                    section.name,
                    section.spot,
                    found.join(", ")
                ),
                "that was a command of the community module, which Klipper does not know any \
                 more: use SET_HEATER_TEMPERATURE, or examples/m141_m191.cfg for M141 and M191",
            );
        }
    }
}

/// No mistake, but slicers write these.
fn macros(config: &Config, said: &mut Findings) {
    let missing: Vec<&str> = ["M141", "M191"]
        .into_iter()
        .filter(|name| config.section(&format!("gcode_macro {name}")).is_none())
        .collect();
    if missing.is_empty() {
        said.ok("macros", "M141 and M191 are there");
    } else {
        said.ok("macros", format!("{} not there", missing.join(" and ")))
            .remedy(
                "only if your slicer sets the chamber's temperature: examples/m141_m191.cfg has \
                 them",
            );
    }
}

/// What the section asks for, and what is wrong with that.
fn want(ours: &Section, home: Option<&Path>, said: &mut Findings) -> Wanted {
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
    let tls = ours.get("mqtt_tls").is_some_and(is_true);
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
        foreign_topics: ours.get("mqtt_foreign_topics").is_some_and(is_true),
    }
}

/// Two sections for one device.
fn twice(before: &[Wanted], one: &Wanted, said: &mut Findings) {
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

#[cfg(test)]
mod tests;
