//! Missing experts on the CPU: the same products as the GPU's, by the kernels of the CPU backend.

use std::{collections::BTreeMap, sync::Arc};

use pleiad_models::weights::ExpertPart;

use crate::{
    cpu::kernels::{self, Cpu, Input, Job, Output},
    model::Model,
    plan::BankId,
    q8::Q8Rows,
};

/// Rows of normed activations as the device has them, so that both compute from the same bits.
pub(crate) enum ColdRows {
    /// `[T, h]`.
    F32(Vec<f32>),
    /// `[T, h]`.
    Q8(Q8Rows),
}

/// An expert chosen for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ColdPair {
    pub expert: u16,
    /// The token's row.
    pub row: u32,
}

/// Experts in host memory, and threads to compute them.
pub(crate) struct Cold {
    model: Arc<Model>,
    cpu: Cpu,
}

impl Cold {
    pub fn new(model: Arc<Model>, threads: Option<usize>) -> Self {
        Self { model, cpu: Cpu::new(threads) }
    }

    /// `down(silu(gate x) * up x)` of every pair: `[pairs, h]`. `inner_q8`: the rows between are quantised, as the plan does it.
    pub fn run(&self, bank: BankId, pairs: &[ColdPair], x: &ColdRows, inner_q8: bool) -> Vec<f32> {
        let experts = self.model.bank(bank);
        // Pairs of each expert, and the rows that they read.
        let mut by_expert: BTreeMap<u16, (Vec<u32>, Vec<u32>)> = BTreeMap::new();
        for (i, pair) in pairs.iter().enumerate().filter(|(_, p)| usize::from(p.expert) < experts.len()) {
            let (of, rows) = by_expert.entry(pair.expert).or_default();
            of.push(i as u32);
            rows.push(pair.row);
        }
        let matrix = |e: &u16, part| experts.matrix(usize::from(*e), part);
        let job = |e, gated: bool, from, to| {
            let (w, gate) = match gated {
                true => (matrix(e, ExpertPart::Up), Some(matrix(e, ExpertPart::Gate))),
                false => (matrix(e, ExpertPart::Down), None),
            };
            Job { w, gate, x: from, out: to }
        };
        let up: Vec<Job<'_>> = by_expert.iter().map(|(e, (of, rows))| job(e, true, rows, of)).collect();
        let down: Vec<Job<'_>> = by_expert.iter().map(|(e, (of, _))| job(e, false, of, of)).collect();
        let (Some(first_up), Some(first_down)) = (up.first(), down.first()) else { return Vec::new() };
        let (hidden, inner_width) = (first_up.w.cols, first_up.w.rows);
        let mut inner = vec![0.0; pairs.len() * inner_width];
        let input = match x {
            ColdRows::F32(data) => Input::F32 { data, offset: 0, stride: hidden },
            ColdRows::Q8(rows) => Input::Q8(rows),
        };
        kernels::matmul(&self.cpu, &up, &input, &mut Output { data: &mut inner, offset: 0, stride: inner_width }, false);
        let out_width = first_down.w.rows;
        let mut out = vec![0.0; pairs.len() * out_width];
        let mut target = Output { data: &mut out, offset: 0, stride: out_width };
        if inner_q8 {
            let mut quantised = Q8Rows::new(pairs.len(), inner_width);
            kernels::quantise(&self.cpu, &inner, pairs.len(), &mut quantised);
            kernels::matmul(&self.cpu, &down, &Input::Q8(&quantised), &mut target, false);
        } else {
            let input = Input::F32 { data: &inner, offset: 0, stride: inner_width };
            kernels::matmul(&self.cpu, &down, &input, &mut target, false);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use pleiad_models::Checkpoint;

    use super::*;
    use crate::twins;

    /// Against the twins, expert by expert.
    #[test]
    fn pairs_are_computed_as_the_twins_do() {
        let checkpoint = Checkpoint::tiny().unwrap();
        let model = Arc::new(Model::new(&checkpoint.config, &checkpoint.weights));
        let cold = Cold::new(Arc::clone(&model), Some(2));
        let h = model.config.hidden_size;
        let bank = BankId(1);
        let rows: Vec<f32> = (0..3 * h).map(|i| ((i * 37 % 101) as f32 - 50.0) / 40.0).collect();
        let mut q8 = Q8Rows::new(3, h);
        (0..3).for_each(|r| q8.set(r, &rows[r * h..(r + 1) * h]));
        let pairs = [(0, 2), (3, 0), (0, 0), (1, 1)].map(|(expert, row)| ColdPair { expert, row });
        let out = cold.run(bank, &pairs, &ColdRows::Q8(q8.clone()), true);
        assert_eq!(out.len(), pairs.len() * h);
        for (pair, got) in pairs.iter().zip(out.chunks(h)) {
            let matrix = |part| model.bank(bank).matrix(usize::from(pair.expert), part);
            let (gate, up, down) = (matrix(ExpertPart::Gate), matrix(ExpertPart::Up), matrix(ExpertPart::Down));
            let (mut g, mut u) = (vec![0.0; gate.rows], vec![0.0; up.rows]);
            twins::matvec_q8(&gate, &q8, pair.row as usize, &mut g);
            twins::matvec_q8(&up, &q8, pair.row as usize, &mut u);
            let inner: Vec<f32> = g.iter().zip(&u).map(|(&g, &u)| twins::gated(g, u)).collect();
            let mut inner_q8 = Q8Rows::new(1, inner.len());
            inner_q8.set(0, &inner);
            let mut want = vec![0.0; h];
            twins::matvec_q8(&down, &inner_q8, 0, &mut want);
            let error: f64 = want.iter().zip(got).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            let size: f64 = want.iter().map(|a| f64::from(*a).powi(2)).sum();
            assert!(error < 1e-8 * size, "{pair:?}: {error} of {size}");
        }
        assert!(cold.run(bank, &[], &ColdRows::Q8(q8), true).is_empty());
    }
}
