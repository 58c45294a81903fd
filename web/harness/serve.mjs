// A static server on the loopback for the page, its tests and the benches: ranges, ETags, the headers that threads need, and on request
// the ways in which real servers let a download down.
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize, sep } from 'node:path';

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.map': 'application/json',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.ico': 'image/x-icon',
  '.wasm': 'application/wasm',
  '.webmanifest': 'application/manifest+json',
};

/**
 * @typedef {object} Fault How to answer a request badly; `serve({ fault })` returns one, or undefined, for each request.
 * @property {number} [status] answer with this status instead
 * @property {boolean} [noLength] chunked, without Content-Length (and without ranges)
 * @property {boolean} [noRanges] ignore Range, do not announce ranges
 * @property {number} [cutAfter] break the connection after so many bytes
 * @property {number} [flipAt] flip a bit of the file's byte here
 * @property {Promise<void>} [until] answer when this is over
 */

/**
 * @param {object} options
 * @param {Record<string, string>} options.mounts URL prefix (ending with '/') or exact URL path → folder or file
 * @param {number} [options.port] 0 takes a free one
 * @param {boolean} [options.isolation] send COOP and COEP, so that the page gets SharedArrayBuffer
 * @param {Record<string, (server: { requests: object[] }) => unknown>} [options.routes] exact URL path → what to answer as JSON
 * @param {(path: string) => string} [options.rewrite] the path that is served for a path that was asked for
 * @param {(request: { path: string, range: string | undefined, count: number, method: string }) => Fault | undefined} [options.fault]
 * @returns {Promise<{ url: string, requests: { path: string, range: string | undefined, status: number }[], close: () => Promise<void> }>}
 */
export async function serve({ mounts, port = 0, isolation = true, routes = {}, rewrite = (path) => path, fault = () => undefined }) {
  const requests = [];
  const counts = new Map();
  // The longest prefix wins.
  const prefixes = Object.keys(mounts).sort((a, b) => b.length - a.length);

  function fileOf(path) {
    for (const prefix of prefixes) {
      if (path === prefix && !prefix.endsWith('/')) return mounts[prefix];
      if (!prefix.endsWith('/') || !path.startsWith(prefix)) continue;
      const root = normalize(mounts[prefix]);
      const file = normalize(join(root, path.slice(prefix.length)));
      if (file === root || file.startsWith(root.endsWith(sep) ? root : root + sep)) return file;
    }
    return null;
  }

  async function answer(request, response) {
    let path;
    try {
      path = decodeURIComponent(new URL(request.url, 'http://localhost').pathname);
    } catch {
      return response.writeHead(400).end();
    }
    const range = request.headers.range;
    counts.set(path, (counts.get(path) ?? 0) + 1);
    const bad = fault({ path, range, count: counts.get(path), method: request.method }) ?? {};
    await bad.until;
    const headers = { 'Cross-Origin-Resource-Policy': 'cross-origin', 'Access-Control-Allow-Origin': '*', 'Cache-Control': 'no-cache' };
    if (isolation) {
      headers['Cross-Origin-Opener-Policy'] = 'same-origin';
      headers['Cross-Origin-Embedder-Policy'] = 'require-corp';
    }
    const finish = (status, more = {}) => {
      requests.push({ path, range, status });
      response.writeHead(status, { ...headers, ...more });
    };
    if (routes[path]) return finish(200, { 'Content-Type': TYPES['.json'] }), response.end(JSON.stringify(routes[path]({ requests })));
    if (bad.status) return finish(bad.status), response.end(`${bad.status}\n`);
    if (request.method !== 'GET' && request.method !== 'HEAD') return finish(405), response.end();

    let file = fileOf(rewrite(path));
    let found = file && (await stat(file).catch(() => null));
    if (found?.isDirectory()) {
      file = join(file, 'index.html');
      found = await stat(file).catch(() => null);
    }
    if (!found?.isFile()) return finish(404), response.end('not found\n');

    headers['Content-Type'] = TYPES[extname(file)] ?? 'application/octet-stream';
    headers.ETag = `"${found.size.toString(16)}-${Math.floor(found.mtimeMs).toString(16)}"`;
    const hasRanges = !bad.noRanges && !bad.noLength;
    if (hasRanges) headers['Accept-Ranges'] = 'bytes';
    if (request.headers['if-none-match'] === headers.ETag) return finish(304), response.end();

    let start = 0;
    let end = found.size; // exclusive
    const asked = hasRanges ? /^bytes=(\d*)-(\d*)$/.exec(range ?? '') : null;
    const isPart = asked && (asked[1] || asked[2]);
    if (isPart) {
      if (asked[1]) {
        start = Number(asked[1]);
        if (asked[2]) end = Math.min(end, Number(asked[2]) + 1);
      } else {
        start = Math.max(0, end - Number(asked[2]));
      }
      if (start >= end) return finish(416, { 'Content-Range': `bytes */${found.size}` }), response.end();
      headers['Content-Range'] = `bytes ${start}-${end - 1}/${found.size}`;
    }
    if (!bad.noLength) headers['Content-Length'] = end - start;
    finish(isPart ? 206 : 200);
    if (request.method === 'HEAD' || start === end) return response.end();

    const cut = bad.cutAfter !== undefined && bad.cutAfter < end - start;
    if (cut) end = start + bad.cutAfter;
    if (start === end) return response.write('', () => response.socket?.destroySoon?.());
    const bytes = createReadStream(file, { start, end: end - 1 });
    if (bad.flipAt >= start && bad.flipAt < end) {
      let at = start;
      bytes.prependListener('data', (piece) => {
        if (bad.flipAt >= at && bad.flipAt < at + piece.length) piece[bad.flipAt - at] ^= 1;
        at += piece.length;
      });
    }
    bytes.on('error', () => response.destroy());
    response.on('close', () => bytes.destroy());
    if (!cut) return bytes.pipe(response);
    bytes.on('data', (piece) => response.write(piece) || (bytes.pause(), response.once('drain', () => bytes.resume())));
    // What was written goes out first; then the line breaks.
    bytes.on('end', () => response.write('', () => response.socket?.destroySoon?.()));
  }

  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    requests,
    close: () =>
      new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      }),
  };
}
