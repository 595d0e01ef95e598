// Every variant of every kernel passes the browser's own compiler, and one of each makes a pipeline with the bindings that the
// runtime gives it. `cargo run --release -p pleiad-shaders --example browser_shaders` writes them out.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { launch } from './lib/chromium.mjs';
import { TARGET } from './lib/paths.mjs';
import { serve } from './lib/site.mjs';

const path = process.env.PLEIAD_SHADERS ?? join(TARGET, 'browser-shaders.json');
const skip = !existsSync(path) && 'the kernels are not written out: cargo run --release -p pleiad-shaders --example browser_shaders';

test('every kernel compiles in the browser', { skip, timeout: 170_000 }, async (t) => {
  const variants = JSON.parse(readFileSync(path));
  assert.ok(variants.length > 50, `${variants.length} variants`);
  // WebGPU wants a page that came from somewhere.
  const folder = mkdtempSync(join(tmpdir(), 'pleiad-empty-'));
  writeFileSync(join(folder, 'index.html'), '<!doctype html><title>Kernels</title>');
  const site = await serve({ dist: folder });
  const browser = await launch();
  try {
    const page = await browser.newPage();
    await page.goto(site.url);
    const known = await page.evaluate(open);
    const missing = (v) => [...v.features.filter((f) => !known.features.includes(f)), ...v.language.filter((l) => !known.language.includes(l))];
    const wanted = variants.filter((v) => missing(v).length === 0);
    const left = variants.filter((v) => missing(v).length > 0);
    const said = [];
    for (let i = 0; i < wanted.length; i += 64) said.push(...(await page.evaluate(check, wanted.slice(i, i + 64))));
    // Machine code takes SwiftShader seconds for some; the shortest variant of each kernel shows that bindings are what they are
    // said to be.
    const kernels = group(wanted, (v) => v.name.split(' ')[0]);
    for (const of of kernels.values()) {
      const shortest = of.reduce((a, b) => (b.source.length < a.source.length ? b : a));
      said.push(...(await page.evaluate(build, shortest)));
    }
    t.diagnostic(`${wanted.length} variants of ${kernels.size} kernels compiled; ${left.length} need ${[...new Set(left.flatMap(missing))]}, which this browser lacks`);
    assert.deepEqual(said, []);
    assert.ok(wanted.some((v) => v.features.length === 0));
  } finally {
    await browser.close();
    await site.close();
  }
});

function group(list, key) {
  const groups = new Map();
  for (const item of list) groups.set(key(item), [...(groups.get(key(item)) ?? []), item]);
  return groups;
}

// Functions below run in the page.

async function open() {
  const adapter = await navigator.gpu.requestAdapter();
  const features = [...adapter.features].filter((f) => ['subgroups', 'shader-f16'].includes(f));
  // With the limits that every adapter has, and no more.
  globalThis.device = await adapter.requestDevice({ requiredFeatures: features });
  return { features, language: [...navigator.gpu.wgslLanguageFeatures] };
}

async function check(variants) {
  const said = [];
  for (const { name, source } of variants) {
    globalThis.device.pushErrorScope('validation');
    const { messages } = await globalThis.device.createShaderModule({ code: source }).getCompilationInfo();
    said.push(...messages.map((m) => `${name}, line ${m.lineNum}: ${m.type}: ${m.message}`));
    const error = await globalThis.device.popErrorScope();
    if (error && messages.length === 0) said.push(`${name}: ${error.message}`);
  }
  return said;
}

async function build({ name, entry, source, bindings }) {
  const { device } = globalThis;
  const entries = bindings.map((b) => ({ binding: b.binding, visibility: GPUShaderStage.COMPUTE, buffer: { type: b.type, minBindingSize: b.size } }));
  device.pushErrorScope('validation');
  const layout = device.createPipelineLayout({ bindGroupLayouts: [device.createBindGroupLayout({ entries })] });
  const compute = { module: device.createShaderModule({ code: source }), entryPoint: entry };
  const failed = await device.createComputePipelineAsync({ layout, compute }).then(() => null, (e) => e);
  const error = await device.popErrorScope();
  return failed || error ? [`${name}: ${(error ?? failed).message}`] : [];
}
