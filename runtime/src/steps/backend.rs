//! What steps ask of a device, whichever way it is driven.

use std::sync::Arc;

use super::{
    plan::{Part, Prepared, StepShape},
    tables::Tables,
};
use crate::{
    error::Result,
    executor::{DeviceStats, LoadOptions},
    experts::{bank::HostBank, residency::Residency},
    model::Model,
    plan::Plan,
};

/// Words of one slot of the ring of sampled tokens.
pub const RING_WORDS: usize = 4;
/// Token ids that fit a step. Plans have fewer.
pub const MAX_IDS: usize = 65_535;

/// What steps read and write, and all plans of a model share.
pub struct Shared<T> {
    pub model: Arc<Model>,
    /// [`crate::step::StepState`] and the page table.
    pub step: T,
    /// Token ids of the step.
    pub ids: T,
    /// The last sampled tokens.
    pub ring: T,
    /// `[layers, E]`.
    pub counters: T,
    /// Elements of `counters`.
    pub counter_len: usize,
    /// The latent caches, and their words.
    pub caches: Vec<(T, usize)>,
    /// Where the vectors of weights are: a buffer, the byte offset in it, and their words.
    pub vectors: Vec<(T, u64, usize)>,
    /// Words of one expert of each bank, on the device.
    pub blob_words: Vec<usize>,
    /// Where experts live in slots, or their use is recorded.
    pub slots: Option<Tables<T>>,
    /// Positions that one session may use.
    pub max_context: usize,
    /// Entries of the page table.
    pub max_pages: usize,
    /// Bytes of weights on the device.
    pub weight_bytes: u64,
}

/// A plan lowered.
pub struct Lowered<B: Backend> {
    pub dispatches: B::Dispatches,
    /// One buffer an activation.
    pub acts: Vec<B::Buffer>,
    /// Bind groups made.
    pub bind_groups: u64,
}

/// Words of a buffer.
pub struct Span<T> {
    pub buffer: T,
    /// In bytes.
    pub offset: u64,
    pub words: usize,
}

/// A model on a device: memory, work that is done in order, and results that are on their way back.
///
/// Nothing of it blocks in a browser. What is written or submitted takes effect in the order of the calls.
pub trait Backend: Sized {
    /// A device that was opened.
    type Device: Clone;
    /// Memory that is written and read back.
    type Buffer: Clone + PartialEq;
    /// A plan's dispatches, ready to run.
    type Dispatches;
    /// Work under way, and a result that it may have.
    type Fetch;

    /// Rows of weights begin at multiples of so many bytes.
    const ROW_ALIGN: usize;
    /// Whether experts can be written beside what runs.
    const ASIDE: bool;

    /// The device's name, for people.
    fn name(&self) -> String;

    /// Whether it decides by itself what goes where, as far as the budget allows, with all experts resident: it is several devices.
    fn places_itself(_device: &Self::Device) -> bool {
        false
    }

    /// Slots of each bank with further copies of experts.
    fn copies(&self) -> Vec<usize> {
        Vec::new()
    }

    /// What a model may take where no budget is given; `None`: all of it may be tried.
    fn room(device: &Self::Device, model: &Model, options: &LoadOptions) -> Option<u64>;

    /// Puts a model on a device: the experts that `residency` has in slots, those of layers with fewer slots than experts from
    /// `host`. `progress` is called with bytes done and in all.
    fn load(
        device: &Self::Device,
        model: Arc<Model>,
        options: &LoadOptions,
        residency: &Residency,
        host: Option<&mut HostBank>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> impl Future<Output = Result<Self>>;

    /// A mark of what a device holds before a model is loaded.
    fn mark(device: &Self::Device) -> usize;

    /// Frees what was made since, after memory was refused and nobody uses it any more.
    fn free_after(device: &Self::Device, mark: usize) -> impl Future<Output = Result<()>>;

    /// Where things are.
    fn shared(&self) -> &Shared<Self::Buffer>;

    /// Whether kernels could read experts in host memory.
    fn reads_host(&self) -> bool;

    /// Copies the experts of partial layers to where kernels can read them: from now on these can fetch by themselves.
    /// `progress` is called with the bytes of each.
    fn make_sources(&mut self, host: &mut HostBank, progress: &mut dyn FnMut(u64)) -> impl Future<Output = Result<()>>;

    /// Makes ready for `results` results of up to `words` words on their way at once, so that decoding makes nothing.
    fn expect(&mut self, results: usize, words: usize) -> impl Future<Output = Result<()>>;

    /// Makes everything that steps through `plan` need.
    fn lower(&mut self, plan: &Plan) -> Result<Lowered<Self>>;

    /// The first error that could not be returned by the call that it is of.
    fn check(&mut self) -> Result<()>;

    /// Writes words from a byte offset on. An error shows at the next [`Backend::check`] or [`Backend::submit`].
    fn write(&mut self, buffer: &Self::Buffer, offset: u64, words: &[u32]);

    /// Writes an expert, or a part of one from byte `offset` of its blob on, to a slot; `aside`: beside what runs, where that is
    /// possible. An error leaves the slot undefined.
    fn write_slot(&mut self, bank: usize, slot: u32, offset: usize, data: &[u8], aside: bool) -> Result<()>;

    /// What is submitted from now on waits for what was written aside, and what is written aside from now on for what was submitted
    /// so far.
    fn join(&mut self) -> Result<()>;

    /// Starts parts of a plan, and then copies of `result`, one span after the other. Returns the number of dispatches, too.
    fn submit(
        &mut self,
        plan: &mut Prepared<Self>,
        parts: &[Part],
        shape: StepShape,
        result: &[Span<Self::Buffer>],
    ) -> Result<(Self::Fetch, u64)>;

    /// Waits for work that was submitted: its result.
    fn fetched(&mut self, fetch: Self::Fetch) -> impl Future<Output = Result<Vec<u32>>>;

    /// Gives a result up.
    fn forget(&mut self, fetch: Self::Fetch);

    /// Reads the first `words` words of a buffer, and counts what it takes.
    fn read(&mut self, buffer: &Self::Buffer, words: usize, stats: &mut DeviceStats) -> impl Future<Output = Result<Vec<u32>>>;

    /// Waits until everything submitted so far has run.
    fn idle(&mut self) -> impl Future<Output = Result<()>>;
}
