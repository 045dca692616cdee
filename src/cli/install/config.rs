//! Klipper's configuration, as far as an installer has to read it: which sections there are, in
//! which file, and what is in them. Files are followed as Klipper follows `[include]`.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::failed;
use super::marks::{self, Stamp};
use super::plan::Plan;

/// A section, and the lines of its file that it takes up.
#[derive(Clone, Debug)]
pub(super) struct Section {
    /// As written, with one space between words.
    pub(super) name: String,
    pub(super) file: PathBuf,
    /// From its header to the line before the next one's.
    pub(super) lines: Range<usize>,
    /// In order; each with its value's first line.
    pub(super) options: Vec<(String, String)>,
}

impl Section {
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        let found = self.options.iter().find(|(option, _)| option == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Where it is, for people.
    pub(super) fn place(&self) -> String {
        format!(
            "[{}] in {}, line {}",
            self.name,
            self.file.display(),
            self.lines.start + 1
        )
    }
}

/// Everything that Klipper reads.
#[derive(Debug, Default)]
pub(super) struct Config {
    /// In the order in which they are read; each once.
    pub(super) files: Vec<PathBuf>,
    /// In order.
    pub(super) sections: Vec<Section>,
    /// Where a file is included: the file, the line, and whom it names.
    pub(super) includes: Vec<(PathBuf, usize, PathBuf)>,
}

impl Config {
    /// Read printer.cfg and what it includes, as they will be after the plan.
    pub(super) fn read(printer_cfg: &Path, plan: &Plan) -> io::Result<Self> {
        let mut config = Self::default();
        config.take(printer_cfg, plan, &mut Vec::new())?;
        Ok(config)
    }

    pub(super) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Section> {
        self.sections
            .iter()
            .filter(move |section| section.name.eq_ignore_ascii_case(name))
    }

    /// A section of ours in there: `[panda_breath]` or `[panda_breath NAME]`.
    pub(super) fn device(&self) -> Option<&Section> {
        self.sections
            .iter()
            .find(|section| section.name.split(' ').next() == Some("panda_breath"))
    }

    /// Whether anything in there came from `install`.
    pub(super) fn has_marks(&self, plan: &Plan) -> bool {
        self.files.iter().any(|file| is_marked(file, plan))
    }

    /// The name of the heater that uses the device.
    pub(super) fn heater(&self) -> &str {
        self.own_heater(false).unwrap_or_else(|| self.short_name())
    }

    /// The name of the one that dries filament, and whether it is there: `dryer: True`.
    pub(super) fn dryer(&self) -> (String, bool) {
        let dryer = self.device().and_then(|section| section.option("dryer"));
        let is_there = dryer.is_some_and(|value| {
            ["1", "yes", "true", "on"].contains(&value.to_ascii_lowercase().as_str())
        });
        let made = || format!("{}_dryer", self.short_name());
        let name = self.own_heater(true).map_or_else(made, str::to_owned);
        (name, is_there)
    }

    fn short_name(&self) -> &str {
        let device = self
            .device()
            .and_then(|section| section.name.rsplit(' ').next());
        device.unwrap_or("panda_breath")
    }

    /// A section that the user has written for one of the device's heaters.
    fn own_heater(&self, dries: bool) -> Option<&str> {
        let device = self
            .device()
            .map_or("panda_breath", |section| &section.name);
        let heater = self.sections.iter().find(|section| {
            let pin = section.option("heater_pin");
            let pin = pin.and_then(|pin| pin.rsplit_once(':'));
            pin.is_some_and(|(chip, pin)| chip.trim() == device && (pin.trim() == "dry") == dries)
        });
        heater?.name.rsplit(' ').next()
    }

