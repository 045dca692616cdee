//! What is known about each firmware version, and whose word that is.

use super::finding::{Findings, Level};
use crate::dialect::Firmware;

/// Something that users of a version should know.
struct Known {
    /// From this version on.
    from: Version,
    /// Up to this one.
    to: Version,
    level: Level,
    text: &'static str,
    source: &'static str,
}

/// `1.0.3` as three numbers. 0.0.0 calls itself `V1.0.0`.
type Version = (u16, u16, u16);

const PRE: Version = (1, 0, 0);
const FIRST: Version = (1, 0, 1);
const NEWEST: Version = (1, 0, 4);

const ISSUES: &str = "https://github.com/bigtreetech/Panda_Breath/issues/";

/// Sources: `/N` is an issue at BIQU's; a path is a page of this project.
const TABLE: [Known; 9] = [
    Known {
        from: PRE,
        to: PRE,
        level: Level::Warning,
        text: "a pre-release (0.0.0): it checks neither its sensors nor its heater; a broken \
               sensor reads 10 or 125 C and is believed",
        source: "docs/protocol.md",
    },
    Known {
        from: PRE,
        to: (1, 0, 3),
        level: Level::Ok,
        text: "does not tell other clients of a change, and its snapshot shows the Wi-Fi password \
               to everybody on the network",
        source: "docs/protocol.md",
    },
    Known {
        from: PRE,
        to: NEWEST,
        level: Level::Ok,
        text: "heats on when Klipper, the network or the printer's computer is gone: keep the \
               guard",
        source: "docs/safety.md",
    },
    Known {
        from: FIRST,
        to: FIRST,
        level: Level::Ok,
        text: "does not notice a heater that stays cold below 15 C; 1.0.2 and later do",
        source: "docs/protocol.md",
    },
    Known {
        from: FIRST,
        to: NEWEST,
        level: Level::Ok,
        text: "stops with \"PTC Heater Abnormality\" in rooms below 15 C, or with swapped sensors",
        source: "/5",
    },
    Known {
        from: (1, 0, 3),
        to: (1, 0, 3),
        level: Level::Ok,
        text: "some report that it turns itself off at random in a print",
        source: "/29",
    },
    Known {
        from: NEWEST,
        to: NEWEST,
        level: Level::Ok,
        text: "binding it to a broker fails for some; what it says over MQTT is other people's \
               word, not read in the firmware",
        source: "/27",
    },
    Known {
        from: PRE,
        to: NEWEST,
        level: Level::Ok,
        text: "the fan stops and heat pauses every 20 s or so when the element reaches 105 C: \
               that is its limit, and normal at high targets",
        source: "/19",
    },
    Known {
        from: PRE,
        to: NEWEST,
        level: Level::Ok,
        text: "some lose Wi-Fi in prints of about 21 h; what happens then is in docs/safety.md",
        source: "/9",
    },
];

/// Says which firmware it is, and what is known about it.
pub(super) fn check(firmware: &Firmware, said: &mut Findings) {
    let spelled = firmware.as_str();
    let Some(version) = version(spelled) else {
        said.warning(
            "firmware",
            format!("firmware '{spelled}', which is not known to this program"),
            "it may work all the same; tell the project's issue tracker",
        );
        return;
    };
    let known = TABLE
        .iter()
        .filter(|known| (known.from..=known.to).contains(&version));
    let known: Vec<&Known> = known.collect();
    let level = known.iter().map(|known| known.level).max();
    let finding = if version > NEWEST {
        let finding = said.add(
            Level::Warning,
            "firmware",
            format!("firmware {spelled} is newer than this program knows"),
        );
        finding.remedy("upgrade panda-breath; watch the first print");
        finding
    } else {
        said.add(
            level.unwrap_or(Level::Ok),
            "firmware",
            format!("firmware {spelled}"),
        )
    };
    finding.notes = known.iter().map(|known| known.note()).collect();
    if version == PRE {
        finding.remedy("update it on its own web page, to 1.0.3 or later");
    }
}

/// The same for a device that only says that it speaks MQTT.
pub(super) fn over_mqtt(said: &mut Findings) {
    let known = TABLE.iter().filter(|known| known.to == NEWEST);
    let notes = known.map(Known::note).collect();
    said.ok("firmware", "BIQU's, over MQTT: 1.0.4 or later")
        .notes = notes;
}

impl Known {
    fn note(&self) -> String {
        let source = match self.source.strip_prefix('/') {
            Some(number) => format!("{ISSUES}{number}"),
            None => self.source.to_owned(),
        };
        format!("{} ({source})", self.text)
    }
}

fn version(text: &str) -> Option<Version> {
    let mut numbers = text.trim_start_matches(['V', 'v']).split('.');
    let mut next = || numbers.next()?.parse().ok();
    let version = (next()?, next()?, next()?);
    next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(firmware: &str) -> super::super::Finding {
        let mut said = Findings::default();
        check(&Firmware::new(firmware), &mut said);
        said.list.remove(0)
    }

    #[test]
    fn every_version_has_what_is_known_about_it_with_a_source() {
        for (firmware, level, part) in [
            ("V1.0.0", Level::Warning, "pre-release"),
            ("V1.0.1", Level::Ok, "stays cold"),
            ("V1.0.2", Level::Ok, "Abnormality"),
            ("V1.0.3", Level::Ok, "issues/29"),
            ("V1.0.4", Level::Ok, "issues/27"),
        ] {
            let said = said(firmware);
            assert_eq!(said.level, level, "{firmware}");
            assert!(
                said.notes.iter().any(|note| note.contains(part)),
                "{firmware}"
            );
            for note in &said.notes {
                assert!(note.contains("http") || note.contains("docs/"), "{note}");
            }
        }
        assert!(!said("V1.0.2").notes.iter().any(|note| note.contains("/29")));
        assert!(said("V1.0.0").remedy.is_some());
        assert_eq!(said("V1.0.3").remedy, None);
    }

    #[test]
    fn a_version_that_nobody_knows_is_a_warning() {
        for firmware in ["V1.0.5", "V2.0.0", "banana", "", "V1.0", "V1.0.3.1"] {
            let said = said(firmware);
            assert_eq!(said.level, Level::Warning, "{firmware}");
            assert!(said.remedy.is_some(), "{firmware}");
        }
    }
}
