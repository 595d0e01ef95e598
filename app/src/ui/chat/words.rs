//! Linking words on the screen with their place in the source text, both ways.
//!
//! Markdown is drawn by many labels that know nothing of where their text came from. So the text that was painted for a block is
//! taken from the list of shapes, cut into words, and aligned with the words of the source: both come in the same order, the
//! source having some more (marks, addresses) and the screen sometimes others (formulas). This is done for one block, and only
//! while it is pointed at or lit.

use std::{collections::HashMap, ops::Range, sync::Arc};

use egui::{Color32, Galley, LayerId, Pos2, Rect, Shape, Ui, epaint::text::cursor::CCursor, layers::ShapeIdx, pos2};

/// What is to be lit and what was found to be pointed at, in bytes of a message.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// To be lit.
    pub lit: Option<Range<usize>>,
    /// Whether to find the word under the pointer.
    pub pointing: bool,
    /// The word under the pointer.
    pub pointed: Option<Range<usize>>,
}

/// Where painting of a block began.
pub(super) struct Begun {
    layer: LayerId,
    first: usize,
    behind: Option<ShapeIdx>,
}

impl Link {
    /// Before a block is drawn, whose source is `range`. `None`: nothing is to be done for it.
    pub fn begin(&self, ui: &Ui, range: &Range<usize>) -> Option<Begun> {
        let lit = self.lit.as_ref().is_some_and(|l| l.start < range.end && l.end > range.start);
        if !lit && !self.pointing {
            return None;
        }
        let behind = lit.then(|| ui.painter().add(Shape::Noop));
        let layer = ui.layer_id();
        let first = ui.ctx().graphics(|g| g.get(layer).map_or(0, |list| list.next_idx().0));
        Some(Begun { layer, first, behind })
    }

    /// After it was drawn into `rect`. `base`: where the source begins in the message.
    pub fn end(&mut self, ui: &Ui, begun: Option<Begun>, rect: Rect, source: &str, base: usize, mark: Color32) {
        let Some(begun) = begun else { return };
        let pointer = ui.ctx().pointer_hover_pos().filter(|_| self.pointing && ui.rect_contains_pointer(rect));
        if begun.behind.is_none() && pointer.is_none() {
            return;
        }
        let texts = painted(ui, &begun);
        let drawn: Vec<(usize, Range<usize>)> =
            texts.iter().enumerate().flat_map(|(i, t)| words(t.text()).map(move |w| (i, w))).collect();
        let strings: Vec<&str> = drawn.iter().map(|(i, w)| texts[*i].text().get(w.clone()).unwrap_or("")).collect();
        let places = align(&strings, source);
        if let Some(pos) = pointer {
            let hit = texts.iter().enumerate().rev().find_map(|(i, t)| Some((i, t.byte_at(pos)?)));
            if let Some((i, byte)) = hit {
                let word = drawn.iter().position(|(j, w)| *j == i && w.contains(&byte));
                self.pointed = word.and_then(|w| places.get(w)?.clone()).map(|r| base + r.start..base + r.end);
            }
        }
        if let (Some(behind), Some(lit)) = (begun.behind, &self.lit) {
            let mut shapes = Vec::new();
            for ((i, word), place) in drawn.iter().zip(&places) {
                let Some(place) = place else { continue };
                let (start, end) = (base + place.start, base + place.end);
                if lit.start < end && lit.end > start {
                    shapes.extend(texts[*i].rects(word).map(|r| Shape::rect_filled(r.expand(1.0), 3, mark)));
                }
            }
            ui.painter().set(behind, Shape::Vec(shapes));
        }
    }
}

/// A text on the screen.
struct Painted {
    pos: Pos2,
    galley: Arc<Galley>,
}

impl Painted {
    fn text(&self) -> &str {
        &self.galley.job.text
    }

    fn rect(&self) -> Rect {
        self.galley.rect.translate(self.pos.to_vec2())
    }

