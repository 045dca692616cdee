//! What is left of the existing community module when ours takes its place: its file, its sections,
//! and macros that call the commands it had.
//!
//! Klipper answers a command that it does not know with a line in the console and goes on, so a
//! macro that calls one would silently do nothing. M141 and M191 that do so are put out of force
//! for ours; elsewhere only the calling line is.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::config::{Config, Section, is_marked};
use super::git;
use super::left;
use super::marks;
use super::plan::Plan;

/// The commands of the community module.
const COMMANDS: [&str; 3] = [AUTO, DRY_START, DRY_STOP];
const AUTO: &str = "PANDA_BREATH_AUTO";
const DRY_START: &str = "PANDA_BREATH_DRY_START";
const DRY_STOP: &str = "PANDA_BREATH_DRY_STOP";
/// Its options, and for which firmware they are.
const OPTIONS: [(&str, &str); 6] = [
    ("firmware", ""),
    ("host", "stock"),
    ("port", "stock"),
    ("mqtt_broker", "esphome"),
    ("mqtt_port", "esphome"),
    ("mqtt_topic_prefix", "esphome"),
];
/// What its documentation says to write; it is of no use with ours.
const HEATER: [(&str, &[&str]); 6] = [
    ("heater_pin", &["panda_breath:pwm"]),
    ("sensor_type", &["panda_breath"]),
    ("control", &["watermark"]),
    ("max_delta", &["0.5"]),
    ("min_temp", &["15"]),
    ("max_temp", &["80"]),
];
const VERIFY: [(&str, &[&str]); 3] = [
    ("check_gain_time", &["360", "120"]),
    ("hysteresis", &["5"]),
    ("heating_gain", &["1"]),
];

/// Whose `panda_breath.py` this is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Module {
    /// What `install` writes.
    Shim,
    /// Ours, copied by hand.
    Copy,
    Community,
    Unknown,
}

pub(super) fn module(text: &str) -> Module {
    if text.contains("'panda-breath install'") && text.contains("from panda_breath import *") {
        Module::Shim
    } else if text.starts_with("\"\"\"BIQU Panda Breath chamber heater, as a Klipper heater.") {
        Module::Copy
    } else if text.contains("class PandaBreath") && text.contains("register_chip") {
        Module::Community
    } else {
        Module::Unknown
    }
}

/// What was taken over from the configuration.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Options for our section.
    pub(super) options: Vec<(String, String)>,
    /// M141 or M191 was put out of force.
    pub(super) macros: bool,
    /// For the user to know.
    pub(super) notes: Vec<String>,
}

/// What commands are about now.
#[derive(Debug)]
struct Heaters {
    section: String,
    chamber: String,
    dryer: String,
    /// It is there: `dryer: True`.
    has_dryer: bool,
}

impl Heaters {
    fn of(config: &Config) -> Self {
        let device = config.device().map(|section| section.name.clone());
        let (dryer, has_dryer) = config.dryer();
        Self {
            section: device.unwrap_or_else(|| "panda_breath".to_owned()),
            chamber: config.heater().to_owned(),
            dryer,
            has_dryer,
        }
    }

    /// What to write for this command of the community module.
    fn instead_of(&self, name: &str, command: &str) -> String {
        let word = |key: &str| {
            let mut words = command.split_whitespace();
            words.find_map(|word| {
                let (name, value) = word.split_once('=')?;
                name.eq_ignore_ascii_case(key).then_some(value)
            })
        };
        let (heater, target) = match name {
            AUTO if word("ENABLE") == Some("0") => (&self.chamber, Some("0")),
            AUTO => (&self.chamber, word("TARGET")),
            DRY_STOP => (&self.dryer, Some("0")),
            _ => (&self.dryer, word("TEMP")),
        };
        let number = target.filter(|value| value.parse::<f64>().is_ok());
        set(heater, number.unwrap_or("..."))
    }
}

fn set(heater: &str, target: &str) -> String {
    format!("SET_HEATER_TEMPERATURE HEATER={heater} TARGET={target}")
}

/// Changes to the lines of files: the new line for a number.
#[derive(Debug, Default)]
struct Changes {
    hidden: BTreeMap<PathBuf, BTreeSet<usize>>,
    instead: BTreeMap<(PathBuf, usize), String>,
}

