// Three browsers behind one small face: { name, version, logs, open(url), evaluate(fn | text, ...args), screenshot(path), close() }.
// evaluate() awaits promises and carries JSON both ways. `logs` has the page's console, as [level, text].
import { chromium } from './chromium.mjs';
import { firefox } from './firefox.mjs';
import { webkit } from './webkit.mjs';

const starters = { chromium, firefox, webkit };

export const browserNames = Object.keys(starters);

/** @param {'chromium' | 'firefox' | 'webkit'} name */
export async function startBrowser(name, options = {}) {
  if (!starters[name]) throw new Error(`There is no browser "${name}"; there are ${browserNames.join(', ')}`);
  return starters[name](options);
}
