//! What is wrong in printer.cfg, beside what Klipper itself would say.

use std::path::Path;

use super::finding::Findings;
use super::heaters::{self, Heater};
use super::options::{self, HEATER_OPTIONS, truth};
use super::printer_cfg::{Config, Section};
use super::wanted::{Wanted, twice, want};

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
        options::check(config, section, &mut said);
        order(config, section, &mut said);
        for heater in heaters::of(config, section) {
            if !heater.dries {
                limits(config, section, &heater, &mut said);
            }
            verify(config, section, &heater, &mut said);
        }
        guard(section, &mut said);
        let one = want(section, home, &mut said);
        twice(&wanted, &one, &mut said);
        wanted.push(one);
    }
    if !ours.is_empty() {
        heaters::check(config, &ours, &mut said);
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

fn limits(config: &Config, ours: &Section, heater: &Heater, said: &mut Findings) {
    let name = &heater.section;
    let own = config.section(name);
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

pub(super) fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Klipper's own watch over heaters, whose defaults are made for hot ends.
fn verify(config: &Config, ours: &Section, heater: &Heater, said: &mut Findings) {
    let name = format!("verify_heater {}", heater.name());
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
    let hysteresis = if ours.get("chamber_sensor").is_some() && !heater.dries {
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
    if let Some(value) = ours
        .get("guard")
        .filter(|value| truth(value) == Some(false))
    {
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
        let dries = |word: &&str| word.starts_with("PANDA_BREATH_DRY");
        let mut instead = Vec::new();
        if !found.iter().all(dries) {
            instead.push(
                "SET_HEATER_TEMPERATURE HEATER=NAME warms the chamber \
                 (examples/m141_m191.cfg has M141 and M191)",
            );
        }
        if found.iter().any(dries) {
            instead.push(
                "with 'dryer: True', SET_HEATER_TEMPERATURE HEATER=NAME_dryer dries filament \
                 (docs/drying.md)",
            );
        }
        if !found.is_empty() {
            said.problem(
                "community",
                format!(
                    "[{}] ({}) calls {}",
                    section.name,
                    section.spot,
                    found.join(", ")
                ),
                format!(
                    "Klipper does not know the commands of the community module any more: {}",
                    instead.join("; ")
                ),
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

#[cfg(test)]
mod tests;
