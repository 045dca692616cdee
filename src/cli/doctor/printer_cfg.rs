//! Reads printer.cfg as Klipper does: comments, continued lines, `[include]` with wildcards, the
//! block that `SAVE_CONFIG` writes, and the order of sections. Only reads; values stay texts.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// How Klipper's own block at the end of the file begins.
const AUTOSAVE: &str = "#*# <---------------------- SAVE_CONFIG ---------------------->";
/// No configuration is larger.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// All sections, in Klipper's order: where each stands first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Config {
    /// The sections.
    pub(super) sections: Vec<Section>,
    /// What Klipper would stop at.
    pub(super) errors: Vec<String>,
}

/// A section.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Section {
    /// Its name, without brackets.
    pub(super) name: String,
    /// Where it stands first: `FILE:LINE`.
    pub(super) spot: String,
    options: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    name: String,
    value: String,
    autosaved: bool,
}

impl Section {
    /// An option's value, without spaces around it.
    pub(super) fn get(&self, option: &str) -> Option<&str> {
        let found = self.options.iter().find(|entry| entry.name == option);
        found.map(|entry| entry.value.trim())
    }

    /// Whether a person has written it, not `SAVE_CONFIG`.
    pub(super) fn has_by_hand(&self, option: &str) -> bool {
        let mut entries = self.options.iter();
        entries.any(|entry| entry.name == option && !entry.autosaved)
    }

    /// The names of its options.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.options.iter().map(|entry| entry.name.as_str())
    }

    /// All values.
    pub(super) fn values(&self) -> impl Iterator<Item = &str> {
        self.options.iter().map(|entry| entry.value.as_str())
    }
}

impl Config {
    /// Reads the file and all that it includes. The error is that the file itself cannot be read.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let data = text(path)?;
        let mut config = Self::default();
        let (regular, autosaved) = match data.split_once(&format!("\n{AUTOSAVE}")) {
            Some((regular, block)) => (regular, Some(block)),
            None => (data.as_str(), None),
        };
        config.take(regular, path, &mut Vec::new());
        if let Some(block) = autosaved {
            let lines = block.lines().map(|line| {
                let line = line.strip_prefix("#*#").unwrap_or_default();
                line.strip_prefix(' ').unwrap_or(line)
            });
            let mut reader = Reader::new(&mut config, path, true);
            // Its first lines are for people.
            for line in lines.skip_while(|line| !line.starts_with('[')) {
                reader.line(line, 0);
            }
        }
        Ok(config)
    }

    /// A section by its name.
    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Where a section is in Klipper's order.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.sections
            .iter()
            .position(|section| section.name == name)
    }

    fn take(&mut self, data: &str, path: &Path, within: &mut Vec<PathBuf>) {
        let own = absolute(path);
        if within.contains(&own) {
            let path = path.display();
            self.errors.push(format!("{path} includes itself"));
            return;
        }
        within.push(own);
        let mut lines = (1..).zip(data.lines());
        loop {
            // Klipper reads the lines between two includes as a text of its own.
            let mut reader = Reader::new(self, path, false);
            let included = lines.by_ref().find_map(|(number, line)| {
                let line = line.split('#').next().unwrap_or_default();
                let header = line
                    .strip_prefix('[')
                    .and_then(|rest| rest.rsplit_once(']'));
                let include = header.and_then(|(header, _)| header.strip_prefix("include "));
                if include.is_none() {
                    reader.line(line, number);
                }
                include.map(|spec| (number, spec.trim().to_owned()))
            });
            let Some((number, spec)) = included else {
                break;
            };
            let folder = path.parent().unwrap_or(Path::new(""));
            let files = glob(&folder.join(&spec));
            if files.is_empty() && !is_pattern(&spec) {
                let path = path.display();
                self.errors
                    .push(format!("{path}:{number}: there is no file '{spec}'"));
            }
            for file in files {
                match text(&file) {
                    Ok(data) => self.take(&data, &file, within),
                    Err(why) => self.errors.push(format!("{}: {why}", file.display())),
                }
            }
        }
        within.pop();
    }
}

fn text(path: &Path) -> Result<String, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    // Before it is opened: opening a pipe would wait for whoever writes to it.
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    if metadata.len() > MOST_BYTES {
        return Err("it is no configuration, but much larger".to_owned());
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"))
}

/// `a/../b` stays as it is for the system; only the beginning is filled in.
fn absolute(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

/// The option that further lines belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    None,
    /// One that a person has written elsewhere, which counts more.
    Ignored,
    At(usize),
}

/// Lines to sections, as Python's configparser does it for Klipper.
struct Reader<'a> {
    config: &'a mut Config,
    path: &'a Path,
    autosaved: bool,
    section: Option<usize>,
    option: Open,
    indent: usize,
}

