//! A password from a file, from a terminal without showing it, or from standard input; never from
//! the command line, where every user of the computer can read it.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use super::{failed, fits_device};

/// A longer line is none.
const MOST: u64 = 4096;

/// The password of this user, for a device to keep.
pub(super) fn get(file: Option<&Path>, username: &str) -> io::Result<String> {
    let (password, whence) = read(file, &format!("Password of {username} at the broker: "))?;
    fits_device(&password).map_err(|why| failed(format!("{whence}: {why}")))?;
    Ok(password)
}

/// A password that a terminal asks for with this prompt, and where it is from.
pub(in crate::cli) fn read(file: Option<&Path>, prompt: &str) -> io::Result<(String, String)> {
    let stdin = io::stdin();
    Ok(match file {
        Some(path) => {
            let name = path.display().to_string();
            let file = File::open(path).map_err(|error| failed(format!("{name}: {error}")))?;
            let line = only_line(file).map_err(|error| failed(format!("{name}: {error}")))?;
            (line, name)
        }
        None if stdin.is_terminal() => (
            ask(&stdin, &mut io::stderr(), prompt)?,
            "the password".to_owned(),
        ),
        None => {
            let line = first_line(stdin.lock());
            let line = line.map_err(|error| failed(format!("standard input: {error}")))?;
            (line, "standard input".to_owned())
        }
    })
}

/// The only line of a file.
fn only_line(from: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.take(MOST + 1).read_to_end(&mut bytes)?;
    let line = text(bytes)?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    if line.contains('\n') {
        return Err(failed("it has more than one line"));
    }
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// The line that comes first; what comes after it is left alone.
fn first_line(mut from: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while from.read(&mut byte)? != 0 && byte[0] != b'\n' {
        bytes.push(byte[0]);
        if bytes.len() as u64 > MOST {
            break;
        }
    }
    let line = text(bytes)?;
    Ok(line.strip_suffix('\r').unwrap_or(&line).to_owned())
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    if bytes.len() as u64 > MOST {
        return Err(failed("it is no password, but much longer"));
    }
    String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8"))
}

/// Asks for a line on a terminal that shows nothing of it.
///
/// The terminal sends no signals meanwhile: Ctrl-C is read as a key, so that the terminal is as it
/// was however this ends.
fn ask(terminal: &impl AsFd, out: &mut impl Write, prompt: &str) -> io::Result<String> {
    let quiet = Quiet::new(terminal)?;
    let asked = write!(out, "{prompt}").and_then(|()| out.flush());
    let line = asked.and_then(|()| quiet.line());
    drop(quiet);
    let _ = writeln!(out); // the Enter that was not shown
    line
}

/// A terminal that shows nothing, until this is dropped.
struct Quiet<'a, T: AsFd> {
    terminal: &'a T,
    before: Termios,
}

impl<'a, T: AsFd> Quiet<'a, T> {
    fn new(terminal: &'a T) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut modes = before.clone();
        modes.local_modes -=
            LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN;
        modes.input_modes |= InputModes::ICRNL;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        // What was typed before anybody asked is no password.
        tcsetattr(terminal, OptionalActions::Flush, &modes)?;
        Ok(Self { terminal, before })
    }

    fn line(&self) -> io::Result<String> {
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            if rustix::io::retry_on_intr(|| rustix::io::read(self.terminal, &mut byte))? == 0 {
                return Err(failed("no password was given"));
            }
            match byte[0] {
                b'\n' | b'\r' => return text(line),
                INTERRUPT | QUIT => return Err(failed("interrupted")),
                END if line.is_empty() => return Err(failed("no password was given")),
                BACKSPACE | DELETE => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
                KILL => line.clear(),
                byte if (line.len() as u64) <= MOST => line.push(byte),
                _ => {}
            }
        }
    }
}

impl<T: AsFd> Drop for Quiet<'_, T> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

const INTERRUPT: u8 = 0x03; // Ctrl-C
const END: u8 = 0x04; // Ctrl-D
const BACKSPACE: u8 = 0x08;
const KILL: u8 = 0x15; // Ctrl-U
const QUIT: u8 = 0x1c; // Ctrl-\
const DELETE: u8 = 0x7f;

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::fs::{Mode, OFlags, open};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    /// Both sides of a terminal.
    fn terminal() -> (OwnedFd, OwnedFd) {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let program = open(name.as_c_str(), flags, Mode::empty()).unwrap();
        (person, program)
    }

    /// Types into the terminal as soon as it asks; returns what was understood.
    fn typed(keys: &[u8]) -> io::Result<String> {
        let (person, program) = terminal();
        let before = tcgetattr(&program).unwrap();
        assert!(before.local_modes.contains(LocalModes::ECHO));
        let mut out = Typist {
            person: &person,
            keys: Some(keys),
        };
        let line = ask(&program, &mut out, "Password: ");
        let after = tcgetattr(&program).unwrap();
        assert_eq!(after.local_modes, before.local_modes);
        assert_eq!(after.input_modes, before.input_modes);
        // Nothing of it was shown: what can be read on the other side is only what follows.
        rustix::io::write(&program, b"!").unwrap();
        let mut shown = [0; 64];
        let len = rustix::io::read(&person, &mut shown).unwrap();
        assert_eq!(&shown[..len], b"!");
        line
    }

    /// Types when the prompt has been written and not before: earlier keys do not count.
    struct Typist<'a> {
        person: &'a OwnedFd,
        keys: Option<&'a [u8]>,
    }

    impl Write for Typist<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            if let Some(keys) = self.keys.take() {
                rustix::io::write(self.person, keys)?;
            }
            Ok(())
        }
    }

    #[test]
    fn a_terminal_shows_nothing_of_a_password_and_is_as_it_was_afterwards() {
        assert_eq!(typed(b"geheim\r").unwrap(), "geheim");
        assert_eq!(typed("gehä\x7feim\n".as_bytes()).unwrap(), "geheim");
        assert_eq!(typed(b"falsch\x15geheim\n").unwrap(), "geheim");
    }

    #[test]
    fn ctrl_c_ends_it_and_leaves_the_terminal_as_it_was() {
        assert_eq!(typed(b"gehe\x03").unwrap_err().to_string(), "interrupted");
        assert_eq!(
            typed(b"\x04").unwrap_err().to_string(),
            "no password was given"
        );
    }

    #[test]
    fn a_file_has_one_line_and_standard_input_at_least_one() {
        assert_eq!(only_line(&b"geheim\r\n"[..]).unwrap(), "geheim");
        assert_eq!(only_line(&b" a b "[..]).unwrap(), " a b ");
        assert_eq!(
            only_line(&b"a\nb\n"[..]).unwrap_err().to_string(),
            "it has more than one line"
        );
        assert_eq!(first_line(&b"geheim\nmore"[..]).unwrap(), "geheim");
        assert_eq!(first_line(&b""[..]).unwrap(), "");
        assert!(only_line(io::repeat(b'a')).is_err());
        assert!(first_line(io::repeat(b'a')).is_err());
        assert!(only_line(&b"\xff"[..]).is_err());
    }

    #[test]
    fn a_password_file_that_is_no_good_is_named() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let error = get(Some(&folder.join("nothing-here")), "u").unwrap_err();
        assert!(error.to_string().contains("nothing-here"), "{error}");
        let error = get(Some(&folder.join("Cargo.toml")), "u").unwrap_err();
        assert!(error.to_string().contains("Cargo.toml"), "{error}");
    }
}
