//! The CUDA kernels: their arguments, the defines they take and the combinations that make sense.

use super::shape;
use crate::{
    Define, Defines, ShaderError,
    kernels::{FLOATS, FORMATS, Field},
    params,
};

/// What a pointer points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// f32.
    F32,
    /// u32: ids, packed weights, rows in 8 bits or whatever the variant says.
    U32,
}

/// A pointer among a kernel's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// Its name.
    pub name: &'static str,
    /// What it points to.
    pub element: Element,
    /// Whether the kernel writes there.
    pub written: bool,
    /// The flag without which it is null.
    pub only: Option<&'static str>,
}

impl Pointer {
    const fn only(self, flag: &'static str) -> Self {
        Self { only: Some(flag), ..self }
    }
}

const fn reads(name: &'static str, element: Element) -> Pointer {
    Pointer { name, element, written: false, only: None }
}

const fn writes(name: &'static str, element: Element) -> Pointer {
    Pointer { name, element, written: true, only: None }
}

/// A kernel.
#[derive(Clone, Copy, Debug)]
pub struct KernelInfo {
    /// The name: that of its file.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// Fields of its params struct in [`params`].
    pub params: &'static [Field],
    /// Its pointers, in order.
    pub pointers: &'static [Pointer],
    /// The defines it takes.
    pub defines: &'static [Define],
    /// Threads of a block, unless `THREADS` says otherwise.
    pub threads: u32,
    /// Whether decoding spends its time in it: see [`KernelInfo::is_hot`].
    pub hot: bool,
}

impl KernelInfo {
    /// Threads of a block.
    pub fn threads(&self, defines: &Defines) -> u32 {
        defines.get("THREADS").and_then(|t| t.parse().ok()).unwrap_or(self.threads)
    }

    /// Whether it changes the state of the step, which every kernel reads.
    pub fn writes_step(&self, defines: &Defines) -> bool {
        match self.name {
            "sample" | "draft" | "settle" | "shift" | "admit" | "place" => true,
            // It halts the plan at a miss.
            "router" => defines.get("SLOTS").is_some(),
            _ => false,
        }
    }

    /// Whether decoding spends its time in the variant. Eight tokens are a short chunk of a prompt.
    pub fn is_hot(&self, defines: &Defines) -> bool {
        self.hot && defines.get("TOKENS") != Some("8")
    }

    /// Blocks of a multiprocessor that the compiler is to leave room for: few enough for 128 registers a thread, or 255 where four or
    /// eight tokens keep their sums. Left alone it spills a register or two for the sake of more blocks.
    pub fn blocks(&self, defines: &Defines) -> u32 {
        let registers = if matches!(defines.get("TOKENS"), Some("4" | "8")) { 2 } else { 1 };
        (512 / registers / self.threads(defines)).max(1)
    }

    /// Whether the kernel can be made with `defines`.
    pub fn check(&self, defines: &Defines) -> Result<(), ShaderError> {
        let wrong = |name: &str, value: &str| ShaderError::UnknownDefine {
            kernel: self.name.to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
        };
        for (name, value) in defines.iter() {
            if !self.defines.iter().any(|d| d.name() == name && d.accepts(value)) {
                return Err(wrong(name, value));
            }
        }
        if let Some(d) = self.defines.iter().find(|d| d.required() && defines.get(d.name()).is_none()) {
            return Err(wrong(d.name(), "(nothing)"));
        }
        let has = |name: &str| defines.get(name).is_some();
        let float = |name: &str| defines.get(name).map(|f| FLOATS.contains(&f));
        if has("GATED") != has("GATE_FORMAT") || (has("GATED") && float("FORMAT") != float("GATE_FORMAT")) {
            return Err(wrong("GATE_FORMAT", defines.get("GATE_FORMAT").unwrap_or("(nothing)")));
        }
        if has("ACT_Q8") && (has("X4") || float("FORMAT") == Some(true)) {
            return Err(wrong("ACT_Q8", "1"));
        }
        if self.name == "norm" && !has("OUT_F32") && !has("OUT_Q8") {
            return Err(wrong("OUT_F32", "(nothing)"));
        }
        if has("COMBINE") && (has("GATED") || has("UP")) {
            return Err(wrong("COMBINE", "1"));
        }
        if has("UP") && has("GATED") {
            return Err(wrong("UP", "1"));
        }
        Ok(())
    }

