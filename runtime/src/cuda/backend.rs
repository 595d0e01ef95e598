//! CUDA as steps see it: launches in one stream, graphs where tokens are decoded, copies back that are waited for.
//!
//! Position, page table, sampling and token ids live in device memory, so a graph that was captured once serves every token.

use std::{collections::HashMap, sync::Arc};

use super::{
    driver::{Driver, Fetch, Graph, Launch, Memory},
    lower::{self, Dispatch},
    state::{self, CudaState, ROW_ALIGN},
};
use crate::{
    error::{Error, Result},
    executor::{DeviceStats, LoadOptions},
    experts::{bank::HostBank, residency::Residency},
    model::Model,
    plan::Plan,
    steps::{Backend, Lowered, Part, Prepared, Scheduled as _, Shared, Span, StepShape, select},
};

/// Most graphs kept of a plan. One serves all tokens that find their experts; steps that are taken up after a miss have their own.
const GRAPHS: usize = 128;

/// A model on a CUDA device.
pub struct Cuda {
    pub(super) state: CudaState,
    shared: Shared<u64>,
    /// A write that failed, and where no error could be returned.
    failed: Option<Error>,
}

/// Launches of a prepared plan.
pub struct Launches {
    dispatches: Vec<Dispatch>,
    /// Launches point to these.
    _memory: Vec<Arc<Memory>>,
    /// Last lengths of the steps that are launched alike, ascending.
    bounds: Vec<u32>,
    /// Graphs of parts of a step, and their kernels.
    graphs: HashMap<Captured, (Graph, u64)>,
}

/// What decides which launches a submission is made of.
#[derive(PartialEq, Eq, Hash)]
struct Captured {
    parts: Vec<Part>,
    tokens: u32,
    gather: bool,
    /// The place of the step's length among the bounds.
    class: usize,
}

/// The launches of parts of a plan.
fn launches(plan: &Prepared<Cuda>, parts: &[Part], shape: StepShape) -> Vec<Launch> {
    let of = |part| select(&plan.dispatches.dispatches, &plan.mixtures, part, shape);
    let launch = |(d, grid): (&Dispatch, [u32; 3])| {
        let Dispatch { device, function, threads, shared, .. } = *d;
        let (arguments, touches) = (Arc::clone(&d.arguments), Arc::clone(&d.touches));
        Launch { device, function, grid, threads, shared, arguments, touches }
    };
    parts.iter().flat_map(of).map(launch).collect()
}

/// Launches of a whole step of one token that sees `length` positions.
pub(super) fn count(plan: &Prepared<Cuda>, length: u32) -> usize {
    launches(plan, &[Part::Ops(0..plan.ops)], StepShape { tokens: 1, length, gather: false }).len()
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|&w| u32::from_ne_bytes(w)).collect()
}

impl Cuda {
    fn driver(&self) -> &Arc<dyn Driver> {
        &self.state.driver
    }

    /// Starts parts of a plan: by a graph, where tokens are decoded. Returns the number of kernels.
    fn start(&self, plan: &mut Prepared<Self>, parts: &[Part], shape: StepShape) -> Result<u64> {
        let StepShape { tokens, length, gather } = shape;
        // A chunk's shape seldom comes again.
        if plan.samples && (tokens == 1 || plan.verifies == tokens as usize) {
            let class = plan.dispatches.bounds.partition_point(|&end| end < length);
            let what = Captured { parts: parts.to_vec(), tokens, gather, class };
            let known = plan.dispatches.graphs.get(&what).copied();
            if known.is_some() || plan.dispatches.graphs.len() < GRAPHS {
                let (graph, kernels) = match known {
                    Some(known) => known,
                    None => {
                        let launches = launches(plan, parts, shape);
                        let captured = (self.driver().capture(&launches)?, launches.len() as u64);
                        plan.dispatches.graphs.insert(what, captured);
                        captured
                    }
                };
                self.driver().replay(graph)?;
                return Ok(kernels);
            }
        }
        let launches = launches(plan, parts, shape);
        self.driver().launch(&launches)?;
        Ok(launches.len() as u64)
    }

    fn read_now(&self, spans: &[(u64, usize)]) -> Result<Vec<u32>> {
        let fetch = self.driver().fetch(spans)?;
        Ok(words(&self.driver().fetched(fetch)?))
    }

    /// Waits for all that was asked for.
    fn wait(&self) -> Result<()> {
        self.read_now(&[(self.state.step.address, 4)]).map(|_| ())
    }
}

impl Backend for Cuda {
    type Device = Arc<dyn Driver>;
    type Buffer = u64;
    type Dispatches = Launches;
    /// `None`: there is no result.
    type Fetch = Option<Fetch>;

    const ROW_ALIGN: usize = ROW_ALIGN;
    const ASIDE: bool = true;

