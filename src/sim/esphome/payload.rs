//! Payloads as ESPHome reads and writes them (ESPHome 2026.6.5: `core/helpers.h`, `climate.cpp`,
//! `core/helpers.cpp`).

/// What a climate can be told to do. ESPHome knows more modes; a heater supports these two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Off,
    Heat,
}

impl Mode {
    /// The word in `mode/state`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Heat => "heat",
        }
    }
}

/// `on`, `off` or `toggle`, applied to what is now.
pub(super) fn switch(payload: &str, now: bool) -> Option<bool> {
    match payload.to_ascii_lowercase().as_str() {
        "on" => Some(true),
        "off" => Some(false),
        "toggle" => Some(!now),
        _ => None,
    }
}

/// A mode in any case. Words that are none and modes that a heater does not have are alike: both
/// leave the mode as it is.
pub(super) fn mode(payload: &str) -> Option<Mode> {
    match payload.to_ascii_lowercase().as_str() {
        "off" => Some(Mode::Off),
        "heat" => Some(Mode::Heat),
        _ => None,
    }
}

/// A number as `strtof` reads it, all of it: white space in front is fine, behind it is not. `nan`
/// and `-inf` are numbers; what becomes positive infinity is rejected.
pub(super) fn number(payload: &str) -> Option<f64> {
    let text = payload.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let value = match digits.get(..2) {
        Some("0x" | "0X") => hex(&digits[2..])?,
        // A second sign is none of `strtof`'s.
        _ if digits.starts_with(['+', '-']) => return None,
        _ => f64::from(digits.parse::<f32>().ok()?),
    };
    let value = if negative { -value } else { value };
    (value != f64::INFINITY).then_some(value)
}

/// A whole number as `strtol` reads it, base 10, all of it.
pub(super) fn level(payload: &str) -> Option<i64> {
    let text = payload.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    text.parse().ok()
}

/// A temperature in a state topic: one decimal, as a step of 0.1 and the NTC sensor give.
pub(super) fn celsius(value: f64) -> String {
    if value.is_nan() {
        "nan".to_owned()
    } else {
        format!("{value:.1}")
    }
}

/// Hex digits with a fraction and without an exponent: nobody sends more.
fn hex(digits: &str) -> Option<f64> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0.0;
    let mut place = 1.0;
    for digit in whole.chars() {
        value = value * 16.0 + f64::from(digit.to_digit(16)?);
    }
    for digit in fraction.chars() {
        place /= 16.0;
        value += place * f64::from(digit.to_digit(16)?);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_strtof_and_must_be_consumed() {
        for (payload, expected) in [
            ("25", Some(25.0)),
            (" 25.5", Some(25.5)),
            ("1e1", Some(10.0)),
            ("0x14", Some(20.0)),
            ("-0x1.8", Some(-1.5)),
            ("-5", Some(-5.0)),
            ("+5", Some(5.0)),
            ("-inf", Some(f64::NEG_INFINITY)),
            ("inf", None),
            ("1e999", None),
            ("abc", None),
            ("", None),
            (" ", None),
            ("25.5 ", None),
            ("0x", None),
            ("--5", None),
            ("25,5", None),
        ] {
            assert_eq!(number(payload), expected, "{payload:?}");
        }
        assert!(number("nan").is_some_and(f64::is_nan));
    }

    #[test]
    fn levels_follow_strtol() {
        assert_eq!(level("33"), Some(33));
        assert_eq!(level(" -1"), Some(-1));
        for payload in ["33.0", "", "x", "33 "] {
            assert_eq!(level(payload), None, "{payload:?}");
        }
    }

    #[test]
    fn words_count_in_any_case() {
        assert_eq!(mode("HEAT"), Some(Mode::Heat));
        assert_eq!(mode("Off"), Some(Mode::Off));
        assert_eq!(mode("cool"), None);
        assert_eq!(mode("heat "), None);
        assert_eq!(switch("ToGgLe", true), Some(false));
        assert_eq!(switch("turn_on", false), None);
    }

    #[test]
    fn temperatures_have_one_decimal() {
        assert_eq!(celsius(24.04), "24.0");
        assert_eq!(celsius(-3.5), "-3.5");
        assert_eq!(celsius(f64::NAN), "nan");
        assert_eq!(celsius(f64::NEG_INFINITY), "-inf");
    }
}
