//! What the operations run on: the CUDA backend on an emulated device, and on a real one where the feature `cuda` finds one.

use std::sync::{Arc, OnceLock};

use pleiad_conformance::setup::{Outputs, Setup, bits};
use pleiad_runtime::{
    Result,
    cuda::{self, Driver},
    executor::{PlanId, Readback},
    step::StepState,
};

pub use pleiad_runtime::cuda::CudaExecutor as DeviceExecutor;

use crate::emulator::{Emulator, compiler};

pub type Device = dyn Driver;

/// Rows of weights begin at multiples of so many bytes.
pub const ROW_ALIGN: usize = 16;

/// Whether kernels can read host memory.
pub fn reads_host(_device: &Arc<Device>) -> bool {
    true
}

/// A device that tests use.
#[derive(Clone)]
pub struct Place {
    pub name: String,
    pub device: Arc<Device>,
}

/// Which devices the tests use: a number, or `off`. Where it names a device, that one alone, and the tests fail without it.
const CHOICE: &str = "PLEIAD_CUDA_DEVICE";

fn open(index: usize) -> Result<Place> {
    let device = cuda::open(Some(index))?;
    Ok(Place { name: device.info().name.clone(), device })
}

/// The emulated device, and the first real one, unless the environment names another. Says so by name if there is none.
pub fn places(test: &str) -> Vec<Place> {
    static REAL: OnceLock<Option<Place>> = OnceLock::new();
    let choice = std::env::var(CHOICE).ok();
    let index = choice.as_ref().and_then(|c| c.parse().ok());
    let wanted = |i| open(i).unwrap_or_else(|e| panic!("{CHOICE} is {i}: {e}"));
    let find = || index.map_or_else(|| open(0).ok().filter(|_| choice.is_none()), |i| Some(wanted(i)));
    let mut all: Vec<Place> = REAL.get_or_init(find).iter().cloned().collect();
    if index.is_some() {
        return all;
    }
    match compiler() {
        Some(compiler) => all.push(Place { name: "emulated CUDA".into(), device: Arc::new(Emulator::new(compiler)) }),
        None => println!("SKIPPED {test} on an emulated device: no C++ compiler (g++ or clang++, on Linux)"),
    }
    all
}

/// [`places`]: there is one way to open them.
pub fn all_places(test: &str) -> Vec<Place> {
    places(test)
}

/// The model of a setup on a device, ready for its step.
pub async fn prepare(setup: &Setup, device: &Arc<Device>) -> Result<(DeviceExecutor, PlanId)> {
    let mut e = DeviceExecutor::load(Arc::clone(device), setup.model(), &setup.options(), &mut |_, _| {}).await?;
    if let Some((plan, kv, rows)) = setup.history_plan() {
        let id = e.compile(&plan)?;
        e.write_step(&StepState { tokens: rows as u32, ..StepState::default() }, &setup.pages());
        e.write_act(id, kv, &bits(&setup.history))?;
        let ticket = e.submit(id, rows, Readback::default())?;
        e.wait(ticket).await?;
    }
    let plan = e.compile(&setup.plan)?;
    e.write_step(&setup.step, &setup.pages());
    e.write_ids(&setup.ids);
    for (a, data) in &setup.inputs {
        e.write_act(plan, *a, &bits(data))?;
    }
    for (a, data) in &setup.id_inputs {
        e.write_act(plan, *a, data)?;
    }
    Ok((e, plan))
}

/// The outputs of a setup, by a device.
pub async fn actual(setup: &Setup, device: &Arc<Device>) -> Result<Outputs> {
    let (mut e, plan) = prepare(setup, device).await?;
    let ticket = e.submit(plan, setup.tokens, Readback { token: true, counters: true })?;
    let out = e.wait(ticket).await?;
    let mut all = Vec::with_capacity(setup.outputs.len());
    for &a in &setup.outputs {
        all.push(e.read_act(plan, a, setup.rows(a)).await?);
    }
    Ok((all, out))
}
