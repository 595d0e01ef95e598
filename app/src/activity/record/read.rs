//! Text as a record, checked against a model's shape.

use std::{collections::HashMap, fmt::Display, str::FromStr};

use pleiad_runtime::experts::trace::{Routed, Served};
use serde::Deserialize;

use super::Record;
use crate::activity::{Phase, Shape, TokenRow};

/// Most rows that are read.
const MOST: usize = 16 << 20;

/// Seconds that tokens take in a replay where a record does not say: read, and written.
const PACE: [f64; 2] = [0.002, 0.05];

/// A row as it is written; what `pleiad run --trace` does not write is optional.
#[derive(Deserialize)]
struct Row {
    run: Option<u64>,
    time: Option<f64>,
    phase: Option<String>,
    id: Option<u32>,
    text: Option<String>,
    #[serde(flatten)]
    routed: Routed,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Head {
    model: Option<String>,
    layers: Option<usize>,
    experts: Option<usize>,
    top_k: Option<usize>,
}

impl Head {
    /// Whether the record is of a model of that shape. Names may differ: models are tuned and renamed.
    fn check(&self, shape: &Shape) -> Result<(), String> {
        let sizes = [(self.layers, shape.layers.len()), (self.experts, shape.experts), (self.top_k, shape.top_k)];
        if sizes.iter().all(|(said, is)| said.is_none_or(|said| said == *is)) {
            return Ok(());
        }
        let [layers, experts, top_k] = sizes.map(|(said, _)| said.map_or("an unknown number of".into(), |n| n.to_string()));
        Err(format!(
            "this record is of {} with {layers} layers, {experts} experts and {top_k} chosen at a time; {} has {}, {} and {}",
            self.model.as_deref().filter(|m| !m.is_empty()).unwrap_or("a model"),
            shape.model,
            shape.layers.len(),
            shape.experts,
            shape.top_k,
        ))
    }
}

/// Reads a record: CSV or JSON lines, of this program or of `pleiad run --trace`.
///
/// # Errors
/// In words, with the line: where it is no record, or one of a model of another shape.
pub fn read(bytes: &[u8], shape: &Shape) -> Result<Record, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "this is no record: it is not text".to_owned())?;
    let text = text.trim_start_matches('\u{feff}');
    let mut builder = Builder::new(shape);
    if text.trim_start().starts_with('{') {
        jsonl(text, &mut builder)?
    } else {
        csv(text, &mut builder)?
    }
    builder.finish()
}

fn jsonl(text: &str, builder: &mut Builder<'_>) -> Result<(), String> {
    let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.trim())).filter(|(_, line)| !line.is_empty());
    for (count, (number, line)) in lines.enumerate() {
        let wrong = |what: String| format!("line {number}: {what}");
        if count == 0 && !line.contains("\"expert\"") {
            let head: Head = serde_json::from_str(line).map_err(|e| wrong(json_says(&e)))?;
            builder.head(head)?;
            continue;
        }
        let row: Row = serde_json::from_str(line).map_err(|e| wrong(json_says(&e)))?;
        builder.row(row).map_err(wrong)?;
    }
    Ok(())
}

/// The parser counts lines of what it was given, which is always one.
fn json_says(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("column {}: {what}", error.column())
}

/// Columns by name: required, then optional.
const COLUMNS: [&str; 12] =
    ["position", "layer", "rank", "expert", "weight", "residency", "bytes", "run", "time", "phase", "id", "text"];
const REQUIRED: usize = 7;

fn csv(text: &str, builder: &mut Builder<'_>) -> Result<(), String> {
    let mut reader = Csv { rest: text, line: 1 };
    let mut head = Head::default();
    while let Some(comment) = reader.comment() {
        if let Some(model) = comment.trim().strip_prefix("model=") {
            head.model = Some(model.trim().to_owned());
            continue;
        }
        for (key, value) in comment.split_whitespace().filter_map(|word| word.split_once('=')) {
            let place = match key {
                "layers" => &mut head.layers,
                "experts" => &mut head.experts,
                "top_k" => &mut head.top_k,
                _ => continue,
            };
            *place = Some(value.parse().map_err(|e| format!("line {}: {key} {value:?}: {e}", reader.line))?);
        }
    }
    builder.head(head)?;
    let mut fields = Vec::new();
    let number = reader.line;
    let names = if reader.next(&mut fields)? { fields.clone() } else { Vec::new() };
    let places = COLUMNS.map(|column| names.iter().position(|name| name.trim() == column));
    if let Some((column, _)) = COLUMNS.iter().zip(places).take(REQUIRED).find(|(_, place)| place.is_none()) {
        return Err(format!("line {number}: this is no record: it has no column {column}"));
    }
    loop {
        let number = reader.line;
        if !reader.next(&mut fields)? {
            return Ok(());
        }
        if let [only] = fields.as_slice()
            && only.trim().is_empty()
        {
            continue;
        }
        row(&fields, &places).and_then(|row| builder.row(row)).map_err(|what| format!("line {number}: {what}"))?;
    }
}

