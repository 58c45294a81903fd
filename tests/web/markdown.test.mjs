// The page's markdown: what comes token by token ends as what comes at once; nothing a model writes becomes HTML; no answer is too long.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { chatDist } from '../../web/chat/serve.mjs';
import { startBrowser } from '../../web/harness/browser.mjs';
import { serve } from '../../web/harness/serve.mjs';
import { browserTest } from './support.mjs';

const web = join(dirname(fileURLToPath(import.meta.url)), '../../web');
const esbuild = createRequire(join(web, 'package.json'))('esbuild');

const CASES = [
  // name, markdown, HTML
  ['paragraphs', 'One\ntwo\n\nThree', '<p>One<br>two</p><p>Three</p>'],
  ['emphasis', 'a **b** *c* ***d*** __e__ _f_ ~~g~~', '<p>a <strong>b</strong> <em>c</em> <strong><em>d</em></strong> <strong>e</strong> <em>f</em> <del>g</del></p>'],
  ['nested emphasis', '**a *b* c**', '<p><strong>a <em>b</em> c</strong></p>'],
  ['marks that are none', '2 * 3 * 4, snake_case_name, a*, ** b', '<p>2 * 3 * 4, snake_case_name, a*, ** b</p>'],
  ['never closed', 'see **this and `that', '<p>see **this and `that</p>'],
  ['escapes', '\\*a\\* \\_b\\_ \\d', '<p>*a* _b_ \\d</p>'],
  ['code', 'use `a < b` and ``c ` d``', '<p>use <code>a &lt; b</code> and <code>c ` d</code></p>'],
  ['headings', '# A\n## B\ntext\n#### D', '<h3>A</h3><h4>B</h4><p>text</p><h5>D</h5>'],
  ['no heading', '#tag', '<p>#tag</p>'],
  ['list', '- a\n- b **c**\n- d', '<ul><li>a</li><li>b <strong>c</strong></li><li>d</li></ul>'],
  ['numbers from three', '3. a\n4. b', '<ol start="3"><li>a</li><li>b</li></ol>'],
  ['nested list', '1. a\n   - b\n   - c\n2. d', '<ol><li>a<ul><li>b</li><li>c</li></ul></li><li>d</li></ol>'],
  ['loose list', '1. a\n\n2. b\n\n   more\n\nend', '<ol><li>a</li><li>b<p>more</p></li></ol><p>end</p>'],
  ['list after text', 'Do:\n* a\n* b', '<p>Do:</p><ul><li>a</li><li>b</li></ul>'],
  ['rule', 'a\n\n---\n\nb', '<p>a</p><hr><p>b</p>'],
  ['quote', '> a **b**\n> c\n\nd', '<blockquote><p>a <strong>b</strong><br>c</p></blockquote><p>d</p>'],
  ['link', '[a *b*](https://x.org/c) and <https://y.org>', '<p><a href="https://x.org/c">a <em>b</em></a> and <a href="https://y.org/">https://y.org</a></p>'],
  ['bare link', 'see https://x.org/a_b_c.', '<p>see <a href="https://x.org/a_b_c">https://x.org/a_b_c</a>.</p>'],
  ['hostile links', '[a](javascript:alert(1)) [b](data:text/html,x) [c](JaVaScRiPt:x)', '<p><span>a</span> <span>b</span> <span>c</span></p>'],
  ['a picture is a link', '![a](https://x.org/p.png)', '<p><a href="https://x.org/p.png">a</a></p>'],
  ['html is text', '<img src=x onerror=alert(1)> <script>x</script>', '<p>&lt;img src=x onerror=alert(1)&gt; &lt;script&gt;x&lt;/script&gt;</p>'],
  ['fence', 'a\n```js\nlet x = "**";\n\n  y\n```\nb', '<p>a</p><code-block lang="js">let x = "**";\n\n  y</code-block><p>b</p>'],
  ['open fence', '```\n<b>', '<code-block lang="code">&lt;b&gt;</code-block>'],
  ['fence in a list', '1. a\n   ```\n   x\n   ```\n2. b', '<ol><li>a<code-block lang="code">x</code-block></li><li>b</li></ol>'],
  ['fence inside a longer one', '````\n```\n````', '<code-block lang="code">```</code-block>'],
  ['table', '| a | b |\n|---|:-:|\n| `c` | d |\n\nend', '<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td><code>c</code></td><td>d</td></tr></tbody></table><p>end</p>'],
  ['table without edges', 'a | b\n--- | ---\nc | d', '<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>c</td><td>d</td></tr></tbody></table>'],
  ['windows lines', 'a\r\n\r\n- b\r\n', '<p>a</p><ul><li>b</li></ul>'],
  ['unicode', 'naïve **日本語** 🙂', '<p>naïve <strong>日本語</strong> 🙂</p>'],
];

