//! One memory budget, shared by weights, latent cache, working memory and expert slots.
//!
//! [`Needs::of`] adds up what the GPU backend allocates for a model; [`place`] spends a budget: everything but the experts has to
//! fit, every mixture layer gets its floor of slots, and what is left goes to further slots.

mod buffers;

use pleiad_models::Tensor;
use serde::Serialize;

use super::{
    bank::{BlobLayout, PACKED_ROWS, row_stride},
    profile::Profile,
};
use crate::{
    error::{Error, Result},
    executor::{Activations, CacheFormat},
    forward::record,
    model::{FfnIds, Model},
    step::PAGE,
};

/// Slots of a partial layer, as a multiple of the experts of one token: below it, experts are evicted before they are used again.
const FLOOR: usize = 3;

/// What the experts of one mixture layer need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerNeeds {
    /// The decoder layer.
    pub layer: usize,
    /// Experts of the layer.
    pub experts: usize,
    /// Experts of one token.
    pub top_k: usize,
    /// Bytes of one expert's slot.
    pub blob: u64,
}

impl LayerNeeds {
    /// The fewest slots that the layer can work with.
    pub fn floor(&self) -> usize {
        self.experts.min(self.top_k.saturating_mul(FLOOR))
    }
}

/// What a model needs on a device, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Needs {
    /// All weights but the routed experts; those of the module that drafts tokens included.
    pub dense: u64,
    /// The latent caches of all layers.
    pub cache: u64,
    /// Activations and scratch buffers of all plans, step state, tables of positions and of experts.
    pub work: u64,
    /// The mixture layers, one for each of [`Model::banks`].
    pub layers: Vec<LayerNeeds>,
}

/// What goes where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Placement {
    /// The budget in bytes; `None`: there was no limit.
    pub budget: Option<u64>,
    /// Slots of each mixture layer; as many as it has experts: it is resident whole.
    pub slots: Vec<usize>,
    /// What the model needs.
    pub needs: Needs,
}

