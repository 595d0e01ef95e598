//! Finding commands by a few of their letters.

use super::Command;

/// Most letters of a query that are looked at.
const MOST: usize = 32;

/// A command that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Which.
    pub command: Command,
    /// The letters found in its name, as indices of characters, in order.
    pub in_name: Vec<usize>,
    /// The same in its explanation.
    pub in_explanation: Vec<usize>,
}

/// The commands that have all words of `query` in their name or explanation, best first; all of them for an empty query.
pub(super) fn search(query: &str) -> Vec<Found> {
    let words: Vec<Vec<char>> = query.split_whitespace().map(|w| w.chars().map(fold).take(MOST).collect()).collect();
    let mut found: Vec<(i32, Found)> = Command::here().filter_map(|c| matched(c, &words)).collect();
    // Stable: equally good ones stay in the order of lists.
    found.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    found.into_iter().map(|(_, f)| f).collect()
}

/// How well a command has all of these words.
fn matched(command: Command, words: &[Vec<char>]) -> Option<(i32, Found)> {
    let mut found = Found { command, in_name: Vec::new(), in_explanation: Vec::new() };
    let mut score = 0;
    for word in words {
        // Any name comes before every explanation.
        if let Some((s, at)) = subsequence(word, command.name(), false) {
            score += 1000 + s;
            found.in_name.extend(at);
        } else {
            let (s, at) = subsequence(word, command.explanation(), true)?;
            score += s;
            found.in_explanation.extend(at);
        }
    }
    for at in [&mut found.in_name, &mut found.in_explanation] {
        at.sort_unstable();
        at.dedup();
    }
    Some((score, found))
}

/// Finds `word` as a subsequence of `text`, case ignored, in the place where it reads best: letters in a row and letters that
/// begin words count more than others. Returns the score and the indices of the characters. `runs`: a letter must begin a word
/// or follow the letter found before it; running texts would else have nearly every subsequence.
fn subsequence(word: &[char], text: &str, runs: bool) -> Option<(i32, Vec<usize>)> {
    const IN_A_ROW: i32 = 8;
    const WORD: i32 = 6;
    const FIRST: i32 = 4;
    let text: Vec<char> = text.chars().map(fold).collect();
    let begins = |j: usize| j == 0 || text.get(j - 1).is_some_and(|c| !c.is_alphanumeric());
    // scores[j]: the best for the letters so far, the last of them at j; from[i][j]: where the letter before it is then.
    let mut scores: Vec<Option<i32>> = Vec::new();
    let mut from: Vec<Vec<usize>> = Vec::with_capacity(word.len());
    for (i, letter) in word.iter().enumerate() {
        let mut next = vec![None; text.len()];
        let mut back = vec![0; text.len()];
        // The best of the letters so far that ends before j - 1.
        let mut apart: Option<(i32, usize)> = None;
        for (j, c) in text.iter().enumerate() {
            if i > 0
                && j >= 2
                && let Some(Some(s)) = scores.get(j - 2)
                && apart.is_none_or(|(best, _)| *s > best)
            {
                apart = Some((*s, j - 2));
            }
            if c != letter {
                continue;
            }
            let bonus = if begins(j) { WORD } else { 0 } + if j == 0 { FIRST } else { 0 };
            if i == 0 {
                next[j] = (!runs || begins(j)).then_some(1 + bonus);
                continue;
            }
            let in_a_row = j.checked_sub(1).and_then(|k| Some((scores.get(k).copied().flatten()? + IN_A_ROW, k)));
            let jump = apart.filter(|_| !runs || begins(j));
            if let Some((s, k)) = in_a_row.into_iter().chain(jump).max_by_key(|(s, _)| *s) {
                (next[j], back[j]) = (Some(s + 1 + bonus), k);
            }
        }
        scores = next;
        from.push(back);
    }
    let (mut at, score) =
        scores.iter().enumerate().filter_map(|(j, s)| Some((j, (*s)?))).max_by_key(|&(j, s)| (s, text.len() - j))?;
    let mut places = vec![at];
    for back in from.iter().skip(1).rev() {
        at = back.get(at).copied()?;
        places.push(at);
    }
    places.reverse();
    Some((score, places))
}

fn fold(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    fn places(word: &str, text: &str, runs: bool) -> Option<Vec<usize>> {
        subsequence(&word.chars().collect::<Vec<_>>(), text, runs).map(|(_, at)| at)
    }

    #[test]
    fn letters_are_found_where_they_read_best() {
        assert_eq!(places("nc", "New conversation", false).unwrap(), [0, 4]);
        assert_eq!(places("con", "Continue conversation", false).unwrap(), [0, 1, 2]);
        assert_eq!(places("ver", "New conversation", false).unwrap(), [7, 8, 9]);
        assert_eq!(places("aa", "Export as Markdown", false).unwrap(), [7, 11]);
        assert_eq!(places("md", "Export as Markdown", false).unwrap(), [10, 14]);
        assert_eq!(places("x", "New conversation", false), None);
        assert_eq!(places("newnew", "New", false), None);
        assert_eq!(places("bac", "Begin another conversation", true).unwrap(), [0, 6, 14]);
        assert_eq!(places("gin", "Begin another conversation", true), None);
    }

    #[test]
    fn the_best_comes_first() {
        let first = |q: &str| search(q).first().map(|f| f.command);
        assert_eq!(first(""), Some(Command::NewChat));
        assert_eq!(search("").len(), Command::ALL.len());
        assert_eq!(first("new"), Some(Command::NewChat));
        assert_eq!(first("expmark"), Some(Command::ExportMarkdown));
        assert_eq!(first("json"), Some(Command::ExportJson));
        assert_eq!(first("LOG"), Some(Command::ShowLog));
        assert_eq!(first("text larger"), Some(Command::LargerText));
        // In the explanation only.
        assert_eq!(first("safetensors"), Some(Command::OpenFolder));
        assert!(search("zzz").is_empty());
    }
}
