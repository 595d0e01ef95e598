//! Matrix products: any number of jobs in one call, cut into tasks for all threads.
//!
//! A job of few rows of activations reads each row of weights once, straight from memory; a job of many turns panels
//! of weights and multiplies them by groups of activations. Tasks are pieces of about equal work of either kind.

use super::panel::{F32Panel, PANEL};
use super::rows::{BATCH, F32Rows, Q8Ptr, Q8Rows};
use super::simd::{Kernel, Simd, exp};
use super::{Cpu, Isa};
use crate::q8;
use pleiad_models::{Layout, Matrix};
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

#[cfg(target_arch = "x86_64")]
use super::{bytes, quantise::Shared, vnni};

/// Rows of activations.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// Row i is `data[offset + i * stride..][..cols]`.
    F32 {
        /// The elements.
        data: &'a [f32],
        /// Where row 0 begins.
        offset: usize,
        /// From one row to the next.
        stride: usize,
    },
    /// Row i is row i; the width is the number of columns. For quantised weights only.
    Q8(&'a q8::Q8Rows),
}

/// Rows of results: row i is `data[offset + i * stride..][..rows of the matrix]`.
pub struct Output<'a> {
    /// The elements.
    pub data: &'a mut [f32],
    /// Where row 0 begins.
    pub offset: usize,
    /// From one row to the next.
    pub stride: usize,
}

/// One matrix applied to some rows.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The matrix.
    pub w: Matrix<'a>,
    /// A matrix of the same shape: the results are `silu(gate x) * (w x)`.
    pub gate: Option<Matrix<'a>>,
    /// Row indices of the activations.
    pub x: &'a [u32],
    /// Row indices of the results, one for each of `x`.
    pub out: &'a [u32],
}

/// Bytes of weights that a decoding task reads: at least, and at most.
const TASK_BYTES: (usize, usize) = (32 << 10, 512 << 10);

/// Multiplications of the smallest prefill task.
const TASK_WORK: usize = 1 << 20;

/// Work of turning a panel, as so many rows of activations.
const TURN: usize = 8;

/// Most bytes of packed activations of a prefill task: they stay in the second-level cache.
const TASK_X_BYTES: usize = 1 << 20;

/// Most rows of activations of a group, with AVX-512 and with less.
const WIDE: usize = 6;
const NARROW: usize = 4;

/// Rows of weights that a decoding task computes before it writes them.
const STRIP: usize = 256;