impl<'a> Reader<'a> {
    fn new(config: &'a mut Config, path: &'a Path, autosaved: bool) -> Self {
        Self {
            config,
            path,
            autosaved,
            section: None,
            option: Open::None,
            indent: 0,
        }
    }

    fn line(&mut self, line: &str, number: usize) {
        let line = without_comment(line);
        let value = line.trim();
        let indent = line.len() - line.trim_start().len();
        if value.is_empty() {
            return self.more("");
        }
        if self.option != Open::None && indent > self.indent {
            return self.more(value);
        }
        self.indent = indent;
        let path = self.path.display();
        let header = value
            .strip_prefix('[')
            .and_then(|rest| rest.rsplit_once(']'));
        if let Some((name, _)) = header.filter(|(name, _)| !name.is_empty()) {
            self.option = Open::None;
            let known = self.config.position(name);
            self.section = Some(known.unwrap_or_else(|| {
                self.config.sections.push(Section {
                    name: name.to_owned(),
                    spot: format!("{path}:{number}"),
                    options: Vec::new(),
                });
                self.config.sections.len() - 1
            }));
            return;
        }
        let Some(section) = self.section else {
            let error = format!("{path}:{number}: '{value}' stands in no section");
            return self.config.errors.push(error);
        };
        let Some((name, value)) = value.split_once(['=', ':']) else {
            let error = format!("{path}:{number}: '{value}' has no ':'");
            return self.config.errors.push(error);
        };
        let options = &mut self.config.sections[section].options;
        let entry = Entry {
            name: name.trim().to_lowercase(),
            value: value.trim().to_owned(),
            autosaved: self.autosaved,
        };
        let known = options.iter().position(|known| known.name == entry.name);
        self.option = match known {
            // What a person wrote counts more than what SAVE_CONFIG did.
            Some(_) if self.autosaved => Open::Ignored,
            Some(at) => {
                options[at] = entry;
                Open::At(at)
            }
            None => {
                options.push(entry);
                Open::At(options.len() - 1)
            }
        };
    }

    fn more(&mut self, line: &str) {
        if let (Some(section), Open::At(option)) = (self.section, self.option) {
            let value = &mut self.config.sections[section].options[option].value;
            value.push('\n');
            value.push_str(line);
        }
    }
}

fn without_comment(line: &str) -> &str {
    let line = line.split('#').next().unwrap_or_default();
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if c == ';' && before.is_whitespace() {
            return &line[..at];
        }
        before = c;
    }
    line
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// The files that a pattern stands for, in order.
fn glob(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let text = part.as_os_str().to_string_lossy();
        let is_wild = matches!(part, Component::Normal(_)) && is_pattern(&text);
        let step = |path: PathBuf| {
            if !is_wild {
                return vec![path.join(part)];
            }
            let folder = if path.as_os_str().is_empty() {
                Path::new(".")
            } else {
                &path
            };
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let fits = |name: &String| {
                // As in a shell, those that begin with a dot are hidden.
                let is_hidden = name.starts_with('.') && !text.starts_with('.');
                !is_hidden && fits(&text, name)
            };
            names
                .filter(fits)
                .map(|name| path.join(name))
                .collect::<Vec<_>>()
        };
        found = found.into_iter().flat_map(step).collect();
    }
    found.retain(|path| path.exists());
    found.sort();
    found
}

/// Whether a name fits a pattern with `*`, `?` and `[…]`.
fn fits(pattern: &str, name: &str) -> bool {
    let Some(first) = pattern.chars().next() else {
        return name.is_empty();
    };
    let rest = &pattern[first.len_utf8()..];
    if first == '*' {
        let mut ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
        return ends.any(|at| fits(rest, &name[at..]));
    }
    let Some(c) = name.chars().next() else {
        return false;
    };
    let others = &name[c.len_utf8()..];
    if first == '[' {
        // A `]` right at the beginning is one of the set.
        let from = rest.chars().take(1).map(char::len_utf8).sum::<usize>();
        if let Some(end) = rest.get(from..).and_then(|tail| tail.find(']')) {
            let set = &rest[..from + end];
            return is_in(set, c) && fits(&rest[from + end + 1..], others);
        }
    }
    (first == '?' || first == c) && fits(rest, others)
}

