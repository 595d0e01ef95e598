//! Cutting a Markdown text into its top-level blocks, as it grows.
//!
//! Blocks are cut where CommonMark would end one in any case, so that each can be drawn, measured and skipped by itself. Once
//! two more blocks have begun, a block never changes again, which makes growing cheap: only the last two are cut anew. Code
//! within a list is cut out of it and drawn indented; what follows it in the list carries the same indentation.

use std::ops::Range;

/// What a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Markdown without fenced code at its top level.
    Text,
    /// Code.
    Code {
        /// The language, where it is named.
        lang: Range<usize>,
        /// The lines.
        content: Range<usize>,
        /// Whether the end has been seen.
        closed: bool,
    },
    /// A formula on lines of its own.
    Math {
        /// The TeX source.
        content: Range<usize>,
    },
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Where it is, in bytes; without the empty lines around it.
    pub range: Range<usize>,
    /// What it is.
    pub kind: Kind,
    /// Columns that each of its lines is indented by, because a list is around it.
    pub inset: usize,
    /// Indentation of the list around it, if any: what the next cut has to know.
    before: Option<usize>,
}

/// The blocks of a text that grows.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks {
    /// The blocks, in order.
    pub list: Vec<Block>,
    len: usize,
}

impl Blocks {
    /// The blocks of `text`, which begins with the text of the last call (or is another, shorter one). Returns the number of
    /// blocks at the beginning that are as they were.
    pub fn grow(&mut self, text: &str) -> usize {
        if text.len() < self.len {
            self.list.clear();
        } else if text.len() == self.len {
            return self.list.len();
        }
        self.len = text.len();
        let kept = self.list.len().saturating_sub(2);
        let (mut at, mut inside) = self.list.get(kept).map_or((0, None), |b| (b.range.start, b.before));
        // A block begins after its indentation's line began: go back to the beginning of that line.
        at = text.get(..at).and_then(|t| t.rfind('\n')).map_or(0, |n| n + 1);
        self.list.truncate(kept);
        while let Some((block, after, next)) = cut(text, at, inside) {
            (at, inside) = (next, after);
            self.list.push(block);
        }
        kept
    }
}

/// A line: where it begins, where its text ends, and where the next begins.
#[derive(Clone, Copy)]
struct Line<'a> {
    text: &'a str,
    start: usize,
    end: usize,
    next: usize,
}

fn line(text: &str, start: usize) -> Option<Line<'_>> {
    let rest = text.get(start..).filter(|r| !r.is_empty())?;
    let len = rest.find('\n').unwrap_or(rest.len());
    let next = (start + len + 1).min(text.len());
    let line = rest.get(..len).unwrap_or(rest);
    Some(Line { text: line, start, end: start + len, next })
}

impl<'a> Line<'a> {
    fn blank(&self) -> bool {
        self.text.trim().is_empty()
    }

    /// Columns of white space at the beginning.
    fn indent(&self) -> usize {
        self.text.chars().take_while(|c| matches!(c, ' ' | '\t')).map(|c| if c == '\t' { 4 } else { 1 }).sum()
    }

    fn body(&self) -> &'a str {
        self.text.trim_start()
    }

    /// Length of a list marker at the beginning of the body; `None`: there is none.
    fn marker(&self) -> Option<usize> {
        let body = self.body();
        if self.rule() {
            return None;
        }
        let digits = body.bytes().take_while(u8::is_ascii_digit).count();
        let len = match body.as_bytes().get(digits)? {
            b'-' | b'*' | b'+' if digits == 0 => 1,
            b'.' | b')' if (1..=9).contains(&digits) => digits + 1,
            _ => return None,
        };
        matches!(body.as_bytes().get(len), None | Some(b' ' | b'\t')).then_some(len)
    }

    /// Whether it may begin a list right after a paragraph.
    fn interrupts(&self) -> bool {
        self.marker().is_some_and(|len| {
            let body = self.body();
            let ordered = body.as_bytes().first().is_some_and(u8::is_ascii_digit);
            body.get(len..).is_some_and(|rest| !rest.trim().is_empty()) && (!ordered || len == 2 && body.starts_with('1'))
        })
    }

    /// A thematic break.
    fn rule(&self) -> bool {
        let mut marks = self.text.bytes().filter(|b| !b.is_ascii_whitespace());
        match marks.next() {
            Some(first @ (b'-' | b'*' | b'_')) => {
                let mut count = 1;
                marks.all(|b| {
                    count += 1;
                    b == first
                }) && count >= 3
            }
            _ => false,
        }
    }

    /// A fence: its character, its length, and where its information is in the body.
    fn fence(&self) -> Option<(u8, usize)> {
        fence(self.body())
    }

    fn table(&self) -> bool {
        self.body().starts_with('|')
    }
}

