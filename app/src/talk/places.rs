//! Which words of a conversation the tokens of a prompt are.

use std::ops::Range;

use crate::{
    activity::Place,
    chats::{Chat, MessageId},
};

use super::prepare::Ask;

/// The messages that the prompt of an answer is made of, with their texts.
pub fn said(chat: &Chat, ask: &Ask) -> Vec<(MessageId, String)> {
    let path = chat.tree.path_to(ask.parent).into_iter();
    path.filter_map(|id| chat.tree.get(id).map(|m| (id, m.text.clone()))).collect()
}

/// Where the tokens of a prompt are in the messages that it was made of, in order. Templates put marks around messages and
/// leave spaces at their ends out; a text that they change otherwise is not found, and its tokens are nobody's.
pub fn places(prompt: &[(u32, String)], said: &[(MessageId, String)]) -> Vec<Place> {
    let (mut text, mut tokens): (String, Vec<Range<usize>>) = Default::default();
    for (_, piece) in prompt {
        tokens.push(text.len()..text.len() + piece.len());
        text.push_str(piece);
    }
    let (mut places, mut from) = (Vec::new(), 0);
    for (message, whole) in said {
        let words = whole.trim();
        let Some(at) = text.get(from..).and_then(|rest| rest.find(words)).filter(|_| !words.is_empty()) else { continue };
        let (start, end) = (from + at, from + at + words.len());
        let skipped = whole.len() - whole.trim_start().len();
        let first = tokens.partition_point(|t| t.end <= start);
        for (position, token) in tokens.iter().enumerate().skip(first).take_while(|(_, t)| t.start < end) {
            let (a, b) = (token.start.max(start) - start, token.end.min(end) - start);
            if a < b {
                places.push(Place { position: position as u32, message: *message, bytes: skipped + a..skipped + b });
            }
        }
        from = end;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(prompt: &[&str], said: &[&str]) -> Vec<(u32, u64, Range<usize>)> {
        let prompt: Vec<(u32, String)> = prompt.iter().map(|p| (0, (*p).to_owned())).collect();
        let said: Vec<_> = said.iter().zip(0..).map(|(s, id)| (MessageId(id), (*s).to_owned())).collect();
        places(&prompt, &said).into_iter().map(|p| (p.position, p.message.0, p.bytes)).collect()
    }

    #[test]
    fn tokens_are_words_of_their_messages() {
        let prompt = ["<user>", "Hi", " there", "<end>", "<bot>", "Hi", "!<end>", "<user>", "So", "?\n"];
        let said = ["  Hi there ", "Hi!", "So?"];
        // The token that is a mark as well has the part that is text.
        let told = [(1, 0, 2..4), (2, 0, 4..10), (5, 1, 0..2), (6, 1, 2..3), (8, 2, 0..2), (9, 2, 2..3)];
        assert_eq!(of(&prompt, &said), told);
    }

    #[test]
    fn what_is_not_found_is_nobodys() {
        assert_eq!(of(&["a", "b"], &["c", "", "b"]), [(1, 2, 0..1)]);
        assert!(of(&[], &["x"]).is_empty() && of(&["x"], &[]).is_empty());
        // A character of several tokens belongs to the last of them.
        assert_eq!(of(&["", "\u{1f600}"], &["\u{1f600}"]), [(1, 0, 0..4)]);
    }
}
