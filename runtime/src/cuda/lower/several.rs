//! One plan on several devices.
//!
//! An operation runs on the device of its layer, the experts' products on every device that has some of the experts. Each device has
//! its own copy of the activations that it uses; where an operation reads one that was last written elsewhere, a copy goes before it.
//! So the residual stream moves when the next layer is another device's, and experts get their tokens' rows. The inner rows of
//! experts stay on the device that made them; their outputs are written straight to the layer's device, which sums them in the
//! order of a single device.

use std::sync::Arc;

use pleiad_shaders::params;

use super::{Emit, Lowering, ONE, RowCount, experts::ExpertProduct};
use crate::{
    cuda::{driver::Memory, state::Slab},
    error::{Error, Result},
    plan::{Act, BankId, Op},
    steps::{most_rows, row_words},
};

/// Which devices have what, at this point of the plan: a bit for each.
pub(super) struct Whereabouts {
    /// Good copies of each activation; of one in parts, the devices that have one. 0: nobody has used it yet.
    acts: Vec<u32>,
    /// Activations of which each device has the rows that it made itself.
    parts: Vec<bool>,
    /// Good copies of the step's state.
    step: u32,
    /// Good copies of the slots of chosen experts: whose choice, from which bank, where they were looked up.
    chosen: u32,
    chosen_for: Option<(Act, BankId, u64)>,
}

impl Whereabouts {
    pub fn new(acts: usize) -> Self {
        Self { acts: vec![0; acts], parts: vec![false; acts], step: 1, chosen: 0, chosen_for: None }
    }

    /// A router has chosen anew.
    pub fn forget_chosen(&mut self) {
        self.chosen_for = None;
    }

    /// The device to read an activation from, or to write it to before a step.
    pub fn of(&self, act: usize) -> usize {
        self.acts.get(act).filter(|&&mask| mask != 0).map_or(0, |mask| mask.trailing_zeros() as usize)
    }

    /// What a kernel that does, or does not, change the state of the step reads on a device: whether it is the first device's, and
    /// whether a copy is to be made first.
    pub fn step(&mut self, device: usize, writes: bool) -> (bool, bool) {
        if writes {
            self.step = 1;
        }
        let stale = self.step & (1 << device) == 0;
        if stale && !writes {
            self.step |= 1 << device;
        }
        (writes || device == 0, stale && !writes)
    }
}

/// The activations that an operation reads, and those that it writes.
fn acts_of(op: &Op) -> (Vec<Act>, Vec<Act>) {
    match *op {
        Op::Embed { out, .. } => (vec![], vec![out]),
        Op::Norm { x, out, q8, .. } => (vec![x], out.into_iter().chain(q8).collect()),
        Op::Quantise { x, out } | Op::LastRow { x, out } | Op::TakenRow { x, out } => (vec![x], vec![out]),
        Op::MatMul { x, out, add, .. } => (if add { vec![x, out] } else { vec![x] }, vec![out]),
        Op::GatedMatMul { x, out, .. } => (vec![x], vec![out]),
        // It may write a part of each row.
        Op::HeadMatMul { x, out, .. } => (vec![x.act, out.act], vec![out.act]),
        Op::Rope { x, .. } => (vec![x.act], vec![x.act]),
        Op::Latent { kv, .. } => (vec![kv], vec![]),
        Op::Attend { q_latent, q_rope, out, .. } => (vec![q_latent, q_rope.act], vec![out]),
        Op::AttendExpanded { q, out, .. } => (vec![q], vec![out]),
        Op::Router { logits, ids, weights, .. } => (vec![logits], vec![ids, weights]),
        Op::ExpertsUp { x, ids, out, .. } | Op::ExpertsDown { x, ids, out, .. } => (vec![x, ids], vec![out]),
        Op::Combine { y, weights, x } => (vec![y, weights, x], vec![x]),
        Op::Join { a, b, out } => (vec![a, b], vec![out]),
        Op::Verify { logits, .. } | Op::Draft { logits, .. } | Op::Sample { logits } => (vec![logits], vec![]),
        Op::Shift { .. } | Op::Settle { .. } => (vec![], vec![]),
    }
}

