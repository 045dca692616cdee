//! Git, as far as files of ours lie in other people's repositories.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::marks;
use super::plan::Plan;

/// The work tree that this file lies in.
pub(super) fn work_tree(file: &Path) -> Option<PathBuf> {
    let mut folders = file.ancestors().skip(1);
    folders
        .find(|folder| folder.join(".git").exists())
        .map(Path::to_owned)
}

/// The list of what git shall not see in this checkout, in no commit: `.git/info/exclude`.
pub(super) fn exclude_of(checkout: &Path) -> Option<PathBuf> {
    let git = checkout.join(".git");
    if git.is_dir() {
        return Some(git.join("info/exclude"));
    }
    // A work tree beside its repository, or a submodule.
    let text = fs::read_to_string(git).ok()?;
    let folder = checkout.join(text.strip_prefix("gitdir:")?.trim());
    let common = fs::read_to_string(folder.join("commondir")).unwrap_or_else(|_| ".".to_owned());
    Some(folder.join(common.trim()).join("info/exclude"))
}

/// Has git not see these files of a checkout.
pub(super) fn exclude(plan: &mut Plan, checkout: &Path, files: &[PathBuf]) -> io::Result<()> {
    let Some(list) = exclude_of(checkout) else {
        return Ok(());
    };
    let ignored = plan.text(&checkout.join(".gitignore"))?.unwrap_or_default();
    let old = plan.text(&list)?.unwrap_or_default();
    let bare = match marks::undone(&old) {
        Ok(bare) => bare,
        Err(why) => return Err(super::failed(format!("{}: {why}", list.display()))),
    };
    let mut lines: Vec<String> = Vec::new();
    for file in files {
        let Ok(file) = file.strip_prefix(checkout) else {
            continue;
        };
        let line = format!("/{}", file.display());
        let folder = file
            .parent()
            .map(|folder| format!("{}/*", folder.display()));
        let covered = |text: &str| {
            text.lines().map(str::trim).any(|other| {
                other == line || folder.as_deref() == Some(other.trim_start_matches('/'))
            })
        };
        // What the old list of ours has stays in it: a file may be in the way once more.
        if !covered(&ignored) && !covered(&bare) {
            lines.push(line);
        }
    }
    if lines.is_empty()
        || lines
            .iter()
            .all(|line| old.lines().any(|other| other == line))
    {
        return Ok(());
    }
    let text = marks::with_block_below(&bare, &lines.join("\n"));
    plan.edit(
        &list,
        text,
        "so that git and Moonraker call the checkout clean",
    )
}