    /// Combinations of defines that between them show every format, flag and kind of shape: what the tests compile.
    pub fn variants(&self) -> Vec<Defines> {
        let base = Defines::new();
        match self.name {
            "embed" => FORMATS.iter().map(|f| base.clone().set("FORMAT", f)).collect(),
            "norm" => {
                let (f, q) = (base.clone().flag("OUT_F32"), base.flag("OUT_Q8"));
                vec![f.clone(), q.clone(), f.with(q)]
            }
            "matvec" => matvec_variants(),
            "experts_matvec" => experts_variants(),
            "matmat" => tiles(true),
            "experts_matmat" => tiles(false),
            "latent" | "expand" => vec![base.clone(), base.flag("CACHE_F32")],
            "attend" => attend_variants(),
            "attend_expanded" => [1, 4, 8].map(|n| base.clone().set("DV_TILES", n)).to_vec(),
            "router" => {
                let biased = base.clone().flag("BIAS");
                vec![base.clone(), biased.clone(), base.flag("SLOTS"), biased.flag("SLOTS")]
            }
            "last_row" => vec![base.clone(), base.flag("TAKEN")],
            "sample" => vec![base.clone(), base.flag("VERIFY")],
            _ => vec![base],
        }
    }
}

/// A format's product with activations in every precision that it takes.
fn precisions(format: &str) -> Vec<Defines> {
    let plain = Defines::new().set("FORMAT", format);
    let other = if FLOATS.contains(&format) { None } else { Some(plain.clone().flag("ACT_Q8")) };
    [plain.flag("X4")].into_iter().chain(other).collect()
}

fn gated(d: &Defines, gate: &str) -> Defines {
    d.clone().flag("GATED").set("GATE_FORMAT", gate)
}

fn shaped(d: &Defines, rows: u32, cols: u32, tokens: u32) -> Defines {
    let quantised = d.get("FORMAT").is_some_and(|f| !FLOATS.contains(&f));
    let s = shape::gemv(rows, cols, tokens, quantised);
    d.clone().set("TPR", s.tpr).set("RPT", s.rpt).set("TOKENS", tokens)
}

fn matvec_variants() -> Vec<Defines> {
    let mut all = Vec::new();
    for format in FORMATS {
        for d in precisions(format) {
            all.extend([shaped(&d, 2048, 2048, 1), shaped(&gated(&d, format), 1408, 2048, 1)]);
        }
    }
    // Sums, many rows, several tokens; short rows, and activations that do not begin at multiples of 16 bytes.
    for d in ["bf16", "f8_e4m3", "q4_k", "q6_k", "q8_0"].into_iter().flat_map(precisions) {
        all.extend([shaped(&d.clone().flag("ADD"), 2048, 2048, 1), shaped(&d, 163_840, 2048, 1)]);
        all.extend([2, 4, 8].map(|tokens| shaped(&d, 512, 2048, tokens)));
    }
    for format in ["bf16", "f16", "f32", "q8_0"] {
        let d = Defines::new().set("FORMAT", format);
        all.extend([shaped(&d, 512, 128, 1), shaped(&d, 512, 32, 1)]);
    }
    let mixed = [("q4_k", "q6_k"), ("q8_0", "q4_1"), ("f32", "bf16")];
    all.extend(mixed.map(|(up, gate)| shaped(&gated(&Defines::new().set("FORMAT", up), gate), 1408, 2048, 1)));
    all
}

fn experts_variants() -> Vec<Defines> {
    let mut all = Vec::new();
    for format in FORMATS {
        for d in precisions(format) {
            all.push(shaped(&gated(&d, format), 1408, 2048, 1));
            all.push(shaped(&d.clone().flag("COMBINE").set("THREADS", 192), 2048, 1408, 1));
        }
    }
    all.extend(["bf16", "q4_k", "q8_0"].into_iter().flat_map(precisions).map(|d| shaped(&d, 2048, 1408, 1)));
    // Gates and up matrices of different kinds are multiplied one by one.
    all.extend(["bf16", "q4_k"].map(|f| shaped(&Defines::new().set("FORMAT", f).flag("X4").flag("UP"), 1408, 2048, 1)));
    all
}

