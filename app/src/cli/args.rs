//! Arguments that several commands share.

use std::{num::NonZeroUsize, path::PathBuf, time::SystemTime};

use anyhow::bail;
use clap::{Args, ValueEnum};
use pleiad_models::GenerationConfig;
use pleiad_runtime::{
    Activations, CacheFormat, DeviceChoice, EngineOptions, SamplingParams,
    cuda::CudaDevices,
    experts::{walk::Routing, ways::WayChoice},
    step::MAX_DRAFT,
};

use crate::{chats::Sampling, sizes};

/// The model.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// A Hugging Face directory, a .gguf file (of a split model any part), or `tiny`, the embedded model
    #[arg(short, long, value_name = "MODEL", default_value = "tiny")]
    pub model: String,
}

/// Where and in which precision it runs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Device")]
pub struct DeviceArgs {
    /// auto, cpu, wgpu[:N] or cuda[:N]; N as `pleiad devices` counts. auto: a discrete, then an integrated GPU, then the CPU.
    /// cuda:0,1 and cuda:all share the model among several GPUs
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = parse_device)]
    pub device: Device,
    /// Most GPU memory for weights, experts and latent cache together: 6GiB, 512MiB, ...; experts that do not fit stay in host
    /// memory [default: what the GPU has]. Of several GPUs that share a model, each has it
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory_budget: Option<u64>,
    /// How experts that are not on the GPU are served: auto (measured while decoding), gather (kernels copy them from host
    /// memory), cpu (the CPU computes them) or resume (they are uploaded while the GPU waits)
    #[arg(long, value_name = "WAY", default_value = "auto")]
    pub misses: WayChoice,
    /// Where experts packed for the GPU, and which ones a model uses most, are kept between runs; `none`: nowhere
    /// [default: the system's directory for caches]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// CPU threads [default: all]
    #[arg(short, long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Precision of activations in products with quantised weights
    #[arg(long, value_enum, default_value_t)]
    pub activations: Precision,
    /// Storage of the latent cache
    #[arg(long, value_enum, default_value_t)]
    pub cache_type: CacheType,
}

/// How an engine works.
#[derive(Args, Clone, Debug)]
pub struct EngineArgs {
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Longest context, in tokens [default: the model's, at most 8192]
    #[arg(short, long, value_name = "N", help_heading = "Device")]
    pub ctx_size: Option<NonZeroUsize>,
    /// Tokens submitted before the first of them is read back, at most 32 [default: 2 on a GPU, 1 on the CPU]
    #[arg(long, value_name = "K", value_parser = parse_in_flight, help_heading = "Device")]
    pub in_flight: Option<usize>,
    /// Tokens that the model's module for multi-token prediction drafts for each step, at most 7; 0: none [default: as many as
    /// pay, where the model has such a module]
    #[arg(long, value_name = "K", value_parser = parse_draft, help_heading = "Device")]
    pub draft: Option<usize>,
    /// Tokens of a prompt computed at once
    #[arg(long, visible_alias = "ubatch-size", value_name = "C", default_value = "512", help_heading = "Device")]
    pub chunk: NonZeroUsize,
}

/// How tokens are chosen.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sampling (defaults: what the model recommends, else llama.cpp's)")]
pub struct SamplingArgs {
    /// Temperature; 0: always the likeliest token [else 0.8]
    #[arg(long, value_name = "T", value_parser = at_least_zero)]
    pub temp: Option<f32>,
    /// Only the K likeliest tokens; 0: all [else 40]
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub top_k: Option<i32>,
    /// Only the likeliest tokens that together have this probability; 1: all [else 0.95]
    #[arg(long, value_name = "P", value_parser = above_zero_to_one)]
    pub top_p: Option<f32>,
    /// Only tokens at least this probable, relative to the likeliest; 0: all [else 0.05]
    #[arg(long, value_name = "P", value_parser = zero_to_one)]
    pub min_p: Option<f32>,
    /// Divides the logits of recent tokens; 1: off
    #[arg(long, value_name = "X", value_parser = above_zero)]
    pub repeat_penalty: Option<f32>,
    /// Subtracted from the logit of a token for each recent occurrence
    #[arg(long, value_name = "X", default_value = "0", allow_negative_numbers = true, value_parser = finite)]
    pub frequency_penalty: f32,
    /// Subtracted from the logit of a token that occurred recently
    #[arg(long, value_name = "X", default_value = "0", allow_negative_numbers = true, value_parser = finite)]
    pub presence_penalty: f32,
    /// How many tokens are recent; 0: none, -1: as many as possible (256)
    #[arg(long, value_name = "N", default_value = "64", allow_negative_numbers = true)]
    pub repeat_last_n: i32,
    /// Most tokens of an answer; -1: until the model ends it or the context is full
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", default_value = "-1", allow_negative_numbers = true)]
    pub predict: i64,
    /// Do not stop at end tokens
    #[arg(long)]
    pub ignore_eos: bool,
    /// Seed of the draws; -1: random
    #[arg(short, long, value_name = "SEED", default_value = "-1", allow_negative_numbers = true)]
    pub seed: i64,
}

/// `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The best there is.
    Auto,
    /// The CPU.
    Cpu,
    /// An adapter.
    Wgpu(Option<usize>),
    /// A CUDA device, or several.
    Cuda(CudaDevices),
}

