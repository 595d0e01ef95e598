// Interface of `experts_matvec` and `experts_matmat`, and where an expert's weights are.
#import shared/math.wgsl

struct Experts {
    rows: u32,
    cols: u32,
    row_words: u32,
    gate_row_words: u32,
    part_offset: u32,
    gate_offset: u32,
    blob_words: u32,
    top_k: u32,
    slab_first: u32,
    slab_count: u32,
    tokens: u32,
    max_tiles: u32,
}

@group(0) @binding(0) var<uniform> params: Experts;
@group(0) @binding(2) var<storage, read> x: array<#{X_TYPE}>;
// Slots slab_first.. of slab_count experts' blobs: packed rows of G, of U and of D.
@group(0) @binding(3) var<storage, read> bank: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

#import shared/activation.wgsl
#import shared/formats/#{FORMAT}.wgsl P=w_ W=bank
#ifdef GATED
#import shared/formats/#{GATE_FORMAT}.wgsl P=gate_ W=bank
#endif

// In another slab, or nowhere on this device.
const ELSEWHERE: u32 = 0xffffffffu;

// First word of a slot in `bank`, or ELSEWHERE. Where all experts are resident, expert e has slot e.
fn slot_start(slot: u32) -> u32 {
    let position = slot - params.slab_first;
    return select(ELSEWHERE, position * params.blob_words, slot >= params.slab_first && position < params.slab_count);
}

// Where the activation of a pair (token, k) starts: the up form reads the token's row, the down form the pair's.
fn x_start(pair: u32) -> u32 {
#ifdef GATED
    let row = pair / params.top_k;
#else
    let row = pair;
#endif
#ifdef ACT_Q8
    return row * x_words();
#else
    return row * params.cols;
#endif
}

fn store(pair: u32, row: u32, value: f32) {
    out[pair * params.rows + row] = value;
}
