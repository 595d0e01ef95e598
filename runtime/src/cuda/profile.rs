//! What the time of a decoded token is spent on, kernel by kernel, and what the device's memory gives: for benchmarks.

use std::{collections::HashMap, sync::Arc};

use pleiad_shaders::{Defines, cuda, params};
use serde::{Deserialize, Serialize};

use super::{
    driver::{Driver, Function, Launch, Memory, Variant},
    lower::{self, Dispatch, Lowered},
    state::CudaState,
};
use crate::{
    error::{Error, Result},
    executor::{Activations, CacheFormat, LoadOptions},
    experts::residency::Residency,
    forward::{AttentionForm, Options, Output, record},
    model::Model,
    plan::{Act, Op, Plan},
    step::StepState,
    steps::When,
};

/// Bytes that a thread block of `copy` moves.
const COPIED: u64 = 256 * 8 * 16;

/// What the launches of one kernel for one purpose take in a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelTime {
    /// The kernel, and the format of its weights where it has any.
    pub kernel: String,
    /// The activation that a product makes, empty for other kernels. Layers have the same names.
    pub makes: String,
    /// Launches in a step.
    pub launches: usize,
    /// Seconds of all of them.
    pub seconds: f64,
}

/// A step that decodes one token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepProfile {
    /// Positions that the token sees, itself included.
    pub length: u32,
    /// Seconds of the whole step as one graph.
    pub seconds: f64,
    /// Bytes of the latent caches that it reads.
    pub cache_bytes: u64,
    /// Kernels, those that take longest first. Each launch is timed by itself, with a little for its event: their sum is more
    /// than the step.
    pub kernels: Vec<KernelTime>,
}

/// A model on a device, and its plan for one token.
pub struct Profiler {
    state: CudaState,
    plan: Plan,
    lowered: Lowered,
    names: HashMap<Function, String>,
}

impl Profiler {
    /// Uploads `model`, with all its experts, and prepares its step. `progress` is called with bytes done and in all.
    ///
    /// # Errors
    ///
    /// Those of loading a model on the device, or of a kernel.
    pub fn new(
        driver: &Arc<dyn Driver>,
        model: &Arc<Model>,
        options: &LoadOptions,
        activations: Activations,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let (output, attention) = (Output::Token, AttentionForm::Absorbed);
        let plan = record(model, Options { max_tokens: 1, output, activations, attention, speculation: None });
        let residency = Residency::whole(model);
        let state = CudaState::load(driver, Arc::clone(model), options, &residency, None, progress)?;
        let lowered = lower::lower(&state, &plan)?;
        let names = lowered.functions.iter().map(|((_, variant), &function)| (function, name(variant))).collect();
        Ok(Self { state, plan, lowered, names })
    }

    /// Times the step of a token that sees `length` positions; medians of `repetitions`. Each repetition is one position on.
    ///
    /// # Errors
    ///
    /// A length that leaves no room for the repetitions, a device without a clock, or an error of the driver.
    pub fn step(&self, length: u32, repetitions: usize) -> Result<StepProfile> {
        let (length, needed) = (length.max(1), u64::from(length.max(1)) + repetitions as u64 + 1);
        if needed > self.state.max_context as u64 {
            let (what, limit) = ("positions of the context".into(), self.state.max_context as u64);
            return Err(Error::Limit { what, needed, limit });
        }
        let (mut launches, mut labels) = (Vec::new(), Vec::new());
        for d in self.lowered.dispatches.iter().filter(|d| d.when == When::Always && d.case.holds(1, length)) {
            let grid = d.grid.map(|dim| dim.at(1));
            if grid.iter().all(|&n| n > 0) {
                let Dispatch { device, function, threads, shared, .. } = *d;
                let (arguments, touches) = (Arc::clone(&d.arguments), Arc::clone(&d.touches));
                launches.push(Launch { device, function, grid, threads, shared, arguments, touches });
                labels.push((self.names.get(&function).cloned().unwrap_or_default(), self.made(d.op)));
            }
        }
        let driver = &self.state.driver;
        self.begin(length)?;
        let seconds = driver.time(&[&launches], repetitions)?.iter().sum();
        self.begin(length)?;
        let each: Vec<&[Launch]> = launches.chunks(1).collect();
        let times = driver.time(&each, repetitions)?;
        let mut kernels: Vec<KernelTime> = Vec::new();
        for ((kernel, makes), seconds) in labels.into_iter().zip(times) {
            match kernels.iter_mut().find(|k| k.kernel == kernel && k.makes == makes) {
                Some(known) => (known.launches, known.seconds) = (known.launches + 1, known.seconds + seconds),
                None => kernels.push(KernelTime { kernel, makes, launches: 1, seconds }),
            }
        }
        kernels.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        let element = if self.state.cache_format == CacheFormat::F16 { 2 } else { 4 };
        let config = &self.state.model.config;
        let cache_bytes = config.num_layers as u64 * u64::from(length) * (config.attention.cache_width() * element) as u64;
        Ok(StepProfile { length, seconds, cache_bytes, kernels })
    }

