//! Missing experts on the CPU: the same products as the GPU's, by the kernels of the CPU backend.

use std::{collections::BTreeMap, sync::Arc};

use pleiad_models::weights::{ExpertPart, Rows};

use crate::{
    cpu::kernels::{self, Cpu, Input, Job, Output},
    error::Result,
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
    ///
    /// # Errors
    /// Where an expert cannot be read.
    pub fn run(&self, bank: BankId, pairs: &[ColdPair], x: &ColdRows, inner_q8: bool) -> Result<Vec<f32>> {
        let experts = self.model.bank(bank);
        // Pairs of each expert, and the rows that they read.
        let mut by_expert: BTreeMap<u16, Pairs> = BTreeMap::new();
        for (i, pair) in pairs.iter().enumerate().filter(|(_, p)| usize::from(p.expert) < experts.len()) {
            let of = by_expert.entry(pair.expert).or_default();
            of.pairs.push(i as u32);
            of.rows.push(pair.row);
        }
        let by_expert: Vec<(usize, Pairs)> = by_expert.into_iter().map(|(e, of)| (usize::from(e), of)).collect();
        if by_expert.is_empty() {
            return Ok(Vec::new());
        }
        let mut out = vec![0.0; pairs.len() * experts.first(ExpertPart::Down).rows];
        // What has to be read is read for one expert at a time: memory does not grow with the experts that miss.
        let at_once = if experts.is_resident() { by_expert.len() } else { 1 };
        for group in by_expert.chunks(at_once) {
            let parts = [ExpertPart::Gate, ExpertPart::Up, ExpertPart::Down]
                .map(|part| group.iter().map(|(e, _)| experts.part(*e, part)).collect::<Result<Vec<_>, _>>());
            let [gate, up, down] = parts;
            self.products(group, [&gate?, &up?, &down?], x, inner_q8, &mut out);
        }
        Ok(out)
    }

    /// The products of some experts, whose gate, up and down matrices are given, into the rows of their pairs.
    fn products(&self, group: &[(usize, Pairs)], parts: [&[Rows<'_>]; 3], x: &ColdRows, inner_q8: bool, out: &mut [f32]) {
        let [gate, up, down] = parts;
        let count: usize = group.iter().map(|(_, of)| of.pairs.len()).sum();
        // The rows between, expert by expert.
        let inner_rows: Vec<u32> = (0..count as u32).collect();
        let (mut up_jobs, mut down_jobs, mut rest) = (Vec::new(), Vec::new(), inner_rows.as_slice());
        for (i, (_, of)) in group.iter().enumerate() {
            let (inner, others) = rest.split_at(of.pairs.len());
            rest = others;
            up_jobs.push(Job { w: up[i].matrix(), gate: Some(gate[i].matrix()), x: &of.rows, out: inner });
            down_jobs.push(Job { w: down[i].matrix(), gate: None, x: inner, out: &of.pairs });
        }
        let (Some(first_up), Some(first_down)) = (up_jobs.first(), down_jobs.first()) else { return };
        let (hidden, inner_width, out_width) = (first_up.w.cols, first_up.w.rows, first_down.w.rows);
        let mut inner = vec![0.0; count * inner_width];
        let input = match x {
            ColdRows::F32(data) => Input::F32 { data, offset: 0, stride: hidden },
            ColdRows::Q8(rows) => Input::Q8(rows),
        };
        kernels::matmul(&self.cpu, &up_jobs, &input, &mut Output { data: &mut inner, offset: 0, stride: inner_width }, false);
        let mut target = Output { data: out, offset: 0, stride: out_width };
        if inner_q8 {
            let mut quantised = Q8Rows::new(count, inner_width);
            kernels::quantise(&self.cpu, &inner, count, &mut quantised);
            kernels::matmul(&self.cpu, &down_jobs, &Input::Q8(&quantised), &mut target, false);
        } else {
            let input = Input::F32 { data: &inner, offset: 0, stride: inner_width };
            kernels::matmul(&self.cpu, &down_jobs, &input, &mut target, false);
        }
    }
}

/// The pairs of one expert.
#[derive(Default)]
struct Pairs {
    /// Which pairs, and so which rows of the result.
    pairs: Vec<u32>,
    /// The tokens' rows.
    rows: Vec<u32>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use pleiad_models::Checkpoint;

    use super::*;
    use crate::{experts::bank::tests::ranged::in_ranges, twins};

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
        let out = cold.run(bank, &pairs, &ColdRows::Q8(q8.clone()), true).unwrap();
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
        assert!(cold.run(bank, &[], &ColdRows::Q8(q8), true).unwrap().is_empty());
    }

    /// Experts that are read one at a time give what mapped ones give, and those that cannot be read are told.
    #[test]
    fn experts_that_are_read_are_computed_alike() {
        let checkpoint = Checkpoint::tiny().unwrap();
        let mapped = Arc::new(Model::new(&checkpoint.config, &checkpoint.weights));
        let (ranged, file) = in_ranges(&mapped);
        let h = mapped.config.hidden_size;
        let rows = ColdRows::F32((0..3 * h).map(|i| ((i * 29 % 97) as f32 - 48.0) / 40.0).collect());
        let pairs = [(5, 2), (3, 0), (5, 0), (31, 1), (3, 1)].map(|(expert, row)| ColdPair { expert, row });
        let [mapped, ranged] = [mapped, ranged].map(|model| Cold::new(model, Some(2)));
        for inner_q8 in [false, true] {
            let out = [&mapped, &ranged].map(|cold| cold.run(BankId(2), &pairs, &rows, inner_q8).unwrap());
            assert!(out[0] == out[1] && out[0].len() == pairs.len() * h);
        }
        assert!(file.reads() >= 9);
        file.fail_after(4);
        let said = ranged.run(BankId(2), &pairs, &rows, true).unwrap_err().to_string();
        assert!(said.contains("model.gguf") && said.contains("_exps"), "{said}");
    }
}
