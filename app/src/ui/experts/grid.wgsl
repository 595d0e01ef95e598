// The cells of the grid of experts, as colours.
//
// One triangle covers what egui lets be drawn; every pixel looks up its column and row, reads one number and colours it.
// `colours.rs` holds the same steps in Rust, for texture, legend and picture: keep both alike.

struct Params {
    // The pixel of the screen that the first entries of the lookup are for.
    origin: vec2<i32>,
    // Entries of the lookup: columns of pixels, then rows of pixels.
    size: vec2<u32>,
    // Experts and mixture layers.
    cells: vec2<u32>,
    // 0 linear, 1 logarithmic, 2 ratio, 3 signed, 4 homes.
    scale: u32,
    // 1: bits say which cells chance explains; 2: the target takes linear colours.
    flags: u32,
    // What numbers are divided by, to be on the scale.
    top: f32,
    chance_share: f32,
    // Dense layers, shared experts.
    single: vec2<u32>,
}

@group(0) @binding(0) var<uniform> params: Params;
// Both palettes of 256 colours, then single ones, four to an entry.
@group(0) @binding(1) var<uniform> table: array<vec4<u32>, 131>;
// [rows, columns]: bits of f32.
@group(0) @binding(2) var<storage, read> cells: array<u32>;
// A bit for each cell: chance explains it.
@group(0) @binding(3) var<storage, read> noise_bits: array<u32>;
@group(0) @binding(4) var<storage, read> lookup: array<u32>;

const ZERO: u32 = 512u;
const CHANCE: u32 = 513u;
const UNKNOWN: u32 = 514u;
const HOMES: u32 = 516u;

const CELLS: u32 = 0x40000u;
const THIN: u32 = 0x80000u;
const BORDER: u32 = 0x100000u;

@vertex
fn cover(@builtin(vertex_index) index: u32) -> @builtin(position) vec4<f32> {
    let corner = vec2<f32>(f32((index << 1u) & 2u), f32(index & 2u));
    return vec4<f32>(corner * 2.0 - 1.0, 0.0, 1.0);
}

fn unpack(colour: u32) -> vec3<f32> {
    return vec3<f32>(vec3<u32>(colour, colour >> 8u, colour >> 16u) & vec3<u32>(255u));
}

fn entry(index: u32) -> vec3<f32> {
    let four = table[index >> 2u];
    return unpack(four[index & 3u]);
}

fn sample(palette: u32, place: f32) -> vec3<f32> {
    let at = clamp(place, 0.0, 1.0) * 255.0;
    let below = min(u32(at), 254u);
    return mix(entry(palette + below), entry(palette + below + 1u), at - f32(below));
}

fn greyed(colour: vec3<f32>, noise: bool) -> vec3<f32> {
    return select(colour, mix(colour, entry(CHANCE), params.chance_share), noise);
}

// A number as a multiple of the end of its scale. Infinities are told by their bits: a shader may take numbers for finite.
fn share(bits: u32) -> f32 {
    if (bits & 0x7fffffffu) == 0x7f800000u {
        return select(1.0, -1.0, (bits >> 31u) == 1u);
    }
    let value = bitcast<f32>(bits);
    if params.top > 0.0 {
        return value / params.top;
    }
    return sign(value);
}

// The second colour of a pattern is at these quarters of a cell.
fn half_filled(quarter: vec2<u32>) -> bool {
    return quarter.y >= 2u;
}

fn stripes(quarter: vec2<u32>) -> bool {
    return ((quarter.x + quarter.y) & 3u) < 2u;
}

fn unknown(quarter: vec2<u32>) -> vec3<f32> {
    return entry(UNKNOWN + u32(((quarter.x + quarter.y) & 3u) == 3u));
}

fn logarithmic(value: f32, noise: bool) -> vec3<f32> {
    if value <= 0.0 {
        return greyed(entry(ZERO), noise);
    }
    if params.top <= 0.0 {
        return greyed(sample(0u, 1.0), noise);
    }
    return greyed(sample(0u, log2(value) / params.top), noise);
}

fn of_value(bits: u32, index: u32, quarter: vec2<u32>) -> vec3<f32> {
    if (bits & 0x7fffffffu) > 0x7f800000u {
        return unknown(quarter);
    }
    let noise = (params.flags & 1u) != 0u && ((noise_bits[index >> 5u] >> (index & 31u)) & 1u) != 0u;
    switch params.scale {
        case 0u: {
            return greyed(sample(0u, share(bits)), noise);
        }
        case 1u: {
            if bits == 0x7f800000u {
                return greyed(sample(0u, 1.0), noise);
            }
            return logarithmic(bitcast<f32>(bits), noise);
        }
        case 2u, 3u: {
            return greyed(sample(256u, (clamp(share(bits), -1.0, 1.0) + 1.0) * 0.5), noise);
        }
        default: {
            let value = bitcast<f32>(bits);
            if value >= 1.5 {
                return entry(HOMES + 4u + u32(stripes(quarter)));
            }
            if value >= 0.5 {
                return entry(HOMES + 2u);
            }
            return entry(HOMES + u32(half_filled(quarter)));
        }
    }
}

fn linear_of(colour: vec3<f32>) -> vec3<f32> {
    let low = colour / 12.92;
    let high = pow((colour + 0.055) / 1.055, vec3<f32>(2.4));
    return select(high, low, colour <= vec3<f32>(0.04045));
}

@fragment
fn colour(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let pixel = vec2<i32>(floor(position.xy)) - params.origin;
    if any(pixel < vec2<i32>(0)) || any(pixel >= vec2<i32>(params.size)) {
        discard;
    }
    let x = lookup[u32(pixel.x)];
    let y = lookup[params.size.x + u32(pixel.y)];
    var rgb: vec3<f32>;
    if (y & THIN) != 0u {
        // A dense layer: one bar, with the separators of the groups.
        if (x & CELLS) == 0u {
            discard;
        }
        rgb = unpack(params.single.x);
    } else if (y & CELLS) == 0u || x == 0u || ((x | y) & BORDER) != 0u {
        discard;
    } else if (x & THIN) != 0u {
        rgb = unpack(params.single.y);
    } else {
        let index = (y & 0xffffu) * params.cells.x + (x & 0xffffu);
        let quarter = vec2<u32>(x >> 16u, y >> 16u) & vec2<u32>(3u);
        if index >= arrayLength(&cells) {
            rgb = unknown(quarter);
        } else {
            rgb = of_value(cells[index], index, quarter);
        }
    }
    rgb /= 255.0;
    if (params.flags & 2u) != 0u {
        rgb = linear_of(rgb);
    }
    return vec4<f32>(rgb, 1.0);
}