/// For every job and every i: row `out[i]` of the results is set to, or with `add` increased by, `w` (or
/// `silu(gate x) * (w x)`) applied to row `x[i]` of the activations.
///
/// Where two jobs write the same element, one of them wins.
///
/// # Panics
///
/// Where a row lies outside of the activations or results, shapes disagree, or 8-bit activations meet float weights.
pub fn matmul(cpu: &Cpu, jobs: &[Job<'_>], x: &Input<'_>, out: &mut Output<'_>, add: bool) {
    for job in jobs {
        check(job, x, out);
    }
    let mut scratch = Scratch::take();
    let mut plan = std::mem::take(&mut scratch.plan);
    let mut packed = std::mem::take(&mut scratch.packed);
    scratch.give_back();
    plan.clear();
    let call = Call {
        cpu,
        jobs,
        x,
        // SAFETY: the slice is borrowed mutably for the whole call; f32 and AtomicU32 have the same size and alignment
        // on every supported target, and any bits are a value of both.
        out: unsafe { std::slice::from_raw_parts(out.data.as_mut_ptr().cast::<AtomicU32>(), out.data.len()) },
        out_offset: out.offset,
        out_stride: out.stride,
        add,
    };
    let tasks = call.plan(&mut plan);
    let words = plan.iter().map(|p| p.packed_bytes / 4).sum();
    if packed.len() < words {
        packed.resize(words, 0);
    }
    call.pack(&mut plan, &mut packed);
    cpu.parallel(tasks, |task| {
        // The last piece that begins at or before the task.
        let piece = &plan[plan.partition_point(|p| p.first_task <= task) - 1];
        let mut scratch = Scratch::take();
        match piece.way {
            Way::Rows => call.rows(piece, task - piece.first_task, &mut scratch),
            Way::Panel => call.panel(piece, task - piece.first_task, &packed, &mut scratch),
        }
        scratch.give_back();
    });
    let mut scratch = Scratch::take();
    scratch.plan = plan;
    scratch.packed = packed;
    scratch.give_back();
}

/// Whatever unsafe code relies on.
fn check(job: &Job<'_>, x: &Input<'_>, out: &Output<'_>) {
    let w = &job.w;
    assert_eq!(job.x.len(), job.out.len(), "rows of activations and of results of a job");
    for w in job.gate.iter().chain([w]) {
        assert_eq!((w.rows, w.cols), (job.w.rows, job.w.cols), "shapes of a matrix and its gate");
        assert_eq!(Some(w.data.len()), w.row_bytes().checked_mul(w.rows), "bytes of a {} matrix", w.format);
        assert!(w.cols.is_multiple_of(w.format.block_len()), "{} columns of {}", w.cols, w.format);
        if w.format == pleiad_models::Format::F8E4M3 && w.layout == Layout::Native {
            let scales = w.scales.map_or(0, <[u8]>::len);
            assert_eq!(scales, w.rows.div_ceil(128) * w.cols.div_ceil(128) * 4, "bytes of scales of a float8 matrix");
        }
    }
    let most = |rows: &[u32]| rows.iter().max().map(|&r| r as usize);
    if let Some(row) = most(job.x) {
        match x {
            Input::F32 { data, offset, stride } => {
                assert!(offset + row * stride + w.cols <= data.len(), "row {row} lies outside of the activations");
            }
            Input::Q8(rows) => {
                assert!(w.format.is_quantised(), "8-bit activations for {} weights", w.format);
                assert!(job.gate.is_none_or(|g| g.format.is_quantised()), "8-bit activations for a float gate");
                assert_eq!(rows.width, w.cols, "width of the activations");
                let end = (row + 1) * rows.width;
                let enough = end <= rows.quants.len() && end / 32 <= rows.scales.len() && end / 16 <= rows.sums.len();
                assert!(enough, "row {row} lies outside of the activations");
            }
        }
    }
    if let Some(row) = most(job.out) {
        assert!(out.offset + row * out.stride + w.rows <= out.data.len(), "row {row} lies outside of the results");
    }
}

/// How a piece is computed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Row by row.
    Rows,
    /// By panels.
    Panel,
}

/// A job, cut into tasks.
struct Piece {
    job: usize,
    way: Way,
    first_task: usize,
    /// Rows of weights a task.
    rows: usize,
    /// Groups of rows of activations (panels only): all, and a task.
    groups: Groups,
    task_groups: usize,
    /// Where packed activations begin, in words: the matrix's and the gate's; and how many bytes they are.
    packed: [usize; 2],
    packed_bytes: usize,
}

/// n rows of activations in groups of nearly equal size.
#[derive(Clone, Copy, Default)]
struct Groups {
    count: usize,
    size: usize,
    larger: usize,
}

impl Groups {
    /// Groups of at most `most` rows.
    fn new(n: usize, most: usize) -> Self {
        let count = n.div_ceil(most).max(1);
        Self { count, size: n / count, larger: n % count }
    }

    /// First row of group `i`.
    fn start(self, i: usize) -> usize {
        i * self.size + i.min(self.larger)
    }

    /// Rows of group `i`.
    #[cfg(target_arch = "x86_64")]
    fn len(self, i: usize) -> usize {
        self.size + usize::from(i < self.larger)
    }
}

/// Memory that a thread keeps between calls.
#[derive(Default)]
struct Scratch {
    plan: Vec<Piece>,
    packed: Vec<u32>,
    up: Vec<f32>,
    gate: Vec<f32>,
    panel: Vec<f32>,
    pointers: Vec<*const f32>,
    #[cfg(target_arch = "x86_64")]
    lines: Vec<vnni::Line>,
    #[cfg(target_arch = "x86_64")]
    groups: Vec<u8>,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Scratch {
    /// This thread's, or new memory where a call further up holds it.
    fn take() -> Box<Self> {
        SCRATCH.take().unwrap_or_default()
    }

    fn give_back(self: Box<Self>) {
        SCRATCH.set(Some(self));
    }
}

/// Grows `v` to `n` elements; what they are is of no interest.
fn room<T: Clone>(v: &mut Vec<T>, n: usize, zero: T) -> &mut [T] {
    if v.len() < n {
        v.resize(n, zero);
    }
    &mut v[..n]
}

/// One call of [`matmul`].
struct Call<'a> {
    cpu: &'a Cpu,
    jobs: &'a [Job<'a>],
    x: &'a Input<'a>,
    out: &'a [AtomicU32],
    out_offset: usize,
    out_stride: usize,
    add: bool,
}

