//! A file that is written beside the one that it is to be: until it is put there nothing is lost, and
//! what never gets so far leaves nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Is removed when dropped, unless it was put where it belongs.
#[derive(Debug)]
pub(crate) struct Beside {
    file: File,
    place: PathBuf,
    /// Where it is until then; a pipe or a terminal is written to at once.
    temporary: Option<PathBuf>,
}

impl Beside {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        // What a link leads to is replaced, not the link.
        let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let old = fs::metadata(&place).ok();
        if old.as_ref().is_some_and(|old| !old.is_file()) {
            let file = OpenOptions::new().write(true).open(&place)?;
            let temporary = None;
            return Ok(Self {
                file,
                place,
                temporary,
            });
        }
        let Some(name) = place.file_name() else {
            return Err(io::Error::other("not the name of a file"));
        };
        let name = format!(".{}.{}", name.to_string_lossy(), std::process::id());
        let temporary = place.with_file_name(name);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).open(&temporary)?;
        if let Some(old) = old {
            let _ = file.set_permissions(old.permissions());
        }
        Ok(Self {
            file,
            place,
            temporary: Some(temporary),
        })
    }

    /// Puts it where it belongs; what is written later is written there. An old file is replaced only
    /// if that is wanted.
    pub(crate) fn put(&mut self, replace: bool) -> io::Result<()> {
        let Some(temporary) = &self.temporary else {
            return Ok(());
        };
        if !replace && self.place.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(temporary, &self.place)?;
        self.temporary = None;
        Ok(())
    }
}

impl Write for Beside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}