fn tiles(add: bool) -> Vec<Defines> {
    let mut all = Vec::new();
    // Experts have the same tiles.
    for format in FORMATS.into_iter().filter(|f| add || ["bf16", "f8_e4m3", "q4_k", "q6_k"].contains(f)) {
        for d in precisions(format) {
            // Tiles are loaded element by element.
            let d = d.get("ACT_Q8").map_or_else(|| Defines::new().set("FORMAT", format), |_| d.clone());
            all.extend([d.clone().set("TN", 64), gated(&d, format).set("TN", 32)]);
        }
    }
    if add {
        all.push(Defines::new().set("FORMAT", "bf16").flag("ADD").set("TN", 64));
    } else {
        all.push(Defines::new().set("FORMAT", "q4_k").flag("UP").set("TN", 32));
    }
    all.push(gated(&Defines::new().set("FORMAT", "bf16"), "f32").set("TN", 32));
    all
}

fn attend_variants() -> Vec<Defines> {
    let mut all = Vec::new();
    for (r, dr, heads) in [(512, 64, 16), (512, 64, 4), (64, 32, 1)] {
        for cache_f32 in [false, true] {
            let Some(s) = shape::attend(r, dr, heads, cache_f32, 224 << 10) else { continue };
            let d = Defines::new().set("HEADS", s.heads).set("PPT", s.ppt).flag_if("CACHE_F32", cache_f32);
            all.extend([d.clone(), d.flag("SPLIT")]);
        }
    }
    all.sort();
    all.dedup();
    all
}

/// The kernel of that name.
pub fn kernel(name: &str) -> Option<&'static KernelInfo> {
    KERNELS.iter().find(|k| k.name == name)
}

use Element::{F32, U32};

const FORMAT: Define = Define::Format("FORMAT");
const GATED: Define = Define::Flag("GATED");
const GATE_FORMAT: Define = Define::Format("GATE_FORMAT");
const ACT_Q8: Define = Define::Flag("ACT_Q8");
const X4: Define = Define::Flag("X4");
const TPR: Define = Define::Number("TPR", &[1, 2, 4, 8, 16, 32], false);
const RPT: Define = Define::Number("RPT", &[1, 2], false);
const TN: Define = Define::Number("TN", &[32, 64], false);
const CACHE_F32: Define = Define::Flag("CACHE_F32");
const MAT: [Pointer; 4] = [reads("x", U32), reads("w", U32), reads("gate", U32).only("GATED"), writes("out", F32)];

