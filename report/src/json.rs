//! A report as JSON: every number with its figure's name.

use crate::content::Number;
use crate::document::{Block, Document};
use serde_json::{Value, json};

/// The document and its headline.
pub(crate) fn write(document: &Document, headline: &[Number]) -> String {
    let headline: serde_json::Map<String, Value> =
        headline.iter().map(|number| (number.name.to_owned(), json!(number.value))).collect();
    let mut figures = Vec::new();
    let mut tables = Vec::new();
    let mut texts = Vec::new();
    let mut section = String::new();
    for block in &document.blocks {
        match block {
            Block::Heading(1, text) => section.clone_from(text),
            Block::Heading(..) => {}
            Block::Paragraph(text) | Block::Remark(text) => {
                texts.push(json!({ "section": section, "text": text }));
            }
            Block::Items(items) => {
                texts.extend(items.iter().map(|text| json!({ "section": section, "text": text })));
            }
            Block::Notes(markdown) => texts.push(json!({ "section": section, "notes": markdown })),
            Block::Figure(figure) => {
                let chart = &figure.chart;
                let series: Vec<Value> = chart
                    .series
                    .iter()
                    .map(|line| {
                        let mut series = json!({ "name": line.name, "values": line.values });
                        if chart.form.is_share() {
                            let percents: Vec<Option<u64>> =
                                (0..chart.categories.len()).map(|at| chart.percent(line, at)).collect();
                            series["percent"] = json!(percents);
                        }
                        series
                    })
                    .collect();
                figures.push(json!({
                    "number": figure.number,
                    "name": figure.name,
                    "caption": figure.caption,
                    "form": chart.form.name(),
                    "unit": chart.unit,
                    "categories": chart.categories,
                    "series": series,
                }));
            }
            Block::Table(table) => {
                let columns: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
                tables.push(json!({
                    "name": table.name, "caption": table.caption, "columns": columns, "rows": table.rows,
                }));
            }
        }
    }
    let report = json!({
        "period": document.period,
        "language": document.lang.code(),
        "date": document.date.to_string(),
        "title": document.title,
        "headline": headline,
        "texts": texts,
        "figures": figures,
        "tables": tables,
    });
    format!("{report:#}\n")
}
