//! Times of launches: events between them in one graph, so that what the host needs to start kernels is not measured.

use std::ptr::null_mut;

use cudarc::driver::sys;

use super::{Nvidia, check};
use crate::{cuda::driver::Launch, error::Result};

/// An event that is recorded each time the graph reaches it.
const EXTERNAL: u32 = 1;

/// Events of one measurement.
struct Events(Vec<sys::CUevent>);

impl Events {
    fn new(count: usize) -> Result<Self> {
        let mut all = Self(Vec::with_capacity(count));
        for _ in 0..count {
            let mut event = null_mut();
            // SAFETY: the context is current; the handle is written before it is used. Flag 0: with timing.
            check(unsafe { sys::cuEventCreate(&raw mut event, 0) }, "making an event")?;
            all.0.push(event);
        }
        Ok(all)
    }

    /// Seconds from each event to the next.
    fn spans(&self) -> Result<Vec<f64>> {
        let span = |pair: &[sys::CUevent]| {
            let mut milliseconds = 0.0f32;
            // SAFETY: both events were recorded, and the stream is at rest; one number is written.
            check(unsafe { sys::cuEventElapsedTime_v2(&raw mut milliseconds, pair[0], pair[1]) }, "reading a clock")?;
            Ok(f64::from(milliseconds) / 1e3)
        };
        self.0.windows(2).map(span).collect()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        for &event in &self.0 {
            // SAFETY: it was made here, and nothing uses it any more.
            let _ = unsafe { sys::cuEventDestroy_v2(event) };
        }
    }
}

/// A graph that is given back.
struct Graph(sys::CUgraphExec);

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: it was made here, and the stream is at rest.
        let _ = unsafe { sys::cuGraphExecDestroy(self.0) };
    }
}

/// Launches with an event before each group, and one behind the last.
fn record(device: &Nvidia, groups: &[&[Launch]], events: &Events) -> Result<Graph> {
    let stream = device.first()?.stream;
    let (mut graph, mut exec) = (null_mut(), null_mut());
    // SAFETY: events and stream are this device's.
    let event =
        |&event: &sys::CUevent| unsafe { check(sys::cuEventRecordWithFlags(event, stream, EXTERNAL), "recording an event") };
    // SAFETY: the stream is this device's; nothing but launches and events happens between begin and end.
    unsafe {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        check(sys::cuStreamBeginCapture_v2(stream, mode), "capturing a measurement")?;
        let mut all = groups.iter().copied().chain([&[][..]]).zip(&events.0);
        let started = all.try_for_each(|(group, e)| event(e).and_then(|()| device.tell(group)));
        let ended = check(sys::cuStreamEndCapture(stream, &raw mut graph), "capturing a measurement");
        started.and(ended)?;
        let made = check(sys::cuGraphInstantiateWithFlags(&raw mut exec, graph, 0), "making a graph");
        let _ = sys::cuGraphDestroy(graph);
        made?;
    }
    Ok(Graph(exec))
}

/// [`crate::cuda::Driver::time`].
pub(super) fn time(device: &Nvidia, groups: &[&[Launch]], repetitions: usize) -> Result<Vec<f64>> {
    let stream = device.first()?.stream;
    let events = Events::new(groups.len() + 1)?;
    let graph = record(device, groups, &events)?;
    let mut runs = Vec::with_capacity(repetitions);
    for run in 0..=repetitions.max(1) {
        // SAFETY: the graph was made here; what it points to is the caller's, who waits.
        unsafe {
            check(sys::cuGraphLaunch(graph.0, stream), "starting a measurement")?;
            check(sys::cuStreamSynchronize(stream), "a measurement")?;
        }
        // The first one warms up.
        if run > 0 {
            runs.push(events.spans()?);
        }
    }
    Ok(crate::cuda::profile::medians(&runs))
}
