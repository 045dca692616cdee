//! Questions and answers on the terminal.

use std::io::{self, BufRead, IsTerminal, Write};

use super::failed;

/// Whom to talk to.
pub(super) struct Talk<'a> {
    pub(super) out: &'a mut dyn Write,
    /// Nothing is asked where nobody answers.
    lines: Option<&'a mut dyn BufRead>,
}

impl<'a> Talk<'a> {
    /// Asks only on a terminal, and not if that is unwanted.
    pub(super) fn new(lines: &'a mut dyn BufRead, out: &'a mut dyn Write, quiet: bool) -> Self {
        let asks = !quiet && io::stdin().is_terminal() && io::stdout().is_terminal();
        Self {
            out,
            lines: asks.then_some(lines),
        }
    }

    #[cfg(test)]
    pub(super) fn with(lines: Option<&'a mut dyn BufRead>, out: &'a mut dyn Write) -> Self {
        Self { out, lines }
    }

    pub(super) fn asks(&self) -> bool {
        self.lines.is_some()
    }

    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// A line, or the default where nobody answers or the answer is empty.
    pub(super) fn line(&mut self, question: &str, default: &str) -> io::Result<String> {
        let Some(lines) = &mut self.lines else {
            return Ok(default.to_owned());
        };
        write!(self.out, "{question} [{default}] ")?;
        self.out.flush()?;
        let mut answer = String::new();
        if lines.read_line(&mut answer)? == 0 {
            writeln!(self.out)?;
            return Err(failed("no answer; nothing was changed"));
        }
        let answer = answer.trim();
        Ok(if answer.is_empty() { default } else { answer }.to_owned())
    }

    pub(super) fn yes(&mut self, question: &str, default: bool) -> io::Result<bool> {
        loop {
            let answer = self.line(question, if default { "Y/n" } else { "y/N" })?;
            match answer.to_lowercase().as_str() {
                "y/n" => return Ok(default),
                "y" | "yes" => return Ok(true),
                "n" | "no" => return Ok(false),
                _ => self.say("Please answer y or n.")?,
            }
        }
    }
}
