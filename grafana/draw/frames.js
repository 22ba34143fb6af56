// From a panel's queries to frames, as Grafana's Prometheus data source makes them, and through the
// panel's own transformations and field configuration.
import {
  applyFieldOverrides, dateTime, FieldType, Registry, standardTransformers, standardTransformersRegistry, toDataFrame,
  transformDataFrame,
} from '@grafana/data';
import { lastValueFrom } from 'rxjs';

standardTransformersRegistry.setInit(() =>
  [...new Map(Object.values(standardTransformers).map((t) => [t.id, t])).values()].map((transformation) => ({
    id: transformation.id, name: transformation.name, description: '', transformation: () => Promise.resolve(transformation), editor: () => null,
  }))
);

/** Properties of a field that Grafana knows for every panel; all others are the panel's own. */
const STANDARD = ['unit', 'decimals', 'displayName', 'mappings', 'thresholds', 'links', 'min', 'max', 'color', 'noValue'];

/** What Grafana takes when a dashboard leaves it out. */
const CUSTOM = {
  timeseries: { drawStyle: 'line', lineInterpolation: 'linear', barAlignment: 0, barWidthFactor: 0.6, lineWidth: 1, fillOpacity: 0,
    gradientMode: 'none', pointSize: 5, showPoints: 'auto', spanNulls: false, axisPlacement: 'auto', stacking: { mode: 'none', group: 'A' } },
  table: { align: 'auto', cellOptions: { type: 'auto' } },
};
CUSTOM.trend = CUSTOM.timeseries;

export async function fieldsOf(panel, context) {
  if (!panel.targets) return [];
  const lists = await Promise.all(panel.targets.map((target) => query(panel, target, context)));
  const frames = lists.flat();
  const transformations = (panel.transformations ?? []).filter((t) => !t.disabled);
  for (const { id } of transformations) {
    if (!standardTransformersRegistry.getIfExists(id)) throw new Error(`no transformation ${id} without a server`);
  }
  const transformed = await lastValueFrom(transformDataFrame(transformations, frames));
  const byThreshold = ['stat', 'bargauge', 'table', 'state-timeline'].includes(panel.type);
  const { defaults, overrides } = panel.fieldConfig;
  return applyFieldOverrides({
    data: transformed,
    fieldConfig: {
      defaults: {
        color: { mode: byThreshold ? 'thresholds' : 'palette-classic' },
        thresholds: { mode: 'absolute', steps: [{ value: -Infinity, color: 'green' }] },
        ...withoutNullThreshold(defaults),
        custom: { ...CUSTOM[panel.type], ...defaults.custom },
      },
      overrides,
    },
    replaceVariables: (text) => text,
    theme: context.theme,
    timeZone: context.timeZone,
    fieldConfigRegistry: registry(panel),
  });
}

/** JSON has no -Infinity; Grafana reads null as it. */
function withoutNullThreshold(defaults) {
  if (!defaults.thresholds) return defaults;
  const steps = defaults.thresholds.steps.map((step) => ({ ...step, value: step.value ?? -Infinity }));
  return { ...defaults, thresholds: { ...defaults.thresholds, steps } };
}

function registry(panel) {
  const item = (id, path, isCustom) => ({ id, path, name: id, isCustom, process: (value) => value, shouldApply: () => true, override: () => null, editor: () => null });
  const custom = new Set(Object.keys({ ...CUSTOM[panel.type], ...panel.fieldConfig.defaults.custom }));
  for (const { properties } of panel.fieldConfig.overrides) {
    for (const { id } of properties) if (id.startsWith('custom.')) custom.add(id.slice('custom.'.length));
  }
  return new Registry(() => [
    ...STANDARD.map((id) => item(id, id, false)),
    ...[...custom].map((path) => item(`custom.${path}`, path, true)),
  ]);
}

/** The most points that Grafana asks for: as many as a panel is wide, and a hundred annotations. */
const POINTS = { panel: 800, annotation: 100 };

