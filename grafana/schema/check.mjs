// Type-checks every dashboard against @grafana/schema with `tsc --strict`.
//
// JSON modules widen literals to `string`, so each dashboard becomes a TypeScript file in which its
// parts are fresh literals: misspelt options and values outside of an enumeration are then errors.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const grafana = join(dirname(fileURLToPath(import.meta.url)), '..');
const out = join(grafana, 'node_modules', '.teiten-schema');

// Panel type to the directory and file of its options.
const plugins = {
  barchart: 'BarChart',
  bargauge: 'BarGauge',
  geomap: 'Geomap',
  piechart: 'PieChart',
  stat: 'Stat',
  'state-timeline': 'StateTimeline',
  table: 'Table',
  text: 'Text',
  timeseries: 'TimeSeries',
  trend: 'Trend',
};

// Enumerations are written as their values in JSON, and what is left out takes its default.
const prelude = `import type { AnnotationQuery, Dashboard, DataQuery, FieldConfig, Panel } from '@grafana/schema';
type Loose<T> = T extends string ? \`\${T}\` : T extends number ? T | (\`\${T}\` extends \`\${infer N extends number}\` ? N : never)
  : T extends boolean | null | undefined ? T
  : T extends Array<infer U> ? Array<Loose<U>>
  : T extends object ? { [K in keyof T]?: Loose<T[K]> } : T;
// What Grafana's Prometheus data source reads of an annotation; the schema leaves that to the data source.
interface PromQuery extends DataQuery { expr: string; interval: string; range: boolean; instant: boolean }
type Annotation = AnnotationQuery<PromQuery> & { titleFormat: string; textFormat: string; tagKeys: string };
`;

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
const files = readdirSync(join(grafana, 'dashboards')).filter((name) => name.endsWith('.json'));
let panels = 0;
for (const name of files) {
  const dashboard = JSON.parse(readFileSync(join(grafana, 'dashboards', name), 'utf8'));
  const lines = [prelude];
  for (const [type, file] of Object.entries(plugins)) {
    const path = `@grafana/schema/dist/esm/raw/composable/${type.replace('-', '')}/panelcfg/x/${file}PanelCfg_types.gen`;
    lines.push(`import type * as ${file} from '${path}';`);
  }
  const { panels: list, annotations, ...rest } = dashboard;
  lines.push(`export const dashboard: Loose<Omit<Dashboard, 'panels' | 'annotations'>> = ${JSON.stringify(rest)};`);
  lines.push(`export const annotations: Loose<Annotation>[] = ${JSON.stringify(annotations.list)};`);
  for (const panel of list) {
    if (panel.type === 'row') continue;
    const file = plugins[panel.type];
    if (!file) throw new Error(`${name}: no schema for panels of type ${panel.type}`);
    const { options, fieldConfig, ...model } = panel;
    const { custom, ...defaults } = fieldConfig.defaults;
    lines.push(`export const panel${panel.id}: Loose<Omit<Panel, 'options' | 'fieldConfig'>> = ${JSON.stringify(model)};`);
    lines.push(`export const options${panel.id}: Loose<${file}.Options> = ${JSON.stringify(options)};`);
    lines.push(`export const defaults${panel.id}: Loose<FieldConfig> = ${JSON.stringify(defaults)};`);
    if (Object.keys(custom ?? {}).length > 0) {
      lines.push(`export const custom${panel.id}: Loose<${file}.FieldConfig> = ${JSON.stringify(custom)};`);
    }
    panels += 1;
  }
  writeFileSync(join(out, name.replace(/\.json$/, '.ts')), lines.join('\n'));
}
writeFileSync(
  join(out, 'tsconfig.json'),
  JSON.stringify({
    compilerOptions: { strict: true, noEmit: true, module: 'esnext', moduleResolution: 'bundler', target: 'es2022', skipLibCheck: true, types: [] },
    include: ['*.ts'],
  }),
);
try {
  execFileSync(process.execPath, [join(grafana, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', out], { stdio: 'inherit' });
} catch {
  process.exit(1);
}
console.log(`${files.length} dashboards with ${panels} panels conform to @grafana/schema`);
