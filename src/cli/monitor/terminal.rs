//! A terminal that is drawn on, and left as it was found: at the end, at an error, and in a panic.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use parking_lot::Mutex;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};

/// Another page, so that what was on the terminal comes back; no cursor; no wrapping of long lines.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";
/// A page that is narrower or lower than this is drawn for this, and cut by the terminal.
const LEAST: (u16, u16) = (20, 4);

/// The terminal that has to be put right, for a panic anywhere in this process.
static ENTERED: Mutex<Option<Before>> = Mutex::new(None);

struct Before {
    file: OwnedFd,
    modes: Termios,
}

/// A page of one's own on a terminal, until this is dropped.
#[derive(Debug)]
pub(crate) struct Page {
    file: OwnedFd,
}

impl Page {
    /// Takes over the terminal. There is one of them per process.
    pub(crate) fn enter(terminal: &impl AsFd) -> io::Result<Self> {
        let file = terminal.as_fd().try_clone_to_owned()?;
        put_right_in_a_panic();
        let page = Self { file };
        page.take()?;
        Ok(page)
    }

    fn take(&self) -> io::Result<()> {
        let before = tcgetattr(&self.file)?;
        let mut modes = before.clone();
        // Keys come at once and are not shown; Ctrl-C and Ctrl-Z are signals as ever.
        modes.local_modes -= LocalModes::ECHO | LocalModes::ICANON;
        // Ctrl-C would otherwise throw away what is written right after it: the way back.
        modes.local_modes |= LocalModes::NOFLSH;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        let file = self.file.try_clone()?;
        *ENTERED.lock() = Some(Before {
            file,
            modes: before,
        });
        tcsetattr(&self.file, OptionalActions::Drain, &modes)?;
        self.write(ENTER.as_bytes())
    }

    /// Gives the terminal back for a while.
    pub(crate) fn pause() {
        leave();
    }

    /// Takes it over again.
    pub(crate) fn resume(&self) -> io::Result<()> {
        self.take()
    }

    /// Columns and rows.
    pub(crate) fn size(&self) -> (usize, usize) {
        let size = tcgetwinsize(&self.file);
        let (columns, rows) = size.map_or((80, 24), |size| (size.ws_col, size.ws_row));
        // Some know no size of theirs.
        let columns = if columns == 0 { 80 } else { columns };
        let rows = if rows == 0 { 24 } else { rows };
        (columns.max(LEAST.0).into(), rows.max(LEAST.1).into())
    }

    /// Draws these lines, in one go so that nothing flickers. No more of them than there are rows.
    pub(crate) fn draw(&self, lines: &[String]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (n, line) in lines.iter().enumerate() {
            if n > 0 {
                text.push_str("\r\n");
            }
            // Cleared first: after a full line this would take its last character.
            text.push_str("\x1b[2K");
            text.push_str(line);
            text.push_str("\x1b[0m");
        }
        if lines.len() < self.size().1 {
            text.push_str("\r\n\x1b[J");
        }
        self.write(text.as_bytes())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        write_all(&self.file, bytes)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        leave();
    }
}

/// As it was; more than once does no harm.
fn leave() {
    if let Some(Before { file, modes }) = ENTERED.lock().take() {
        let _ = tcsetattr(&file, OptionalActions::Drain, &modes);
        let _ = write_all(&file, LEAVE.as_bytes());
    }
}

/// The message of a panic belongs on the page that stays.
fn put_right_in_a_panic() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            leave();
            usual(info);
        }));
    });
}

fn write_all(file: &impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(file, bytes))?;
        bytes = &bytes[written..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags, open};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let program = open(name.as_c_str(), flags, Mode::empty()).unwrap();
        (person, program)
    }

    fn modes(terminal: &OwnedFd) -> String {
        format!("{:?}", tcgetattr(terminal).unwrap())
    }

    /// What was written, up to the way back.
    fn shown(person: &OwnedFd) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(LEAVE.as_bytes()) {
            let mut buffer = [0; 4096];
            let len = rustix::io::read(person, &mut buffer).unwrap();
            bytes.extend_from_slice(&buffer[..len]);
        }
        String::from_utf8(bytes).unwrap().replace("\r\r", "\r") // the terminal adds one
    }

    // One test, because a process has one page.
    #[test]
    fn the_terminal_is_left_as_it_was_found_also_by_a_panic() {
        let (person, program) = pair();
        let before = modes(&program);
        let page = Page::enter(&program).unwrap();
        assert_ne!(modes(&program), before);
        page.draw(&["a".to_owned(), "b".to_owned()]).unwrap();
        Page::pause();
        assert_eq!(modes(&program), before);
        let text = shown(&person);
        assert!(text.starts_with(ENTER), "{text:?}");
        assert!(
            text.contains("\x1b[H\x1b[2Ka\x1b[0m\r\n\x1b[2Kb"),
            "{text:?}"
        );
        page.resume().unwrap();
        assert_ne!(modes(&program), before);
        drop(page);
        assert_eq!(modes(&program), before);
        assert_eq!(shown(&person), format!("{ENTER}{LEAVE}"));

        let panicked = std::panic::catch_unwind(|| {
            let _page = Page::enter(&program).unwrap();
            panic!("a bug, for the test");
        });
        assert!(panicked.is_err());
        assert_eq!(modes(&program), before);
        let text = shown(&person);
        assert_eq!(text, format!("{ENTER}{LEAVE}"), "once");
    }
}