    /// Sets the state of the step.
    fn begin(&self, length: u32) -> Result<()> {
        let s = &self.state;
        let step = StepState { tokens: 1, pos: length - 1, ..StepState::default() };
        let pages: Vec<u32> = (0..s.max_pages as u32).collect();
        s.driver.write(s.step.address, bytemuck::bytes_of(&step))?;
        s.driver.write(s.step.address + (StepState::WORDS * 4) as u64, bytemuck::cast_slice(&pages))?;
        s.driver.write(s.ids.address, &1u32.to_ne_bytes())
    }

    /// What a product makes.
    fn made(&self, op: usize) -> String {
        let act: Option<Act> = match self.plan.ops.get(op) {
            Some(
                &(Op::MatMul { out, .. } | Op::GatedMatMul { out, .. } | Op::ExpertsUp { out, .. } | Op::ExpertsDown { out, .. }),
            ) => Some(out),
            Some(Op::HeadMatMul { out, .. }) => Some(out.act),
            _ => None,
        };
        act.map_or_else(String::new, |a| self.plan.decl(a).name.clone())
    }
}

/// A variant for people: the kernel and its weights.
fn name(variant: &Variant) -> String {
    let formats = ["FORMAT", "GATE_FORMAT"].into_iter().filter_map(|f| variant.defines.get(f));
    let mut words: Vec<&str> = [variant.kernel].into_iter().chain(formats).collect();
    words.dedup();
    if words.len() == 3 && words[1] == words[2] {
        words.pop();
    }
    words.join(" ")
}

/// Bytes a second of a copy within the device's memory, those read and those written: of buffers of `bytes`, which should be many
/// times what the device caches.
///
/// # Errors
///
/// Out of memory, a device without a clock, or an error of the driver.
pub fn copy_bandwidth(driver: &Arc<dyn Driver>, bytes: u64, repetitions: usize) -> Result<f64> {
    let bytes = bytes.max(COPIED).next_multiple_of(COPIED);
    let (x, out) = (Memory::new(driver, "a source of copies", bytes)?, Memory::new(driver, "a target of copies", bytes)?);
    let kernel = cuda::kernel("copy").ok_or_else(|| Error::Shader("there is no kernel `copy`".into()))?;
    let (defines, frame) = (Defines::new(), cuda::Frame::default());
    let p = params::Copy { pieces: (bytes / 16) as u32, pad: [0; 3] };
    let bind = [("x", x.address), ("out", out.address)];
    let arguments = cuda::arguments(kernel, &defines, frame, &bind, bytemuck::bytes_of(&p))?.into();
    let threads = kernel.threads(&defines);
    let function = driver.function(0, &Variant { kernel: kernel.name, defines })?;
    let (grid, touches) = ([(bytes / COPIED) as u32, 1, 1], [].into());
    let launch = Launch { device: 0, function, grid, threads, shared: 0, arguments, touches };
    let seconds: f64 = driver.time(&[&[launch]], repetitions)?.iter().sum();
    Ok(2.0 * bytes as f64 / seconds.max(1e-12))
}

/// The median of each place over the runs.
pub fn medians(runs: &[Vec<f64>]) -> Vec<f64> {
    let places = runs.iter().map(Vec::len).min().unwrap_or(0);
    let median = |i: usize| {
        let mut all: Vec<f64> = runs.iter().filter_map(|r| r.get(i).copied()).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(0.0)
    };
    (0..places).map(median).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_named_by_their_weights() {
        let of = |defines: Defines| name(&Variant { kernel: "matvec", defines });
        assert_eq!(of(Defines::new()), "matvec");
        let q4 = Defines::new().set("FORMAT", "q4_k");
        assert_eq!(of(q4.clone()), "matvec q4_k");
        assert_eq!(of(q4.clone().set("GATE_FORMAT", "q4_k")), "matvec q4_k");
        assert_eq!(of(q4.set("GATE_FORMAT", "q6_k")), "matvec q4_k q6_k");
    }

    #[test]
    fn medians_are_taken_place_by_place() {
        assert_eq!(medians(&[vec![1.0, 9.0], vec![3.0, 7.0], vec![2.0, 8.0]]), [2.0, 8.0]);
        assert_eq!(medians(&[]), Vec::<f64>::new());
    }
}
