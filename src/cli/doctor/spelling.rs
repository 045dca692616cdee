//! Which word was meant.

/// The nearest of the candidates, if a slip of the pen lies between.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let distances = candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate));
    let (least, found) = distances.min_by_key(|(distance, _)| *distance)?;
    (least <= (found.len() / 4).clamp(1, 3)).then_some(found)
}

/// How many letters were left out, added, changed, or swapped with the next.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (above[j] + usize::from(x != y))
                .min(above[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                let swapped: &Vec<usize> = &before;
                least = least.min(swapped[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_slips() {
        for (a, b, wanted) in [
            ("", "", 0),
            ("dryer", "dryer", 0),
            ("dryer", "drier", 1),
            ("dryer", "dyrer", 1),
            ("dryer", "dryers", 1),
            ("dryer", "", 5),
            ("breth", "breath", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), wanted, "{a} {b}");
            assert_eq!(distance(b, a), wanted, "{b} {a}");
        }
    }

    #[test]
    fn only_what_is_near_is_meant() {
        let words = ["dryer", "drying_hours", "host"];
        for (word, wanted) in [
            ("drying_hour", Some("drying_hours")),
            ("dryign_horus", Some("drying_hours")),
            ("drier", Some("dryer")),
            ("hots", Some("host")),
            ("ghosts", None),
            ("heater_pin", None),
        ] {
            assert_eq!(nearest(word, words), wanted, "{word}");
        }
        assert_eq!(nearest("x", []), None);
    }
}
