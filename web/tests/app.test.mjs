// The app with the embedded model: it loads, talks as the native program does, and does what people ask of it.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { App } from './lib/app.mjs';
import { LARGE, SMALL, VIEW, hide, launch } from './lib/chromium.mjs';
import { native, there } from './lib/native.mjs';
import { difference } from './lib/png.mjs';
import { LONG, conversation, greedy, sampled } from './lib/questions.mjs';
import { serve } from './lib/site.mjs';

const MIB = 2 ** 20;
/// Where the experts are, beside the conversation: every cell of the grid, without its legend.
const GRID = { x: 830, y: 100, width: 430, height: 115 };

let [site, browser, context, app] = [];

before(async () => {
  site = await serve();
  browser = await launch();
  context = await browser.newContext(VIEW);
});

after(async () => {
  await browser?.close();
  await site?.close();
});

test('it loads, says what it is at, and complains about nothing', { timeout: 300_000 }, async (t) => {
  app = await App.open(context, `${site.url}?device=wgpu:0&temp=${sampled.temp}&seed=${sampled.seed}`, { state: null });
  const seen = new Set();
  const status = await app.until(
    'a model that is ready',
    () => ({ ...document.querySelector('#pleiad-status').dataset, text: document.querySelector('#pleiad-status').textContent }),
    (s) => (seen.add(s.state), ['ready', 'error'].includes(s.state)),
    280_000,
  );
  assert.equal(status.state, 'ready', `${status.text}; ${app.problems.join('; ')}`);
  assert.ok(seen.has('loading'), [...seen].join());
  assert.match(status.model, /pleiad tiny|embedded/i);
  assert.match(status.device, /swiftshader|gpu/i);
  assert.ok(status.text.length > 5);
  assert.match(await app.page.title(), /Pleiad/);
  assert.equal(await app.page.locator('#pleiad-notice').isVisible(), false);
  await app.picture('ready');
  app.clean();
  t.diagnostic(`ready on ${status.device} after ${((await app.page.evaluate(() => performance.now())) / 1000).toFixed(1)} s since navigation`);
});

test('screen readers find its three elements', async () => {
  const page = app.page;
  // By role and name, as they do.
  assert.equal(await page.getByRole('textbox', { name: /message/i }).first().getAttribute('id'), 'pleiad-input');
  assert.equal(await page.getByRole('log').getAttribute('id'), 'pleiad-log');
  assert.equal(await page.getByRole('status').first().getAttribute('id'), 'pleiad-status');
  assert.equal(await page.locator('html').getAttribute('lang'), 'en');
  // The keyboard reaches the input, and nothing that is hidden takes the focus.
  await page.focus('#pleiad-input');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'pleiad-input');
  assert.equal(await page.evaluate(() => [...document.querySelectorAll('canvas, textarea')].every((e) => !e.closest('[aria-hidden=true]'))), true);
});

test('who asks for it finds every control of the window as an element', async () => {
  const page = app.page;
  const list = page.locator('#pleiad-window');
  await list.getByRole('button', { name: 'Command palette' }).waitFor({ state: 'attached' });
  assert.equal(await list.getByRole('button', { name: 'Send' }).isDisabled(), true);
  await app.write('Message', 'A question that is not sent');
  await app.until('a button that sends', () => [...document.querySelectorAll('#pleiad-window button')].some((b) => b.ariaLabel === 'Send' && !b.disabled), (on) => on, 10_000);
  await app.write('Message', '');
  // Who does not want it pays nothing.
  const reader = page.locator('#pleiad-reader');
  assert.equal(await reader.getAttribute('aria-pressed'), 'true');
  await reader.evaluate((button) => button.click());
  assert.equal(await list.locator('*').count(), 0);
  await reader.evaluate((button) => button.click());
  await list.getByRole('button', { name: 'Command palette' }).waitFor({ state: 'attached' });
  app.clean();
});

