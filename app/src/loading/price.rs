//! What would go where under a memory budget, before anything is loaded.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use pleiad_models::{
    Bytes, Checkpoint, Config, Tensor,
    weights::{Experts, Mlp},
};
use pleiad_runtime::{
    Activations, CacheFormat, DeviceChoice, Error, Model,
    experts::budget::{Needs, Placement, place_for},
};

use super::{
    Source,
    host::{HostMemory, host_memory},
    options::{self, CHUNK},
};
use crate::{settings::LoadSettings, sizes::size};

/// A model that was opened and looked at, not loaded: cheap to price again and again.
#[derive(Clone, Debug)]
pub struct Examined {
    /// Where it comes from.
    pub source: Source,
    /// What it is called.
    pub name: String,
    /// Bytes of its files.
    pub file_bytes: u64,
    /// Longest context that it was made for.
    pub max_context: usize,
    /// Its layers, experts and formats in one line: "27 layers, 64 experts, 6 a token, Q4_K".
    pub description: String,
    seen: Arc<Seen>,
}

/// A part of the memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// What is kept there: "weights without experts", "experts", "latent cache", "working memory".
    pub what: &'static str,
    /// Bytes on the device.
    pub device: u64,
    /// Bytes in host memory.
    pub host: u64,
}

/// What would go where.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    /// The parts.
    pub shares: Vec<Share>,
    /// Share of experts that are resident, 0 to 1.
    pub resident: f64,
    /// The least budget that would do.
    pub least: u64,
    /// The budget with which every expert is resident.
    pub whole: u64,
    /// The budget from which on drafts are made, where this one is below it: the module that makes them is left out.
    pub drafts_from: Option<u64>,
    /// Why it cannot be loaded so, in words.
    pub problem: Option<String>,
    /// What small change would help much.
    pub advice: Option<String>,
}

/// What was seen of a model, and what was made of it so far.
struct Seen {
    config: Config,
    host: Option<HostMemory>,
    priced: Mutex<Priced>,
}

struct Priced {
    /// Its tensors' shapes and formats; their contents are left out, so that nothing of the model is kept in memory.
    model: Model,
    needs: BTreeMap<(usize, bool, bool, bool), Needs>,
    /// A window asks again in every frame.
    last: Option<(LoadSettings, Price)>,
}

impl Priced {
    /// What the model needs with that context; `drafts`: with the module that drafts tokens.
    fn needs(&mut self, settings: &LoadSettings, context: usize, drafts: bool) -> Needs {
        let key = (context, settings.cache == CacheFormat::F32, settings.activations == Activations::F32, drafts);
        let model = &self.model;
        let of = || {
            let bare = (!drafts).then(|| model.without_mtp());
            let model = bare.as_ref().unwrap_or(model);
            Needs::of(model, options::positions(context), context, settings.cache, settings.activations, CHUNK)
        };
        self.needs.entry(key).or_insert_with(of).clone()
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seen({})", self.config.name)
    }
}

/// What a model from that source is called.
pub(super) fn title(source: &Source, config: &Config) -> String {
    let named = config.name.trim();
    if *source == Source::Tiny || named.is_empty() { source.name() } else { named.to_owned() }
}

impl Price {
    /// Bytes on the device and in host memory.
    pub fn totals(&self) -> (u64, u64) {
        let sum = |of: fn(&Share) -> u64| self.shares.iter().map(of).fold(0, u64::saturating_add);
        (sum(|s| s.device), sum(|s| s.host))
    }
}

impl Examined {
    /// Looks at a model that was opened. Takes a while for models whose latent projections have to be split: not for the
    /// thread of a window.
    pub fn of(source: Source, checkpoint: &Checkpoint) -> Self {
        let config = checkpoint.config.clone();
        let mut model = Model::with_mtp(&config, &checkpoint.weights);
        let description = describe(&config, &model);
        strip(&mut model);
        Self {
            name: title(&source, &config),
            file_bytes: match checkpoint.source.total_bytes {
                #[cfg(not(target_arch = "wasm32"))]
                0 => pleiad_models::TINY_GGUF.len() as u64,
                bytes => bytes,
            },
            max_context: config.max_positions,
            description,
            source,
            seen: Arc::new(Seen {
                config,
                host: host_memory(),
                priced: Mutex::new(Priced { model, needs: BTreeMap::new(), last: None }),
            }),
        }
    }

