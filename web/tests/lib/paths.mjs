// Where things are in the repository.

import { existsSync, mkdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../../..');
/// What cargo builds, and what tests leave behind.
export const TARGET = process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target');
/// The site, as `cargo xtask web` makes it.
export const DIST = process.env.PLEIAD_DIST ?? join(ROOT, 'web/dist');
export const TINY = join(ROOT, 'models/tiny/pleiad-tiny-q8_0.gguf');
export const ANSWERS = join(ROOT, 'models/tiny/answers.json');
export const GOLDEN = join(ROOT, 'tests/data/golden-gguf/base-q4_k_m.gguf');

/// Pictures that people may look at.
export function session(name) {
  const folder = join(TARGET, 'web-session');
  mkdirSync(folder, { recursive: true });
  return join(folder, name);
}

/// Whether there is a site to test.
export function built() {
  return existsSync(join(DIST, 'index.html')) && existsSync(join(DIST, 'pleiad_web_bg.wasm'));
}
