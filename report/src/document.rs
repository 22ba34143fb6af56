//! What a report is made of, whatever file it becomes.

use crate::palette::Style;
use crate::words::{self, Lang};
use jiff::civil::Date;

/// A report.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) lang: Lang,
    pub(crate) title: String,
    /// Who publishes it, and its period.
    pub(crate) subtitle: String,
    /// `2010-07`.
    pub(crate) period: String,
    /// The day on which it was written.
    pub(crate) date: Date,
    pub(crate) blocks: Vec<Block>,
}

/// A part of a report.
#[derive(Debug)]
pub(crate) enum Block {
    /// Level 1 or 2.
    Heading(u8, String),
    Paragraph(String),
    /// In small print.
    Remark(String),
    Items(Vec<String>),
    Figure(Figure),
    Table(Table),
    /// Markdown of the staff.
    Notes(String),
}

/// A figure with its number.
#[derive(Debug)]
pub(crate) struct Figure {
    /// `1-1`.
    pub(crate) number: String,
    /// The same in every report and language.
    pub(crate) name: String,
    pub(crate) caption: String,
    pub(crate) chart: Chart,
}

/// How a chart is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The first series as bars, the second as a line.
    BarsAndLine,
    /// Two bars for each category, one row each.
    Pairs,
    /// One stacked bar a day.
    Daily,
    /// One slice a series.
    Pie,
    /// Stacked bars of 100 %.
    Shares,
    /// The same, lying.
    ShareRows,
    /// One stacked bar for each hour of the day.
    Hours,
}

impl Form {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BarsAndLine => "bars and line",
            Self::Pairs => "paired bars",
            Self::Daily => "stacked daily bars",
            Self::Pie => "pie",
            Self::Shares => "100 % bars",
            Self::ShareRows => "100 % bars, horizontal",
            Self::Hours => "stacked hourly bars",
        }
    }

    /// Whether each value is shown in percent of its whole too.
    pub(crate) fn is_share(self) -> bool {
        matches!(self, Self::Pie | Self::Shares | Self::ShareRows)
    }
}

/// The numbers of a chart.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) form: Form,
    /// What the categories are: `Day`.
    pub(crate) axis: String,
    pub(crate) categories: Vec<String>,
    /// What is counted: `Accesses`.
    pub(crate) unit: String,
    pub(crate) series: Vec<Line>,
}

/// One series.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) style: Style,
    /// By category; `None` where nothing was observed.
    pub(crate) values: Vec<Option<u64>>,
}

impl Line {
    pub(crate) fn total(&self) -> u64 {
        self.values.iter().flatten().sum()
    }
}

impl Chart {
    /// The sum of all series in a category.
    pub(crate) fn whole(&self, category: usize) -> u64 {
        self.series.iter().filter_map(|line| line.values[category]).sum()
    }

    /// A value in whole percent of its category, or of its pie.
    pub(crate) fn percent(&self, line: &Line, category: usize) -> Option<u64> {
        words::percent(line.values[category]?, self.whole(category))
    }

    /// What is seen, for those who do not see it.
    pub(crate) fn alternative(&self, caption: &str, lang: Lang) -> String {
        let value = |line: &Line, at: usize| match (self.form.is_share(), line.values[at]) {
            (true, Some(_)) => {
                self.percent(line, at).map_or_else(String::new, |percent| format!("{} {percent}%", line.name))
            }
            (false, Some(value)) => format!("{} {}", line.name, words::number(value)),
            (_, None) => String::new(),
        };
        let last = self.categories.len().saturating_sub(1);
        let parts: Vec<String> = match self.form {
            Form::BarsAndLine | Form::Pairs => self
                .categories
                .iter()
                .enumerate()
                .map(|(at, category)| {
                    let values: Vec<String> = self.series.iter().map(|line| value(line, at)).collect();
                    format!("{category}: {}", values.join(", "))
                })
                .collect(),
            Form::Daily | Form::Hours => self
                .series
                .iter()
                .map(|line| format!("{} {}", line.name, words::number(line.total())))
                .collect(),
            Form::Pie => self.series.iter().map(|line| value(line, 0)).collect(),
            Form::Shares => {
                let parts: Vec<String> = self.series.iter().map(|line| value(line, last)).collect();
                vec![format!("{}: {}", self.categories.last().map_or("", String::as_str), parts.join(", "))]
            }
            Form::ShareRows => self
                .categories
                .iter()
                .enumerate()
                .map(|(at, category)| {
                    let largest = self.series.iter().max_by_key(|line| line.values[at]);
                    format!("{category}: {}", largest.map(|line| value(line, at)).unwrap_or_default())
                })
                .collect(),
        };
        format!("{caption}{}{}", lang.t(". ", "。"), parts.join("; "))
    }

    /// The numbers as a table.
    pub(crate) fn table(&self, lang: Lang) -> Table {
        if self.form == Form::Pie {
            return Table {
                name: String::new(),
                caption: String::new(),
                columns: vec![
                    Column::text(&self.axis),
                    Column::number(&self.unit),
                    Column::number(lang.t("Percent", "比率")),
                ],
                rows: self
                    .series
                    .iter()
                    .map(|line| vec![line.name.clone(), cell(line.values[0]), share(self.percent(line, 0))])
                    .collect(),
            };
        }
        let mut columns = vec![Column::text(&self.axis)];
        columns.extend(self.series.iter().map(|line| Column::number(&line.name)));
        let row = |at: usize| {
            let mut row = vec![self.categories[at].clone()];
            row.extend(self.series.iter().map(|line| {
                if self.form.is_share() {
                    match (line.values[at], self.percent(line, at)) {
                        (Some(value), Some(percent)) => format!("{} ({percent}%)", words::number(value)),
                        _ => cell(line.values[at]),
                    }
                } else {
                    cell(line.values[at])
                }
            }));
            row
        };
        Table {
            name: String::new(),
            caption: String::new(),
            columns,
            rows: (0..self.categories.len()).map(row).collect(),
        }
    }
}

fn cell(value: Option<u64>) -> String {
    value.map_or_else(|| "–".to_owned(), words::number)
}

fn share(percent: Option<u64>) -> String {
    percent.map_or_else(|| "–".to_owned(), |percent| format!("{percent}%"))
}

/// A table with its caption.
#[derive(Debug)]
pub(crate) struct Table {
    /// The same in every report and language.
    pub(crate) name: String,
    pub(crate) caption: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// A column of a table.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// Whether it holds numbers, which stand at the right.
    pub(crate) numbers: bool,
}

impl Column {
    pub(crate) fn text(name: &str) -> Self {
        Self { name: name.to_owned(), numbers: false }
    }

    pub(crate) fn number(name: &str) -> Self {
        Self { name: name.to_owned(), numbers: true }
    }
}
