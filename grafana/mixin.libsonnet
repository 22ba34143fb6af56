// The generated files for those who manage Prometheus and Grafana by jsonnet; jsonnet 0.18 or later. For another zone or
// job, import the one that `cargo xtask dashboards --out DIR` writes.
local groups(file) = std.parseYaml(file).groups;
{
  prometheusRules+:: {
    groups+:
      groups(importstr 'prometheus/rules/teiten-zone.yml')
      + groups(importstr 'prometheus/rules/teiten-day.yml')
      + groups(importstr 'prometheus/rules/teiten-month.yml')
      + groups(importstr 'prometheus/rules/teiten-hour.yml')
      + groups(importstr 'prometheus/rules/teiten-today.yml')
      + groups(importstr 'prometheus/rules/teiten-normal.yml')
      + groups(importstr 'prometheus/rules/teiten-unusual.yml'),
  },
  // Groups of alerts, with what they record for themselves.
  prometheusAlerts+:: { groups+: groups(importstr 'prometheus/rules/teiten-alerts.yml') },
  grafanaDashboards+:: {
    'teiten-monthly.en.json': import 'dashboards/teiten-monthly.en.json',
    'teiten-monthly.ja.json': import 'dashboards/teiten-monthly.ja.json',
    'teiten-port.en.json': import 'dashboards/teiten-port.en.json',
    'teiten-port.ja.json': import 'dashboards/teiten-port.ja.json',
    'teiten-region.en.json': import 'dashboards/teiten-region.en.json',
    'teiten-region.ja.json': import 'dashboards/teiten-region.ja.json',
    'teiten-sensors.en.json': import 'dashboards/teiten-sensors.en.json',
    'teiten-sensors.ja.json': import 'dashboards/teiten-sensors.ja.json',
  },
}
