//! What is changed in Markdown before it is drawn: delimiters of formulas that the parser does not know, images (nothing that a
//! model writes is fetched), and the end of a text that is still being written.

use std::borrow::Cow;

/// Takes `columns` of indentation off every line.
pub(super) fn dedent(text: &str, columns: usize) -> Cow<'_, str> {
    if columns == 0 {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let mut left = columns;
        let rest = line.trim_start_matches(|c| match c {
            ' ' if left >= 1 => {
                left -= 1;
                true
            }
            '\t' if left >= 1 => {
                left = left.saturating_sub(4);
                true
            }
            _ => false,
        });
        out.push_str(rest);
    }
    Cow::Owned(out)
}

/// The same text with `\(..\)` and `\[..\]` as `$..$` and `$$..$$`, and images as links. `live`: more will follow.
pub(super) fn inline(text: &str, live: bool) -> Cow<'_, str> {
    if !text.contains("\\(") && !text.contains("\\[") && !text.contains("![") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        match c {
            '`' => {
                let ticks = rest.bytes().take_while(|&b| b == b'`').count();
                taken = code_end(rest, ticks).unwrap_or(ticks);
                out.push_str(rest.get(..taken).unwrap_or(rest));
            }
            '\\' => {
                let pair = match rest.as_bytes().get(1) {
                    Some(b'(') => Some(("\\)", "$")),
                    Some(b'[') => Some(("\\]", "$$")),
                    _ => None,
                };
                let body = rest.get(2..).unwrap_or("");
                let end = pair.and_then(|(close, mark)| match body.find(close) {
                    Some(n) => Some((n, 4, mark)),
                    None if live => Some((body.len(), 2, mark)),
                    None => None,
                });
                if let Some((n, marks, mark)) = end {
                    let tex = body.get(..n).unwrap_or("").trim();
                    if !tex.is_empty() {
                        out.push_str(mark);
                        // A line that is empty would end the paragraph, and with it the formula.
                        out.extend(tex.split('\n').map(str::trim).filter(|l| !l.is_empty()).flat_map(|l| [l, "\n"]));
                        out.truncate(out.trim_end().len());
                        out.push_str(mark);
                    }
                    taken = n + marks;
                } else {
                    taken += rest.get(1..).and_then(|r| r.chars().next()).map_or(0, char::len_utf8);
                    out.push_str(rest.get(..taken).unwrap_or(rest));
                }
            }
            '!' if rest.starts_with("![") => {}
            c => out.push(c),
        }
        rest = rest.get(taken..).unwrap_or("");
    }
    Cow::Owned(out)
}

/// Length of a code span that begins with so many ticks.
fn code_end(text: &str, ticks: usize) -> Option<usize> {
    let mut at = ticks;
    loop {
        at += text.get(at..)?.find('`')?;
        let run = text.get(at..)?.bytes().take_while(|&b| b == b'`').count();
        at += run;
        if run == ticks {
            return Some(at);
        }
    }
}

/// The part of a text under way that can be shown: a last line of marks alone (of which it is not known yet what they will be)
/// is held back, so that nothing flickers between a heading, a list, code and a rule.
pub(super) fn settled(text: &str) -> &str {
    let start = text.rfind('\n').map_or(0, |n| n + 1);
    let last = text.get(start..).unwrap_or("").trim();
    let marks = !last.is_empty() && last.bytes().all(|b| b"-*+=#`~_>:|\\[$ ".contains(&b));
    let number = last.len() <= 3 && last.ends_with(['.', ')']) && last.bytes().rev().skip(1).all(|b| b.is_ascii_digit());
    let fence = last.len() >= 3 && (last.bytes().all(|b| b == b'`') || last.bytes().all(|b| b == b'~'));
    if (marks && !fence || number && last.len() > 1) && !in_table(text.get(..start).unwrap_or("")) {
        text.get(..start).unwrap_or("")
    } else {
        text
    }
}

/// Whether the line before the end is of a table.
fn in_table(before: &str) -> bool {
    before.trim_end_matches('\n').rsplit('\n').next().is_some_and(|l| l.trim_start().starts_with('|'))
        && !before.ends_with("\n\n")
}

