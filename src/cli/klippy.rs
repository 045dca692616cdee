//! Where Klipper is: its checkout, its printer.cfg, its Python, its service, its process.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One Klipper, as it is or would be started.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Instance {
    /// The name to choose it by, where there are several.
    pub(super) name: String,
    /// The checkout: it holds `klippy/klippy.py`.
    pub(super) klipper: PathBuf,
    pub(super) printer_cfg: PathBuf,
    /// The interpreter that runs it, where that is known.
    pub(super) python: Option<PathBuf>,
    /// Its systemd service.
    pub(super) service: Option<String>,
    /// The user who runs it.
    pub(super) user: Option<String>,
    /// Its process, if it runs.
    pub(super) pid: Option<u32>,
}

impl Instance {
    /// Whether it reads this file.
    pub(super) fn has(&self, printer_cfg: &Path) -> bool {
        self.printer_cfg == printer_cfg || real(&self.printer_cfg) == real(printer_cfg)
    }

    pub(super) fn config_folder(&self) -> &Path {
        self.printer_cfg.parent().unwrap_or(Path::new("/"))
    }
}

/// Where to look.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// Only Klippers in here are found; with none, those of services and processes anywhere.
    pub(super) homes: Vec<PathBuf>,
    pub(super) units: PathBuf,
    pub(super) proc: Option<PathBuf>,
}

impl Machine {
    /// Every Klipper in the homes that can be found.
    pub(super) fn instances(&self) -> Vec<Instance> {
        let mut found = self.everywhere();
        if !self.homes.is_empty() {
            let homes: Vec<PathBuf> = self.homes.iter().map(|home| real(home)).collect();
            found.retain(|one| {
                let file = real(&one.printer_cfg);
                homes.iter().any(|home| file.starts_with(home))
            });
        }
        found
    }

    /// The homes' and others, each once: by services, by processes, by folders.
    pub(super) fn everywhere(&self) -> Vec<Instance> {
        self.found(is_trusted)
    }

    /// Anybody can start a process with any command line: one that is not trusted only tells the
    /// number by which a Klipper runs that is known without it.
    fn found(&self, is_trusted: impl Fn(&Path) -> bool) -> Vec<Instance> {
        let mut found: Vec<Instance> = Vec::new();
        let processes = self.by_process().into_iter();
        let (own, others): (Vec<_>, Vec<_>) = processes.partition(|(folder, _)| is_trusted(folder));
        let own = own.into_iter().map(|(_, instance)| instance).collect();
        let sources = [self.by_service(), own, self.by_folder()];
        for instance in sources.into_iter().flatten() {
            match found
                .iter_mut()
                .find(|other| other.has(&instance.printer_cfg))
            {
                Some(other) => {
                    other.python = other.python.take().or(instance.python);
                    other.pid = other.pid.or(instance.pid);
                }
                None => found.push(instance),
            }
        }
        for (_, process) in others {
            let mut known = found.iter_mut();
            if let Some(known) = known.find(|known| known.has(&process.printer_cfg)) {
                known.pid = known.pid.or(process.pid);
            }
        }
        name_apart(&mut found);
        found
    }

    fn by_service(&self) -> Vec<Instance> {
        let mut found = Vec::new();
        for path in sorted(&self.units) {
            if path
                .extension()
                .is_none_or(|extension| extension != "service")
            {
                continue;
            }
            let Ok(unit) = fs::read_to_string(&path) else {
                continue;
            };
            let value = |key: &str| {
                let line = unit.lines().find_map(|line| line.trim().strip_prefix(key));
                line.and_then(|rest| rest.trim_start().strip_prefix('='))
                    .map(|value| value.trim().to_owned())
            };
            let Some(mut command) = value("ExecStart") else {
                continue;
            };
            if let Some(file) = value("EnvironmentFile") {
                let file = fs::read_to_string(file.trim_start_matches('-')).unwrap_or_default();
                for line in file.lines() {
                    if let Some((name, text)) = line.split_once('=') {
                        let text = text.trim().trim_matches(['"', '\'']);
                        command = command
                            .replace(&format!("${{{}}}", name.trim()), text)
                            .replace(&format!("${}", name.trim()), text);
                    }
                }
            }
            let words: Vec<String> = command
                .split_whitespace()
                .map(|word| word.trim_matches(['"', '\'']).to_owned())
                .collect();
            if let Some(mut instance) = from_command(&words, Path::new("/")) {
                let name = path.file_stem().unwrap_or_default();
                instance.name = name.to_string_lossy().into_owned();
                instance.service = Some(instance.name.clone());
                instance.user = value("User");
                found.push(instance);
            }
        }
        found
    }

