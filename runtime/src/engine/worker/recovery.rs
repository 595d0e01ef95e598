//! What becomes of the answers when a step fails: after the loss of a device or a refusal of memory they go on.

use std::{sync::Arc, time::Duration};

use web_time::Instant;

use super::{
    super::{
        load::{choose_device, cpu_may, in_flight, on_cuda},
        request::Event,
    },
    Job, Worker,
};
use crate::{DeviceChoice, Error, Result, executor::Executor, gpu::GpuDevice};

/// How often a device is opened again in so much time, before it is given up.
const REOPENINGS: usize = 3;
const REOPENINGS_IN: Duration = Duration::from_secs(60);

/// Share of the memory in use that is tried after an allocation was refused.
const SHRINK: f64 = 0.85;

impl Worker {
    /// Reports an error. What a failed step left in the cache is unknown: the session starts afresh.
    pub(super) async fn fail(&mut self, job: Job, error: Error) {
        if let Some(held) = self.sessions.get_mut(&job.request.session) {
            held.truncate(0, &mut self.pool);
        }
        self.on_device = None;
        let moved = match error {
            Error::DeviceLost(_) => self.recover().await,
            Error::OutOfMemory { .. } => match self.shrink().await {
                Some(moved) => moved,
                None => return job.send(Event::Failed(error)),
            },
            _ => return job.send(Event::Failed(error)),
        };
        let moved = match moved {
            Ok(moved) => moved,
            Err(error) => {
                self.broken = Some(error.clone());
                for job in self.jobs.drain(..).chain([job]) {
                    job.send(Event::Failed(error.clone()));
                }
                return;
            }
        };
        let notice = format!("{error}; {moved}");
        self.jobs.push_front(job);
        for job in &mut self.jobs {
            job.restart();
            job.send(Event::Notice(notice.clone()));
        }
    }

    /// Opens the device again after it was lost, and loads the model on it; on the CPU, if that fails or has not helped for long.
    /// The latent cache is lost with the device. Returns what comes of it, for people.
    async fn recover(&mut self) -> Result<String> {
        while self.reopened.front().is_some_and(|at| at.elapsed() > REOPENINGS_IN) {
            self.reopened.pop_front();
        }
        self.release().await?;
        let mut why = String::new();
        if self.reopened.len() < REOPENINGS {
            self.reopened.push_back(Instant::now());
            match self.reopen().await {
                Ok(true) => return Ok("it was opened again".into()),
                Ok(false) => {}
                Err(e) => why = format!(" ({e})"),
            }
        }
        self.move_to_cpu().await?;
        Ok(format!("going on with the CPU{why}"))
    }

    /// Frees what the device holds: both old and new at a time would need what there is not, and weights come from the file again.
    async fn release(&mut self) -> Result<()> {
        match &self.executor {
            // Nothing is freed by being dropped there, and the CPU might not hold the model.
            Executor::Gpu(gpu) if cfg!(target_arch = "wasm32") => gpu.device().destroy(),
            Executor::Gpu(_) | Executor::Cuda(_) => self.move_to_cpu().await?,
            Executor::Cpu(_) => {}
        }
        Ok(())
    }

    /// Opens the device that was asked for once more, and loads the model on it. `false`: there is none any more.
    async fn reopen(&mut self) -> Result<bool> {
        self.executor = if let DeviceChoice::Cuda(devices) = self.device {
            Executor::Cuda(Box::new(on_cuda(devices, &self.model, &self.load, &mut |_, _| {}).await?))
        } else {
            let Some(device) = choose_device(self.device).await? else { return Ok(false) };
            Executor::load(Some(device), Arc::clone(&self.model), &self.load, &mut |_, _| {}).await?
        };
        self.forget();
        Ok(true)
    }

