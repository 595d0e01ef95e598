// Four e4m3fn numbers, given as bytes. Subnormals are steps of 2^-9; NaN cannot occur in checked weights.
fn e4m3(bytes: vec4<u32>) -> vec4<f32> {
    let normal = bitcast<vec4<f32>>(((bytes & vec4<u32>(0x7fu)) << vec4<u32>(20u)) + vec4<u32>(0x3c000000u));
    let subnormal = vec4<f32>(bytes & vec4<u32>(7u)) * 0.001953125;
    let magnitude = select(normal, subnormal, (bytes & vec4<u32>(0x78u)) == vec4<u32>(0u));
    return select(magnitude, -magnitude, (bytes & vec4<u32>(0x80u)) != vec4<u32>(0u));
}
