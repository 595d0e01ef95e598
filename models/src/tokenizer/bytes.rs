//! The byte alphabet of byte-level BPE: every byte has a printable character, so that a vocabulary is text.
//!
//! Printable Latin-1 characters stand for themselves, the other 68 bytes for U+0100 and up, in order (GPT-2).

use std::sync::LazyLock;

/// Whether a byte stands for itself in the alphabet.
const fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// Byte to character.
static CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut chars = ['\0'; 256];
    let mut next = 0x100u32;
    for (byte, slot) in (0..=255u8).zip(chars.iter_mut()) {
        *slot = if stands_for_itself(byte) {
            char::from(byte)
        } else {
            next += 1;
            char::from_u32(next - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
        };
    }
    chars
});

/// Character (below U+0144) to byte.
static BYTES: LazyLock<[Option<u8>; 0x144]> = LazyLock::new(|| {
    let mut bytes = [None; 0x144];
    for (byte, &c) in (0..=255u8).zip(CHARS.iter()) {
        if let Some(slot) = bytes.get_mut(c as usize) {
            *slot = Some(byte);
        }
    }
    bytes
});

/// The bytes as text of the alphabet.
pub(super) fn to_alphabet(bytes: &[u8]) -> String {
    bytes.iter().filter_map(|&b| CHARS.get(usize::from(b))).collect()
}

/// The bytes that a vocabulary entry stands for; `None` if it holds a character outside the alphabet.
pub(super) fn from_alphabet(token: &str) -> Option<Vec<u8>> {
    token.chars().map(|c| BYTES.get(c as usize).copied().flatten()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn alphabet_is_a_bijection() {
        let all: Vec<u8> = (0..=255).collect();
        let text = to_alphabet(&all);
        assert_eq!(text.chars().count(), 256);
        assert_eq!(from_alphabet(&text).unwrap(), all);
        assert_eq!(to_alphabet(b" \n\x00\xAD"), "ĠĊĀŃ");
        assert_eq!(from_alphabet("｜"), None);
        assert_eq!(from_alphabet("a b"), None);
    }
}
