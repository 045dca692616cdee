//! The heaters that our sections make, and the names by which the rest of printer.cfg calls them.

use super::finding::{Findings, Level};
use super::options::has_dryer;
use super::printer_cfg::{Config, Section};
use super::spelling::nearest;

/// How a heater's section is called, where it is made for the user.
const GENERIC: &str = "heater_generic";
/// Options of other sections that name heaters: of fans, of `[homing_heaters]`, and Kalico's.
const NAMING: [&str; 3] = ["heater", "heaters", "heater_name"];
/// What a macro says that was written for another chamber heater.
const ALIKE: [&str; 1] = ["chamber"];

/// A heater of ours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Heater {
    /// Its section, there or made.
    pub(super) section: String,
    /// Whether it dries filament.
    pub(super) dries: bool,
}

impl Heater {
    /// What commands call it.
    pub(super) fn name(&self) -> &str {
        last_word(&self.section)
    }
}

fn last_word(name: &str) -> &str {
    name.split_whitespace().next_back().unwrap_or(name)
}

/// The heaters that one of our sections has: the chamber's, and with `dryer: True` filament's.
pub(super) fn of(config: &Config, ours: &Section) -> Vec<Heater> {
    let one = |dries: bool| {
        let own = config.sections.iter().find(|section| {
            let pin = section.get("heater_pin");
            let pin = pin.and_then(|pin| pin.rsplit_once(':'));
            pin.is_some_and(|(chip, pin)| {
                chip.trim() == ours.name && (pin.trim() == "dry") == dries
            })
        });
        let suffix = if dries { "_dryer" } else { "" };
        let made = || format!("{GENERIC} {}{suffix}", last_word(&ours.name));
        Heater {
            section: own.map_or_else(made, |own| own.name.clone()),
            dries,
        }
    };
    let dryer = has_dryer(ours).then(|| one(true));
    [one(false)].into_iter().chain(dryer).collect()
}

/// Says which heaters there are, and who calls one that is not there.
pub(super) fn check(config: &Config, ours: &[&Section], said: &mut Findings) {
    let there: Vec<Heater> = ours.iter().flat_map(|one| of(config, one)).collect();
    for section in ours.iter().filter(|section| has_dryer(section)) {
        if let Some(dryer) = of(config, section).iter().find(|heater| heater.dries) {
            let hours = section.get("drying_hours").unwrap_or("6");
            said.ok(
                "dryer",
                format!(
                    "a target of '{}' dries filament for {hours} h",
                    dryer.name()
                ),
            );
        }
    }
    let known: Vec<&str> = config
        .sections
        .iter()
        .filter(|section| {
            section.get("heater_pin").is_some() || section.name.starts_with("heater_generic ")
        })
        .map(|section| last_word(&section.name))
        .chain(there.iter().map(Heater::name))
        .collect();
    for section in &config.sections {
        device(section, ours, said);
        let mut before: Vec<String> = Vec::new();
        for call in calls(section) {
            if before.contains(&call.text) {
                continue;
            }
            before.push(call.text.clone());
            if known.contains(&call.name.as_str()) {
                if call.is_long && there.iter().any(|heater| heater.name() == call.name) {
                    long(section, &call, said);
                }
            } else if let Some((level, remedy)) = judge(&call, ours, &there) {
                let text = format!(
                    "[{}] ({}) has '{}', but there is no heater '{}'",
                    section.name, section.spot, call.text, call.name
                );
                said.add(level, "heater", text).remedy(remedy);
            }
        }
    }
}

/// A sensor or a pin of a device that is not there.
fn device(section: &Section, ours: &[&Section], said: &mut Findings) {
    let chip = section
        .get("heater_pin")
        .and_then(|pin| pin.rsplit_once(':'));
    let places = [
        ("sensor_type", section.get("sensor_type")),
        (
            "heater_pin",
            chip.map(|(chip, _)| chip.trim_start_matches('!').trim()),
        ),
    ];
    let names = || ours.iter().map(|one| one.name.as_str());
    for (option, name) in places {
        let Some(name) = name.filter(|name| !names().any(|own| own == *name)) else {
            continue;
        };
        let is_ours = name.split_whitespace().next() == Some("panda_breath");
        if nearest(name, names()).is_none() && !is_ours {
            continue;
        }
        let all: Vec<String> = names().map(|name| format!("'{name}'")).collect();
        said.problem(
            "heater",
            format!(
                "[{}] ({}) has '{option}: {}', but there is no [{name}]",
                section.name,
                section.spot,
                section.get(option).unwrap_or_default()
            ),
            format!(
                "write {}: Klipper does not start with this",
                all.join(" or ")
            ),
        );
    }
}