fn fence(body: &str) -> Option<(u8, usize)> {
    let mark = *body.as_bytes().first().filter(|b| matches!(b, b'`' | b'~'))?;
    let len = body.bytes().take_while(|&b| b == mark).count();
    let info = body.get(len..).unwrap_or("");
    (len >= 3 && (mark == b'~' || !info.contains('`'))).then_some((mark, len))
}

fn closes(body: &str, open: (u8, usize)) -> bool {
    let len = body.bytes().take_while(|&b| b == open.0).count();
    len >= open.1 && body.get(len..).is_some_and(|rest| rest.trim().is_empty())
}

/// The block after `at`, the list around what follows, and where that begins.
fn cut(text: &str, mut at: usize, inside: Option<usize>) -> Option<(Block, Option<usize>, usize)> {
    let mut first = line(text, at)?;
    while first.blank() {
        at = first.next;
        first = line(text, at)?;
    }
    let indent = first.indent();
    // Which list is around it, if any, and how far it is indented by that.
    let (inset, inside) = match inside {
        Some(n) if indent >= n => (n, Some(n)),
        Some(_) if first.marker().is_some() => (0, None),
        Some(n) if indent >= 2 => (indent, Some(n)),
        _ => (0, None),
    };
    let block = |range, kind| Block { range, kind, inset, before: inside };
    let start = first.start;

    if let Some(open) = first.fence().filter(|_| indent - inset <= 3) {
        return Some(code(text, first, open, inset.max(indent), inside));
    }
    if let Some((content, end, next)) = math(text, first) {
        return Some((block(start..end, Kind::Math { content }), inside, next));
    }
    if indent >= inset + 4 && first.marker().is_none_or(|_| inside.is_none()) {
        let (mut end, mut next) = (first.end, first.next);
        let mut at = next;
        while let Some(l) = line(text, at) {
            if !l.blank() {
                if l.indent() < inset + 4 {
                    break;
                }
                (end, next) = (l.end, l.next);
            }
            at = l.next;
        }
        let kind = Kind::Code { lang: start..start, content: start..end, closed: true };
        return Some((Block { range: start..end, kind, inset: inset + 4, before: inside }, inside, next));
    }
    if first.marker().is_some() {
        let (end, after, next) = list(text, first, inset);
        return Some((block(start..end, Kind::Text), after.or(inside), next));
    }

    let table = first.table();
    let (mut end, mut next) = (first.end, first.next);
    while let Some(l) = line(text, next) {
        let quoted = first.body().starts_with('>');
        if l.blank()
            || l.table() != table
            || !quoted && (l.fence().is_some() && l.indent() <= inset + 3 || l.interrupts() || math(text, l).is_some())
        {
            break;
        }
        (end, next) = (l.end, l.next);
    }
    Some((block(start..end, Kind::Text), inside, next))
}

/// Fenced code that begins with `first`.
fn code(text: &str, first: Line<'_>, open: (u8, usize), inset: usize, inside: Option<usize>) -> (Block, Option<usize>, usize) {
    let before = first.end - first.body().len();
    let info = before + open.1;
    let tail = text.get(info..first.end).unwrap_or("");
    let word = tail.trim_start().split([' ', '\t', ',', '{', ':']).next().unwrap_or("").trim_end();
    let from = info + (tail.len() - tail.trim_start().len());
    let lang = from..from + word.len();
    let (mut at, content) = (first.next, first.next.min(text.len()));
    let mut last = content;
    while let Some(l) = line(text, at) {
        if closes(l.body(), open) {
            let kind = Kind::Code { lang, content: content..last, closed: true };
            return (Block { range: first.start..l.end, kind, inset, before: inside }, inside, l.next);
        }
        (at, last) = (l.next, l.end);
    }
    let kind = Kind::Code { lang, content: content..last.max(content), closed: false };
    (Block { range: first.start..text.len(), kind, inset, before: inside }, inside, text.len())
}

/// A formula that begins with the line `first` and ends with a line: its source, its end, and the line after it.
fn math(text: &str, first: Line<'_>) -> Option<(Range<usize>, usize, usize)> {
    let body = first.body();
    let (open, close) = [("$$", "$$"), ("\\[", "\\]")].into_iter().find(|(open, _)| body.starts_with(open))?;
    let from = first.end - body.len() + open.len();
    let mut l = first;
    let mut begin = from;
    loop {
        let rest = text.get(begin..l.end)?;
        if let Some(n) = rest.find(close) {
            let tail = rest.get(n + close.len()..)?.trim();
            return matches!(tail, "" | "." | ",").then(|| (from..begin + n, l.end, l.next));
        }
        l = line(text, l.next).filter(|l| !l.blank())?;
        begin = l.start;
    }
}

