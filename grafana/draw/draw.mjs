// Draws every panel of every dashboard to a PNG, from a real Prometheus and without Grafana:
//
//   cargo xtask history --port 19090          # in another terminal
//   npm install && npm run draw -- --prometheus http://127.0.0.1:19090 --out /tmp/panels
//
// Queries, transformations, field configuration and options are the dashboard's. Time series, stats,
// tables, bar gauges and texts are Grafana's own components; bar charts, pies and state timelines are
// drawn here from the same field configuration, since Grafana ships them only inside the server. Maps
// need the server's tiles and are left out.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';
import { chromium } from 'playwright-core';

const here = dirname(fileURLToPath(import.meta.url));
const { values: options } = parseArgs({
  options: {
    prometheus: { type: 'string', default: 'http://127.0.0.1:9090' },
    out: { type: 'string', default: join(tmpdir(), 'teiten-panels') },
    // As in 2010-07; by default the last one that Prometheus has.
    month: { type: 'string' },
    // Instead of a month: local times, as in 2010-07-16T00:00; the last one is not in the range.
    from: { type: 'string' },
    to: { type: 'string' },
    // What `cargo xtask dashboards --out` wrote of them.
    dashboards: { type: 'string', default: join(here, '..', 'dashboards') },
    // Panels without data are meant to be so.
    empty: { type: 'boolean', default: false },
    // Only dashboards whose file name contains this.
    only: { type: 'string', default: '' },
    theme: { type: 'string', default: 'light' },
    width: { type: 'string', default: '1600' },
    // Only so many pixels from the top of a dashboard's picture.
    top: { type: 'string' },
    chromium: { type: 'string', default: process.env.CHROMIUM ?? '/usr/bin/chromium' },
    // NAME=VALUE for a variable of the dashboards, repeatable.
    variable: { type: 'string', multiple: true, default: [] },
  },
});

/** The newest month for which the recording rules have written an amount. */
async function newestMonth() {
  const response = await fetch(`${options.prometheus}/api/v1/label/month/values`);
  const { data } = await response.json();
  if (!data?.length) throw new Error(`${options.prometheus} has no recorded months; see cargo xtask history --help`);
  return data.sort().at(-1);
}

/** Epoch milliseconds of a local time. */
function local(text, zone) {
  const utc = Date.parse(`${text}Z`);
  if (Number.isNaN(utc)) throw new Error(`${text} is no time like 2010-07-16T00:00`);
  const shown = new Date(utc).toLocaleString('sv-SE', { timeZone: zone });
  return utc - (Date.parse(`${shown.replace(' ', 'T')}Z`) - utc);
}

/** First and last millisecond of what is drawn. */
async function range(zone) {
  if (options.from && options.to) return { from: local(options.from, zone), to: local(options.to, zone) - 1 };
  const [year, month] = (options.month ?? (await newestMonth())).split('-').map(Number);
  const next = new Date(Date.UTC(year, month, 1)).toISOString().slice(0, 7);
  return { from: local(`${year}-${String(month).padStart(2, '0')}-01T00:00`, zone), to: local(`${next}-01T00:00`, zone) - 1 };
}

const bundle = await build({
  entryPoints: [join(here, 'page.jsx')],
  bundle: true,
  write: false,
  format: 'iife',
  jsx: 'automatic',
  define: { 'process.env.NODE_ENV': '"production"', global: 'window' },
  // The CommonJS builds: bundlers give what `.mjs` files import from CommonJS one `default` too many.
  plugins: [{
    name: 'commonjs',
    setup: (builder) => builder.onResolve({ filter: /^@grafana\// }, ({ path }) => ({ path: createRequire(import.meta.url).resolve(path) })),
  }],
  loader: { '.svg': 'text', '.ttf': 'empty', '.woff': 'dataurl', '.woff2': 'dataurl' },
  outdir: 'out',
  logLevel: 'error',
});
const script = bundle.outputFiles.find((file) => file.path.endsWith('.js')).text;
const style = bundle.outputFiles.find((file) => file.path.endsWith('.css'))?.text ?? '';

const profile = mkdtempSync(join(tmpdir(), 'teiten-chromium-'));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: options.chromium,
  headless: true,
  viewport: { width: Number(options.width), height: 1000 },
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});
let failed = 0;
try {
  for (const name of readdirSync(options.dashboards).filter((n) => n.endsWith('.json') && n.includes(options.only)).sort()) {
    const dashboard = JSON.parse(readFileSync(join(options.dashboards, name), 'utf8'));
    const page = await browser.newPage();
    page.on('pageerror', (error) => console.error(`${name}: ${error.message}`));
    page.on('console', (message) => message.type() === 'error' && console.error(`${name}: ${message.text()}`));
    // A page that appears to come from Prometheus may query it.
    await page.route(`${options.prometheus}/draw`, (route) =>
      route.fulfill({ contentType: 'text/html', body: '<!doctype html><meta charset="utf-8"><body><div id="root"></div>' }));
    await page.goto(`${options.prometheus}/draw`);
    await page.addStyleTag({ content: `body { margin: 0 } ${style}` });
    await page.addScriptTag({ content: script });
    const { events, panels } = await page.evaluate((setting) => window.draw(setting), {
      dashboard,
      prometheus: options.prometheus,
      ...(await range(dashboard.timezone)),
      theme: options.theme,
      width: Number(options.width),
      variables: Object.fromEntries(options.variable.map((pair) => pair.split(/=(.*)/s).slice(0, 2))),
    });
    await page.waitForTimeout(1500);
    const out = join(options.out, name.replace(/\.json$/, ''));
    rmSync(out, { recursive: true, force: true });
    mkdirSync(out, { recursive: true });
    for (const panel of panels) {
      const locator = page.locator(`#panel-${panel.id}`);
      const empty = (await locator.locator('[data-empty]').count()) > 0 || /No data/.test(await locator.innerText());
      const problem = panel.error ?? (!options.empty && empty ? 'no data' : undefined);
      if (problem) {
        failed += 1;
        console.error(`${name}: panel ${panel.id} "${panel.title}": ${problem}`);
      }
      await locator.screenshot({ path: join(out, `${String(panel.id).padStart(2, '0')}.png`) });
    }
    const clip = options.top && { x: 0, y: 0, width: Number(options.width), height: Number(options.top) };
    await page.screenshot({ path: join(options.out, name.replace(/\.json$/, '.png')), fullPage: true, clip });
    console.log(`${name}: ${panels.length} panels and ${events.length} annotations in ${out}`);
    await page.close();
  }
} finally {
  await browser.close();
  rmSync(profile, { recursive: true, force: true });
}
process.exitCode = failed > 0 ? 1 : 0;
