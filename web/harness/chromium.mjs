import puppeteer from 'puppeteer-core';

import { findProgram, freshProfile } from './program.mjs';
import { puppeteerBrowser } from './puppeteer_page.mjs';

export async function chromium({ flags = [], gpu = false, profile, ...options } = {}) {
  const executablePath = findProgram('SUBBYTE_CHROMIUM', ['chromium', 'chromium-browser', 'google-chrome'], 'the package chromium');
  const fresh = profile ? { path: profile, remove() {} } : freshProfile('chromium');
  const browser = await puppeteer.launch({
    executablePath,
    headless: true,
    userDataDir: fresh.path,
    protocolTimeout: 0,
    args: [
      '--no-sandbox', // in containers there is no user namespace for it; these pages are ours
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      ...(gpu ? ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'] : ['--disable-gpu']),
      ...flags,
    ],
  });
  return puppeteerBrowser('chromium', browser, { ...options, cleanUp: fresh.remove });
}
