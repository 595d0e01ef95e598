    // Body of a matrix-matrix kernel: 64 rows by TN tokens, 4 by 4 a thread, over stages of 32 columns held in
    // workgroup memory. Gated: of each group of four rows two are U's and two are G's. Expects: lid, row_first, tokens
    // (of this tile), w_start, gate_start (words), and x_of(token of the tile), emit(token of the tile, row, value).
    //
    // Who loads what: thread i the word i / 16 of the rows of group i % 16 (the first 128 threads); the word j of the
    // tokens of group q (2 TN threads: the last ones, so that 256 threads share both evenly).
    let group = lid & 15u;
    let word = (lid >> 4u) & 7u;
    let x_lid = lid - (WG - 2u * TN);
    let loads_x = lid >= WG - 2u * TN;
    let x_group = x_lid % TQ;
    let x_word = (x_lid / TQ) & 7u;
    let last = params.rows - 1u;
#ifdef GATED
    let row_a = row_first + group * 2u;
    let w0 = w_start + min(row_a, last) * params.row_words;
    let w1 = w_start + min(row_a + 1u, last) * params.row_words;
    let w2 = gate_start + min(row_a, last) * params.gate_row_words;
    let w3 = gate_start + min(row_a + 1u, last) * params.gate_row_words;
#else
    let row_a = row_first + group * 4u;
#for r in 0..4
    let w#{r} = w_start + min(row_a + #{r}u, last) * params.row_words;
#endfor
#endif
#for t in 0..4
    let x#{t} = x_of(min(x_group * 4u + #{t}u, tokens - 1u));
#endfor
    let tx = lid & 15u;
    let ty = lid >> 4u;
#for t in 0..4
    var a#{t} = vec4<f32>(0.0);
#endfor
    let blocks = (params.cols + 31u) >> 5u;
#ifdef ACT_Q8
    for (var first = 0u; first < blocks; first += STAGE) {
        if (lid < 128u) {
            for (var n = 0u; n < STAGE; n++) {
                // A block beyond the row repeats the last one with scales of 0.
                let b = min(first + n, blocks - 1u);
                let there = select(0.0, 1.0, first + n < blocks);
#ifdef GATED
                let q = vec4<u32>(w_q4(w0, b, word), w_q4(w1, b, word), gate_q4(w2, b, word), gate_q4(w3, b, word));
#else
                let q = vec4<u32>(w_q4(w0, b, word), w_q4(w1, b, word), w_q4(w2, b, word), w_q4(w3, b, word));
#endif
                w_tile[(n * 8u + word) * 16u + group] = q;
                if (word == 0u) {
                    let s0 = w_scales(w0, b) * there;
                    let s1 = w_scales(w1, b) * there;
#ifdef GATED
                    let s2 = gate_scales(w2, b) * there;
                    let s3 = gate_scales(w3, b) * there;
#else
                    let s2 = w_scales(w2, b) * there;
                    let s3 = w_scales(w3, b) * there;
#endif
                    w_scale[n * 16u + group] = vec4<f32>(s0.x, s1.x, s2.x, s3.x);
#ifdef TWO_SCALES
                    w_scale1[n * 16u + group] = vec4<f32>(s0.y, s1.y, s2.y, s3.y);
#endif
#ifdef MINIMA
                    w_min[n * 16u + group] = vec4<f32>(s0.z, s1.z, s2.z, s3.z);
                    w_min1[n * 16u + group] = vec4<f32>(s0.w, s1.w, s2.w, s3.w);
#endif
                }
            }
        }
        if (loads_x) {
            for (var n = 0u; n < STAGE; n++) {
                let b = min(first + n, blocks - 1u);
                let i = b * 8u + x_word;
                x_tile[(n * 8u + x_word) * TQ + x_group] = vec4<u32>(x[x0 + i], x[x1 + i], x[x2 + i], x[x3 + i]);
                if (x_word == 0u) {
                    let j = (params.cols >> 2u) + 2u * b;
                    let d = vec4<u32>(x[x0 + j], x[x1 + j], x[x2 + j], x[x3 + j]);
                    x_scale[n * TQ + x_group] = bitcast<vec4<f32>>(d);
#ifdef MINIMA
                    let h0 = half_sums(x[x0 + j + 1u]);
                    let h1 = half_sums(x[x1 + j + 1u]);
                    let h2 = half_sums(x[x2 + j + 1u]);
                    let h3 = half_sums(x[x3 + j + 1u]);
                    x_sum[n * TQ + x_group] = vec4<f32>(h0.x, h1.x, h2.x, h3.x);
                    x_sum1[n * TQ + x_group] = vec4<f32>(h0.y, h1.y, h2.y, h3.y);
#endif
                }
            }
        }
        workgroupBarrier();
        for (var n = 0u; n < STAGE; n++) {
            let scale = w_scale[n * 16u + tx];
            let d = x_scale[n * TQ + ty];
#for t in 0..4
            var i#{t} = vec4<i32>(0);
#endfor
#ifdef TWO_SCALES
#for t in 0..4
            var j#{t} = vec4<i32>(0);
#endfor
            let scale1 = w_scale1[n * 16u + tx];
            for (var j = 0u; j < 4u; j++) {
                let p = w_tile[(n * 8u + j) * 16u + tx];
                let y = x_tile[(n * 8u + j) * TQ + ty];
                let o = w_tile[(n * 8u + 4u + j) * 16u + tx];
                let z = x_tile[(n * 8u + 4u + j) * TQ + ty];
#for t in 0..4
                i#{t} += dots(p, y[#{t}]);
                j#{t} += dots(o, z[#{t}]);
#endfor
            }
#for t in 0..4
            var v#{t} = vec4<f32>(i#{t}) * scale + vec4<f32>(j#{t}) * scale1;
#endfor
#else
            for (var j = 0u; j < 8u; j++) {
                let p = w_tile[(n * 8u + j) * 16u + tx];
                let y = x_tile[(n * 8u + j) * TQ + ty];
#for t in 0..4
                i#{t} += dots(p, y[#{t}]);
#endfor
            }
#for t in 0..4
            var v#{t} = vec4<f32>(i#{t}) * scale;
#endfor
#endif
#ifdef MINIMA
            let least = w_min[n * 16u + tx];
            let least1 = w_min1[n * 16u + tx];
            let h = x_sum[n * TQ + ty];
            let h1 = x_sum1[n * TQ + ty];
#for t in 0..4
            v#{t} -= least * h[#{t}] + least1 * h1[#{t}];
#endfor
#endif
#for t in 0..4
            a#{t} += v#{t} * d[#{t}];
#endfor
        }
        workgroupBarrier();
    }
