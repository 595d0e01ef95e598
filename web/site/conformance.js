// Runs the conformance tests in a worker and puts their report together. The worker may crash or hang: that is a result, and
// another one goes on behind it.
//
// ?quick, ?strict, ?only=PART (repeatable), ?timeout=SECONDS: with any of them, or with ?run, the tests start by themselves.
// Scripts read #conformance-status (data-state: idle, running, done, stopped or error; data-done, data-total) and, at the end, the
// report in #conformance-report.

const query = new URLSearchParams(location.search);
const $ = (id) => document.getElementById(`conformance-${id}`);
const form = $('form');
const status = $('status');
const GOOD = ['pass', 'skip', 'info', 'expected-fail'];
/** Longest time for a test, in milliseconds. */
const TIMEOUT = 1000 * (Number(query.get('timeout')) || 300);

function element(tag, text = '', className = '') {
  return Object.assign(document.createElement(tag), { textContent: text, className });
}

function say(state, text) {
  status.dataset.state = state;
  status.textContent = text;
}

/** Asks a worker to do something; `hear` is told each message. */
function work(kind, file, options, hear) {
  const worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
  worker.onmessage = ({ data }) => (data.asks ? worker.postMessage({ kind, file, name: kind, options: JSON.stringify(options) }) : hear(data));
  worker.onerror = (event) => {
    event.preventDefault();
    hear({ failed: event.message || 'the worker has stopped' });
  };
  return worker;
}

/** A run, and what it has found. */
class Run {
  constructor(settings) {
    this.report = { schema: 1, program: 'pleiad', date: new Date().toISOString().replace(/\.\d+Z$/, 'Z'), settings, identity: null, tests: [], complete: false };
    this.list = [];
    this.running = null;
  }

  /** Runs all tests; resolves when every one has a result, when no more can be had, or when it was stopped. */
  async all() {
    for (;;) {
      const before = this.report.tests.length;
      const { end, words } = await this.once();
      if (end === 'stopped') return;
      if (this.running) this.add({ id: this.running, verdict: end === 'timeout' ? 'timeout' : 'crash', words, seconds: (performance.now() - this.since) / 1000 });
      else if (end === 'over') return;
      else if (this.report.tests.length === before) {
        const verdict = { refused: 'fail', timeout: 'timeout' }[end] ?? 'crash';
        this.add({ id: 'device/open', verdict, words, seconds: (performance.now() - this.since) / 1000 });
        return;
      }
    }
  }

  /** One worker, to its end. */
  once() {
    this.running = null;
    this.since = performance.now();
    const done = this.report.tests.map((test) => test.id);
    return new Promise((resolve) => {
      let clock = 0;
      const finish = (end, words = '') => {
        clearInterval(clock);
        this.worker.terminate();
        resolve({ end, words });
      };
      this.stop = () => finish('stopped');
      this.worker = work('conformance', new URL('pleiad-tiny.gguf', import.meta.url).href, { settings: this.report.settings, done }, (data) => {
        this.since = data.line ? performance.now() : this.since;
        if (data.failed) return finish('crash', data.failed);
        if (!data.line) return undefined;
        const line = JSON.parse(data.line);
        if (line.line === 'open') this.open(line);
        if (line.line === 'begin') this.begin(line.id);
        if (line.line === 'end') this.add(line.test);
        if (line.line === 'refused') finish('refused', line.why);
        if (line.line === 'over') {
          this.identity(line.identity);
          finish(line.broken ? 'broken' : 'over', line.broken);
        }
        return undefined;
      });
      clock = setInterval(() => {
        if (performance.now() - this.since > TIMEOUT) finish('timeout', `it took more than ${TIMEOUT / 1000} s, and its worker was ended`);
      }, 250);
    });
  }

  open({ identity, list }) {
    this.identity(identity);
    this.list = list;
    status.dataset.total = list.length;
    $('progress').max = Math.max(list.length, 1);
    $('progress').hidden = false;
  }

