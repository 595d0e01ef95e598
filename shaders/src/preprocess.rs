//! The preprocessor: imports, conditions, unrolled loops and substitution, one directive a line.
//!
//! ```text
//! #import shared/step.wgsl ACCESS=read    the file's text, once for each path and arguments
//! #ifdef NAME / #ifndef NAME / #else / #endif
//! #for r in 0..#{ROWS} / #endfor          the lines between, once for each r
//! #{NAME}                                 the value of a define, an argument of the import or a loop's variable
//! ```

use std::collections::BTreeMap;

use crate::ShaderError;

/// Imports deeper than this are taken for a cycle.
const MAX_DEPTH: usize = 16;
/// Most rounds of one `#for`.
const MAX_ROUNDS: u32 = 256;

/// Values by name.
pub(crate) type Names = BTreeMap<String, String>;

/// Where preprocessing has come to.
pub(crate) struct Preprocessor<'a> {
    /// The text of a file.
    files: &'a dyn Fn(&str) -> Option<&'a str>,
    /// Imports done: path and arguments.
    done: Vec<(String, Vec<(String, String)>)>,
    out: String,
}

/// Lines of one file, with what their errors need.
struct Source<'s, 'a> {
    file: &'s str,
    lines: Vec<&'a str>,
}

impl<'a> Preprocessor<'a> {
    /// Preprocesses `file`, whose text and imports `files` knows.
    pub(crate) fn run(files: &'a dyn Fn(&str) -> Option<&'a str>, file: &str, names: &Names) -> Result<String, ShaderError> {
        let text = files(file).ok_or_else(|| ShaderError::UnknownKernel { kernel: file.to_owned() })?;
        let mut this = Self { files, done: Vec::new(), out: String::new() };
        let source = Source { file, lines: text.lines().collect() };
        this.block(&source, 0..source.lines.len(), names, 0)?;
        Ok(this.out)
    }

    fn block(
        &mut self,
        source: &Source<'_, 'a>,
        range: std::ops::Range<usize>,
        names: &Names,
        depth: usize,
    ) -> Result<(), ShaderError> {
        let mut at = range.start;
        while at < range.end {
            let line = source.lines[at];
            let Some(directive) = directive(line) else {
                self.out.push_str(&substitute(line, names, source.file, at)?);
                self.out.push('\n');
                at += 1;
                continue;
            };
            let directive = substitute(directive, names, source.file, at)?;
            let (word, rest) = directive.split_once(char::is_whitespace).unwrap_or((&directive, ""));
            let rest = rest.trim();
            match word {
                "#import" => {
                    self.import(source.file, at, rest, names, depth)?;
                    at += 1;
                }
                "#ifdef" | "#ifndef" => {
                    if rest.is_empty() || rest.contains(char::is_whitespace) {
                        return Err(error(source.file, at, format!("`{word}` needs one name, not `{rest}`")));
                    }
                    let (other, end) = condition_end(source, at, range.end)?;
                    let chosen = if names.contains_key(rest) == (word == "#ifdef") {
                        at + 1..other.unwrap_or(end)
                    } else {
                        other.map_or(end, |o| o + 1)..end
                    };
                    self.block(source, chosen, names, depth)?;
                    at = end + 1;
                }
                "#for" => {
                    let end = matching(source, at, range.end, "#for", "#endfor")?;
                    let (name, rounds) = for_header(rest).map_err(|m| error(source.file, at, m))?;
                    for round in rounds {
                        let mut inner = names.clone();
                        inner.insert(name.clone(), round.to_string());
                        self.block(source, at + 1..end, &inner, depth)?;
                    }
                    at = end + 1;
                }
                "#else" | "#endif" | "#endfor" => {
                    return Err(error(source.file, at, format!("`{word}` without its beginning")));
                }
                _ => return Err(error(source.file, at, format!("unknown directive `{word}`"))),
            }
        }
        Ok(())
    }

