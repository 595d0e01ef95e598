// The app as tests use it: through the three elements that scripts and screen readers use, the keyboard, and pictures.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';

import { LARGE, SMALL } from './chromium.mjs';
import { session } from './paths.mjs';
import { decode, lowestBar, near } from './png.mjs';

/// What browsers themselves say where WebGPU runs on the CPU or is not there, and advice on speed.
const NOT_OURS = [/^No available adapters\./, /willReadFrequently/, /powerPreference option is currently ignored/];

/// Longest that a model of the tests takes to load, with other work on the machine.
const LOADING = 180_000;
/// Longest that an answer takes.
const ANSWER = 180_000;

/// Colours of the dark theme.
const ACCENT = [0x7f, 0xb2, 0xff];
const BAD = [0xff, 0x8a, 0x80];

export class App {
  constructor(page) {
    this.page = page;
    /// Everything that went wrong, in the order in which it did.
    this.problems = [];
    const say = (text) => this.problems.push(text);
    page.on('console', (m) => {
      if (['error', 'warning'].includes(m.type()) && !NOT_OURS.some((r) => r.test(m.text()))) say(`${m.type()}: ${m.text()}`);
    });
    page.on('pageerror', (e) => say(`uncaught: ${e.message}`));
    page.on('requestfailed', (r) => {
      // What the page itself no longer wants has not failed.
      if (r.failure()?.errorText !== 'net::ERR_ABORTED') say(`request failed: ${r.url()} (${r.failure()?.errorText})`);
    });
    page.on('response', (r) => r.status() >= 400 && say(`${r.status()}: ${r.url()}`));
    page.on('crash', () => say('the page crashed'));
    /// Questions that the browser asked for the page; all are answered with yes.
    this.dialogs = [];
    page.on('dialog', (d) => {
      this.dialogs.push(d.message());
      return d.accept();
    });
  }

  /// Opens the site in a new page of a context. `state`: what to wait for.
  static async open(context, url, { state = 'ready' } = {}) {
    const page = await context.newPage();
    const app = new App(page);
    await page.addInitScript(watch);
    await app.goto(url, { state });
    return app;
  }

  async goto(url, { state = 'ready' } = {}) {
    const began = performance.now();
    await this.page.goto(url, { timeout: LOADING });
    if (state) await this.waitStatus(state);
    this.loadSeconds = (performance.now() - began) / 1000;
  }

  async reload() {
    await this.page.reload({ timeout: LOADING });
    await this.waitStatus('ready');
  }

  close() {
    return this.page.close();
  }

  /// Waits until `test` is true of what the page computes with `look`; says what it was instead.
  async until(what, look, test, timeout = ANSWER, argument = null) {
    const end = performance.now() + timeout;
    for (;;) {
      const value = await this.page.evaluate(look, argument);
      if (test(value)) return value;
      if (performance.now() > end) {
        await this.picture(`failed-${what.replace(/\W+/g, '-')}`).catch(() => {});
        throw new Error(`not after ${timeout / 1000} s: ${what}; instead ${JSON.stringify(value)}; ${this.problems.join('; ')}`);
      }
      await new Promise((r) => setTimeout(r, 40));
    }
  }

  /// `{ state, progress, model, device, memoryPage, memoryWorker, text }`.
  status() {
    return this.page.evaluate(readStatus);
  }

  waitStatus(state, timeout = LOADING) {
    const wanted = [state].flat();
    const test = (s) => {
      // It does not recover from an error by itself.
      if (s?.state === 'error' && !wanted.includes('error')) throw new Error(`${s.text}; ${this.problems.join('; ')}`);
      return s !== null && wanted.includes(s.state);
    };
    return this.until(`status ${wanted}`, readStatus, test, timeout);
  }

  /// Waits for words in the status, in the notice or in the log.
  waitWords(pattern, timeout = LOADING) {
    return this.until(`words ${pattern}`, readWords, (text) => pattern.test(text), timeout);
  }

  /// Finished answers of the conversation that is open, in the order in which they were listed.
  articles() {
    return this.page.evaluate(readArticles);
  }

  /// Types a question and sends it.
  async send(text) {
    await this.page.fill('#pleiad-input', text);
    await this.page.press('#pleiad-input', 'Enter');
  }

  /// Waits for an answer beyond the `before` first ones.
  async answerAfter(before, timeout = ANSWER) {
    const all = await this.until(`answer ${before + 1}`, readArticles, (a) => a.length > before, timeout);
    assert.equal(all.length, before + 1, 'one answer at a time');
    return all.at(-1);
  }

  /// Asks and waits for the answer.
  async ask(text, timeout = ANSWER) {
    const before = (await this.articles()).length;
    await this.send(text);
    return this.answerAfter(before, timeout);
  }

  /// Presses keys as a person does who has clicked into the app.
  async key(keys) {
    await this.page.focus('#pleiad-canvas');
    await this.page.keyboard.press(keys);
    await this.frames();
  }

  /// Gives a command by its name, through the palette.
  async command(name) {
    // Browsers keep Ctrl+K to themselves.
    await this.key('Alt+k');
    await this.type(name);
    await this.page.keyboard.press('Enter');
    await this.frames();
  }

  /// Begins another conversation. Resolves once it is open.
  async newChat() {
    await this.command('New conversation');
    await this.until('an empty log', () => document.querySelectorAll('#pleiad-log article').length, (n) => n === 0, 15_000);
  }

