//! Whether a file can be a firmware of this device: an application image for an ESP32-C3, whole.
//!
//! The device itself checks its format, and neither a signature nor what it is for; a file that it
//! takes and that is none of a Panda Breath leaves it without a way back over the network. So more
//! is looked at here: the chip, the parts, the checksum, and what the image calls itself.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::cli::bind::failed;

/// What the device has room for; its page allows far more.
pub(super) const SLOT: usize = 0x1e_0000;
const MAGIC: u8 = 0xe9;
/// Of the ESP32-C3.
const CHIP: u16 = 5;
/// Header of the image, and of each part.
const HEADER: usize = 24;
const PART: usize = 8;
/// Where an application says what it is, and how that begins.
const DESCRIPTION: usize = HEADER + PART;
const DESCRIPTION_MAGIC: u32 = 0xabcd_5432;
const CHECKSUM_SEED: u8 = 0xef;
/// After an image that says so.
const HASH: usize = 32;

/// A file that can be one.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) bytes: Vec<u8>,
    /// What it calls itself.
    pub(super) project: String,
    pub(super) version: String,
}

/// Reads and checks a file.
pub(super) fn read(path: &Path) -> io::Result<Image> {
    let about = |text: String| failed(format!("{}: {text}", path.display()));
    let file = File::open(path).map_err(|error| about(error.to_string()))?;
    let mut bytes = Vec::new();
    let most = SLOT as u64 + 1;
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let read = file.take(most).read_to_end(&mut bytes);
    read.map_err(|error| about(error.to_string()))?;
    check(bytes).map_err(|text| about(text.replace("LENGTH", &length.to_string())))
}

fn check(bytes: Vec<u8>) -> Result<Image, String> {
    if bytes.len() > SLOT {
        return Err(format!(
            "it has LENGTH bytes, and the device has room for {SLOT} (its page would let it \
             through)"
        ));
    }
    match bytes.first() {
        Some(&MAGIC) => {}
        Some(b'P') if bytes.starts_with(b"PK") => {
            return Err("it is a ZIP archive: unpack it, and give the .bin file".to_owned());
        }
        _ => return Err("it is no firmware image of an ESP32".to_owned()),
    }
    let cut = || "it is cut off: download it again".to_owned();
    let chip = short(&bytes, 12).ok_or_else(cut)?;
    if chip != CHIP {
        return Err(format!(
            "it is for another chip (number {chip}; an ESP32-C3 is {CHIP})"
        ));
    }
    let end = end(&bytes).ok_or_else(cut)?;
    if checksum(&bytes, end) != bytes.get(end - 1).copied() {
        return Err("its checksum is wrong: download it again".to_owned());
    }
    let hash = if bytes[HEADER - 1] == 1 { HASH } else { 0 };
    if bytes.len() < end + hash {
        return Err(cut());
    }
    if long(&bytes, DESCRIPTION) != Some(DESCRIPTION_MAGIC) {
        return Err(
            "it is no application: a boot loader, or a dump of a whole flash memory".to_owned(),
        );
    }
    Ok(Image {
        version: words(&bytes, DESCRIPTION + 16),
        project: words(&bytes, DESCRIPTION + 48),
        bytes,
    })
}

/// Where the image ends, without its hash: after all parts, filled up so that its checksum is the
/// last of 16 bytes.
fn end(bytes: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    for _ in 0..*bytes.get(1)? {
        let length = usize::try_from(long(bytes, at + 4)?).ok()?;
        at = at.checked_add(PART)?.checked_add(length)?;
    }
    let end = (at / 16 + 1) * 16;
    (end <= bytes.len()).then_some(end)
}

fn checksum(bytes: &[u8], end: usize) -> Option<u8> {
    let mut sum = CHECKSUM_SEED;
    let mut at = HEADER;
    for _ in 0..*bytes.get(1)? {
        let length = usize::try_from(long(bytes, at + 4)?).ok()?;
        let part = bytes.get(at + PART..at + PART + length)?;
        sum = part.iter().fold(sum, |sum, byte| sum ^ byte);
        at += PART + length;
    }
    (at < end).then_some(sum)
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// A text of at most 32 bytes that ends with a 0, as far as it can be shown.
fn words(bytes: &[u8], at: usize) -> String {
    let field = bytes.get(at..at + 32).unwrap_or_default();
    let text = field.iter().take_while(|byte| **byte != 0);
    let shown = text.map(|byte| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '?',
    });
    let text: String = shown.collect();
    if text.is_empty() {
        "without a name".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image of one part with so many bytes.
    fn image(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[0] = MAGIC;
        bytes[1] = 1;
        bytes[12] = 5;
        bytes[23] = 1;
        bytes.extend([0; 4]);
        bytes.extend(u32::try_from(length).unwrap().to_le_bytes());
        let mut part = vec![7; length];
        part[..4].copy_from_slice(&DESCRIPTION_MAGIC.to_le_bytes());
        part[16..80].fill(0);
        part[16..20].copy_from_slice(b"1.0\x1b");
        part[48..54].copy_from_slice(b"breath");
        let sum = part.iter().fold(CHECKSUM_SEED, |sum, byte| sum ^ byte);
        bytes.extend(part);
        bytes.resize((bytes.len() / 16 + 1) * 16, 0);
        *bytes.last_mut().unwrap() = sum;
        bytes.extend([9; HASH]);
        bytes
    }

    #[test]
    fn an_image_says_what_it_is() {
        for length in 256..=272 {
            let image = check(image(length)).unwrap();
            assert_eq!(
                (image.project.as_str(), image.version.as_str()),
                ("breath", "1.0?")
            );
        }
    }

    #[test]
    fn what_is_no_whole_application_for_this_chip_is_refused() {
        let error = |change: fn(&mut Vec<u8>)| {
            let mut bytes = image(300);
            change(&mut bytes);
            check(bytes).unwrap_err()
        };
        for (change, part) in [
            ((|b| b.clear()) as fn(&mut Vec<u8>), "no firmware image"),
            (|b| b[0] = b'<', "no firmware image"),
            (|b| b.splice(..2, *b"PK").for_each(drop), "ZIP archive"),
            (|b| b[12] = 9, "for another chip (number 9"),
            (|b| b.truncate(20), "cut off"),
            (|b| b.truncate(200), "cut off"),
            (|b| b.truncate(b.len() - 1), "cut off"),
            (|b| b[28..32].fill(0xff), "cut off"),
            (|b| b[200] ^= 1, "checksum"),
            (|b| b.resize(SLOT + 1, 0), "room for 1966080"),
        ] {
            let error = error(change);
            assert!(error.contains(part), "{part}: {error}");
        }
        let mut bytes = image(300);
        bytes[DESCRIPTION] ^= 1;
        bytes[DESCRIPTION + 4] ^= 1; // the checksum stays right
        let error = check(bytes).unwrap_err();
        assert!(error.contains("boot loader"), "{error}");
    }

    #[test]
    fn every_cut_of_an_image_is_refused_and_none_panics() {
        let whole = image(300);
        for length in 0..whole.len() {
            assert!(check(whole[..length].to_vec()).is_err(), "{length}");
        }
    }
}