  identity(identity) {
    const seen = [...new Set([...(this.report.identity?.subgroup_sizes_seen ?? []), ...identity.subgroup_sizes_seen])];
    this.report.identity = { ...identity, subgroup_sizes_seen: seen.sort((a, b) => a - b) };
    this.report.program = `pleiad ${identity.versions.pleiad ?? ''}`.trim();
    this.report.identity.platform = this.browser.platform;
    this.report.identity.versions.browser = this.browser.version;
    showAdapter(this.report.identity);
  }

  begin(id) {
    this.running = id;
    $('now').textContent = id;
  }

  add(test) {
    this.running = null;
    this.report.tests.push(test);
    showTest(test);
    showSections(this.report.tests);
    const done = this.report.tests.length;
    status.dataset.done = done;
    $('progress').value = done;
    say('running', `${done} of ${this.list.length} tests`);
  }

  /** The report, with tests in the order of the list. */
  finished() {
    const place = new Map(this.list.map((id, i) => [id, i]));
    this.report.tests.sort((a, b) => (place.get(a.id) ?? Infinity) - (place.get(b.id) ?? Infinity));
    const known = new Set(this.report.tests.map((t) => t.id));
    this.report.complete = this.list.length > 0 && this.list.every((id) => known.has(id));
    this.report.identity ??= nobody(this.browser);
    return this.report;
  }
}

/** The identity of a device that was never open. */
function nobody({ version, platform }) {
  const empty = { name: 'no GPU', kind: '', backend: 'BrowserWebGpu', driver: '', vendor_id: 0, device_id: 0, software: false };
  return { ...empty, versions: { browser: version }, platform, features: [], limits: {}, subgroup_sizes: null, subgroup_sizes_seen: [], tier: '' };
}

/** Which browser this is, and on what. */
async function browser() {
  const brands = navigator.userAgentData;
  if (!brands) return { version: navigator.userAgent, platform: navigator.platform };
  const wanted = ['fullVersionList', 'platformVersion', 'architecture', 'bitness'];
  const told = await brands.getHighEntropyValues(wanted).catch(() => ({ brands: brands.brands, platform: brands.platform }));
  const list = (told.fullVersionList ?? told.brands ?? []).filter(({ brand }) => !/not.?a.?brand/i.test(brand.replaceAll(/[^\w ]/g, ' ')));
  const version = list.map(({ brand, version: v }) => `${brand} ${v}`).join(', ') || navigator.userAgent;
  return { version, platform: [told.platform, told.platformVersion, told.architecture, told.bitness].filter(Boolean).join(' ') };
}

function showAdapter(identity) {
  const rows = {
    Name: identity.name, Backend: identity.backend, Browser: identity.versions.browser, Platform: identity.platform, Kernels: identity.tier,
    'Subgroup sizes': identity.subgroup_sizes_seen.join(', ') || identity.subgroup_sizes?.join(' to ') || 'none',
  };
  const parts = Object.entries(rows).flatMap(([name, value]) => [element('dt', name), element('dd', value)]);
  $('adapter').querySelector('dl').replaceChildren(...parts);
  $('adapter').hidden = false;
}

const digits = (x) => (x === null ? 'not finite' : String(Number(x.toPrecision(3))));

function measures(test) {
  const one = ([name, m]) => [name, digits(m.value), m.unit, m.most === undefined ? '' : `(at most ${digits(m.most)})`, m.least === undefined ? '' : `(at least ${digits(m.least)})`, m.at ? `at ${m.at}` : ''];
  return Object.entries(test.measures ?? {}).map((m) => one(m).filter(Boolean).join(' ')).join('; ');
}

function showTest(test) {
  const good = GOOD.includes(test.verdict);
  const row = element('tr');
  if (good) row.dataset.good = '';
  row.dataset.verdict = test.verdict;
  row.append(element('td', test.id), element('td', test.verdict.replace('-', ' '), good ? test.verdict : 'bad'), element('td', measures(test)), element('td', test.words ?? ''));
  $('tests').querySelector('tbody').append(row);
  $('tests').hidden = false;
}

