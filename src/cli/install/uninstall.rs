//! `panda-breath uninstall`: takes away what `install` put there, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::ask::Talk;
use super::community::{self, Module};
use super::config::Config;
use super::marks::{self, Stamp};
use super::plan::{BACKUP, Plan, backup_of, copy_of};
use super::{
    CONFIG, Here, MACROS, MODULE, Manner, Place, Python, extras, failed, find, git, left,
    module_at, module_folder, proceed, restart, same,
};
use crate::cli::klippy::{Instance, Machine};

/// What is added to the name of an edited file of ours, which is hidden as copies are.
const SAVED: &str = ".saved";

/// Take back what `panda-breath install` did.
///
/// Files are again as they were before, byte for byte; where they were edited meanwhile, only what
/// came from `install` goes. A community module that was there before is put back. The wheel itself
/// stays: pip removes it.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  ~/klippy-env/bin/panda-breath uninstall --dry-run
  ~/klippy-env/bin/panda-breath uninstall

Exit codes: 0 done, or nothing to do; 1 refused or failed, and nothing was changed; 2 wrong \
arguments.")]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    pub(super) manner: Manner,
    #[command(flatten)]
    pub(super) place: Place,
}

pub(in crate::cli) fn run(arguments: &Arguments, python: Option<Python>) -> io::Result<()> {
    let stdin = io::stdin();
    let (mut lines, mut out) = (stdin.lock(), io::stdout());
    let mut talk = Talk::new(&mut lines, &mut out, arguments.manner.yes);
    uninstall(arguments, &Here::real(python), &mut talk)
}

pub(super) fn uninstall(arguments: &Arguments, here: &Here, talk: &mut Talk<'_>) -> io::Result<()> {
    let place = &arguments.place;
    let (instance, mut machine) = find(place, here)?;
    let mut plan = Plan::default();
    let mut notes: Vec<String> = Vec::new();

    let printer_cfg = fs::canonicalize(&instance.printer_cfg)?;
    // Whoever has this checkout beside it counts as well.
    let beside = instance.klipper.parent().map(Path::to_owned);
    machine.homes.extend(beside);
    let others = others_with_it(&machine, &printer_cfg);
    let here_too = |other: &&Instance| same(&other.klipper, &instance.klipper);
    let other = others.iter().find(here_too);
    take_back_config(
        place,
        &instance,
        &printer_cfg,
        other.is_some(),
        &mut plan,
        &mut notes,
    )?;
    if let Some(other) = other {
        notes.push(format!(
            "the module stays in {}, because {} needs it",
            instance.klipper.display(),
            other.printer_cfg.display()
        ));
    } else {
        take_back_module(&instance.klipper, &mut plan, &mut notes)?;
    }

    for note in &notes {
        talk.say(&format!("note: {note}"))?;
    }
    let spare = |python: &&Python| other.is_none() && !others.iter().any(|one| uses(one, python));
    let python = here.python.as_ref().filter(spare);
    if plan.is_empty() {
        talk.say("Nothing of 'panda-breath install' is here: nothing to do.")?;
        return say_guard(place, talk);
    }
    if proceed(&plan, arguments.manner, talk)? {
        // It is done, whether or not somebody listens still.
        let _ = say_next(place, &instance, python, talk);
    }
    Ok(())
}

/// What is left to do by hand.
fn say_next(
    place: &Place,
    instance: &Instance,
    python: Option<&Python>,
    talk: &mut Talk<'_>,
) -> io::Result<()> {
    talk.say(&format!("\nNext: {}", restart(instance)))?;
    if let Some(python) = python {
        let pip = python.prefix.join("bin/python");
        talk.say(&format!(
            "Then: {} -m pip uninstall panda-breath",
            pip.display()
        ))?;
    }
    say_guard(place, talk)
}

fn say_guard(place: &Place, talk: &mut Talk<'_>) -> io::Result<()> {
    if let Some(unit) = extras::guard_unit_left(place) {
        talk.say(&format!(
            "The guard service: sudo systemctl disable --now panda-breath-guard && sudo rm {}",
            unit.display()
        ))?;
    }
    Ok(())
}

fn take_back_config(
    place: &Place,
    instance: &Instance,
    printer_cfg: &Path,
    module_stays: bool,
    plan: &mut Plan,
    notes: &mut Vec<String>,
) -> io::Result<()> {
    let folder = printer_cfg.parent().unwrap_or(Path::new("/")).to_owned();
    let config = Config::read(printer_cfg, plan)?;
    let mut files: BTreeSet<PathBuf> = config.files.iter().cloned().collect();
    // What is not included any more was edited all the same.
    edited_in(&folder, 0, &mut files);
    let moonraker = instance.config_folder().join("moonraker.conf");
    let moonraker = place.moonraker_conf.clone().unwrap_or(moonraker);
    files.extend(fs::canonicalize(moonraker));
    // Last, so that nothing includes what is gone, should this be killed half-way.
    let ours = [CONFIG, MACROS].map(|name| folder.join(name));
    files.retain(|file| !ours.contains(file));
    for file in files.into_iter().chain(ours) {
        let Some(text) = plan.text(&file)? else {
            continue;
        };
        match marks::stamp(&text) {
            Stamp::Untouched => plan.remove(&file, ""),
            Stamp::Edited => {
                plan.rename(&file, &saved(&file), "it was edited, so it is kept");
            }
            Stamp::Foreign => take_back(&file, &text, plan, notes)?,
        }
    }
    // What is left would keep Klipper from starting without the module.
    let left = Config::read(printer_cfg, plan)?;
    for (file, line, _) in left.includes.iter().filter(|(_, _, other)| {
        [CONFIG, MACROS]
            .iter()
            .any(|name| *other == folder.join(name))
            && !matches!(plan.text(other), Ok(Some(_)))
    }) {
        notes.push(format!(
            "{}, line {}, includes what is going away, and was not written by 'install': delete \
             it, or Klipper will not start",
            file.display(),
            line + 1
        ));
    }
    let device = left.device();
    if !other_modules(&instance.klipper).is_empty() || module_stays && device.is_some() {
        return Ok(());
    }
    if let Some(section) = device {
        notes.push(format!(
            "{} was not written by 'install': delete it, or Klipper will not start without the \
             module",
            section.place()
        ));
    }
    notes.extend(left::notes(&config, &left));
    let text = plan.text(printer_cfg)?.unwrap_or_default();
    notes.extend(left::saved_notes(printer_cfg, &text, &config, &left));
    Ok(())
}

