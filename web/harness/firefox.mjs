import puppeteer from 'puppeteer-core';

import { findProgram, freshProfile } from './program.mjs';
import { puppeteerBrowser } from './puppeteer_page.mjs';

export async function firefox({ prefs = {}, gpu = false, profile, ...options } = {}) {
  const executablePath = findProgram('SUBBYTE_FIREFOX', ['firefox-esr', 'firefox'], 'the package firefox-esr');
  const fresh = profile ? { path: profile, remove() {} } : freshProfile('firefox');
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath,
    headless: true,
    userDataDir: fresh.path,
    protocolTimeout: 0,
    extraPrefsFirefox: {
      ...(gpu ? { 'dom.webgpu.enabled': true, 'gfx.webgpu.ignore-blocklist': true } : {}),
      ...prefs,
    },
  });
  return puppeteerBrowser('firefox', browser, { ...options, cleanUp: fresh.remove });
}
