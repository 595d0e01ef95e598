//! Workgroups and tiles for given dimensions, and how many workgroups to dispatch.

/// Workgroup memory that every device has.
pub const WORKGROUP_BYTES: u32 = 16384;

/// Workgroups in the first dimension of a grid made by [`spread`].
const SPREAD: u32 = 32768;

/// A grid of at least `n` workgroups in two dimensions, as one dimension ends at 65,535: the kernel's index is
/// `x + y * 32768`.
pub const fn spread(n: u32) -> [u32; 2] {
    if n <= SPREAD { [n, 1] } else { [SPREAD, n.div_ceil(SPREAD)] }
}

/// Workgroup of a matrix-vector kernel; the fields are defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatvecShape {
    /// TPR: threads that share a row.
    pub tpr: u32,
    /// GROUPS: groups of such threads in a workgroup.
    pub groups: u32,
    /// RPT: rows of a thread.
    pub rpt: u32,
    /// SUBGROUP: sums are made by subgroups (only with one group).
    pub subgroup: bool,
}

impl MatvecShape {
    /// Rows of one workgroup.
    pub const fn rows(self) -> u32 {
        self.groups * self.rpt
    }
}

/// The shape for `rows` rows of `cols` weights and up to `tokens` (1, 2, 4, 8) tokens; `subgroup` where the device has
/// subgroups.
///
/// A thread takes 32 weights at a time of a quantised row and 4 of a float row. Short rows are shared by few threads, so that
/// none idles; several rows a thread spare reads of the activation where there are rows enough to occupy the device.
pub fn matvec(rows: u32, cols: u32, tokens: u32, quantised: bool, subgroup: bool) -> MatvecShape {
    let pieces = if quantised { cols / 32 } else { cols.div_ceil(4) }.max(1);
    let widest = if pieces >= 256 { 64 } else { 32 };
    let tpr = (1 << pieces.ilog2()).min(widest);
    let subgroup = subgroup && tpr >= 32;
    let groups = if subgroup { 1 } else { 64 / tpr };
    let threads = rows.saturating_mul(tpr);
    let rpt = match threads {
        0..0x2_0000 => 1,
        0x2_0000..0x8_0000 => 2,
        _ => 4,
    };
    // Eight tokens keep eight sums a row in registers.
    let rpt = rpt.min(if tokens > 4 { 2 } else { 4 });
    MatvecShape { tpr, groups, rpt, subgroup }
}

/// Rows of a tile of the matrix-matrix kernels.
pub const fn matmat_rows(gated: bool) -> u32 {
    if gated { 32 } else { 64 }
}

/// Workgroup of `attend`; the fields are defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttendShape {
    /// WG: threads.
    pub wg: u32,
    /// SLICES: threads that share a cache row.
    pub slices: u32,
    /// QW: pairs of elements of a cache row that a thread has.
    pub qw: u32,
    /// PPT: pairs of elements of the output that a thread has.
    pub ppt: u32,
    /// HEADS_PER_GROUP: heads of a workgroup.
    pub heads_per_group: u32,
}

impl AttendShape {
    /// Cache rows at once.
    pub const fn rows(self) -> u32 {
        self.wg / self.slices
    }

    /// Workgroup memory, for cache elements of 2 or 4 bytes.
    const fn bytes(self, f32_cache: bool) -> u32 {
        let (rows, heads) = (self.rows(), self.heads_per_group);
        let pair = if f32_cache { 8 } else { 4 };
        rows * self.slices * self.qw * pair + rows * heads * self.slices * 4 + rows * heads * 8 + heads * 8
    }
}

/// The shape for latents of `r` and rope keys of `dr` elements and `heads` heads.
pub fn attend(r: u32, dr: u32, heads: u32, cache_f32: bool) -> AttendShape {
    let wg = (r / 2).next_power_of_two().clamp(64, 256);
    let pairs = (r + dr) / 2;
    let heads_per_group = heads.max(1).next_power_of_two().min(4);
    let ppt = (r / 2).div_ceil(wg).max(1);
    let with = |slices: u32| AttendShape { wg, slices, qw: pairs.div_ceil(slices), ppt, heads_per_group };
    let mut shape = with(wg / 8);
    while shape.bytes(cache_f32) > WORKGROUP_BYTES && shape.slices < wg {
        shape = with(shape.slices * 2);
    }
    shape
}

/// DV_TILES of `attend_expanded`: values of `dv` elements in tiles of 32.
pub const fn attend_expanded(dv: u32) -> u32 {
    dv.div_ceil(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_cover_what_they_should() {
        for n in [1, 5, 32768, 32769, 65536, 163_840, 5_000_000] {
            let [x, y] = spread(n);
            assert!(x * y >= n && x <= 65535 && y <= 65535, "{n}");
        }
    }

    #[test]
    fn matvec_threads_do_not_idle_on_short_rows() {
        for cols in [32, 64, 96, 256, 1024, 2048, 7168, 18432] {
            for quantised in [true, false] {
                for subgroup in [true, false] {
                    let s = matvec(512, cols, 1, quantised, subgroup);
                    let pieces = if quantised { cols / 32 } else { cols / 4 };
                    assert!(s.tpr <= pieces && s.tpr * s.groups <= 256 && s.tpr.is_power_of_two(), "{cols} {s:?}");
                    assert!(!s.subgroup || s.groups == 1);
                }
            }
        }
        assert_eq!(matvec(512, 32, 1, true, false).tpr, 1);
        assert_eq!(matvec(512, 24, 1, false, false).tpr, 4);
    }

    #[test]
    fn attend_fits_workgroup_memory_for_every_model() {
        for (r, dr) in [(512, 64), (256, 64), (64, 32), (32, 16), (128, 128), (512, 128)] {
            for heads in [1, 2, 8, 16, 20, 128] {
                for cache_f32 in [false, true] {
                    let s = attend(r, dr, heads, cache_f32);
                    assert!(s.bytes(cache_f32) <= WORKGROUP_BYTES, "{r} {dr} {s:?}");
                    assert!(s.slices * s.qw * 2 >= r + dr && s.wg * s.ppt * 2 >= r);
                    assert!(s.slices.is_multiple_of(s.heads_per_group));
                }
            }
        }
    }
}
