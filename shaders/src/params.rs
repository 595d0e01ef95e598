//! The uniform structs of the kernels, field for field as WGSL has them.
//!
//! Widths, offsets and strides count elements (f32) unless they are called words (u32). `tokens` is the number
//! of rows to work on, 0 standing for the step's number of tokens.

use bytemuck::{Pod, Zeroable};

macro_rules! params {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl $name {
            /// (field, type, byte offset), in order: compared with the WGSL struct by the tests.
            pub const FIELDS: &'static [(&'static str, &'static str, usize)] =
                &[$((stringify!($field), stringify!($type), std::mem::offset_of!($name, $field)),)*];
        }
    )*};
}

params! {
    /// `embed`.
    Embed {
        /// h.
        width: u32,
        /// Words of a packed row.
        row_words: u32,
        /// First row of the slab bound.
        row_base: u32,
        /// Rows of the slab bound.
        rows: u32,
    }
    /// `norm`.
    Norm {
        /// Elements a row.
        width: u32,
        /// Added to the mean square.
        eps: f32,
        /// Rows.
        tokens: u32,
        /// Zero.
        pad: u32,
    }
    /// `quantise`.
    Quantise {
        /// Elements a row, a multiple of 32.
        width: u32,
        /// Rows.
        tokens: u32,
        /// Zero.
        pad: [u32; 2],
    }
    /// `matvec` and `matmat`.
    Mat {
        /// Rows of the slab bound; of one head where there are several.
        rows: u32,
        /// Weights a row.
        cols: u32,
        /// Words of a packed row of `w`.
        row_words: u32,
        /// Words of a packed row of `gate`.
        gate_row_words: u32,
        /// Row of the matrix that the slab starts with.
        row_base: u32,
        /// Rows of x.
        tokens: u32,
        /// First head of the slab bound.
        head_base: u32,
        /// Zero.
        pad0: u32,
        /// First element of head 0 in x.
        x_offset: u32,
        /// Elements from head to head in x.
        x_stride: u32,
        /// Elements from token to token in x.
        x_width: u32,
        /// Zero.
        pad1: u32,
        /// First element of head 0 in out.
        out_offset: u32,
        /// Elements from head to head in out.
        out_stride: u32,
        /// Elements from token to token in out.
        out_width: u32,
        /// Zero.
        pad2: u32,
    }
    /// `rope`.
    Rope {
        /// Heads.
        heads: u32,
        /// Elements of a rope part.
        dr: u32,
        /// First element of head 0.
        offset: u32,
        /// Elements from head to head.
        stride: u32,
        /// Elements from token to token.
        width: u32,
        /// 1: pairs are neighbours; 0: they are dr/2 apart.
        interleaved: u32,
        /// Rows.
        tokens: u32,
        /// Zero.
        pad: u32,
    }
    /// `latent`.
    Latent {
        /// Width of the latent, even.
        r: u32,
        /// Elements of the rope key, even.
        dr: u32,
        /// Epsilon of the latent's norm.
        eps: f32,
        /// 1: pairs are neighbours; 0: they are dr/2 apart.
        interleaved: u32,
        /// Rows.
        tokens: u32,
        /// Zero.
        pad: [u32; 3],
    }
    /// `attend` and `attend_merge`.
    Attend {
        /// Heads.
        heads: u32,
        /// Width of the latent.
        r: u32,
        /// Elements of a rope part.
        dr: u32,
        /// Parts into which the cache is split.
        splits: u32,
        /// First element of head 0 in q_rope.
        q_offset: u32,
        /// Elements from head to head in q_rope.
        q_stride: u32,
        /// Elements from token to token in q_rope.
        q_width: u32,
        /// Rows.
        tokens: u32,
        /// Factor of the scores.
        scale: f32,
        /// Zero.
        pad: [u32; 3],
    }
    /// `expand`.
    Expand {
        /// Width of the latent.
        r: u32,
        /// Elements of the rope key.
        dr: u32,
        /// First position.
        first: u32,
        /// Positions.
        count: u32,
    }
    /// `attend_expanded`.
    AttendExpanded {
        /// Heads.
        heads: u32,
        /// Width of a key's part without position.
        dn: u32,
        /// Width of the rope part.
        dr: u32,
        /// Width of a value.
        dv: u32,
        /// First position of the chunk.
        first: u32,
        /// Positions of the chunk.
        count: u32,
        /// [`AttendExpanded::FIRST`] and [`AttendExpanded::LAST`].
        flags: u32,
        /// Rows.
        tokens: u32,
        /// Factor of the scores.
        scale: f32,
        /// Zero.
        pad: [u32; 3],
    }
    /// `router`.
    Router {
        /// E, up to 512.
        experts: u32,
        /// K, up to 64.
        top_k: u32,
        /// Groups of experts, up to 64.
        groups: u32,
        /// Groups from which a token may choose.
        top_k_groups: u32,
        /// 1: sigmoid; 0: softmax.
        sigmoid: u32,
        /// 1: a group's score is the sum of its two best; 0: its best.
        top_two: u32,
        /// 1: divide the chosen weights by their sum.
        norm: u32,
        /// The layer, for counters.
        layer: u32,
        /// Factor of the weights.
        scaling: f32,
        /// Rows.
        tokens: u32,
        /// The mixture layer's number among mixture layers (SLOTS).
        bank: u32,
        /// Words before the record in `residency` (SLOTS).
        record: u32,
    }
    /// `place`.
    Place {
        /// K.
        top_k: u32,
        /// Rows.
        tokens: u32,
        /// Zero.
        pad: [u32; 2],
    }
    /// `admit`.
    Admit {
        /// E, up to 512.
        experts: u32,
        /// K, up to 64.
        top_k: u32,
        /// The mixture layer's number among mixture layers.
        bank: u32,
        /// Words before the record in `residency`.
        record: u32,
        /// Tokens in which a count halves.
        half_life: f32,
        /// Zero.
        pad: [u32; 3],
    }
    /// `gather`.
    Gather {
        /// Pieces of 16 bytes of a blob.
        quads: u32,
        /// First expert of the part of the host's bank that is bound.
        bank_first: u32,
        /// Experts of it.
        bank_count: u32,
        /// First slot of the slab bound.
        slab_first: u32,
        /// Slots of it.
        slab_count: u32,
        /// Zero.
        pad: [u32; 3],
    }
    /// `experts_matvec` and `experts_matmat`.
    Experts {
        /// Rows of one expert's matrix.
        rows: u32,
        /// Weights a row.
        cols: u32,
        /// Words of a packed row of U (up form) or D (down form).
        row_words: u32,
        /// Words of a packed row of G.
        gate_row_words: u32,
        /// Words from the start of an expert's blob to U or D.
        part_offset: u32,
        /// Words from the start of an expert's blob to G.
        gate_offset: u32,
        /// Words from blob to blob.
        blob_words: u32,
        /// K.
        top_k: u32,
        /// First slot of the slab bound.
        slab_first: u32,
        /// Slots of the slab bound.
        slab_count: u32,
        /// Rows of `slots`.
        tokens: u32,
        /// Tiles for which `tiles` has room (`experts_matmat`).
        max_tiles: u32,
    }
    /// `group_count` and `group_fill`.
    Group {
        /// Slots.
        slots: u32,
        /// K.
        top_k: u32,
        /// Pairs a tile.
        tile: u32,
        /// Rows of `chosen`.
        tokens: u32,
    }
    /// `spread`.
    Spread {
        /// Devices, up to 16.
        devices: u32,
        /// K.
        top_k: u32,
        /// Rows.
        tokens: u32,
        /// Zero.
        pad: u32,
    }
    /// `bring`.
    Bring {
        /// Words a row.
        width: u32,
        /// Rows.
        tokens: u32,
        /// Zero.
        pad: [u32; 2],
    }
    /// `swiglu`.
    Swiglu {
        /// Elements a row.
        width: u32,
        /// Rows.
        tokens: u32,
        /// Zero.
        pad: [u32; 2],
    }
    /// `combine`.
    Combine {
        /// h.
        width: u32,
        /// K.
        top_k: u32,
        /// Rows.
        tokens: u32,
        /// Zero.
        pad: u32,
    }
    /// `last_row`.
    LastRow {
        /// Elements a row.
        width: u32,
        /// Zero.
        pad: [u32; 3],
    }
    /// `sample`.
    Sample {
        /// Logits of a row.
        vocab: u32,
        /// With VERIFY, which row.
        row: u32,
        /// Zero.
        pad: [u32; 2],
    }
    /// `join`.
    Join {
        /// Elements of a row of `a`.
        n: u32,
        /// Elements of a row of `b`.
        m: u32,
        /// Rows.
        tokens: u32,
        /// Zero.
        pad: u32,
    }
    /// `shift`.
    Shift {
        /// Whether the id behind the step's own is the last row's.
        given: u32,
        /// Zero.
        pad: [u32; 3],
    }
    /// `copy`.
    Copy {
        /// Pieces of 16 bytes.
        pieces: u32,
        /// Zero.
        pad: [u32; 3],
    }
    /// `settle`.
    Settle {
        /// Drafts to come.
        drafts: u32,
        /// Zero.
        pad: [u32; 3],
    }
    /// `draft`.
    Draft {
        /// Logits.
        vocab: u32,
        /// Which draft, from 0.
        index: u32,
        /// Drafts in all.
        drafts: u32,
        /// Zero.
        pad: u32,
    }
}

impl AttendExpanded {
    /// The first chunk: there is no earlier state.
    pub const FIRST: u32 = 1;
    /// The last chunk: normalise.
    pub const LAST: u32 = 2;
}
