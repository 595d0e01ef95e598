//! Activations and the latent cache in host memory.

use half::f16;

use crate::{
    executor::CacheFormat,
    plan::{Act, ActDecl, Kind, Plan, Rows},
    q8::Q8Rows,
    step::cache_row,
};

/// One activation's rows.
#[derive(Debug)]
pub(super) enum Buffer {
    F32(Vec<f32>),
    U32(Vec<u32>),
    Q8(Q8Rows),
}

impl Buffer {
    fn new(decl: &ActDecl, tokens: usize) -> Self {
        let rows = if decl.rows == Rows::One { 1 } else { tokens };
        match decl.kind {
            Kind::F32 => Self::F32(vec![0.0; rows * decl.width]),
            Kind::U32 => Self::U32(vec![0; rows * decl.width]),
            Kind::Q8 => Self::Q8(Q8Rows::new(rows, decl.width)),
        }
    }
}

/// A plan with its activations.
#[derive(Default)]
pub(super) struct Prepared {
    pub plan: Plan,
    buffers: Vec<Buffer>,
}

/// A plan's fault: an operation names an activation of another kind.
const WRONG_KIND: &str = "the plan names an activation of another kind";

impl Prepared {
    pub fn new(plan: &Plan) -> Self {
        let buffers = plan.acts.iter().map(|d| Buffer::new(d, plan.max_tokens)).collect();
        Self { plan: plan.clone(), buffers }
    }

    /// Bytes of its activations.
    pub fn bytes(&self) -> usize {
        let of = |b: &Buffer| match b {
            Buffer::F32(v) => size_of_val(v.as_slice()),
            Buffer::U32(v) => size_of_val(v.as_slice()),
            Buffer::Q8(q) => q.bytes(),
        };
        self.buffers.iter().map(of).sum()
    }

    pub fn width(&self, act: Act) -> usize {
        self.plan.decl(act).width
    }

    /// Rows of `act` in a step of `tokens` tokens.
    pub fn rows(&self, act: Act, tokens: usize) -> usize {
        if self.plan.decl(act).rows == Rows::One { 1 } else { tokens }
    }

    pub fn is_q8(&self, act: Act) -> bool {
        self.plan.decl(act).kind == Kind::Q8
    }

    pub fn f32(&self, act: Act) -> &[f32] {
        match &self.buffers[act.0 as usize] {
            Buffer::F32(v) => v,
            _ => panic!("{WRONG_KIND}"),
        }
    }

    pub fn f32_mut(&mut self, act: Act) -> &mut Vec<f32> {
        match &mut self.buffers[act.0 as usize] {
            Buffer::F32(v) => v,
            _ => panic!("{WRONG_KIND}"),
        }
    }

    pub fn u32(&self, act: Act) -> &[u32] {
        match &self.buffers[act.0 as usize] {
            Buffer::U32(v) => v,
            _ => panic!("{WRONG_KIND}"),
        }
    }

    pub fn u32_mut(&mut self, act: Act) -> &mut Vec<u32> {
        match &mut self.buffers[act.0 as usize] {
            Buffer::U32(v) => v,
            _ => panic!("{WRONG_KIND}"),
        }
    }

    pub fn q8(&self, act: Act) -> &Q8Rows {
        match &self.buffers[act.0 as usize] {
            Buffer::Q8(v) => v,
            _ => panic!("{WRONG_KIND}"),
        }
    }

    pub fn q8_mut(&mut self, act: Act) -> &mut Q8Rows {
        match &mut self.buffers[act.0 as usize] {
            Buffer::Q8(v) => v,
            _ => panic!("{WRONG_KIND}"),
        }
    }
}

/// The latent cache of one layer.
pub(super) enum Cache {
    F16(Vec<u16>),
    F32(Vec<f32>),
}

impl Cache {
    pub fn new(format: CacheFormat, rows: usize, width: usize) -> Self {
        match format {
            CacheFormat::F16 => Self::F16(vec![0; rows * width]),
            CacheFormat::F32 => Self::F32(vec![0.0; rows * width]),
        }
    }

    /// Stores the row of `position`.
    pub fn set(&mut self, pages: &[u32], position: usize, row: &[f32]) {
        let at = cache_row(pages, position) * row.len();
        match self {
            Self::F16(v) => v[at..at + row.len()].iter_mut().zip(row).for_each(|(o, &x)| *o = f16::from_f32(x).to_bits()),
            Self::F32(v) => v[at..at + row.len()].copy_from_slice(row),
        }
    }

    /// The row of `position`.
    pub fn get(&self, pages: &[u32], position: usize, width: usize) -> Vec<f32> {
        let at = cache_row(pages, position) * width;
        match self {
            Self::F16(v) => v[at..at + width].iter().map(|&b| f16::from_bits(b).to_f32()).collect(),
            Self::F32(v) => v[at..at + width].to_vec(),
        }
    }
}
