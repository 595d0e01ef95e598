// The app as tests use it: through the three elements that scripts and screen readers use, the keyboard, and pictures.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';

import { LARGE, SMALL } from './chromium.mjs';
import { session } from './paths.mjs';
import { decode } from './png.mjs';

/// What browsers themselves say where WebGPU runs on the CPU or is not there, and advice on speed.
const NOT_OURS = [/^No available adapters\./, /willReadFrequently/, /powerPreference option is currently ignored/];

/// Longest that a model of the tests takes to load, with other work on the machine.
const LOADING = 180_000;
/// Longest that an answer takes.
const ANSWER = 180_000;

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

  /// Opens the site in a new page of a context, with the window's controls as elements. `state`: what to wait for.
  static async open(context, url, { state = 'ready' } = {}) {
    const page = await context.newPage();
    const app = new App(page);
    await page.addInitScript(watch);
    await page.addInitScript(() => localStorage.setItem('pleiad-window', 'shown'));
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

  /// Presses a control of the window by its name, as soon as it is there and can be pressed.
  press(name, role = 'button', timeout = 30_000) {
    return this.until(`${role} ${name}`, pressControl, (pressed) => pressed === 'pressed', timeout, { name, role });
  }

  /// The words of all controls of the window.
  words() {
    return this.page.evaluate(readControls);
  }

  /// Gives a command by its name, through the palette.
  async command(name) {
    // Browsers keep Ctrl+K to themselves.
    await this.key('Alt+k');
    await this.write('Find a command', name);
    await this.until(`command ${name}`, chosenOption, (option) => option === name, 30_000);
    // By the keyboard: some commands need a person's act, which a click by a script is not.
    await this.page.keyboard.press('Enter');
    await this.until('the palette to close', readControls, (words) => !words.includes('Find a command'), 30_000);
  }

  /// Writes into a field of the window by its name.
  write(name, text) {
    return this.until(`field ${name}`, writeControl, (written) => written, 30_000, { name, text });
  }

  /// Begins another conversation. Resolves once it is open.
  async newChat() {
    await this.command('New conversation');
    await this.until('an empty log', () => document.querySelectorAll('#pleiad-log article').length, (n) => n === 0, 15_000);
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

  /// Chooses a file in the browser's dialog, which a command of the app opens.
  async openFile(path) {
    const [chooser] = await Promise.all([this.page.waitForEvent('filechooser', { timeout: 60_000 }), this.command('Open a model file...')]);
    await chooser.setFiles(path);
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

  /// Presses the picker's button that loads what is shown there. The picker closes once it is loaded.
  pressLoad() {
    return this.press('Load');
  }

  /// Waits for words in the window.
  waitControls(pattern, timeout = 30_000) {
    return this.until(`words ${pattern} in the window`, readControls, (words) => pattern.test(words), timeout);
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
    draftedTokens: number(a.dataset.draftedTokens),
    acceptedTokens: number(a.dataset.acceptedTokens),
    stop: a.dataset.stop,
    rating: a.dataset.rating,
    data: { ...a.dataset },
    text: a.textContent.trim(),
  }));
}

function readWords() {
  return ['#pleiad-status', '#pleiad-notice', '#pleiad-log'].map((s) => document.querySelector(s)?.textContent ?? '').join('\n');
}

/// Presses a control; says what is in the way, if anything is.
function pressControl({ name, role }) {
  const all = [...document.querySelectorAll('#pleiad-window button')];
  const named = all.filter((e) => (e.getAttribute('role') ?? 'button') === role && (e.getAttribute('aria-label') ?? e.textContent) === name);
  const found = named.find((e) => !e.disabled);
  found?.click();
  return found ? 'pressed' : named.length > 0 ? 'it is disabled' : `there are ${all.map((e) => e.getAttribute('aria-label') ?? e.textContent).join(', ')}`;
}

/// The option that Enter takes.
function chosenOption() {
  return document.querySelector('#pleiad-window [role=option][aria-selected=true]:not(:disabled)')?.getAttribute('aria-label');
}

function writeControl({ name, text }) {
  const field = [...document.querySelectorAll('#pleiad-window :is(input, textarea)')].find((e) => e.getAttribute('aria-label') === name);
  if (!field) return false;
  field.value = text;
  field.dispatchEvent(new Event('change', { bubbles: true }));
  return true;
}

function readControls() {
  const controls = [...document.querySelectorAll('#pleiad-window [data-node]')];
  return controls.map((e) => e.getAttribute('aria-label') ?? (e.children.length === 0 ? e.textContent : '')).filter(Boolean).join('\n');
}
