//! What the doctor says: one line per check.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but not as it should, or not for long.
    Warning,
    /// It does not work.
    Problem,
}

impl Level {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What was looked at: a section, a file, a device.
    pub about: String,
    /// Which check; always the same word for the same check.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// What to do.
    pub remedy: Option<String>,
    /// What else is good to know about it.
    pub notes: Vec<String>,
}

/// Makes findings about one thing.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    about: String,
    pub(super) list: Vec<Finding>,
}

impl Findings {
    pub(super) fn about(thing: impl Into<String>) -> Self {
        Self {
            about: thing.into(),
            list: Vec::new(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.about
    }

    pub(super) fn add(
        &mut self,
        level: Level,
        check: &'static str,
        text: impl Into<String>,
    ) -> &mut Finding {
        self.list.push(Finding {
            about: self.about.clone(),
            check,
            level,
            text: text.into(),
            remedy: None,
            notes: Vec::new(),
        });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    pub(super) fn ok(&mut self, check: &'static str, text: impl Into<String>) -> &mut Finding {
        self.add(Level::Ok, check, text)
    }

    pub(super) fn warning(
        &mut self,
        check: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Level::Warning, check, text).remedy = Some(remedy.into());
    }

    pub(super) fn problem(
        &mut self,
        check: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Level::Problem, check, text).remedy = Some(remedy.into());
    }
}

impl Finding {
    pub(super) fn remedy(&mut self, remedy: impl Into<String>) {
        self.remedy = Some(remedy.into());
    }

    /// For people: a line, and what to do on the next one.
    pub fn line(&self) -> String {
        let mut text = format!("{:8} {:12} {}\n", self.level.name(), self.check, self.text);
        for note in &self.notes {
            let _ = writeln!(text, "{:21} * {note}", "");
        }
        if let Some(remedy) = &self.remedy {
            let _ = writeln!(text, "{:21} -> {remedy}", "");
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "about": self.about,
            "check": self.check,
            "level": self.level.name(),
            "text": self.text,
            "remedy": self.remedy,
            "notes": self.notes,
        })
    }
}
