//! What callers read and write of a device besides steps.

use super::{acts::PlacedAct, backend::Backend, exec::Steps};
use crate::{
    error::{Error, Result},
    executor::{DeviceStats, PlanId},
    experts::{ExpertReport, policy::ABSENT},
    plan::{Act, Kind},
    q8::Q8Rows,
    step::StepState,
};

impl<B: Backend> Steps<B> {
    /// Reads the first `words` words of a buffer.
    pub(super) async fn read(&mut self, buffer: &B::Buffer, words: usize) -> Result<Vec<u32>> {
        if words == 0 {
            return Ok(Vec::new());
        }
        self.backend.read(buffer, words, &mut self.stats).await
    }

    fn plan_act(&self, plan: PlanId, act: Act) -> Result<&PlacedAct<B::Buffer>> {
        self.plan(plan)?.act(act)
    }

    /// Reads the first `rows` rows of an activation as bits (8-bit rows: the f32 values that they stand for).
    pub async fn read_act(&mut self, plan: PlanId, act: Act, rows: usize) -> Result<Vec<u32>> {
        let placed = self.plan_act(plan, act)?;
        let (buffer, words, kind) = (placed.buffer.clone(), rows.min(placed.rows) * placed.row_words, placed.kind);
        let words = self.read(&buffer, words).await?;
        Ok(match kind {
            Kind::F32 | Kind::U32 => words,
            Kind::Q8 => self.plan_act(plan, act)?.dequantise(&words).into_iter().map(f32::to_bits).collect(),
        })
    }

    /// Sets the first rows of an activation from bits (8-bit rows: from the f32 values to quantise).
    ///
    /// # Errors
    ///
    /// More than the activation has, or an error of the device.
    pub fn write_act(&mut self, plan: PlanId, act: Act, bits: &[u32]) -> Result<()> {
        let act = self.plan_act(plan, act)?;
        let most = act.rows * act.width;
        if bits.len() > most || !bits.len().is_multiple_of(act.width) {
            return Err(Error::Invalid(format!("{} elements for activation `{}` of {most}", bits.len(), act.name)));
        }
        let buffer = act.buffer.clone();
        match act.kind {
            Kind::F32 | Kind::U32 => self.upload(&buffer, 0, bits),
            Kind::Q8 => {
                let width = act.width / act.parts;
                let mut rows = Q8Rows::new(bits.len() / width, width);
                for (r, row) in bits.chunks(width).enumerate() {
                    rows.set(r, &row.iter().map(|&b| f32::from_bits(b)).collect::<Vec<_>>());
                }
                let words = act.words_of(&rows);
                self.upload(&buffer, 0, &words);
            }
        }
        self.backend.check()
    }

    /// The activation counters, `[layers, E]`.
    pub async fn read_counters(&mut self) -> Result<Vec<u32>> {
        let (counters, words) = (self.backend.shared().counters.clone(), self.backend.shared().counter_len);
        self.read(&counters, words).await
    }

    /// Sets the activation counters to zero.
    pub fn reset_counters(&mut self) {
        let (counters, words) = (self.backend.shared().counters.clone(), self.backend.shared().counter_len);
        self.upload(&counters, 0, &vec![0; words]);
    }

    fn cache(&self, layer: usize) -> Result<(B::Buffer, usize)> {
        let cache = self.backend.shared().caches.get(layer).cloned();
        cache.ok_or_else(|| Error::Invalid(format!("there is no layer {layer}")))
    }

    /// The raw words of a layer's latent cache (tests).
    pub async fn read_cache(&mut self, layer: usize) -> Result<Vec<u32>> {
        let (cache, words) = self.cache(layer)?;
        self.read(&cache, words).await
    }

    /// Sets the first words of a layer's latent cache (tests).
    pub fn write_cache(&mut self, layer: usize, data: &[u32]) -> Result<()> {
        let (cache, words) = self.cache(layer)?;
        self.upload(&cache, 0, &data[..data.len().min(words)]);
        self.backend.check()
    }

    /// The step state as the device has it, without the page table (tests).
    pub async fn read_step(&mut self) -> Result<StepState> {
        let step = self.backend.shared().step.clone();
        let words = self.read(&step, StepState::WORDS).await?;
        Ok(bytemuck::pod_read_unaligned(bytemuck::cast_slice(&words)))
    }

    /// What the device did so far.
    pub fn stats(&self) -> DeviceStats {
        self.stats
    }

    /// Which experts the device holds: `[mixture layers, E]`. One more readback while kernels keep the tables.
    pub async fn resident(&mut self) -> Result<Vec<bool>> {
        let shared = self.backend.shared();
        let slots = shared.slots.as_ref().map(|s| (s.tables.clone(), s.experts, s.record));
        let (Some(server), Some((tables, experts, words))) = (self.server.as_ref(), slots) else {
            return Ok(vec![true; shared.model.banks.len() * self.report.experts]);
        };
        let banks = server.residency.banks();
        if !server.gathering {
            let table = |bank| server.residency.table(bank).iter().map(|&slot| slot != ABSENT);
            return Ok((0..banks).flat_map(table).collect());
        }
        Ok(self.read(&tables, words).await?.iter().take(banks * experts).map(|&slot| slot != ABSENT).collect())
    }

    /// Where experts are, and how misses are served.
    pub fn experts(&self) -> ExpertReport {
        let ways = self.server.as_ref().filter(|s| s.partial()).map(|s| s.ways());
        ExpertReport { ways, ..self.report.clone() }
    }

    /// Keeps what was learnt about the use of experts for the next start.
    pub fn save_profile(&self) -> Result<()> {
        self.server.as_ref().map_or(Ok(()), |s| s.save_profile())
    }
}
