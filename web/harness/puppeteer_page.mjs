// The common face over a puppeteer page.
export async function puppeteerBrowser(name, browser, { onLog = () => {}, viewport, cleanUp }) {
  const page = await browser.newPage();
  page.setDefaultTimeout(0); // callers bound their own waits
  if (viewport) await page.setViewport(viewport);
  const logs = [];
  const log = (level, text) => {
    logs.push([level, text]);
    onLog(level, text);
  };
  page.on('console', (message) => log(message.type(), message.text()));
  page.on('pageerror', (error) => log('error', error?.message ?? String(error)));
  return {
    name,
    version: await browser.version(),
    logs,
    page,
    open: async (url) => void (await page.goto(url, { waitUntil: 'load' })),
    evaluate: (code, ...args) => page.evaluate(code, ...args),
    screenshot: async (path) => void (await page.screenshot({ path })),
    async close() {
      await browser.close();
      cleanUp();
    },
  };
}
