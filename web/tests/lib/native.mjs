// The native program, to compare with: on the same SwiftShader that Chromium has.

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';

import { executable } from './chromium.mjs';
import { TARGET } from './paths.mjs';

const PROGRAM = process.env.PLEIAD_NATIVE ?? join(TARGET, 'release/pleiad');
const DRIVERS = [join(TARGET, 'software-gpus/swiftshader/vk_swiftshader_icd.json'), '/usr/lib/chromium/vk_swiftshader_icd.json'];

/// Chromium's own Vulkan driver.
function driver() {
  return [join(dirname(executable()), 'vk_swiftshader_icd.json'), ...DRIVERS].find((p) => existsSync(p));
}

/// Whether there is a native program.
export const there = existsSync(PROGRAM);

/// What the program prints as JSON, with SwiftShader as its only GPU.
export async function native(...args) {
  const env = { ...process.env, VK_DRIVER_FILES: driver(), XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? '/tmp' };
  const done = await promisify(execFile)(PROGRAM, args, { env, maxBuffer: 64 << 20 }).catch((e) => e);
  // SwiftShader now and then faults while the process ends, when all is said.
  if (done instanceof Error && done.signal !== 'SIGSEGV') throw done;
  return JSON.parse(done.stdout);
}

/// Runs the program for what it does, not for what it prints.
export async function run(...args) {
  await promisify(execFile)(PROGRAM, args, { maxBuffer: 64 << 20 });
}
