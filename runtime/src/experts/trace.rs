//! A trace of routing and residency: one row for each expert that each token chose, as CSV or JSON lines.

use std::{
    fmt,
    io::{self, BufRead, Read as _, Write},
    path::Path,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Columns of a CSV trace, in the order in which they are written.
const COLUMNS: [&str; 7] = ["position", "layer", "rank", "expert", "weight", "residency", "bytes"];

/// Nothing that is a trace has longer lines.
const LONGEST_LINE: u64 = 64 << 10;

/// How a chosen expert was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Served {
    /// It was resident.
    Hit,
    /// Uploaded for this token.
    Fetched,
    /// Read by a kernel from host memory.
    Gathered,
    /// Computed by the CPU.
    Cpu,
    /// Went by with its layer in a long chunk.
    Streamed,
    /// The whole model runs on the CPU.
    Host,
}

impl Served {
    /// Every way.
    pub const ALL: [Self; 6] = [Self::Hit, Self::Fetched, Self::Gathered, Self::Cpu, Self::Streamed, Self::Host];

    /// Its name in a trace.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Fetched => "fetched",
            Self::Gathered => "gathered",
            Self::Cpu => "cpu",
            Self::Streamed => "streamed",
            Self::Host => "host",
        }
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Served {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|s| s.name() == text).ok_or_else(|| format!("expected one of {}", known()))
    }
}

/// One expert chosen for one token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Routed {
    /// Position of the token in its sequence.
    pub position: u32,
    /// Layer of the model, dense layers counted.
    pub layer: u16,
    /// 0: the largest weight.
    pub rank: u16,
    /// Expert within the layer.
    pub expert: u16,
    /// What its output is multiplied by.
    pub weight: f32,
    /// How it was served; `residency` in a trace.
    #[serde(rename = "residency")]
    pub served: Served,
    /// Bytes moved for it; 0 where it was resident or computed by the CPU.
    pub bytes: u64,
}

impl Routed {
    /// The experts of one token at one layer, ranked by weight; nothing moved for them.
    pub fn ranked<'a>(
        position: u32,
        layer: usize,
        experts: &'a [u32],
        weights: &'a [f32],
        served: Served,
    ) -> impl Iterator<Item = Self> + use<'a> {
        let mut order: Vec<usize> = (0..experts.len().min(weights.len())).collect();
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
        order.into_iter().enumerate().map(move |(rank, i)| Self {
            position,
            layer: layer as u16,
            rank: rank as u16,
            expert: experts[i] as u16,
            weight: weights[i],
            served,
            bytes: 0,
        })
    }
}

/// What a trace says of its own residency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Recorded {
    /// Experts chosen while the model ran on a device with slots: all rows but those of [`Served::Host`].
    pub lookups: u64,
    /// Of these, the ones that were resident.
    pub hits: u64,
    /// Bytes moved.
    pub bytes: u64,
}

impl Recorded {
    /// Counts rows.
    pub fn of(rows: &[Routed]) -> Self {
        rows.iter().fold(Self::default(), |sum, row| Self {
            lookups: sum.lookups + u64::from(row.served != Served::Host),
            hits: sum.hits + u64::from(row.served == Served::Hit),
            bytes: sum.bytes.saturating_add(row.bytes),
        })
    }

    /// Hits a lookup; `None` where nothing was looked up.
    pub fn hit_rate(&self) -> Option<f64> {
        (self.lookups > 0).then(|| self.hits as f64 / self.lookups as f64)
    }
}

/// Form of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceFormat {
    /// A line of column names, then comma-separated values.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

impl TraceFormat {
    /// What a file of this name holds: JSON lines for `.jsonl`, `.ndjson` and `.json`, else CSV.
    pub fn from_path(path: &Path) -> Self {
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("jsonl" | "ndjson" | "json") => Self::Jsonl,
            _ => Self::Csv,
        }
    }
}

