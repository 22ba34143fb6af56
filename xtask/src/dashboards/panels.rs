//! Panels of Grafana's classic dashboard model, and their layout.

use serde_json::{Value, json};

/// The language of a dashboard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Language {
    English,
    Japanese,
}

impl Language {
    pub(super) const ALL: [Self; 2] = [Self::English, Self::Japanese];

    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Japanese => "ja",
        }
    }

    /// The text of this language.
    pub(super) const fn t(self, en: &'static str, ja: &'static str) -> &'static str {
        match self {
            Self::English => en,
            Self::Japanese => ja,
        }
    }
}

pub(super) fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// The order of a table's rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Rising,
    Falling,
}

/// How a query is run and read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// One point a day, aligned to the dashboard's midnight.
    Daily,
    /// As many points as the panel has room for.
    Range,
    /// One value at the end of the range, a series for each label set.
    Instant,
    /// One value at the end of the range, a row for each label set.
    Table,
}

pub(super) struct Panel(Value);

impl Panel {
    pub(super) fn new(kind: &str, title: &str, description: &str) -> Self {
        let mut panel = json!({
            "type": kind,
            "title": title,
            "description": description,
            "datasource": datasource(),
            "fieldConfig": { "defaults": { "unit": "locale", "decimals": 0, "custom": {} }, "overrides": [] },
            "options": {},
            "targets": [],
            "transformations": [],
        });
        // What Grafana would fill in, said here: what is drawn does not depend on its version.
        if matches!(kind, "timeseries" | "trend" | "barchart" | "piechart") {
            panel["fieldConfig"]["defaults"]["color"] = json!({ "mode": "palette-classic" });
        }
        if matches!(kind, "row" | "text") {
            let object = panel.as_object_mut().expect("a panel is an object");
            for key in ["datasource", "targets", "transformations"] {
                object.remove(key);
            }
        }
        Self(panel)
    }

    pub(super) fn query(mut self, run: Run, expression: &str, legend: &str) -> Self {
        let targets = self.0["targets"].as_array_mut().expect("targets");
        let id = char::from(b'A' + targets.len() as u8).to_string();
        let table = run == Run::Table;
        let instant = table || run == Run::Instant;
        let mut target = json!({
            "refId": id,
            "datasource": datasource(),
            "editorMode": "code",
            "expr": expression,
            "legendFormat": legend,
            "format": if table { "table" } else { "time_series" },
            "instant": instant,
            "range": !instant,
            "exemplar": false,
        });
        if run == Run::Daily {
            target["interval"] = json!("1d");
            self.0["interval"] = json!("1d");
            self.0["maxDataPoints"] = json!(1000);
        }
        self.0["targets"].as_array_mut().expect("targets").push(target);
        self
    }

    pub(super) fn options(mut self, options: Value) -> Self {
        merge(&mut self.0["options"], options);
        self
    }

    pub(super) fn defaults(mut self, defaults: Value) -> Self {
        merge(&mut self.0["fieldConfig"]["defaults"], defaults);
        self
    }

    pub(super) fn unit(self, unit: &str, decimals: u8) -> Self {
        self.defaults(json!({ "unit": unit, "decimals": decimals }))
    }

    /// Seconds, with as many digits as the scale asks for.
    pub(super) fn seconds(self) -> Self {
        self.scaled("s")
    }

    /// Parts of 1, shown in percent with as many digits as the scale asks for.
    pub(super) fn share(self) -> Self {
        self.scaled("percentunit")
    }

    /// Shares that add up to the whole: the axis ends there, whatever the rounding of their sum.
    pub(super) fn shares_of_whole(self) -> Self {
        self.share().defaults(json!({ "min": 0, "max": 1 }))
    }

    /// Shows this moment in every range that is given relative to it: Grafana asks for one value at the end of the
    /// range, and `now/M` to `now/M` ends in the future.
    pub(super) fn now(mut self) -> Self {
        merge(&mut self.0, json!({ "timeFrom": "5m", "hideTimeOverride": true }));
        self
    }

    /// What the panel says when it has no data.
    pub(super) fn empty(self, why: &str) -> Self {
        self.defaults(json!({ "noValue": why }))
    }

    fn scaled(mut self, unit: &str) -> Self {
        let defaults = self.0["fieldConfig"]["defaults"].as_object_mut().expect("defaults");
        defaults.remove("decimals");
        self.defaults(json!({ "unit": unit }))
    }

    /// Colours by value: `steps` are the least value of each, `null` for the first, and its colour.
    pub(super) fn thresholds(self, steps: &[(Value, &str)]) -> Self {
        let steps: Vec<Value> =
            steps.iter().map(|(value, color)| json!({ "value": value, "color": color })).collect();
        self.defaults(json!({
            "color": { "mode": "thresholds" },
            "thresholds": { "mode": "absolute", "steps": steps },
        }))
    }

    pub(super) fn overrides(mut self, overrides: impl IntoIterator<Item = Value>) -> Self {
        self.0["fieldConfig"]["overrides"].as_array_mut().expect("overrides").extend(overrides);
        self
    }

