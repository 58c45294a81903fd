// A contender that runs in a page: serves its files, keeps one browser profile a (model, threads) group, so that from the second start on
// the model comes from whatever cache the contender keeps.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium, drop_profile, fresh_profile, keeps_storage, open_page, serve } from '../browser.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));

/** name; browser; adapter: file beside this one; folders: {'/prefix/': folder} it is served from; downloads: files a page with threads fetches;
 * built_by: what to run when a file is missing. */
export function in_page(about) {
  const { name, browser = 'chromium', is_ours = false, adapter, folders, downloads, built_by } = about;
  const file_of = (url) => { const prefix = Object.keys(folders).find((p) => url.startsWith(p)); return path.join(folders[prefix], url.slice(prefix.length)); };
  return {
    name: browser === 'chromium' ? name : `${name} ${browser}`, is_ours,
    in_browser: (other) => in_page({ ...about, browser: other }),
    missing() {
      if (browser === 'chromium' && !chromium()) return 'Chromium is not installed (set CHROMIUM to its path)';
      const lacking = downloads().filter((url) => !fs.existsSync(file_of(url)));
      return lacking.length ? `${file_of(lacking[0])} is not there: ${built_by}` : null;
    },
    payload: () => (browser === 'chromium' ? downloads().map(file_of) : null),
    /** Resolves to {start, close}: start() opens the page anew. */
    async prepare({ file, threads, context, proof }) {
      const server = await serve({ '/adapters/': here, '/models/': path.dirname(file), ...folders });
      const profile = fresh_profile();
      const page = { browser, base: server.base, adapter: `/adapters/${adapter}`, model: `/models/${path.basename(file)}${fs.statSync(file).isDirectory() ? '/' : ''}`, threads, context, profile, proof };
      if (keeps_storage(browser)) await (await open_page(page)).stop(); // fills the cache; what is measured is a visitor who comes back
      return {
        is_kept: keeps_storage(browser),
        start: () => open_page(page),
        async close() { server.close(); drop_profile(profile); },
      };
    },
  };
}