/// Writes a trace, row by row.
#[derive(Debug)]
pub struct TraceWriter<W: Write> {
    out: W,
    format: TraceFormat,
    buffer: Vec<u8>,
}

impl<W: Write> TraceWriter<W> {
    /// Begins a trace: writes the column names where the format has them.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(mut out: W, format: TraceFormat) -> io::Result<Self> {
        if format == TraceFormat::Csv {
            writeln!(out, "{}", COLUMNS.join(","))?;
        }
        Ok(Self { out, format, buffer: Vec::new() })
    }

    /// Appends rows, with one write.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn rows(&mut self, rows: &[Routed]) -> io::Result<()> {
        self.buffer.clear();
        for row in rows {
            match self.format {
                TraceFormat::Csv => {
                    let Routed { position, layer, rank, expert, weight, served, bytes } = row;
                    writeln!(self.buffer, "{position},{layer},{rank},{expert},{weight},{served},{bytes}")?;
                }
                TraceFormat::Jsonl => {
                    serde_json::to_writer(&mut self.buffer, row)?;
                    self.buffer.push(b'\n');
                }
            }
        }
        self.out.write_all(&self.buffer)
    }

    /// Flushes, and gives back what was written to.
    ///
    /// # Errors
    /// Those of `out`: what was written may be incomplete then.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Reads a trace. Its first line tells which format it has; a CSV trace may have more columns, in any order.
///
/// # Errors
/// [`Error::File`] names the file, and the line that is no row of a trace.
#[cfg(not(target_arch = "wasm32"))]
pub fn read(path: &Path) -> Result<Vec<Routed>> {
    let name = path.display().to_string();
    match std::fs::File::open(path) {
        Ok(file) => read_from(io::BufReader::with_capacity(1 << 20, file), &name),
        Err(e) => Err(Error::File { file: name, what: e.to_string() }),
    }
}