/// The name for an edited file of ours: one that nothing has yet.
fn saved(file: &Path) -> PathBuf {
    let own = file.file_name().unwrap_or_default().to_string_lossy();
    let name = |number: u32| {
        let number = match number {
            1 => String::new(),
            _ => format!(".{number}"),
        };
        file.with_file_name(format!(".{own}{SAVED}{number}"))
    };
    let mut free = (1..).map(name).filter(|path| !path.exists());
    free.next().unwrap_or_else(|| name(0))
}

/// Our lines out of a file of the user's; the copy of it goes where it is the same again.
fn take_back(file: &Path, text: &str, plan: &mut Plan, notes: &mut Vec<String>) -> io::Result<()> {
    let bare = marks::undone(text).map_err(|why| failed(format!("{}: {why}", file.display())))?;
    let mut copies = [copy_of(file), backup_of(file)].into_iter();
    let copy = copies.find(|copy| copy.is_file());
    let kept = match &copy {
        Some(copy) => super::plan::read(copy)?,
        None => None,
    };
    if bare == text && kept.is_none() {
        return Ok(());
    }
    if bare.is_empty() && kept.is_none() {
        plan.remove(file, "");
        return Ok(());
    }
    plan.write(file, bare.clone(), "without the lines of 'install'")?;
    let Some(copy) = copy else { return Ok(()) };
    if kept.as_ref() == Some(&bare) {
        plan.remove(&copy, "");
    } else if kept.is_some() {
        notes.push(format!(
            "{} was edited since; {} shows it as it was before 'install', and can be deleted",
            file.display(),
            copy.display()
        ));
    }
    Ok(())
}

/// The files of which there is a copy, in this folder and below.
fn edited_in(folder: &Path, depth: usize, files: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && depth < 4 {
            edited_in(&path, depth + 1, files);
        } else if let Some(name) = path.to_str().and_then(|path| path.strip_suffix(BACKUP)) {
            let file = PathBuf::from(name);
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            files.insert(match name.strip_prefix('.') {
                Some(name) => file.with_file_name(name),
                None => file,
            });
        }
    }
}

/// The modules that are there without the one of `install`, or come back.
fn other_modules(klipper: &Path) -> Vec<Module> {
    let folders = [module_folder(klipper), klipper.join("klippy/extras")];
    let places = folders.iter().map(|folder| folder.join(MODULE));
    places
        .flat_map(|path| [backup_of(&path), path])
        .filter(|path| fs::symlink_metadata(path).is_ok())
        .map(|path| module_at(&path, &Plan::default()).unwrap_or(Module::Unknown))
        .filter(|module| *module != Module::Shim)
        .collect()
}

/// The other Klippers of this computer that need our module.
fn others_with_it(machine: &Machine, printer_cfg: &Path) -> Vec<Instance> {
    let mut others = machine.everywhere();
    others.retain(|other| {
        let Ok(file) = fs::canonicalize(&other.printer_cfg) else {
            return false;
        };
        let plan = Plan::default();
        let config = Config::read(&file, &plan);
        let needs = |config: &Config| {
            // Where the community's comes back, a section may be its own.
            let is_its = other_modules(&other.klipper).contains(&Module::Community);
            config.device().is_some() && (!is_its || config.has_marks(&plan))
        };
        file != printer_cfg && config.is_ok_and(|config| needs(&config))
    });
    others
}

/// Whether it runs in this Python, as far as anybody knows.
fn uses(other: &Instance, python: &Python) -> bool {
    let folder = other.python.as_deref();
    let folder = folder.and_then(|path| path.ancestors().nth(2));
    folder.is_none_or(|folder| same(folder, &python.prefix))
}

fn take_back_module(klipper: &Path, plan: &mut Plan, notes: &mut Vec<String>) -> io::Result<()> {
    let target = module_folder(klipper).join(MODULE);
    let ours = plan
        .text(&target)?
        .is_some_and(|text| community::module(&text) == Module::Shim);
    if ours {
        plan.remove(&target, "");
    }
    let mut places = vec![target.clone(), klipper.join("klippy/extras").join(MODULE)];
    places.dedup();
    // What Python has compiled from it.
    let compiled = target.with_file_name("__pycache__");
    for entry in fs::read_dir(&compiled).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if ours && name.starts_with("panda_breath.") && name.ends_with(".pyc") {
            plan.remove(&entry.path(), "");
        }
    }
    for path in places {
        let aside = backup_of(&path);
        let free = fs::symlink_metadata(&path).is_err() || path == target && ours;
        if fs::symlink_metadata(&aside).is_ok() && free {
            plan.rename(&aside, &path, "as it was before 'install'");
        }
    }
    let Some(list) = git::exclude_of(klipper) else {
        return Ok(());
    };
    if let Some(text) = plan.text(&list)? {
        take_back(&list, &text, plan, notes)?;
    }
    Ok(())
}