    /// Each with its folder in /proc.
    fn by_process(&self) -> Vec<(PathBuf, Instance)> {
        let Some(proc) = &self.proc else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for folder in sorted(proc) {
            let pid = folder
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            let (Some(pid), Ok(line)) = (pid, fs::read(folder.join("cmdline"))) else {
                continue;
            };
            let line = String::from_utf8_lossy(&line);
            let words: Vec<String> = line.split('\0').map(str::to_owned).collect();
            let here = fs::read_link(folder.join("cwd")).unwrap_or_default();
            if let Some(mut instance) = from_command(&words, &here) {
                instance.python = instance
                    .python
                    .or_else(|| fs::read_link(folder.join("exe")).ok());
                instance.pid = Some(pid);
                found.push((folder, instance));
            }
        }
        found
    }

    /// The layouts of `MainsailOS`, KIAUH, `OctoPrint`'s images and the Snapmaker U1.
    fn by_folder(&self) -> Vec<Instance> {
        let mut found = Vec::new();
        for home in &self.homes {
            let klipper = ["klipper", "kalico"]
                .into_iter()
                .map(|name| home.join(name))
                .find(|folder| is_klipper(folder));
            let Some(klipper) = klipper else {
                continue;
            };
            let python = ["klippy-env", "kalico-env", "klipper-env"]
                .into_iter()
                .map(|name| home.join(name).join("bin/python"))
                .find(|python| python.exists());
            let mut places = sorted(home);
            places.retain(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("printer") && name.ends_with("_data")
            });
            let places = places.into_iter().map(|data| data.join("config"));
            let older = [home.join("klipper_config"), home.clone()];
            let mut files: Vec<PathBuf> = places
                .map(|folder| folder.join("printer.cfg"))
                .filter(|file| file.is_file())
                .collect();
            if files.is_empty() {
                let older = older.map(|folder| folder.join("printer.cfg"));
                files.extend(older.into_iter().find(|file| file.is_file()));
            }
            found.extend(files.into_iter().map(|printer_cfg| Instance {
                klipper: klipper.clone(),
                printer_cfg,
                python: python.clone(),
                ..Instance::default()
            }));
        }
        found
    }
}

pub(super) fn is_klipper(folder: &Path) -> bool {
    folder.join("klippy/klippy.py").is_file()
}

/// What a command line that starts klippy says, run in this folder.
fn from_command(words: &[String], here: &Path) -> Option<Instance> {
    let is_script = |word: &String| Path::new(word).ends_with("klippy.py");
    let at = words.iter().position(is_script)?;
    let mut rest = words[at + 1..].iter();
    let printer_cfg = loop {
        let word = rest.next()?;
        if !word.starts_with('-') {
            // A service's variable that nobody has set names no file.
            break Some(word).filter(|word| !word.contains('$'))?;
        }
        // Its options with a value of their own word: -l LOG, -a SOCKET and so on.
        if word.len() == 2 && word != "-v" && word != "-h" {
            rest.next();
        }
    };
    // systemd has marks of its own before the path.
    let is_option = |word: &String| word.starts_with('-') && !word.starts_with("-/");
    let python = words[..at].iter().rev().find(|word| !is_option(word))?;
    let python = python.trim_start_matches(['-', '@', ':', '+', '!']);
    let folder = here.join(&words[at]).parent()?.to_owned();
    // An editor that has the file open is no Klipper.
    let is_python = Path::new(python).file_name()?.to_str()?.contains("py");
    if !is_python || !folder.ends_with("klippy") {
        return None;
    }
    Some(Instance {
        klipper: folder.parent()?.to_owned(),
        printer_cfg: here.join(printer_cfg),
        python: python.contains('/').then(|| here.join(python)),
        ..Instance::default()
    })
}