    fn name(&self) -> String {
        super::names(&**self.driver())
    }

    fn places_itself(device: &Self::Device) -> bool {
        device.devices().len() > 1
    }

    fn copies(&self) -> Vec<usize> {
        let layouts = self.state.placement.layouts.iter().take(self.state.model.banks.len());
        layouts.map(|l| l.experts.len() - l.slots.len()).collect()
    }

    fn room(device: &Self::Device, model: &Model, options: &LoadOptions) -> Option<u64> {
        let caches = state::cache_bytes(model, options) * model.caches() as u64;
        let whole = state::weight_bytes(model, &Residency::whole(model)) + caches;
        device.free_memory(0).filter(|&free| whole > free)
    }

    async fn load(
        device: &Self::Device,
        model: Arc<Model>,
        options: &LoadOptions,
        residency: &Residency,
        host: Option<&mut HostBank>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let state = CudaState::load(device, model, options, residency, host, progress)?;
        Ok(Self { shared: state.shared(), state, failed: None })
    }

    fn mark(_device: &Self::Device) -> usize {
        0
    }

    async fn free_after(_device: &Self::Device, _mark: usize) -> Result<()> {
        // Memory is given back when it is dropped.
        Ok(())
    }

    fn shared(&self) -> &Shared<u64> {
        &self.shared
    }

    fn reads_host(&self) -> bool {
        true
    }

    async fn make_sources(&mut self, host: &mut HostBank, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let Some(slots) = &mut self.state.slots else { return Ok(()) };
        slots.make_sources(&self.state.driver, host, progress)
    }

    async fn expect(&mut self, _results: usize, _words: usize) -> Result<()> {
        Ok(())
    }

    fn lower(&mut self, plan: &Plan) -> Result<Lowered<Self>> {
        let lowered = lower::lower(&self.state, plan)?;
        let acts = lowered.acts.iter().map(|m| m.address).collect();
        let starts = lowered.dispatches.iter().map(|d| d.case().length.0).filter(|&from| from > 0).map(|from| from - 1);
        let ends = lowered.dispatches.iter().map(|d| d.case().length.1);
        let mut bounds: Vec<u32> = starts.chain(ends).chain([u32::MAX]).collect();
        bounds.sort_unstable();
        bounds.dedup();
        let memory = lowered.acts.into_iter().chain(lowered.scratch).collect();
        let dispatches = Launches { dispatches: lowered.dispatches, _memory: memory, bounds, graphs: HashMap::new() };
        Ok(Lowered { dispatches, acts, bind_groups: 0 })
    }

    fn check(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    fn write(&mut self, buffer: &u64, offset: u64, words: &[u32]) {
        let mut data: &[u8] = bytemuck::cast_slice(words);
        for (address, bytes) in self.state.pieces(*buffer, offset, data.len()) {
            let (piece, rest) = data.split_at(bytes.min(data.len()));
            if let Err(e) = self.driver().write(address, piece) {
                self.failed.get_or_insert(e);
            }
            data = rest;
        }
    }

    fn write_slot(&mut self, bank: usize, slot: u32, offset: usize, data: &[u8], aside: bool) -> Result<()> {
        self.state.write_slot(bank, slot, offset, data, aside)
    }

    fn join(&mut self) -> Result<()> {
        self.driver().join_uploads()
    }

    fn submit(
        &mut self,
        plan: &mut Prepared<Self>,
        parts: &[Part],
        shape: StepShape,
        result: &[Span<u64>],
    ) -> Result<(Option<Fetch>, u64)> {
        self.check()?;
        let kernels = self.start(plan, parts, shape)?;
        let pieces = |s: &Span<u64>| self.state.pieces(s.buffer, s.offset, s.words * 4);
        let spans: Vec<(u64, usize)> = result.iter().flat_map(pieces).collect();
        let fetch = if spans.is_empty() { None } else { Some(self.driver().fetch(&spans)?) };
        Ok((fetch, kernels))
    }

    async fn fetched(&mut self, fetch: Option<Fetch>) -> Result<Vec<u32>> {
        match fetch {
            Some(fetch) => Ok(words(&self.driver().fetched(fetch)?)),
            None => self.wait().map(|()| Vec::new()),
        }
    }

    fn forget(&mut self, fetch: Option<Fetch>) {
        if let Some(fetch) = fetch {
            self.driver().forget(fetch);
        }
    }

    async fn read(&mut self, buffer: &u64, words: usize, stats: &mut DeviceStats) -> Result<Vec<u32>> {
        self.check()?;
        stats.readbacks += 1;
        self.read_now(&self.state.pieces(*buffer, 0, words * 4))
    }

    async fn idle(&mut self) -> Result<()> {
        self.wait()
    }
}
