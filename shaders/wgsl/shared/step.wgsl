// The state of a step: written by the host, and by `sample` for the step after.

struct Step {
    tokens: u32,
    pos: u32,
    sampled: u32,
    stopped: u32,
    temperature: f32,
    top_p: f32,
    min_p: f32,
    top_k: u32,
    repeat_penalty: f32,
    frequency_penalty: f32,
    presence_penalty: f32,
    penalty_last_n: u32,
    seed_lo: u32,
    seed_hi: u32,
    n_end: u32,
    counters_on: u32,
    end: array<u32, 16>,
    recent_len: u32,
    recent_head: u32,
    halt: u32,
    on_miss: u32,
    recent: array<u32, 256>,
    pages: array<u32>,
}

@group(0) @binding(1) var<storage, #{ACCESS}> step: Step;

// Rows to work on: 0 stands for the tokens of the step. None once a layer has missed an expert that the host must serve:
// what follows the router waits for the plan to be taken up again (halt: that layer, plus one).
fn token_count(fixed: u32) -> u32 {
    return select(select(step.tokens, fixed, fixed != 0u), 0u, step.halt != 0u);
}

// The row of the latent cache that holds a position: pages are of 64.
fn cache_row(position: u32) -> u32 {
    let page = min(position >> 6u, arrayLength(&step.pages) - 1u);
    return (step.pages[page] << 6u) + (position & 63u);
}
