//! The kernels, the defines they take and the combinations that make sense.

use crate::{Defines, ShaderError, params, preprocess::Names, shape};

/// What a device must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// The default limits of WebGPU and no feature.
    Plain,
    /// Subgroups.
    Subgroup,
}

/// A define and its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Define {
    /// Defined or not.
    Flag(&'static str),
    /// A weight format by its lower-case name.
    Format(&'static str),
    /// A number; it must be given unless the last field is `true`.
    Number(&'static str, &'static [u32], bool),
    /// Any number from 1 up to this.
    UpTo(&'static str, u32),
}

impl Define {
    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flag(name) | Self::Format(name) | Self::Number(name, ..) | Self::UpTo(name, _) => name,
        }
    }

    pub(crate) fn accepts(self, value: &str) -> bool {
        let number = || value.parse::<u32>().ok();
        match self {
            Self::Flag(_) => value == "1",
            Self::Format(_) => FORMATS.contains(&value),
            Self::Number(_, values, _) => number().is_some_and(|n| values.contains(&n)),
            Self::UpTo(_, most) => number().is_some_and(|n| (1..=most).contains(&n)),
        }
    }

    pub(crate) fn required(self) -> bool {
        match self {
            Self::Flag(_) => false,
            Self::Format(name) => name == "FORMAT",
            Self::Number(_, _, optional) => !optional,
            Self::UpTo(..) => true,
        }
    }
}

/// The files of `wgsl/shared/formats`: the quantised formats, then the float formats.
pub(crate) const FORMATS: [&str; 17] = [
    "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "mxfp4", "f32", "f16",
    "bf16", "f8_e4m3",
];
pub(crate) const FLOATS: [&str; 4] = ["f32", "f16", "bf16", "f8_e4m3"];
/// Formats whose weights have minima.
const MINIMA: [&str; 5] = ["q4_1", "q5_1", "q2_k", "q4_k", "q5_k"];
/// Formats with a scale for every 16 weights.
const TWO_SCALES: [&str; 3] = ["q2_k", "q3_k", "q6_k"];

/// A field of a params struct: name, Rust type, byte offset.
pub type Field = (&'static str, &'static str, usize);

/// A kernel.
#[derive(Clone, Copy, Debug)]
pub struct KernelInfo {
    /// The name: that of its file.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// Fields of its params struct in [`params`].
    pub params: &'static [Field],
    /// The defines it takes.
    pub defines: &'static [Define],
}

impl KernelInfo {
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
        let missing = |name: &str| wrong(name, "(nothing)");
        if let Some(d) = self.defines.iter().find(|d| d.required() && defines.get(d.name()).is_none()) {
            return Err(missing(d.name()));
        }
        let has = |name: &str| defines.get(name).is_some();
        let number = |name: &str| defines.get(name).and_then(|v| v.parse::<u32>().ok()).unwrap_or(1);
        let gate = defines.get("GATE_FORMAT");
        if has("GATED") != gate.is_some() {
            return Err(missing(if gate.is_some() { "GATED" } else { "GATE_FORMAT" }));
        }
        if let (Some(format), Some(gate)) = (defines.get("FORMAT"), gate)
            && FLOATS.contains(&format) != FLOATS.contains(&gate)
        {
            return Err(wrong("GATE_FORMAT", gate));
        }
        if has("ACT_Q8") && (has("X4") || defines.get("FORMAT").is_some_and(|f| FLOATS.contains(&f))) {
            return Err(wrong("ACT_Q8", "1"));
        }
        let wg = number("TPR") * number("GROUPS");
        let sums = number("RPT") * number("TOKENS") * if has("GATED") { 2 } else { 1 };
        if wg > 256 || wg * sums * 4 > shape::WORKGROUP_BYTES {
            return Err(wrong("GROUPS", defines.get("GROUPS").unwrap_or_default()));
        }
        if has("SUBGROUP") && number("GROUPS") != 1 {
            return Err(wrong("SUBGROUP", "1"));
        }
        if self.name == "norm" && !has("OUT_F32") && !has("OUT_Q8") {
            return Err(missing("OUT_F32"));
        }
        Ok(())
    }

    /// What a device must have to run it with `defines`.
    pub fn tier(&self, defines: &Defines) -> Tier {
        if defines.get("SUBGROUP").is_some() { Tier::Subgroup } else { Tier::Plain }
    }

    /// Combinations of defines that between them show every format, flag and kind of shape: what the tests validate.
    pub fn variants(&self) -> Vec<Defines> {
        let base = Defines::new();
        match self.name {
            "embed" => FORMATS.iter().map(|f| base.clone().set("FORMAT", f)).collect(),
            "norm" => {
                let (f, q) = (base.clone().flag("OUT_F32"), base.flag("OUT_Q8"));
                vec![f.clone(), q.clone(), f.with(q)]
            }
            "matvec" => products(true).iter().flat_map(|p| matvec_shapes(p, &[1, 2, 4, 8])).collect(),
            "experts_matvec" => products(false).iter().flat_map(|p| matvec_shapes(p, &[])).collect(),
            "matmat" => tiles(&products(true), &[32, 64]),
            "experts_matmat" => tiles(&products(false), &[32, 64]),
            "last_row" => vec![base.clone(), base.flag("TAKEN")],
            "sample" => vec![base.clone(), base.flag("VERIFY")],
            "latent" | "expand" => vec![base.clone(), base.flag("CACHE_F32")],
            "attend" => attend_variants(),
            "attend_expanded" => [1, 2, 4, 6, 8].map(|n| base.clone().set("DV_TILES", n)).to_vec(),
            "router" => {
                let both = [base.clone(), base.flag("BIAS")];
                both.iter().flat_map(|d| [d.clone(), d.clone().flag("SLOTS")]).collect()
            }
            _ => vec![base],
        }
    }
}

