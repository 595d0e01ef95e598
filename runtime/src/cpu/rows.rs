//! Operations on single rows, spread over the threads.

use super::kernels::Cpu;

/// A pointer that may be shared because every task writes a row of its own.
struct Shared<T>(*mut T);
// SAFETY: `for_rows` hands each row to exactly one task.
unsafe impl<T: Send> Sync for Shared<T> {}

/// Calls `f(row, elements)` for every row of `width` elements, on all threads.
pub(super) fn for_rows<T: Send>(cpu: &Cpu, data: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let rows = data.len() / width.max(1);
    if rows == 1 {
        return f(0, &mut data[..width]);
    }
    let base = Shared(data.as_mut_ptr());
    let base = &base;
    cpu.parallel(rows, |r| {
        // SAFETY: rows are disjoint and inside `data`, which outlives the call.
        let row = unsafe { std::slice::from_raw_parts_mut(base.0.add(r * width), width) };
        f(r, row);
    });
}

/// RMS norm with sums in sixteen lanes, so that the compiler can use whole registers.
pub(super) fn norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mut lanes = [0.0f32; 16];
    let chunks = x.chunks_exact(16);
    let tail: f32 = chunks.remainder().iter().map(|v| v * v).sum();
    for c in chunks {
        for (l, v) in lanes.iter_mut().zip(c) {
            *l += v * v;
        }
    }
    let mean = (lanes.iter().sum::<f32>() + tail) / x.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    for ((o, x), w) in out.iter_mut().zip(x).zip(weight) {
        *o = x * scale * w;
    }
}
