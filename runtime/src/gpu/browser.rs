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
//!
//! Compiling without blocking: wgpu creates pipelines with `createComputePipeline`, for which Chromium's GPU process lets all else
//! wait, the drawing of the page too, for seconds with some drivers. [`compile`] has the same pipeline made by
//! `createComputePipelineAsync` before; the browser knows equal ones, and wgpu's is there at once.

use js_sys::{Array, Function, Object, Promise, Reflect, global};
use pleiad_shaders::{Access, Binding};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use super::adapters::Seen;

/// The WGSL of kernels that use subgroups needs this extension for `subgroup_id` and `num_subgroups`.
const SUBGROUP_ID: &str = "subgroup_id";

/// What the browser tells of the adapter that it offers.
pub(super) async fn look(preference: wgpu::PowerPreference) -> Option<Seen> {
    let options = match preference {
        wgpu::PowerPreference::HighPerformance => object(&[("powerPreference", "high-performance".into())]),
        _ => object(&[]),
    };
    let promise: Promise = call(&gpu()?, "requestAdapter", &options)?.dyn_into().ok()?;
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

/// A pipeline that is being compiled.
pub(crate) struct Compiling(JsFuture);

impl Compiling {
    /// Waits until it is compiled, or refused, which making it by wgpu tells. The browser knows the pipeline while this is kept.
    pub async fn done(self) -> Option<JsValue> {
        self.0.await.ok()
    }
}

/// Starts to compile the pipeline that wgpu will be asked for. `None` where that is not possible: then wgpu does all of it.
pub(super) fn compile(device: &wgpu::Device, label: &str, source: &str, bindings: &[Binding]) -> Option<Compiling> {
    let raw: &JsValue = device.as_webgpu()?.as_ref();
    // Whoever makes the pipeline by wgpu is told of errors.
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let compiling = (|| {
        let module = call(raw, "createShaderModule", &object(&[("label", label.into()), ("code", source.into())]))?;
        let entries = Array::new();
        for b in bindings {
            let access = match b.access {
                Access::Uniform => "uniform",
                Access::Read => "read-only-storage",
                Access::ReadWrite => "storage",
            };
            let buffer = object(&[
                ("type", access.into()),
                ("hasDynamicOffset", (b.access == Access::Uniform).into()),
                ("minBindingSize", b.min_size.into()),
            ]);
            let compute = wgpu::ShaderStages::COMPUTE.bits();
            entries.push(&object(&[("binding", b.index.into()), ("visibility", compute.into()), ("buffer", buffer)]));
        }
        let group = call(raw, "createBindGroupLayout", &object(&[("entries", entries.into())]))?;
        let layout = call(raw, "createPipelineLayout", &object(&[("bindGroupLayouts", Array::of1(&group).into())]))?;
        let stage = object(&[("module", module)]);
        let pipeline = object(&[("label", label.into()), ("layout", layout), ("compute", stage)]);
        let promise: Promise = call(raw, "createComputePipelineAsync", &pipeline)?.dyn_into().ok()?;
        Some(Compiling(JsFuture::from(promise)))
    })();
    drop(scope.pop());
    compiling
}

fn object(fields: &[(&str, JsValue)]) -> JsValue {
    let object = Object::new();
    for (name, value) in fields {
        // Setting a property of a plain object does not fail.
        let _ = Reflect::set(&object, &(*name).into(), value);
    }
    object.into()
}

fn call(object: &JsValue, method: &str, argument: &JsValue) -> Option<JsValue> {
    get(object, method)?.dyn_into::<Function>().ok()?.call1(object, argument).ok()
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
    set.as_ref().and_then(|set| call(set, "has", &name.into())).is_some_and(|v| v.is_truthy())
}
