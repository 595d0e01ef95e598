// What differs between people's machines, and goes wrong on them: too little memory, drafts, no WebGPU, a device that is lost.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { App } from './lib/app.mjs';
import { VIEW, crashGpu, launch } from './lib/chromium.mjs';
import { colours } from './lib/png.mjs';
import { LONG, greedy } from './lib/questions.mjs';
import { serve } from './lib/site.mjs';

const MLA = greedy('What is MLA?');
const FRANCE = greedy('What is the capital of France?');

let site;

before(async () => {
  site = await serve();
});

after(async () => {
  await site?.close();
});

test('on a GPU', { timeout: 600_000 }, async (t) => {
  const browser = await launch();
  const context = await browser.newContext(VIEW);
  let app = null;
  try {
    await t.test('a budget below the model\'s size changes nothing but the speed', async (t) => {
      app = await App.open(context, `${site.url}?device=wgpu:0&temp=0&budget=33MB`);
      const answer = await app.ask(MLA.question);
      t.diagnostic(`hit rate ${answer.hitRate}, ${answer.tokensPerSecond?.toFixed(1)} tokens a second`);
      assert.equal(answer.text, MLA.text);
      assert.ok(answer.hitRate > 0.2 && answer.hitRate < 1, `hit rate ${answer.hitRate}`);
      await app.picture('budget');
      app.clean();
    });
    await t.test('drafts change nothing but the number of steps', async (t) => {
      await app.goto(`${site.url}?device=wgpu:0&temp=0&draft=1`);
      const answer = await app.ask(MLA.question);
      t.diagnostic(`${answer.acceptedTokens} of ${answer.draftedTokens} drafts were right, ${answer.tokens} tokens`);
      assert.equal(answer.text, MLA.text);
      assert.ok(answer.draftedTokens > 0 && answer.acceptedTokens > answer.draftedTokens / 2, JSON.stringify(answer.data));
      app.clean();
    });
    await t.test('a budget that is too small is refused in words', async () => {
      await app.goto(`${site.url}?device=wgpu:0&budget=1MB`, { state: ['error', 'ready'] });
      const status = await app.status();
      assert.equal(status.state, 'error');
      assert.match(status.text, /budget|memory|MiB/i);
      app.clean(/^error|^warning/);
    });
    await t.test('a lost device is told, and the next answer is right', async () => {
      // An address that says how answers are made begins a conversation each time.
      await app.goto(`${site.url}?device=wgpu:0`);
      const count = (await app.articles()).length;
      await app.send(LONG);
      await app.waitStatus('answering', 5_000);
      await new Promise((r) => setTimeout(r, 1500));
      await app.page.evaluate(() => (globalThis.beforeTheLoss = true));
      await crashGpu(browser);
      // The answer goes on, or ends and says so. A canvas gets no second GPU: then the page is opened anew.
      const anew = () => !globalThis.beforeTheLoss && document.querySelector('#pleiad-status')?.dataset.state === 'ready';
      // What is asked while it goes is not answered.
      for (const end = Date.now() + 300_000; !(await app.page.evaluate(anew).catch(() => false)); await new Promise((r) => setTimeout(r, 200))) {
        assert.ok(Date.now() < end, `the page is opened anew: ${app.problems.join('; ')}`);
      }
      const all = await app.articles();
      t.diagnostic(`the answer: ${JSON.stringify(all.at(-1))}`);
      assert.ok(all.length > count, 'the answer was kept');
      await app.frames(5);
      await app.picture('lost');
      assert.ok(colours(await app.pixels()) > 20, 'the app is drawn again');
      const next = await app.ask('Who are you?');
      assert.equal(next.stop, 'end');
      assert.ok(next.text.length > 0);
    });
  } finally {
    await browser.close();
  }
});

test('without WebGPU', { timeout: 600_000 }, async (t) => {
  const browser = await launch({ webgpu: false });
  const context = await browser.newContext(VIEW);
  let app = null;
  try {
    await t.test('a notice names browsers that have it', async () => {
      app = await App.open(context, `${site.url}?temp=0`, { state: null });
      const notice = app.page.locator('#pleiad-notice');
      await notice.waitFor({ state: 'visible', timeout: 30_000 });
      const words = await notice.textContent();
      for (const name of [/Chrome/, /Safari/, /Firefox/, /WebGPU/]) assert.match(words, name);
      await app.picture('no-webgpu');
    });
    await t.test('the CPU answers as the GPU does', async (t) => {
      await app.page.getByRole('button', { name: /Use the CPU/ }).click();
      await app.waitStatus('ready');
      assert.match((await app.status()).device, /cpu|wasm|processor/i);
      for (const wanted of [FRANCE]) {
        const answer = await app.ask(wanted.question);
        t.diagnostic(`${answer.tokensPerSecond?.toFixed(1)} tokens a second on the CPU`);
        assert.equal(answer.text, wanted.text);
      }
      await app.frames(5);
      await app.picture('cpu');
      app.clean();
    });
  } finally {
    await browser.close();
  }
});
