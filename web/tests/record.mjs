// Writes native.json: answers of the native program that the browser's are compared with. `node web/tests/record.mjs`

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';

import { native } from './lib/native.mjs';

const QUESTION = 'Tell me a story about a fox and a lantern.';
const SAMPLED = { temp: 0.9, seed: 7 };

const args = ['--temp', String(SAMPLED.temp), '--seed', String(SAMPLED.seed)];
const [cpu, gpu] = [await native('run', '--json', '--device', 'cpu', ...args, QUESTION), await native('run', '--json', '--device', 'wgpu:0', ...args, QUESTION)];
assert.deepEqual(cpu.tokens, gpu.tokens, 'another seed: this one comes to a tie');
const record = { question: QUESTION, ...SAMPLED, text: cpu.text, tokens: cpu.stats.generated_tokens };
writeFileSync(new URL('native.json', import.meta.url), `${JSON.stringify(record, null, 2)}\n`);
