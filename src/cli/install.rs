//! `panda-breath install`: the module, the configuration and what else is wanted, put where Klipper
//! looks for it, so that `panda-breath uninstall` can take it away again to the byte.

mod ask;
mod community;
mod config;
mod configure;
mod extras;
mod git;
mod left;
mod marks;
mod options;
mod plan;
#[cfg(test)]
mod tests;
mod uninstall;

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::klippy::{Instance, Machine, is_klipper};
use ask::Talk;
use community::Module;
use configure::configure;
use options::DeviceOptions;
use plan::{Plan, backup_of};
pub(super) use uninstall::Arguments as UninstallArguments;
pub(super) use uninstall::run as run_uninstall;

/// What goes into Klipper's folder. All else is in the wheel, so that pip upgrades that, too.
const SHIM: &str = r#"# Panda Breath for Klipper, written by 'panda-breath install'. The module is in the wheel.
try:
    from panda_breath import *
except ImportError as e:
    import sys

    problem = "%s. Run '%s -m pip install panda-breath', then restart the Klipper service." % (
        e,
        sys.executable,
    )

    def load_config(config):
        raise config.error("[%s]: %s" % (config.get_name(), problem))

    load_config_prefix = load_config
"#;
const MODULE: &str = "panda_breath.py";
const CONFIG: &str = "panda_breath.cfg";
const MACROS: &str = "panda_breath_macros.cfg";

/// Install Panda Breath into Klipper or Kalico.
///
/// Finds Klipper and its printer.cfg, puts a small file into klippy/extras (Kalico: klippy/plugins)
/// that loads the module from this Python environment, writes `panda_breath.cfg` beside printer.cfg
/// and a line into printer.cfg that includes it. Shows what it is going to do and asks first, but
/// only on a terminal. Can be run again at any time: what is in place already is left alone.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  ~/klippy-env/bin/panda-breath install --host 192.168.1.50
  ~/klippy-env/bin/panda-breath install --mqtt-broker 192.168.1.10 --no-macros --dry-run

'panda-breath uninstall' takes everything back. See docs/install.md.

Exit codes: 0 done, or nothing to do; 1 refused or failed, and nothing was changed; 2 wrong \
arguments.")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Arguments {
    /// Add the macros M141 and M191, as slicers write them, without asking.
    #[arg(long, overrides_with = "no_macros")]
    macros: bool,
    /// Add no macros.
    #[arg(long)]
    no_macros: bool,
    /// Add an `[update_manager]` section to moonraker.conf, even if Moonraker can not update this
    /// installation, because it came from a file.
    #[arg(long, overrides_with = "no_update_manager")]
    update_manager: bool,
    /// Leave moonraker.conf alone.
    #[arg(long)]
    no_update_manager: bool,
    /// Write the unit of the guard service (docs/guard.md). Needs root; without, the commands for it
    /// are printed.
    #[arg(long, overrides_with = "no_guard_service")]
    guard_service: bool,
    /// Say nothing of the guard service.
    #[arg(long)]
    no_guard_service: bool,
    /// Only print the unit of the guard service, for this user and this Python environment.
    #[arg(long)]
    print_guard_unit: bool,
    #[command(flatten)]
    manner: Manner,
    #[command(flatten)]
    device: DeviceOptions,
    #[command(flatten)]
    place: Place,
}