  /// Types into what has the app's own focus.
  async type(text) {
    await this.frames();
    await this.page.keyboard.type(text);
    await this.frames();
  }

  /// Lets the app draw a few times.
  frames(count = 3) {
    return this.page.evaluate(async (n) => {
      for (let i = 0; i < n; i++) await new Promise((r) => requestAnimationFrame(r));
    }, count);
  }

  /// The pixels of the page, or of a part of it.
  async pixels(clip) {
    return decode(await this.page.screenshot({ clip, timeout: LOADING }));
  }

  /// Makes the page as large as pictures are, or as small as is enough for keys and words.
  async resize(size) {
    await this.page.setViewportSize(size);
    await this.frames(6);
  }

  /// Keeps a picture for people to look at.
  async picture(name, size = LARGE) {
    // The input shows itself over the app while it has the focus.
    await this.page.focus('#pleiad-canvas').catch(() => {});
    await this.resize(size);
    writeFileSync(session(`${name}.png`), await this.page.screenshot({ timeout: LOADING }));
    await this.page.setViewportSize(SMALL);
  }

  /// Times of the page's long tasks since the last call, in milliseconds.
  longTasks() {
    return this.page.evaluate(() => globalThis.longTasks.splice(0));
  }

  /// Clicks into the app, at a point of the page.
  async click(x, y) {
    await this.page.mouse.move(x, y);
    await this.frames();
    await this.page.mouse.click(x, y);
    await this.frames();
  }

  /// Chooses a file in the browser's dialog, which a command of the app opens.
  async openFile(path) {
    const chooser = this.page.waitForEvent('filechooser', { timeout: 10_000 });
    await this.command('Open a model file');
    await (await chooser).setFiles(path);
  }

  /// Drops a file on the app. Its bytes stay where they are.
  async dropFile(path) {
    const session = await this.page.context().newCDPSession(this.page);
    const data = { items: [], files: [path], dragOperationsMask: 1 };
    for (const type of ['dragEnter', 'dragOver', 'drop']) {
      await session.send('Input.dispatchDragEvent', { type, x: SMALL.width / 2, y: SMALL.height / 2, data });
      await this.frames();
    }
    await session.detach();
  }

  /// Presses the picker's button that loads what is shown there, until it has been pressed. It is found by its colour, which nothing
  /// below it has.
  async pressLoad(timeout = 30_000) {
    await this.resize(LARGE);
    const end = performance.now() + timeout;
    const find = async () => lowestBar(await this.pixels(), ACCENT, 70);
    for (let pressed = false, last = null; ; ) {
      const at = await find();
      if (pressed && !at) return this.resize(SMALL);
      // While lists grow, it moves.
      if (at && last && at.x === last.x && at.y === last.y) {
        await this.click(at.x, at.y);
        pressed = true;
      }
      last = at;
      if (performance.now() > end) throw new Error(pressed ? 'the picker does not take the press' : 'the picker offers nothing to load');
      await new Promise((r) => setTimeout(r, 150));
    }
  }

  /// Waits for words in the colour of what is wrong. They are on the canvas only: how many of its pixels have the colour.
  async complaint(timeout = 15_000) {
    await this.resize(LARGE);
    const end = performance.now() + timeout;
    for (;;) {
      const count = near(await this.pixels(), BAD);
      if (count > 60) return count;
      if (performance.now() > end) throw new Error(`nothing is said to be wrong (${count} pixels)`);
      await new Promise((r) => setTimeout(r, 200));
    }
  }

  /// Fails if anything went wrong that `allowed` does not name. Forgets it.
  clean(...allowed) {
    const left = this.problems.splice(0).filter((p) => !allowed.some((r) => r.test(p)));
    assert.deepEqual(left, []);
  }
}

// Functions below run in the page.

function watch() {
  globalThis.longTasks = [];
  try {
    new PerformanceObserver((list) => globalThis.longTasks.push(...list.getEntries().map((e) => e.duration))).observe({ type: 'longtask' });
  } catch {
    // Workers have none.
  }
}

function readStatus() {
  const element = document.querySelector('#pleiad-status');
  if (!element) return null;
  const d = element.dataset;
  const number = (text) => (text === undefined || text === '' ? null : Number(text));
  return {
    state: d.state,
    progress: number(d.progress),
    model: d.model ?? '',
    device: d.device ?? '',
    memoryPage: number(d.memoryPage),
    memoryWorker: number(d.memoryWorker),
    text: element.textContent.trim(),
  };
}

function readArticles() {
  const number = (text) => (text === undefined || text === '' ? null : Number(text));
  return [...document.querySelectorAll('#pleiad-log article[data-stop]')].map((a) => ({
    chat: a.dataset.chat,
    message: a.dataset.message,
    promptTokens: number(a.dataset.promptTokens),
    reusedTokens: number(a.dataset.reusedTokens),
    tokens: number(a.dataset.tokens),
    prefillSeconds: number(a.dataset.prefillSeconds),
    decodeSeconds: number(a.dataset.decodeSeconds),
    tokensPerSecond: number(a.dataset.tokensPerSecond),
    hitRate: number(a.dataset.hitRate),
    stop: a.dataset.stop,
    rating: a.dataset.rating,
    data: { ...a.dataset },
    text: a.textContent.trim(),
  }));
}

function readWords() {
  return ['#pleiad-status', '#pleiad-notice', '#pleiad-log'].map((s) => document.querySelector(s)?.textContent ?? '').join('\n');
}