/// Formats, activations, gates (and additions).
fn products(add: bool) -> Vec<Defines> {
    let mut all = Vec::new();
    for format in FORMATS {
        let float = FLOATS.contains(&format);
        let plain = Defines::new().set("FORMAT", format);
        // A gate in the same format, and one in another.
        let other = if float { "bf16" } else { "q6_k" };
        let gated = [format, other].map(|gate| plain.clone().flag("GATED").set("GATE_FORMAT", gate));
        let adding = add.then(|| plain.clone().flag("ADD"));
        for p in [plain].into_iter().chain(gated).chain(adding) {
            if !float {
                all.push(p.clone().flag("ACT_Q8"));
            }
            all.push(p.clone().flag("X4"));
            all.push(p);
        }
    }
    all.sort();
    all.dedup();
    all
}

fn matvec_shapes(product: &Defines, tokens: &[u32]) -> Vec<Defines> {
    let quantised = product.get("FORMAT").is_some_and(|f| !FLOATS.contains(&f));
    let shaped = |rows: u32, cols: u32, tokens: u32, subgroup: bool| {
        let s = shape::matvec(rows, cols, tokens, quantised, subgroup);
        let d = product.clone().set("TPR", s.tpr).set("GROUPS", s.groups).set("RPT", s.rpt);
        d.flag_if("SUBGROUP", s.subgroup)
    };
    if tokens.is_empty() {
        return [(64, 32, false), (2048, 1408, false), (1408, 2048, true)].map(|(r, c, s)| shaped(r, c, 1, s)).to_vec();
    }
    let each = |&t: &u32| {
        let sizes = [(64, 32, false), (163_840, 7168, t == 2)];
        sizes.map(|(rows, cols, subgroup)| shaped(rows, cols, t, subgroup).set("TOKENS", t))
    };
    tokens.iter().flat_map(each).collect()
}

fn tiles(products: &[Defines], tokens: &[u32]) -> Vec<Defines> {
    products.iter().flat_map(|p| tokens.iter().map(|t| p.clone().set("TN", t))).collect()
}

fn attend_variants() -> Vec<Defines> {
    let mut all = Vec::new();
    for (r, dr, heads) in [(32, 16, 4), (64, 32, 8), (256, 64, 2), (512, 64, 1), (512, 64, 128)] {
        for f32_cache in [false, true] {
            let s = shape::attend(r, dr, heads, f32_cache);
            let d = Defines::new().set("WG", s.wg).set("SLICES", s.slices).set("QW", s.qw).set("PPT", s.ppt);
            let d = d.set("HEADS_PER_GROUP", s.heads_per_group).flag_if("CACHE_F32", f32_cache);
            all.extend([d.clone(), d.flag("SPLIT")]);
        }
    }
    all
}