    /// The memory of this computer when the model was looked at; `None`: the platform does not tell.
    pub fn host_memory(&self) -> Option<HostMemory> {
        self.seen.host
    }

    /// The context that it would be loaded with.
    pub fn context(&self, settings: &LoadSettings) -> usize {
        options::context(settings, &self.seen.config)
    }

    /// What would go where with these settings, as `pleiad fit` has it. `auto` counts as a GPU; the CPU computes from host
    /// memory and has no budget.
    pub fn price(&self, settings: &LoadSettings) -> Price {
        let mut priced = self.seen.priced.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((for_these, price)) = &priced.last
            && for_these == settings
        {
            return price.clone();
        }
        let context = self.context(settings);
        let drafts = options::draft(settings, cfg!(target_arch = "wasm32"));
        let needs = priced.needs(settings, context, drafts != Some(0));
        let may_go = drafts.is_none() && priced.model.mtp.is_some();
        let bare = may_go.then(|| priced.needs(settings, context, false));
        let price = price(&self.name, &needs, bare.as_ref(), settings);
        priced.last = Some((settings.clone(), price.clone()));
        price
    }
}

/// `bare`: what is needed without the module that drafts tokens, where a budget that does not hold it is the model's alone.
fn price(name: &str, needs: &Needs, bare: Option<&Needs>, settings: &LoadSettings) -> Price {
    let (least, whole) = (bare.unwrap_or(needs).least(), needs.whole());
    let device = options::device(&settings.device);
    if device == Ok(DeviceChoice::Cpu) {
        let experts = whole.saturating_sub(needs.fixed());
        let shares = shares(needs, (0, experts), true);
        return Price { shares, resident: 1.0, least, whole, drafts_from: None, problem: None, advice: None };
    }
    let bare = bare.filter(|_| !needs.fits(settings.memory_budget));
    let drafts_from = bare.map(|_| needs.least());
    let needs = bare.unwrap_or(needs);
    let mut problem = device.err();
    let mut advice = None;
    // Budgets below the least are drawn as the least: what would be needed.
    let placed = place_for(name, needs, settings.memory_budget, None).or_else(|e| {
        problem.get_or_insert_with(|| refusal(&e));
        place_for(name, needs, Some(least), None)
    });
    let (on_device, on_host, resident) = match &placed {
        Ok(p) => {
            if problem.is_none() {
                advice = advise(p);
            }
            (p.expert_bytes(), p.host_bytes(), p.resident_share())
        }
        Err(_) => (0, 0, 0.0),
    };
    Price { shares: shares(needs, (on_device, on_host), false), resident, least, whole, drafts_from, problem, advice }
}

/// The parts, of which experts take `(device, host)` bytes; the others are on the device, or all in host memory.
fn shares(needs: &Needs, (device, host): (u64, u64), all_host: bool) -> Vec<Share> {
    let fixed =
        |what, bytes| if all_host { Share { what, device: 0, host: bytes } } else { Share { what, device: bytes, host: 0 } };
    let mut shares = vec![fixed("weights without experts", needs.dense)];
    if !needs.layers.is_empty() {
        shares.push(Share { what: "experts", device, host });
    }
    shares.extend([fixed("latent cache", needs.cache), fixed("working memory", needs.work)]);
    shares
}

/// A refusal in words that fit a window: those of errors name options of the command line.
pub(super) fn refusal(error: &Error) -> String {
    match error {
        Error::Budget { what, budget, least } => format!(
            "{what} needs at least {}, but the memory budget is {}; raise it, or choose a shorter context",
            size(*least),
            size(*budget)
        ),
        other => other.to_string(),
    }
}

/// What to change about a placement, where something small would help much.
fn advise(p: &Placement) -> Option<String> {
    let budget = p.budget.filter(|_| !p.is_whole())?;
    let more = p.needs.whole().saturating_sub(budget);
    if more <= budget / 8 {
        return Some(format!("{} more would make every expert resident", size(more)));
    }
    (p.needs.cache > p.expert_bytes() / 4).then(|| "A shorter context would leave room for more experts".into())
}

/// Calls `each` with the experts' tensors.
fn of_bank(bank: &Experts, mut each: impl FnMut(&Tensor)) {
    let mut of = |m: &Mlp| [&m.gate, &m.up, &m.down].into_iter().for_each(&mut each);
    match bank {
        Experts::Separate(all) => all.iter().for_each(of),
        Experts::Stacked(mlp) => of(mlp),
    }
}