fn is_in(set: &str, c: char) -> bool {
    let (not, set) = match set.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, set),
    };
    let set: Vec<char> = set.chars().collect();
    let mut found = false;
    let mut at = 0;
    while at < set.len() {
        if at + 2 < set.len() && set[at + 1] == '-' {
            found |= (set[at]..=set[at + 2]).contains(&c);
            at += 3;
        } else {
            found |= set[at] == c;
            at += 1;
        }
    }
    found != not
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let name = format!("panda-cfg-{}-{name}", std::process::id());
            let folder = Self(std::env::temp_dir().join(name));
            for (file, text) in files {
                let path = folder.0.join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            folder
        }

        fn read(&self) -> Config {
            Config::read(&self.0.join("printer.cfg")).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn names(config: &Config) -> Vec<&str> {
        let sections = config.sections.iter();
        sections.map(|section| section.name.as_str()).collect()
    }

    #[test]
    fn lines_are_read_as_klipper_reads_them() {
        let folder = Folder::new(
            "lines",
            &[(
                "printer.cfg",
                "[panda_breath] # here\r\nHost = PandaBreath.local ; there\n\
                 url: http://x;y\n# a comment\n[gcode_macro A]\ngcode:\n  G28 ; home\n\n  M104 S0\n\
                 [panda_breath]\nport: 81\nport: 82\n",
            )],
        );
        let config = folder.read();
        assert_eq!(names(&config), ["panda_breath", "gcode_macro A"]);
        let section = config.section("panda_breath").unwrap();
        assert_eq!(section.get("host"), Some("PandaBreath.local"));
        assert_eq!(section.get("url"), Some("http://x;y"));
        assert_eq!(section.get("port"), Some("82"), "the last word counts");
        let macros = config.section("gcode_macro A").unwrap();
        assert_eq!(macros.get("gcode"), Some("G28\n\nM104 S0"));
        assert!(section.spot.ends_with("printer.cfg:1"), "{}", section.spot);
        assert_eq!(config.errors, [""; 0]);
    }

    #[test]
    fn includes_stand_where_they_are_in_the_order_of_their_names() {
        let folder = Folder::new(
            "includes",
            &[
                (
                    "printer.cfg",
                    "[a]\n[include parts/*.cfg]\n[b]\n[include one.cfg]\n[include none/*.cfg]\n",
                ),
                ("parts/2.cfg", "[two]\n"),
                ("parts/1.cfg", "[one]\nx: 1\n[include ../one.cfg]\n"),
                ("parts/.hidden.cfg", "[hidden]\n"),
                ("parts/3.txt", "[three]\n"),
                ("one.cfg", "[a]\ny: 2\n[last]\n"),
            ],
        );
        let config = folder.read();
        assert_eq!(names(&config), ["a", "one", "last", "two", "b"]);
        assert_eq!(config.section("a").unwrap().get("y"), Some("2"));
        assert_eq!(config.errors, [""; 0]);
    }

    #[test]
    fn what_klipper_would_stop_at_is_named_with_its_line() {
        let folder = Folder::new(
            "errors",
            &[
                (
                    "printer.cfg",
                    "x: 1\n[include gone.cfg]\ny: 2\n[a]\nnonsense\n[include self.cfg]\n",
                ),
                ("self.cfg", "[include self.cfg]\n"),
            ],
        );
        let errors = folder.read().errors.join("\n");
        for part in [
            "printer.cfg:1: 'x: 1' stands in no section",
            "printer.cfg:2: there is no file 'gone.cfg'",
            "printer.cfg:3: 'y: 2' stands in no section",
            "printer.cfg:5: 'nonsense' has no ':'",
            "self.cfg includes itself",
        ] {
            assert!(errors.contains(part), "{part}: {errors}");
        }
        assert!(Config::read(&folder.0).is_err(), "a folder");
        assert!(Config::read(&folder.0.join("none")).is_err());
    }

    #[test]
    fn what_save_config_wrote_counts_less_than_what_a_person_wrote() {
        let text = format!(
            "[heater_generic c]\ncontrol: watermark\n\n{AUTOSAVE}\n\
             #*# DO NOT EDIT THIS BLOCK OR BELOW. The contents are auto-generated.\n#*#\n\
             #*# [heater_generic c]\n#*# control = pid\n#*# pid_kp = 1\n"
        );
        let folder = Folder::new("autosave", &[("printer.cfg", &text)]);
        let config = folder.read();
        let section = config.section("heater_generic c").unwrap();
        assert_eq!(section.get("control"), Some("watermark"));
        assert_eq!(section.get("pid_kp"), Some("1"));
        assert!(section.has_by_hand("control") && !section.has_by_hand("pid_kp"));
    }

    #[test]
    fn wildcards_are_those_of_a_shell() {
        for (pattern, name, does) in [
            ("*.cfg", "a.cfg", true),
            ("*.cfg", "a.cfg.bak", false),
            ("?.cfg", "ab.cfg", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]x", "]x", true),
            ("[", "[", true),
            ("a*b*c", "axxbyyc", true),
            ("ä*", "äö", true),
        ] {
            assert_eq!(fits(pattern, name), does, "{pattern} {name}");
        }
    }
}
