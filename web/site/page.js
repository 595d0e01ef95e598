// The page: says what a browser lacks, fetches the program and starts it on the canvas.

const status = document.getElementById('pleiad-status');
const placeholder = document.getElementById('pleiad-start');
const notice = document.getElementById('pleiad-notice');

/** Shows a notice; resolves with the name of the choice that is taken. Without choices it stays. */
function tell(title, lines, choices = {}) {
  const element = (tag, text = '') => Object.assign(document.createElement(tag), { textContent: text });
  const parts = [element('h1', title)];
  for (const line of lines) {
    if (Array.isArray(line)) {
      const list = element('ul');
      list.append(...line.map((text) => element('li', text)));
      parts.push(list);
    } else {
      parts.push(line instanceof Node ? line : element('p', line));
    }
  }
  const row = element('div');
  row.className = 'choices';
  if (Object.keys(choices).length > 0) parts.push(row);
  notice.replaceChildren(...parts);
  notice.setAttribute('aria-label', title);
  notice.hidden = false;
  return new Promise((resolve) => {
    const take = (name) => {
      notice.hidden = true;
      resolve(name);
    };
    for (const [name, words] of Object.entries(choices)) {
      const button = element('button', words);
      button.addEventListener('click', () => take(name));
      row.append(button);
    }
    // Escape takes the last one, which changes nothing.
    const last = Object.keys(choices).pop();
    notice.onkeydown = last && ((event) => event.key === 'Escape' && take(last));
    (row.querySelector('button') ?? notice).focus();
  });
}

/** Says that it cannot go on, unless something more precise is said already. */
function fail(title, error) {
  console.error(error);
  placeholder.hidden = true;
  status.dataset.state = 'error';
  status.textContent = title;
  if (notice.hidden) tell(title, [String(error?.message ?? error)]);
}

/** Whether workers can be modules: a browser that knows the option reads it. */
function moduleWorkers() {
  let known = false;
  try {
    const options = { get type() { known = true; return 'module'; } };
    new Worker(URL.createObjectURL(new Blob([], { type: 'text/javascript' })), options).terminate();
  } catch {
    // A page's policy may forbid such workers; the option was read all the same.
  }
  return known;
}

/** What this browser lacks, in words; nothing where it has all that is needed. */
function lacking() {
  if (typeof WebAssembly !== 'object') return 'WebAssembly, which programs such as this one are made of';
  if (typeof Worker !== 'function' || !moduleWorkers()) return 'workers that are modules, which models run in';
  return '';
}

/** A way to the tests that say what is wrong with a GPU. */
function conformanceLink() {
  const link = Object.assign(document.createElement('a'), { href: 'conformance.html', textContent: 'Tests of what a browser’s GPU computes' });
  const line = document.createElement('p');
  line.append(link);
  return line;
}

/** Where there is no WebGPU: says which browsers have it and asks how to go on. */
async function checkGpu() {
  const query = new URLSearchParams(location.search);
  if (query.has('device')) return;
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  if (adapter) return;
  const found = navigator.gpu
    ? 'This browser has WebGPU, and found no GPU that it can use. A driver that is too old, or hardware acceleration that is switched off in the settings, can be the reason.'
    : isSecureContext
      ? 'This browser has no WebGPU, which lets pages compute on the GPU.'
      : 'Browsers offer WebGPU only to pages that come over https, or from this machine (localhost).';
  const choice = await tell('No GPU can be used here', [
    found,
    'Browsers with WebGPU:',
    [
      'Chrome and Edge: 113 and newer on Windows, macOS and ChromeOS; 121 and newer on Android 12; on Linux recent versions, or with chrome://flags/#enable-unsafe-webgpu',
      'Safari: 26 and newer',
      'Firefox: 141 and newer on Windows, 145 and newer on macOS',
    ],
    'The small model that comes with this page answers on the processor too, more slowly.',
    conformanceLink(),
  ], { cpu: 'Use the CPU', close: 'Go on without' });
  if (choice === 'cpu') {
    query.set('device', 'cpu');
    history.replaceState(null, '', `?${query}${location.hash}`);
  }
}

/** Shows how much of the program is here. */
function progress(share) {
  placeholder.querySelector('progress').value = share;
  status.dataset.progress = share.toFixed(3);
}

/** The program as a response that tells how far it has come. */
async function program() {
  const address = new URL('pleiad_web_bg.wasm', import.meta.url);
  const [response, build] = await Promise.all([
    fetch(address),
    // A server that compresses does not say how long the program is; the build does.
    fetch(new URL('build.json', import.meta.url)).then((r) => r.json()).catch(() => null),
  ]);
  if (!response.ok) throw new Error(`The program could not be fetched: the server says ${response.status}.`);
  const length = response.headers.get('Content-Encoding') ? 0 : Number(response.headers.get('Content-Length'));
  const total = build?.files?.['pleiad_web_bg.wasm']?.bytes || length;
  if (!response.body || !total) return response;
  let done = 0;
  const counted = new TransformStream({
    transform(chunk, output) {
      done += chunk.byteLength;
      progress(Math.min(done / total, 1));
      output.enqueue(chunk);
    },
  });
  // The type lets the browser compile while it fetches.
  return new Response(response.body.pipeThrough(counted), { headers: { 'Content-Type': 'application/wasm' } });
}

/** After the next frame is drawn. */
const drawn = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));

async function start() {
  const missing = lacking();
  if (missing) {
    fail('Pleiad cannot run in this browser', `It lacks ${missing}. A recent version of Chrome, Edge, Firefox or Safari has all that is needed.`);
    return;
  }
  // Fetched while a person reads a notice.
  const loaded = import('./pleiad_web.js').then(async (pleiad) => {
    await pleiad.default({ module_or_path: await program() });
    return pleiad;
  });
  loaded.catch(() => {});
  await checkGpu();
  const pleiad = await loaded;
  await pleiad.start_page();
  await drawn();
  placeholder.hidden = true;
}

// A program that trapped does not go on; what it said last is on the notice already.
addEventListener('error', (event) => {
  if (event.error instanceof WebAssembly.RuntimeError) fail('Pleiad has stopped. Reload the page to go on.', event.error);
});

start().catch((error) => fail('Pleiad could not be started', error));