/// Every kernel.
pub static KERNELS: &[KernelInfo] = &[
    KernelInfo {
        name: "embed",
        what: "rows of the embedding table, as f32",
        params: params::Embed::FIELDS,
        pointers: &[reads("ids", U32), reads("w", U32), writes("out", F32)],
        defines: &[FORMAT],
        threads: 64,
        hot: false,
    },
    KernelInfo {
        name: "norm",
        what: "RMS norm, to f32, to 8 bits or to both",
        params: params::Norm::FIELDS,
        pointers: &[reads("x", F32), reads("weight", F32), writes("out", F32).only("OUT_F32"), writes("q8", U32).only("OUT_Q8")],
        defines: &[Define::Flag("OUT_F32"), Define::Flag("OUT_Q8")],
        threads: 512,
        hot: true,
    },
    KernelInfo {
        name: "quantise",
        what: "activations to 8 bits",
        params: params::Quantise::FIELDS,
        pointers: &[reads("x", F32), writes("out", U32)],
        defines: &[],
        threads: 128,
        hot: true,
    },
    KernelInfo {
        name: "matvec",
        what: "a matrix, or one for each head, times up to 8 tokens; gated: silu(G x) * (U x)",
        params: params::Mat::FIELDS,
        pointers: &MAT,
        defines: &[
            FORMAT,
            ACT_Q8,
            X4,
            GATED,
            GATE_FORMAT,
            TPR,
            RPT,
            Define::Flag("ADD"),
            Define::Number("TOKENS", &[1, 2, 4, 8], false),
        ],
        threads: shape::GEMV_THREADS,
        hot: true,
    },
    KernelInfo {
        name: "matmat",
        what: "a matrix, or one for each head, times many tokens; gated: silu(G x) * (U x)",
        params: params::Mat::FIELDS,
        pointers: &MAT,
        defines: &[FORMAT, ACT_Q8, GATED, GATE_FORMAT, TN, Define::Flag("ADD")],
        threads: 128,
        hot: false,
    },
    KernelInfo {
        name: "rope",
        what: "rotates the rope part of every head",
        params: params::Rope::FIELDS,
        pointers: &[reads("rope", F32), writes("x", F32)],
        defines: &[],
        threads: 64,
        hot: true,
    },
    KernelInfo {
        name: "latent",
        what: "norm, rope and appending to the latent cache",
        params: params::Latent::FIELDS,
        pointers: &[reads("kv", F32), reads("weight", F32), reads("rope", F32), writes("cache", U32)],
        defines: &[CACHE_F32],
        threads: 128,
        hot: true,
    },
    KernelInfo {
        name: "attend",
        what: "latent attention in absorbed form, or a part of it",
        params: params::Attend::FIELDS,
        pointers: &[reads("q_latent", F32), reads("q_rope", F32), reads("cache", U32), writes("out", F32)],
        defines: &[CACHE_F32, Define::Flag("SPLIT"), Define::Number("HEADS", &[1, 2, 4, 8], false), Define::UpTo("PPT", 8)],
        threads: 256,
        hot: true,
    },
    KernelInfo {
        name: "attend_merge",
        what: "joins the parts of `attend`",
        params: params::Attend::FIELDS,
        pointers: &[reads("partial", F32), writes("out", F32)],
        defines: &[],
        threads: 128,
        hot: true,
    },
    KernelInfo {
        name: "expand",
        what: "rows of the latent cache as f32",
        params: params::Expand::FIELDS,
        pointers: &[reads("cache", U32), writes("latents", F32), writes("keys", F32)],
        defines: &[CACHE_F32],
        threads: 64,
        hot: false,
    },
    KernelInfo {
        name: "attend_expanded",
        what: "attention over a chunk of expanded keys and values",
        params: params::AttendExpanded::FIELDS,
        pointers: &[
            reads("q", F32),
            reads("k", F32),
            reads("keys", F32),
            reads("v", F32),
            writes("state", F32),
            writes("out", F32),
        ],
        defines: &[Define::UpTo("DV_TILES", 8)],
        threads: 128,
        hot: false,
    },
    KernelInfo {
        name: "router",
        what: "chooses experts and weighs them",
        params: params::Router::FIELDS,
        pointers: &[
            reads("logits", F32),
            reads("bias", F32).only("BIAS"),
            writes("ids", U32),
            writes("weights", F32),
            writes("counters", U32),
            writes("slots", U32).only("SLOTS"),
            writes("residency", U32).only("SLOTS"),
        ],
        defines: &[Define::Flag("BIAS"), Define::Flag("SLOTS")],
        threads: 256,
        hot: true,
    },
    KernelInfo {
        name: "place",
        what: "the slots of a routing, looked up again",
        params: params::Place::FIELDS,
        pointers: &[reads("ids", U32), reads("table", U32), writes("slots", U32)],
        defines: &[],
        threads: 64,
        hot: false,
    },
    KernelInfo {
        name: "admit",
        what: "slots for missing experts, in place of the coldest",
        params: params::Admit::FIELDS,
        pointers: &[reads("ids", U32), writes("slots", U32), writes("residency", U32), writes("heat", U32), writes("work", U32)],
        defines: &[],
        threads: 256,
        hot: true,
    },
    KernelInfo {
        name: "gather",
        what: "missing experts, copied from the host's memory",
        params: params::Gather::FIELDS,
        pointers: &[reads("work", U32), reads("source", U32), writes("slab", U32)],
        defines: &[],
        threads: 256,
        hot: true,
    },
    KernelInfo {
        name: "experts_matvec",
        what: "chosen experts' matrices times few tokens, pair by pair, or with their weighted sum",
        params: params::Experts::FIELDS,
        pointers: &[
            reads("x", U32),
            reads("bank", U32),
            reads("slots", U32),
            reads("weights", F32).only("COMBINE"),
            writes("out", F32),
        ],
        defines: &[
            FORMAT,
            ACT_Q8,
            X4,
            GATED,
            GATE_FORMAT,
            TPR,
            RPT,
            Define::Number("TOKENS", &[1], false),
            Define::Flag("UP"),
            Define::Flag("COMBINE"),
            Define::Number("THREADS", &[32, 64, 96, 128, 160, 192, 224, 256], true),
        ],
        threads: shape::GEMV_THREADS,
        hot: true,
    },
    KernelInfo {
        name: "experts_matmat",
        what: "chosen experts' matrices times many tokens, by tiles of one expert's pairs",
        params: params::Experts::FIELDS,
        pointers: &[reads("x", U32), reads("bank", U32), reads("pairs", U32), reads("tiles", U32), writes("out", F32)],
        defines: &[FORMAT, ACT_Q8, GATED, GATE_FORMAT, TN, Define::Flag("UP")],
        threads: 128,
        hot: false,
    },
    KernelInfo {
        name: "spread",
        what: "which copy of an expert serves a pair, of those on several devices",
        params: params::Spread::FIELDS,
        pointers: &[reads("ids", U32), reads("table", U32), writes("slots", U32)],
        defines: &[],
        threads: 32,
        hot: true,
    },
    KernelInfo {
        name: "bring",
        what: "rows from another device's memory",
        params: params::Bring::FIELDS,
        pointers: &[reads("x", U32), writes("out", U32)],
        defines: &[],
        threads: 256,
        hot: true,
    },
    KernelInfo {
        name: "group_count",
        what: "pairs of each slot",
        params: params::Group::FIELDS,
        pointers: &[reads("chosen", U32), writes("counts", U32)],
        defines: &[],
        threads: 256,
        hot: false,
    },
    KernelInfo {
        name: "group_fill",
        what: "pairs sorted by slot, and tiles of them",
        params: params::Group::FIELDS,
        pointers: &[reads("chosen", U32), reads("counts", U32), writes("pairs", U32), writes("tiles", U32)],
        defines: &[],
        threads: 256,
        hot: false,
    },
    KernelInfo {
        name: "swiglu",
        what: "silu(gate) * up",
        params: params::Swiglu::FIELDS,
        pointers: &[reads("gate", F32), reads("up", F32), writes("out", F32)],
        defines: &[],
        threads: 256,
        hot: true,
    },
    KernelInfo {
        name: "combine",
        what: "adds the weighted outputs of the experts",
        params: params::Combine::FIELDS,
        pointers: &[reads("y", F32), reads("weights", F32), writes("x", F32)],
        defines: &[],
        threads: 256,
        hot: true,
    },
    KernelInfo {
        name: "last_row",
        what: "the last token's row, or the last one that counts",
        params: params::LastRow::FIELDS,
        pointers: &[reads("x", F32), writes("out", F32)],
        defines: &[Define::Flag("TAKEN")],
        threads: 256,
        hot: true,
    },
    KernelInfo {
        name: "sample",
        what: "samples a token and prepares the next step, or verifies a draft",
        params: params::Sample::FIELDS,
        pointers: &[writes("ids", U32), writes("ring", U32), writes("logits", F32)],
        defines: &[Define::Flag("VERIFY")],
        threads: 512,
        hot: true,
    },
    KernelInfo {
        name: "join",
        what: "rows of two activations side by side",
        params: params::Join::FIELDS,
        pointers: &[reads("a", F32), reads("b", F32), writes("out", F32)],
        defines: &[],
        threads: 256,
        hot: true,
    },
    KernelInfo {
        name: "shift",
        what: "moves the token ids up by one row",
        params: params::Shift::FIELDS,
        pointers: &[writes("ids", U32)],
        defines: &[],
        threads: 256,
        hot: true,
    },
    KernelInfo {
        name: "settle",
        what: "moves the step to the last row that counts",
        params: params::Settle::FIELDS,
        pointers: &[writes("ids", U32)],
        defines: &[],
        threads: 32,
        hot: true,
    },
    KernelInfo {
        name: "draft",
        what: "drafts the likeliest token",
        params: params::Draft::FIELDS,
        pointers: &[writes("ids", U32), reads("logits", F32)],
        defines: &[],
        threads: 1024,
        hot: true,
    },
    KernelInfo {
        name: "copy",
        what: "copies memory, for measuring",
        params: params::Copy::FIELDS,
        pointers: &[reads("x", U32), writes("out", U32)],
        defines: &[],
        threads: 256,
        hot: true,
    },
];