/** The events of a dashboard's annotations, as Grafana's Prometheus data source makes them of a range query. */
export async function annotationsOf(dashboard, context) {
  const lists = await Promise.all(dashboard.annotations.list.map(async (annotation) => {
    const { result, step } = await ask(annotation.target, context, POINTS.annotation);
    return result.flatMap(({ metric, values }) => {
      const events = [];
      for (const at of values.filter(([, value]) => Number(value) > 0).map(([time]) => time * 1000)) {
        const last = events.at(-1);
        if (last && last.to + step * 1000 >= at) last.to = at;
        else events.push({ from: at, to: at, color: annotation.iconColor, title: legend(annotation.titleFormat, metric), text: legend(annotation.textFormat, metric) });
      }
      return events;
    });
  }));
  return lists.flat();
}

async function query(panel, target, context) {
  const { result, step } = await ask(target, context, POINTS.panel);
  const several = panel.targets.filter((t) => t.format === 'table').length > 1;
  return target.format === 'table' ? [table(result, target, several)] : result.map((row) => series(row, target, step));
}

async function ask(target, { prometheus, range, values, timeZone }, points) {
  const seconds = (millis) => Math.floor(millis / 1000);
  const least = target.interval === '1d' ? 86400 : 600;
  const step = Math.max(least, Math.ceil((range.to - range.from) / 1000 / points / least) * least);
  const expr = target.expr
    .replaceAll('${__from:date:seconds}', seconds(range.from))
    .replaceAll('${__to:date:seconds}', seconds(range.to))
    .replaceAll('${__range_s}', Math.round((range.to - range.from) / 1000))
    .replaceAll('$__rate_interval', '20m')
    .replaceAll('$__interval', `${step}s`)
    .replace(/\$(\w+)/g, (whole, name) => values[name] ?? whole);
  // Grafana aligns by the offset that holds at the end of the range.
  const shift = zoneOffset(dateTime(range.to).toDate(), timeZone);
  const align = (millis) => Math.floor((seconds(millis) + shift) / step) * step - shift;
  const [path, form] = target.instant
    ? ['query', { query: expr, time: range.to / 1000 }]
    : ['query_range', { query: expr, start: align(range.from), end: align(range.to), step }];
  const response = await fetch(`${prometheus}/api/v1/${path}`, { method: 'POST', body: new URLSearchParams(form) });
  const answer = await response.json();
  if (answer.status !== 'success') throw new Error(`${answer.error} in ${expr}`);
  return { result: answer.data.result, step };
}

function legend(format, labels) {
  return format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => labels[label] ?? '');
}

/** Seconds by which a zone is ahead of UTC. */
function zoneOffset(date, timeZone) {
  const local = date.toLocaleString('sv-SE', { timeZone }).replace(' ', 'T');
  return Math.round((Date.parse(`${local}Z`) - date.getTime()) / 1000);
}

function series({ metric, value, values }, target, step) {
  const points = values ?? [value];
  const name = target.legendFormat
    ? legend(target.legendFormat, metric)
    : `{${Object.entries(metric).map(([name, text]) => `${name}="${text}"`).join(', ')}}`;
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: points.map(([at]) => at * 1000), config: { interval: step * 1000 } },
      { name: 'Value', type: FieldType.number, values: points.map(([, text]) => Number(text)), labels: metric, config: { displayNameFromDS: name } },
    ],
  });
}

function table(result, target, several) {
  const labels = [...new Set(result.flatMap(({ metric }) => Object.keys(metric)))].sort();
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: result.map(({ value }) => value[0] * 1000), config: {} },
      ...labels.map((label) => ({ name: label, type: FieldType.string, values: result.map(({ metric }) => metric[label] ?? ''), config: { filterable: true } })),
      { name: several ? `Value #${target.refId}` : 'Value', type: FieldType.number, values: result.map(({ value }) => Number(value[1])), config: {} },
    ],
  });
}
