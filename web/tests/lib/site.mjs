// A static server for the site, and for model files whose server may fail on purpose.

import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';

import { DIST, built } from './paths.mjs';

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.wasm': 'application/wasm',
  '.json': 'application/json',
  '.webmanifest': 'application/manifest+json',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
};

/// Serves the site at `url`, and what is put into `files` under `url + 'files/'`:
/// `{ path, ranges: true, cut: N, rate: N }`. `cut`: the connection ends after so many bytes of one answer, once; `rate`: bytes a
/// second; `ranges: false`: always the whole file. `requests` lists what was asked for.
export async function serve({ dist = DIST } = {}) {
  if (!process.env.PLEIAD_URL && dist === DIST && !built()) throw new Error('there is no site in web/dist: run cargo xtask web');
  const site = { files: new Map(), requests: [] };
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://site');
    const path = decodeURIComponent(pathname);
    const entry = { method: request.method, path, range: request.headers.range ?? null, status: 0 };
    site.requests.push(entry);
    const file = path.startsWith('/files/')
      ? site.files.get(path.slice('/files/'.length))
      : { path: join(dist, normalize(path === '/' ? '/index.html' : path)), ranges: true };
    send(request, response, entry, file);
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const own = `http://127.0.0.1:${server.address().port}/`;
  site.filesUrl = `${own}files/`;
  // A site that is served elsewhere can be tested as well.
  site.url = process.env.PLEIAD_URL ?? own;
  site.close = () => new Promise((done) => (server.close(done), server.closeAllConnections()));
  return site;
}

function send(request, response, entry, file) {
  const answer = (status, headers) => {
    entry.status = status;
    response.writeHead(status, { 'access-control-allow-origin': '*', ...headers });
  };
  if (!file || !existsSync(file.path) || !statSync(file.path).isFile()) {
    answer(404, { 'content-type': 'text/plain' });
    return response.end('not found');
  }
  const size = statSync(file.path).size;
  const headers = { 'content-type': TYPES[extname(file.path)] ?? 'application/octet-stream', 'cache-control': 'no-store' };
  let [from, to] = [0, size - 1];
  let status = 200;
  const range = /^bytes=(\d+)-(\d*)$/.exec(entry.range ?? '');
  if (file.ranges !== false) {
    headers['accept-ranges'] = 'bytes';
    headers.etag = `"${size}"`;
    if (range) {
      [from, to] = [Number(range[1]), Math.min(range[2] ? Number(range[2]) : to, to)];
      if (from > to) {
        answer(416, { 'content-range': `bytes */${size}` });
        return response.end();
      }
      status = 206;
      headers['content-range'] = `bytes ${from}-${to}/${size}`;
    }
  }
  answer(status, { ...headers, 'content-length': String(to - from + 1), 'access-control-expose-headers': 'content-range, etag, accept-ranges' });
  if (request.method === 'HEAD') return response.end();
  const stream = createReadStream(file.path, { start: from, end: to });
  response.on('close', () => stream.destroy());
  if (!file.cut && !file.rate) return stream.pipe(response);
  slowly(stream, response, file);
}

/// Sends a stream at a rate, or ends the connection in the middle of it.
async function slowly(stream, response, file) {
  let sent = 0;
  const began = performance.now();
  for await (const piece of stream) {
    if (response.destroyed) return;
    const left = file.cut ? file.cut - sent : piece.length;
    response.write(piece.subarray(0, left));
    sent += Math.min(piece.length, left);
    if (file.cut && sent >= file.cut) {
      file.cut = 0;
      // What was written goes out first.
      return setTimeout(() => response.destroy(), 50);
    }
    const early = file.rate ? (sent / file.rate) * 1000 - (performance.now() - began) : 0;
    if (early > 0) await new Promise((r) => setTimeout(r, early));
  }
  response.end();
}