fn sum(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

impl Needs {
    /// What `model` takes on a GPU with a latent cache of `positions` positions, sessions of up to `max_context` and prompts
    /// read in chunks of `chunk` tokens: what `gpu/weights.rs`, `gpu/state.rs` and `gpu/lower` allocate for the plans that
    /// `engine/plans.rs` may come to compile. Parameters of dispatches are counted at their most. Readback and staging
    /// buffers lie in host memory and are left out.
    pub fn of(
        model: &Model,
        positions: usize,
        max_context: usize,
        cache: CacheFormat,
        activations: Activations,
        chunk: usize,
    ) -> Self {
        Self::aligned(model, positions, max_context, cache, activations, chunk, PACKED_ROWS)
    }

    /// [`Needs::of`] on a device whose rows of weights begin at multiples of `row_align` bytes.
    pub fn aligned(
        model: &Model,
        positions: usize,
        max_context: usize,
        cache: CacheFormat,
        activations: Activations,
        chunk: usize,
        row_align: usize,
    ) -> Self {
        let config = &model.config;
        let (r, dr) = (config.attention.kv_lora_rank as u64, config.attention.qk_rope_head_dim as u64);
        let (context, page) = (max_context.max(1) as u64, PAGE as u64);

        let packed = |t: &Tensor| (t.count * t.rows * row_stride(t, row_align)) as u64;
        // Vectors share a buffer; each takes at least one byte of padding.
        let vector = |v: &Vec<f32>| (v.len() as u64 * 4 + 1).next_multiple_of(256);
        // The experts of the module that drafts always stay.
        let module = model.mtp_bank().map_or(0, |bank| BlobLayout::of(bank, row_align).stride.saturating_mul(bank.len()) as u64);
        let dense = sum(model.mats.iter().map(packed).chain(model.vecs.iter().map(vector)).chain([module]));

        let row_bytes = match cache {
            CacheFormat::F16 => (r + dr) / 2 * 4,
            CacheFormat::F32 => (r + dr) * 4,
        };
        let rows = (positions.max(1) as u64).div_ceil(page).saturating_mul(page);
        let cache_bytes = rows.saturating_mul(row_bytes).saturating_mul(model.caches() as u64);

        let top_k = config.moe.as_ref().map_or(0, |m| m.top_k);
        let banks = model.layers.iter().enumerate().filter_map(|(layer, l)| match l.ffn {
            FfnIds::Moe { bank, .. } => Some((layer, model.bank(bank))),
            FfnIds::Dense(_) => None,
        });
        let layers: Vec<_> = banks
            .map(|(layer, e)| LayerNeeds { layer, experts: e.len(), top_k, blob: BlobLayout::of(e, row_align).stride as u64 })
            .collect();

        let plans = buffers::plans(model, activations, chunk);
        let mut pool = buffers::Pool::new();
        let plans = plans.into_iter().map(|o| buffers::plan_bytes(model, &record(model, o), context, cache, &mut pool));
        let state = [buffers::state_bytes(model, context), buffers::residency_bytes(model, chunk)];
        let work = sum(state.into_iter().chain(plans));
        Self { dense, cache: cache_bytes, work, layers }
    }

    /// Everything but the experts.
    pub fn fixed(&self) -> u64 {
        self.dense.saturating_add(self.cache).saturating_add(self.work)
    }

    /// With every expert resident.
    pub fn whole(&self) -> u64 {
        self.with(|l| l.experts)
    }

    /// The least budget that will do: every layer has its floor. As a floor is never less than one token's experts, the slots of
    /// all layers together hold the [working set](Self::working_set) of a token.
    pub fn least(&self) -> u64 {
        self.with(LayerNeeds::floor)
    }

    /// The budget with which each layer has slots for that share of its experts (0 to 1), and its floor in any case.
    pub fn at_share(&self, share: f64) -> u64 {
        self.with(|l| ((l.experts as f64 * share).ceil() as usize).clamp(l.floor(), l.experts))
    }

    /// Experts that one token uses, over all layers.
    pub fn working_set(&self) -> usize {
        self.layers.iter().map(|l| l.top_k.min(l.experts)).sum()
    }

    fn with(&self, slots: impl Fn(&LayerNeeds) -> usize) -> u64 {
        sum([self.fixed()].into_iter().chain(self.layers.iter().map(|l| l.blob.saturating_mul(slots(l) as u64))))
    }
}

impl Placement {
    /// Bytes of the slots.
    pub fn expert_bytes(&self) -> u64 {
        sum(self.slots.iter().zip(&self.needs.layers).map(|(&n, l)| l.blob.saturating_mul(n as u64)))
    }

    /// Bytes of the experts that the host keeps: all those of partial layers.
    pub fn host_bytes(&self) -> u64 {
        let partial = self.slots.iter().zip(&self.needs.layers).filter(|(n, l)| **n < l.experts);
        sum(partial.map(|(_, l)| l.blob.saturating_mul(l.experts as u64)))
    }

    /// Bytes on the device.
    pub fn total(&self) -> u64 {
        self.needs.fixed().saturating_add(self.expert_bytes())
    }

    /// Whether every expert is resident.
    pub fn is_whole(&self) -> bool {
        self.slots.iter().zip(&self.needs.layers).all(|(&n, l)| n >= l.experts)
    }

    /// Slots as a share of experts, 0 to 1; 1 where there are no experts.
    pub fn resident_share(&self) -> f64 {
        let experts: usize = self.needs.layers.iter().map(|l| l.experts).sum();
        if experts == 0 { 1.0 } else { self.slots.iter().sum::<usize>() as f64 / experts as f64 }
    }
}

/// Spends `budget` bytes; `None`: as many as it takes. See [`place_for`].
///
/// # Errors
///
/// [`Error::Budget`] where not even the floors fit.
pub fn place(needs: &Needs, budget: Option<u64>, profile: Option<&Profile>) -> Result<Placement> {
    place_for("the model", needs, budget, profile)
}

/// [`place`] for a model that errors call `what`.
///
/// From its floor on, every further slot goes to the layer whose next-hottest expert is used most, per byte; without a profile,
/// or among equals, to the layer with the least share of its experts. A layer that lacks one expert gets it next, as a layer that
/// is whole never misses. The order does not depend on the budget, which only says where to stop; so a larger one never takes
/// a slot from any layer.
///
/// # Errors
///
/// [`Error::Budget`] where not even the floors fit.
pub fn place_for(what: &str, needs: &Needs, budget: Option<u64>, profile: Option<&Profile>) -> Result<Placement> {
    let placed = |slots| Placement { budget, slots, needs: needs.clone() };
    let Some(limit) = budget.filter(|&b| b < needs.whole()) else {
        return Ok(placed(needs.layers.iter().map(|l| l.experts).collect()));
    };
    let least = needs.least();
    let Some(mut spare) = limit.checked_sub(least) else {
        return Err(Error::Budget { what: what.to_owned(), budget: limit, least });
    };
    // A profile of another model says nothing.
    let profile = profile.filter(|p| p.heat.iter().map(Vec::len).eq(needs.layers.iter().map(|l| l.experts)));
    let mut layers: Vec<Filling<'_>> = needs.layers.iter().enumerate().map(|(i, l)| Filling::new(l, profile, i)).collect();
    while let Some(next) = Filling::next(&mut layers) {
        let Some(left) = spare.checked_sub(next.needs.blob) else { break };
        spare = left;
        next.slots += 1;
    }
    Ok(placed(layers.iter().map(|l| l.slots).collect()))
}

/// A layer while slots are given out.
struct Filling<'a> {
    needs: &'a LayerNeeds,
    slots: usize,
    /// How much each expert is used, the hottest first; empty without a profile.
    heat: Vec<f32>,
}

