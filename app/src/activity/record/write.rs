//! A record as text.

use std::fmt::Write as _;

use serde::Serialize;

use super::Record;
use crate::activity::TokenRow;

/// The first line of JSON lines: the model and its shape.
#[derive(Serialize)]
struct Head<'a> {
    model: &'a str,
    layers: usize,
    experts: usize,
    top_k: usize,
}

#[derive(Serialize)]
struct Line<'a> {
    run: u64,
    time: f64,
    phase: &'static str,
    position: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    layer: u16,
    rank: u16,
    expert: u16,
    weight: f32,
    residency: &'static str,
    bytes: u64,
}

fn known(token: &TokenRow) -> Option<u32> {
    (token.id != TokenRow::UNKNOWN).then_some(token.id)
}

/// As comma-separated values (RFC 4180), after comments.
pub fn csv(record: &Record, text: bool) -> String {
    let mut out = String::with_capacity(64 * record.rows() + 256);
    let model: String = record.model.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# model={}", model.trim());
    let _ = writeln!(out, "# layers={} experts={} top_k={}", record.layers, record.experts, record.top_k);
    out.push_str("run,time,phase,position,id,");
    out.push_str(if text { "text," } else { "" });
    out.push_str("layer,rank,expert,weight,residency,bytes\n");
    let mut start = String::new();
    for token in record.tokens() {
        start.clear();
        let _ = write!(start, "{},{},{},{},", token.run, token.time, token.phase.name(), token.position);
        if let Some(id) = known(token) {
            let _ = write!(start, "{id}");
        }
        start.push(',');
        if text {
            quote(&mut start, &token.text);
            start.push(',');
        }
        for c in &token.choices {
            out.push_str(&start);
            let _ = writeln!(out, "{},{},{},{},{},{}", c.layer, c.rank, c.expert, c.weight, c.served, c.bytes);
        }
    }
    out
}

/// In quotes where it must be.
fn quote(out: &mut String, text: &str) {
    let plain = |c: char| !matches!(c, ',' | '"' | '\n' | '\r') && !c.is_whitespace();
    if text.chars().all(plain) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for (n, part) in text.split('"').enumerate() {
        out.push_str(if n > 0 { "\"\"" } else { "" });
        out.push_str(part);
    }
    out.push('"');
}

/// As JSON lines, the first of which describes the model.
pub fn jsonl(record: &Record, text: bool) -> String {
    let mut out = Vec::with_capacity(160 * record.rows() + 256);
    let Record { layers, experts, top_k, .. } = *record;
    let mut line = |value: &dyn Fn(&mut Vec<u8>) -> serde_json::Result<()>| {
        // Numbers and strings, into memory: nothing that can fail.
        let _ = value(&mut out);
        out.push(b'\n');
    };
    line(&|out| serde_json::to_writer(out, &Head { model: &record.model, layers, experts, top_k }));
    for token in record.tokens() {
        for c in &token.choices {
            let row = Line {
                run: token.run,
                time: token.time,
                phase: token.phase.name(),
                position: token.position,
                id: known(token),
                text: text.then_some(&token.text),
                layer: c.layer,
                rank: c.rank,
                expert: c.expert,
                weight: c.weight,
                residency: c.served.name(),
                bytes: c.bytes,
            };
            line(&|out| serde_json::to_writer(out, &row));
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