/// The last block of a text under way, with what is open closed: a table that has no line of dashes yet, bold text, code, a
/// link whose address is still coming.
pub(super) fn mend(text: &str) -> Cow<'_, str> {
    if text.trim_start().starts_with('|') {
        return table(text);
    }
    let start = text.rfind('\n').map_or(0, |n| n + 1);
    let line = text.get(start..).unwrap_or("");
    let mut out = Cow::Borrowed(text);
    if let Some(n) = line.rfind("](").filter(|&n| !line.get(n..).is_some_and(|r| r.contains(')'))) {
        let open = line.get(..n).and_then(|l| l.rfind('['));
        if let Some(open) = open {
            let name = line.get(open + 1..n).unwrap_or("");
            out = Cow::Owned(format!("{}{name}", text.get(..start + open).unwrap_or("")));
        }
    }
    let tail = out.get(start.min(out.len())..).unwrap_or("").to_owned();
    if tail.bytes().filter(|&b| b == b'`').count() % 2 == 1 {
        let out_text = out.to_mut();
        if tail.ends_with('`') {
            out_text.pop();
        } else {
            out_text.push('`');
        }
        return out;
    }
    if tail.matches("**").count() % 2 == 1 {
        let kept = tail.trim_end();
        if kept.ends_with("**") {
            let len = out.trim_end().len().saturating_sub(2);
            out.to_mut().truncate(len);
        } else {
            let len = out.trim_end_matches([' ', '*']).len();
            out.to_mut().truncate(len);
            out.to_mut().push_str("**");
        }
    }
    out
}

/// A table under way, with its line of dashes.
fn table(text: &str) -> Cow<'_, str> {
    let (head, rest) = text.split_once('\n').unwrap_or((text, ""));
    let dashes = rest.lines().next().unwrap_or("");
    let columns = head.trim().trim_matches('|').split('|').count();
    let written = dashes.trim().trim_matches('|').split('|').filter(|c| c.contains('-')).count();
    let only = dashes.bytes().all(|b| b"|-: \t".contains(&b));
    if !only || (written == columns && rest.contains('\n')) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{head}\n|{}", "---|".repeat(columns)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_and_images_outside_of_code() {
        assert_eq!(inline(r"a \( x^2 \) b `\(c\)` \[ y \] \\(d) 日", false), r"a $x^2$ b `\(c\)` $$y$$ \\(d) 日");
        assert_eq!(inline(r"open \( x", true), "open $x$");
        assert_eq!(inline(r"open \( x", false), r"open \( x");
        assert_eq!(inline("![alt](https://a.b) !", false), "[alt](https://a.b) !");
        assert!(matches!(inline("plain $x$", false), Cow::Borrowed(_)));
    }

    #[test]
    fn marks_alone_are_held_back_until_it_is_known_what_they_are() {
        for (text, shown) in [
            ("Items:\n-", "Items:\n"),
            ("a\n``", "a\n"),
            ("a\n```", "a\n```"),
            ("a\n12.", "a\n"),
            ("a\n12", "a\n12"),
            ("a\n- b", "a\n- b"),
            ("| a |\n|-", "| a |\n|-"),
            ("日本", "日本"),
        ] {
            assert_eq!(settled(text), shown);
        }
    }

    #[test]
    fn what_is_open_is_closed() {
        for (text, mended) in [
            ("a **b", "a **b**"),
            ("a **", "a "),
            ("a **b *", "a **b**"),
            ("a `b", "a `b`"),
            ("see [name](https://a", "see name"),
            ("whole **b** `c` [d](e)", "whole **b** `c` [d](e)"),
            ("| a | b", "| a | b\n|---|---|"),
            ("| a | b |\n|-", "| a | b |\n|---|---|"),
            ("| a | b |\n|---|---|\n| 1", "| a | b |\n|---|---|\n| 1"),
        ] {
            assert_eq!(mend(text), mended);
        }
    }

    #[test]
    fn indentation_is_taken_off() {
        assert_eq!(dedent("   a\n     b\n c\n\td", 3), "a\n  b\nc\nd");
    }
}
