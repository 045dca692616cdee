//! The heaters that our sections make, and the names by which the rest of printer.cfg calls them.

use super::finding::{Findings, Level};
use super::options::has_dryer;
use super::printer_cfg::{Config, Section};
use super::spelling::nearest;

/// How a heater's section is called, where it is made for the user.
const GENERIC: &str = "heater_generic";
/// Options of other sections that name a heater: of fans, and Kalico's.
const NAMING: [&str; 2] = ["heater", "heater_name"];
/// What a macro says that was written for another chamber heater.
const ALIKE: &str = "chamber";

/// A heater of ours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Heater {
    /// Our section that has it.
    device: String,
    /// Its own section, there or made.
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
            device: ours.name.clone(),
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
    homing(config, ours, &there, said);
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
                let has = match call.way {
                    Way::Watch => String::new(),
                    Way::Option | Way::Command | Way::Word => format!(" has '{}'", call.text),
                };
                let text = format!(
                    "[{}] ({}){has}: there is no heater '{}'",
                    section.name, section.spot, call.name
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
            format!("write {}; Klipper does not start with it", all.join(" or ")),
        );
    }
}

/// `[homing_heaters]` turns heaters off while it homes, by default all. It wants the names of sections
/// when Klipper starts, and the heaters' own when it homes, so that of ours Klipper takes neither.
/// Kalico does, and then each homing would turn the device off and on.
fn homing(config: &Config, ours: &[&Section], there: &[Heater], said: &mut Findings) {
    let Some(section) = config.section("homing_heaters") else {
        return;
    };
    let place = format!("[{}] ({})", section.name, section.spot);
    let Some(names) = section.get("heaters") else {
        let all: Vec<String> = there
            .iter()
            .map(|one| format!("'{}'", one.section))
            .collect();
        said.problem(
            "heater",
            format!(
                "{place} has no 'heaters', so it means all, {} too",
                all.join(" and ")
            ),
            "name those that disturb homing, such as 'heaters: extruder, heater_bed'; with all of \
             them Klipper cannot home (\"Unknown heater\")",
        );
        return;
    };
    for name in names.split(',').map(str::trim) {
        let call = named(Way::Option, name, String::new());
        let is_ours = there.iter().any(|heater| heater.name() == call.name);
        let meant = || judge(&call, ours, there).is_some_and(|(level, _)| level == Level::Problem);
        if is_ours || meant() {
            said.problem(
                "heater",
                format!("{place} has 'heaters: {names}', with '{name}'"),
                format!("leave '{name}' out; Klipper does not start with it, or cannot home"),
            );
        }
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
    way: Way,
}

/// How a place names a heater.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// `[verify_heater NAME]`.
    Watch,
    /// An option of a fan and the like.
    Option,
    /// A parameter of a command.
    Command,
    /// A section's name in a text; perhaps a question whether there is such a heater.
    Word,
}

fn calls(section: &Section) -> Vec<Call> {
    let mut found = Vec::new();
    if let Some(name) = section.name.strip_prefix("verify_heater ") {
        found.push(Call {
            name: name.trim().to_owned(),
            text: format!("[{}]", section.name),
            is_long: false,
            way: Way::Watch,
        });
    }
    for option in section.names() {
        let value = section.get(option).unwrap_or_default();
        if NAMING.contains(&option) {
            for name in value.split(',').map(str::trim) {
                found.push(named(Way::Option, name, format!("{option}: {name}")));
            }
        } else {
            found.extend(in_text(&filled_in(value)));
        }
    }
    // Who asks first whether there is such a heater knows what to do without.
    let asked: Vec<String> = section.values().flat_map(asked).collect();
    found.retain(|call| !asked.contains(&call.name));
    // Neither is a name: one is empty, the other is found out when the macro runs.
    found.retain(|call| !call.name.is_empty() && !call.name.contains(['{', '$']));
    found
}

fn named(way: Way, name: &str, text: String) -> Call {
    let short = name.strip_prefix("heater_generic ").map(str::trim);
    Call {
        name: short.unwrap_or(name).to_owned(),
        text,
        is_long: short.is_some(),
        way,
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
        let key = &text[at..at + key.len()];
        found.push(named(Way::Command, name, format!("{key}{name}")));
    }
    for (at, key) in text.match_indices("heater_generic ") {
        let rest = &text[at + key.len()..];
        let name = rest.split(|c: char| !is_part(c)).next().unwrap_or_default();
        found.push(named(Way::Word, name, format!("{key}{name}")));
    }
    found
}

/// The heaters that a macro asks for: `"heater_generic x" in printer`.
fn asked(text: &str) -> Vec<String> {
    let places = text.match_indices("heater_generic ");
    let names = places.filter_map(|(at, key)| {
        let rest = &text[at + key.len()..];
        let (name, rest) = rest.split_once(['"', '\''])?;
        let rest = rest.trim_start_matches([' ', ']']);
        let asks = [
            "in printer",
            "not in printer",
            "is defined",
            "is not defined",
        ];
        let asks = asks.iter().any(|word| rest.starts_with(word));
        asks.then(|| name.to_owned())
    });
    names.collect()
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
    let lower = name.to_ascii_lowercase();
    let bare = lower.strip_suffix("_dryer");
    for section in ours.iter().filter(|section| !has_dryer(section)) {
        let dryer = format!("{}_dryer", last_word(&section.name));
        let add = format!("add 'dryer: True' to [{}]", section.name);
        if name == dryer {
            return Some((Level::Problem, add));
        }
        // Or the chamber's heater has another name, and that is taken for the device's.
        let mut own = there.iter().filter(|heater| heater.device == section.name);
        if nearest(name, [dryer.as_str()]).is_some() || own.any(|own| Some(own.name()) == bare) {
            return Some((Level::Problem, format!("{add}, and write '{dryer}'")));
        }
    }
    if let Some(meant) = nearest(name, there.iter().map(Heater::name)) {
        return Some((Level::Problem, format!("write '{meant}'")));
    }
    let dries = bare.is_some() && there.iter().any(|heater| heater.dries);
    let fit = there.iter().filter(|heater| heater.dries == dries);
    let fit: Vec<String> = fit.map(|heater| format!("'{}'", heater.name())).collect();
    let write = format!("write {}", fit.join(" or "));
    let is_chambers = bare.is_some_and(|bare| there.iter().any(|heater| heater.name() == bare));
    if lower.contains("panda") || lower.contains("breath") || is_chambers {
        return Some((Level::Problem, write));
    }
    let is_alike = lower.contains(ALIKE) && call.way != Way::Word;
    is_alike.then(|| {
        let remedy = format!("if the Panda Breath is meant, {write}");
        (Level::Warning, remedy)
    })
}

/// A name that only Kalico would understand, in the options of fans.
fn long(section: &Section, call: &Call, said: &mut Findings) {
    let then = match call.way {
        Way::Option => "Klipper shuts down with \"Unknown heater\" at its start; Kalico does not",
        Way::Command => "Klipper refuses the command",
        Way::Watch | Way::Word => return,
    };
    said.problem(
        "heater",
        format!(
            "[{}] ({}) has '{}': that is the heater's section, not its name",
            section.name, section.spot, call.text
        ),
        format!("write '{}'; {then}", call.name),
    );
}
