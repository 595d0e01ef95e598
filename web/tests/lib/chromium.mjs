// Starts Chromium as the tests need it: without a display, drawing and computing on SwiftShader.

import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { chromium } from 'playwright-core';

const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

const QUIET = ['--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

/// WebGL on SwiftShader, and no WebGPU: without these flags Chromium finds no adapter that it trusts.
const WEBGL = ['--use-angle=swiftshader', '--enable-unsafe-swiftshader', '--ignore-gpu-blocklist'];

const WEBGPU = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--enable-features=Vulkan', '--use-vulkan=swiftshader', ...WEBGL];

/// Playwright keeps hidden pages running. People's browsers do not.
const AS_PEOPLE_HAVE_IT = ['--disable-backgrounding-occluded-windows', '--disable-renderer-backgrounding', '--disable-background-timer-throttling'];

/// As large as the pictures of the README.
export const LARGE = { width: 1280, height: 820 };
/// SwiftShader draws the page on the same processor that the model runs on: many pixels would make it several times slower.
export const SMALL = { width: 480, height: 360 };
/// What pages are opened with.
export const VIEW = { viewport: SMALL, colorScheme: 'dark' };

/// Where the browser is.
export function executable() {
  const path = process.env.PLEIAD_CHROMIUM ?? PLACES.find((p) => existsSync(p));
  if (!path) throw new Error(`no Chromium at ${PLACES.join(', ')}; set PLEIAD_CHROMIUM to its path`);
  return path;
}

function options(webgpu) {
  return {
    executablePath: executable(),
    args: [...QUIET, ...(webgpu ? WEBGPU : WEBGL)],
    ignoreDefaultArgs: AS_PEOPLE_HAVE_IT,
    headless: true,
    timeout: 60_000,
  };
}

/// A browser whose contexts share nothing, each with an empty store of its own.
export function launch({ webgpu = true } = {}) {
  return chromium.launch(options(webgpu));
}

/// A browser with a profile on disk. `profile.again()` closes it and starts it anew on the same profile.
export async function launchProfile({ webgpu = true } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'pleiad-profile-'));
  const start = () => chromium.launchPersistentContext(folder, { ...options(webgpu), ...VIEW });
  const profile = {
    context: await start(),
    async again() {
      await this.context.close();
      this.context = await start();
      return this.context;
    },
    async close() {
      await this.context.close();
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
  return profile;
}

/// Ends the process that computes, as a crash of a driver does. Every device of every page is lost.
export async function crashGpu(browser) {
  const session = await browser.newBrowserCDPSession();
  // Whether it answers before it is gone is chance.
  await Promise.race([session.send('Browser.crashGpuProcess').catch(() => {}), new Promise((r) => setTimeout(r, 1000))]);
  await session.detach().catch(() => {});
}

/// Hides the window of a page: no frames are drawn until `show()`.
export async function hide(page) {
  const session = await page.context().newCDPSession(page);
  await session.send('Emulation.setFocusEmulationEnabled', { enabled: false });
  const { windowId } = await session.send('Browser.getWindowForTarget');
  const set = (windowState) => session.send('Browser.setWindowBounds', { windowId, bounds: { windowState } });
  await set('minimized');
  return {
    async show() {
      await set('normal');
      await session.send('Emulation.setFocusEmulationEnabled', { enabled: true });
      await page.bringToFront();
      await session.detach();
    },
  };
}
