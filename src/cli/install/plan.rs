//! What is to be done to files: collected first, looked at as a whole, then done, and taken back
//! where something fails on the way.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::{failed, in_file, marks};

/// What is added to the name of a file of the user's that was moved aside or copied.
pub(super) const BACKUP: &str = ".before-panda-breath";

/// Where the copy of a file is kept that is changed. No pattern of an `[include]` names it, for it
/// is hidden.
pub(super) fn copy_of(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}{BACKUP}", name_of(path)))
}

/// Where a file that was moved aside is kept, or its copy, as copies were called at first.
pub(super) fn backup_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(BACKUP);
    name.into()
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Deed {
    /// Create the file or replace its contents.
    Write(String),
    /// Copy it, in the place of one that is there.
    BackUp,
    /// Rename it to this.
    Move(PathBuf),
    Remove,
}

#[derive(Clone, Debug)]
struct Step {
    path: PathBuf,
    deed: Deed,
    what: String,
}

/// Everything that is to be done, and how the files will look.
#[derive(Debug, Default)]
pub(super) struct Plan {
    steps: Vec<Step>,
    texts: BTreeMap<PathBuf, Option<String>>,
    /// What the files to be written had in them when the plan was made.
    before: BTreeMap<PathBuf, Option<String>>,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// What is in this file after everything that is planned so far; `None` without such a file.
    pub(super) fn text(&self, path: &Path) -> io::Result<Option<String>> {
        match self.texts.get(path) {
            Some(text) => Ok(text.clone()),
            None => read(path),
        }
    }

    /// Have this text in the file, or nothing done where it is in there already. A file of the
    /// user's is copied first.
    pub(super) fn write(&mut self, path: &Path, text: String, what: &str) -> io::Result<()> {
        let old = self.text(path)?;
        if old.as_ref() == Some(&text) {
            return Ok(());
        }
        let planned = self.texts.insert(path.to_owned(), Some(text.clone()));
        if planned.is_none() {
            self.before.insert(path.to_owned(), old);
        }
        let earlier = self.steps.iter().position(|step| {
            planned.is_some() && step.path == path && matches!(step.deed, Deed::Write(_))
        });
        if let Some(at) = earlier {
            // Now, not then: it may name what was planned in between.
            let what = format!("{}, {what}", self.steps.remove(at).what);
            self.push(path, Deed::Write(text), &what);
        } else {
            self.push(path, Deed::Write(text), what);
        }
        Ok(())
    }

    /// Change a file of the user's, of which a copy is kept.
    pub(super) fn edit(&mut self, path: &Path, text: String, what: &str) -> io::Result<()> {
        if self.text(path)?.as_ref() == Some(&text) {
            return Ok(());
        }
        let old = if self.texts.contains_key(path) {
            None
        } else {
            read(path)?
        };
        if let Some(old) = old {
            // Once: what is there from an earlier run shows the file without us.
            let ours = marks::undone(&old).is_ok_and(|bare| bare != old);
            let is_copied = [copy_of(path), backup_of(path)]
                .iter()
                .any(|path| path.exists());
            if !(ours && is_copied) {
                self.push(path, Deed::BackUp, "");
            }
        }
        self.write(path, text, what)
    }

    pub(super) fn rename(&mut self, path: &Path, to: &Path, what: &str) {
        self.texts.insert(path.to_owned(), None);
        self.push(path, Deed::Move(to.to_owned()), what);
    }

    pub(super) fn remove(&mut self, path: &Path, what: &str) {
        self.texts.insert(path.to_owned(), None);
        self.push(path, Deed::Remove, what);
    }

    fn push(&mut self, path: &Path, deed: Deed, what: &str) {
        self.steps.push(Step {
            path: path.to_owned(),
            deed,
            what: what.to_owned(),
        });
    }

    /// Says what would be done.
    pub(super) fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        for step in &self.steps {
            writeln!(out, "  would {}", step.words(false))?;
        }
        Ok(())
    }

    /// An error if a file cannot be changed, or was changed since the plan was made, as `SAVE_CONFIG`
    /// does; nothing has been done then.
    pub(super) fn check(&self) -> io::Result<()> {
        for (path, before) in &self.before {
            if read(path)? != *before {
                return Err(failed(format!(
                    "{}: somebody else has changed it meanwhile; run this again. Nothing was \
                     changed",
                    path.display()
                )));
            }
        }
        for Step { path, deed, .. } in &self.steps {
            let folder = path.parent().unwrap_or(Path::new("/"));
            let place = existing(folder);
            match access(place, Access::WRITE_OK | Access::EXEC_OK) {
                Ok(()) => {}
                Err(Errno::ROFS) => {
                    return Err(failed(format!(
                        "{}: on a read-only file system; make it writable, or give another place \
                         (--help). Nothing was changed",
                        path.display()
                    )));
                }
                Err(Errno::ACCESS) => {
                    return Err(failed(format!(
                        "{}: this user may not write there; run the command as the user who runs \
                         Klipper. Nothing was changed",
                        path.display()
                    )));
                }
                Err(error) => return Err(in_file(place)(error.into())),
            }
            if matches!(deed, Deed::Write(_)) && !rustix::process::geteuid().is_root() {
                let owner = fs::metadata(path).map(|data| data.uid()).ok();
                if owner.is_some_and(|owner| owner != rustix::process::geteuid().as_raw()) {
                    return Err(failed(format!(
                        "{}: it belongs to another user; run the command as that user. Nothing \
                         was changed",
                        path.display()
                    )));
                }
            }
        }
        Ok(())
    }

    /// Does everything, and says so line by line. What was done is taken back if a step fails.
    pub(super) fn carry_out(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut done: Vec<Undo> = Vec::new();
        for step in &self.steps {
            match step.carry_out() {
                Ok(undo) => done.extend(undo),
                Err(error) => {
                    let error = in_file(&step.path)(error);
                    let left: Vec<String> = done
                        .into_iter()
                        .rev()
                        .filter_map(|undo| undo.carry_out().err())
                        .map(|error| error.to_string())
                        .collect();
                    let end = if left.is_empty() {
                        "everything was put back as it was".to_owned()
                    } else {
                        format!("not all could be put back: {}", left.join("; "))
                    };
                    return Err(failed(format!("{error}; {end}")));
                }
            }
            // Whoever listens no more wants it done all the same, or not begun; not done by half.
            let _ = writeln!(out, "  {}", step.words(true));
        }
        Ok(())
    }
}

