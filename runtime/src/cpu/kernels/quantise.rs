//! Activations to 8 bits.

use super::Cpu;
use super::simd::{Kernel, Simd};
use crate::q8::Q8Rows;

/// Elements a task.
const TASK: usize = 16 * 1024;

/// Quantises `rows` rows of `out.width` elements, as [`Q8Rows::set`] does, bit for bit.
///
/// # Panics
///
/// Where `x` or `out` is shorter than that.
pub fn quantise(cpu: &Cpu, x: &[f32], rows: usize, out: &mut Q8Rows) {
    let total = rows * out.width;
    assert!(x.len() >= total, "{} elements for {rows} rows of {}", x.len(), out.width);
    let (x, quants) = (&x[..total], &mut out.quants[..total]);
    let (scales, sums) = (&mut out.scales[..total / 32], &mut out.sums[..total / 16]);
    if total <= TASK {
        cpu.isa().run(Blocks { x, quants, scales, sums });
        return;
    }
    let (quants, scales, sums) = (Shared(quants.as_mut_ptr()), Shared(scales.as_mut_ptr()), Shared(sums.as_mut_ptr()));
    cpu.parallel(total.div_ceil(TASK), |task| {
        let from = task * TASK;
        let n = (total - from).min(TASK);
        // SAFETY: tasks have disjoint parts of the three slices, whose lengths were checked above.
        let blocks = unsafe {
            Blocks {
                x: &x[from..from + n],
                quants: std::slice::from_raw_parts_mut(quants.at(from), n),
                scales: std::slice::from_raw_parts_mut(scales.at(from / 32), n / 32),
                sums: std::slice::from_raw_parts_mut(sums.at(from / 16), n / 16),
            }
        };
        cpu.isa().run(blocks);
    });
}

/// A pointer that tasks share, each for its own part.
pub(super) struct Shared<T>(pub(super) *mut T);

impl<T> Shared<T> {
    /// # Safety
    /// `offset` lies within what the pointer is to.
    pub(super) unsafe fn at(&self, offset: usize) -> *mut T {
        // SAFETY: as above.
        unsafe { self.0.add(offset) }
    }
}

// SAFETY: whoever uses the pointer keeps tasks' parts apart.
unsafe impl<T: Send> Sync for Shared<T> {}

/// Whole blocks.
struct Blocks<'a> {
    x: &'a [f32],
    quants: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i16],
}

impl Kernel for Blocks<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let blocks = self.x.as_chunks::<32>().0.iter().zip(self.quants.as_chunks_mut::<32>().0);
        let scales = self.scales.iter_mut().zip(self.sums.as_chunks_mut::<2>().0);
        for ((x, quants), (scale, sums)) in blocks.zip(scales) {
            // SAFETY: the instruction set is there.
            (*scale, *sums) = unsafe { S::quantise(x, quants) };
        }
    }
}
