//! Where Klipper is: its checkout, its printer.cfg, its Python, its service.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::failed;

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
}

impl Instance {
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
    /// Every Klipper that can be found, each once: by services, by processes, by folders.
    pub(super) fn instances(&self) -> Vec<Instance> {
        let mut found: Vec<Instance> = Vec::new();
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let sources = [self.by_service(), self.by_process(), self.by_folder()];
        for instance in sources.into_iter().flatten() {
            let file = real(&instance.printer_cfg);
            let same = |other: &Instance| real(&other.printer_cfg) == file;
            let anywhere = self.homes.is_empty();
            let at_home = self.homes.iter().any(|home| file.starts_with(real(home)));
            match found.iter_mut().find(|other| same(other)) {
                Some(other) if other.python.is_none() => other.python = instance.python,
                None if at_home || anywhere => found.push(instance),
                Some(_) | None => {}
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
            if let Some(mut instance) = from_command(&words) {
                let name = path.file_stem().unwrap_or_default();
                instance.name = name.to_string_lossy().into_owned();
                instance.service = Some(instance.name.clone());
                instance.user = value("User");
                found.push(instance);
            }
        }
        found
    }

    fn by_process(&self) -> Vec<Instance> {
        let Some(proc) = &self.proc else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for folder in sorted(proc) {
            let Ok(line) = fs::read(folder.join("cmdline")) else {
                continue;
            };
            let line = String::from_utf8_lossy(&line);
            let words: Vec<String> = line.split('\0').map(str::to_owned).collect();
            found.extend(from_command(&words));
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

/// What a command line that starts klippy says.
pub(super) fn from_command(words: &[String]) -> Option<Instance> {
    let at = words
        .iter()
        .position(|word| word.ends_with("/klippy/klippy.py"))?;
    let klippy = Path::new(&words[at]);
    let printer_cfg = words[at + 1..].iter().find(|word| {
        let extension = Path::new(word).extension();
        extension.is_some_and(|extension| extension == "cfg")
    })?;
    let python = words[..at].iter().rev().find(|word| !word.starts_with('-'));
    let python = python.map(|word| PathBuf::from(word.trim_start_matches(['-', '@', ':', '+'])));
    Some(Instance {
        klipper: klippy.parent()?.parent()?.to_owned(),
        printer_cfg: printer_cfg.into(),
        python: python.filter(|python| python.is_absolute()),
        ..Instance::default()
    })
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

/// The one that is meant.
pub(super) fn choose(found: Vec<Instance>, name: Option<&str>) -> io::Result<Instance> {
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