impl Step {
    fn words(&self, done: bool) -> String {
        let say = |now: &str, then: &str| {
            if done {
                then.to_owned()
            } else {
                now.to_owned()
            }
        };
        let path = self.path.display();
        let mut words = match &self.deed {
            Deed::Write(_) => format!("{} {path}", say("write", "wrote")),
            Deed::BackUp => {
                let backup = copy_of(&self.path);
                format!("{} {path} to {}", say("copy", "copied"), name_of(&backup))
            }
            Deed::Move(to) => format!("{} {path} to {}", say("rename", "renamed"), name_of(to)),
            Deed::Remove => format!("{} {path}", say("remove", "removed")),
        };
        if !self.what.is_empty() {
            words += ": ";
            words += &self.what;
        }
        words
    }

    fn carry_out(&self) -> io::Result<Vec<Undo>> {
        let path = &self.path;
        match &self.deed {
            Deed::Write(text) => {
                let old = Kept::of(path)?;
                let mut undo: Vec<Undo> = Vec::new();
                if let Some(folder) = path.parent() {
                    undo.extend(make_folders(folder)?.into_iter().map(Undo::Folder));
                }
                replace(path, text.as_bytes(), old.as_ref())?;
                undo.push(Undo::File(path.clone(), old));
                Ok(undo)
            }
            Deed::BackUp => {
                let backup = copy_of(path);
                let undo = Undo::File(backup.clone(), Kept::of(&backup)?);
                if let Some(old) = Kept::of(path)? {
                    replace(&backup, &old.bytes, Some(&old))?;
                }
                Ok(vec![undo])
            }
            Deed::Move(to) => {
                fs::rename(path, to)?;
                Ok(vec![Undo::Moved(path.clone(), to.clone())])
            }
            Deed::Remove => {
                let old = Kept::of(path)?;
                fs::remove_file(path)?;
                Ok(vec![Undo::File(path.clone(), old)])
            }
        }
    }
}

/// A file as it was.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
}

impl Kept {
    fn of(path: &Path) -> io::Result<Option<Self>> {
        let data = match fs::metadata(path) {
            Ok(data) => data,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Self {
            bytes: fs::read(path)?,
            mode: data.permissions().mode() & 0o7777,
            owner: (data.uid(), data.gid()),
        }))
    }
}

#[derive(Debug)]
enum Undo {
    File(PathBuf, Option<Kept>),
    Moved(PathBuf, PathBuf),
    Folder(PathBuf),
}

impl Undo {
    fn carry_out(self) -> io::Result<()> {
        match self {
            Self::File(path, Some(old)) => replace(&path, &old.bytes, Some(&old)),
            Self::File(path, None) => fs::remove_file(path),
            Self::Moved(from, to) => fs::rename(to, from),
            Self::Folder(path) => fs::remove_dir(path),
        }
    }
}

/// Puts a file in place at once, whole: whoever reads it gets the old one or the new one. Mode and
/// owner are the old one's; without one, the owner is that of the folder, so that root leaves
/// nothing of root's in a user's home.
fn replace(path: &Path, bytes: &[u8], old: Option<&Kept>) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let beside = folder.join(format!(".{}.panda-breath-new", name_of(path)));
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {} // of an earlier run that was killed
    }
    let result = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(bytes)?;
        let above = fs::metadata(folder)?;
        let ours = file.metadata()?;
        let (uid, gid) = match old {
            Some(old) => old.owner,
            None if rustix::process::geteuid().is_root() => (above.uid(), above.gid()),
            None => (ours.uid(), ours.gid()),
        };
        if (uid, gid) != (ours.uid(), ours.gid()) {
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        let mode = old.map_or(0o644, |old| old.mode);
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if result.is_err() {
        let _ = fs::remove_file(&beside);
    }
    result?;
    File::open(folder)?.sync_all()
}

/// Creates the folders that are missing, each with the owner of the one above, and names them.
fn make_folders(path: &Path) -> io::Result<Vec<PathBuf>> {
    let place = existing(path);
    let mut made = Vec::new();
    let mut folder = place.to_owned();
    for part in path
        .strip_prefix(place)
        .unwrap_or(Path::new(""))
        .components()
    {
        let above = fs::metadata(&folder)?;
        folder.push(part);
        fs::create_dir(&folder)?;
        made.push(folder.clone());
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&folder, Some(above.uid()), Some(above.gid()))?;
        }
    }
    Ok(made)
}

/// The folder, or the nearest one above it that is there.
fn existing(folder: &Path) -> &Path {
    folder
        .ancestors()
        .find(|folder| folder.is_dir())
        .unwrap_or(Path::new("/"))
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// The text of a file; `None` without one.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| failed(format!("{}: it is not UTF-8", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(in_file(path)(error)),
    }
}
