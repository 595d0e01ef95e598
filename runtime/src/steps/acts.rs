//! Activations of a prepared plan: where they are, and how rows of 8-bit blocks are packed there.

use crate::{
    plan::{Act, ActDecl, Kind, Op, Plan, Rows},
    q8::Q8Rows,
};

/// Words of one row of an activation.
pub fn row_words(decl: &ActDecl) -> usize {
    match decl.kind {
        Kind::F32 | Kind::U32 => decl.width,
        Kind::Q8 => decl.width / 4 + decl.width / 16,
    }
}

/// The most rows of an activation in a plan for `max_tokens` tokens.
pub fn most_rows(decl: &ActDecl, max_tokens: usize) -> usize {
    match decl.rows {
        Rows::Tokens => max_tokens,
        Rows::One => 1,
    }
}

/// How many rows of their own a row of an 8-bit activation holds: experts' inner rows lie side by side, K a token,
/// and the down form reads each by itself.
pub fn parts_of(plan: &Plan, act: Act) -> usize {
    let reader = plan.ops.iter().find_map(|op| match op {
        Op::ExpertsDown { x, ids, .. } if *x == act && plan.decl(*x).kind == Kind::Q8 => Some(*ids),
        _ => None,
    });
    reader.map_or(1, |ids| plan.decl(ids).width.max(1))
}

/// An activation of a prepared plan.
pub struct PlacedAct<T> {
    pub name: String,
    pub buffer: T,
    pub kind: Kind,
    /// Elements of a row.
    pub width: usize,
    /// Rows of their own in each row (8-bit activations).
    pub parts: usize,
    /// Words of a row.
    pub row_words: usize,
    /// The most rows.
    pub rows: usize,
}

impl<T> PlacedAct<T> {
    /// An activation of `plan` that lies in `buffer`.
    pub fn new(plan: &Plan, act: Act, buffer: T) -> Self {
        let decl = plan.decl(act);
        Self {
            name: decl.name.clone(),
            buffer,
            kind: decl.kind,
            width: decl.width,
            parts: parts_of(plan, act),
            row_words: row_words(decl),
            rows: most_rows(decl, plan.max_tokens),
        }
    }

    /// Rows of 8-bit blocks as the device holds them: quants, then for each block its scale and the sums of its halves.
    pub fn words_of(&self, rows: &Q8Rows) -> Vec<u32> {
        let mut words = Vec::with_capacity(rows.quants.len() / 4 + rows.quants.len() / 16);
        for ((quants, scales), sums) in
            rows.quants.chunks(rows.width).zip(rows.scales.chunks(rows.width / 32)).zip(rows.sums.chunks(rows.width / 16))
        {
            words.extend(quants.chunks_exact(4).map(|q| u32::from_le_bytes([q[0], q[1], q[2], q[3]].map(|q| q as u8))));
            for (scale, sums) in scales.iter().zip(sums.chunks_exact(2)) {
                words.push(scale.to_bits());
                words.push(u32::from(sums[0] as u16) | u32::from(sums[1] as u16) << 16);
            }
        }
        words
    }

    /// The other way.
    pub fn rows_of(&self, words: &[u32]) -> Q8Rows {
        let width = self.width / self.parts;
        let mut rows = Q8Rows { width, ..Q8Rows::default() };
        for row in words.chunks_exact(width / 4 + width / 16) {
            let (quants, blocks) = row.split_at(width / 4);
            rows.quants.extend(quants.iter().flat_map(|q| q.to_le_bytes().map(|b| b as i8)));
            for block in blocks.chunks_exact(2) {
                rows.scales.push(f32::from_bits(block[0]));
                rows.sums.extend([block[1] as i16, (block[1] >> 16) as i16]);
            }
        }
        rows
    }

    /// The other way: f32 values.
    pub fn dequantise(&self, words: &[u32]) -> Vec<f32> {
        let width = self.width / self.parts;
        let mut out = Vec::with_capacity(words.len() * 4);
        for row in words.chunks_exact(width / 4 + width / 16) {
            let (quants, blocks) = row.split_at(width / 4);
            for (quants, block) in quants.chunks_exact(8).zip(blocks.chunks_exact(2)) {
                let scale = f32::from_bits(block[0]);
                let bytes = quants.iter().flat_map(|q| q.to_le_bytes());
                out.extend(bytes.map(|q| f32::from(q as i8) * scale));
            }
        }
        out
    }
}
