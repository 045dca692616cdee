//! This computer: the Klipper that runs on it, what is installed for it, and the clock.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::finding::Findings;
use crate::cli::klippy::{Instance, Machine};

/// This program was not written before, so it cannot be earlier: 2026-11-01.
const WRITTEN: Duration = Duration::from_secs(1_793_491_200);
/// A Python that has not answered by then has other troubles.
const PATIENCE: Duration = Duration::from_secs(10);
/// Ticks per second in /proc, on every Linux.
const TICKS: u64 = 100;
/// A file that is copied while Klipper starts is no reason for alarm.
const SLACK: Duration = Duration::from_secs(60);

/// What Klipper's Python knows of us.
const ASK: &str = r"
import importlib.util
try:
    import panda_breath_native as n
    print(n.INTERFACE, n.__version__, n.__file__)
except Exception as e:
    print('none', type(e).__name__, str(e)[:200].replace('\n', ' '))
s = importlib.util.find_spec('panda_breath')
print(s.origin if s else '')
";

fn started(proc: &Path, pid: u32) -> Option<SystemTime> {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    // Its name, in brackets, may have spaces.
    let fields = stat.rsplit_once(')')?.1;
    let ticks: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let system = fs::read_to_string(proc.join("stat")).ok()?;
    let boot = system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?;
    let boot = Duration::from_secs(boot.trim().parse().ok()?);
    Some(UNIX_EPOCH + boot + Duration::from_secs(ticks / TICKS))
}

/// Where Klipper is, and with which Python it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) python: Option<PathBuf>,
    /// Its folder `klippy`.
    pub(super) folder: Option<PathBuf>,
    /// Its process, if it runs.
    pub(super) pid: Option<u32>,
    /// The user named the Python, or root did in a unit.
    is_vouched: bool,
    started: Option<SystemTime>,
}

/// As the user says, else the Klipper that has this configuration, else the first.
pub(super) fn find(machine: &Machine, config: Option<&Path>, python: Option<&Path>) -> Place {
    let mut found = klippers(machine);
    let has = |one: &Instance| config.is_none_or(|config| one.has(config));
    let one = match found.iter().position(has) {
        Some(at) => found.swap_remove(at),
        // It runs with another configuration, if at all.
        None => Instance {
            pid: None,
            ..found.into_iter().next().unwrap_or_default()
        },
    };
    let klippy = one.klipper.join("klippy");
    let proc = machine.proc.as_deref();
    let is_root = rustix::process::geteuid().is_root();
    Place {
        is_vouched: python.is_some() || one.service.is_some() && !is_root,
        python: python.map(Path::to_path_buf).or(one.python),
        folder: klippy.exists().then_some(klippy),
        pid: one.pid,
        started: proc.zip(one.pid).and_then(|(proc, pid)| started(proc, pid)),
    }
}

/// Those of this computer; who runs comes first, and of these who has run for longest.
pub(super) fn klippers(machine: &Machine) -> Vec<Instance> {
    let mut found = machine.everywhere();
    found.sort_by_key(|one| one.pid.unwrap_or(u32::MAX));
    found
}

/// What is installed for Klipper.
pub(super) fn check(place: &Place, said: &mut Findings) {
    let Some(python) = &place.python else {
        said.ok(
            "klipper",
            "none was found on this computer; what is installed was not looked at",
        )
        .remedy("where Klipper runs elsewhere, run the doctor there; or --klippy-python FILE");
        return;
    };
    let shown = python.display();
    match place.pid {
        Some(pid) => said.ok("klipper", format!("runs as process {pid}, with {shown}")),
        None => said.ok(
            "klipper",
            format!("does not run now; its Python is {shown}"),
        ),
    };
    let user = if place.is_vouched {
        Ok(None)
    } else {
        user_for(&owners(python), rustix::process::geteuid().as_raw())
    };
    let user = match user {
        Ok(user) => user,
        Err(why) => {
            said.problem(
                "wheel",
                format!("{shown} was not run, because {why}"),
                "run the doctor as the user who runs Klipper; or, if you trust it, --klippy-python \
                 FILE",
            );
            return;
        }
    };
    let answer = match ask(python, user) {
        Ok(answer) => answer,
        Err(why) => {
            said.problem(
                "wheel",
                format!("{shown} does not work: {why}"),
                "--klippy-python names the Python of Klipper, such as ~/klippy-env/bin/python",
            );
            return;
        }
    };
    let mut lines = answer.lines();
    let wheel = lines.next().unwrap_or_default().to_owned();
    let module = lines.next().map(str::trim).filter(|line| !line.is_empty());
    let pip = format!("{shown} -m pip install --upgrade panda-breath");
    let mut words = wheel.splitn(3, ' ');
    let interface: Option<u32> = words.next().and_then(|word| word.parse().ok());
    let Some(interface) = interface else {
        let why = wheel
            .strip_prefix("none ")
            .unwrap_or("no answer")
            .to_owned();
        said.problem(
            "wheel",
            format!("panda-breath is not installed for this Klipper ({why})"),
            format!("run: {pip}"),
        );
        return;
    };
    let version = words.next().unwrap_or_default();
    let file = words.next().map(|path| PathBuf::from(path.trim()));
    let own = env!("CARGO_PKG_VERSION");
    if version == own {
        said.ok(
            "wheel",
            format!("panda-breath {version}, interface {interface}"),
        );
    } else {
        said.warning(
            "wheel",
            format!("Klipper has panda-breath {version}, but this command is of {own}"),
            format!("run: {pip}"),
        );
    }
    module_file(place, module.map(Path::new), interface, said);
    restart(place, file.as_deref(), said);
}

