// The whole conformance suite in the browser: writes its report, as `pleiad conformance` writes those of other adapters.
//
//     cargo xtask web && node web/tests/report.mjs [--quick] [--strict] OUT.json

import { writeFileSync } from 'node:fs';

import { launch, VIEW } from './lib/chromium.mjs';
import { serve } from './lib/site.mjs';

const options = process.argv.slice(2);
const [out] = options.filter((o) => !o.startsWith('--'));
const query = ['run', ...['quick', 'strict'].filter((o) => options.includes(`--${o}`))].join('&');
if (!out) {
  console.error('usage: node web/tests/report.mjs [--quick] [--strict] OUT.json');
  process.exit(2);
}
const site = await serve();
const browser = await launch();
try {
  const page = await (await browser.newContext(VIEW)).newPage();
  await page.goto(`${site.url}conformance.html?${query}`);
  for (;;) {
    const { state, done, total, text } = await page.$eval('#conformance-status', (e) => ({ ...e.dataset, text: e.textContent }));
    if (!['idle', 'running'].includes(state)) {
      console.error(text);
      break;
    }
    console.error(`${done ?? 0} of ${total ?? 0}`);
    await new Promise((resolve) => setTimeout(resolve, 15_000));
  }
  writeFileSync(out, await page.$eval('#conformance-report', (e) => e.textContent));
} finally {
  await browser.close();
  await site.close();
}