/// The names that a kernel's text uses: `defines`, and what follows from them.
pub(crate) fn derive(defines: &Defines) -> Names {
    let mut names: Names = defines.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let mut define = |name: &str, value: String| {
        names.entry(name.to_owned()).or_insert(value);
    };
    let formats = || [defines.get("FORMAT"), defines.get("GATE_FORMAT")].into_iter().flatten();
    if formats().any(|f| !FLOATS.contains(&f)) {
        define("QUANTISED", "1".into());
    }
    if formats().any(|f| MINIMA.contains(&f)) {
        define("MINIMA", "1".into());
    }
    if formats().any(|f| TWO_SCALES.contains(&f)) {
        define("TWO_SCALES", "1".into());
    }
    let x = match (defines.get("ACT_Q8"), defines.get("X4")) {
        (Some(_), _) => "u32",
        (None, Some(_)) => "vec4<f32>",
        (None, None) => "f32",
    };
    define("X_TYPE", x.into());
    define("TOKENS", "1".into());
    let number = |name: &str| defines.get(name).and_then(|v| v.parse::<u32>().ok());
    if let (Some(tpr), Some(groups)) = (number("TPR"), number("GROUPS")) {
        define("WG", (tpr * groups).to_string());
    }
    if let Some(tn) = number("TN") {
        define("WG", (tn * 4).to_string());
    }
    names
}

/// The kernel of that name.
pub fn kernel(name: &str) -> Option<&'static KernelInfo> {
    KERNELS.iter().find(|k| k.name == name)
}

const POWERS: &[u32] = &[1, 2, 4, 8, 16, 32, 64, 128, 256];
const PRODUCT: [Define; 5] =
    [Define::Format("FORMAT"), Define::Flag("ACT_Q8"), Define::Flag("X4"), Define::Flag("GATED"), Define::Format("GATE_FORMAT")];
const THREADS: [Define; 4] = [
    Define::Number("TPR", POWERS, false),
    Define::Number("GROUPS", POWERS, false),
    Define::Number("RPT", &[1, 2, 4], false),
    Define::Flag("SUBGROUP"),
];
const TN: Define = Define::Number("TN", &[32, 64], false);