impl Device {
    /// As it is written on the command line.
    pub fn key(self) -> String {
        match self {
            Self::Auto => "auto".into(),
            Self::Cpu => "cpu".into(),
            Self::Wgpu(None) => "wgpu".into(),
            Self::Wgpu(Some(n)) => format!("wgpu:{n}"),
            Self::Cuda(devices) => devices.to_string(),
        }
    }
}

/// `--activations`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// Single precision
    F32,
    /// 8-bit blocks and integer dot products
    #[default]
    Q8,
}

/// `--cache-type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CacheType {
    /// Half precision
    #[default]
    F16,
    /// Single precision
    F32,
}

impl DeviceArgs {
    /// The device, or why this program has none of that kind.
    pub fn choice(&self) -> anyhow::Result<DeviceChoice> {
        Ok(match self.device {
            Device::Auto => DeviceChoice::Auto,
            Device::Cpu => DeviceChoice::Cpu,
            Device::Wgpu(index) => DeviceChoice::Wgpu(index),
            Device::Cuda(_) if !cfg!(feature = "cuda") => {
                bail!("--device cuda: this program was built without the cuda feature; try --device wgpu")
            }
            Device::Cuda(devices) => DeviceChoice::Cuda(devices),
        })
    }

    /// Precision of activations.
    pub fn activations(&self) -> Activations {
        match self.activations {
            Precision::F32 => Activations::F32,
            Precision::Q8 => Activations::Q8,
        }
    }

    /// Where packed experts and profiles are kept.
    pub fn directory(&self) -> Option<PathBuf> {
        match &self.cache_dir {
            Some(d) if d.as_os_str() == "none" => None,
            Some(d) => Some(d.clone()),
            None => dirs::cache_dir().map(|d| d.join("pleiad")),
        }
    }

    /// Storage of the latent cache.
    pub fn cache(&self) -> CacheFormat {
        match self.cache_type {
            CacheType::F16 => CacheFormat::F16,
            CacheType::F32 => CacheFormat::F32,
        }
    }
}

impl EngineArgs {
    /// The engine's options.
    pub fn options(&self) -> anyhow::Result<EngineOptions> {
        Ok(EngineOptions {
            device: self.device.choice()?,
            activations: self.device.activations(),
            cache: self.device.cache(),
            context: self.ctx_size.map(NonZeroUsize::get),
            positions: None,
            threads: self.device.threads.map(NonZeroUsize::get),
            in_flight: self.in_flight,
            draft: self.draft,
            chunk: self.chunk.get(),
            memory_budget: self.device.memory_budget,
            misses: self.device.misses,
            directory: self.device.directory(),
            trace: false,
            routing: Routing::Uniform,
        })
    }
}

impl SamplingArgs {
    /// What is asked for.
    pub fn sampling(&self) -> Sampling {
        let penalty = |x: f32| (x != 0.0).then_some(x);
        Sampling {
            temperature: self.temp,
            top_k: self.top_k.map(|k| u32::try_from(k).unwrap_or(0)),
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            frequency_penalty: penalty(self.frequency_penalty),
            presence_penalty: penalty(self.presence_penalty),
            seed: u64::try_from(self.seed).ok(),
        }
    }

    /// The parameters: what is asked for, else what the model's publisher recommends, else llama.cpp's defaults.
    pub fn params(&self, recommended: &GenerationConfig) -> SamplingParams {
        let penalty_last_n = u32::try_from(self.repeat_last_n).unwrap_or(256);
        SamplingParams { penalty_last_n, ..self.sampling().params(recommended, random_seed()) }
    }

    /// Most tokens of an answer.
    pub fn max_tokens(&self) -> Option<usize> {
        usize::try_from(self.predict).ok()
    }
}

/// A seed that people can type again: 32 bits.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    // The standard library's hash keys come from the system's random source.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    RandomState::new().hash_one(now) >> 32
}

fn parse_device(text: &str) -> Result<Device, String> {
    let (name, index) = match text.split_once(':') {
        Some(("cuda", devices)) => return devices.parse().map(Device::Cuda),
        Some((name, n)) => (name, Some(n.parse().map_err(|_| format!("`{n}` is no device number"))?)),
        None => (text, None),
    };
    match (name, index) {
        ("auto", None) => Ok(Device::Auto),
        ("cpu", None) => Ok(Device::Cpu),
        ("wgpu", n) => Ok(Device::Wgpu(n)),
        ("cuda", None) => Ok(Device::Cuda(CudaDevices::First)),
        _ => Err("use auto, cpu, wgpu, wgpu:N, cuda, cuda:N, cuda:N,M,... or cuda:all".into()),
    }
}