/// Where things are. Each is found by itself where it is in its usual place.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Places")]
pub(super) struct Place {
    /// Which Klipper, where there are several: the name of its service or of its data folder.
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// The home folder to look in.
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Klipper's or Kalico's checkout.
    #[arg(long, value_name = "DIR")]
    klipper_dir: Option<PathBuf>,
    /// The configuration that Klipper is started with.
    #[arg(long, value_name = "FILE")]
    printer_cfg: Option<PathBuf>,
    /// The Python environment that Klipper runs in, or /usr for the system's Python.
    #[arg(long, value_name = "DIR")]
    klippy_env: Option<PathBuf>,
    /// Moonraker's configuration.
    #[arg(long, value_name = "FILE")]
    moonraker_conf: Option<PathBuf>,
    /// Where systemd's units are.
    #[arg(long, value_name = "DIR", default_value = "/etc/systemd/system")]
    systemd_dir: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct Manner {
    /// Ask nothing; every question gets its default.
    #[arg(long, short)]
    yes: bool,
    /// Only show what would be done.
    #[arg(long)]
    dry_run: bool,
}

/// The Python that this command runs in.
#[derive(Clone, Debug)]
pub struct Python {
    /// The `panda-breath` that was called; not always in the environment's own `bin`.
    pub command: PathBuf,
    /// Its environment: `sys.prefix`.
    pub prefix: PathBuf,
    /// The folder with the module and the compiled half of it.
    pub site: PathBuf,
}

/// The rest of the world, as it is or as a test has it.
#[derive(Debug)]
struct Here {
    python: Option<Python>,
    home: PathBuf,
    proc: Option<PathBuf>,
    /// All users' homes, for a root who has no Klipper.
    homes: PathBuf,
    passwd: PathBuf,
}

impl Here {
    fn real(python: Option<Python>) -> Self {
        Self {
            python,
            home: std::env::var_os("HOME").map_or_else(|| "/root".into(), PathBuf::from),
            proc: Some("/proc".into()),
            homes: "/home".into(),
            passwd: "/etc/passwd".into(),
        }
    }
}

pub(super) fn run(arguments: &Arguments, python: Option<Python>) -> io::Result<()> {
    let stdin = io::stdin();
    let (mut lines, mut out) = (stdin.lock(), io::stdout());
    let mut talk = Talk::new(&mut lines, &mut out, arguments.manner.yes);
    install(arguments, &Here::real(python), &mut talk)
}

/// What will be said at the end.
#[derive(Debug, Default)]
struct Report {
    notes: Vec<String>,
    moonraker: bool,
    /// The unit of the guard service was written, or is to be offered.
    unit: bool,
    guard: bool,
}

fn install(arguments: &Arguments, here: &Here, talk: &mut Talk<'_>) -> io::Result<()> {
    arguments.device.check()?;
    let python = here.python.as_ref().ok_or_else(|| {
        failed("this has to be run as the panda-breath of Klipper's Python environment")
    })?;
    if arguments.print_guard_unit {
        let unit = extras::guard_unit(here, python, &arguments.place)?;
        return talk.say(unit.trim_end());
    }
    let (instance, _) = find(&arguments.place, here)?;
    check_python(&instance, python)?;
    talk.say(&format!(
        "Klipper      {}\nprinter.cfg  {}\nPython       {}",
        instance.klipper.display(),
        instance.printer_cfg.display(),
        python.prefix.display()
    ))?;

    let mut plan = Plan::default();
    let mut report = Report::default();
    let module = place_module(&mut plan, &instance.klipper)?;
    let printer_cfg = writable_link(&instance.printer_cfg, CONFIG)?;
    let community = match module {
        Before::Community => true,
        Before::CommunityAside => community::has_its_sections(&printer_cfg)?,
        Before::Other => false,
    };
    configure(
        arguments,
        &printer_cfg,
        community,
        &mut plan,
        &mut report,
        talk,
    )?;
    extras::update_manager(arguments, &instance, python, &mut plan, &mut report)?;
    extras::guard_service(
        arguments,
        &instance,
        here,
        python,
        &mut plan,
        &mut report,
        talk,
    )?;

    for note in &report.notes {
        talk.say(&format!("note: {note}"))?;
    }
    if plan.is_empty() {
        talk.say("Everything is in place already: nothing to do.")?;
        return if report.guard {
            extras::say_guard(talk, python)
        } else {
            Ok(())
        };
    }
    if proceed(&plan, arguments.manner, talk)? {
        // It is done, whether or not somebody listens still.
        let _ = say_next(&instance, python, &report, talk);
    }
    Ok(())
}

/// Shows the plan, asks, and does it; `false` where it was not done.
fn proceed(plan: &Plan, manner: Manner, talk: &mut Talk<'_>) -> io::Result<bool> {
    plan.check()?;
    if manner.dry_run {
        plan.show(talk.out)?;
        talk.say("Nothing was changed (--dry-run).")?;
        return Ok(false);
    }
    if talk.asks() {
        plan.show(talk.out)?;
        if !talk.yes("Do this?", true)? {
            talk.say("Nothing was changed.")?;
            return Ok(false);
        }
    }
    plan.check()?; // an answer can take its time
    plan.carry_out(talk.out)?;
    Ok(true)
}

fn say_next(
    instance: &Instance,
    python: &Python,
    report: &Report,
    talk: &mut Talk<'_>,
) -> io::Result<()> {
    talk.say(&format!("\nNext: {}", restart(instance)))?;
    if report.moonraker {
        talk.say("      sudo systemctl restart moonraker")?;
    }
    if report.unit {
        let enable = "systemctl enable --now panda-breath-guard";
        talk.say(&format!("      systemctl daemon-reload && {enable}"))?;
    }
    talk.say(&format!(
        "Then SET_HEATER_TEMPERATURE HEATER=panda_breath TARGET=45 heats. To undo all this:\n      \
         {} uninstall",
        command(python)
    ))?;
    if report.guard {
        extras::say_guard(talk, python)?;
    }
    Ok(())
}

/// How to restart Klipper.
fn restart(instance: &Instance) -> String {
    let how = match &instance.service {
        Some(service) => format!("sudo systemctl restart {service}"),
        None => "restart the Klipper service, or the computer".to_owned(),
    };
    format!("{how}\n      (when nothing prints; RESTART in the console is not enough)")
}

/// This command, with its path.
fn command(python: &Python) -> String {
    python.command.display().to_string()
}

// Where Klipper is

/// The Klipper that is meant, and where it was looked for.
fn find(place: &Place, here: &Here) -> io::Result<(Instance, Machine)> {
    let mut homes = vec![place.home.clone().unwrap_or_else(|| here.home.clone())];
    if let Some(home) = place.klipper_dir.as_deref().and_then(Path::parent) {
        homes.push(home.to_owned());
    }
    let mut machine = Machine {
        homes,
        units: place.systemd_dir.clone(),
        proc: here.proc.clone(),
    };
    let mut found = machine.instances();
    if found.is_empty() && place.home.is_none() && rustix::process::geteuid().is_root() {
        machine.homes = fs::read_dir(&here.homes)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        found = machine.instances();
    }
    if found.is_empty() && place.home.is_none() {
        machine.homes.clear(); // as where the vendor keeps it in /usr
        found = machine.instances();
    }
    if let (Some(klipper), Some(printer_cfg)) = (&place.klipper_dir, &place.printer_cfg) {
        let known = found
            .into_iter()
            .find(|one| same(&one.printer_cfg, printer_cfg));
        found = vec![Instance {
            klipper: klipper.clone(),
            printer_cfg: printer_cfg.clone(),
            ..known.unwrap_or_default()
        }];
    } else {
        let (klipper, printer_cfg) = (&place.klipper_dir, &place.printer_cfg);
        found.retain(|one| klipper.as_ref().is_none_or(|path| same(&one.klipper, path)));
        found.retain(|one| {
            printer_cfg
                .as_ref()
                .is_none_or(|path| same(&one.printer_cfg, path))
        });
    }
    let mut instance = choose(found, place.instance.as_deref())?;
    if let Some(folder) = &place.klippy_env {
        instance.python = Some(folder.join("bin/python"));
    }
    if !is_klipper(&instance.klipper) {
        return Err(failed(format!(
            "{}: no Klipper and no Kalico; it would hold klippy/klippy.py",
            instance.klipper.display()
        )));
    }
    if !instance.printer_cfg.is_file() {
        return Err(failed(format!(
            "{}: there is no such file",
            instance.printer_cfg.display()
        )));
    }
    // The checkout by its own name, so that links to it are one place.
    instance.klipper = fs::canonicalize(&instance.klipper).map_err(in_file(&instance.klipper))?;
    instance.printer_cfg = std::path::absolute(&instance.printer_cfg)?;
    Ok((instance, machine))
}

fn same(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

/// The one that is meant.
fn choose(found: Vec<Instance>, name: Option<&str>) -> io::Result<Instance> {
    let listed: Vec<String> = found
        .iter()
        .map(|one| {
            format!(
                "\n  --instance {}   {}",
                one.name,
                one.printer_cfg.display()
            )
        })
        .collect();
    let listed = listed.concat();
    let Some(name) = name else {
        let mut found = found.into_iter();
        return match (found.next(), found.next()) {
            (Some(only), None) => Ok(only),
            (Some(_), Some(_)) => Err(failed(format!(
                "there are several Klippers here; say which one:{listed}"
            ))),
            (None, _) => Err(failed(
                "no Klipper was found; say where it is: --klipper-dir DIR --printer-cfg FILE, or \
                 --home DIR for another user's home",
            )),
        };
    };
    let wanted = found.into_iter().find(|one| {
        let data = one.config_folder().parent().and_then(Path::file_name);
        let data = data.unwrap_or_default().to_string_lossy();
        one.name == name || data == name || data.trim_end_matches("_data") == name
    });
    wanted.ok_or_else(|| {
        failed(format!(
            "there is no Klipper '{name}' here{}{listed}",
            if listed.is_empty() {
                ""
            } else {
                "; there are:"
            }
        ))
    })
}

/// Klipper must find the wheel: it has to be in the environment that Klipper runs in.
fn check_python(instance: &Instance, python: &Python) -> io::Result<()> {
    let Some(klippys) = &instance.python else {
        return Err(failed(format!(
            "it is not known which Python runs the Klipper of {}; say it with --klippy-env DIR",
            instance.printer_cfg.display()
        )));
    };
    let prefix = klippys
        .parent()
        .and_then(Path::parent)
        .unwrap_or(Path::new("/"));
    if same(prefix, &python.prefix) {
        return Ok(());
    }
    let wheel = extras::came_from(python).unwrap_or_else(|| "panda-breath".to_owned());
    Err(failed(format!(
        "Klipper runs in {}, but this is the panda-breath of {}, which Klipper cannot load. Run\n  \
         {} -m pip install {wheel}\n  {} install\nNothing was changed",
        prefix.display(),
        python.prefix.display(),
        klippys.display(),
        prefix.join("bin/panda-breath").display()
    )))
}

// The module

/// Where Klipper looks for foreign modules.
fn module_folder(klipper: &Path) -> PathBuf {
    let plugins = klipper.join("klippy/plugins");
    if plugins.is_dir() {
        plugins
    } else {
        klipper.join("klippy/extras")
    }
}

/// What was in the place of our module.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Before {
    Community,
    /// The community's, but an earlier run has put it aside: for another printer, or it was broken
    /// off.
    CommunityAside,
    Other,
}

/// Puts our module in place.
fn place_module(plan: &mut Plan, klipper: &Path) -> io::Result<Before> {
    let target = module_folder(klipper).join(MODULE);
    // Kalico takes the same name in both of its folders for an error.
    let mut places = vec![target.clone(), klipper.join("klippy/extras").join(MODULE)];
    places.dedup();
    let mut before = Before::Other;
    let mut unseen = vec![target.clone()];
    for path in &places {
        let package = path.with_extension("");
        if package.is_dir() {
            return Err(failed(format!(
                "{}: a folder that is not known here, and Klipper would load it; move it away",
                package.display()
            )));
        }
        let aside = backup_of(path);
        let is_aside = fs::symlink_metadata(&aside).is_ok();
        let module = if fs::symlink_metadata(path).is_ok() {
            Some(module_at(path, plan)?)
        } else {
            None
        };
        let what = match module {
            None => None,
            Some(Module::Shim) if *path == target => None,
            Some(Module::Unknown) => {
                return Err(failed(format!(
                    "{}: neither this module nor the known community module; move it away, and \
                     run this again",
                    path.display()
                )));
            }
            Some(Module::Community) => Some("the community module"),
            Some(Module::Shim | Module::Copy) => Some("the copy of this module"),
        };
        let Some(what) = what else {
            if is_aside {
                if before == Before::Other && module_at(&aside, plan)? == Module::Community {
                    before = Before::CommunityAside;
                }
                unseen.push(aside);
            }
            continue;
        };
        if is_aside {
            return Err(failed(format!(
                "{} is in the way; move it away",
                aside.display()
            )));
        }
        if module == Some(Module::Community) {
            before = Before::Community;
        }
        plan.rename(path, &aside, what);
        unseen.push(aside);
    }
    plan.write(&target, SHIM.to_owned(), "loads the module from the wheel")?;
    git::exclude(plan, klipper, &unseen)?;
    Ok(before)
}

fn module_at(path: &Path, plan: &Plan) -> io::Result<Module> {
    let text = plan.text(path)?;
    // Without a text it is a link to a checkout that has gone.
    Ok(text.map_or(Module::Community, |text| community::module(&text)))
}

/// The file itself, where this is a link; refused if it is in somebody's repository, which would
/// see the change as theirs.
fn writable_link(path: &Path, include: &str) -> io::Result<PathBuf> {
    let real = fs::canonicalize(path).map_err(in_file(path))?;
    let link = fs::symlink_metadata(path).is_ok_and(|data| data.is_symlink());
    if let Some(repository) = git::work_tree(&real).filter(|_| link) {
        return Err(failed(format!(
            "{} is a link to {}, which belongs to the git repository {}. Replace the link by a \
             file with [include {include}] and [include {}] in it, or write the section by hand \
             (docs/install.md). Nothing was changed",
            path.display(),
            real.display(),
            repository.display(),
            real.display()
        )));
    }
    Ok(real)
}

fn failed(text: impl Into<String>) -> io::Error {
    io::Error::other(text.into())
}

/// Puts the file's name before what is wrong with it.
fn in_file(path: &Path) -> impl Fn(io::Error) -> io::Error {
    let path = path.display().to_string();
    move |error| io::Error::new(error.kind(), format!("{path}: {}", bare(&error)))
}

/// The error in words, without the number that Rust puts after them.
fn bare(error: &dyn Display) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_lowercase()
}
