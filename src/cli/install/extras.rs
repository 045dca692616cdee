//! What is useful besides: Moonraker's update manager, and the guard service.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::ask::Talk;
use super::plan::Plan;
use super::{Arguments, Here, Place, Python, Report, command, git, marks};
use crate::cli::klippy::{Instance, Machine};

const UNIT: &str = "panda-breath-guard.service";
const UNIT_TEXT: &str = include_str!("../../../examples/systemd/panda-breath-guard.service");
pub(super) const UPDATE_MANAGER: &str = "[update_manager panda-breath]";

/// What pip was given to install this: `None` if it was a name that an index knows.
pub(super) fn came_from(python: &Python) -> Option<String> {
    let entries = fs::read_dir(&python.site).ok()?;
    let folder = entries.flatten().map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("panda_breath-") && name.ends_with(".dist-info")
    })?;
    let text = fs::read_to_string(folder.join("direct_url.json")).ok()?;
    let url: serde_json::Value = serde_json::from_str(&text).ok()?;
    let text = url.get("url")?.as_str()?;
    // Moonraker follows a repository, too, and pip wants to know that it is one.
    Some(match text.strip_prefix("file://") {
        Some(path) => path.to_owned(),
        None if url.get("vcs_info").is_some() => format!("git+{text}"),
        None => text.to_owned(),
    })
}

/// The section that lets Moonraker update the wheel.
pub(super) fn update_manager(
    arguments: &Arguments,
    instance: &Instance,
    python: &Python,
    plan: &mut Plan,
    report: &mut Report,
) -> io::Result<()> {
    if arguments.no_update_manager {
        return Ok(());
    }
    let conf = &arguments.place.moonraker_conf;
    let usual = instance.config_folder().join("moonraker.conf");
    let conf = conf.clone().unwrap_or(usual);
    let Ok(real) = fs::canonicalize(&conf) else {
        if arguments.update_manager || arguments.place.moonraker_conf.is_some() {
            return Err(super::failed(format!(
                "{}: there is no such file",
                conf.display()
            )));
        }
        return Ok(());
    };
    let text = plan.text(&real)?.unwrap_or_default();
    if text.lines().any(|line| line.trim_end() == UPDATE_MANAGER) {
        return Ok(());
    }
    let mut leave = |why: String| {
        let conf = conf.display();
        report.notes.push(format!("{conf} was left alone: {why}"));
        Ok(())
    };
    if real != conf && conf.is_symlink() && git::work_tree(&real).is_some() {
        return leave(format!(
            "it is a link into a git repository, {}",
            real.display()
        ));
    }
    let source = came_from(python).filter(|source| !source.starts_with("git+https://github.com/"));
    if let Some(source) = source.filter(|_| !arguments.update_manager) {
        return leave(format!(
            "Moonraker updates what came from PyPI or GitHub, and this came from {source}"
        ));
    }
    if !python.prefix.join("bin/activate").is_file() {
        return leave("Moonraker updates only what is in a virtual environment".to_owned());
    }
    let block = format!(
        "{UPDATE_MANAGER}\ntype: python\nvirtualenv: {}\nmanaged_services: klipper\n",
        python.prefix.display()
    );
    report.moonraker = true;
    plan.edit(
        &real,
        marks::with_block_below(&text, &block),
        UPDATE_MANAGER,
    )
}

/// The unit, made to fit.
pub(super) fn guard_unit(here: &Here, python: &Python, place: &Place) -> io::Result<String> {
    let machine = Machine {
        homes: vec![place.home.clone().unwrap_or_else(|| here.home.clone())],
        units: place.systemd_dir.clone(),
        proc: None,
    };
    let found = machine.instances();
    let user = found.iter().find_map(|instance| instance.user.clone());
    let user = match user {
        Some(user) => user,
        None => owner(here, &machine.homes[0])?,
    };
    let services: Vec<String> = found.into_iter().filter_map(|one| one.service).collect();
    Ok(unit_text(python, &user, &services))
}

fn unit_text(python: &Python, user: &str, services: &[String]) -> String {
    let before: Vec<String> = services
        .iter()
        .map(|name| format!("{name}.service"))
        .collect();
    let lines = UNIT_TEXT.lines().filter_map(|line| {
        Some(match line.split('=').next() {
            Some("User") => format!("User={user}\n"),
            Some("ExecStart") => format!("ExecStart={} guard-service\n", command(python)),
            Some("Before") if !before.is_empty() => format!("Before={}\n", before.join(" ")),
            // They say what to fill in by hand.
            _ if line.starts_with("# Write the user") || line.starts_with("#   sudo") => {
                return None;
            }
            _ => format!("{line}\n"),
        })
    });
    lines.collect()
}

/// The name of the user whom this belongs to.
fn owner(here: &Here, path: &Path) -> io::Result<String> {
    let uid = fs::metadata(path).map_err(super::in_file(path))?.uid();
    let users = fs::read_to_string(&here.passwd).map_err(super::in_file(&here.passwd))?;
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    });
    Ok(named.unwrap_or_else(|| uid.to_string()))
}

/// Writes the unit where this is root's doing, and offers it otherwise.
pub(super) fn guard_service(
    arguments: &Arguments,
    instance: &Instance,
    here: &Here,
    python: &Python,
    plan: &mut Plan,
    report: &mut Report,
    talk: &mut Talk<'_>,
) -> io::Result<()> {
    let units = &arguments.place.systemd_dir;
    let unit = units.join(UNIT);
    if arguments.no_guard_service || !units.is_dir() {
        if arguments.guard_service {
            return Err(super::failed(format!(
                "{}: there is no such folder, so there is no systemd to run the guard service",
                units.display()
            )));
        }
        return Ok(());
    }
    if unit.exists() && !arguments.guard_service {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        report.guard = true;
        return Ok(());
    }
    let question = "Write the guard service, for when all of Klipper's processes are killed?";
    if !(arguments.guard_service || talk.asks() && talk.yes(question, false)?) {
        report.guard = true;
        return Ok(());
    }
    let user = match &instance.user {
        Some(user) => user.clone(),
        None => owner(here, &instance.printer_cfg)?,
    };
    let services: Vec<String> = instance.service.iter().cloned().collect();
    plan.write(
        &unit,
        unit_text(python, &user, &services),
        "the guard service",
    )?;
    report.unit = true;
    Ok(())
}

/// The commands for the guard service.
pub(super) fn say_guard(talk: &mut Talk<'_>, python: &Python) -> io::Result<()> {
    talk.say(&format!(
        "\nOptional: the guard service, which turns the heater off also when all of Klipper's \
         processes are killed at once (docs/guard.md):\n      \
         {} install --print-guard-unit | sudo tee /etc/systemd/system/{UNIT} >/dev/null\n      \
         sudo systemctl daemon-reload && sudo systemctl enable --now panda-breath-guard",
        command(python)
    ))
}

/// Whether the unit is there, and whose it is to take away.
pub(super) fn guard_unit_left(place: &Place) -> Option<std::path::PathBuf> {
    let unit = place.systemd_dir.join(UNIT);
    let text = fs::read_to_string(&unit).ok()?;
    text.contains("panda-breath guard-service").then_some(unit)
}