test('its memory is small', async (t) => {
  const { memoryPage, memoryWorker } = await app.status();
  t.diagnostic(`wasm memory: page ${(memoryPage / MIB).toFixed(1)} MiB, worker ${(memoryWorker / MIB).toFixed(1)} MiB`);
  assert.ok(memoryPage > 1 * MIB && memoryWorker > 1 * MIB, `${memoryPage}, ${memoryWorker}`);
  assert.ok(memoryPage + memoryWorker < 128 * MIB);
});

test('a seed draws what it draws in the native program, while the page stays responsive and shows the experts at work', { timeout: 300_000 }, async (t) => {
  await app.page.focus('#pleiad-canvas');
  await app.resize(LARGE);
  const before = await app.pixels(GRID);
  await app.longTasks();
  await app.send(sampled.question);
  await app.waitStatus('answering', 5_000);
  const gaps = await app.page.evaluate(frameGaps, 4_000);
  const tasks = (await app.longTasks()).sort((a, b) => a - b);
  await app.picture('answering');
  const answer = await app.answerAfter(0);
  await app.page.focus('#pleiad-canvas');
  await app.resize(LARGE);
  const after = await app.pixels(GRID);
  await app.resize(SMALL);
  const slowest = tasks.at(-1) ?? 0;
  t.diagnostic(`${tasks.length} long tasks, the longest ${slowest.toFixed(0)} ms; ${gaps.length} frames in 4 s, the longest ${Math.max(...gaps).toFixed(0)} ms`);
  assert.equal(answer.text, sampled.text);
  assert.equal(answer.tokens, sampled.tokens);
  if (there) {
    const args = ['run', '--json', '--device', 'wgpu:0', '--temp', String(sampled.temp), '--seed', String(sampled.seed)];
    assert.equal((await native(...args, sampled.question)).text, answer.text, 'the program of this build');
  } else {
    t.diagnostic('compared with a record: there is no native program');
  }
  assert.ok(difference(before, after) > 0.02, 'the grid of experts changes');
  assert.ok(slowest < 500, `a task took ${slowest} ms`);
  assert.ok(gaps.length >= 4, `${gaps.length} frames in 4 s`);
  app.clean();
});

test('three turns are answered as transformers answers them', { timeout: 240_000 }, async () => {
  await app.newChat();
  const { questions, answers, promptTokens } = conversation();
  const said = [];
  for (const question of questions) said.push(await app.ask(question));
  assert.deepEqual(said.map((a) => a.text), answers);
  assert.deepEqual(said.map((a) => a.stop), ['end', 'end', 'end']);
  assert.equal(new Set(said.map((a) => a.chat)).size, 1, 'one conversation');
  assert.equal(said[2].promptTokens, promptTokens);
  assert.ok(said[2].reusedTokens >= said[1].promptTokens, `${said[2].reusedTokens} tokens were in the cache`);
  for (const a of said) {
    assert.ok(a.tokens > 0 && a.prefillSeconds > 0 && a.decodeSeconds >= 0, JSON.stringify(a.data));
    assert.equal(a.hitRate ?? 1, 1, 'all experts are on the GPU');
  }
  assert.deepEqual(await app.page.evaluate(() => [...document.querySelectorAll('#pleiad-log article')].map((a) => a.textContent.trim())), [
    questions[0], answers[0], questions[1], answers[1], questions[2], answers[2],
  ]);
  app.clean();
});

test('regenerating lists another answer to the same question', { timeout: 240_000 }, async () => {
  // What follows is about the app, wherever the model runs: on the CPU it is there at once.
  await app.goto(`${site.url}?device=cpu&temp=0`);
  const first = await app.ask(greedy('What is MLA?').question);
  const all = await app.articles();
  await app.command('Regenerate answer');
  const second = await app.answerAfter(all.length);
  assert.equal(second.chat, first.chat);
  assert.notEqual(second.message, first.message);
  assert.equal(second.text, first.text, 'it leaves no choice');
  assert.equal(second.tokens, first.tokens);
});

