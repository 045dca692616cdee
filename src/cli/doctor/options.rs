//! The options of `[panda_breath]`: which there are, and what may stand in them.

use super::finding::Findings;
use super::klipper::number;
use super::printer_cfg::{Config, Section};
use super::spelling::nearest;
use crate::dialect::mqtt::Role;

/// Heater options that may stand in `[panda_breath]`, and then not in the heater's own section.
pub(super) const HEATER_OPTIONS: [&str; 13] = [
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

/// What may stand in an option.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Anything, or what is looked at elsewhere.
    Text,
    Boolean,
    Whole(i32, i32),
    Number(f64, f64),
    Choice(&'static [&'static str]),
}

/// All that the module reads, beside the heater's and the topics.
const OPTIONS: [(&str, Kind); 36] = [
    ("chamber_sensor", Kind::Text),
    ("cutoff_sensor", Kind::Text),
    ("cutoff_temp", Kind::Number(0.0, 150.0)),
    ("device_id", Kind::Text),
    ("dryer", Kind::Boolean),
    ("drying_hours", Kind::Whole(1, 99)),
    ("firmware", Kind::Text),
    ("follow_bed", Kind::Text),
    ("guard", Kind::Boolean),
    ("guard_retry", Kind::Number(10.0, 86400.0)),
    ("host", Kind::Text),
    ("lease", Kind::Number(3.0, 60.0)),
    ("lost_after", Kind::Number(0.0, 86400.0)),
    ("max_boost", Kind::Whole(0, 40)),
    ("max_target", Kind::Whole(1, 80)),
    ("mqtt_broker", Kind::Text),
    ("mqtt_ca_file", Kind::Text),
    ("mqtt_cert_file", Kind::Text),
    ("mqtt_climate", Kind::Text),
    ("mqtt_device_id", Kind::Text),
    ("mqtt_discovery_prefix", Kind::Text),
    ("mqtt_foreign_topics", Kind::Boolean),
    ("mqtt_key_file", Kind::Text),
    ("mqtt_password", Kind::Text),
    ("mqtt_password_file", Kind::Text),
    ("mqtt_port", Kind::Text),
    ("mqtt_sensor", Kind::Text),
    ("mqtt_tls", Kind::Boolean),
    ("mqtt_topic_prefix", Kind::Text),
    ("mqtt_username", Kind::Text),
    ("on_external_off", Kind::Choice(&["accept", "reassert"])),
    ("on_external_on", Kind::Choice(&["off", "allow"])),
    ("on_lost", Kind::Choice(&["pause", "shutdown", "warn"])),
    ("pause_timeout", Kind::Number(0.0, 86400.0)),
    ("port", Kind::Text),
    ("stale_after", Kind::Number(2.0, 86400.0)),
];

/// Options that are an error without another one.
const NEEDS: [(&str, &str); 4] = [
    ("max_boost", "chamber_sensor"),
    ("cutoff_temp", "cutoff_sensor"),
    ("cutoff_sensor", "cutoff_temp"),
    ("drying_hours", "dryer"),
];
/// What filament is dried at, C.
const LEAST_DRYING: f64 = 40.0;
const MOST_STEPS: usize = 20;
const STOPS: &str = "; Klipper does not start with it";

/// The topics' options as well.
fn all() -> impl Iterator<Item = (String, Kind)> {
    let topics = Role::ALL.map(|role| format!("mqtt_{}_topic", role.name()));
    let heater = HEATER_OPTIONS.into_iter().map(str::to_owned);
    let text = topics
        .into_iter()
        .chain(heater)
        .map(|name| (name, Kind::Text));
    let own = OPTIONS
        .into_iter()
        .map(|(name, kind)| (name.to_owned(), kind));
    own.chain(text)
}

/// Looks at each option of one of our sections.
pub(super) fn check(config: &Config, ours: &Section, said: &mut Findings) {
    let known: Vec<(String, Kind)> = all().collect();
    for name in ours.names() {
        let value = ours.get(name).unwrap_or_default();
        match known.iter().find(|(known, _)| known == name) {
            None => unknown(ours, name, &known, said),
            // Kalico's way to use one value in many places.
            Some(_) if value.contains("${") => {}
            Some((_, kind)) => check_value(ours, name, value, *kind, said),
        }
    }
    for (option, other) in NEEDS {
        let Some(value) = ours.get(option) else {
            continue;
        };
        if other == "dryer" && !has_dryer(ours) {
            said.problem(
                "needs",
                format!(
                    "[{}] has '{option}: {value}' without 'dryer: True'",
                    ours.name
                ),
                format!("add 'dryer: True' or remove the line{STOPS}"),
            );
        } else if ours.get(other).is_none() {
            said.problem(
                "needs",
                format!("[{}] has '{option}: {value}' without '{other}'", ours.name),
                format!("add '{other}' or remove the line{STOPS}"),
            );
        }
    }
    dryer(config, ours, said);
    follow_bed(config, ours, said);
}

