//! The configuration: our section, the line that includes it, and the macros.

use std::io;
use std::path::Path;

use super::ask::Talk;
use super::config::Config;
use super::marks::{self, Stamp};
use super::plan::Plan;
use super::{Arguments, CONFIG, MACROS, Report, community};

const MACROS_TEXT: &str = include_str!("../../../examples/m141_m191.cfg");

/// Has Klipper read our section, and takes out what does not go with it.
pub(super) fn configure(
    arguments: &Arguments,
    printer_cfg: &Path,
    community: bool,
    plan: &mut Plan,
    report: &mut Report,
    talk: &mut Talk<'_>,
) -> io::Result<()> {
    let ours = printer_cfg.with_file_name(CONFIG);
    let config = Config::read(printer_cfg, plan)?;
    let taken = community::replace(plan, &config, community)?;
    report.notes.extend(taken.notes);
    let mut on_top: Vec<String> = Vec::new();

    let config = Config::read(printer_cfg, plan)?;
    let given = !arguments.device.is_empty();
    let elsewhere = config.device().filter(|section| section.file != ours);
    if let Some(section) = elsewhere {
        let also = if given {
            "; the options given here were not used"
        } else {
            ""
        };
        report
            .notes
            .push(format!("{} is used as it is{also}", section.place()));
    } else {
        write_section(arguments, &taken.options, &ours, plan, report, talk)?;
        if !included_in_time(&config, &ours) {
            on_top.push(format!("[include {CONFIG}]"));
        }
    }
    if let Some(line) = add_macros(
        arguments,
        &config,
        taken.macros,
        printer_cfg,
        plan,
        report,
        talk,
    )? {
        on_top.push(line);
    }
    if !on_top.is_empty() {
        let text = plan.text(printer_cfg)?.unwrap_or_default();
        let what = format!("{} at the top", on_top.join(", "));
        plan.edit(printer_cfg, marks::with_lines_on_top(&text, &on_top), &what)?;
    }
    Ok(())
}

/// Our section, in a file of its own.
fn write_section(
    arguments: &Arguments,
    taken: &[(String, String)],
    ours: &Path,
    plan: &mut Plan,
    report: &mut Report,
    talk: &mut Talk<'_>,
) -> io::Result<()> {
    let given = !arguments.device.is_empty();
    let old = plan.text(ours)?;
    let stamp = old.as_deref().map(marks::stamp);
    let has_section = old.as_deref().is_some_and(|text| {
        text.lines()
            .any(|line| line.starts_with("[panda_breath]") || line.starts_with("[panda_breath "))
    });
    let rewrite = stamp == Some(Stamp::Untouched) && given;
    if has_section && !rewrite {
        if given {
            report.notes.push(format!(
                "{} has a section already and stays as it is: the options given here were not \
                 used",
                ours.display()
            ));
        }
        return Ok(());
    }
    let device = if given || !taken.is_empty() {
        arguments.device.clone()
    } else {
        arguments.device.asked(talk)?
    };
    let mut options = match &old {
        Some(_) if rewrite => written(ours, plan)?,
        _ => Vec::new(),
    };
    for option in taken {
        options.retain(|(name, _)| *name != option.0);
        options.push(option.clone());
    }
    let before = options.clone();
    let body = device.section(options);
    report.notes.extend(stays_pinned(&before, &body));
    match (old, stamp) {
        (Some(text), Some(Stamp::Foreign | Stamp::Edited)) => {
            let text = marks::with_block_on_top(&text, &body);
            plan.edit(ours, text, "[panda_breath] at the top")
        }
        _ => plan.write(ours, marks::stamped(&body), "the section [panda_breath]"),
    }
}

/// Another place, and the device that was meant for the old one: what to know about it.
fn stays_pinned(before: &[(String, String)], body: &str) -> Option<String> {
    let stays = |name: &str| {
        let (name, value) = before.iter().find(|option| option.0 == name)?;
        let line = format!("{name}: {value}");
        Some((body.lines().any(|other| other == line), value))
    };
    let moved = |name| stays(name).is_some_and(|(stays, _)| !stays);
    let (pinned, id) = stays("device_id")?;
    (pinned && (moved("host") || moved("mqtt_broker"))).then(|| {
        format!(
            "device_id: {id} stays: any other device there is refused; for another one give \
             --device-id as well"
        )
    })
}

/// What an earlier run has written: what is not given this time stays.
fn written(ours: &Path, plan: &Plan) -> io::Result<Vec<(String, String)>> {
    let config = Config::read(ours, plan)?;
    Ok(config
        .device()
        .map_or_else(Vec::new, |section| section.options.clone()))
}

/// Whether the file is included already, above all that needs it.
fn included_in_time(config: &Config, ours: &Path) -> bool {
    let uses = |(option, value): &(String, String)| {
        let chip = value.split(':').next().unwrap_or("").split(' ').next();
        (option == "sensor_type" || option == "heater_pin") && chip == Some("panda_breath")
    };
    let first_use = config
        .sections
        .iter()
        .position(|section| section.options.iter().any(uses));
    let ours_at = config
        .sections
        .iter()
        .position(|section| section.file == ours);
    let included = config.includes.iter().any(|(_, _, file)| file == ours);
    match (first_use, ours_at) {
        _ if !included => false,
        (Some(first), Some(ours)) => ours <= first,
        (Some(_), None) => false,
        (None, _) => true,
    }
}

/// The macros, and the line that includes them.
fn add_macros(
    arguments: &Arguments,
    config: &Config,
    replaced: bool,
    printer_cfg: &Path,
    plan: &mut Plan,
    report: &mut Report,
    talk: &mut Talk<'_>,
) -> io::Result<Option<String>> {
    let file = printer_cfg.with_file_name(MACROS);
    if config.includes.iter().any(|(_, _, other)| *other == file) {
        return Ok(None);
    }
    let mut there = ["gcode_macro M141", "gcode_macro M191"]
        .iter()
        .flat_map(|name| config.named(name));
    // What was put out of force needs one in its place; where only one of the two was, the user's own
    // stands below ours, and counts.
    if let Some(section) = there.next().filter(|_| !replaced) {
        if arguments.macros {
            let place = section.place();
            report
                .notes
                .push(format!("{place} is there already: no macros were added"));
        }
        return Ok(None);
    }
    let others = config
        .device()
        .is_some_and(|section| section.name != "panda_breath");
    let wanted = if arguments.no_macros && !replaced {
        false
    } else if arguments.macros || replaced {
        true
    } else {
        !others
            && talk.yes(
                "Add the macros M141 and M191, with which slicers set the chamber?",
                true,
            )?
    };
    if !wanted {
        return Ok(None);
    }
    if plan
        .text(&file)?
        .is_some_and(|text| marks::stamp(&text) == Stamp::Foreign)
    {
        report.notes.push(format!(
            "{} is not ours: no macros were added",
            file.display()
        ));
        return Ok(None);
    }
    if plan.text(&file)?.is_none() {
        let text = MACROS_TEXT
            .lines()
            .filter(|line| !line.starts_with("# Copy this file"));
        let text = text.fold(String::new(), |text, line| text + line + "\n");
        let text = text.replace("\"panda_breath\"", &format!("\"{}\"", config.heater()));
        plan.write(&file, marks::stamped(&text), "the macros M141 and M191")?;
    }
    Ok(Some(format!("[include {MACROS}]")))
}