/// A number of bytes: 6GiB, 512MiB, ...
pub fn parse_size(text: &str) -> Result<u64, String> {
    sizes::parse(text, 1)
}

fn parse_in_flight(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=32).contains(n)).ok_or_else(|| "use a number from 1 to 32".into())
}

/// `--draft`.
pub fn parse_draft(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n <= MAX_DRAFT).ok_or_else(|| format!("use a number from 0 to {MAX_DRAFT}"))
}

fn number(text: &str, range: &str, allowed: impl Fn(f32) -> bool) -> Result<f32, String> {
    text.parse().ok().filter(|&x: &f32| x.is_finite() && allowed(x)).ok_or_else(|| format!("use a number {range}"))
}

fn finite(text: &str) -> Result<f32, String> {
    number(text, "that is finite", |_| true)
}

fn at_least_zero(text: &str) -> Result<f32, String> {
    number(text, "of 0 or more", |x| x >= 0.0)
}

fn above_zero(text: &str) -> Result<f32, String> {
    number(text, "above 0", |x| x > 0.0)
}

fn above_zero_to_one(text: &str) -> Result<f32, String> {
    number(text, "above 0 and at most 1", |x| x > 0.0 && x <= 1.0)
}

fn zero_to_one(text: &str) -> Result<f32, String> {
    number(text, "from 0 to 1", |x| (0.0..=1.0).contains(&x))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        sampling: SamplingArgs,
    }

    fn sampling(args: &[&str]) -> SamplingArgs {
        Only::try_parse_from([&["x"], args].concat()).unwrap().sampling
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("6GiB").unwrap(), 6 << 30);
        assert_eq!(parse_size("512 mib").unwrap(), 512 << 20);
        assert_eq!(parse_size("1.5G").unwrap(), 3 << 29);
        assert_eq!(parse_size("2GB").unwrap(), 2_000_000_000);
        assert_eq!(parse_size("4096").unwrap(), 4096);
        for bad in ["", "GiB", "-1GiB", "0", "1.2.3G", "6 gibibytes", "nan"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn devices() {
        assert_eq!(parse_device("auto").unwrap(), Device::Auto);
        assert_eq!(parse_device("wgpu").unwrap(), Device::Wgpu(None));
        assert_eq!(parse_device("wgpu:3").unwrap(), Device::Wgpu(Some(3)));
        assert_eq!(parse_device("cuda").unwrap(), Device::Cuda(CudaDevices::First));
        assert_eq!(parse_device("cuda:all").unwrap(), Device::Cuda(CudaDevices::All));
        for written in ["cuda", "cuda:0", "cuda:0,1", "cuda:all"] {
            assert_eq!(parse_device(written).unwrap().key(), written);
        }
        for bad in ["", "gpu", "cpu:1", "wgpu:", "wgpu:x", "wgpu:-1", "wgpu:0,1", "cuda:", "cuda:0,0", "cuda:0, 1", "cuda:x"] {
            assert!(parse_device(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_come_before_the_publisher_and_the_publisher_before_llama_cpp() {
        let nothing = GenerationConfig::default();
        let p = sampling(&[]).params(&nothing);
        assert_eq!((p.temperature, p.top_k, p.top_p, p.min_p), (0.8, 40, 0.95, 0.05));
        let some = GenerationConfig { do_sample: Some(true), temperature: Some(0.6), ..nothing.clone() };
        let p = sampling(&[]).params(&some);
        assert_eq!((p.temperature, p.top_k, p.top_p, p.min_p), (0.6, 0, 1.0, 0.0));
        let p = sampling(&["--temp", "0", "--top-k", "-1", "--seed", "7"]).params(&some);
        assert_eq!((p.temperature, p.top_k, p.seed), (0.0, 0, 7));
        let greedy = GenerationConfig { do_sample: Some(false), ..some };
        assert_eq!(sampling(&[]).params(&greedy).temperature, 0.0);
        assert_eq!(sampling(&["--temp", "1"]).params(&greedy).temperature, 1.0);
        let zero = GenerationConfig { top_p: Some(0.0), ..nothing };
        assert!(sampling(&[]).params(&zero).check().is_ok());
    }

    #[test]
    fn nonsense_is_wrong_usage() {
        for bad in [
            ["--temp", "-1"],
            ["--temp", "nan"],
            ["--top-p", "0"],
            ["--top-p", "2"],
            ["--min-p", "-0.1"],
            ["--repeat-penalty", "0"],
        ] {
            assert!(Only::try_parse_from(["x", bad[0], bad[1]]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn random_seeds_can_be_typed_again() {
        let seeds: Vec<u64> = (0..4).map(|_| random_seed()).collect();
        assert!(seeds.iter().all(|&s| i64::try_from(s).is_ok()));
        assert!(seeds.windows(2).any(|w| w[0] != w[1]), "{seeds:?}");
    }
}