/// The format is that in which most bytes are stored.
fn describe(config: &Config, model: &Model) -> String {
    let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
    let mut count = |t: &Tensor| *bytes.entry(t.format.name()).or_default() += t.bytes() as u64;
    model.mats.iter().for_each(&mut count);
    model.banks.iter().for_each(|bank| of_bank(bank, &mut count));
    let format = bytes.iter().max_by_key(|(_, n)| **n).map_or("", |(name, _)| *name);
    match &config.moe {
        Some(m) => format!("{} layers, {} experts, {} a token, {format}", config.num_layers, m.num_experts, m.top_k),
        None => format!("{} layers, no experts, {format}", config.num_layers),
    }
}

/// Leaves the contents of all tensors out: what a model needs follows from shapes and formats.
fn strip(model: &mut Model) {
    let nothing = Bytes::new([]);
    let strip = |t: &mut Tensor| (t.data, t.scales) = (nothing.clone(), None);
    model.mats.iter_mut().for_each(strip);
    for bank in model.banks.iter_mut().chain(model.mtp.as_mut().and_then(|m| m.bank.as_mut())) {
        let of = |m: &mut Mlp| [&mut m.gate, &mut m.up, &mut m.down].into_iter().for_each(strip);
        match bank {
            Experts::Separate(all) => all.iter_mut().for_each(of),
            Experts::Stacked(mlp) => of(mlp),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test
    #![allow(clippy::print_stdout)] // skipped tests say so

    use super::*;

    /// What `pleiad fit` computes for the embedded model.
    fn fit(settings: &LoadSettings) -> Needs {
        let checkpoint = Checkpoint::tiny().unwrap();
        let model = Model::with_mtp(&checkpoint.config, &checkpoint.weights);
        let model = if settings.draft == Some(0) { model.without_mtp() } else { model };
        let context = settings.context.unwrap_or(8192).min(checkpoint.config.max_positions);
        let page = pleiad_runtime::step::PAGE;
        Needs::of(&model, (2 * context).div_ceil(page) * page, context, settings.cache, settings.activations, 512)
    }

    fn tiny() -> Examined {
        Examined::of(Source::Tiny, &Checkpoint::tiny().unwrap())
    }

    #[test]
    fn a_model_is_described() {
        let e = tiny();
        let moe = Checkpoint::tiny().unwrap().config.moe.unwrap();
        assert_eq!(e.name, "Embedded model");
        assert!(e.description.contains(&format!("{} experts, {} a token", moe.num_experts, moe.top_k)), "{}", e.description);
        assert!(e.description.ends_with("Q8_0") && e.file_bytes == pleiad_models::TINY_GGUF.len() as u64, "{e:?}");
    }

    /// What the engine makes of the embedded model under a budget: bytes of its weights, and slots of experts on a GPU.
    fn loaded(device: DeviceChoice, budget: Option<u64>, draft: Option<usize>) -> (u64, Option<Vec<usize>>) {
        let settings = LoadSettings { memory_budget: budget, draft, ..LoadSettings::default() };
        let checkpoint = Checkpoint::tiny().unwrap();
        let mut options = options::engine(&settings, &checkpoint.config).unwrap();
        (options.device, options.directory) = (device, None);
        let loaded = pollster::block_on(pleiad_runtime::engine::load(&checkpoint, options, &mut |_, _| {})).unwrap();
        let bytes = loaded.info().weight_bytes;
        let (engine, _worker) = pleiad_runtime::engine::Engine::with_worker(loaded);
        (bytes, engine.experts().map(|r| r.slots))
    }

    #[test]
    fn the_module_that_drafts_goes_where_the_engine_lets_it_go() {
        let e = tiny();
        let of = |memory_budget, draft| e.price(&LoadSettings { memory_budget, draft, ..LoadSettings::default() });
        let (without, with) = (of(None, Some(0)).least, of(None, Some(1)).least);
        assert!(without < with, "the embedded model has a module that drafts");
        assert_eq!((of(None, None).least, of(None, None).drafts_from), (without, None));
        let whole = loaded(DeviceChoice::Cpu, None, None).0;
        for (budget, drafts) in
            [(without, false), ((without + with) / 2, false), (with - 1, false), (with, true), (2 * with, true)]
        {
            let price = of(Some(budget), None);
            assert_eq!((price.problem.as_deref(), price.least), (None, without), "{budget} of {with}");
            assert_eq!(price.drafts_from, (!drafts).then_some(with), "{budget} of {with}");
            assert!(price.totals().0 <= budget, "{price:?}");
            assert_eq!(loaded(DeviceChoice::Cpu, Some(budget), None).0 == whole, drafts, "{budget} of {with}");
        }
        // Drafts that were asked for are paid for.
        assert!(of(Some(without), Some(1)).problem.is_some() && of(Some(without - 1), None).problem.is_some());
        let adapters = pollster::block_on(pleiad_runtime::gpu::enumerate());
        let Some(at) = adapters.iter().map(|a| &a.description).find(|d| d.name.contains("llvmpipe")).map(|d| d.index) else {
            println!("skipped: no llvmpipe to compare prices with");
            return;
        };
        for budget in [without, with - 1, with] {
            let slots = loaded(DeviceChoice::Wgpu(Some(at)), Some(budget), None).1.unwrap();
            let experts = slots.len() * 32;
            let resident = slots.iter().sum::<usize>() as f64 / experts as f64;
            assert_eq!(of(Some(budget), None).resident, resident, "{budget} of {with}: {slots:?}");
        }
    }

    #[test]
    fn prices_are_those_of_fit() {
        let e = tiny();
        let usual = LoadSettings::default();
        let variants = [
            usual.clone(),
            LoadSettings { context: Some(256), ..usual.clone() },
            LoadSettings { draft: Some(0), ..usual.clone() },
            LoadSettings { cache: CacheFormat::F32, ..usual.clone() },
            LoadSettings { activations: Activations::F32, ..usual.clone() },
            LoadSettings { context: Some(usize::MAX), ..usual },
        ];
        for mut settings in variants {
            let needs = fit(&settings);
            let least = fit(&LoadSettings { draft: Some(0), ..settings.clone() }).least();
            for budget in [None, Some(4 << 30), Some(needs.least()), Some(needs.at_share(0.6))] {
                settings.memory_budget = budget;
                let (price, placed) = (e.price(&settings), place_for("x", &needs, budget, None).unwrap());
                assert_eq!((price.least, price.whole, price.resident), (least, needs.whole(), placed.resident_share()));
                assert_eq!(price.totals(), (placed.total(), placed.host_bytes()), "{settings:?}");
                assert_eq!(price.shares.iter().map(|s| s.device).next(), Some(needs.dense));
                assert_eq!(price.problem, None);
                // Asked again, the answer is the same.
                assert_eq!(e.clone().price(&settings), price);
            }
        }
    }

    #[test]
    fn four_gibibytes_hold_the_embedded_model() {
        let price = tiny().price(&LoadSettings { memory_budget: Some(4 << 30), ..LoadSettings::default() });
        assert!(price.resident == 1.0 && price.totals() == (price.whole, 0) && price.problem.is_none() && price.advice.is_none());
    }

    #[test]
    fn too_small_a_budget_is_a_problem_in_words() {
        let e = tiny();
        let price = e.price(&LoadSettings { memory_budget: Some(64 << 10), ..LoadSettings::default() });
        let why = price.problem.unwrap();
        assert!(why.contains("64.0 KiB") && why.contains(&size(price.least)) && !why.contains("--"), "{why}");
        assert!(price.resident < 1.0 && price.shares.iter().any(|s| s.what == "experts" && s.device > 0));
        let price = e.price(&LoadSettings { device: "cuda".into(), ..LoadSettings::default() });
        assert!(price.problem.unwrap().contains("CUDA"));
    }

    #[test]
    fn the_cpu_computes_from_host_memory() {
        let price = tiny().price(&LoadSettings { device: "cpu".into(), memory_budget: Some(1), ..LoadSettings::default() });
        assert_eq!((price.totals(), price.resident, price.problem), ((0, price.whole), 1.0, None));
    }

    #[test]
    fn a_little_more_is_advised() {
        let e = tiny();
        let whole = e.price(&LoadSettings::default()).whole;
        let price = e.price(&LoadSettings { memory_budget: Some(whole - 1), ..LoadSettings::default() });
        assert_eq!(price.advice.as_deref(), Some("1 B more would make every expert resident"));
    }
}
