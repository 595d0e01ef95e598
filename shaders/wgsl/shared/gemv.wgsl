    // Body of a matrix-vector kernel. Threads of a group walk over the row, 32 (quantised) or 4 weights at a time;
    // each weight is decoded once for all tokens. Expects: lid, tile, tokens, w_start, gate_start (words), x_first,
    // x_step (elements or words), and emit(token, row, value).
    let lane = lid % TPR;
    let row0 = (tile * GROUPS + lid / TPR) * RPT;
#for r in 0..#{RPT}
    let w#{r} = w_start + min(row0 + #{r}u, params.rows - 1u) * params.row_words;
#ifdef GATED
    let g#{r} = gate_start + min(row0 + #{r}u, params.rows - 1u) * params.gate_row_words;
#endif
#for t in 0..#{TOKENS}
    var a#{r}_#{t} = 0.0;
#ifdef GATED
    var b#{r}_#{t} = 0.0;
#endif
#endfor
#endfor
#for t in 0..#{TOKENS}
    let x#{t} = x_first + min(#{t}u, tokens - 1u) * x_step;
#endfor
#ifdef QUANTISED
    let blocks = params.cols >> 5u;
    for (var b = lane; b < blocks; b += TPR) {
#for r in 0..#{RPT}
        let u#{r} = w_block32(w#{r}, b);
#ifdef GATED
        let v#{r} = gate_block32(g#{r}, b);
#endif
#endfor
#for t in 0..#{TOKENS}
        {
#ifdef ACT_Q8
            let i = x#{t} + b * 8u;
            let y0 = vec4<u32>(x[i], x[i + 1u], x[i + 2u], x[i + 3u]);
            let y1 = vec4<u32>(x[i + 4u], x[i + 5u], x[i + 6u], x[i + 7u]);
            let j = x#{t} + (params.cols >> 2u) + 2u * b;
            let d = bitcast<f32>(x[j]);
            let sums = x[j + 1u];
#for r in 0..#{RPT}
            a#{r}_#{t} += d * dot_block(u#{r}, y0, y1, sums);
#ifdef GATED
            b#{r}_#{t} += d * dot_block(v#{r}, y0, y1, sums);
#endif
#endfor
#else
            let i = x#{t} + b * 32u;
            let y0 = act4(i);
            let y1 = act4(i + 4u);
            let y2 = act4(i + 8u);
            let y3 = act4(i + 12u);
            let y4 = act4(i + 16u);
            let y5 = act4(i + 20u);
            let y6 = act4(i + 24u);
            let y7 = act4(i + 28u);
#for r in 0..#{RPT}
            a#{r}_#{t} += dot_block(u#{r}, y0, y1, y2, y3, y4, y5, y6, y7);
#ifdef GATED
            b#{r}_#{t} += dot_block(v#{r}, y0, y1, y2, y3, y4, y5, y6, y7);
#endif
#endfor
#endif
        }
#endfor
    }
#else
    for (var k = lane * 4u; k < params.cols; k += TPR * 4u) {
        if (k + 4u <= params.cols) {
#for r in 0..#{RPT}
            let u#{r} = w_w4(w#{r}, k);
#ifdef GATED
            let v#{r} = gate_w4(g#{r}, k);
#endif
#endfor
#for t in 0..#{TOKENS}
            {
                let y = act4(x#{t} + k);
#for r in 0..#{RPT}
                a#{r}_#{t} += dot(u#{r}, y);
#ifdef GATED
                b#{r}_#{t} += dot(v#{r}, y);
#endif
#endfor
            }
#endfor
        } else {
            for (var i = k; i < params.cols; i++) {
#for t in 0..#{TOKENS}
                {
                    let y = act1(x#{t} + i);
#for r in 0..#{RPT}
                    a#{r}_#{t} += w_w1(w#{r}, i) * y;
#ifdef GATED
                    b#{r}_#{t} += gate_w1(g#{r}, i) * y;
#endif
#endfor
                }
#endfor
            }
        }
    }
#endif
#ifdef SUBGROUP
    // One group: every subgroup leaves one sum.
#for r in 0..#{RPT}
#for t in 0..#{TOKENS}
    {
        let q = #{r}u * TOKENS + #{t}u;
#ifdef GATED
        let s = subgroupAdd(a#{r}_#{t});
        let z = subgroupAdd(b#{r}_#{t});
        if (subgroup_lane == 0u) {
            partial[2u * q * PARTS + subgroup] = s;
            partial[(2u * q + 1u) * PARTS + subgroup] = z;
        }
#else
        let s = subgroupAdd(a#{r}_#{t});
        if (subgroup_lane == 0u) {
            partial[q * PARTS + subgroup] = s;
        }
#endif
    }
#endfor
#endfor
    workgroupBarrier();
    let parts = subgroups;
    let row_of_sums = PARTS;
#else
#for r in 0..#{RPT}
#for t in 0..#{TOKENS}
#ifdef GATED
    partial[2u * (#{r}u * TOKENS + #{t}u) * WG + lid] = a#{r}_#{t};
    partial[(2u * (#{r}u * TOKENS + #{t}u) + 1u) * WG + lid] = b#{r}_#{t};
#else
    partial[(#{r}u * TOKENS + #{t}u) * WG + lid] = a#{r}_#{t};
#endif
#endfor
#endfor
    workgroupBarrier();
    // Every sum of TPR values becomes PARTS sums, in place.
    for (var o = lid / PARTS; o < GROUPS * SUMS; o += WG / PARTS) {
        let at = (o % SUMS) * WG + (o / SUMS) * TPR + lid % PARTS;
        var s = partial[at];
        for (var i = PARTS; i < TPR; i += PARTS) {
            s += partial[at + i];
        }
        partial[at] = s;
    }
    workgroupBarrier();
    let parts = PARTS;
    let row_of_sums = WG;
#endif
    for (var o = lid; o < GROUPS * RPT * TOKENS; o += WG) {
        let owner = o / (RPT * TOKENS);
        let q = o % (RPT * TOKENS);
        let row = (tile * GROUPS + owner) * RPT + q / TOKENS;
        let token = q % TOKENS;
#ifdef GATED
        let at = 2u * q * row_of_sums + owner * TPR;
        var z = 0.0;
        for (var i = 0u; i < parts; i++) {
            z += partial[at + row_of_sums + i];
        }
#else
        let at = q * row_of_sums + owner * TPR;
#endif
        var s = 0.0;
        for (var i = 0u; i < parts; i++) {
            s += partial[at + i];
        }
        if (row < params.rows && token < tokens) {
#ifdef GATED
            s *= silu(z);
#endif
            emit(token, row, s);
        }
    }