/// Puts what does not work with our module out of force: calls of the module's commands, and its
/// sections if they are the community module's.
pub(super) fn replace(plan: &mut Plan, config: &Config, its_sections: bool) -> io::Result<Taken> {
    let mut taken = Taken::default();
    let mut changes = Changes::default();
    if its_sections {
        take_sections(config, &mut changes, &mut taken);
        if let Some(file) = config.files.first() {
            let text = plan.text(file)?.unwrap_or_default();
            let saved = left::saved(&text).into_iter();
            let heaters = saved.filter(|(_, name)| name == "heater_generic panda_breath");
            taken.notes.extend(heaters.map(|(line, name)| {
                format!(
                    "{}, line {line}: what SAVE_CONFIG has kept for [{name}] counts for the new \
                     heater, too; delete its lines, unless you want that",
                    file.display()
                )
            }));
        }
    }
    let heaters = Heaters::of(config);
    for section in &config.sections {
        take_calls(plan, section, &heaters, &mut changes, &mut taken)?;
    }
    let folder = config.files.first().and_then(|file| file.parent());
    for (file, hidden) in &changes.hidden {
        let is_outside = !folder.is_some_and(|folder| file.starts_with(folder));
        if let Some(repository) = git::work_tree(file).filter(|_| is_outside) {
            taken.notes.push(format!(
                "{} belongs to the git repository {} and was left alone: what is in there for the \
                 community module has to be deleted by hand (line {})",
                file.display(),
                repository.display(),
                hidden.iter().next().map_or(0, |line| line + 1)
            ));
            continue;
        }
        let text = plan.text(file)?.unwrap_or_default();
        let end = marks::line_end(&text);
        let mut new = String::with_capacity(text.len());
        for (number, line) in text.split_inclusive('\n').enumerate() {
            let bare = line.trim();
            if hidden.contains(&number) && !bare.is_empty() && !bare.starts_with('#') {
                // Ours above the old one, for the last line of a file may have no end.
                if let Some(instead) = changes.instead.get(&(file.clone(), number)) {
                    new += &marks::added(instead);
                    new += end;
                }
                new += &marks::hidden(line);
            } else {
                new += line;
            }
        }
        plan.edit(file, new, "without what only the community module knows")?;
    }
    Ok(taken)
}

/// Whether the configuration is the community module's still: where its section is, nothing is from
/// `install`, and the section says nothing that only ours knows.
pub(super) fn has_its_sections(printer_cfg: &Path) -> io::Result<bool> {
    let plan = Plan::default();
    let config = Config::read(printer_cfg, &plan)?;
    let is_known = |(name, _): &(String, String)| OPTIONS.iter().any(|(known, _)| known == name);
    let is_its = |section: &Section| {
        section.options.iter().all(is_known) && !is_marked(&section.file, &plan)
    };
    let mut sections = config.named("panda_breath").peekable();
    Ok(sections.peek().is_some() && sections.all(is_its))
}

/// Its sections for device, heater and `verify_heater`; what the user chose in them goes into ours.
fn take_sections(config: &Config, changes: &mut Changes, taken: &mut Taken) {
    let mut device: Vec<(String, String)> = Vec::new();
    let mut more: Vec<(String, String)> = Vec::new();
    let set = |options: &mut Vec<(String, String)>, (name, value): &(String, String)| {
        options.retain(|(other, _)| other != name);
        options.push((name.clone(), value.clone()));
    };
    for section in config.named("panda_breath") {
        for option in &section.options {
            set(&mut device, option);
        }
        changes.hide(section);
    }
    for section in config.named("heater_generic panda_breath") {
        for option in &section.options {
            if !usual(&HEATER, option) {
                set(&mut more, option);
            }
        }
        changes.hide(section);
    }
    for section in config.named("verify_heater panda_breath") {
        if section.options.iter().all(|option| usual(&VERIFY, option)) {
            changes.hide(section);
        } else {
            let place = section.place();
            taken.notes.push(format!(
                "{place} was kept, because its values are not those of the community module's \
                 documentation; without it, a lost device pauses a print instead of stopping it"
            ));
        }
    }
    let firmware = device.iter().find(|(name, _)| name == "firmware");
    let firmware = firmware
        .map_or("stock", |(_, value)| value.as_str())
        .to_lowercase();
    for (name, value) in device {
        match OPTIONS.iter().find(|(option, _)| *option == name) {
            Some((_, of)) if of.is_empty() || *of == firmware => taken.options.push((name, value)),
            Some(_) => {}
            None => taken.notes.push(format!(
                "option '{name}: {value}' of [panda_breath] is not one of the community module's \
                 and was left out"
            )),
        }
    }
    taken.options.extend(more);
}

fn usual(usual: &[(&str, &[&str])], (name, value): &(String, String)) -> bool {
    let number = |text: &str| text.parse::<f64>().ok();
    usual.iter().any(|(option, values)| {
        option == name
            && values.iter().any(|usual| {
                *usual == value || number(usual).is_some() && number(usual) == number(value)
            })
    })
}

