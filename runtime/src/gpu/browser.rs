//! What wgpu does not tell of a browser's GPU.
//!
//! Subgroups: wgpu does not know the feature on the web, so it never asks for it. A page or worker may do so in its place, before
//! it starts this program:
//!
//! ```js
//! const { requestDevice } = GPUAdapter.prototype;
//! GPUAdapter.prototype.requestDevice = function (descriptor = {}) {
//!     const requiredFeatures = new Set(descriptor.requiredFeatures);
//!     if (this.features.has("subgroups")) requiredFeatures.add("subgroups");
//!     return requestDevice.call(this, { ...descriptor, requiredFeatures: [...requiredFeatures] });
//! };
//! ```
//!
//! Whether it was done is read off the device, so that nothing goes wrong without it.

use js_sys::{Function, Object, Promise, Reflect, global};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use super::adapters::Seen;

/// The WGSL of kernels that use subgroups needs this extension for `subgroup_id` and `num_subgroups`.
const SUBGROUP_ID: &str = "subgroup_id";

/// What the browser tells of the adapter that it offers.
pub(super) async fn look(preference: wgpu::PowerPreference) -> Option<Seen> {
    let options = Object::new();
    if preference == wgpu::PowerPreference::HighPerformance {
        Reflect::set(&options, &"powerPreference".into(), &"high-performance".into()).ok()?;
    }
    let gpu = gpu()?;
    let request: Function = get(&gpu, "requestAdapter")?.dyn_into().ok()?;
    let promise: Promise = request.call1(&gpu, &options).ok()?.dyn_into().ok()?;
    let adapter = JsFuture::from(promise).await.ok().filter(JsValue::is_object)?;
    let info = get(&adapter, "info")?;
    let text = |name| get(&info, name).and_then(|v| v.as_string()).unwrap_or_default();
    // Where it is told depends on the browser's age.
    let fallback = [&info, &adapter].into_iter().any(|o| get(o, "isFallbackAdapter").is_some_and(|v| v.is_truthy()));
    Some(Seen { vendor: text("vendor"), architecture: text("architecture"), description: text("description"), fallback })
}

/// Whether kernels may use subgroup operations on that device.
pub(super) fn has_subgroups(device: &wgpu::Device) -> bool {
    let granted = device.as_webgpu().is_some_and(|d| has(&get(d, "features"), "subgroups"));
    granted && has(&gpu().and_then(|gpu| get(&gpu, "wgslLanguageFeatures")), SUBGROUP_ID)
}

/// `navigator.gpu`, of a page or of a worker.
fn gpu() -> Option<JsValue> {
    get(&global(), "navigator").and_then(|n| get(&n, "gpu"))
}

/// A property that is neither undefined nor null.
fn get(object: &JsValue, name: &str) -> Option<JsValue> {
    Reflect::get(object, &name.into()).ok().filter(|v| !v.is_undefined() && !v.is_null())
}

/// Whether a set has that name.
fn has(set: &Option<JsValue>, name: &str) -> bool {
    let Some(set) = set else { return false };
    let method = get(set, "has").and_then(|f| f.dyn_into::<Function>().ok());
    method.and_then(|f| f.call1(set, &name.into()).ok()).is_some_and(|v| v.is_truthy())
}