    fn import(&mut self, from: &str, line: usize, rest: &str, names: &Names, depth: usize) -> Result<(), ShaderError> {
        let mut words = rest.split_whitespace();
        let path = words.next().ok_or_else(|| error(from, line, "`#import` needs a path".into()))?;
        let mut inner = names.clone();
        let mut arguments = Vec::new();
        for word in words {
            let (name, value) = word.split_once('=').ok_or_else(|| error(from, line, format!("`{word}` is no NAME=value")))?;
            arguments.push((name.to_owned(), value.to_owned()));
            inner.insert(name.to_owned(), value.to_owned());
        }
        let key = (path.to_owned(), arguments);
        if self.done.contains(&key) {
            return Ok(());
        }
        if depth == MAX_DEPTH {
            return Err(error(from, line, format!("imports are nested more than {MAX_DEPTH} deep")));
        }
        let text = (self.files)(path).ok_or_else(|| error(from, line, format!("there is no file `{path}`")))?;
        self.done.push(key);
        let source = Source { file: path, lines: text.lines().collect() };
        self.block(&source, 0..source.lines.len(), &inner, depth + 1)
    }
}

/// The directive on a line, if it is one.
fn directive(line: &str) -> Option<&str> {
    let line = line.trim();
    // `#{NAME}` at the beginning of a line is text.
    (line.starts_with('#') && !line.starts_with("#{")).then_some(line)
}

fn word(line: &str) -> &str {
    directive(line).map_or("", |d| d.split_whitespace().next().unwrap_or(""))
}

fn error(file: &str, line: usize, message: String) -> ShaderError {
    ShaderError::Directive { file: file.to_owned(), line: line + 1, message }
}

/// The line of the end that belongs to the beginning at `at`.
fn matching(source: &Source<'_, '_>, at: usize, end: usize, open: &str, close: &str) -> Result<usize, ShaderError> {
    let mut depth = 0usize;
    for i in at + 1..end {
        let w = word(source.lines[i]);
        if w == open {
            depth += 1;
        } else if w == close {
            if depth == 0 {
                return Ok(i);
            }
            depth -= 1;
        }
    }
    Err(error(source.file, at, format!("`{open}` without `{close}`")))
}

/// The lines of `#else`, if there is one, and of `#endif`.
fn condition_end(source: &Source<'_, '_>, at: usize, end: usize) -> Result<(Option<usize>, usize), ShaderError> {
    let (mut depth, mut other) = (0usize, None);
    for i in at + 1..end {
        match word(source.lines[i]) {
            "#ifdef" | "#ifndef" => depth += 1,
            "#else" if depth == 0 => {
                if other.is_some() {
                    return Err(error(source.file, i, "a second `#else`".into()));
                }
                other = Some(i);
            }
            "#endif" if depth == 0 => return Ok((other, i)),
            "#endif" => depth -= 1,
            _ => {}
        }
    }
    Err(error(source.file, at, format!("`{}` without `#endif`", word(source.lines[at]))))
}

/// `r in 0..4`.
fn for_header(rest: &str) -> Result<(String, std::ops::Range<u32>), String> {
    let wrong = || format!("`#for {rest}` is not `#for NAME in A..B`");
    let (name, range) = rest.split_once(" in ").ok_or_else(wrong)?;
    let (from, to) = range.split_once("..").ok_or_else(wrong)?;
    let (from, to): (u32, u32) = (from.trim().parse().map_err(|_| wrong())?, to.trim().parse().map_err(|_| wrong())?);
    if to.saturating_sub(from) > MAX_ROUNDS {
        return Err(format!("`#for {rest}` has more than {MAX_ROUNDS} rounds"));
    }
    Ok((name.trim().to_owned(), from..to))
}

