use std::collections::BTreeSet;

use super::*;

const SHIM: &str = include_str!("../../../../python/panda_breath.py");
const DOCUMENT: &str = include_str!("../../../../docs/configuration.md");

fn ours() -> BTreeSet<String> {
    all().map(|(name, _)| name).collect()
}

/// The first argument of every call in a text, if it is a word.
fn arguments(text: &str) -> BTreeSet<String> {
    let calls = text.match_indices("(\"").filter(|(at, _)| {
        let before = &text[..*at];
        before.ends_with(|c: char| c.is_ascii_alphanumeric())
    });
    let words = calls.filter_map(|(at, _)| text[at + 2..].split('"').next());
    let is_word = |word: &&str| {
        word.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let words = words.filter(|word| !word.ends_with('_') && word.len() > 2);
    words.filter(is_word).map(str::to_owned).collect()
}

#[test]
fn the_options_are_those_that_the_module_reads() {
    let (_, readers) = SHIM.split_once("\nclass Reader:").unwrap();
    let (readers, _) = readers.split_once("\nclass Pin:").unwrap();
    let list = |name: &str| -> Vec<String> {
        let (_, rest) = SHIM.split_once(&format!("\n{name} = (")).unwrap();
        let (inside, _) = rest.split_once(").split").unwrap();
        let words = inside.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let words = words.filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    };
    let topics = list("TOPIC_ROLES");
    let topics = topics.into_iter().map(|role| format!("mqtt_{role}_topic"));
    let mut read = arguments(readers);
    read.extend(topics);
    read.extend(list("HEATER_OPTIONS"));
    assert_eq!(read, ours());
}

#[test]
fn what_may_stand_in_an_option_is_as_documented() {
    let mut rows = 0;
    for (name, kind) in all() {
        let (_, row) = DOCUMENT.split_once(&format!("\n| `{name}` | ")).unwrap();
        let documented = row.split(" | ").next().unwrap();
        let words = documented.split([' ', ',']);
        let numbers: Vec<f64> = words.filter_map(number).collect();
        match kind {
            Kind::Boolean => assert_eq!(documented, "boolean", "{name}"),
            Kind::Whole(least, most) => {
                assert!(documented.starts_with("whole number"), "{name}");
                assert_eq!(numbers, [f64::from(least), f64::from(most)], "{name}");
            }
            // Some begin above another option.
            Kind::Number(least, most) => {
                assert!(documented.starts_with("number"), "{name}");
                let bounds = [least, most];
                assert!(numbers == bounds || numbers == bounds[1..], "{name}");
            }
            Kind::Choice(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                assert_eq!(documented, words.join(", "), "{name}");
            }
            Kind::Text => {
                let is_plain = !["boolean", "number", "whole"]
                    .map(|w| documented.starts_with(w))
                    .contains(&true);
                assert!(
                    is_plain || HEATER_OPTIONS.contains(&name.as_str()),
                    "{name}: {documented}"
                );
                continue;
            }
        }
        rows += 1;
    }
    assert_eq!(rows, 16);
}
