// The conformance tests run on the browser's GPU from their page, and their report can be downloaded. Whether everything passes is
// for the whole suite to say; here a few tests show that the page runs them, judges them and goes on after a worker that hangs.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { launch, VIEW } from './lib/chromium.mjs';
import { ROOT, session } from './lib/paths.mjs';
import { serve } from './lib/site.mjs';

const VERDICTS = ['pass', 'fail', 'skip', 'info', 'crash', 'timeout', 'expected-fail', 'unexpected-pass'];
const LONG = 150_000;

let site;
let browser;
before(async () => {
  site = await serve();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await site?.close();
});

/** Opens the page and waits until its status is as wanted. */
async function open(query, state = 'done', prepare = () => {}) {
  const context = await browser.newContext({ ...VIEW, viewport: { width: 1000, height: 900 }, acceptDownloads: true });
  await prepare(context);
  const page = await context.newPage();
  const problems = [];
  page.on('pageerror', (e) => problems.push(e.message));
  await page.goto(`${site.url}conformance.html${query}`);
  await page.waitForFunction((s) => ['error', s].includes(document.getElementById('conformance-status').dataset.state), state, { timeout: LONG });
  const status = await page.$eval('#conformance-status', (e) => ({ ...e.dataset, text: e.textContent }));
  assert.equal(status.state, state, status.text);
  return { context, page, status, problems };
}

const report = (page) => page.$eval('#conformance-report', (e) => JSON.parse(e.textContent));

test('tests run in the page and their report can be downloaded', { timeout: LONG + 20_000 }, async (t) => {
  const { context, page, status, problems } = await open('?quick&only=integer/&only=scalar/exp');
  const found = await report(page);
  const listed = found.tests.map((x) => `${x.id}: ${x.verdict}${x.words ? ` (${x.words})` : ''}`);
  t.diagnostic(`${status.text} ${listed.join('; ')}`);
  assert.deepEqual(problems, []);
  assert.ok(found.tests.length >= 3 && found.complete, status.text);
  assert.equal(found.tests.length, Number(status.total));
  for (const x of found.tests) {
    assert.match(x.id, /^integer\/|^scalar\/exp/);
    assert.ok(VERDICTS.includes(x.verdict), x.id);
    assert.ok(!['crash', 'timeout'].includes(x.verdict), `${x.id}: ${x.words}`);
  }
  assert.ok(found.tests.some((x) => x.verdict === 'pass'));
  assert.equal(found.settings.quick, true);
  assert.equal(found.identity.backend, 'BrowserWebGpu');
  assert.match(found.identity.versions.browser, /Chrom/);
  const schema = JSON.parse(readFileSync(join(ROOT, 'conformance/schema.json')));
  for (const name of schema.required) assert.ok(name in found, name);
  for (const name of schema.$defs.identity.required) assert.ok(name in found.identity, name);

  // What is downloaded is what the page holds, and the page shows it.
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#conformance-downloads a')]);
  assert.match(download.suggestedFilename(), /^browserwebgpu-.*\.json$/);
  assert.deepEqual(JSON.parse(readFileSync(await download.path())), found);
  assert.equal(await page.locator('#conformance-tests tbody tr').count(), found.tests.length);
  assert.equal(await page.locator('#conformance-downloads a').count(), 3);
  await page.screenshot({ path: session('conformance.png'), fullPage: true });
  await context.close();
});

test('a worker that crashes and one that takes too long are results, and the run goes on', { timeout: LONG }, async () => {
  const query = '?quick&only=integer/';
  // The first worker stops in its first test, as one does whose device takes the program along; the second is the real one.
  const id = 'integer/dot4I8Packed';
  const crash = (context) => context.route('**/worker.js', (route) => route.fulfill({ contentType: 'text/javascript', body: fake(id) }), { times: 1 });
  const { context, page } = await open(query, 'done', crash);
  const found = await report(page);
  const verdicts = new Map(found.tests.map((x) => [x.id, x.verdict]));
  assert.equal(verdicts.get(id), 'crash', JSON.stringify([...verdicts]));
  assert.match(found.tests.find((x) => x.id === id).words, /planted/);
  assert.ok(found.complete && found.tests.length > 3 && found.tests.every((x) => x.id === id || x.verdict === 'pass'));
  await context.close();

  // So short a time that the device cannot be opened.
  const short = await open(`${query}&timeout=0.001`);
  const late = await report(short.page);
  assert.ok(late.tests.length >= 1 && late.tests.every((x) => x.verdict === 'timeout'), JSON.stringify(late.tests));
  assert.match(late.tests[0].words, /took more than/);
  await short.context.close();
});

/** A worker that begins a test and stops. */
function fake(id) {
  const identity = { name: 'X', versions: {}, features: [], limits: {}, subgroup_sizes: null, subgroup_sizes_seen: [] };
  const lines = [{ line: 'open', identity, list: [id] }, { line: 'begin', id }].map((line) => JSON.stringify(line));
  return `postMessage({ asks: true });
    onmessage = () => {
      for (const line of ${JSON.stringify(lines)}) postMessage({ line });
      setTimeout(() => { throw new Error('planted'); }, 20);
    };`;
}

test('nothing starts by itself without being asked for', { timeout: LONG }, async () => {
  const { context, page } = await open('', 'idle');
  assert.equal(await page.locator('#conformance-tests').isVisible(), false);
  await context.close();
});
