//! Incremental decoding: token ids go in one by one, whole characters come out.

use super::Tokenizer;

/// Turns a stream of token ids into text without ever showing half a character.
///
/// Bytes that may still become a character are held back until they do, or until it is certain that they cannot; then
/// they become U+FFFD, exactly as [`Tokenizer::decode`] writes them. What [`push`](Self::push) and
/// [`finish`](Self::finish) return, put together, equals the decoding of the whole.
#[derive(Clone, Debug)]
pub struct TextStream {
    tokenizer: Tokenizer,
    show_special: bool,
    /// The beginning of a character: at most three bytes.
    held: Vec<u8>,
}

impl TextStream {
    pub(super) fn new(tokenizer: Tokenizer, show_special: bool) -> Self {
        Self { tokenizer, show_special, held: Vec::new() }
    }

    /// The text that this token completes; often a word, empty inside a character.
    pub fn push(&mut self, id: u32) -> String {
        if let Some(bytes) = self.tokenizer.shown_bytes(id, self.show_special) {
            self.held.extend_from_slice(bytes);
        }
        take_whole(&mut self.held)
    }

    /// What is left at the end: U+FFFD for a character that was never completed.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}

/// Takes everything but an incomplete character from the end.
fn take_whole(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut done = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        done += chunk.valid().len();
        let invalid = chunk.invalid();
        let at_end = done + invalid.len() == bytes.len();
        if !invalid.is_empty() {
            if at_end && may_become_a_character(invalid) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            done += invalid.len();
        }
    }
    bytes.drain(..done);
    text
}

/// Whether the bytes are a proper prefix of some character's encoding.
fn may_become_a_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(parts: &[&[u8]]) -> (Vec<String>, Vec<u8>) {
        let mut held = Vec::new();
        let texts = parts
            .iter()
            .map(|part| {
                held.extend_from_slice(part);
                take_whole(&mut held)
            })
            .collect();
        (texts, held)
    }

    #[test]
    fn holds_back_half_a_character() {
        let (texts, held) = pieces(&[b"a\xE4", b"\xB8", b"\x96b"]);
        assert_eq!(texts, ["a", "", "世b"]);
        assert!(held.is_empty());
        let (texts, held) = pieces(&[b"\xF0\x9F", b"\x98\x80\xF0"]);
        assert_eq!(texts, ["", "😀"]);
        assert_eq!(held, b"\xF0");
    }

    #[test]
    fn replaces_as_soon_as_it_is_certain() {
        // 0xFF never begins a character; 0xE4 cannot go on with 'x'; 0xED 0xA0 would be a surrogate.
        let (texts, held) = pieces(&[b"\xFF", b"\xE4", b"x", b"\xED", b"\xA0", b"\xC0"]);
        assert_eq!(texts, ["\u{FFFD}", "", "\u{FFFD}x", "", "\u{FFFD}\u{FFFD}", "\u{FFFD}"]);
        assert!(held.is_empty());
    }
}