#else
    for (var b = 0u; b < blocks; b++) {
        if (lid < 128u) {
            let r0 = w_decode(w0, b, word);
            let r1 = w_decode(w1, b, word);
#ifdef GATED
            let r2 = gate_decode(w2, b, word);
            let r3 = gate_decode(w3, b, word);
#else
            let r2 = w_decode(w2, b, word);
            let r3 = w_decode(w3, b, word);
#endif
#for c in 0..4
            w_tile[(word * 4u + #{c}u) * 16u + group] = vec4<f32>(r0[#{c}], r1[#{c}], r2[#{c}], r3[#{c}]);
#endfor
        }
        if (loads_x) {
            let k = b * 32u + x_word * 4u;
            let y0 = x_quad(x0, k);
            let y1 = x_quad(x1, k);
            let y2 = x_quad(x2, k);
            let y3 = x_quad(x3, k);
#for c in 0..4
            x_tile[(x_word * 4u + #{c}u) * TQ + x_group] = vec4<f32>(y0[#{c}], y1[#{c}], y2[#{c}], y3[#{c}]);
#endfor
        }
        workgroupBarrier();
        for (var k = 0u; k < 32u; k++) {
            let p = w_tile[k * 16u + tx];
            let y = x_tile[k * TQ + ty];
#for t in 0..4
            a#{t} += p * y[#{t}];
#endfor
        }
        workgroupBarrier();
    }
#endif
#for t in 0..4
    {
        let token = ty * 4u + #{t}u;
        if (token < tokens) {
#ifdef GATED
            let row = row_first + tx * 2u;
            if (row < params.rows) {
                emit(token, row, silu(a#{t}.z) * a#{t}.x);
            }
            if (row + 1u < params.rows) {
                emit(token, row + 1u, silu(a#{t}.w) * a#{t}.y);
            }
#else
            let row = row_first + tx * 4u;
#for r in 0..4
            if (row + #{r}u < params.rows) {
                emit(token, row + #{r}u, a#{t}[#{r}]);
            }
#endfor
#endif
        }
    }
#endfor
