//! How long a model reasoned.

use crate::thinking::{Piece, Splitter};

/// Watches for the marks of reasoning in an answer that streams in, and times what is between them.
#[derive(Clone, Debug)]
pub struct Thought {
    splitter: Splitter,
    inside: bool,
    /// When the reasoning that is not over began.
    since: Option<f64>,
    /// Seconds of reasoning that is over; `None`: there was none.
    over: Option<f64>,
}

impl Thought {
    /// Of an answer whose prompt had opened the reasoning or not (`thinking`), and that goes on from `text`, which took
    /// `seconds` of reasoning.
    pub fn new(thinking: bool, text: &str, seconds: Option<f64>) -> Self {
        let mut splitter = Splitter::new(thinking);
        splitter.push(text);
        let inside = is_inside(&splitter);
        Self { splitter, inside, since: None, over: seconds }
    }

    /// More text came, at `at` seconds. Whether reasoning ended with it.
    pub fn token(&mut self, text: &str, at: f64) -> bool {
        let was = self.inside;
        let thought = self.splitter.push(text).iter().any(|p| matches!(p, Piece::Thought(_)));
        self.inside = is_inside(&self.splitter);
        if was || self.inside || thought {
            self.since.get_or_insert(at);
        }
        let ended = !self.inside && self.since.is_some();
        if ended {
            self.over = self.seconds(at);
            self.since = None;
        }
        ended
    }

    /// Whether the model reasons.
    pub fn inside(&self) -> bool {
        self.inside
    }

    /// Seconds of reasoning until `at`; `None`: there was none.
    pub fn seconds(&self, at: f64) -> Option<f64> {
        match self.since {
            None => self.over,
            Some(since) => Some(self.over.unwrap_or(0.0) + (at - since).max(0.0)),
        }
    }
}

/// Whether what comes next would be reasoning.
fn is_inside(splitter: &Splitter) -> bool {
    // No mark contains a line break: whatever is held back is certain with one.
    matches!(splitter.clone().push("\n").last(), Some(Piece::Thought(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a token a second, from second 1; returns when reasoning ended, and its seconds.
    fn watch(mut thought: Thought, tokens: &[&str]) -> (Vec<usize>, Option<f64>, bool) {
        let mut ends = Vec::new();
        for (i, token) in tokens.iter().enumerate() {
            if thought.token(token, (i + 1) as f64) {
                ends.push(i + 1);
            }
        }
        (ends, thought.seconds(tokens.len() as f64), thought.inside())
    }

    #[test]
    fn from_the_first_token_of_reasoning_to_its_last() {
        let fresh = || Thought::new(false, "", None);
        assert_eq!(watch(fresh(), &["a", "b"]), (vec![], None, false));
        assert_eq!(watch(fresh(), &["<think>", "a", "b", "</think>", "c", "d"]), (vec![4], Some(3.0), false));
        // A mark in several tokens counts from where it is certain.
        assert_eq!(watch(fresh(), &["x", "<th", "ink>", "a", "</think>", "d"]), (vec![5], Some(2.0), false));
        assert_eq!(watch(fresh(), &["<think>", "a", "b"]), (vec![], Some(2.0), true));
        assert_eq!(watch(fresh(), &["<think>a</think>b", "c"]), (vec![1], Some(0.0), false));
        let twice = ["<think>", "</think>", "x", "<think>", "y", "</think>"];
        assert_eq!(watch(fresh(), &twice), (vec![2, 6], Some(3.0), false));
    }

    #[test]
    fn reasoning_that_the_prompt_opened() {
        assert_eq!(watch(Thought::new(true, "", None), &["a", "", "</think>", "b"]), (vec![3], Some(2.0), false));
    }

    #[test]
    fn a_continued_answer_adds_up() {
        let cut = || Thought::new(false, "<think>so far", Some(4.0));
        assert!(cut().inside());
        assert_eq!(watch(cut(), &["a", "b", "</think>", "c"]), (vec![3], Some(6.0), false));
        let thought = Thought::new(true, "a</think>b", Some(4.0));
        assert_eq!(watch(thought, &["c", "d"]), (vec![], Some(4.0), false));
        assert_eq!(watch(Thought::new(false, "a <thi", None), &["nk>", "b"]).1, Some(1.0));
    }
}