impl<'a> Filling<'a> {
    fn new(needs: &'a LayerNeeds, profile: Option<&Profile>, bank: usize) -> Self {
        let heat = profile.and_then(|p| p.heat.get(bank)).map(|h| {
            let mut heat: Vec<f32> = h.iter().map(|&x| if x.is_finite() { x } else { 0.0 }).collect();
            heat.sort_by(|a, b| b.total_cmp(a));
            heat
        });
        Self { needs, slots: needs.floor(), heat: heat.unwrap_or_default() }
    }

    /// How much one more slot is used, per byte.
    fn worth(&self) -> f64 {
        self.heat.get(self.slots).map_or(0.0, |&h| f64::from(h) / self.needs.blob.max(1) as f64)
    }

    fn share(&self) -> f64 {
        self.slots as f64 / self.needs.experts.max(1) as f64
    }

    /// The layer that gets the next slot; none where all are whole.
    fn next(layers: &mut [Self]) -> Option<&mut Self> {
        let almost = |l: &Self| l.slots + 1 == l.needs.experts;
        // Of equals `min_by` takes the first.
        layers.iter_mut().filter(|l| l.slots < l.needs.experts).min_by(|a, b| match (almost(a), almost(b)) {
            // Where the cheapest does not fit, none does.
            (true, true) => a.needs.blob.cmp(&b.needs.blob),
            (false, false) => b.worth().total_cmp(&a.worth()).then(a.share().total_cmp(&b.share())),
            (a, b) => b.cmp(&a),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use pleiad_models::Checkpoint;
    use proptest::prelude::*;

    use super::*;

    fn layer(experts: usize, top_k: usize, blob: u64) -> LayerNeeds {
        LayerNeeds { layer: 0, experts, top_k, blob }
    }

    fn needs(layers: Vec<LayerNeeds>) -> Needs {
        Needs { dense: 1000, cache: 200, work: 30, layers }
    }

    /// Models of a few layers, each with its own shape and a profile.
    fn models() -> impl Strategy<Value = (Needs, Profile)> {
        let layer = (1usize..40, 1usize..8, 1u64..500)
            .prop_flat_map(|(e, k, blob)| (Just(layer(e, k.min(e), blob)), proptest::collection::vec(0.0f32..1.0, e)));
        (proptest::collection::vec(layer, 0..6), 0u64..10_000).prop_map(|(all, fixed)| {
            let (layers, heat) = all.into_iter().unzip();
            (Needs { dense: fixed, cache: fixed / 3, work: 7, layers }, Profile { tokens: 100, heat })
        })
    }

    proptest! {
        #[test]
        fn budgets_are_kept((needs, profile) in models(), share in 0.0f64..1.1, with in any::<bool>()) {
            let profile = with.then_some(&profile);
            let (least, whole) = (needs.least(), needs.whole());
            let budget = (whole as f64 * share) as u64;
            match place(&needs, Some(budget), profile) {
                Ok(p) => {
                    prop_assert!(budget >= least && p.total() <= budget && p.slots.len() == needs.layers.len());
                    prop_assert_eq!(p.is_whole(), budget >= whole);
                    for (&n, l) in p.slots.iter().zip(&needs.layers) {
                        prop_assert!(n >= l.floor() && n <= l.experts);
                        // Nothing that would make a layer whole is left unspent.
                        prop_assert!(n + 1 != l.experts || budget - p.total() < l.blob);
                    }
                    prop_assert!(p.slots.iter().sum::<usize>() >= needs.working_set());
                    let largest = needs.layers.iter().map(|l| l.blob).max().unwrap_or(0);
                    prop_assert!(p.is_whole() || budget - p.total() < largest);
                    prop_assert_eq!(p.host_bytes() == 0, p.is_whole());
                    prop_assert_eq!(&place(&needs, Some(budget), profile).unwrap().slots, &p.slots);
                }
                Err(Error::Budget { budget: said, least: at_least, .. }) => {
                    prop_assert!(budget < least);
                    prop_assert_eq!((said, at_least), (budget, least));
                }
                Err(e) => prop_assert!(false, "{}", e),
            }
        }

        #[test]
        fn more_memory_takes_no_slot_away((needs, profile) in models(), a in 0.0f64..1.0, b in 0.0f64..1.0, with in any::<bool>()) {
            let profile = with.then_some(&profile);
            let (least, whole) = (needs.least(), needs.whole());
            let at = |x: f64| place(&needs, Some(least + ((whole - least) as f64 * x) as u64), profile).unwrap().slots;
            let (small, large) = (at(a.min(b)), at(a.max(b)));
            prop_assert!(small.iter().zip(&large).all(|(s, l)| s <= l), "{:?} {:?}", small, large);
        }
    }

    #[test]
    fn without_a_profile_layers_share_evenly() {
        let needs = needs(vec![layer(64, 6, 100), layer(64, 6, 100), layer(32, 3, 100)]);
        let slots = |share| place(&needs, Some(needs.at_share(share)), None).unwrap().slots;
        assert_eq!(slots(0.5), [32, 32, 16]);
        assert_eq!(slots(0.75), [48, 48, 24]);
        assert_eq!(slots(0.0), [18, 18, 9]);
        assert_eq!(place(&needs, None, None).unwrap().slots, [64, 64, 32]);
        // Two slots short of everything: one layer lacks both, and the others are whole.
        let slots = place(&needs, Some(needs.whole() - 200), None).unwrap().slots;
        assert_eq!(slots.iter().zip(&needs.layers).filter(|(n, l)| **n == l.experts).count(), 2, "{slots:?}");
    }

    #[test]
    fn with_a_profile_slots_go_where_they_are_used() {
        let needs = needs(vec![layer(16, 1, 100), layer(16, 1, 100)]);
        // The second layer uses three experts and no other, the first all alike.
        let skewed = (0..16).map(|e| if e % 5 == 2 { 1.0 / 3.0 } else { 0.0 }).collect();
        let profile = Profile { tokens: 1000, heat: vec![vec![1.0 / 16.0; 16], skewed] };
        let budget = Some(needs.least() + 700);
        assert_eq!(place(&needs, budget, Some(&profile)).unwrap().slots, [10, 3]);
        assert_eq!(place(&needs, budget, None).unwrap().slots, [7, 6]);
        // Dearer slots have to be used more.
        let mut dear = needs.clone();
        dear.layers[0].blob = 700;
        let profile = Profile { tokens: 1, heat: vec![vec![0.3; 16], vec![0.1; 16]] };
        assert_eq!(place(&dear, Some(dear.least() + 700), Some(&profile)).unwrap().slots, [3, 10]);
        // A profile of another model, or one with nonsense in it, does no harm.
        let other = Profile { tokens: 1, heat: vec![vec![1.0; 16]] };
        assert_eq!(place(&needs, budget, Some(&other)).unwrap().slots, [7, 6]);
        let nonsense = Profile { tokens: 1, heat: vec![vec![f32::NAN; 16]; 2] };
        assert_eq!(place(&needs, budget, Some(&nonsense)).unwrap().slots, [7, 6]);
    }

    #[test]
    fn too_little_is_refused_with_what_would_do() {
        let needs = needs(vec![layer(64, 6, 1 << 20)]);
        let error = place_for("x.gguf", &needs, Some(5 << 20), None).unwrap_err().to_string();
        assert!(error.contains("x.gguf") && error.contains("5 MiB") && error.contains("19 MiB"), "{error}");
        assert!(place(&needs, Some(19 << 20), None).is_ok());
        let none = place(&self::needs(Vec::new()), Some(1230), None).unwrap();
        assert!(none.is_whole() && none.resident_share() == 1.0 && none.total() == 1230);
        assert!(place(&self::needs(Vec::new()), Some(1229), None).is_err());
    }

    #[test]
    fn needs_follow_the_options() {
        let checkpoint = Checkpoint::tiny().unwrap();
        let model = Model::new(&checkpoint.config, &checkpoint.weights);
        let of = |positions, context, cache, chunk| Needs::of(&model, positions, context, cache, Activations::Q8, chunk);
        let base = of(100, 100, CacheFormat::F16, 16);
        let a = &model.config.attention;
        assert_eq!(base.cache, (model.layers.len() * 128 * (a.kv_lora_rank + a.qk_rope_head_dim) * 2) as u64);
        assert_eq!(of(100, 100, CacheFormat::F32, 16).cache, 2 * base.cache);
        assert_eq!(of(129, 100, CacheFormat::F16, 16).cache, base.cache / 2 * 3);
        assert!(of(100, 100, CacheFormat::F16, 64).work > base.work);
        assert_eq!(base.layers.len(), model.banks.len());
        for (l, bank) in base.layers.iter().zip(&model.banks) {
            assert_eq!((l.experts, l.top_k), (bank.len(), model.config.moe.as_ref().unwrap().top_k));
        }
        assert!(base.least() > base.fixed() && base.least() < base.whole());
        // Nobody has that much, and nothing overflows.
        let _ = of(usize::MAX, usize::MAX, CacheFormat::F32, usize::MAX);
    }
}
