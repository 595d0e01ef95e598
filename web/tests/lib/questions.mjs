// Answers to compare with: transformers' own greedy ones, and what the native program drew with a seed.

import { readFileSync } from 'node:fs';

import { ANSWERS } from './paths.mjs';

const all = JSON.parse(readFileSync(ANSWERS));
const END = '<｜end▁of▁sentence｜>';

/// The greedy answer to a question that is asked first: `{ question, text, tokens, promptTokens }`; what it thinks is left out of
/// the text, as the log leaves it out.
export function greedy(question) {
  const a = all.find((x) => x.messages.length === 1 && x.messages[0].content === question);
  return { question, ...words(a) };
}

function words(a) {
  const text = a.answer.replace(END, '').replace(/^<think>[^]*<\/think>/, '').trim();
  return { text, tokens: a.answer_ids.length, promptTokens: a.prompt_ids.length };
}

/// A conversation whose last answer depends on what was said before: questions, and the answers to each.
export function conversation() {
  const a = all.find((x) => x.messages.length === 5);
  const said = a.messages.map((m) => m.content);
  return { questions: [said[0], said[2], said[4]], answers: [said[1], said[3], words(a).text], promptTokens: a.prompt_ids.length };
}

/// What the native program answers with a temperature and a seed, on the CPU and on SwiftShader alike; `record.mjs` writes it.
export const sampled = JSON.parse(readFileSync(new URL('../native.json', import.meta.url)));

/// A question whose answer is long enough to be watched.
export const LONG = 'Tell me a story about a fox and a lantern.';