/// [`read`] from any source; `name` is what errors call it.
///
/// # Errors
/// As [`read`].
pub fn read_from(mut source: impl BufRead, name: &str) -> Result<Vec<Routed>> {
    enum Form {
        Unknown,
        Csv([usize; COLUMNS.len()]),
        Jsonl,
    }
    let mut form = Form::Unknown;
    let mut rows = Vec::new();
    let mut line = Vec::new();
    for number in 1u64.. {
        let wrong = |what: String| Error::File { file: name.to_owned(), what: format!("line {number}: {what}") };
        line.clear();
        let length = (&mut source).take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(|e| wrong(e.to_string()))?;
        if length == 0 {
            break;
        }
        if length as u64 == LONGEST_LINE && !line.ends_with(b"\n") {
            return Err(wrong(format!("longer than {LONGEST_LINE} bytes; this is no trace")));
        }
        let text = std::str::from_utf8(&line).map_err(|_| wrong("not UTF-8; this is no trace".into()))?;
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            continue;
        }
        if matches!(form, Form::Unknown) {
            if !text.starts_with('{') {
                form = Form::Csv(csv_columns(text).map_err(wrong)?);
                continue;
            }
            form = Form::Jsonl;
        }
        let row = match &form {
            Form::Csv(columns) => csv_row(text, columns),
            Form::Jsonl | Form::Unknown => serde_json::from_str(text).map_err(json_says),
        };
        let row: Routed = row.map_err(wrong)?;
        if !row.weight.is_finite() {
            return Err(wrong(format!("weight {} is not finite", row.weight)));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Where each of [`COLUMNS`] is.
fn csv_columns(header: &str) -> Result<[usize; COLUMNS.len()], String> {
    let mut places = [0; COLUMNS.len()];
    for (place, column) in places.iter_mut().zip(COLUMNS) {
        let found = header.split(',').position(|name| name.trim() == column);
        *place = found.ok_or_else(|| format!("no column {column}; a trace begins with {}", COLUMNS.join(",")))?;
    }
    Ok(places)
}

fn csv_row(text: &str, columns: &[usize; COLUMNS.len()]) -> Result<Routed, String> {
    fn number<T: FromStr<Err: fmt::Display>>((column, text): (&str, Option<&str>)) -> Result<T, String> {
        let text = text.ok_or_else(|| format!("no {column}"))?;
        text.parse().map_err(|e| format!("{column} {text:?}: {e}"))
    }
    let mut fields = columns.iter().zip(COLUMNS).map(|(&at, column)| (column, text.split(',').nth(at).map(str::trim)));
    let mut next = || fields.next().unwrap_or_default();
    Ok(Routed {
        position: number(next())?,
        layer: number(next())?,
        rank: number(next())?,
        expert: number(next())?,
        weight: number(next())?,
        served: number(next())?,
        bytes: number(next())?,
    })
}

/// The parser counts lines of what it was given, which is always one.
fn json_says(error: serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("column {}: {what}", error.column())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
    use super::*;

    fn rows() -> Vec<Routed> {
        let row = |position, layer, rank, expert, weight, served, bytes| Routed {
            position,
            layer,
            rank,
            expert,
            weight,
            served,
            bytes,
        };
        vec![
            row(0, 1, 0, 63, 0.1, Served::Hit, 0),
            row(0, 1, 1, 0, 1.0 / 3.0, Served::Gathered, 4_866_048),
            row(u32::MAX, u16::MAX, u16::MAX, u16::MAX, 1.5e-30, Served::Streamed, u64::MAX >> 11),
            row(7, 2, 0, 5, 2.5, Served::Cpu, 0),
            row(7, 2, 1, 6, -0.0, Served::Fetched, 1),
            row(8, 2, 1, 6, f32::MIN_POSITIVE, Served::Host, 0),
        ]
    }

    fn written(rows: &[Routed], format: TraceFormat) -> String {
        let mut writer = TraceWriter::new(Vec::new(), format).unwrap();
        let (head, tail) = rows.split_at(rows.len() / 2);
        writer.rows(head).unwrap();
        writer.rows(tail).unwrap();
        String::from_utf8(writer.finish().unwrap()).unwrap()
    }

    fn said(text: &str) -> String {
        read_from(text.as_bytes(), "t.csv").unwrap_err().to_string()
    }

    #[test]
    fn both_forms_read_back_as_written() {
        for format in [TraceFormat::Csv, TraceFormat::Jsonl] {
            let text = written(&rows(), format);
            assert_eq!(read_from(text.as_bytes(), "t").unwrap(), rows(), "{text}");
            // As other systems write lines.
            let text = format!("\u{feff}{}\r\n", text.replace('\n', "\r\n"));
            assert_eq!(read_from(text.as_bytes(), "t").unwrap(), rows(), "{text}");
        }
    }

    #[test]
    fn the_forms_are_what_they_are_said_to_be() {
        let text = written(&rows()[..2], TraceFormat::Csv);
        let expected =
            "position,layer,rank,expert,weight,residency,bytes\n0,1,0,63,0.1,hit,0\n0,1,1,0,0.33333334,gathered,4866048\n";
        assert_eq!(text, expected);
        let text = written(&rows()[..1], TraceFormat::Jsonl);
        let expected = r#"{"position":0,"layer":1,"rank":0,"expert":63,"weight":0.1,"residency":"hit","bytes":0}"#;
        assert_eq!(text.trim_end(), expected);
    }

    #[test]
    fn every_way_has_one_name() {
        for served in Served::ALL {
            assert_eq!(served.name().parse::<Served>().unwrap(), served);
            assert_eq!(serde_json::to_string(&served).unwrap(), format!("\"{served}\""));
        }
        assert!("missed".parse::<Served>().unwrap_err().contains("hit, fetched, gathered, cpu, streamed, host"));
    }

    #[test]
    fn formats_by_name() {
        for (name, format) in [
            ("a.csv", TraceFormat::Csv),
            ("a", TraceFormat::Csv),
            ("jsonl", TraceFormat::Csv),
            ("a.b.JSONL", TraceFormat::Jsonl),
            ("a.ndjson", TraceFormat::Jsonl),
            ("a.json", TraceFormat::Jsonl),
        ] {
            assert_eq!(TraceFormat::from_path(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn columns_may_be_moved_and_added() {
        let text = "note,expert,layer,position,rank,bytes,residency,weight\nx, 3 ,1,9,0,0,hit,0.5\n\n";
        let row = Routed { position: 9, layer: 1, rank: 0, expert: 3, weight: 0.5, served: Served::Hit, bytes: 0 };
        assert_eq!(read_from(text.as_bytes(), "t").unwrap(), [row]);
        assert_eq!(read_from(&b"\n \n"[..], "t").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let csv = COLUMNS.join(",");
        let json = r#"{"position":0,"layer":1,"rank":0,"expert":63,"weight":0.1,"residency":"hit","bytes":0}"#;
        for (text, line, what) in [
            ("position,layer\n".to_owned(), 1, "no column rank"),
            (format!("{csv}\n0,1,0,65536,0.1,hit,0\n"), 2, "expert \"65536\": number too large"),
            (format!("{csv}\n0,1,0,1,0.1,hit,0\n\n0,1,0,1,0.1,hit\n"), 4, "no bytes"),
            (format!("{csv}\n0,1,0,1,0.1,missed,0\n"), 2, "residency \"missed\": expected one of hit"),
            (format!("{csv}\n-1,1,0,1,0.1,hit,0\n"), 2, "position \"-1\": invalid digit"),
            (format!("{csv}\n0,1,0,1,NaN,hit,0\n"), 2, "weight NaN is not finite"),
            (format!("{json}\n{json}\n{}", json.replace("63", "-3")), 3, "invalid value"),
            (format!("{json}\n{}", json.replace("0.1", "1e39")), 2, "weight inf is not finite"),
            (format!("{json}\n{}", json.replace(",\"rank\":0", "")), 2, "missing field `rank`"),
            (format!("{json}\n{}", &json[..20]), 2, "column 20: EOF"),
            (format!("{json}\n{csv}"), 2, "column 1: expected value"),
            ("x".repeat(LONGEST_LINE as usize + 1), 1, "longer than 65536 bytes"),
        ] {
            let error = said(&text);
            assert!(error.starts_with(&format!("t.csv: line {line}: ")) && error.contains(what), "{error}");
        }
        let error = read_from(&b"\xff\xfe\n"[..], "t").unwrap_err().to_string();
        assert_eq!(error, "t: line 1: not UTF-8; this is no trace");
        let error = read(Path::new("no-such-trace.csv")).unwrap_err().to_string();
        assert!(error.starts_with("no-such-trace.csv: "), "{error}");
    }

    #[test]
    fn a_trace_cut_anywhere_is_read_or_refused() {
        for format in [TraceFormat::Csv, TraceFormat::Jsonl] {
            let text = written(&rows(), format);
            for end in 0..text.len() {
                if let Ok(read) = read_from(&text.as_bytes()[..end], "t") {
                    // All but the last row are as they were; numbers of the last may have lost digits.
                    let whole = read.len().saturating_sub(1);
                    assert_eq!(read[..whole], rows()[..whole]);
                }
            }
        }
    }

    #[test]
    fn what_was_recorded() {
        let recorded = Recorded::of(&rows());
        assert_eq!((recorded.lookups, recorded.hits), (5, 1));
        assert_eq!(recorded.hit_rate(), Some(0.2));
        assert_eq!(recorded.bytes, (u64::MAX >> 11) + 4_866_049);
        assert_eq!(Recorded::of(&rows()[5..]).hit_rate(), None);
    }
}
