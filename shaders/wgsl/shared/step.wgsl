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
    drafted: u32,
    open: u32,
    count: u32,
    began: u32,
    taken: array<u32, 8>,
    logits: array<f32, 8>,
    drafts: array<u32, 8>,
    recent: array<u32, 256>,
    pages: array<u32>,
}

@group(0) @binding(1) var<storage, #{ACCESS}> step: Step;

// Rows to work on: 0 stands for the tokens of the step. None once a layer has missed an expert that the host must serve:
// what follows the router waits for the plan to be taken up again (halt: that layer, plus one).
fn token_count(fixed: u32) -> u32 {
    return select(select(step.tokens, fixed, fixed != 0u), 0u, step.halt != 0u);
}

// The last row that counts of a step with drafts: that from which the last token was sampled.
fn taken_row() -> u32 {
    return max(step.tokens + step.count, step.drafted + 2u) - step.drafted - 2u;
}

// The last token sampled in a step with drafts.
fn last_taken() -> u32 {
    return step.taken[min(max(step.count, 1u) - 1u, 7u)];
}

// The row of the latent cache that holds a position: pages are of 64.
fn cache_row(position: u32) -> u32 {
    let page = min(position >> 6u, arrayLength(&step.pages) - 1u);
    return (step.pages[page] << 6u) + (position & 63u);
}
