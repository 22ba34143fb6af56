// One panel, by Grafana's own components where npm has them.
import { FieldType, formattedValueToString, getFieldDisplayName, getFieldDisplayValues, renderTextPanelMarkdown, dateTime } from '@grafana/data';
import { BarGauge, BigValue, PanelContextProvider, Table, TimeSeries } from '@grafana/ui';
import { EventBusSrv } from '@grafana/data';
import { Bars, Pie, States } from './charts.jsx';

const context = { eventsScope: 'draw', eventBus: new EventBusSrv() };

export function Visualization(props) {
  const { panel, series, width, height } = props;
  if (panel.type === 'text') {
    return <div className="markdown-html" dangerouslySetInnerHTML={{ __html: renderTextPanelMarkdown(panel.options.content) }} />;
  }
  if (panel.type === 'geomap') return <p>A map is drawn by a Grafana server only.</p>;
  // Grafana says what the panel has for this, or `No data` in English.
  if (!series.some((frame) => frame.length > 0)) return <p data-empty="">{panel.fieldConfig.defaults.noValue ?? 'No data'}</p>;
  const Chart = { timeseries: Series, trend: Trend, stat: Stat, bargauge: Gauges, table: Rows, barchart: Bars, piechart: Pie, 'state-timeline': States }[panel.type];
  if (!Chart) return <p>No data: panels of type {panel.type} cannot be drawn</p>;
  return <PanelContextProvider value={context}><Chart {...props} width={width} height={height} /></PanelContextProvider>;
}

function timeRange({ from, to }) {
  const [first, last] = [dateTime(from), dateTime(to)];
  return { from: first, to: last, raw: { from: first, to: last } };
}

function Series({ panel, series, events, width, height, range, timeZone, theme }) {
  return <TimeSeries frames={series} structureRev={1} width={width} height={height} timeRange={timeRange(range)} timeZone={timeZone}
    legend={panel.options.legend} options={panel.options} theme={theme}>{(config) => { config.addHook('draw', (plot) => mark(plot, events, theme)); return null; }}</TimeSeries>;
}

/** As Grafana's own annotations: a dashed line where one begins and ends, and a veil between. */
function mark(plot, events, theme) {
  const { ctx, bbox: { left, top, width, height } } = plot;
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, top, width, height + 8);
  ctx.clip();
  for (const { from, to, color } of events) {
    const [begin, end] = [from, to].map((at) => plot.valToPos(at, 'x', true));
    const shade = theme.visualization.getColorByName(color);
    ctx.strokeStyle = ctx.fillStyle = shade;
    ctx.setLineDash([5, 5]);
    for (const x of new Set([begin, end])) {
      ctx.beginPath();
      ctx.moveTo(x, top);
      ctx.lineTo(x, top + height);
      ctx.stroke();
    }
    ctx.globalAlpha = 0.1;
    ctx.fillRect(begin, top, end - begin, height);
    ctx.globalAlpha = 1;
    ctx.fillRect(begin - 2, top + height, Math.max(4, end - begin), 5);
  }
  ctx.restore();
}

/** As Grafana's trend panel: one frame, whose x is a number. */
function Trend({ panel, series, width, height, range, timeZone, theme }) {
  const [frame] = series;
  const x = frame.fields.find((f) => getFieldDisplayName(f, frame, series) === panel.options.xField);
  if (x?.type !== FieldType.number) return <p>No data: {panel.options.xField} is no number</p>;
  const wide = { ...frame, fields: [x, ...frame.fields.filter((f) => f !== x && f.type === FieldType.number)] };
  wide.fields.forEach((field, index) => { field.state = { ...field.state, seriesIndex: Math.max(0, index - 1), origin: { frameIndex: 0, fieldIndex: index } }; });
  return <TimeSeries frames={[wide]} structureRev={1} width={width} height={height} timeRange={timeRange(range)} timeZone={timeZone}
    preparePlotFrame={() => wide} legend={panel.options.legend} options={panel.options} theme={theme} />;
}

function displays({ panel, series, theme, timeZone }) {
  return getFieldDisplayValues({ fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions, replaceVariables: (text) => text, theme, data: series, timeZone });
}

function Stat(props) {
  const { panel, width, height, theme } = props;
  const values = displays(props);
  return <div style={{ display: 'flex' }}>{values.map((value, index) => (
    <BigValue key={index} value={values.length === 1 ? { ...value.display, title: undefined } : value.display} width={width / values.length} height={height}
      theme={theme} colorMode={panel.options.colorMode} graphMode="none" justifyMode="center" textMode={panel.options.textMode} />
  ))}</div>;
}

function Gauges(props) {
  const { panel, width, height, theme } = props;
  const values = displays(props);
  return <div>{values.map((value, index) => (
    <BarGauge key={index} value={value.display} field={value.field} display={value.view?.getFieldDisplayProcessor(value.colIndex)} width={width}
      height={Math.min(height / values.length - 4, panel.options.maxVizHeight)} theme={theme} orientation={panel.options.orientation}
      displayMode={panel.options.displayMode} valueDisplayMode={panel.options.valueMode} namePlacement={panel.options.namePlacement}
      showUnfilled={panel.options.showUnfilled} itemSpacing={8} alignmentFactors={{ title: values.map((v) => v.display.title).sort((a, b) => b.length - a.length)[0], text: '99 weeks' }} />
  ))}</div>;
}

function Rows({ panel, series, width, height, range, timeZone }) {
  void formattedValueToString;
  return <Table data={series[0]} width={width} height={height} timeRange={timeRange(range)} timeZone={timeZone} showTypeIcons={false}
    noHeader={panel.options.showHeader === false} cellHeight={panel.options.cellHeight} />;
}
