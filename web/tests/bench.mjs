// Measures the app in Chromium on SwiftShader beside the native program on the same driver, in turns.
//
//     node web/tests/bench.mjs [--runs 5] [--large] [--out target/web-bench]
//
// Writes OUT.json and OUT.md. `--large` also opens a synthesised file of some 2 GiB from disk; with `--runs 0` nothing else is measured.

import { execFileSync } from 'node:child_process';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { App } from './lib/app.mjs';
import { VIEW, executable, launch } from './lib/chromium.mjs';
import { native, run, there } from './lib/native.mjs';
import { TARGET } from './lib/paths.mjs';
import { LONG } from './lib/questions.mjs';
import { serve } from './lib/site.mjs';

const { values: options } = parseArgs({
  options: { runs: { type: 'string', default: '5' }, large: { type: 'boolean', default: false }, out: { type: 'string', default: join(TARGET, 'web-bench') } },
});
const RUNS = Number(options.runs);
const MIB = 2 ** 20;
/// DeepSeek-V2-Lite's first layers, as many as 2 GiB hold.
const LARGE = ['--shape', 'deepseek-v2-lite', '--quant', 'Q4_K_M', '--layers', '6'];

const median = (list) => {
  const sorted = [...list].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
};
const say = (text) => process.stderr.write(`${text}\n`);

if (!there) throw new Error('there is no native program to compare with: cargo build --release');
const site = await serve();
const browser = await launch();
const result = {
  date: new Date().toISOString().slice(0, 10),
  browser: execFileSync(executable(), ['--version'], { stdio: ['ignore', 'pipe', 'ignore'] }).toString().trim(),
  processor: `${cpus()[0].model}, ${cpus().length} threads`,
  runs: RUNS,
};
try {
  if (RUNS > 0) await speed();
  if (options.large) result.large = await large();
} finally {
  await browser.close();
  await site.close();
}

/// Answers in the page and natively, in turns.
async function speed() {
  const app = await App.open(await browser.newContext(VIEW), `${site.url}?device=wgpu:0&temp=0`);
  result.loadSeconds = app.loadSeconds;
  const first = await app.ask(LONG);
  result.firstAnswer = { prefillSeconds: first.prefillSeconds, tokensPerSecond: first.tokens / first.decodeSeconds };
  result.decode = { tokens: first.tokens, page: [], native: [] };
  for (let i = 0; i < RUNS; i++) {
    const count = (await app.articles()).length;
    await app.command('Regenerate answer');
    const answer = await app.answerAfter(count, 120_000);
    result.decode.page.push(answer.tokens / answer.decodeSeconds);
    // Warmed up, as the page is.
    const bench = await native('bench', '--device', 'wgpu:0', '-p', '0', '-n', String(answer.tokens), '-r', '1', '--draft', '0', '-o', 'json');
    result.decode.native.push(bench.tests[0].tokens_per_second.mean);
    say(`run ${i + 1}: page ${result.decode.page.at(-1).toFixed(2)}, native ${result.decode.native.at(-1).toFixed(2)} tokens a second`);
  }
  // Another conversation: nothing of the prompt is in the cache, and the kernels are there.
  await app.newChat();
  result.warmPrefillSeconds = (await app.ask(LONG)).prefillSeconds;
  const { memoryPage, memoryWorker, device } = await app.status();
  Object.assign(result, { device, memoryPage, memoryWorker });
  app.clean();
  await app.close();
}

/// Opens a large file from disk and answers with it.
async function large() {
  const path = join(TARGET, 'web-large.gguf');
  if (!existsSync(path)) {
    say(`writing ${path}`);
    await run('synth', ...LARGE, path);
  }
  const app = await App.open(await browser.newContext(VIEW), `${site.url}?device=wgpu:0&ctx=512&tokens=16`);
  await app.openFile(path);
  await app.pressLoad();
  const began = performance.now();
  let peak = 0;
  await app.waitStatus('loading', 60_000);
  for (;;) {
    const { state, memoryPage, memoryWorker, text } = await app.status();
    peak = Math.max(peak, memoryPage + memoryWorker);
    if (state === 'error') throw new Error(text);
    if (state === 'ready') break;
    if (performance.now() - began > 600_000) throw new Error(`not loaded after 10 minutes: ${text}`);
    await new Promise((r) => setTimeout(r, 100));
  }
  const loadSeconds = (performance.now() - began) / 1000;
  say(`loaded after ${loadSeconds.toFixed(1)} s`);
  await app.newChat();
  const count = (await app.articles()).length;
  await app.send('Hello');
  const answer = await app.answerAfter(count, 300_000);
  const { memoryPage, memoryWorker, device } = await app.status();
  result.device = device;
  await app.picture('large');
  app.clean();
  await app.close();
  return { bytes: statSync(path).size, loadSeconds, memoryPage, memoryWorker, peakMemory: Math.max(peak, memoryPage + memoryWorker), firstTokenSeconds: answer.prefillSeconds, tokens: answer.tokens, stop: answer.stop };
}

const mib = (bytes) => `${(bytes / MIB).toFixed(1)} MiB`;
const rows = [];
if (result.decode) {
  result.decode.ratio = median(result.decode.page) / median(result.decode.native);
  rows.push(
    ['decoding in the page', `${median(result.decode.page).toFixed(2)} tokens a second`],
    ['decoding in the native program', `${median(result.decode.native).toFixed(2)} tokens a second`],
    ['ratio', result.decode.ratio.toFixed(2)],
    ['from navigation to a model that is ready', `${result.loadSeconds.toFixed(1)} s`],
    ['first token, kernels compiled for it', `${result.firstAnswer.prefillSeconds.toFixed(2)} s`],
    ['first token, kernels compiled before', `${result.warmPrefillSeconds.toFixed(2)} s`],
    ['wasm memory of the page', mib(result.memoryPage)],
    ['wasm memory of the worker', mib(result.memoryWorker)],
  );
}
if (result.large) {
  rows.push(
    [`a file of ${(result.large.bytes / 2 ** 30).toFixed(2)} GiB opened from disk`, `${result.large.loadSeconds.toFixed(1)} s`],
    ['first token of it', `${result.large.firstTokenSeconds.toFixed(1)} s`],
    ['most wasm memory of page and worker meanwhile', mib(result.large.peakMemory)],
  );
}
const table = [
  `${result.browser}, ${result.device}; ${result.processor}; ${result.date}.${result.decode ? ` Medians of ${RUNS} runs in turns, ${result.decode.tokens} greedy tokens of the embedded model.` : ''}`,
  '',
  '| | |',
  '|---|---:|',
  ...rows.map(([what, value]) => `| ${what} | ${value} |`),
];
writeFileSync(`${options.out}.json`, `${JSON.stringify(result, null, 2)}\n`);
writeFileSync(`${options.out}.md`, `${table.join('\n')}\n`);
process.stdout.write(`${table.join('\n')}\n`);
if (result.large && result.large.peakMemory >= 128 * MIB) throw new Error('more than 128 MiB of wasm memory');
