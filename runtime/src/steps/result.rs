//! What a step leaves for the host.

/// How many words of what a step leaves for the host, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The ring's slot of the token sampled.
    pub token: usize,
    /// `halt`.
    pub halt: usize,
    /// The record of choices.
    pub record: usize,
    /// What the experts of the layers read.
    pub rows: usize,
    /// The counters.
    pub counters: usize,
    /// What a step with drafts came to.
    pub taken: usize,
}

impl Layout {
    /// Words in all.
    pub fn words(self) -> usize {
        self.parts().iter().sum()
    }

    fn parts(self) -> [usize; 6] {
        [self.token, self.halt, self.record, self.rows, self.counters, self.taken]
    }

    /// The part of that number; nothing where the result is too short.
    fn part(self, words: &[u32], which: usize) -> &[u32] {
        let parts = self.parts();
        let from: usize = parts[..which].iter().sum();
        words.get(from..from + parts[which]).unwrap_or_default()
    }

    /// The ring's slot.
    pub fn token_of(self, words: &[u32]) -> &[u32] {
        self.part(words, 0)
    }

    /// The layer, plus one, after whose router the plan halted; 0: it did not.
    pub fn halt_of(self, words: &[u32]) -> u32 {
        self.part(words, 1).first().copied().unwrap_or(0)
    }

    /// The record of choices.
    pub fn record_of(self, words: &[u32]) -> &[u32] {
        self.part(words, 2)
    }

    /// What experts read.
    pub fn rows_of(self, words: &[u32]) -> &[u32] {
        self.part(words, 3)
    }

    /// The counters.
    pub fn counters_of(self, words: &[u32]) -> &[u32] {
        self.part(words, 4)
    }

    /// What a step with drafts came to.
    pub fn taken_of(self, words: &[u32]) -> Taken {
        let [count, began, rest @ ..] = self.part(words, 5) else { return Taken::default() };
        let (tokens, logits) = rest.split_at(rest.len() / 2);
        let count = (*count).min(tokens.len() as u32);
        let pairs = tokens.iter().copied().zip(logits.iter().map(|&l| f32::from_bits(l)));
        Taken { count, began: *began, tokens: pairs.take(count as usize).collect() }
    }
}

/// What a step with drafts came to.
#[derive(Debug, Default, PartialEq)]
pub struct Taken {
    /// Tokens sampled; 0 after the end of the generation.
    pub count: u32,
    /// Where the step began.
    pub began: u32,
    /// The tokens and their logits.
    pub tokens: Vec<(u32, f32)>,
}

/// The token and its logit, if a step that finds `sampled` tokens sampled left them in the ring's slot: one that comes after the end
/// leaves the slot alone, or says that it came after the end.
pub fn sampled(slot: &[u32], sampled: u32) -> Option<(u32, f32)> {
    match *slot {
        [token, logit, 0, at] if at == sampled => Some((token, f32::from_bits(logit))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_one_another() {
        let layout = Layout { token: 4, halt: 1, record: 3, rows: 0, counters: 2, taken: 6 };
        let words: Vec<u32> = (0..16).collect();
        assert_eq!(layout.words(), 16);
        assert_eq!((layout.token_of(&words), layout.halt_of(&words)), (&words[..4], 4));
        assert_eq!((layout.record_of(&words), layout.rows_of(&words)), (&words[5..8], &[][..]));
        assert_eq!(layout.counters_of(&words), &words[8..10]);
        // A count beyond what there is room for counts what there is.
        let taken = layout.taken_of(&words);
        assert_eq!((taken.count, taken.began, taken.tokens.len()), (2, 11, 2));
        assert_eq!(taken.tokens[1], (13, f32::from_bits(15)));
        // What did not come back is not there.
        assert_eq!((layout.counters_of(&words[..9]), layout.taken_of(&words[..9])), (&[][..], Taken::default()));
        assert_eq!((Layout::default().words(), Layout::default().halt_of(&[])), (0, 0));
    }

    #[test]
    fn a_step_after_the_end_has_no_token() {
        let bits = 1.5f32.to_bits();
        assert_eq!(sampled(&[7, bits, 0, 3], 3), Some((7, 1.5)));
        assert_eq!(sampled(&[7, bits, 1, 3], 3), None);
        assert_eq!(sampled(&[7, bits, 0, 2], 3), None);
        assert_eq!(sampled(&[], 0), None);
    }
}
