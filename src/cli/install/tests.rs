//! Whole installations in folders that look like a user's home.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use clap::Parser;

use super::ask::Talk;
use super::uninstall::uninstall;
use super::*;

mod besides;
mod edits;
mod layouts;
mod predecessor;
mod refusals;

#[derive(Debug, Parser)]
enum Command {
    Install(Arguments),
    Uninstall(UninstallArguments),
}

const PRINTER_CFG: &str = "\
# My printer
[include mainsail.cfg]
[mcu]
serial: /dev/ttyACM0

[printer]
kinematics: none
max_velocity: 300
max_accel: 3000

#*# <---------------------- SAVE_CONFIG ---------------------->
#*# DO NOT EDIT THIS BLOCK OR BELOW. The contents are auto-generated.
#*#
#*# [extruder]
#*# control = pid
";
const INCLUDE: &str = "[include panda_breath.cfg] # panda-breath: added\n";
const INCLUDE_MACROS: &str = "[include panda_breath_macros.cfg] # panda-breath: added\n";
const COMMUNITY: &str = "class PandaBreath:\n    def __init__(self, config):\n        \
    ppins.register_chip('panda_breath', self)\n";

/// A home folder with everything around it, gone at the end.
struct Home {
    root: PathBuf,
}

impl Home {
    /// As `MainsailOS` and KIAUH make one, with no service yet.
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("panda-breath-install-{}-{number}", std::process::id());
        let home = Self {
            root: fs::canonicalize(std::env::temp_dir()).unwrap().join(name),
        };
        home.put("pi/klipper/klippy/klippy.py", "");
        home.put("pi/klipper/klippy/extras/heaters.py", "");
        home.put(
            "pi/klipper/.git/info/exclude",
            "# git ls-files --others\n*~",
        );
        home.put("pi/klipper/.gitignore", "out\n*.pyc\n");
        home.put("pi/klippy-env/bin/python", "");
        home.put("pi/klippy-env/bin/activate", "");
        home.put("pi/printer_data/config/printer.cfg", PRINTER_CFG);
        home.put(
            "pi/printer_data/config/mainsail.cfg",
            "[virtual_sdcard]\npath: ~/gcodes\n",
        );
        home.put(
            "pi/printer_data/config/moonraker.conf",
            "[server]\nport: 7125\n",
        );
        home.put(
            "systemd/sshd.service",
            "[Service]\nExecStart=/usr/sbin/sshd -D\n",
        );
        home.put(
            "passwd",
            "root:x:0:0::/root:/bin/sh\npi:x:1000:1000::/home/pi:/bin/sh\n",
        );
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn get(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn remove(&self, name: &str) {
        fs::remove_dir_all(self.path(name)).unwrap();
    }

    /// A service as KIAUH writes it.
    fn service(&self, name: &str, data: &str) {
        let root = self.root.display();
        self.put(
            &format!("pi/{data}/systemd/klipper.env"),
            &format!(
                "KLIPPER_ARGS=\"{root}/pi/klipper/klippy/klippy.py \
                 {root}/pi/{data}/config/printer.cfg -l {root}/pi/{data}/logs/klippy.log\"\n"
            ),
        );
        self.put(
            &format!("systemd/{name}.service"),
            &format!(
                "[Service]\nUser=pi\nEnvironmentFile={root}/pi/{data}/systemd/klipper.env\n\
                 ExecStart={root}/pi/klippy-env/bin/python $KLIPPER_ARGS\n"
            ),
        );
    }

    fn here(&self) -> Here {
        Here {
            python: Some(Python {
                command: self.path("pi/klippy-env/bin/panda-breath"),
                prefix: self.path("pi/klippy-env"),
                site: self.path("pi/klippy-env/lib/python3/site-packages"),
            }),
            home: self.path("pi"),
            proc: Some(self.path("proc")),
            homes: self.path(""),
            passwd: self.path("passwd"),
        }
    }

    fn run_as(&self, here: &Here, line: &str, answers: Option<&str>) -> (io::Result<()>, String) {
        let units = self.path("systemd").display().to_string();
        let words = std::iter::once("panda-breath").chain(line.split_whitespace());
        let command = Command::try_parse_from(words.chain(["--systemd-dir", &units]));
        let mut out: Vec<u8> = Vec::new();
        let mut answers = answers.map(|text| io::Cursor::new(text.to_owned()));
        let answers = answers.as_mut().map(|text| text as &mut dyn BufRead);
        let mut talk = Talk::with(answers, &mut out);
        let result = match command.unwrap_or_else(|error| panic!("{line}: {error}")) {
            Command::Install(arguments) => install(&arguments, here, &mut talk),
            Command::Uninstall(arguments) => uninstall(&arguments, here, &mut talk),
        };
        (result, String::from_utf8(out).unwrap())
    }

    /// What the command says; it must succeed.
    fn run(&self, line: &str) -> String {
        let (result, said) = self.run_as(&self.here(), line, None);
        result.unwrap_or_else(|error| panic!("{line}: {error}\n{said}"));
        said
    }

    /// Why the command refuses; nothing may have changed.
    fn refusal(&self, line: &str) -> String {
        let before = self.tree();
        let (result, said) = self.run_as(&self.here(), line, None);
        let error = result.expect_err(&said).to_string();
        assert_same(&before, &self.tree());
        error
    }

    fn tree(&self) -> BTreeMap<PathBuf, String> {
        let mut tree = BTreeMap::new();
        look(&self.root, &mut tree);
        tree
    }

    /// Install and uninstall with these options; everything must be as before.
    fn there_and_back(&self, line: &str, place: &str) -> String {
        let before = self.tree();
        let would = self.run(&format!("install {line} {place} --dry-run"));
        assert!(would.contains("  would write"), "{would}");
        assert_same(&before, &self.tree());
        let did = self.run(&format!("install {line} {place}"));
        let after = self.tree();
        assert!(after.len() > before.len());
        let again = self.run(&format!("install {line} {place}"));
        assert!(again.contains("nothing to do"), "{again}");
        assert_same(&after, &self.tree());
        let would = self.run(&format!("uninstall {place} --dry-run"));
        assert!(would.contains("  would remove"), "{would}");
        assert_same(&after, &self.tree());
        self.run(&format!("uninstall {place}"));
        assert_same(&before, &self.tree());
        let again = self.run(&format!("uninstall {place}"));
        assert!(again.contains("nothing to do"), "{again}");
        assert_same(&before, &self.tree());
        did
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Everything in a folder: kind, mode, owner and contents of each.
fn look(folder: &Path, tree: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let data = fs::symlink_metadata(&path).unwrap();
        let what = if data.is_dir() {
            look(&path, tree);
            "folder".to_owned()
        } else if data.is_symlink() {
            format!("link to {}", fs::read_link(&path).unwrap().display())
        } else {
            String::from_utf8(fs::read(&path).unwrap()).unwrap()
        };
        let about = format!("{:o} {} {} {what}", data.mode(), data.uid(), data.gid());
        tree.insert(path, about);
    }
}

fn assert_same(one: &BTreeMap<PathBuf, String>, other: &BTreeMap<PathBuf, String>) {
    for (path, what) in one {
        assert_eq!(Some(what), other.get(path), "{}", path.display());
    }
    for path in other.keys() {
        assert!(one.contains_key(path), "{} was left behind", path.display());
    }
}
