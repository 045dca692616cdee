//! Lines of ours in files of the user's: each is marked, so that they can be taken out again
//! exactly, whatever else was edited meanwhile, and without anything that remembers them.

/// At the end of a line of ours that stands alone.
const ADDED: &str = "# panda-breath: added";
/// Around several.
const BEGIN: &str = "# panda-breath: begin";
const BEGIN_JOINED: &str = "# panda-breath: begin, no line end before it";
const END: &str = "# panda-breath: end";
/// Before a line of the user's that is out of force.
const HIDDEN: &str = "#panda-breath# ";

/// How this text ends its lines.
pub(super) fn line_end(text: &str) -> &'static str {
    let first = text.split_inclusive('\n').next().unwrap_or("");
    if first.ends_with("\r\n") {
        "\r\n"
    } else {
        "\n"
    }
}

/// A line of ours, without its end.
pub(super) fn added(line: &str) -> String {
    format!("{line} {ADDED}")
}

/// Whether this line is one of ours.
pub(super) fn is_added(line: &str) -> bool {
    line.trim_end().ends_with(ADDED)
}

/// A line of the user's, put out of force.
pub(super) fn hidden(line: &str) -> String {
    format!("{HIDDEN}{line}")
}

/// The text with marked lines above everything else.
pub(super) fn with_lines_on_top(text: &str, lines: &[String]) -> String {
    let end = line_end(text);
    let mut result = String::new();
    for line in lines {
        result += &added(line);
        result += end;
    }
    result + text
}

/// The text with a block above everything else.
pub(super) fn with_block_on_top(text: &str, block: &str) -> String {
    let end = line_end(text);
    block_of(BEGIN, block, end) + text
}

/// The text with a block below everything else.
pub(super) fn with_block_below(text: &str, block: &str) -> String {
    let end = line_end(text);
    if text.is_empty() || text.ends_with('\n') {
        return text.to_owned() + &block_of(BEGIN, block, end);
    }
    text.to_owned() + end + &block_of(BEGIN_JOINED, block, end)
}

fn block_of(begin: &str, block: &str, end: &str) -> String {
    let mut result = format!("{begin}{end}");
    for line in block.lines() {
        result += line;
        result += end;
    }
    result + END + end
}

/// The text as it would be without us, with all that was edited in between. An error if the end of
/// a block has gone, so that nobody can tell what is ours.
pub(super) fn undone(text: &str) -> Result<String, String> {
    let mut result = String::with_capacity(text.len());
    let mut lines = text.split_inclusive('\n').enumerate();
    while let Some((number, line)) = lines.next() {
        let bare = line.trim_end();
        if bare == BEGIN || bare == BEGIN_JOINED {
            if !lines.any(|(_, line)| line.trim_end() == END) {
                return Err(format!(
                    "the line '{BEGIN}' ({}) has no '{END}' any more: delete by hand what came \
                     from panda-breath, and that line",
                    number + 1
                ));
            }
            // Nothing below it now either: as before, the last line has no end.
            if bare == BEGIN_JOINED && lines.clone().next().is_none() {
                let kept = result.strip_suffix('\n').unwrap_or(&result);
                let kept = kept.strip_suffix('\r').unwrap_or(kept).len();
                result.truncate(kept);
            }
        } else if let Some(line) = line.strip_prefix(HIDDEN) {
            result += line;
        } else if !is_added(line) {
            result += line;
        }
    }
    Ok(result)
}

/// What a file that is wholly ours begins with: whether anybody has edited it can be told from it.
const WRITTEN: &str = "# panda-breath: this file was written by 'panda-breath install', sum ";

/// A file of ours with this in it.
pub(super) fn stamped(body: &str) -> String {
    format!("{WRITTEN}{:016x}\n{body}", sum(body))
}

/// What is known about a file that may be ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stamp {
    /// As it was written.
    Untouched,
    /// Ours, and edited since.
    Edited,
    /// Somebody else's.
    Foreign,
}

pub(super) fn stamp(text: &str) -> Stamp {
    let Some(rest) = text.strip_prefix(WRITTEN) else {
        return Stamp::Foreign;
    };
    match rest.split_once('\n') {
        Some((found, body)) if found == format!("{:016x}", sum(body)) => Stamp::Untouched,
        _ => Stamp::Edited,
    }
}

/// FNV-1a: it tells edits, and resists nobody.
fn sum(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undone_is_what_was_there_byte_for_byte() {
        for text in [
            "",
            "\n",
            "a",
            "a\n",
            "a\r\nb\r\n",
            "a\r\nb",
            "[x]\ny: 1\n\n\n",
            "ä\n#\n",
        ] {
            for changed in [
                with_lines_on_top(text, &["[include a]".into(), "[include b]".into()]),
                with_block_on_top(text, "one\ntwo"),
                with_block_below(text, "one\n\ntwo\n"),
                with_block_below(&with_lines_on_top(text, &["x".into()]), "y"),
            ] {
                assert_ne!(changed, text);
                assert_eq!(undone(&changed).unwrap(), text, "{changed:?}");
            }
        }
        assert_eq!(undone(&hidden("  x: 1\r\n")).unwrap(), "  x: 1\r\n");
    }

    #[test]
    fn what_the_user_edited_meanwhile_stays() {
        let text = with_block_below(&with_lines_on_top("a\nb\n", &["x".into()]), "y");
        let text = text.replace("a\n", "a\nnew\n") + "last";
        assert_eq!(undone(&text).unwrap(), "a\nnew\nb\nlast");
        let text = with_block_below("a", "y") + "new\n";
        assert_eq!(undone(&text).unwrap(), "a\nnew\n");
    }

    #[test]
    fn a_block_without_its_end_is_left_to_the_user() {
        let text = with_block_below("a\n", "y").replace(END, "");
        let error = undone(&text).unwrap_err();
        assert!(
            error.contains("begin' (2)") && error.contains("by hand"),
            "{error}"
        );
    }

    #[test]
    fn an_edit_of_a_file_of_ours_is_noticed() {
        let text = stamped("[panda_breath]\nhost: a\n");
        assert_eq!(stamp(&text), Stamp::Untouched);
        assert_eq!(stamp(&text.replace("host: a", "host: b")), Stamp::Edited);
        assert_eq!(stamp(WRITTEN), Stamp::Edited);
        assert_eq!(stamp("[panda_breath]\n"), Stamp::Foreign);
    }

    #[test]
    fn line_ends_are_the_files_own() {
        assert_eq!(
            with_lines_on_top("a\r\n", &["x".into()]),
            format!("x {ADDED}\r\na\r\n")
        );
        assert_eq!(
            with_lines_on_top("a", &["x".into()]),
            format!("x {ADDED}\na")
        );
    }
}
