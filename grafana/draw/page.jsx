// What runs in the browser: queries, frames, and the dashboard's grid.
import { createTheme, ThemeContext } from '@grafana/data';
import { GlobalStyles } from '@grafana/ui';
// Grafana's font, by whose widths its components measure their texts.
import '@fontsource/inter/latin-400.css';
import '@fontsource/inter/latin-500.css';
import { createRoot } from 'react-dom/client';
import { flushSync } from 'react-dom';
import { annotationsOf, fieldsOf } from './frames.js';
import { Visualization } from './panels.jsx';

/** A unit of Grafana's grid, and the gap between panels, in pixels. */
const UNIT = 30;
const GAP = 8;

window.draw = async ({ dashboard, prometheus, from, to, theme: mode, width, variables }) => {
  await Promise.all([400, 500].map((weight) => document.fonts.load(`${weight} 14px Inter`)));
  const theme = createTheme({ colors: { mode } });
  const values = { datasource: 'prometheus', ...variables };
  for (const { name, current } of dashboard.templating.list) {
    values[name] ??= [current?.value].flat()[0] === '$__all' ? '.*' : [current?.value].flat()[0];
  }
  // A title shows what the viewer chose, a query has its value.
  const texts = { ...values };
  for (const { name, options } of dashboard.templating.list) {
    texts[name] = options?.find(({ value }) => value === values[name])?.text ?? values[name];
  }
  const range = { from, to };
  const events = await annotationsOf(dashboard, { prometheus, range, values, timeZone: dashboard.timezone });
  const panels = [];
  for (const panel of dashboard.panels) {
    try {
      const series = await fieldsOf(panel, { prometheus, range, values, theme, timeZone: dashboard.timezone });
      panels.push({ panel, series });
    } catch (error) {
      panels.push({ panel, error: String(error) });
    }
  }
  const column = width / 24;
  const height = Math.max(...dashboard.panels.map((p) => p.gridPos.y + p.gridPos.h)) * (UNIT + GAP);
  const root = createRoot(document.getElementById('root'));
  flushSync(() =>
    root.render(
      <ThemeContext.Provider value={theme}>
        <GlobalStyles />
        <div style={{ position: 'relative', height, width, background: theme.colors.background.canvas }}>
          {panels.map(({ panel, series, error }) => {
            const { x, y, w, h } = panel.gridPos;
            const box = { left: x * column, top: y * (UNIT + GAP), width: w * column - GAP, height: h * (UNIT + GAP) - GAP };
            return (
              <div key={panel.id} id={`panel-${panel.id}`} style={{ position: 'absolute', boxSizing: 'border-box', ...box,
                background: theme.colors.background.primary, border: `1px solid ${theme.colors.border.weak}`, overflow: 'hidden' }}>
                <h6 style={{ margin: 0, padding: '6px 8px', fontSize: 14 }}>{replace(panel.title, texts)}</h6>
                {panel.type === 'row' || error ? error : (
                  <div style={{ padding: 8 }}>
                    <Visualization panel={panel} series={series} events={events} width={box.width - 18} height={box.height - 48} range={range}
                      theme={theme} timeZone={dashboard.timezone} />
                  </div>
                )}
              </div>
            );
          })}
        </div>
      </ThemeContext.Provider>
    )
  );
  return { events, panels: panels.map(({ panel, error }) => ({ id: panel.id, title: panel.title, error })) };
};

function replace(text, values) {
  return text.replace(/\$(\w+)/g, (whole, name) => values[name] ?? whole);
}
