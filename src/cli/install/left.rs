//! What stays of the user's configuration when the heater goes, and keeps Klipper from starting then.

use std::path::Path;

use super::config::{Config, Section};

/// Options that name heaters.
const NAMING: [&str; 3] = ["heater", "heaters", "heater_name"];
/// Before each line that `SAVE_CONFIG` wrote.
const SAVED: &str = "#*# ";

/// A note for each section of `left` that needs what `before` had from us.
pub(super) fn notes(before: &Config, left: &Config) -> Vec<String> {
    let chips = chips(before);
    let heaters = heaters(&chips, left);
    let needs = |section: &&Section| needs(section, &chips, &heaters);
    let found = left.sections.iter().filter(needs);
    found
        .map(|section| {
            format!(
                "{} needs the heater that goes: delete or change it, or Klipper will not start",
                section.place()
            )
        })
        .collect()
}

/// A note for each such section that `SAVE_CONFIG` has written: without its heater, Klipper misses the
/// pin.
pub(super) fn saved_notes(file: &Path, text: &str, before: &Config, left: &Config) -> Vec<String> {
    let heaters = heaters(&chips(before), left);
    let mut found = saved(text);
    found.retain(|(_, name)| {
        let (kind, heater) = name.split_once(' ').unwrap_or_default();
        let is_ours = heaters.iter().any(|own| own == heater);
        // Notes on a section that is still there are of that.
        is_ours && kind == "heater_generic" && left.named(name).next().is_none()
    });
    let note = |(line, name): (usize, String)| {
        format!(
            "{}, line {line}: SAVE_CONFIG has kept [{name}]: delete its lines, or Klipper will not \
             start",
            file.display()
        )
    };
    found.into_iter().map(note).collect()
}

/// The sections that `SAVE_CONFIG` has written, each with the number of its line.
pub(super) fn saved(text: &str) -> Vec<(usize, String)> {
    let header = |line: &str| {
        let line = line.strip_prefix(SAVED)?.trim_end();
        let name = line.strip_prefix('[')?.strip_suffix(']')?;
        Some(name.to_owned())
    };
    let lines = (1..).zip(text.lines());
    lines
        .filter_map(|(number, line)| Some((number, header(line)?)))
        .collect()
}

fn chips(before: &Config) -> Vec<String> {
    let names = before.sections.iter().map(|section| section.name.clone());
    let mut chips: Vec<String> = names
        .filter(|name| name.split(' ').next() == Some("panda_breath"))
        .collect();
    // The one that an edited file of ours has, although nothing includes it.
    chips.push("panda_breath".to_owned());
    chips
}

/// The names of our heaters, apart from those that somebody else's heater has now.
fn heaters(chips: &[String], left: &Config) -> Vec<String> {
    let last = |name: &str| name.rsplit(' ').next().unwrap_or(name).to_owned();
    let made = chips.iter().map(|chip| last(chip));
    let mut heaters: Vec<String> = made
        .flat_map(|name| [format!("{name}_dryer"), name])
        .collect();
    for section in &left.sections {
        let name = last(&section.name);
        match chip_of(section) {
            Some(chip) if chips.iter().any(|own| own == chip) => heaters.push(name),
            Some(_) => heaters.retain(|heater| *heater != name),
            None => {}
        }
    }
    heaters
}

/// Whose pin heats: for those of the computer's own board, nobody's.
fn chip_of(section: &Section) -> Option<&str> {
    let pin = section.option("heater_pin")?;
    let chip = pin.rsplit_once(':').map_or("", |(chip, _)| chip);
    Some(chip.trim_start_matches(['!', '^', '~']).trim())
}

fn needs(section: &Section, chips: &[String], heaters: &[String]) -> bool {
    let is_chip = |name: Option<&str>| name.is_some_and(|name| chips.iter().any(|own| own == name));
    let is_heater = |name: &str| {
        let name = name.trim();
        let name = name.strip_prefix("heater_generic ").unwrap_or(name);
        heaters.iter().any(|own| own == name.trim())
    };
    is_chip(chip_of(section))
        || is_chip(section.option("sensor_type"))
        || section
            .name
            .strip_prefix("verify_heater ")
            .is_some_and(is_heater)
        || NAMING
            .iter()
            .filter_map(|name| section.option(name))
            .any(|names| names.split(',').any(is_heater))
}
