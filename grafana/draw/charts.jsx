// Bar charts, pies and state timelines as SVG: Grafana ships these panels only inside the server. Names,
// values, colours and units come from the same display processors.
import { FieldType, formattedValueToString, getFieldDisplayName, getFieldDisplayValues, getFieldSeriesColor } from '@grafana/data';

const shown = (field, value) => formattedValueToString(field.display(value));

function Legend({ items, theme, height }) {
  return <ul style={{ listStyle: 'none', margin: 0, fontSize: 12, maxHeight: height, overflow: 'hidden', whiteSpace: 'nowrap' }}>{items.map(({ name, color, values }) => (
    <li key={name} style={{ display: 'flex', gap: 8, color: theme.colors.text.primary }}>
      <span style={{ background: color, width: 14, height: 4, marginTop: 8 }} /><span style={{ flex: 1 }}>{name}</span>
      {values?.map((value, index) => <span key={index} style={{ minWidth: 50, textAlign: 'right' }}>{value}</span>)}
    </li>
  ))}</ul>;
}

/** Round steps for an axis that ends at or above `most`. */
function ticks(most) {
  const power = 10 ** Math.floor(Math.log10(most / 4 || 1));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n * 5 >= most);
  // Without what binary fractions add to the last digit.
  return Array.from({ length: Math.ceil(most / step) + 1 }, (_, index) => Number((index * step).toPrecision(12)));
}

export function Bars({ panel, series, width, height, theme }) {
  const frame = series[0];
  const x = frame.fields.find((field) => field.type === FieldType.string);
  const columns = frame.fields.filter((field) => field.type === FieldType.number);
  if (!x || columns.length === 0) return <p>No data: a bar chart needs a text and a number</p>;
  const { stacking, orientation, xTickLabelRotation: rotation } = panel.options;
  const totals = x.values.map((_, row) => columns.reduce((sum, column) => sum + (column.values[row] ?? 0), 0));
  const share = (value, row) => (stacking === 'percent' ? (totals[row] ? value / totals[row] : 0) : value);
  const most = stacking === 'percent' ? 1 : columns[0].config.max ?? Math.max(...(stacking === 'normal' ? totals : columns.flatMap((c) => c.values)));
  const axis = stacking === 'percent' ? [0, 0.2, 0.4, 0.6, 0.8, 1] : ticks(most);
  const top = axis.at(-1);
  const items = columns.map((column) => ({ name: getFieldDisplayName(column, frame, series), color: getFieldSeriesColor(column, theme).color }));
  const flat = orientation === 'horizontal';
  const legend = 150;
  const margin = { left: flat ? 110 : 60, right: flat ? 20 : 0, bottom: rotation ? 70 : 24, top: 6 };
  const [wide, high] = [width - legend - margin.left - margin.right, height - margin.bottom - margin.top];
  const along = flat ? high : wide;
  const group = along / x.values.length;
  const rects = [];
  x.values.forEach((_, row) => {
    let base = 0;
    columns.forEach((column, index) => {
      const size = share(column.values[row] ?? 0, row) / top;
      const stacked = stacking !== 'none';
      const thick = stacked ? group * 0.9 : (group * panel.options.groupWidth) / columns.length;
      const at = row * group + (stacked ? group * 0.05 : (group * (1 - panel.options.groupWidth)) / 2 + index * thick);
      rects.push(flat
        ? { x: base * wide, y: at, width: size * wide, height: thick, fill: items[index].color }
        : { x: at, y: (1 - base - size) * high, width: thick, height: size * high, fill: items[index].color });
      if (stacked) base += size;
    });
  });
  const label = (value) => (stacking === 'percent' ? `${Math.round(value * 100)}%` : shown(columns[0], value));
  const text = { fill: theme.colors.text.primary, fontSize: 12 };
  return <div style={{ display: 'flex', gap: 8 }}><svg width={width - legend} height={height}><g transform={`translate(${margin.left} ${margin.top})`}>
    {axis.map((value) => flat
      ? <g key={value}><line x1={(value / top) * wide} x2={(value / top) * wide} y1={0} y2={high} stroke={theme.colors.border.weak} /><text {...text} x={(value / top) * wide} y={high + 16} textAnchor="middle">{label(value)}</text></g>
      : <g key={value}><line x1={0} x2={wide} y1={(1 - value / top) * high} y2={(1 - value / top) * high} stroke={theme.colors.border.weak} /><text {...text} x={-6} y={(1 - value / top) * high + 4} textAnchor="end">{label(value)}</text></g>)}
    {rects.map((rect, index) => <rect key={index} {...rect} />)}
    {x.values.map((value, row) => {
      const middle = (row + 0.5) * group;
      return flat ? <text key={row} {...text} x={-6} y={middle + 4} textAnchor="end">{shown(x, value)}</text>
        : rotation ? <text key={row} {...text} textAnchor="end" transform={`translate(${middle} ${high + 14}) rotate(${rotation})`}>{shown(x, value)}</text>
          : <text key={row} {...text} x={middle} y={high + 16} textAnchor="middle">{shown(x, value)}</text>;
    })}
  </g></svg><Legend items={items} theme={theme} height={height} /></div>;
}

