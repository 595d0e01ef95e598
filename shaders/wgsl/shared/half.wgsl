// The bits of an f16, rounded to nearest, halves to even: the same on every device, which pack2x16float is not.
fn f16_bits(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let sign = (bits >> 16u) & 0x8000u;
    let a = bits & 0x7fffffffu;
    let rounded = a + 0xfffu + ((a >> 13u) & 1u);
    let normal = min((max(rounded, 0x38000000u) - 0x38000000u) >> 13u, 0x7c00u);
    // Below 2^-14: steps of 2^-24.
    let subnormal = u32(round(min(bitcast<f32>(a), 1.0) * 16777216.0));
    return sign | select(normal, subnormal, a < 0x38800000u);
}