/// Replaces every `#{NAME}`.
fn substitute(line: &str, names: &Names, file: &str, at: usize) -> Result<String, ShaderError> {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("#{") {
        let (name, after) = after.split_once('}').ok_or_else(|| error(file, at, "`#{` without `}`".into()))?;
        let value = names.get(name).ok_or_else(|| ShaderError::MissingDefine {
            file: file.to_owned(),
            line: at + 1,
            name: name.to_owned(),
        })?;
        out.push_str(before);
        out.push_str(value);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test may fail.

    use super::*;

    fn run(files: &[(&str, &str)], names: &[(&str, &str)]) -> Result<String, String> {
        let find = |path: &str| files.iter().find(|(p, _)| *p == path).map(|(_, text)| *text);
        let names = names.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Preprocessor::run(&find, "main", &names).map_err(|e| e.to_string())
    }

    fn text(main: &str, names: &[(&str, &str)]) -> Result<String, String> {
        run(&[("main", main)], names)
    }

    #[test]
    fn conditions_choose_and_nest() {
        let main = "#ifdef A\na\n#ifndef B\nab\n#else\nb\n#endif\n#else\nx\n#endif\nend";
        assert_eq!(text(main, &[("A", "1")]).unwrap(), "a\nab\nend\n");
        assert_eq!(text(main, &[("A", "1"), ("B", "1")]).unwrap(), "a\nb\nend\n");
        assert_eq!(text(main, &[("B", "1")]).unwrap(), "x\nend\n");
    }

    #[test]
    fn loops_unroll_nest_and_may_be_empty() {
        let main = "#for r in 0..#{R}\n#for t in 1..3\na#{r}_#{t}\n#endfor\n#endfor\n#for q in 2..2\nno\n#endfor";
        assert_eq!(text(main, &[("R", "2")]).unwrap(), "a0_1\na0_2\na1_1\na1_2\n");
    }

    #[test]
    fn names_are_substituted_even_at_the_beginning_of_a_line() {
        assert_eq!(text("#{P}f(#{P})", &[("P", "x")]).unwrap(), "xf(x)\n");
    }

    #[test]
    fn a_file_is_imported_once_for_each_set_of_arguments() {
        let files = [("main", "#import f P=a\n#import f P=b\n#import f P=a\nend"), ("f", "#{P}\n#import g"), ("g", "g")];
        assert_eq!(run(&files, &[]).unwrap(), "a\ng\nb\nend\n");
    }

    #[test]
    fn arguments_end_with_the_imported_file() {
        let files = [("main", "#import f P=a\n#{P}"), ("f", "f")];
        assert_eq!(run(&files, &[]).unwrap_err(), "main:2: `P` is not defined");
    }

    #[test]
    fn errors_name_file_and_line() {
        for (main, message) in [
            ("\n#ifdef A\n", "main:2: `#ifdef` without `#endif`"),
            ("#ifdef\n#endif", "main:1: `#ifdef` needs one name, not ``"),
            ("#endif", "main:1: `#endif` without its beginning"),
            ("#ifdef A\n#else\n#else\n#endif", "main:3: a second `#else`"),
            ("#for r in 0..2\nx", "main:1: `#for` without `#endfor`"),
            ("#for r 0..2\nx\n#endfor", "main:1: `#for r 0..2` is not `#for NAME in A..B`"),
            ("#for r in 0..999\nx\n#endfor", "main:1: `#for r in 0..999` has more than 256 rounds"),
            ("x\n#define A", "main:2: unknown directive `#define`"),
            ("a #{B} c", "main:1: `B` is not defined"),
            ("a #{B c", "main:1: `#{` without `}`"),
            ("#import", "main:1: `#import` needs a path"),
            ("#import none.wgsl", "main:1: there is no file `none.wgsl`"),
            ("#import main X", "main:1: `X` is no NAME=value"),
        ] {
            assert_eq!(text(main, &[]).unwrap_err(), message, "{main:?}");
        }
    }

    #[test]
    fn errors_in_imports_name_the_import() {
        let files = [("main", "#import f"), ("f", "\n#{X}")];
        assert_eq!(run(&files, &[]).unwrap_err(), "f:2: `X` is not defined");
    }

    #[test]
    fn cycles_end() {
        // Arguments that differ at every level defeat "once".
        let files = [("main", "#import f P=0"), ("f", "#import f P=#{P}0")];
        assert_eq!(run(&files, &[]).unwrap_err(), "f:1: imports are nested more than 16 deep");
    }
}