browserTest('markdown', { needsModel: false }, async (t) => {
  const { outputFiles } = await esbuild.build({ entryPoints: [join(web, 'chat/src/markdown.ts')], bundle: true, write: false, format: 'iife', globalName: 'sbMarkdown' });
  const server = await serve({ mounts: { '/': chatDist } });
  const browser = await startBrowser('chromium').catch(async (error) => {
    await server.close();
    throw error;
  });
  try {
    await browser.open(`${server.url}style.css`); // any page of ours without a script
    await browser.page.addScriptTag({ content: outputFiles[0].text });
    await browser.evaluate(() => {
      // The same nodes without what only serves the look.
      window.render = (text, size) => {
        const root = document.createElement('div');
        const stream = new sbMarkdown.Markdown(root);
        for (let i = 0; i < text.length; i += size) {
          stream.push(text.slice(i, i + size));
          stream.show();
        }
        stream.end();
        for (const block of root.querySelectorAll('.code')) {
          const code = document.createElement('code-block');
          code.lang = block.querySelector('.code-head span').textContent;
          code.textContent = block.querySelector('code').textContent;
          block.replaceWith(code);
        }
        for (const table of root.querySelectorAll('.table')) table.replaceWith(table.firstChild);
        for (const link of root.querySelectorAll('a')) for (const name of ['target', 'rel']) link.removeAttribute(name);
        return root.innerHTML;
      };
    });
    for (const [name, text, html] of CASES) {
      await t.test(name, async () => {
        assert.equal(await browser.evaluate((s) => window.render(s, s.length), text), html);
        for (const size of [1, 2, 3, 5]) assert.equal(await browser.evaluate((s, n) => window.render(s, n), text, size), html, `in pieces of ${size}`);
      });
    }
    await t.test('every link opens elsewhere and tells nothing', async () => {
      const links = await browser.evaluate(() => {
        const root = document.createElement('div');
        sbMarkdown.renderMarkdown(root, '[a](http://x.org) https://y.org <https://z.org>');
        return [...root.querySelectorAll('a')].map(({ target, rel }) => `${target} ${rel}`);
      });
      assert.deepEqual(links, Array(3).fill('_blank noopener noreferrer nofollow'));
    });
    const LONG = [
      ['words', 'lorem ipsum dolor '],
      ['marks that never close', '*a _b `c **d '],
      ['brackets', '[a](b [[[ '],
      ['list items', '- item of a list\n'],
      ['code', '    let x = 1;\n'],
      ['one word', 'a'],
    ];
    for (const [name, unit] of LONG) {
      // Quadratic would be a hundred times as long for ten times the text.
      await t.test(`time grows with the length, not its square: ${name}`, async () => {
        const times = await browser.evaluate((piece) => {
          const ms = (n) => {
            const text = (piece.startsWith('    ') ? '```\n' : '') + piece.repeat(Math.ceil(n / piece.length));
            const start = performance.now();
            window.render(text, 4);
            return performance.now() - start;
          };
          ms(1000);
          return [ms(8000), ms(80_000)];
        }, unit);
        t.diagnostic(`${name}: ${times.map((time) => time.toFixed(0)).join(' → ')} ms`);
        assert.ok(times[1] < 40 * Math.max(times[0], 5), `${times}`);
      });
    }
  } finally {
    await browser.close();
    await server.close();
  }
});