test('an answer is stopped at once', { timeout: 180_000 }, async (t) => {
  const count = (await app.articles()).length;
  await app.send(LONG);
  await app.waitStatus('answering', 5_000);
  await new Promise((r) => setTimeout(r, 100));
  const began = performance.now();
  await app.key('Escape');
  const stopped = await app.answerAfter(count, 10_000);
  const seconds = (performance.now() - began) / 1000;
  t.diagnostic(`stopped after ${seconds.toFixed(2)} s and ${stopped.tokens} tokens`);
  assert.equal(stopped.stop, 'cancelled');
  assert.ok(seconds < 6, `${seconds} s`);
  await app.waitStatus('ready', 5_000);
  app.clean();
});

test('a conversation goes on while its window is hidden', { timeout: 180_000 }, async () => {
  await app.newChat();
  const window = await hide(app.page);
  // What a person has sent before turning to another window.
  const { question, text } = greedy('What is MLA?');
  try {
    await app.send(question);
    await new Promise((r) => setTimeout(r, 3000));
  } finally {
    await window.show();
  }
  const answer = await app.answerAfter(0);
  assert.equal(answer.text, text);
  app.clean();
});

test('answers are rated', { timeout: 180_000 }, async () => {
  await app.newChat();
  const answer = await app.ask('What is the capital of France?');
  assert.equal(answer.rating ?? '', '');
  const rating = () => document.querySelector('#pleiad-log article[data-stop]').dataset.rating;
  await app.press('Good answer', 'checkbox');
  await app.until('a good rating', rating, (r) => r === 'good', 5_000);
  await app.press('Good answer', 'checkbox');
  await app.until('no rating', rating, (r) => !r, 5_000);
  await app.press('Good answer', 'checkbox');
  await app.until('a good rating', rating, (r) => r === 'good', 5_000);
  await app.picture('rated');
});

test('it fits a phone', { timeout: 30_000 }, async () => {
  const phone = { width: 390, height: 844 };
  await app.picture('phone', phone);
  await app.resize(phone);
  const width = await app.page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.equal(width[0], width[1], 'nothing is to be scrolled sideways');
  await app.resize(SMALL);
  app.clean();
});

test('conversations and settings are found again', { timeout: 240_000 }, async () => {
  const [rated] = await app.articles();
  await app.newChat();
  const told = await app.ask(greedy('What is MLA?').question);
  await app.command('Light or dark');
  await app.frames(5);
  // What is written is written after a moment of rest.
  await new Promise((r) => setTimeout(r, 1500));
  const lit = brightness(await app.pixels());
  await app.goto(`${site.url}?device=cpu`);
  const [again] = await app.until('the conversation', readAnswers, (a) => a.length > 0, 10_000);
  assert.deepEqual([again.chat, again.text], [told.chat, told.text]);
  await app.frames(5);
  const now = brightness(await app.pixels());
  assert.ok(lit > 128 && Math.abs(lit - now) < 24, `light before ${lit}, after ${now}`);
  // The conversation before it in the list is the one with a rating.
  await app.command('Next conversation');
  const [other] = await app.until('the one before', readAnswers, (a) => a.length > 0 && a[0].chat !== told.chat, 10_000);
  assert.deepEqual([other.chat, other.text, other.rating], [rated.chat, rated.text, 'good']);
  // And it goes on.
  const next = await app.ask('Who are you?');
  assert.equal(next.chat, rated.chat);
  app.clean();
});

/// The mean of all channels.
function brightness(picture) {
  let sum = 0;
  for (let i = 0; i < picture.data.length; i += 97) sum += picture.data[i];
  return sum / Math.ceil(picture.data.length / 97);
}

// Functions below run in the page.

function readAnswers() {
  return [...document.querySelectorAll('#pleiad-log article[data-stop]')].map((a) => ({
    chat: a.dataset.chat,
    rating: a.dataset.rating,
    text: a.textContent.trim(),
  }));
}

async function frameGaps(milliseconds) {
  const gaps = [];
  const end = performance.now() + milliseconds;
  for (let last = performance.now(); last < end; ) {
    const now = await new Promise((r) => requestAnimationFrame(() => r(performance.now())));
    gaps.push(now - last);
    last = now;
  }
  return gaps;
}