/// A place that names a heater.
#[derive(Clone, Debug, PartialEq)]
struct Call {
    /// The name, without what a section puts before it.
    name: String,
    /// As it is written there.
    text: String,
    /// Written as a section's name where the heater's is wanted.
    is_long: bool,
    /// It is a word in a text, and may be a question whether there is such a heater.
    is_word: bool,
}

fn calls(section: &Section) -> Vec<Call> {
    let mut found = Vec::new();
    if let Some(name) = section.name.strip_prefix("verify_heater ") {
        found.push(Call {
            name: name.trim().to_owned(),
            text: format!("[{}]", section.name),
            is_long: false,
            is_word: false,
        });
    }
    for option in section.names() {
        let value = section.get(option).unwrap_or_default();
        if NAMING.contains(&option) {
            for name in value.split(',').map(str::trim) {
                found.push(named(name, format!("{option}: {name}")));
            }
        } else {
            found.extend(in_text(&filled_in(value)));
        }
    }
    // Neither is a name: one is empty, the other is found out when the macro runs.
    found.retain(|call| !call.name.is_empty() && !call.name.contains(['{', '$']));
    found
}

fn named(name: &str, text: String) -> Call {
    let short = name.strip_prefix("heater_generic ").map(str::trim);
    Call {
        name: short.unwrap_or(name).to_owned(),
        text,
        is_long: short.is_some(),
        is_word: false,
    }
}

/// `HEATER=NAME` and `heater_generic NAME`, wherever they stand.
fn in_text(text: &str) -> Vec<Call> {
    let mut found = Vec::new();
    let is_part = |c: char| c.is_alphanumeric() || "_-.{}".contains(c);
    let upper = text.to_ascii_uppercase();
    for (at, key) in upper.match_indices("HEATER=") {
        if upper[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &text[at + key.len()..];
        let name = match rest.chars().next() {
            Some(quote @ ('"' | '\'')) => rest[1..].split([quote, '\n']).next(),
            _ => rest.split(|c: char| !is_part(c)).next(),
        };
        let name = name.unwrap_or_default();
        found.push(named(name, format!("{}{name}", &text[at..at + key.len()])));
    }
    for (at, key) in text.match_indices("heater_generic ") {
        let rest = &text[at + key.len()..];
        let name = rest.split(|c: char| !is_part(c)).next().unwrap_or_default();
        found.push(Call {
            is_word: true,
            ..named(name, format!("{key}{name}"))
        });
    }
    found
}

/// A macro's text with the variables in it that are always the same: `{% set heater = "x" %}`.
fn filled_in(text: &str) -> String {
    let mut filled = text.to_owned();
    for (at, key) in text.match_indices("{% set ") {
        let line = text[at + key.len()..]
            .split("%}")
            .next()
            .unwrap_or_default();
        let Some((variable, value)) = line.split_once('=') else {
            continue;
        };
        let (variable, value) = (variable.trim(), value.trim());
        let literal = ['"', '\''].into_iter().find_map(|quote| {
            let inside = value.strip_prefix(quote)?.strip_suffix(quote)?;
            (!inside.contains(quote)).then_some(inside)
        });
        let is_only = text.matches(&format!("set {variable} ")).count() == 1;
        if let Some(literal) = literal.filter(|_| is_only) {
            filled = filled.replace(&format!("{{{variable}}}"), literal);
        }
    }
    filled
}

/// Whether a name that no heater has was meant for ours, and what to do then.
fn judge(call: &Call, ours: &[&Section], there: &[Heater]) -> Option<(Level, String)> {
    let name = call.name.as_str();
    for section in ours {
        let own = last_word(&section.name);
        if !has_dryer(section) && name.strip_suffix("_dryer") == Some(own) {
            let remedy = format!("add 'dryer: True' to [{}]", section.name);
            return Some((Level::Problem, remedy));
        }
    }
    let names = || there.iter().map(Heater::name);
    if let Some(meant) = nearest(name, names()) {
        return Some((Level::Problem, format!("write '{meant}'")));
    }
    let lower = name.to_ascii_lowercase();
    let all: Vec<String> = names().map(|name| format!("'{name}'")).collect();
    let remedy = format!("this device's are called {}", all.join(", "));
    if lower.contains("panda") || lower.contains("breath") {
        return Some((Level::Problem, remedy));
    }
    let is_alike = ALIKE.iter().any(|word| lower.contains(word));
    (is_alike && !call.is_word).then(|| (Level::Warning, format!("if ours is meant: {remedy}")))
}

fn long(section: &Section, call: &Call, said: &mut Findings) {
    if call.is_word {
        return;
    }
    said.problem(
        "heater",
        format!(
            "[{}] ({}) has '{}': that is the heater's section, not its name",
            section.name, section.spot, call.text
        ),
        format!(
            "write '{}': Klipper shuts down, or refuses the command, with \"Unknown heater\"; \
             Kalico takes both",
            call.name
        ),
    );
}