fn take_calls(
    plan: &Plan,
    section: &Section,
    heaters: &Heaters,
    changes: &mut Changes,
    taken: &mut Taken,
) -> io::Result<()> {
    let text = plan.text(&section.file)?.unwrap_or_default();
    let lines: Vec<&str> = text.split('\n').collect();
    let calls: Vec<(usize, Call)> = section
        .lines
        .clone()
        .skip(1)
        .filter(|number| !changes.is_hidden(&section.file, *number))
        .filter_map(|number| Some((number, call(lines[number])?)))
        .collect();
    if calls.is_empty() {
        return Ok(());
    }
    let name = section.name.to_uppercase();
    if name == "GCODE_MACRO M141" || name == "GCODE_MACRO M191" {
        changes.hide(section);
        taken.macros = true;
        return Ok(());
    }
    for (number, call) in calls {
        let place = format!("{}, line {}", section.file.display(), number + 1);
        let (name, command) = (call.name, &call.command);
        let better = heaters.instead_of(name, command);
        let needs = if name == AUTO || heaters.has_dryer {
            String::new()
        } else {
            format!(", with 'dryer: True' in [{}]", heaters.section)
        };
        let Some(before) = call.before else {
            taken.notes.push(format!(
                "{place}: {name} is called in the middle of a line, and Klipper does not know it \
                 any more: change it by hand, to '{better}'{needs} (docs/community-module.md)"
            ));
            continue;
        };
        let hidden = changes.hidden.entry(section.file.clone()).or_default();
        hidden.insert(number);
        let off = set(&heaters.chamber, "0");
        let (instead, now) = if better.ends_with(" TARGET=0") && needs.is_empty() {
            (better.clone(), format!("'{better}'"))
        } else if name == DRY_STOP {
            let now = format!("'{off}'; what ends drying is '{better}'{needs}");
            (off, now)
        } else {
            let now = format!(
                "a line in the console, because nothing is turned on unasked: write '{better}'\
                 {needs} (docs/community-module.md)"
            );
            (told(name, heaters), now)
        };
        let at = (section.file.clone(), number);
        changes.instead.insert(at, format!("{before}{instead}"));
        taken
            .notes
            .push(format!("{place}: '{command}' is now {now}"));
    }
    Ok(())
}

/// A line in the console, where a macro did something that has to be decided anew.
fn told(name: &str, heaters: &Heaters) -> String {
    let hint = match name {
        DRY_START => format!(" Filament is dried by a target of {}.", heaters.dryer),
        _ => String::new(),
    };
    format!(
        "{{action_respond_info(\"panda-breath: {name} was a command of the community module, and \
         nothing was done.{hint} See docs/community-module.md\")}}"
    )
}

#[derive(Debug, Eq, PartialEq)]
struct Call {
    /// Which command.
    name: &'static str,
    /// With its parameters.
    command: String,
    /// What stands before it, if the rest of the line is its own.
    before: Option<String>,
}

/// The call of a command of the community module in this line.
fn call(line: &str) -> Option<Call> {
    let line = line.split('#').next().unwrap_or("").trim_end();
    let upper = line.to_ascii_uppercase();
    let (at, name) = COMMANDS.iter().find_map(|name| {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (at, _) = upper.match_indices(name).find(|(at, _)| {
            !upper[..*at].ends_with(word) && !upper[at + name.len()..].starts_with(word)
        })?;
        Some((at, *name))
    })?;
    let (before, command) = line.split_at(at);
    let key = before.trim_end();
    let option = key.strip_suffix([':', '=']).is_some_and(|key| {
        let key = key.trim();
        !before.starts_with([' ', '\t'])
            && !key.is_empty()
            && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    });
    if !(key.is_empty() || option) || command.contains("{%") {
        // Only a call counts, not a word in a text or the name of a variable.
        let called = key.ends_with("%}") || key.is_empty() || option;
        return called.then(|| Call {
            name,
            command: command.to_owned(),
            before: None,
        });
    }
    Some(Call {
        name,
        command: command.to_owned(),
        before: Some(before.to_owned()),
    })
}

impl Changes {
    fn is_hidden(&self, file: &Path, line: usize) -> bool {
        self.hidden
            .get(file)
            .is_some_and(|lines| lines.contains(&line))
    }

    /// The whole section; blank lines and comments need not be.
    fn hide(&mut self, section: &Section) {
        let lines = self.hidden.entry(section.file.clone()).or_default();
        lines.extend(section.lines.clone());
    }
}