/// Every kernel.
pub static KERNELS: &[KernelInfo] = &[
    KernelInfo {
        name: "embed",
        what: "rows of the embedding table, as f32",
        params: params::Embed::FIELDS,
        defines: &[Define::Format("FORMAT")],
    },
    KernelInfo {
        name: "norm",
        what: "RMS norm, to f32, to 8 bits or to both",
        params: params::Norm::FIELDS,
        defines: &[Define::Flag("OUT_F32"), Define::Flag("OUT_Q8")],
    },
    KernelInfo { name: "quantise", what: "activations to 8 bits", params: params::Quantise::FIELDS, defines: &[] },
    KernelInfo {
        name: "matvec",
        what: "a matrix, or one for each head, times up to 8 tokens; gated: silu(G x) * (U x)",
        params: params::Mat::FIELDS,
        defines: &[
            PRODUCT[0],
            PRODUCT[1],
            PRODUCT[2],
            PRODUCT[3],
            PRODUCT[4],
            THREADS[0],
            THREADS[1],
            THREADS[2],
            THREADS[3],
            Define::Flag("ADD"),
            Define::Number("TOKENS", &[1, 2, 4, 8], false),
        ],
    },
    KernelInfo {
        name: "matmat",
        what: "a matrix, or one for each head, times many tokens; gated: silu(G x) * (U x)",
        params: params::Mat::FIELDS,
        defines: &[PRODUCT[0], PRODUCT[1], PRODUCT[2], PRODUCT[3], PRODUCT[4], TN, Define::Flag("ADD")],
    },
    KernelInfo { name: "rope", what: "rotates the rope part of every head", params: params::Rope::FIELDS, defines: &[] },
    KernelInfo {
        name: "latent",
        what: "norm, rope and appending to the latent cache",
        params: params::Latent::FIELDS,
        defines: &[Define::Flag("CACHE_F32")],
    },
    KernelInfo {
        name: "attend",
        what: "latent attention in absorbed form, or a part of it",
        params: params::Attend::FIELDS,
        defines: &[
            Define::Flag("CACHE_F32"),
            Define::Flag("SPLIT"),
            Define::Number("WG", &[64, 128, 256], false),
            Define::Number("SLICES", POWERS, false),
            Define::UpTo("QW", 64),
            Define::UpTo("PPT", 8),
            Define::Number("HEADS_PER_GROUP", &[1, 2, 4, 8], false),
        ],
    },
    KernelInfo { name: "attend_merge", what: "joins the parts of `attend`", params: params::Attend::FIELDS, defines: &[] },
    KernelInfo {
        name: "expand",
        what: "rows of the latent cache as f32",
        params: params::Expand::FIELDS,
        defines: &[Define::Flag("CACHE_F32")],
    },
    KernelInfo {
        name: "attend_expanded",
        what: "attention over a chunk of expanded keys and values",
        params: params::AttendExpanded::FIELDS,
        defines: &[Define::UpTo("DV_TILES", 8)],
    },
    KernelInfo {
        name: "router",
        what: "chooses experts and weighs them",
        params: params::Router::FIELDS,
        defines: &[Define::Flag("BIAS"), Define::Flag("SLOTS")],
    },
    KernelInfo { name: "place", what: "the slots of a routing, looked up again", params: params::Place::FIELDS, defines: &[] },
    KernelInfo {
        name: "admit",
        what: "slots for a token's missing experts, in place of the coldest",
        params: params::Admit::FIELDS,
        defines: &[],
    },
    KernelInfo {
        name: "gather",
        what: "missing experts copied from the host's bank",
        params: params::Gather::FIELDS,
        defines: &[],
    },
    KernelInfo {
        name: "experts_matvec",
        what: "chosen experts' matrices times few tokens, pair by pair",
        params: params::Experts::FIELDS,
        defines: &[PRODUCT[0], PRODUCT[1], PRODUCT[2], PRODUCT[3], PRODUCT[4], THREADS[0], THREADS[1], THREADS[2], THREADS[3]],
    },
    KernelInfo {
        name: "experts_matmat",
        what: "chosen experts' matrices times many tokens, by tiles of one expert's pairs",
        params: params::Experts::FIELDS,
        defines: &[PRODUCT[0], PRODUCT[1], PRODUCT[2], PRODUCT[3], PRODUCT[4], TN],
    },
    KernelInfo { name: "group_count", what: "pairs of each slot", params: params::Group::FIELDS, defines: &[] },
    KernelInfo {
        name: "group_fill",
        what: "pairs sorted by slot, and tiles of them",
        params: params::Group::FIELDS,
        defines: &[],
    },
    KernelInfo { name: "swiglu", what: "silu(gate) * up", params: params::Swiglu::FIELDS, defines: &[] },
    KernelInfo {
        name: "combine",
        what: "adds the weighted outputs of the experts",
        params: params::Combine::FIELDS,
        defines: &[],
    },
    KernelInfo {
        name: "last_row",
        what: "the last token's row",
        params: params::LastRow::FIELDS,
        defines: &[Define::Flag("TAKEN")],
    },
    KernelInfo {
        name: "sample",
        what: "samples a token and prepares the next step, or verifies a draft",
        params: params::Sample::FIELDS,
        defines: &[Define::Flag("VERIFY")],
    },
    KernelInfo { name: "join", what: "rows side by side", params: params::Join::FIELDS, defines: &[] },
    KernelInfo { name: "shift", what: "token ids moved up by one row", params: params::Shift::FIELDS, defines: &[] },
    KernelInfo { name: "settle", what: "leaves verified rows behind", params: params::Settle::FIELDS, defines: &[] },
    KernelInfo {
        name: "draft",
        what: "drafts a token; after the last one, prepares the next step",
        params: params::Draft::FIELDS,
        defines: &[],
    },
];
