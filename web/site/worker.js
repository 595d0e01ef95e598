// The worker that runs a model: the same program as the page's, started at another place.

// What comes before the program is ready is kept for it.
const early = [];
const keep = (event) => early.push(event.data);
addEventListener('message', keep);

// WebGPU's subgroups are beyond wgpu's reach in browsers: a device gets them here where its adapter has them, and the program
// reads off the device that it has.
const adapters = globalThis.GPUAdapter?.prototype;
if (adapters) {
  const request = adapters.requestDevice;
  adapters.requestDevice = async function (descriptor = {}) {
    if (this.features.has('subgroups')) {
      try {
        const requiredFeatures = [...new Set([...(descriptor.requiredFeatures ?? []), 'subgroups'])];
        return await request.call(this, { ...descriptor, requiredFeatures });
      } catch {
        // Without them, then: what else is wrong is said below.
      }
    }
    return request.call(this, descriptor);
  };
}

try {
  const { default: init, start_worker } = await import('./pleiad_web.js');
  await init({ module_or_path: new URL('pleiad_web_bg.wasm', import.meta.url) });
  removeEventListener('message', keep);
  start_worker();
  for (const data of early) dispatchEvent(new MessageEvent('message', { data }));
} catch (error) {
  console.error(error);
  postMessage({ failed: `The worker could not be started: ${error?.message ?? error}` });
}