    fn take(&mut self, file: &Path, plan: &Plan, above: &mut Vec<PathBuf>) -> io::Result<()> {
        let Some(text) = plan.text(file)? else {
            return Err(failed(format!("{}: there is no such file", file.display())));
        };
        if above.iter().any(|other| other == file) {
            return Err(failed(format!("{}: it includes itself", file.display())));
        }
        above.push(file.to_owned());
        if !self.files.iter().any(|other| other == file) {
            self.files.push(file.to_owned());
        }
        let mut open: Option<Section> = None;
        for (number, line) in text.split('\n').enumerate() {
            let line = line.split('#').next().unwrap_or("").trim_end();
            if let Some(header) = header(line) {
                self.sections.extend(open.take());
                if let Some(name) = header.strip_prefix("include ") {
                    for other in included(file, name.trim(), plan) {
                        self.includes.push((file.to_owned(), number, other.clone()));
                        // Klipper itself will say so at its start; here it is not our business.
                        if plan.text(&other)?.is_some() {
                            self.take(&other, plan, above)?;
                        }
                    }
                    continue;
                }
                open = Some(Section {
                    name: header.split_whitespace().collect::<Vec<_>>().join(" "),
                    file: file.to_owned(),
                    lines: number..number + 1,
                    options: Vec::new(),
                });
            } else if let Some(section) = &mut open {
                section.lines.end = number + 1;
                let goes_on = line.starts_with([' ', '\t', ';']);
                if let Some(at) = line.find([':', '=']).filter(|_| !goes_on) {
                    let value = line[at + 1..].split(" ;").next().unwrap_or("").trim();
                    let name = line[..at].trim().to_lowercase();
                    section.options.push((name, value.to_owned()));
                }
            }
        }
        self.sections.extend(open);
        above.pop();
        Ok(())
    }
}

/// Whether anything in this file came from `install`.
pub(super) fn is_marked(file: &Path, plan: &Plan) -> bool {
    let text = plan.text(file).ok().flatten();
    text.is_some_and(|text| {
        marks::stamp(&text) != Stamp::Foreign
            || marks::undone(&text).map_or(true, |bare| bare != text)
    })
}

/// What stands in the brackets, if the line begins a section.
pub(super) fn header(line: &str) -> Option<&str> {
    let (inside, _) = line.strip_prefix('[')?.rsplit_once(']')?;
    (!inside.is_empty()).then_some(inside)
}

/// The files that an include names, in order.
fn included(from: &Path, name: &str, plan: &Plan) -> Vec<PathBuf> {
    let folder = from.parent().unwrap_or(Path::new("/"));
    let mut found = vec![if name.starts_with('/') {
        PathBuf::from("/")
    } else {
        folder.to_owned()
    }];
    for part in name.split('/').filter(|part| !part.is_empty()) {
        if part.contains(['*', '?', '[']) {
            found = found
                .iter()
                .flat_map(|folder| matching(folder, part))
                .collect();
        } else {
            for path in &mut found {
                path.push(part);
            }
        }
    }
    // Links are followed, so that each file has one name here.
    found
        .into_iter()
        .map(|path| fs::canonicalize(&path).unwrap_or(path))
        .filter(|path| !name.contains(['*', '?', '[']) || matches!(plan.text(path), Ok(Some(_))))
        .collect()
}

fn matching(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let hidden = name.starts_with('.') && !pattern.starts_with('.');
            !hidden && matches_pattern(&name, pattern)
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// As in a shell: `*`, `?` and `[...]`.
fn matches_pattern(name: &str, pattern: &str) -> bool {
    let Some(first) = pattern.chars().next() else {
        return name.is_empty();
    };
    let (next, rest) = (name.chars().next(), &pattern[first.len_utf8()..]);
    let tail = |name: &str| name.chars().next().map_or(0, char::len_utf8);
    match (first, next) {
        ('*', _) => {
            matches_pattern(name, rest)
                || next.is_some() && matches_pattern(&name[tail(name)..], pattern)
        }
        (_, None) => false,
        ('?', Some(_)) => matches_pattern(&name[tail(name)..], rest),
        ('[', Some(next)) if rest.contains(']') => {
            let (set, rest) = rest.split_once(']').unwrap_or((rest, ""));
            let (not, set) = set
                .strip_prefix('!')
                .map_or((false, set), |set| (true, set));
            let set: Vec<char> = set.chars().collect();
            let mut inside = set.contains(&next);
            for range in set.windows(3).filter(|range| range[1] == '-') {
                inside |= range[0] <= next && next <= range[2];
            }
            inside != not && matches_pattern(&name[tail(name)..], rest)
        }
        (first, Some(next)) => first == next && matches_pattern(&name[tail(name)..], rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_a_shell() {
        for (name, pattern, matches) in [
            ("a.cfg", "*.cfg", true),
            ("a.cfg.before", "*.cfg", false),
            ("ä.cfg", "?.cfg", true),
            ("b1", "b[0-9]", true),
            ("bx", "b[!0-9]", true),
            ("b1", "b[!0-9]", false),
            ("", "*", true),
            ("", "?", false),
        ] {
            assert_eq!(matches_pattern(name, pattern), matches, "{name} {pattern}");
        }
    }

    #[test]
    fn a_header_is_what_klipper_takes_for_one() {
        assert_eq!(header("[heater_generic x]"), Some("heater_generic x"));
        assert_eq!(header(" [x]"), None);
        assert_eq!(header("[x"), None);
        assert_eq!(header("[]"), None);
    }
}