fn row(fields: &[String], places: &[Option<usize>; COLUMNS.len()]) -> Result<Row, String> {
    let field = |column: usize| places.get(column).copied().flatten().and_then(|at| fields.get(at)).map(String::as_str);
    fn parse<T: FromStr<Err: Display>>(column: usize, text: &str) -> Result<T, String> {
        let name = COLUMNS.get(column).copied().unwrap_or_default();
        text.trim().parse().map_err(|e| format!("{name} {text:?}: {e}"))
    }
    fn required<T: FromStr<Err: Display>>(column: usize, text: Option<&str>) -> Result<T, String> {
        let text = text.ok_or_else(|| format!("no {}", COLUMNS.get(column).copied().unwrap_or_default()))?;
        parse(column, text)
    }
    fn optional<T: FromStr<Err: Display>>(column: usize, text: Option<&str>) -> Result<Option<T>, String> {
        text.filter(|t| !t.trim().is_empty()).map(|text| parse(column, text)).transpose()
    }
    Ok(Row {
        routed: Routed {
            position: required(0, field(0))?,
            layer: required(1, field(1))?,
            rank: required(2, field(2))?,
            expert: required(3, field(3))?,
            weight: required(4, field(4))?,
            served: required::<Served>(5, field(5))?,
            bytes: required(6, field(6))?,
        },
        run: optional(7, field(7))?,
        time: optional(8, field(8))?,
        phase: optional(9, field(9))?,
        id: optional(10, field(10))?,
        text: field(11).map(str::to_owned),
    })
}

/// Comma-separated values (RFC 4180): fields in quotes may hold commas, lines and doubled quotes.
struct Csv<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Csv<'a> {
    /// A comment, if one is next; empty lines before it are skipped.
    fn comment(&mut self) -> Option<&'a str> {
        while let Some(rest) = self.rest.strip_prefix('\n').or_else(|| self.rest.strip_prefix("\r\n")) {
            self.rest = rest;
            self.line += 1;
        }
        let text = self.rest.strip_prefix('#')?;
        let (comment, rest) = text.split_once('\n').unwrap_or((text, ""));
        self.rest = rest;
        self.line += 1;
        Some(comment)
    }

    /// The fields of the next line; `false`: there is none.
    fn next(&mut self, fields: &mut Vec<String>) -> Result<bool, String> {
        let mut count = 0;
        if self.rest.is_empty() {
            return Ok(false);
        }
        loop {
            if fields.len() <= count {
                fields.push(String::new());
            }
            let Some(field) = fields.get_mut(count) else { return Ok(false) };
            field.clear();
            count += 1;
            if self.rest.starts_with('"') {
                self.quoted(field)?;
            }
            // What follows quotes up to the next comma belongs to the field, as spreadsheets have it.
            let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
            let (plain, rest) = self.rest.split_at(end);
            field.push_str(plain.strip_suffix('\r').unwrap_or(plain));
            if let Some(rest) = rest.strip_prefix(',') {
                self.rest = rest;
                continue;
            }
            self.rest = rest.strip_prefix('\n').unwrap_or(rest);
            self.line += 1;
            fields.truncate(count);
            return Ok(true);
        }
    }

    fn quoted(&mut self, field: &mut String) -> Result<(), String> {
        let start = self.line;
        let mut rest = self.rest.strip_prefix('"').unwrap_or(self.rest);
        loop {
            let Some((part, after)) = rest.split_once('"') else {
                return Err(format!("line {start}: quotes are opened and not closed"));
            };
            field.push_str(part);
            self.line += part.matches('\n').count();
            match after.strip_prefix('"') {
                Some(more) => {
                    field.push('"');
                    rest = more;
                }
                None => {
                    self.rest = after;
                    return Ok(());
                }
            }
        }
    }
}

