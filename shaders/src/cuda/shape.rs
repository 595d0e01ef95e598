//! How threads share the work of a kernel, and how many blocks there are.

/// Threads of a block of the matrix-vector kernels.
pub const GEMV_THREADS: u32 = 128;
/// Rows of a tile of the matrix-matrix kernels.
pub const GEMM_ROWS: u32 = 64;
/// Cache rows of a tile of `attend`.
pub const ATTEND_TILE: u32 = 32;
/// Most parts of the cache that `attend_merge` joins.
pub const MAX_SPLITS: u32 = 256;

/// How a matrix-vector kernel shares its rows; the fields are defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GemvShape {
    /// TPR: lanes that share a row.
    pub tpr: u32,
    /// RPT: rows of a lane.
    pub rpt: u32,
}

impl GemvShape {
    /// Rows of a block of `threads` threads.
    pub const fn rows(self, threads: u32) -> u32 {
        threads / self.tpr * self.rpt
    }
}

/// The shape for `rows` rows of `cols` weights and up to `tokens` (1, 2, 4, 8) tokens.
///
/// A lane takes 32 weights of a quantised row at a time, 8 of a float row: short rows are shared by few lanes, so that none idles.
/// Two rows a lane have more reads under way, where there are rows enough to occupy the device.
pub fn gemv(rows: u32, cols: u32, tokens: u32, quantised: bool) -> GemvShape {
    let pieces = if quantised { cols / 32 } else { cols.div_ceil(8) }.max(1);
    let tpr = (1 << pieces.ilog2()).min(32);
    let rpt = if tokens <= 2 && rows.saturating_mul(tpr) >= 1 << 18 { 2 } else { 1 };
    GemvShape { tpr, rpt }
}

/// How `attend` shares its work; the fields are defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttendShape {
    /// HEADS: heads of a block.
    pub heads: u32,
    /// PPT: pairs of elements of the output that a thread has.
    pub ppt: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

/// The shape for latents of `r` and rope keys of `dr` elements and `heads` heads, where a block may have `limit` bytes of shared
/// memory; `None` where no tile fits.
pub fn attend(r: u32, dr: u32, heads: u32, cache_f32: bool, limit: u32) -> Option<AttendShape> {
    let width = r + dr;
    let tile = ATTEND_TILE * width * if cache_f32 { 4 } else { 2 };
    let fitting = |heads: &u32| (heads * width * 4).next_multiple_of(16) + tile + 4096 <= limit;
    let most = heads.max(1).next_power_of_two().min(8);
    let heads = [8, 4, 2, 1].into_iter().filter(|&h| h <= most).find(fitting)?;
    let ppt = (r / 2).div_ceil(256).max(1);
    Some(AttendShape { heads, ppt, shared: (heads * width * 4).next_multiple_of(16) + tile.next_multiple_of(16) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_do_not_idle_on_short_rows() {
        for cols in [8, 32, 64, 96, 256, 1408, 2048, 7168] {
            for quantised in [true, false] {
                let s = gemv(2048, cols, 1, quantised);
                let pieces = (if quantised { cols / 32 } else { cols / 8 }).max(1);
                assert!(s.tpr.is_power_of_two() && s.tpr <= 32 && s.tpr <= pieces, "{cols} {s:?}");
                assert!(s.rows(32) <= 32, "a warp's sums have a lane each");
            }
        }
        assert_eq!(gemv(163_840, 2048, 1, true).rpt, 2);
    }

    #[test]
    fn attend_fits_the_memory_of_every_model() {
        for (r, dr) in [(512, 64), (256, 64), (64, 32), (48, 6)] {
            for heads in [1, 5, 16, 20, 128] {
                for cache_f32 in [false, true] {
                    let s = attend(r, dr, heads, cache_f32, 99 << 10);
                    assert!(s.is_some_and(|s| s.shared < 99 << 10 && s.ppt * 512 >= r && s.heads <= 8), "{r} {dr} {s:?}");
                }
            }
        }
        assert_eq!(attend(4096, 64, 16, true, 99 << 10), None);
    }
}
