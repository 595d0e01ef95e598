//! A model's fingerprint, and the check value behind it.

use std::ops::Range;

use pleiad_models::{Bytes, Result, Tensor, weights::Experts};

use super::layout::PARTS;
use crate::model::Model;

/// Bytes of one sample of a tensor.
const SAMPLE: usize = 64;
/// Places within experts that samples are taken from, in turn.
const PLACES: usize = 8;

/// 16 hexadecimal digits that tell a model from others: dimensions, formats, all vectors and samples of the matrices. The name
/// of the model's files in cache directories.
///
/// # Errors
/// Where the samples cannot be read.
pub fn fingerprint(model: &Model) -> Result<String> {
    Ok(format!("{:016x}", fingerprint_bits(model)?))
}

/// The [`fingerprint`] as a number.
pub(super) fn fingerprint_bits(model: &Model) -> Result<u64> {
    let mut seen = Vec::new();
    let top_k = model.config.moe.as_ref().map_or(0, |moe| moe.top_k);
    words(&mut seen, &[model.config.num_layers, top_k, model.mats.len(), model.vecs.len(), model.banks.len()]);
    for t in &model.mats {
        kind(&mut seen, t);
        sample(&mut seen, t, &t.data, 0..t.data.len(), (1, 2))?;
    }
    for v in &model.vecs {
        seen.extend_from_slice(bytemuck::cast_slice(v));
    }
    for bank in &model.banks {
        words(&mut seen, &[bank.len()]);
        for part in PARTS {
            kind(&mut seen, bank.first(part));
        }
        sample_experts(&mut seen, bank)?;
    }
    Ok(checksum(&seen))
}

fn words(seen: &mut Vec<u8>, words: &[usize]) {
    seen.extend(words.iter().flat_map(|&word| (word as u64).to_le_bytes()));
}

/// Format and dimensions.
fn kind(seen: &mut Vec<u8>, t: &Tensor) {
    seen.extend(t.format.name().bytes());
    words(seen, &[t.count, t.rows, t.cols]);
}

/// A sample of every matrix of every expert: whoever trains or quantises anew changes nearly all bytes of what is changed.
fn sample_experts(seen: &mut Vec<u8>, experts: &Experts) -> Result<()> {
    for part in PARTS {
        for expert in 0..experts.len() {
            let ((t, first), place) = (experts.place(expert, part), expert % PLACES + 1);
            let row = t.row_bytes();
            sample(seen, t, &t.data, first * row..(first + t.rows) * row, (place, PLACES + 1))?;
            if let Some(scales) = &t.scales {
                sample(seen, t, scales, 0..scales.len(), (place, PLACES + 1))?;
            }
        }
    }
    Ok(())
}

/// Appends the bytes about `place.0 / place.1` of the way through a range of a tensor's bytes.
fn sample(seen: &mut Vec<u8>, of: &Tensor, data: &Bytes, range: Range<usize>, place: (usize, usize)) -> Result<()> {
    let start = range.len().saturating_sub(SAMPLE) / place.1 * place.0;
    let len = (range.len() - start).min(SAMPLE);
    seen.extend_from_slice(&data.read(range.start + start, len).map_err(|e| of.unreadable(e))?);
    Ok(())
}

/// A 64-bit check value that finds damage (not forgery): four lanes of xor, multiply and rotate over little-endian words, several
/// times as fast as memory.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    // Each step is a bijection of the state, so two inputs that differ in one word differ in their value.
    let step = |state: u64, word: u64| (state ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let mut lanes = [1_u64, 2, 3, 4];
    let mut absorb = |chunk: &[u8; 32]| {
        for (lane, word) in lanes.iter_mut().zip(chunk.as_chunks().0) {
            *lane = step(*lane, u64::from_le_bytes(*word));
        }
    };
    let (chunks, rest) = bytes.as_chunks();
    chunks.iter().for_each(&mut absorb);
    let mut last = [0; 32];
    last[..rest.len()].copy_from_slice(rest);
    absorb(&last);
    let mixed = lanes.into_iter().fold(bytes.len() as u64, step);
    mixed ^ (mixed >> 32)
}