    /// The byte of the text at a place on the screen.
    fn byte_at(&self, pos: Pos2) -> Option<usize> {
        if !self.rect().contains(pos) {
            return None;
        }
        let at = pos - self.pos;
        let near = self.galley.cursor_from_pos(at);
        let edge = self.galley.pos_from_cursor(near);
        let index = near.index.0;
        // A cursor is between two characters: take the one under the pointer.
        let index = if at.x < edge.left() { index.checked_sub(1)? } else { index };
        let from = self.galley.pos_from_cursor(CCursor::new(index));
        let same_row = at.y >= from.top() - 2.0 && at.y <= from.bottom() + 2.0 && at.x >= from.left() - 1.0;
        self.text().char_indices().nth(index).map(|(i, _)| i).filter(|_| same_row)
    }

    /// Where a range of bytes is on the screen.
    fn rects(&self, bytes: &Range<usize>) -> impl Iterator<Item = Rect> {
        let chars = |to: usize| self.text().get(..to).map_or(0, |t| t.chars().count());
        let (start, end) = (chars(bytes.start), chars(bytes.end));
        let from = self.galley.pos_from_cursor(CCursor { index: start.into(), prefer_next_row: true });
        let to = self.galley.pos_from_cursor(CCursor { index: end.into(), prefer_next_row: false });
        let wrapped = to.top() > from.top() + 1.0;
        let right = self.galley.rect.right();
        let first = Rect::from_min_max(from.min, if wrapped { pos2(right, from.bottom()) } else { to.max });
        let rest = wrapped.then(|| Rect::from_min_max(pos2(self.galley.rect.left(), to.top()), to.max));
        let shift = self.pos.to_vec2();
        [Some(first), rest].into_iter().flatten().map(move |r| r.translate(shift))
    }
}

/// The texts painted since `begun`.
fn painted(ui: &Ui, begun: &Begun) -> Vec<Painted> {
    fn collect(shape: &Shape, texts: &mut Vec<Painted>) {
        match shape {
            Shape::Text(t) => texts.push(Painted { pos: t.pos, galley: t.galley.clone() }),
            Shape::Vec(shapes) => shapes.iter().for_each(|s| collect(s, texts)),
            _ => {}
        }
    }
    let mut texts = Vec::new();
    ui.ctx().graphics(|g| {
        if let Some(list) = g.get(begun.layer) {
            list.all_entries().skip(begun.first).for_each(|s| collect(&s.shape, &mut texts));
        }
    });
    texts
}

/// Whether a character is written without spaces to the next word.
fn alone(c: char) -> bool {
    matches!(c, '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7ff}' | '\u{f900}'..='\u{faff}' | '\u{ff00}'..='\u{ffef}' | '\u{1f000}'..='\u{3ffff}')
}

/// The words of a text, in bytes: letters and digits in a row; any other character that is no space by itself.
pub(super) fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = text.get(at..)?;
            let c = rest.chars().next()?;
            let start = at;
            if c.is_whitespace() {
                at += c.len_utf8();
                continue;
            }
            let joins = |c: char| c.is_alphanumeric() && !alone(c);
            at += if joins(c) { rest.find(|c| !joins(c)).unwrap_or(rest.len()) } else { c.len_utf8() };
            return Some(start..at);
        }
    })
}

/// For each word drawn, its place in the source. Both are in the same order; either may have words that the other lacks.
pub(super) fn align(drawn: &[&str], source: &str) -> Vec<Option<Range<usize>>> {
    /// Words aligned at once, and words of the source that are looked at for them: bounds what a huge block costs.
    const AT_ONCE: (usize, usize) = (200, 1500);
    let places: Vec<Range<usize>> = words(source).collect();
    let mut numbers = HashMap::new();
    let mut number = |w| {
        let next = numbers.len() as u32;
        *numbers.entry(w).or_insert(next)
    };
    let theirs: Vec<u32> = places.iter().map(|r| number(source.get(r.clone()).unwrap_or(""))).collect();
    let ours: Vec<u32> = drawn.iter().map(|w| number(w)).collect();
    let mut found = Vec::with_capacity(drawn.len());
    let mut next = 0;
    for ours in ours.chunks(AT_ONCE.0) {
        let end = (next + AT_ONCE.1).min(theirs.len());
        let pairs = pair(ours, theirs.get(next..end).unwrap_or(&[]));
        let begin = next;
        for p in pairs {
            let place = p.map(|p| begin + p);
            next = place.map_or(next, |p| p + 1);
            found.push(place.and_then(|p| places.get(p).cloned()));
        }
    }
    found
}

