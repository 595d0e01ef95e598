// Four weights from column 32 b + 4 j as f32; 0 beyond the row.
fn #{P}decode(row: u32, b: u32, j: u32) -> vec4<f32> {
#ifdef QUANTISED
    let s = #{P}scales(row, b);
    let late = j > 3u;
    return quad(#{P}q4(row, b, j)) * select(s.x, s.y, late) - select(s.z, s.w, late);
#else
    let k = b * 32u + j * 4u;
    if (k + 4u <= params.cols) {
        return #{P}w4(row, k);
    }
    var v = vec4<f32>(0.0);
    for (var i = 0u; k + i < params.cols; i++) {
        v[i] = #{P}w1(row, k + i);
    }
    return v;
#endif
}
