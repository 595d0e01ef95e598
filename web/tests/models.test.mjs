// Models that come from elsewhere: opened from disk, downloaded and kept.

import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { App } from './lib/app.mjs';
import { launchProfile } from './lib/chromium.mjs';
import { GOLDEN, TINY } from './lib/paths.mjs';
import { greedy } from './lib/questions.mjs';
import { serve } from './lib/site.mjs';

const FRANCE = greedy('What is the capital of France?');
const SIZE = readFileSync(TINY).length;

let [site, profile, app, folder] = [];

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'pleiad-models-'));
  copyFileSync(TINY, join(folder, 'copy.gguf'));
  writeFileSync(join(folder, 'truncated.gguf'), readFileSync(TINY).subarray(0, Math.floor(SIZE / 2)));
  writeFileSync(join(folder, 'random.gguf'), Buffer.from(Array.from({ length: 100_000 }, (_, i) => (i * 7919) >> 3)));
  site = await serve();
  profile = await launchProfile();
  app = await App.open(profile.context, `${site.url}?device=cpu&temp=0`);
});

after(async () => {
  await profile?.close();
  await site?.close();
  if (folder) rmSync(folder, { recursive: true, force: true });
});

/// Presses the picker's button, and waits until a model of that name answers.
async function load(name) {
  await app.pressLoad();
  await app.until('the picker to close', () => !/\bClose\b/.test(document.querySelector('#pleiad-window').textContent), (gone) => gone, 60_000);
  await app.until(`${name.source} is ready`, readStatus, (s) => s.state === 'ready' && name.test(s.model), 30_000);
}

test('a file that is no model is refused in words, and the old model goes on', { timeout: 600_000 }, async () => {
  for (const [name, why] of [['truncated.gguf', /truncated\.gguf.*(ends|truncated|cut|short)/], ['random.gguf', /random\.gguf.*(not|no)/]]) {
    await app.openFile(join(folder, name));
    await app.waitControls(why);
    await app.picture(`refused-${name.split('.')[0]}`);
    await app.key('Escape');
  }
  const answer = await app.ask(FRANCE.question);
  assert.equal(answer.text, FRANCE.text);
  app.clean();
});

test('a file that is opened from disk answers', { timeout: 600_000 }, async () => {
  await app.openFile(join(folder, 'copy.gguf'));
  await load(/Pleiad Tiny/);
  const { memoryPage, memoryWorker } = await app.status();
  assert.ok(memoryPage + memoryWorker < 128 * 2 ** 20);
  await app.newChat();
  const answer = await app.ask(FRANCE.question);
  assert.equal(answer.text, FRANCE.text);
  app.clean();
});

test('a file that is dropped on the app answers, in another format', { timeout: 600_000 }, async () => {
  await app.dropFile(GOLDEN);
  await app.frames(10);
  await app.picture('picker');
  await load(/^Base$/);
  await app.newChat();
  // Its weights are random: what it says has no sense, and it says something.
  await app.send('Hello');
  await app.waitStatus('answering', 10_000);
  await new Promise((r) => setTimeout(r, 1000));
  await app.key('Escape');
  const answer = await app.answerAfter(0, 30_000);
  assert.ok(answer.tokens > 0, JSON.stringify(answer));
  app.clean();
});

test('a download that is cut goes on where it was, is kept, and answers at the next visit', { timeout: 600_000 }, async () => {
  const half = Math.floor(SIZE / 2);
  site.files.set('kept.gguf', { path: TINY, cut: half });
  const url = `${site.filesUrl}kept.gguf`;
  const address = `${site.url}?device=cpu&temp=0&model=${encodeURIComponent(url)}`;
  await app.goto(address);
  assert.equal(app.dialogs.filter((d) => d.includes(url)).length, 1, 'it asks before it downloads');
  const here = await app.until('half of it', readKept, (k) => (k['kept.gguf'] ?? 0) > 0 && site.files.get('kept.gguf').cut === 0, 30_000);
  assert.ok(here['kept.gguf'] <= half, JSON.stringify(here));
  await app.picture('download');
  await new Promise((r) => setTimeout(r, 1000));
  await app.goto(address);
  await app.until('all of it', readKept, (k) => k['kept.gguf'] === SIZE && k['kept.gguf.json']?.complete !== false, 180_000);
  const asked = site.requests.filter((r) => r.path === '/files/kept.gguf' && r.method === 'GET');
  assert.ok(asked.some((r) => r.status === 206 && Number(/bytes=(\d+)-/.exec(r.range)[1]) > 0), JSON.stringify(asked));
  // Some of what the browser said is about the end that was made.
  app.clean(/kept\.gguf/);
  await load(/Pleiad Tiny/);
  // The browser ends, and starts again.
  await profile.again();
  site.files.delete('kept.gguf');
  app = await App.open(profile.context, address);
  const answer = await app.ask(FRANCE.question);
  assert.equal(answer.text, FRANCE.text);
  app.clean();
});

test('a server that knows no ranges is downloaded from as well', { timeout: 600_000 }, async () => {
  site.files.set('whole.gguf', { path: TINY, ranges: false });
  await app.goto(`${site.url}?device=cpu&temp=0&model=${encodeURIComponent(`${site.filesUrl}whole.gguf`)}`);
  await app.until('all of it', readKept, (k) => k['whole.gguf'] === SIZE, 180_000);
  await load(/Pleiad Tiny/);
  app.clean();
});

// Functions below run in the page.

function readStatus() {
  const element = document.querySelector('#pleiad-status');
  return { state: element.dataset.state, model: element.dataset.model ?? '', text: element.textContent };
}

/// Files that are kept: their bytes, or what is written of them.
async function readKept() {
  const kept = {};
  try {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('models');
    for await (const [name, handle] of folder.entries()) {
      const file = await handle.getFile();
      kept[name] = name.endsWith('.json') ? JSON.parse((await file.text()) || '{}') : file.size;
    }
  } catch {
    // Nothing is kept yet.
  }
  return kept;
}