/// Pairs equal words in order, as many as can be, and preferring pairs that follow each other directly (global alignment
/// without penalties for gaps, by dynamic programming).
fn pair(a: &[u32], b: &[u32]) -> Vec<Option<usize>> {
    const MATCH: u16 = 3;
    const DIRECT: u16 = 1;
    let width = b.len() + 1;
    // The best score of the first i and j words, and the best where these two are paired (0: they are not).
    let mut best = vec![0u16; (a.len() + 1) * width];
    let mut paired = vec![0u16; (a.len() + 1) * width];
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let (here, up, left, before) = (i * width + j, (i - 1) * width + j, i * width + j - 1, (i - 1) * width + j - 1);
            let mut score = best[up].max(best[left]);
            if a[i - 1] == b[j - 1] {
                let direct = if paired[before] > 0 { paired[before] + DIRECT } else { 0 };
                paired[here] = MATCH + best[before].max(direct);
                score = score.max(paired[here]);
            }
            best[here] = score;
        }
    }
    let mut pairs = vec![None; a.len()];
    let (mut i, mut j, mut direct) = (a.len(), b.len(), false);
    while i > 0 && j > 0 {
        let (here, before) = (i * width + j, (i - 1) * width + j - 1);
        if direct || paired[here] > 0 && paired[here] == best[here] {
            pairs[i - 1] = Some(j - 1);
            direct = paired[before] > 0 && paired[here] == paired[before] + DIRECT + MATCH;
            (i, j) = (i - 1, j - 1);
        } else if best[i * width + j - 1] == best[here] {
            j -= 1;
        } else {
            i -= 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(drawn: &str, source: &str) -> Vec<Option<usize>> {
        let strings: Vec<&str> = words(drawn).map(|r| &drawn[r]).collect();
        let places = align(&strings, source);
        for (w, p) in strings.iter().zip(&places) {
            assert!(p.as_ref().is_none_or(|p| &source[p.clone()] == *w));
        }
        places.into_iter().map(|p| p.map(|p| p.start)).collect()
    }

    #[test]
    fn words_are_cut_at_character_boundaries() {
        let text = "It's 日本🎉 naïve_x 3.5";
        let found: Vec<&str> = words(text).map(|r| &text[r]).collect();
        assert_eq!(found, ["It", "'", "s", "日", "本", "🎉", "naïve", "_", "x", "3", ".", "5"]);
    }

    #[test]
    fn marks_and_addresses_of_the_source_are_passed_over() {
        let source = "The **cat** saw [the cat](https://example.org/the/cat/saw/a/very/long/address) and the `cat`.";
        let at = |n: usize| source.match_indices("cat").nth(n).map(|(i, _)| i);
        let places = mapped("The cat saw the cat and the cat.", source);
        assert_eq!([places[1], places[4], places[7]], [at(0), at(1), at(3)]);
    }

    #[test]
    fn words_that_the_source_lacks_map_nowhere_and_do_no_harm() {
        let source = r"So $\alpha \le x^2$ holds for all x.";
        let places = mapped("So α ≤ x² holds for all x.", source);
        assert_eq!(places[0], Some(0));
        assert_eq!(places[1], None);
        assert_eq!(places.last().copied().flatten(), source.rfind('.'));
        assert_eq!(places[places.len() - 3], source.find("all"));
    }

    #[test]
    fn a_beginning_that_is_out_of_sight_does_not_matter() {
        let source = "one two three two three four";
        assert_eq!(mapped("two three four", source), [Some(14), Some(18), Some(24)]);
    }
}