/// Puts rows together to tokens.
struct Builder<'a> {
    shape: &'a Shape,
    record: Record,
    places: HashMap<(u64, u32), usize>,
    /// The generation of rows that do not say.
    run: u64,
    /// The row before: its token, position and layer.
    last: Option<(usize, u32, u16)>,
    timed: bool,
}

impl<'a> Builder<'a> {
    fn new(shape: &'a Shape) -> Self {
        let record = Record { model: String::new(), ..Record::new(shape) };
        Self { shape, record, places: HashMap::new(), run: 0, last: None, timed: true }
    }

    fn head(&mut self, head: Head) -> Result<(), String> {
        head.check(self.shape)?;
        self.record.model = head.model.unwrap_or_default();
        Ok(())
    }

    fn row(&mut self, row: Row) -> Result<(), String> {
        let Row { run, time, phase, id, text, routed } = row;
        let Routed { position, layer, rank, expert, weight, .. } = routed;
        let Shape { model, layers, experts, top_k, .. } = self.shape;
        if self.shape.row_of(layer.into()).is_none() {
            return Err(match layers.get(usize::from(layer)) {
                Some(_) => format!("layer {layer} of {model} has no experts"),
                None => format!("layer {layer}: {model} has {} layers, from 0", layers.len()),
            });
        }
        if usize::from(expert) >= *experts {
            return Err(format!("expert {expert}: layers of {model} have {experts}, from 0"));
        }
        if usize::from(rank) >= *top_k {
            return Err(format!("rank {rank}: {model} chooses {top_k} experts at a time, from 0"));
        }
        if !weight.is_finite() || !time.unwrap_or(0.0).is_finite() {
            return Err("a number is not finite".into());
        }
        if self.record.rows >= MOST {
            return Err(format!("there are more than {MOST} rows"));
        }
        let phase = match phase {
            Some(name) => Some(Phase::named(name.trim()).ok_or_else(|| format!("phase {name:?}: expected prompt or answer"))?),
            None => None,
        };
        let twice = |token: &TokenRow| token.layer(layer.into()).iter().any(|c| c.rank == rank || c.expert == expert);
        let mut key = (run.unwrap_or(self.run), position);
        let mut at = self.places.get(&key).copied();
        if at.and_then(|at| self.record.tokens.get(at)).is_some_and(twice) {
            if run.is_some() {
                return Err(format!("the token at position {position} chose expert {expert} of layer {layer} twice"));
            }
            // Rows of another sequence follow without a mark.
            self.run += 1;
            self.places.clear();
            (key, at) = ((self.run, position), None);
        }
        self.timed &= time.is_some();
        let at = at.unwrap_or(self.record.tokens.len());
        if at == self.record.tokens.len() {
            self.places.insert(key, at);
            self.record.tokens.push(TokenRow {
                run: key.0,
                position,
                id: id.unwrap_or(TokenRow::UNKNOWN),
                text: text.unwrap_or_default(),
                phase: phase.unwrap_or(Phase::Answer),
                message: None,
                bytes: 0..0,
                time: time.unwrap_or(0.0),
                choices: Vec::new(),
            });
        }
        // Tokens that take turns within a layer were computed together, as a prompt is.
        if let Some((before, other, same)) = self.last
            && phase.is_none()
            && other != position
            && same == layer
            && self.shape.rows.len() > 1
        {
            for at in [before, at] {
                if let Some(token) = self.record.tokens.get_mut(at) {
                    token.phase = Phase::Prompt;
                }
            }
        }
        self.last = Some((at, position, layer));
        if let Some(token) = self.record.tokens.get_mut(at) {
            token.insert(routed);
            self.record.rows += 1;
        }
        Ok(())
    }

    fn finish(self) -> Result<Record, String> {
        let Self { mut record, timed, .. } = self;
        if record.rows == 0 {
            return Err("this record is empty".into());
        }
        if !timed {
            let mut time = 0.0;
            for token in &mut record.tokens {
                time += PACE[usize::from(token.phase == Phase::Answer)];
                token.time = time;
            }
        }
        Ok(record)
    }
}
