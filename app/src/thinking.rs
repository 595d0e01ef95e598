//! Telling reasoning (`<think>...</think>`) from the answer while both stream in.

/// Begins reasoning.
pub const OPEN: &str = "<think>";
/// Ends it.
pub const CLOSE: &str = "</think>";

/// A piece of what a model wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Reasoning.
    Thought(String),
    /// Answer.
    Answer(String),
}

/// Cuts a stream of text into reasoning and answer. A mark may come in several parts: what could still become one is
/// held back until it is certain.
#[derive(Clone, Debug, Default)]
pub struct Splitter {
    thinking: bool,
    held: String,
}

impl Splitter {
    /// `thinking`: the prompt has already opened the reasoning.
    pub fn new(thinking: bool) -> Self {
        Self { thinking, held: String::new() }
    }

    /// The pieces that are certain once `text` has come in. Marks are left out.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        loop {
            let mark = if self.thinking { CLOSE } else { OPEN };
            if let Some(at) = self.held.find(mark) {
                let rest = self.held.split_off(at + mark.len());
                self.held.truncate(at);
                self.take(at, &mut pieces);
                self.held = rest;
                self.thinking = !self.thinking;
                continue;
            }
            let certain = self.held.len() - beginning_of(mark, &self.held);
            self.take(certain, &mut pieces);
            return pieces;
        }
    }

    /// What was held back.
    pub fn finish(mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        self.take(self.held.len(), &mut pieces);
        pieces
    }

    /// Moves the first `len` bytes of what is held to `pieces`.
    fn take(&mut self, len: usize, pieces: &mut Vec<Piece>) {
        if len == 0 {
            return;
        }
        let text: String = self.held.drain(..len).collect();
        pieces.push(if self.thinking { Piece::Thought(text) } else { Piece::Answer(text) });
    }
}

/// Length of the longest end of `text` that is a beginning of `mark`, which is ASCII.
fn beginning_of(mark: &str, text: &str) -> usize {
    (1..mark.len()).rev().find(|&n| text.ends_with(&mark[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(thinking: bool, parts: &[&str]) -> (String, String) {
        let mut splitter = Splitter::new(thinking);
        let mut pieces: Vec<Piece> = parts.iter().flat_map(|p| splitter.push(p)).collect();
        pieces.extend(splitter.finish());
        let (mut thought, mut answer) = (String::new(), String::new());
        for piece in pieces {
            match piece {
                Piece::Thought(text) => thought.push_str(&text),
                Piece::Answer(text) => answer.push_str(&text),
            }
        }
        (thought, answer)
    }

    #[test]
    fn splits_wherever_the_stream_is_cut() {
        let whole = "a<think>b < c</think>d é<e";
        let ends: Vec<usize> = whole.char_indices().map(|(i, _)| i).collect();
        for &x in &ends {
            for &y in ends.iter().filter(|&&y| y >= x) {
                let parts = [&whole[..x], &whole[x..y], &whole[y..]];
                assert_eq!(run(false, &parts), ("b < c".to_owned(), "ad é<e".to_owned()), "{parts:?}");
            }
        }
    }

    #[test]
    fn reasoning_may_be_opened_by_the_prompt_and_never_closed() {
        assert_eq!(run(true, &["b</thi", "nk>", "a"]), ("b".to_owned(), "a".to_owned()));
        assert_eq!(run(true, &["b</thi"]), ("b</thi".to_owned(), String::new()));
        assert_eq!(run(false, &["x", "<"]), (String::new(), "x<".to_owned()));
    }

    #[test]
    fn shows_at_once_what_is_certain() {
        let mut splitter = Splitter::default();
        assert_eq!(splitter.push("one <"), [Piece::Answer("one ".into())]);
        assert_eq!(splitter.push("b>"), [Piece::Answer("<b>".into())]);
    }
}