export function Pie({ panel, series, width, height, theme, timeZone }) {
  const values = getFieldDisplayValues({ fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions, replaceVariables: (text) => text, theme, data: series, timeZone });
  if (panel.options.sort !== 'none') values.sort((a, b) => b.display.numeric - a.display.numeric);
  const total = values.reduce((sum, { display }) => sum + display.numeric, 0);
  const percent = (value) => `${((value / total) * 100).toFixed(0)}%`;
  const radius = Math.min(height, width / 2) / 2 - 4;
  let from = 0;
  const slices = values.map(({ display }) => {
    const to = from + display.numeric / total;
    const at = (turn, r) => `${r * Math.sin(turn * 2 * Math.PI)} ${-r * Math.cos(turn * 2 * Math.PI)}`;
    const slice = { path: `M 0 0 L ${at(from, radius)} A ${radius} ${radius} 0 ${to - from > 0.5 ? 1 : 0} 1 ${at(to, radius)} Z`, label: at((from + to) / 2, radius * 0.72), display, wide: to - from > 0.045 };
    from = to;
    return slice;
  });
  const items = values.map(({ display }) => ({ name: display.title, color: display.color, values: [percent(display.numeric), formattedValueToString(display)] }));
  return <div style={{ display: 'flex', gap: 16 }}><svg width={width / 2} height={height}><g transform={`translate(${width / 4} ${height / 2})`}>
    {slices.map(({ path, display }, index) => <path key={index} d={path} fill={display.color} stroke={theme.colors.background.primary} />)}
    {slices.filter((s) => s.wide).map(({ label, display }, index) => {
      const [x, y] = label.split(' ');
      return <text key={index} x={x} y={y} fontSize={12} textAnchor="middle" fill={theme.colors.getContrastText(display.color)}>
        <tspan x={x}>{display.title}</tspan><tspan x={x} dy={14}>{percent(display.numeric)}</tspan></text>;
    })}
  </g></svg><div style={{ flex: 1 }}><Legend items={items} theme={theme} height={height} /></div></div>;
}

export function States({ panel, series: all, width, height, range, theme }) {
  // The first page; Grafana turns the others.
  const series = all.slice(0, panel.options.perPage);
  const high = height / series.length;
  const name = 120;
  return <svg width={width} height={height}>{series.map((frame, row) => {
    const [time, value] = frame.fields;
    const at = (millis) => name + ((millis - range.from) / (range.to - range.from)) * (width - name);
    return <g key={row} transform={`translate(0 ${row * high})`}>
      <text x={0} y={high / 2 + 4} fontSize={12} fill={theme.colors.text.primary}>{getFieldDisplayName(value, frame, series)}</text>
      {time.values.map((millis, index) => <rect key={index} x={at(millis)} width={Math.max(1, at(millis + time.config.interval) - at(millis) + 0.5)} y={high * 0.1} height={high * 0.8} fill={value.display(value.values[index]).color} />)}
    </g>;
  })}</svg>;
}