/// Whether a process is root's or our own.
fn is_trusted(process: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    fs::metadata(process).is_ok_and(|data| [0, own].contains(&data.uid()))
}

fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// Instances of the same name get one by which they can be told apart.
fn name_apart(found: &mut [Instance]) {
    for one in found {
        if one.name.is_empty() {
            let data = one.config_folder().parent().unwrap_or(Path::new("/"));
            let name = data.file_name().unwrap_or_default().to_string_lossy();
            let name = name.trim_end_matches("_data").to_owned();
            one.name = name;
        }
    }
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_process_adds_nothing_but_its_number() {
        let name = format!("panda-breath-klippy-{}", std::process::id());
        let root = std::env::temp_dir().join(name);
        let put = |name: &str, text: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("pi/klipper/klippy/klippy.py", "");
        put("pi/printer_data/config/printer.cfg", "");
        let at = root.display();
        for (pid, config) in [(7, "pi/printer_data/config/printer.cfg"), (8, "tmp/p.cfg")] {
            let line = format!("{at}/tmp/bin/python3\0{at}/tmp/klippy/klippy.py\0{at}/{config}\0");
            put(&format!("proc/{pid}/cmdline"), &line);
        }
        let machine = Machine {
            homes: vec![root.join("pi")],
            units: root.join("systemd"),
            proc: Some(root.join("proc")),
        };
        let found = machine.found(|_| false);
        assert_eq!(machine.found(|_| true).len(), 2);
        assert!(is_trusted(&root.join("proc/7")), "our own");
        if rustix::process::geteuid().is_root() {
            for pid in ["proc/7", "proc/8"] {
                std::os::unix::fs::chown(root.join(pid), Some(1234), None).unwrap();
            }
            assert_eq!(machine.everywhere(), found);
        }
        fs::remove_dir_all(&root).unwrap();
        let only = &found[..];
        assert_eq!(only.len(), 1, "{only:?}");
        assert_eq!((only[0].pid, &only[0].python), (Some(7), &None));
        assert_eq!(only[0].klipper, root.join("pi/klipper"));
    }

    /// Python, checkout and printer.cfg of a command line in /home/pi.
    fn read(line: &str) -> Option<[String; 3]> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let found = from_command(&words, Path::new("/home/pi"))?;
        let python = found.python.unwrap_or_default();
        Some([python, found.klipper, found.printer_cfg].map(|path| path.display().to_string()))
    }

    #[test]
    fn a_command_line_says_where_klipper_is() {
        for (line, python, klipper, file) in [
            (
                "/env/bin/python /k/klippy/klippy.py /c/p.cfg -l /l.log",
                "/env/bin/python",
                "/k",
                "/c/p.cfg",
            ),
            (
                "-/e/python -u /k/klippy/klippy.py -v -l /l.cfg -a /s p.cfg",
                "/e/python",
                "/k",
                "/home/pi/p.cfg",
            ),
            (
                "e/python3 klipper/klippy/klippy.py p.cfg",
                "/home/pi/e/python3",
                "/home/pi/klipper",
                "/home/pi/p.cfg",
            ),
            (
                "python3 /k/klippy/klippy.py printer",
                "",
                "/k",
                "/home/pi/printer",
            ),
        ] {
            let wanted = [python, klipper, file].map(str::to_owned);
            assert_eq!(read(line), Some(wanted), "{line}");
        }
        for line in [
            "/e/python /k/klippy/klippy.py",
            "/e/python /k/klippy/klippy.py $KLIPPER_ARGS",
            "/e/python /k/klippy/klippy.py -l /l.log",
            "/usr/bin/vim /k/klippy/klippy.py /c/p.cfg",
            "/e/python /elsewhere/klippy.py /c/p.cfg",
            "/k/klippy/klippy.py /c/p.cfg",
            "",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }
}