/// Who but root could have put something else in the place of this file: user and group each.
fn owners(path: &Path) -> BTreeMap<u32, u32> {
    let real = fs::canonicalize(path).unwrap_or_default();
    let path = std::path::absolute(path).unwrap_or_default();
    let places = path.ancestors().chain(real.ancestors());
    let owners = places.filter_map(|place| fs::symlink_metadata(place).ok());
    owners
        .map(|data| (data.uid(), data.gid()))
        .filter(|(user, _)| *user != 0)
        .collect()
}

/// As whom to run a program with such owners: as ourselves, or root as that user; an error where it
/// would do with our rights what a stranger wants.
fn user_for(owners: &BTreeMap<u32, u32>, own: u32) -> Result<Option<(u32, u32)>, String> {
    let mut others = owners.iter().filter(|(user, _)| **user != own);
    match (others.next(), others.next()) {
        (None, _) => Ok(None),
        (Some((user, group)), None) if own == 0 => Ok(Some((*user, *group))),
        (Some((user, _)), None) => Err(format!("it belongs to another user, number {user}")),
        (Some((one, _)), Some((other, _))) => {
            Err(format!("it belongs to other users, {one} and {other}"))
        }
    }
}

/// Asks a Python, and does not wait for ever.
fn ask(python: &Path, user: Option<(u32, u32)>) -> Result<String, String> {
    // Not resolved: a link to an interpreter is what makes a virtual environment.
    let python = std::path::absolute(python).map_err(|error| error.to_string())?;
    let mut command = Command::new(python);
    if let Some((user, group)) = user {
        // Other groups go with it, and what is in root's environment is no business of theirs.
        command.uid(user).gid(group).env_clear();
    }
    let mut child = command
        .args(["-c", ASK])
        .current_dir("/") // nothing is imported from where the user is by chance
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let out = child.stdout.take();
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = out.map(|out| out.take(64 * 1024).read_to_end(&mut text));
        let _ = read.map(|_| send.send(String::from_utf8_lossy(&text).into_owned()));
    });
    let answer = receive.recv_timeout(PATIENCE);
    let _ = child.kill();
    let _ = child.wait();
    match answer {
        Ok(text) if !text.trim().is_empty() => Ok(text),
        Ok(_) => Err("it is no Python that works".to_owned()),
        Err(_) => Err("no answer".to_owned()),
    }
}

/// The half that Klipper loads: ours, ours at second hand, or the community module's.
fn module_file(place: &Place, module: Option<&Path>, wheel: u32, said: &mut Findings) {
    let Some(folder) = &place.folder else {
        return;
    };
    let candidates = ["extras", "plugins"].map(|sub| folder.join(sub).join("panda_breath.py"));
    let found: Vec<&PathBuf> = candidates.iter().filter(|path| path.exists()).collect();
    if let [first, second] = found[..] {
        said.problem(
            "module",
            format!("there are {} and {}", first.display(), second.display()),
            "remove one of them: Kalico does not start with both",
        );
    }
    let Some(path) = found.first() else {
        said.problem(
            "module",
            format!("there is no panda_breath.py in {}/extras", folder.display()),
            "run 'panda-breath install', or copy panda_breath.py there",
        );
        return;
    };
    let shown = path.display();
    let text = fs::read(path).unwrap_or_default();
    let mut text = String::from_utf8_lossy(&text).into_owned();
    let follows = text.contains("from panda_breath import");
    if follows {
        let Some(module) = module else {
            said.problem(
                "module",
                format!("{shown} refers to the wheel, which has no panda_breath.py"),
                "install the wheel again",
            );
            return;
        };
        text = String::from_utf8_lossy(&fs::read(module).unwrap_or_default()).into_owned();
    }
    match interface_of(&text) {
        None => said.problem(
            "module",
            format!("{shown} is not this project's module, but perhaps the community's"),
            "run 'panda-breath install', which keeps it beside the new one",
        ),
        Some(own) if own != wheel => said.problem(
            "interface",
            format!("{shown} has interface {own}, the wheel {wheel}"),
            if own > wheel {
                "upgrade the wheel, then restart the Klipper service (RESTART is not enough)"
            } else {
                "copy the newer panda_breath.py there, then restart the Klipper service (RESTART \
                 is not enough)"
            },
        ),
        Some(_) => {
            said.ok("module", format!("{shown}"));
        }
    }
}

fn interface_of(module: &str) -> Option<u32> {
    let line = module
        .lines()
        .find_map(|line| line.strip_prefix("INTERFACE = "))?;
    let digits = line.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Modules stay in Klipper's process until it ends, whatever RESTART does.
fn restart(place: &Place, wheel: Option<&Path>, said: &mut Findings) {
    let written = wheel.and_then(|path| fs::metadata(path.parent()?).ok()?.modified().ok());
    if let (Some(started), Some(written)) = (place.started, written) {
        if written > started + SLACK {
            said.warning(
                "restart",
                "Klipper has been running since before panda-breath was installed or upgraded",
                "restart the service: sudo systemctl restart klipper (RESTART is not enough)",
            );
        }
    }
}

/// The time of day: certificates need it, and so does whoever reads a log.
pub(super) fn clock(now: SystemTime, has_tls: bool, said: &mut Findings) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    if since >= WRITTEN {
        said.ok("clock", "the date can be right");
        return;
    }
    let text = "this computer's date is before this program was written";
    let remedy = "it needs the network for its time: timedatectl";
    if has_tls {
        said.problem(
            "clock",
            format!("{text}; no certificate is valid then"),
            remedy,
        );
    } else {
        said.warning("clock", text, remedy);
    }
}

#[cfg(test)]
mod tests;