    /// Overrides that give names their colours; what has none gets one by its place, so that no two are alike.
    pub(super) fn colored(self, overrides: impl IntoIterator<Item = Value>) -> Self {
        self.overrides(overrides)
    }

    /// A click on the field `name` leads to the dashboard `uid`, where [`Self::link`] has no label to say.
    pub(super) fn link_of(self, name: &str, title: &str, uid: &str, parameters: &str) -> Self {
        self.overrides([by_name(name, &[("links", links(title, uid, parameters))])])
    }

    /// The rows of all queries joined by their labels, in the order of a field.
    pub(super) fn merged(self, field: &str, order: Order) -> Self {
        let falling = order == Order::Falling;
        self.transform("merge", json!({}))
            .transform("sortBy", json!({ "sort": [{ "field": field, "desc": falling }] }))
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers write the options in place")]
    pub(super) fn transform(mut self, id: &str, options: Value) -> Self {
        self.0["transformations"]
            .as_array_mut()
            .expect("transformations")
            .push(json!({ "id": id, "options": options }));
        self
    }

    /// A click leads to the dashboard `uid`, with `variables` for its URL.
    pub(super) fn link(self, title: &str, uid: &str, variables: &str) -> Self {
        self.defaults(json!({ "links": links(title, uid, variables) }))
    }

    /// Stacked daily bars, each on its own day.
    pub(super) fn daily_bars(title: &str, description: &str, expression: &str, legend: &str) -> Self {
        Self::new("timeseries", title, description)
            .query(Run::Daily, expression, legend)
            .defaults(json!({ "custom": {
                "drawStyle": "bars", "barAlignment": 1, "barWidthFactor": 0.8, "lineWidth": 0, "fillOpacity": 90,
                "stacking": { "mode": "normal", "group": "A" }, "axisSoftMin": 0, "showPoints": "never",
                "gradientMode": "none", "spanNulls": false, "thresholdsStyle": { "mode": "off" },
            } }))
            .options(json!({
                "legend": { "displayMode": "table", "placement": "right", "showLegend": true, "calcs": ["sum"] },
                "tooltip": { "mode": "multi", "sort": "desc", "hideZeros": true },
            }))
    }

    /// Shares of a whole, in whole percents and in the order of the result.
    pub(super) fn pie(title: &str, description: &str, expression: &str) -> Self {
        Self::new("piechart", title, description)
            .query(Run::Instant, expression, "{{name}}")
            .options(json!({
                "pieType": "pie", "sort": "none",
                "reduceOptions": { "values": false, "calcs": ["lastNotNull"], "fields": "" },
                "displayLabels": ["name", "percent"],
                "legend": { "displayMode": "table", "placement": "right", "showLegend": true, "values": ["percent", "value"] },
                "tooltip": { "mode": "single", "sort": "none" },
            }))
    }

    /// Bars of a table: one group for each `row`, one bar for each `column`, in the order of the label `by_size`
    /// where the result has it.
    pub(super) fn bars(
        title: &str,
        description: &str,
        expression: &str,
        (row, column): (&str, &str),
        stacking: &str,
    ) -> Self {
        Self::new("barchart", title, description)
            .query(Run::Table, expression, "")
            .transform("sortBy", json!({ "sort": [{ "field": "by_size", "desc": false }] }))
            .transform("groupingToMatrix", json!({ "columnField": column, "rowField": row, "valueField": "Value", "emptyValue": "zero" }))
            .defaults(json!({ "custom": {
                "lineWidth": 0, "fillOpacity": 90, "axisSoftMin": 0, "gradientMode": "none", "thresholdsStyle": { "mode": "off" },
            } }))
            .options(json!({
                "orientation": "vertical", "stacking": stacking, "showValue": "never", "groupWidth": 0.8, "barWidth": 0.9,
                "xTickLabelRotation": 0, "xTickLabelSpacing": 0, "fullHighlight": false, "barRadius": 0,
                "legend": { "displayMode": "list", "placement": "right", "showLegend": true, "calcs": [] },
                "tooltip": { "mode": "multi", "sort": "none" },
            }))
    }

    pub(super) fn stat(title: &str, description: &str, expression: &str) -> Self {
        Self::new("stat", title, description)
            .query(Run::Instant, expression, "")
            // An amount is neither good nor bad. Grafana's own colours are green, and red from 80.
            .defaults(json!({
                "color": { "mode": "fixed", "fixedColor": "text" },
                "thresholds": { "mode": "absolute", "steps": [{ "value": null, "color": "text" }] },
            }))
            .options(json!({
                "reduceOptions": { "values": false, "calcs": ["lastNotNull"], "fields": "" },
                "colorMode": "value", "graphMode": "none", "justifyMode": "auto", "textMode": "auto", "orientation": "auto",
                "wideLayout": true, "showPercentChange": false, "percentChangeColorMode": "standard",
            }))
    }

    pub(super) fn lines(title: &str, description: &str) -> Self {
        Self::new("timeseries", title, description)
            .defaults(json!({ "custom": {
                "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 2, "fillOpacity": 0, "axisSoftMin": 0,
                "showPoints": "auto", "pointSize": 5, "stacking": { "mode": "none", "group": "A" },
                "gradientMode": "none", "spanNulls": false, "thresholdsStyle": { "mode": "off" },
            } }))
            .options(json!({
                "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [] },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }))
    }

    pub(super) fn table(title: &str, description: &str) -> Self {
        Self::new("table", title, description)
            .options(json!({ "showHeader": true, "cellHeight": "sm" }))
            .defaults(json!({ "custom": { "align": "auto", "filterable": false } }))
    }

    pub(super) fn text(title: &str, description: &str, content: &str) -> Self {
        Self::new("text", title, description).options(json!({ "mode": "markdown", "content": content }))
    }
}

fn links(title: &str, uid: &str, parameters: &str) -> Value {
    json!([{
        "title": title,
        "url": format!("/d/{uid}?{parameters}&${{sensor:queryparam}}&${{__url_time_range}}"),
        "targetBlank": false,
    }])
}

/// The parameter of a link to the one panel of a dashboard that has that title.
pub(super) fn view(panels: &[Value], title: &str) -> String {
    let panel = panels.iter().find(|panel| panel["title"] == title).expect("the dashboard has the panel");
    format!("viewPanel={}", panel["id"])
}

/// A property of the field with that name.
pub(super) fn by_name(name: &str, properties: &[(&str, Value)]) -> Value {
    let properties: Vec<Value> =
        properties.iter().map(|(id, value)| json!({ "id": id, "value": value })).collect();
    json!({ "matcher": { "id": "byName", "options": name }, "properties": properties })
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Places panels from left to right on Grafana's grid of 24 columns.
pub(super) struct Layout {
    panels: Vec<Value>,
    x: u32,
    y: u32,
    line: u32,
}

impl Layout {
    pub(super) const fn new() -> Self {
        Self { panels: Vec::new(), x: 0, y: 0, line: 0 }
    }

    pub(super) fn row(&mut self, title: &str) {
        self.wrap();
        self.place(json!({ "type": "row", "title": title, "collapsed": false, "panels": [] }), 24, 1);
    }

    pub(super) fn add(&mut self, width: u32, height: u32, panel: Panel) {
        self.place(panel.0, width, height);
    }

    fn wrap(&mut self) {
        self.x = 0;
        self.y += self.line;
        self.line = 0;
    }

    fn place(&mut self, mut panel: Value, width: u32, height: u32) {
        if self.x + width > 24 {
            self.wrap();
        }
        panel["id"] = json!(self.panels.len() + 1);
        panel["gridPos"] = json!({ "x": self.x, "y": self.y, "w": width, "h": height });
        self.x += width;
        self.line = self.line.max(height);
        self.panels.push(panel);
    }

    /// The panels; those that say nothing else say in their language that they have no data. Grafana would also write
    /// that into each empty cell of a table, so these are mapped to a dash.
    pub(super) fn panels(mut self, l: Language) -> Vec<Value> {
        for panel in &mut self.panels {
            if panel["type"] == "text" || panel.pointer("/fieldConfig/defaults").is_none() {
                continue;
            }
            if panel.pointer("/fieldConfig/defaults/noValue").is_none() {
                let why = l.t("No data in this range", "この期間のデータなし");
                merge(panel, json!({ "fieldConfig": { "defaults": { "noValue": why } } }));
            }
            if panel["type"] == "table" {
                dash_empty_cells(&mut panel["fieldConfig"]);
            }
        }
        self.panels
    }
}

/// Adds the mapping of empty cells to all mappings of a table's columns.
fn dash_empty_cells(config: &mut Value) {
    let dash = |mappings: &mut Value| {
        let mut all = mappings.as_array().cloned().unwrap_or_default();
        for (index, what) in ["null+nan", "empty"].into_iter().enumerate() {
            let shown = json!({ "text": "–", "index": 10_000 + index });
            all.push(json!({ "type": "special", "options": { "match": what, "result": shown } }));
        }
        *mappings = json!(all);
    };
    dash(&mut config["defaults"]["mappings"]);
    let overrides = config["overrides"].as_array_mut().into_iter().flatten();
    for property in overrides.filter_map(|it| it["properties"].as_array_mut()).flatten() {
        if property["id"] == "mappings" {
            dash(&mut property["value"]);
        }
    }
}

/// A variable whose values are a label's.
pub(super) fn label_variable(name: &str, label: &str, query: &str, multi: bool, current: &str) -> Value {
    let query = format!("label_values({query})");
    let mut variable = json!({
        "type": "query",
        "name": name,
        "label": label,
        "datasource": datasource(),
        "query": { "qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery" },
        "refresh": 2,
        // Numbers as numbers, names as names.
        "sort": if name == "port" { 3 } else { 1 },
        "multi": multi,
        "includeAll": multi,
        "current": if multi { json!({ "text": ["All"], "value": ["$__all"] }) } else { json!({ "text": current, "value": current }) },
        "options": [],
        "regex": "",
        "hide": 0,
        "skipUrlSync": false,
    });
    if multi {
        variable["allValue"] = json!(".*");
    }
    variable
}
