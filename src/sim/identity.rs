//! A device's MAC address, which shows in the name of its access point (PROTOCOL section 4).

use std::fmt;
use std::str::FromStr;

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity(pub [u8; 6]);

impl Identity {
    /// The identity of the n-th of several simulated devices.
    #[must_use]
    pub fn offset(self, by: usize) -> Self {
        let mut number = [0; 8];
        number[2..].copy_from_slice(&self.0);
        let number = u64::from_be_bytes(number)
            .wrapping_add(by as u64)
            .to_be_bytes();
        let mut mac = [0; 6];
        mac.copy_from_slice(&number[2..]);
        Identity(mac)
    }

    /// The name of the access point, the only place on the wire that shows the identity.
    pub fn access_point(self) -> String {
        format!("Panda_Breath_{self}")
    }
}

impl Default for Identity {
    fn default() -> Self {
        Identity([0x02, 0x50, 0x42, 0x00, 0x00, 0x01]) // locally administered
    }
}

impl fmt::Display for Identity {
    /// 12 upper-case hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl FromStr for Identity {
    type Err = String;

    /// Reads 12 hex digits, with or without `:` or `-` between the bytes.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "not a MAC address of 12 hex digits".to_owned();
        let digits: String = text.chars().filter(|c| !matches!(c, ':' | '-')).collect();
        let bytes = from_hex(&digits).ok_or_else(wrong)?;
        bytes.try_into().map(Identity).map_err(|_| wrong())
    }
}

/// Bytes from hex digits.
pub(crate) fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let nibbles: Option<Vec<u8>> = digits
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let nibbles = nibbles?;
    let pairs = nibbles.chunks_exact(2);
    pairs
        .remainder()
        .is_empty()
        .then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_read_in_every_usual_spelling() {
        let mac = Identity([0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]);
        for text in ["AABBCCDDEEFF", "aa:bb:cc:dd:ee:ff", "AA-BB-CC-DD-EE-FF"] {
            assert_eq!(text.parse(), Ok(mac), "{text}");
        }
        assert_eq!(mac.access_point(), "Panda_Breath_AABBCCDDEEFF");
        for text in ["", "AABB", "AABBCCDDEEFFA", "AABBCCDDEEFG", "ÄABBCCDDEEFF"] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }

    #[test]
    fn each_of_many_devices_has_its_own() {
        let first = Identity([0, 0, 0, 0, 0, 0xff]);
        assert_eq!(first.offset(1), Identity([0, 0, 0, 0, 1, 0]));
    }
}