impl<'a> Lowering<'a> {
    /// The device of the operation at hand.
    fn home(&self) -> usize {
        let placement = &self.state.placement;
        let layer = self.plan.layers.iter().position(|ops| ops.contains(&self.op));
        let before = self.plan.layers.first().is_none_or(|ops| self.op < ops.start);
        match layer.and_then(|layer| placement.homes.get(layer)) {
            Some(&home) => home,
            None if before => 0,
            None => placement.tail,
        }
    }

    /// Lowers an operation, and before it the copies of what it reads.
    pub(super) fn op_of_several(&mut self, op: &Op) -> Result<()> {
        let home = self.home();
        self.device = home;
        match *op {
            // These look after themselves.
            Op::ExpertsUp { .. } | Op::ExpertsDown { .. } => return self.single(op),
            Op::Quantise { x, out } if self.whereabouts.parts[x.0 as usize] => {
                let holders = self.whereabouts.acts[x.0 as usize];
                for device in (0..self.state.placement.devices).filter(|d| holders >> d & 1 == 1) {
                    self.device = device;
                    self.hold(device, out)?;
                    self.single(op)?;
                }
                self.device = home;
                self.whereabouts.acts[out.0 as usize] = holders;
                self.whereabouts.parts[out.0 as usize] = true;
                return Ok(());
            }
            _ => {}
        }
        let (reads, writes) = acts_of(op);
        reads.iter().try_for_each(|&act| self.bring(act))?;
        writes.iter().try_for_each(|&act| self.hold(home, act).map(drop))?;
        self.single(op)?;
        writes.iter().for_each(|act| self.written(*act));
        Ok(())
    }

    /// The device at hand has the only good copy.
    pub(super) fn written(&mut self, act: Act) {
        self.whereabouts.acts[act.0 as usize] = 1 << self.device;
        self.whereabouts.parts[act.0 as usize] = false;
    }

    /// An activation's address on a device, where it gets memory if it has none yet.
    pub(super) fn hold(&mut self, device: usize, act: Act) -> Result<u64> {
        let index = act.0 as usize;
        if let Some(memory) = &self.acts[device][index] {
            return Ok(memory.address);
        }
        let memory = self.act_memory(device, act)?;
        let address = memory.address;
        self.acts[device][index] = Some(memory);
        Ok(address)
    }

    /// The memory that all plans share for an activation on a device.
    pub(super) fn act_memory(&self, device: usize, act: Act) -> Result<Arc<Memory>> {
        let decl = self.decl(act);
        let bytes = (row_words(decl) * most_rows(decl, self.plan.max_tokens) * 4) as u64;
        let what = format!("activation `{}` of {} tokens", decl.name, self.plan.max_tokens);
        self.pooled(device, &format!("{:?} {}", decl.kind, decl.name), &what, bytes)
    }

    /// Sees to it that the device at hand has an activation.
    fn bring(&mut self, act: Act) -> Result<()> {
        let (device, index) = (self.device, act.0 as usize);
        let to = self.hold(device, act)?;
        let holders = self.whereabouts.acts[index];
        if holders == 0 {
            self.whereabouts.acts[index] = 1 << device;
            return Ok(());
        }
        if holders >> device & 1 == 1 {
            return Ok(());
        }
        if self.whereabouts.parts[index] {
            return Err(Error::Gpu(format!("activation `{}` lies in parts on several devices", self.decl(act).name)));
        }
        let from = self.hold(holders.trailing_zeros() as usize, act)?;
        let (width, rows) = (row_words(self.decl(act)) as u32, self.row_count(act));
        self.copy(from, to, width, rows)?;
        self.whereabouts.acts[index] |= 1 << device;
        Ok(())
    }

    /// Copies rows to the device at hand.
    pub(super) fn copy(&mut self, from: u64, to: u64, width: u32, rows: RowCount) -> Result<()> {
        let p = params::Bring { width, tokens: rows.param(), pad: [0; 2] };
        let grid = [super::Dim::Fixed(width.div_ceil(1024)), rows.each(), ONE];
        self.emit(Emit::new("bring", &p, vec![("x", from), ("out", to)], grid))
    }