function showSections(tests) {
  const sections = Map.groupBy ? Map.groupBy(tests, (t) => t.id.split('/')[0]) : group(tests, (t) => t.id.split('/')[0]);
  const rows = [...sections].map(([name, of]) => {
    const count = (...verdicts) => of.filter((t) => verdicts.includes(t.verdict)).length;
    const bad = of.filter((t) => !GOOD.includes(t.verdict)).length;
    const row = element('tr');
    const head = element('th', name);
    head.scope = 'row';
    row.append(head, ...[count('pass'), count('info'), count('skip'), count('expected-fail')].map((n) => element('td', n)), element('td', bad, bad ? 'bad' : ''));
    return row;
  });
  $('sections').querySelector('tbody').replaceChildren(...rows);
  $('sections').hidden = false;
}

function group(list, key) {
  const groups = new Map();
  for (const item of list) groups.set(key(item), [...(groups.get(key(item)) ?? []), item]);
  return groups;
}

/** The report judged and written by the program; as it is, where that fails. */
function written(report) {
  return new Promise((resolve) => {
    const text = JSON.stringify(report);
    const worker = work('report', text, {}, (data) => {
      if (!data.written && !data.failed) return;
      worker.terminate();
      resolve(data.written ?? [text, '', '', 'conformance']);
    });
  });
}

function offer([json, html, xml, stem]) {
  const link = (text, type, ending, words) => {
    const a = element('a', words);
    a.href = URL.createObjectURL(new Blob([text], { type }));
    a.download = `${stem}.${ending}`;
    return a;
  };
  const links = [link(json, 'application/json', 'json', 'Download the report (JSON)')];
  if (html) links.push(link(html, 'text/html', 'html', 'as a page'), link(xml, 'application/xml', 'xml', 'as JUnit XML'));
  $('downloads').replaceChildren(...links);
  $('downloads').hidden = false;
}

async function start() {
  const only = form.elements.only.value.split(',').map((part) => part.trim()).filter(Boolean);
  const run = new Run({ quick: form.elements.quick.checked, strict: form.elements.strict.checked, only });
  run.browser = await browser();
  for (const id of ['tests', 'sections']) $(id).querySelector('tbody').replaceChildren();
  $('downloads').hidden = true;
  $('report').textContent = '';
  form.querySelector('[type=submit]').disabled = true;
  $('stop').hidden = false;
  let stopped = false;
  $('stop').onclick = () => {
    stopped = true;
    run.stop();
  };
  Object.assign(status.dataset, { done: 0, total: 0 });
  say('running', 'Starting…');
  await run.all();
  $('stop').hidden = true;
  $('now').textContent = 'Writing the report…';
  const all = await written(run.finished());
  const report = JSON.parse(all[0]);
  $('tests').querySelector('tbody').replaceChildren();
  report.tests.forEach(showTest);
  showSections(report.tests);
  $('now').textContent = '';
  $('report').textContent = all[0];
  offer(all);
  const bad = report.tests.filter((t) => !GOOD.includes(t.verdict)).length;
  const passed = report.tests.filter((t) => t.verdict === 'pass').length;
  const words = [`${passed} of ${report.tests.length} tests passed`, bad ? `${bad} went wrong` : 'none went wrong'];
  if (report.tests.length === 0 && !stopped) words.push('no test’s id is as asked for');
  else if (!report.complete) words.push('the run is not complete');
  form.querySelector('[type=submit]').disabled = false;
  say(stopped ? 'stopped' : 'done', `${words.join(', ')}.`);
}

function begin() {
  start().catch((error) => {
    console.error(error);
    say('error', `The tests could not be run: ${error?.message ?? error}`);
  });
}

form.elements.quick.checked = query.has('quick');
form.elements.strict.checked = query.has('strict');
form.elements.only.value = query.getAll('only').join(', ');
form.addEventListener('submit', (event) => {
  event.preventDefault();
  begin();
});
$('bad').addEventListener('change', (event) => $('tests').classList.toggle('only-bad', event.target.checked));
if (['quick', 'strict', 'only', 'run'].some((name) => query.has(name))) begin();
