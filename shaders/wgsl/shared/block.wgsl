// 32 weights of a quantised row: w[i] = s[i / 16] * q[i] - m[i / 16].
struct Block32 {
    // Signed bytes 0..16, four a word.
    q0: vec4<u32>,
    // 16..32.
    q1: vec4<u32>,
    s: vec2<f32>,
    m: vec2<f32>,
}

// One half of a word of two f16.
fn half_of(word: u32, odd: u32) -> f32 {
    return unpack2x16float(word >> (16u * odd)).x;
}

fn byte_of(word: u32, i: u32) -> u32 {
    return (word >> (8u * i)) & 0xffu;
}

// Four unsigned bytes below 128 less `bias` (a byte, four times): signed bytes.
fn less4(bytes: u32, bias: u32) -> u32 {
    return ((bytes | 0x80808080u) - bias) ^ 0x80808080u;
}

// Bit i of a nibble to the lowest bit of byte i.
fn spread4(nibble: u32) -> u32 {
    return ((nibble & 15u) * 0x00204081u) & 0x01010101u;
}

// 0xff in each byte whose bit `bit` is set.
fn mask4(bytes: u32, bit: u32) -> u32 {
    return ((bytes >> bit) & 0x01010101u) * 0xffu;
}

// The codebook of IQ4_NL and IQ4_XS for four nibbles, one a byte: a tree of selections, four bytes at a time.
fn iq4(bytes: u32) -> u32 {
    let m0 = mask4(bytes, 0u);
    let m1 = mask4(bytes, 1u);
    let m2 = mask4(bytes, 2u);
    let m3 = mask4(bytes, 3u);
    // -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113; a pair's second value is the first ^ the constant.
    let p0 = 0x81818181u ^ (m0 & 0x19191919u);
    let p1 = 0xadadadadu ^ (m0 & 0x12121212u);
    let p2 = 0xcfcfcfcfu ^ (m0 & 0x12121212u);
    let p3 = 0xeaeaeaeau ^ (m0 & 0x1c1c1c1cu);
    let p4 = 0x01010101u ^ (m0 & 0x0c0c0c0cu);
    let p5 = 0x19191919u ^ (m0 & 0x3f3f3f3fu);
    let p6 = 0x35353535u ^ (m0 & 0x70707070u);
    let p7 = 0x59595959u ^ (m0 & 0x28282828u);
    let h0 = p0 ^ (m1 & (p0 ^ p1));
    let h1 = p2 ^ (m1 & (p2 ^ p3));
    let h2 = p4 ^ (m1 & (p4 ^ p5));
    let h3 = p6 ^ (m1 & (p6 ^ p7));
    let g0 = h0 ^ (m2 & (h0 ^ h1));
    let g1 = h2 ^ (m2 & (h2 ^ h3));
    return g0 ^ (m3 & (g0 ^ g1));
}

// Twice the value of four FP4 (e2m1) numbers, one a byte: 0 1 2 3 4 6 8 12 and their negatives.
fn fp4(bytes: u32) -> u32 {
    let large = mask4(bytes, 2u);
    let mantissa = (bytes & 0x01010101u) | 0x02020202u;
    let shift = mask4(bytes, 1u);
    let above = ((mantissa << 1u) & ~shift) | ((mantissa << 2u) & shift);
    let magnitude = ((bytes & 0x03030303u) & ~large) | (above & large);
    let negative = (0x80808080u - magnitude) ^ 0x80808080u;
    let sign = mask4(bytes, 3u);
    return (magnitude & ~sign) | (negative & sign);
}
