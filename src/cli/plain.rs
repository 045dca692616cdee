//! Text that a file or somebody else has brought, fit for a terminal: it cannot move the cursor, set
//! colours, begin a line that looks like one of ours, or turn the direction of reading round.

use std::fmt::Write;

/// With `?` for what is not to be seen.
pub(crate) fn plain(text: &str) -> String {
    text.replace(is_unseen, "?")
}

/// The same JSON: what is not to be seen can only be within a text there, and is escaped.
pub(crate) fn plain_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_unseen(c) {
            // Writing to a string never fails.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// Not drawn, or not where it stands.
pub(crate) fn is_unseen(c: char) -> bool {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_bring_moves_nothing() {
        let text = "a\u{1b}[2J\n\r\t\u{7f}\u{9b}\u{202e}ä°";
        assert_eq!(plain(text), "a?[2J??????ä°");
        let json = serde_json::to_string(text).unwrap();
        let shown = plain_json(&json);
        assert!(!shown.contains(is_unseen), "{shown}");
        let again: String = serde_json::from_str(&shown).unwrap();
        assert_eq!(again, text);
    }
}
