//! Which parts of a message are reasoning, and which are the answer.

use std::ops::Range;

use crate::thinking::{CLOSE, OPEN};

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where it is in the message, in bytes, without the marks.
    pub range: Range<usize>,
    /// Reasoning rather than answer.
    pub thought: bool,
    /// Whether its end has been seen.
    pub closed: bool,
}

/// The parts of `text`, as [`crate::thinking::Splitter`] has them. `thinking`: it begins inside the reasoning. `live`: more will
/// follow, so the beginning of a mark at the end is held back.
pub(super) fn segments(text: &str, thinking: bool, live: bool) -> Vec<Segment> {
    let mut parts = Vec::new();
    let (mut at, mut thought) = (0, thinking);
    loop {
        let mark = if thought { CLOSE } else { OPEN };
        let rest = text.get(at..).unwrap_or("");
        let Some(n) = rest.find(mark) else {
            let held = if live { (1..mark.len()).rev().find(|&n| rest.ends_with(&mark[..n])).unwrap_or(0) } else { 0 };
            parts.push(Segment { range: at..text.len() - held, thought, closed: !live });
            return parts;
        };
        if n > 0 || thought {
            parts.push(Segment { range: at..at + n, thought, closed: true });
        }
        at += n + mark.len();
        thought = !thought;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thinking::{Piece, Splitter};

    #[test]
    fn parts_are_those_of_the_splitter() {
        for (text, thinking) in [
            ("a<think>b < c</think>d é<e", false),
            ("b</think>a", true),
            ("never closed</thi", true),
            ("<think></think>x<think>y</think>", false),
            ("", false),
        ] {
            let mut splitter = Splitter::new(thinking);
            let mut pieces = splitter.push(text);
            pieces.extend(splitter.finish());
            let mut expected = [String::new(), String::new()];
            for piece in pieces {
                match piece {
                    Piece::Thought(t) => expected[1].push_str(&t),
                    Piece::Answer(t) => expected[0].push_str(&t),
                }
            }
            let mut found = [String::new(), String::new()];
            for s in segments(text, thinking, false) {
                found[usize::from(s.thought)].push_str(&text[s.range]);
            }
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn the_beginning_of_a_mark_is_held_back_while_more_may_follow() {
        let parts = segments("answer<thi", false, true);
        assert_eq!(parts, [Segment { range: 0..6, thought: false, closed: false }]);
        assert_eq!(segments("answer<thi", false, false)[0].range, 0..10);
    }
}