fn unknown(ours: &Section, name: &str, known: &[(String, Kind)], said: &mut Findings) {
    // One that is refused is not meant, and a value in its place may be a secret: not shown (R11).
    let names = known.iter().map(|(name, _)| name.as_str());
    let names = names.filter(|name| *name != "mqtt_password");
    let remedy = match nearest(name, names) {
        Some(meant) => format!("write '{meant}', or remove the line{STOPS}"),
        None => format!("remove the line{STOPS}. docs/configuration.md has all options"),
    };
    said.problem(
        "option",
        format!("[{}] has '{name}', which is no option of it", ours.name),
        remedy,
    );
}

fn check_value(ours: &Section, name: &str, value: &str, kind: Kind, said: &mut Findings) {
    let between = |least: f64, most: f64| {
        number(value).is_some_and(|number| (least..=most).contains(&number))
    };
    let (fits, wanted) = match kind {
        Kind::Text => return,
        Kind::Boolean => (truth(value).is_some(), "True or False".to_owned()),
        Kind::Whole(least, most) => (
            value
                .parse()
                .is_ok_and(|n: i32| (least..=most).contains(&n)),
            format!("a whole number from {least} to {most}"),
        ),
        Kind::Number(least, most) => (
            between(least, most),
            format!("a number from {least} to {most}"),
        ),
        Kind::Choice(words) => (
            words.contains(&value),
            format!("one of {}", words.join(", ")),
        ),
    };
    if !fits {
        said.problem(
            "value",
            format!("[{}] has '{name}: {value}'", ours.name),
            format!("write {wanted}, or remove the line{STOPS}"),
        );
    }
}

/// What Klipper takes for true or false.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "true" | "on" => Some(true),
        "0" | "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

/// Whether the section has a second heater, for filament.
pub(super) fn has_dryer(ours: &Section) -> bool {
    ours.get("dryer").and_then(truth) == Some(true)
}

fn max_target(ours: &Section) -> Option<f64> {
    ours.get("max_target").map_or(Some(60.0), number)
}

fn dryer(config: &Config, ours: &Section, said: &mut Findings) {
    if !has_dryer(ours) {
        let pin = format!("{}:dry", ours.name);
        let uses = |section: &&Section| section.get("heater_pin").is_some_and(|own| own == pin);
        if let Some(own) = config.sections.iter().find(uses) {
            said.problem(
                "dryer",
                format!(
                    "[{}] ({}) has 'heater_pin: {pin}', which is there only with 'dryer: True'",
                    own.name, own.spot
                ),
                format!("add 'dryer: True' to [{}]{STOPS}", ours.name),
            );
        }
        return;
    }
    let max_target = max_target(ours).filter(|max_target| *max_target < LEAST_DRYING);
    if let Some(max_target) = max_target {
        said.problem(
            "dryer",
            format!(
                "[{}] has 'dryer: {}' and 'max_target: {max_target}', but filament is dried at \
                 {LEAST_DRYING} C or more",
                ours.name,
                ours.get("dryer").unwrap_or_default()
            ),
            format!("raise max_target, or remove 'dryer'{STOPS}"),
        );
    }
}

fn follow_bed(config: &Config, ours: &Section, said: &mut Findings) {
    let Some(value) = ours.get("follow_bed").filter(|value| !value.contains("${")) else {
        return;
    };
    let max_target = max_target(ours).unwrap_or(f64::INFINITY);
    if let Err((why, remedy)) = table(value, max_target) {
        said.problem(
            "follow_bed",
            format!("[{}] has 'follow_bed: {value}': {why}", ours.name),
            format!("{remedy}{STOPS}"),
        );
    }
    if config.section("heater_bed").is_none() {
        said.problem(
            "follow_bed",
            format!(
                "[{}] has 'follow_bed', but there is no [heater_bed]",
                ours.name
            ),
            format!("add the bed, or remove 'follow_bed'{STOPS}"),
        );
    }
}

/// What is wrong with a table of targets of the bed, each with one of the chamber; and what to do.
fn table(value: &str, max_target: f64) -> Result<(), (String, &'static str)> {
    let example = "write targets of the bed and of the chamber in C, such as 80:45, 100:60";
    let mut last = 0.0;
    for pair in value.split(',') {
        let plain = |text: &str| {
            let text = text.trim();
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
            number(text).filter(|_| digits(whole) && digits(rest))
        };
        let both = pair.split_once(':');
        let both = both.and_then(|(bed, chamber)| Some((plain(bed)?, plain(chamber)?)));
        let Some((bed, chamber)) = both else {
            return Err((format!("'{}' is no pair", pair.trim()), example));
        };
        if bed <= last {
            let why = if last == 0.0 {
                "a bed of 0 C is off".to_owned()
            } else {
                format!("a bed of {bed} C comes after one of {last} C")
            };
            return Err((why, "let the bed's targets be above 0 and rise"));
        }
        if chamber > max_target {
            let why = format!("a chamber of {chamber} C is above max_target, {max_target} C");
            return Err((why, "lower it or raise max_target"));
        }
        last = bed;
    }
    let pairs = value.split(',').count();
    if pairs > MOST_STEPS {
        let why = format!("it has {pairs} pairs, and {MOST_STEPS} are the most");
        return Err((why, "remove some"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