/// The end of the list that begins with `first`, the indentation of code that ends it, and where the rest begins.
fn list(text: &str, first: Line<'_>, inset: usize) -> (usize, Option<usize>, usize) {
    let (mut end, mut next) = (first.end, first.next);
    let mut inner = opened(first);
    let mut at = next;
    let mut gap = false;
    while let Some(l) = line(text, at) {
        at = l.next;
        if l.blank() {
            gap = true;
            continue;
        }
        let indent = l.indent();
        if let Some(open) = inner {
            if closes(l.body(), open) {
                inner = None;
            }
        } else {
            if l.fence().is_some() {
                return (end, (indent > inset).then_some(indent), next);
            }
            let item = l.marker().is_some();
            let ours = if item { indent >= inset } else { indent >= inset + 2 };
            if (gap || item) && !ours {
                return (end, None, next);
            }
            if !gap && l.table() && indent < inset + 2 {
                return (end, None, next);
            }
            if item {
                inner = opened(l);
            }
        }
        gap = false;
        (end, next) = (l.end, l.next);
    }
    (end, None, next)
}

/// The fence that a list item begins with.
fn opened(item: Line<'_>) -> Option<(u8, usize)> {
    fence(item.body().get(item.marker()?..)?.trim_start())
}

/// Definitions of links ("[name]: address") in the blocks of text: any block may refer to them.
pub(super) fn definitions(text: &str, blocks: &[Block]) -> String {
    let mut found = String::new();
    if !text.contains("]:") {
        return found;
    }
    for block in blocks.iter().filter(|b| b.kind == Kind::Text) {
        for l in text.get(block.range.clone()).unwrap_or("").lines() {
            let body = l.trim_start();
            if body.starts_with('[') && !body.starts_with("[^") && body.contains("]: ") {
                found.push_str(body);
                found.push('\n');
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    const NASTY: &str = "# Title\nIntro with `code` and 日本語 🎉:\n- one\n\n- two\n\n  more of two\n  ```rust\n  fn a() {}\n\n  - no item\n  ```\n  after\n- three\n\n1. x\n1. y\n\n    indented\n\nText\n| a | b |\n|---|---|\n| 1 | `|` |\nafter table\n\n$$\na^2\n$$\n\\[ x + y \\]\n\n~~~~\n```\n\n~~~\n~~~~\n> quote\n> ```\n> code\n\nA line\n---\n\n- ```c\n  int x;\n\n  int y;\n  ```\n- last\n\n    code by indentation\n\n$$ never closed\n\n[a]: https://example.org\n2\n\n```\nopen\n\nend";

    fn whole(text: &str) -> Vec<Block> {
        let mut blocks = Blocks::default();
        blocks.grow(text);
        blocks.list
    }

    #[test]
    fn growing_by_any_steps_ends_with_the_blocks_of_the_whole() {
        let expected = whole(NASTY);
        for step in [1, 2, 3, 7, 50] {
            let mut blocks = Blocks::default();
            let ends: Vec<usize> = NASTY.char_indices().map(|(i, _)| i).step_by(step).chain([NASTY.len()]).collect();
            for &end in &ends {
                let prefix = &NASTY[..end];
                let before = blocks.list.clone();
                let kept = blocks.grow(prefix);
                assert_eq!(before[..kept], blocks.list[..kept]);
                assert_eq!(blocks.list, whole(prefix), "after {prefix:?}");
            }
            assert_eq!(blocks.list, expected);
        }
    }

    #[test]
    fn blocks_are_in_order_and_hold_every_word() {
        let blocks = whole(NASTY);
        let mut at = 0;
        for b in &blocks {
            assert!(b.range.start >= at && b.range.end > b.range.start && NASTY[at..b.range.start].trim().is_empty(), "{b:?}");
            at = b.range.end;
        }
        assert!(NASTY[at..].trim().is_empty());
    }

    #[test]
    fn code_tables_lists_and_formulas_are_told_apart() {
        let text =
            "Look:\n```py\nx = 1\n\ny\n```\n\n1. a\n\n   b\n\n1. c\n   ```\n   z\n   ```\n2. d\nP\n| q |\n|---|\n\n$$x$$\n";
        let shown: Vec<(&str, usize)> = whole(text)
            .iter()
            .map(|b| match &b.kind {
                Kind::Code { content, .. } => (&text[content.clone()], b.inset),
                Kind::Math { content } => (&text[content.clone()], b.inset),
                Kind::Text => (&text[b.range.clone()], b.inset),
            })
            .collect();
        let expected = [
            ("Look:", 0),
            ("x = 1\n\ny", 0),
            ("1. a\n\n   b\n\n1. c", 0),
            ("   z", 3),
            ("2. d\nP", 0),
            ("| q |\n|---|", 0),
            ("x", 0),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn links_may_be_defined_anywhere() {
        let text = "See [a].\n\n[a]: https://example.org\n\n```\n[b]: no\n```\n";
        assert_eq!(definitions(text, &whole(text)), "[a]: https://example.org\n");
    }
}