impl<'a> Call<'a> {
    fn isa(&self) -> Isa {
        self.cpu.isa()
    }

    /// Whether panels take packed activations.
    #[cfg(target_arch = "x86_64")]
    fn packs(&self) -> bool {
        self.isa() != Isa::Scalar && matches!(self.x, Input::Q8(_))
    }

    /// Rows of a panel, or `None` where there are no panels.
    fn panel_rows(&self) -> Option<usize> {
        match (self.x, self.cpu.isa()) {
            (Input::F32 { .. }, Isa::Neon | Isa::NeonDot) => Some(8),
            (Input::F32 { .. }, Isa::Scalar) | (_, Isa::Avx2 | Isa::Avx2Vnni) => Some(16),
            (_, Isa::Avx512) => Some(32),
            (Input::Q8(_), Isa::Scalar | Isa::Neon | Isa::NeonDot) => None,
        }
    }

    /// Cuts the jobs into tasks and returns their number.
    fn plan(&self, plan: &mut Vec<Piece>) -> usize {
        let threads = self.cpu.threads();
        let panel_rows = self.panel_rows();
        let way = |job: &Job<'_>| match panel_rows {
            Some(_) if job.x.len() > BATCH && job.w.cols > 0 => Way::Panel,
            _ => Way::Rows,
        };
        let matrices = |job: &Job<'_>| if job.gate.is_some() { 2 } else { 1 };
        // A row of weights counts once for every pass over it.
        let row_bytes = |job: &Job<'_>| job.w.row_bytes().max(1) * matrices(job) * job.x.len().div_ceil(BATCH);
        let row_work = |job: &Job<'_>| job.w.cols * (job.x.len() + TURN) * matrices(job);
        let (mut bytes, mut work) = (0, 0);
        for job in self.jobs.iter().filter(|job| !job.x.is_empty()) {
            match way(job) {
                Way::Rows => bytes += job.w.rows * row_bytes(job),
                Way::Panel => work += job.w.rows * row_work(job),
            }
        }
        let task_bytes = (bytes / (threads * 6)).clamp(TASK_BYTES.0, TASK_BYTES.1);
        let task_work = (work / (threads * 8)).max(TASK_WORK);
        let mut tasks = 0;
        for (index, job) in self.jobs.iter().enumerate() {
            let n = job.x.len();
            if n == 0 || job.w.rows == 0 {
                continue;
            }
            let mut piece = Piece {
                job: index,
                way: way(job),
                first_task: tasks,
                rows: 0,
                groups: Groups::new(n, if self.isa() == Isa::Avx512 { WIDE } else { NARROW }),
                task_groups: 1,
                packed: [0; 2],
                packed_bytes: 0,
            };
            match (piece.way, panel_rows) {
                (Way::Panel, Some(panel)) => {
                    let panel_work = panel * row_work(job);
                    piece.rows = (task_work / panel_work).max(1) * panel;
                    // A panel is worth turning for eight groups at least.
                    let most = (TASK_X_BYTES / (job.w.cols * 8)).max(8);
                    let share = piece.groups.count / (panel_work / task_work).max(1);
                    piece.task_groups = share.clamp(8, most);
                    tasks += job.w.rows.div_ceil(piece.rows) * piece.groups.count.div_ceil(piece.task_groups);
                }
                _ => {
                    piece.rows = (task_bytes / row_bytes(job)).next_multiple_of(4).max(4);
                    tasks += job.w.rows.div_ceil(piece.rows);
                }
            }
            #[cfg(target_arch = "x86_64")]
            if piece.way == Way::Panel && self.packs() {
                let blocks = job.w.cols / 32;
                let packing = vnni::Packing::of(job.w.format);
                piece.packed_bytes = n * packing.row_bytes(blocks);
                piece.packed[1] = 0;
                if let Some(gate) = job.gate
                    && vnni::Packing::of(gate.format) != packing
                {
                    piece.packed[1] = piece.packed_bytes / 4;
                    piece.packed_bytes += n * vnni::Packing::of(gate.format).row_bytes(blocks);
                }
            }
            plan.push(piece);
        }
        tasks
    }

    /// Packs the activations of jobs whose panels take them packed.
    fn pack(&self, plan: &mut [Piece], packed: &mut [u32]) {
        let mut at = 0;
        for piece in plan.iter_mut() {
            // So far relative to the piece.
            piece.packed = piece.packed.map(|offset| at + offset);
            at += piece.packed_bytes / 4;
        }
        if at == 0 {
            return;
        }
        #[cfg(target_arch = "x86_64")]
        {
            const GROUPS: usize = 8;
            const { assert!(bytes::GROUP == NARROW && vnni::GROUP == WIDE) };
            let tasks: usize = plan.iter().map(|p| if p.packed_bytes > 0 { p.groups.count.div_ceil(GROUPS) } else { 0 }).sum();
            let packed = Shared(packed.as_mut_ptr());
            let plan = &*plan;
            self.cpu.parallel(tasks, |mut task| {
                for piece in plan.iter().filter(|p| p.packed_bytes > 0) {
                    let tasks = piece.groups.count.div_ceil(GROUPS);
                    if task >= tasks {
                        task -= tasks;
                        continue;
                    }
                    let job = &self.jobs[piece.job];
                    let blocks = job.w.cols / 32;
                    let first = [Some(&job.w), job.gate.as_ref().filter(|_| piece.packed[1] != piece.packed[0])];
                    for (w, at) in first.into_iter().zip(piece.packed).filter_map(|(w, at)| Some((w?, at))) {
                        let packing = vnni::Packing::of(w.format);
                        for group in task * GROUPS..((task + 1) * GROUPS).min(piece.groups.count) {
                            let (start, n) = (piece.groups.start(group), piece.groups.len(group));
                            let mut x = [Q8Ptr { q: std::ptr::null(), d: std::ptr::null(), sums: std::ptr::null() }; vnni::GROUP];
                            for (x, row) in x.iter_mut().zip(&job.x[start..start + n]) {
                                *x = self.q8(*row);
                            }
                            // SAFETY: the rows were checked; groups have their own places in the buffer.
                            unsafe {
                                let to = packed.at(at + start * packing.row_bytes(blocks) / 4).cast();
                                vnni::pack(packing, &x[..n], blocks, to);
                            }
                        }
                    }
                    return;
                }
            });
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = packed;
    }

    /// Row `row` of the 8-bit activations, which was checked.
    fn q8(&self, row: u32) -> Q8Ptr {
        match self.x {
            Input::Q8(x) => {
                let at = row as usize * x.width;
                Q8Ptr { q: x.quants[at..].as_ptr(), d: x.scales[at / 32..].as_ptr(), sums: x.sums[at / 16..].as_ptr() }
            }
            Input::F32 { .. } => Q8Ptr { q: std::ptr::null(), d: std::ptr::null(), sums: std::ptr::null() },
        }
    }

    /// Row `row` of the f32 activations, which was checked.
    fn f32(&self, row: u32) -> *const f32 {
        match self.x {
            Input::F32 { data, offset, stride } => data[offset + row as usize * stride..].as_ptr(),
            Input::Q8(_) => std::ptr::null(),
        }
    }

    /// A task of a piece that is computed row by row.
    fn rows(&self, piece: &Piece, task: usize, scratch: &mut Scratch) {
        let job = &self.jobs[piece.job];
        let end = ((task + 1) * piece.rows).min(job.w.rows);
        for batch in (0..job.x.len()).step_by(BATCH) {
            let n = (job.x.len() - batch).min(BATCH);
            let x = &job.x[batch..batch + n];
            for first in (task * piece.rows..end).step_by(STRIP) {
                let rows = (first, (end - first).min(STRIP));
                let up = room(&mut scratch.up, n * STRIP, 0.0);
                self.some_rows(&job.w, rows, x, up);
                if let Some(gate) = &job.gate {
                    let gates = room(&mut scratch.gate, n * STRIP, 0.0);
                    self.some_rows(gate, rows, x, gates);
                    for t in 0..n {
                        let at = t * STRIP..t * STRIP + rows.1;
                        self.cpu.isa().run(Silu { gate: &gates[at.clone()], up: &mut up[at] });
                    }
                }
                for (t, &row) in job.out[batch..batch + n].iter().enumerate() {
                    self.write(row, first, &up[t * STRIP..t * STRIP + rows.1]);
                }
            }
        }
    }

    /// `out[t * STRIP + i] = w[first + i] . x[t]`.
    fn some_rows(&self, w: &Matrix<'_>, rows: (usize, usize), x: &[u32], out: &mut [f32]) {
        match self.x {
            Input::Q8(_) => {
                let mut pointers = [self.q8(x[0]); BATCH];
                for (p, &row) in pointers.iter_mut().zip(x) {
                    *p = self.q8(row);
                }
                let job = Q8Rows { w, rows, x: &pointers[..x.len()], out, stride: STRIP };
                #[cfg(target_arch = "x86_64")]
                if self.isa() == Isa::Avx512 {
                    // SAFETY: the instruction set is there; shapes and rows were checked.
                    unsafe { vnni::rows(job) };
                    return;
                }
                self.cpu.isa().run(job);
            }
            Input::F32 { .. } => {
                let mut pointers = [std::ptr::null(); BATCH];
                for (p, &row) in pointers.iter_mut().zip(x) {
                    *p = self.f32(row);
                }
                self.cpu.isa().run(F32Rows { w, rows, x: &pointers[..x.len()], out, stride: STRIP });
            }
        }
    }

    /// A task of a piece that is computed by panels.
    fn panel(&self, piece: &Piece, task: usize, packed: &[u32], scratch: &mut Scratch) {
        let Some(panel) = self.panel_rows() else { return };
        let job = &self.jobs[piece.job];
        // Neighbouring tasks have the same activations.
        let strips = job.w.rows.div_ceil(piece.rows);
        let (chunk, strip) = (task / strips, task % strips);
        let groups = chunk * piece.task_groups..((chunk + 1) * piece.task_groups).min(piece.groups.count);
        let tokens = piece.groups.start(groups.start)..piece.groups.start(groups.end);
        let n = tokens.len();
        let end = ((strip + 1) * piece.rows).min(job.w.rows);
        let Scratch { up, gate, panel: turned, pointers, .. } = scratch;
        let up = room(up, n * PANEL, 0.0);
        let gates = room(gate, if job.gate.is_some() { n * PANEL } else { 0 }, 0.0);
        if matches!(self.x, Input::F32 { .. }) {
            pointers.clear();
            pointers.extend(job.x[tokens.clone()].iter().map(|&row| self.f32(row)));
            room(turned, F32Panel::SCRATCH, 0.0);
        }
        #[cfg(target_arch = "x86_64")]
        let sizes = {
            room(&mut scratch.lines, vnni::Q8Panel::SCRATCH, vnni::Line::ZERO);
            scratch.groups.clear();
            scratch.groups.extend(groups.map(|i| piece.groups.len(i) as u8));
            &scratch.groups
        };
        for first in (strip * piece.rows..end).step_by(panel) {
            let rows = (first, (end - first).min(panel));
            for (w, at, out) in [(Some(&job.w), piece.packed[0], &mut *up), (job.gate.as_ref(), piece.packed[1], &mut *gates)] {
                let Some(w) = w else { continue };
                #[cfg(target_arch = "x86_64")]
                if self.packs() {
                    let start = at + tokens.start * vnni::Packing::of(w.format).row_bytes(w.cols / 32) / 4;
                    let x = packed[start..].as_ptr().cast();
                    // SAFETY: the instruction set is there; shapes were checked, activations packed for this matrix.
                    unsafe {
                        let job = vnni::Q8Panel { w, rows, x, groups: sizes, out, scratch: &mut scratch.lines };
                        match self.isa() {
                            Isa::Avx512 => vnni::panel(job),
                            Isa::Avx2Vnni => bytes::panel_vnni(job),
                            _ => bytes::panel(job),
                        }
                    };
                    continue;
                }
                let _ = (at, packed);
                self.cpu.isa().run(F32Panel { w, rows, x: pointers, out, scratch: turned });
            }
            if job.gate.is_some() {
                self.cpu.isa().run(Silu { gate: gates, up });
            }
            for (t, &row) in job.out[tokens.clone()].iter().enumerate() {
                self.write(row, first, &up[t * PANEL..t * PANEL + rows.1]);
            }
        }
    }

    /// Sets or increases elements `first..` of row `row` of the results.
    fn write(&self, row: u32, first: usize, values: &[f32]) {
        let at = self.out_offset + row as usize * self.out_stride + first;
        for (out, &value) in self.out[at..at + values.len()].iter().zip(values) {
            let value = if self.add { f32::from_bits(out.load(Relaxed)) + value } else { value };
            out.store(value.to_bits(), Relaxed);
        }
    }
}

/// `up = silu(gate) * up`.
struct Silu<'a> {
    gate: &'a [f32],
    up: &'a mut [f32],
}

impl Kernel for Silu<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (up, &gate) in self.up.iter_mut().zip(self.gate) {
            *up *= gate / (1.0 + exp(-gate));
        }
    }
}
