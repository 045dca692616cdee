use std::os::unix::fs::{PermissionsExt, symlink};

use super::super::finding::Level;
use super::*;

/// A computer with a Klipper on it.
struct Host(PathBuf);

impl Host {
    fn new(name: &str) -> Self {
        let name = format!("panda-host-{}-{name}", std::process::id());
        let host = Self(std::env::temp_dir().join(name));
        host.write("proc/stat", "cpu 1\nbtime 1700000000\n");
        host.write("proc/net/tcp", "");
        host.write("home/printer.cfg", "");
        host.write("home/klipper/klippy/klippy.py", "");
        host.module("INTERFACE = 3  # the wheel's\n");
        host.python(concat!("3 ", env!("CARGO_PKG_VERSION")), "");
        host.run(42, &host.path("home/printer.cfg"), 100);
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn module(&self, text: &str) {
        self.write("home/klipper/klippy/extras/panda_breath.py", text);
    }

    /// A Python that answers like this; the wheel was written in 1970 + this.
    fn python(&self, wheel: &str, module: &str) {
        let native = self.path("wheel/native.so");
        self.write("wheel/native.so", "");
        let text = format!(
            "#!/bin/sh\necho '{wheel} {}'\necho '{module}'\n",
            native.display()
        );
        self.write("home/klippy-env/bin/python", &text);
        let python = self.path("home/klippy-env/bin/python");
        fs::set_permissions(python, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Klipper, started so many seconds after the boot.
    fn run(&self, pid: u32, config: &Path, after: u64) {
        let script = self.path("home/klipper/klippy/klippy.py");
        let python = self.path("home/klippy-env/bin/python");
        let (python, script) = (python.display(), script.display());
        let line = format!(
            "{python}\0{script}\0-l\0/l.log\0{}\0-a\0/s\0",
            config.display()
        );
        self.write(&format!("proc/{pid}/cmdline"), &line);
        let zeros = "0 ".repeat(18);
        let stat = format!("{pid} (a (b) c) S {zeros}{} 0\n", after * TICKS);
        self.write(&format!("proc/{pid}/stat"), &stat);
        let _ = symlink(&self.0, self.path(&format!("proc/{pid}/cwd")));
    }

    fn machine(&self) -> Machine {
        Machine {
            homes: vec![self.path("home")],
            units: self.path("systemd"),
            proc: Some(self.path("proc")),
        }
    }

    fn place(&self) -> Place {
        find(&self.machine(), None, None)
    }

    /// What is not well.
    fn said(&self) -> Vec<(&'static str, Level, String)> {
        let mut said = Findings::about("host");
        check(&self.place(), &mut said);
        let bad = said.list.into_iter().filter(|one| one.level != Level::Ok);
        bad.map(|one| {
            assert!(one.remedy.is_some());
            (one.check, one.level, one.text)
        })
        .collect()
    }

    #[track_caller]
    fn says(&self, check: &str, level: Level, part: &str) {
        let said = self.said();
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!((said[0].0, said[0].1), (check, level), "{said:?}");
        assert!(said[0].2.contains(part), "{said:?}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Starts long after everything that these tests write.
const LATE: u64 = 10_000_000_000 - 1_700_000_000;

fn well(name: &str) -> Host {
    let host = Host::new(name);
    host.run(42, &host.path("home/printer.cfg"), LATE);
    host
}

#[test]
fn a_klipper_that_runs_is_found_with_its_python_and_its_configuration() {
    let host = Host::new("runs");
    let place = host.place();
    assert_eq!(place.pid, Some(42));
    assert_eq!(place.folder, Some(host.path("home/klipper/klippy")));
    assert_eq!(place.python, Some(host.path("home/klippy-env/bin/python")));
    let started = UNIX_EPOCH + Duration::from_secs(1_700_000_100);
    assert_eq!(place.started, Some(started));
    // Of two, the one with this configuration, relative to where it was started.
    host.run(141, Path::new("home/other.cfg"), 100);
    assert_eq!(host.place().pid, Some(42), "the first");
    let find = |machine: &Machine, config: &str| find(machine, Some(&host.path(config)), None);
    let mut machine = host.machine();
    assert_eq!(find(&machine, "home/other.cfg").pid, Some(141));
    let another = find(&machine, "home/third.cfg");
    assert_eq!(another.pid, None);
    assert_eq!(another.folder, place.folder);
    // Without one that runs: where it usually is.
    machine.proc = None;
    let found = find(&machine, "home/printer.cfg");
    assert_eq!((found.pid, found.started), (None, None));
    assert_eq!((found.python, found.folder), (place.python, place.folder));
}

#[test]
fn a_klipper_that_is_a_service_is_found_although_it_does_not_run() {
    let host = Host::new("service");
    fs::remove_dir_all(host.path("proc")).unwrap();
    let line = |path: &str| host.path(path).display().to_string();
    host.write("opt/klipper/klippy/klippy.py", "");
    let unit = format!(
        "[Service]\nExecStart={} {} -l /l.log {}\n",
        line("opt/env/bin/python"),
        line("opt/klipper/klippy/klippy.py"),
        line("opt/printer.cfg")
    );
    host.write("systemd/klipper.service", &unit);
    let found = find(&host.machine(), Some(&host.path("opt/printer.cfg")), None);
    assert_eq!(found.python, Some(host.path("opt/env/bin/python")));
    assert_eq!(found.folder, Some(host.path("opt/klipper/klippy")));
    assert_eq!(found.pid, None);
}

#[test]
fn nothing_is_said_where_all_is_well() {
    let host = well("well");
    assert_eq!(host.said(), []);
    let module = host.path("wheel/panda_breath.py");
    host.write("wheel/panda_breath.py", "INTERFACE = 3\n");
    host.module("from panda_breath import *\n");
    host.python(
        concat!("3 ", env!("CARGO_PKG_VERSION")),
        &module.display().to_string(),
    );
    assert_eq!(host.said(), []);
}

#[test]
fn a_computer_without_klipper_is_no_problem() {
    let mut said = Findings::about("host");
    check(&Place::default(), &mut said);
    assert_eq!((said.list.len(), said.list[0].level), (1, Level::Ok));
}

#[test]
fn a_missing_wheel_is_a_problem() {
    let host = well("wheel");
    host.python("none ModuleNotFoundError No module named x", "");
    host.says("wheel", Level::Problem, "is not installed");
}

#[test]
fn a_python_that_does_not_work_is_a_problem() {
    let host = well("python");
    host.write("home/klippy-env/bin/python", "#!/bin/sh\nexit 1\n");
    host.says("wheel", Level::Problem, "does not work");
    fs::remove_file(host.path("home/klippy-env/bin/python")).unwrap();
    host.says("wheel", Level::Problem, "does not work");
}

#[test]
fn a_wheel_of_another_version_is_a_warning() {
    let host = well("version");
    host.python("3 0.0.0", "");
    host.says("wheel", Level::Warning, "0.0.0");
}

#[test]
fn interfaces_that_differ_are_a_problem() {
    let host = well("interface");
    host.module("INTERFACE = 4\n");
    host.says("interface", Level::Problem, "has interface 4, the wheel 3");
    host.module("INTERFACE = 2\n");
    host.says("interface", Level::Problem, "has interface 2, the wheel 3");
}

#[test]
fn a_missing_module_is_a_problem_and_so_are_two() {
    let host = well("module");
    host.write(
        "home/klipper/klippy/plugins/panda_breath.py",
        "INTERFACE = 3\n",
    );
    host.says("module", Level::Problem, "there are");
    fs::remove_file(host.path("home/klipper/klippy/extras/panda_breath.py")).unwrap();
    assert_eq!(host.said(), [], "Kalico's place");
    fs::remove_file(host.path("home/klipper/klippy/plugins/panda_breath.py")).unwrap();
    host.says("module", Level::Problem, "there is no panda_breath.py");
}

#[test]
fn the_community_module_is_a_problem() {
    let host = well("community");
    host.module("class PandaBreath: pass\n");
    host.says("module", Level::Problem, "perhaps the community's");
    host.module("from panda_breath import *\n");
    host.says("module", Level::Problem, "refers to the wheel");
}

#[test]
fn a_klipper_that_started_before_the_wheel_came_is_a_warning() {
    let host = Host::new("restart");
    host.says("restart", Level::Warning, "since before");
    // Both in one go, as when it is installed.
    let written = fs::metadata(host.path("wheel"))
        .unwrap()
        .modified()
        .unwrap();
    let written = written.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let config = host.path("home/printer.cfg");
    host.run(42, &config, written - 1_700_000_000 - SLACK.as_secs() / 2);
    assert_eq!(host.said(), []);
}

#[test]
fn a_date_that_cannot_be_right_is_said() {
    let judge = |seconds, has_tls| {
        let mut said = Findings::default();
        clock(
            UNIX_EPOCH + Duration::from_secs(seconds),
            has_tls,
            &mut said,
        );
        said.list[0].level
    };
    assert_eq!(judge(0, false), Level::Warning);
    assert_eq!(judge(1_700_000_000, true), Level::Problem);
    assert_eq!(judge(1_800_000_000, true), Level::Ok);
}

#[test]
fn a_strangers_python_is_not_run_with_our_rights() {
    let owners = |list: &[u32]| list.iter().map(|user| (*user, *user)).collect();
    assert_eq!(user_for(&owners(&[]), 1000), Ok(None));
    assert_eq!(user_for(&owners(&[1000]), 1000), Ok(None));
    assert_eq!(user_for(&owners(&[]), 0), Ok(None));
    assert_eq!(user_for(&owners(&[1000]), 0), Ok(Some((1000, 1000))));
    for (list, own) in [
        (&[1001][..], 1000),
        (&[1000, 1001], 1000),
        (&[1000, 1001], 0),
    ] {
        let why = user_for(&owners(list), own).unwrap_err();
        assert!(why.contains("1001"), "{why}");
    }
}

#[test]
fn root_asks_a_python_as_the_user_it_belongs_to() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let host = well("owner");
    let python = host.path("home/klippy-env/bin/python");
    let text = fs::read_to_string(&python).unwrap();
    let note = host.path("note");
    fs::write(&note, "").unwrap();
    fs::set_permissions(&note, fs::Permissions::from_mode(0o666)).unwrap();
    let spy = format!("#!/bin/sh\n(id -u; id -G; env) >{}\n", note.display());
    fs::write(&python, text.replace("#!/bin/sh\n", &spy)).unwrap();
    // An environment of another user's, although the program in it is root's.
    std::os::unix::fs::chown(host.path("home/klippy-env"), Some(1234), Some(1235)).unwrap();
    assert_eq!(host.said(), []);
    let who = fs::read_to_string(&note).unwrap();
    assert!(who.starts_with("1234\n1235\n"), "{who}");
    assert!(!who.contains("CARGO"), "{who}");
    std::os::unix::fs::chown(host.path("home"), Some(1236), None).unwrap();
    fs::write(&note, "").unwrap();
    host.says(
        "wheel",
        Level::Problem,
        "was not run, because it belongs to",
    );
    assert_eq!(fs::read_to_string(&note).unwrap(), "");
    let named = find(&host.machine(), None, Some(&python));
    let mut said = Findings::about("host");
    check(&named, &mut said);
    assert_ne!(fs::read_to_string(&note).unwrap(), "");
}