    /// Loads the model on the CPU, if it is not there.
    async fn move_to_cpu(&mut self) -> Result<()> {
        if !matches!(self.executor, Executor::Cpu(_)) {
            cpu_may(&self.model, &self.load, cfg!(target_arch = "wasm32"))?;
            self.executor = Executor::load(None, Arc::clone(&self.model), &self.load, &mut |_, _| {}).await?;
        }
        self.forget();
        Ok(())
    }

    /// Loads the model anew with a smaller memory budget, after an allocation was refused. `None`: it cannot be smaller.
    async fn shrink(&mut self) -> Option<Result<String>> {
        let report = self.executor.experts()?;
        // Of CUDA's nothing is left once the model is gone.
        let device = match &self.executor {
            Executor::Gpu(gpu) if !cfg!(target_arch = "wasm32") => Some(Arc::clone(gpu.device())),
            _ => None,
        };
        let budget = (report.device_bytes.min(report.budget.unwrap_or(u64::MAX)) as f64 * SHRINK) as u64;
        self.load.experts.budget = Some(budget);
        if let Err(e) = self.release().await {
            return Some(Err(e));
        }
        let loaded = match device {
            Some(device) => self.load_on(device).await,
            None => self.reopen().await,
        };
        let why = match loaded {
            Ok(true) => return Some(Ok(format!("going on with a memory budget of {} MiB", budget >> 20))),
            Ok(false) => String::new(),
            Err(e) => format!(" ({e})"),
        };
        Some(self.move_to_cpu().await.map(|()| format!("going on with the CPU{why}")))
    }

    /// Loads the model on a device whose memory was freed. `false`: it does not work any more.
    async fn load_on(&mut self, device: Arc<GpuDevice>) -> Result<bool> {
        if device.idle().await.is_err() {
            return Ok(false);
        }
        self.executor = Executor::load(Some(device), Arc::clone(&self.model), &self.load, &mut |_, _| {}).await?;
        self.forget();
        Ok(true)
    }

    /// Plans and caches are those of another executor now.
    fn forget(&mut self) {
        self.plans.forget();
        self.in_flight = in_flight(&self.executor, self.asked_in_flight);
        for held in self.sessions.values_mut() {
            held.truncate(0, &mut self.pool);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use pleiad_models::Checkpoint;

    use super::*;
    use crate::{
        DeviceChoice, Engine, EngineOptions,
        engine::load_with,
        gpu::{self, DeviceOptions},
    };

    /// Needs a GPU, be it a software one.
    #[test]
    fn a_device_that_is_lost_again_and_again_is_given_up() {
        let Some(device) = pollster::block_on(gpu::enumerate()).into_iter().find_map(|adapter| {
            pollster::block_on(adapter.open(DeviceOptions::default())).ok().map(|_| adapter.description.index)
        }) else {
            return;
        };
        let options = EngineOptions {
            device: DeviceChoice::Wgpu(Some(device)),
            context: Some(256),
            chunk: 16,
            in_flight: None,
            ..EngineOptions::default()
        };
        let loaded = pollster::block_on(load_with(&Checkpoint::tiny().unwrap(), options, &mut |_, _, _| {})).unwrap();
        let (_engine, mut worker) = Engine::with_worker(loaded);
        for _ in 0..REOPENINGS {
            let Executor::Gpu(gpu) = &worker.executor else { panic!("on the CPU already") };
            gpu.device().destroy();
            assert_eq!(pollster::block_on(worker.recover()).unwrap(), "it was opened again");
        }
        assert_eq!(pollster::block_on(worker.recover()).unwrap(), "going on with the CPU");
        assert!(matches!(worker.executor, Executor::Cpu(_)));
        // No token is computed ahead there.
        assert_eq!(worker.in_flight, 1);
        // Losses of long ago do not count.
        for at in &mut worker.reopened {
            if let Some(before) = at.checked_sub(2 * REOPENINGS_IN) {
                *at = before;
            }
        }
        assert_eq!(pollster::block_on(worker.recover()).unwrap(), "it was opened again");
        assert!(matches!(worker.executor, Executor::Gpu(_)) && worker.reopened.len() == 1);
    }
}
