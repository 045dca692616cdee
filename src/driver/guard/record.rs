//! What a guard did, in a file: the one who should have been told is dead.

use std::fs::{File, OpenOptions, rename};
use std::io::Write;
use std::path::PathBuf;

use rustix::time::{ClockId, clock_gettime};

/// A file larger than this becomes the old one (rule R6).
const LARGEST: u64 = 256 * 1024;

/// A log file, or nothing.
#[derive(Debug)]
pub(crate) struct Record {
    path: Option<PathBuf>,
    file: Option<File>,
    /// Also written to stderr, for a service whose journal is somebody else's work.
    aloud: bool,
}

impl Record {
    pub(crate) fn file(path: Option<PathBuf>) -> Self {
        let mut record = Self {
            path,
            file: None,
            aloud: false,
        };
        record.open();
        record
    }

    pub(crate) fn aloud() -> Self {
        Self {
            path: None,
            file: None,
            aloud: true,
        }
    }

    fn open(&mut self) {
        let Some(path) = &self.path else { return };
        self.file = OpenOptions::new().create(true).append(true).open(path).ok();
        let length = self.file.as_ref().and_then(|file| file.metadata().ok());
        if length.is_some_and(|meta| meta.len() > LARGEST) {
            let mut old = path.clone().into_os_string();
            old.push(".1");
            let _ = rename(path, old);
            self.file = OpenOptions::new().create(true).append(true).open(path).ok();
        }
    }

    /// One line. Where it cannot be written nobody can be told.
    pub(crate) fn say(&mut self, text: &str) {
        if self.aloud {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
        let line = format!("{} {text}\n", utc());
        if let Some(file) = self.file.as_mut() {
            let _ = file.write_all(line.as_bytes());
        }
    }
}

/// The time for people: `2026-11-21T14:35:00Z`.
fn utc() -> String {
    let seconds = clock_gettime(ClockId::Realtime).tv_sec;
    date(seconds)
}

/// Days to a date by the calendar's 400-year cycle, which begins on a March 1st.
fn date(seconds: i64) -> String {
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_826_154), "2000-02-29T12:09:14Z");
        assert_eq!(date(1_795_275_599), "2026-11-21T15:39:59Z");
        assert_eq!(date(1_767_225_599), "2025-12-31T23:59:59Z");
    }

    #[test]
    fn r6_a_log_that_has_grown_becomes_the_old_one() {
        let folder = std::env::temp_dir().join(format!("panda_breath_{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("guard.log");
        std::fs::write(&path, vec![b'x'; 300_000]).unwrap();
        Record::file(Some(path.clone())).say("new");
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("Z new\n"));
        assert!(std::fs::metadata(folder.join("guard.log.1")).unwrap().len() >= 300_000);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