    /// Whether nobody but the experts' down products, quantised or not, reads what their up products write.
    fn is_private(&self, act: Act) -> bool {
        let mut readers = self.plan.ops.iter().filter(|op| acts_of(op).0.contains(&act)).peekable();
        readers.peek().is_some()
            && readers.all(|op| match *op {
                Op::ExpertsDown { x, ids, .. } => x == act && ids != act,
                Op::Quantise { out, .. } => self.is_private(out),
                _ => false,
            })
    }

    /// The product of a bank's experts, on every device that has some of them, to an activation.
    pub(super) fn on_slabs(
        &mut self,
        bank: BankId,
        x: Act,
        ids: Act,
        out: Act,
        product: impl Fn(&'a Slab, u64) -> ExpertProduct<'a>,
    ) -> Result<()> {
        let home = self.device;
        let shared = self.hold(home, out)?;
        if self.state.placement.devices > 1 && self.is_private(out) {
            let makers = self.each_slab(bank, x, ids, &|cx, device| cx.hold(device, out), false, product)?;
            self.whereabouts.acts[out.0 as usize] = makers;
            self.whereabouts.parts[out.0 as usize] = true;
        } else {
            self.each_slab(bank, x, ids, &|_, _| Ok(shared), true, product)?;
            self.written(out);
        }
        Ok(())
    }

    /// The product of a bank's experts, on every device that has some of them, to the address that `to` says for a device; `shared`:
    /// the same for all. Returns the devices, a bit for each.
    pub(super) fn each_slab(
        &mut self,
        bank: BankId,
        x: Act,
        ids: Act,
        to: &dyn Fn(&mut Self, usize) -> Result<u64>,
        shared: bool,
        product: impl Fn(&'a Slab, u64) -> ExpertProduct<'a>,
    ) -> Result<u32> {
        let (state, home) = (self.state, self.device);
        let slabs = &state.banks[bank.0 as usize].slabs;
        if let [only] = slabs.as_slice() {
            let to = to(self, home)?;
            self.experts(&product(only, to))?;
            return Ok(1 << home);
        }
        if !self.whereabouts.parts[x.0 as usize] {
            self.bring(x)?;
        }
        self.bring(ids)?;
        self.choose(bank, ids)?;
        let mut makers = 0;
        // What is furthest from its rows begins first.
        for slab in slabs.iter().filter(|s| s.device != home).chain(slabs.iter().filter(|s| s.device == home)) {
            self.device = slab.device;
            self.bring(x)?;
            self.bring_chosen(ids)?;
            let to = to(self, slab.device)?;
            self.writes_part = shared;
            let done = self.experts(&product(slab, to));
            self.writes_part = false;
            done?;
            makers |= 1 << slab.device;
        }
        self.device = home;
        Ok(makers)
    }

    /// Looks up, on the layer's device, which copy of each expert serves.
    fn choose(&mut self, bank: BankId, ids: Act) -> Result<()> {
        if self.whereabouts.chosen_for.is_some_and(|(a, b, _)| (a, b) == (ids, bank)) {
            return Ok(());
        }
        let state = self.state;
        let Some(table) = &state.banks[bank.0 as usize].table else {
            return Err(Error::Gpu("experts on several devices without a table of their copies".into()));
        };
        let (slots, rows) = (self.chosen(ids)?, self.row_count(ids));
        let devices = state.placement.devices as u32;
        let p = params::Spread { devices, top_k: self.width(ids), tokens: rows.param(), pad: 0 };
        let bind = vec![("ids", self.act(ids)), ("table", table.address), ("slots", slots)];
        self.emit(Emit::new("spread", &p, bind, [rows.per(32), ONE, ONE]))?;
        self.whereabouts.chosen = 1 << self.device;
        self.whereabouts.chosen_for = Some((ids, bank, slots));
        self.grouped.clear();
        Ok(())
    }

    fn bring_chosen(&mut self, ids: Act) -> Result<()> {
        let Some((_, _, from)) = self.whereabouts.chosen_for.filter(|_| self.whereabouts.chosen >> self.device & 1 == 0) else {
            return Ok(());
        };
        let to = self.chosen(ids)?;
        self.copy(from, to, self.width(ids), self.row_count(ids))?;
        self.whereabouts.chosen |= 1 << self.device;
        Ok(())
    }
}
