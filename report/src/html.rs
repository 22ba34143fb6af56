//! A report as one HTML file that needs nothing else.

use crate::charts::{self, escape};
use crate::document::{Block, Document, Figure, Table};
use crate::words::Lang;
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag};
use std::fmt::Write as _;

const STYLE: &str = include_str!("html/report.css");

/// The whole file.
pub(crate) fn write(document: &Document) -> String {
    let lang = document.lang;
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"generator\" content=\"teiten-report {}\">\n<meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n<title>{} – {}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<header><p class=\"period\">{}</p><h1>{}</h1></header>\n",
        lang.code(),
        env!("CARGO_PKG_VERSION"),
        escape(&document.title),
        escape(&document.subtitle),
        escape(&document.subtitle),
        escape(&document.title),
    );
    contents(document, &mut out);
    let mut section = 0;
    for block in &document.blocks {
        match block {
            Block::Heading(1, text) => {
                section += 1;
                writeln!(out, "<h2 id=\"s{section}\">{}</h2>", escape(text)).expect("memory");
            }
            Block::Heading(_, text) => writeln!(out, "<h3>{}</h3>", escape(text)).expect("memory"),
            Block::Paragraph(text) => writeln!(out, "<p>{}</p>", escape(text)).expect("memory"),
            Block::Remark(text) => writeln!(out, "<p class=\"remark\">{}</p>", escape(text)).expect("memory"),
            Block::Items(items) => {
                out.push_str("<ul>\n");
                for item in items {
                    writeln!(out, "<li>{}</li>", escape(item)).expect("memory");
                }
                out.push_str("</ul>\n");
            }
            Block::Figure(it) => figure(it, lang, &mut out),
            Block::Table(it) => table(it, true, &mut out),
            Block::Notes(text) => {
                out.push_str("<div class=\"notes\">\n");
                markdown(text, &mut out);
                out.push_str("</div>\n");
            }
        }
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn contents(document: &Document, out: &mut String) {
    let name = document.lang.t("Contents", "目次");
    write!(out, "<nav aria-label=\"{name}\"><ol>").expect("memory");
    let headings = document.blocks.iter().filter_map(|block| match block {
        Block::Heading(1, text) => Some(text),
        _ => None,
    });
    for (at, text) in headings.enumerate() {
        let text = text.split_once(". ").map_or(text.as_str(), |(_, text)| text);
        write!(out, "<li><a href=\"#s{}\">{}</a></li>", at + 1, escape(text)).expect("memory");
    }
    out.push_str("</ol></nav>\n");
}

fn figure(figure: &Figure, lang: Lang, out: &mut String) {
    let caption = caption(figure, lang);
    let id = format!("figure-{}", figure.number);
    let alternative = figure.chart.alternative(&figure.caption, lang);
    let svg = charts::draw(&figure.chart, &id, &alternative);
    write!(
        out,
        "<figure id=\"{id}\" data-name=\"{}\">\n<div class=\"chart\">{svg}</div>\n<figcaption>{}</figcaption>\n<details>\
         <summary>{}</summary>\n",
        escape(&figure.name),
        escape(&caption),
        lang.t("Numbers of this figure", "この図の数値")
    )
    .expect("memory");
    table(&figure.chart.table(lang), false, out);
    out.push_str("</details>\n</figure>\n");
}

/// `Figure 1-1: …`.
pub(crate) fn caption(figure: &Figure, lang: Lang) -> String {
    match lang {
        Lang::En => format!("Figure {}: {}", figure.number, figure.caption),
        Lang::Ja => format!("図{}：{}", figure.number, figure.caption),
    }
}

fn table(table: &Table, captioned: bool, out: &mut String) {
    // A wide table scrolls by itself, also by the keyboard.
    out.push_str("<div class=\"table\" tabindex=\"0\">");
    let name =
        if table.name.is_empty() { String::new() } else { format!(" data-name=\"{}\"", escape(&table.name)) };
    write!(out, "<table{name}>").expect("memory");
    if captioned {
        write!(out, "<caption>{}</caption>", escape(&table.caption)).expect("memory");
    }
    out.push_str("<thead><tr>");
    let class = |numbers: bool| if numbers { " class=\"n\"" } else { "" };
    for column in &table.columns {
        write!(out, "<th scope=\"col\"{}>{}</th>", class(column.numbers), escape(&column.name))
            .expect("memory");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        for (cell, column) in row.iter().zip(&table.columns) {
            write!(out, "<td{}>{}</td>", class(column.numbers), escape(cell)).expect("memory");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

/// The staff's Markdown. Its HTML is shown as text, and links lead to web pages and mail addresses only.
fn markdown(text: &str, out: &mut String) {
    let parser = Parser::new_ext(text, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH);
    let events = parser.map(|event| match event {
        Event::Html(html) | Event::InlineHtml(html) => Event::Text(html),
        Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
            Event::Start(Tag::Link { link_type, dest_url: safe(dest_url), title, id })
        }
        Event::Start(Tag::Image { link_type, dest_url, title, id }) => {
            let dest_url = if dest_url.starts_with("data:image/") { dest_url } else { CowStr::Borrowed("") };
            Event::Start(Tag::Image { link_type, dest_url, title, id })
        }
        // A report has its own headings above.
        Event::Start(Tag::Heading { level, id, classes, attrs }) => {
            let _ = level;
            Event::Start(Tag::Heading { level: pulldown_cmark::HeadingLevel::H4, id, classes, attrs })
        }
        Event::End(pulldown_cmark::TagEnd::Heading(_)) => {
            Event::End(pulldown_cmark::TagEnd::Heading(pulldown_cmark::HeadingLevel::H4))
        }
        event => event,
    });
    pulldown_cmark::html::push_html(out, events);
}

fn safe(url: CowStr<'_>) -> CowStr<'_> {
    let known = ["https://", "http://", "mailto:", "#"].iter().any(|scheme| url.starts_with(scheme));
    if known { url } else { CowStr::Borrowed("#") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_staffs_html_is_text_and_their_links_lead_to_the_web() {
        let mut out = String::new();
        markdown(
            "<script>alert(1)</script>\n\n[a](javascript:alert(1)) [b](https://example.org/) **c**",
            &mut out,
        );
        assert!(!out.contains("<script"), "{out}");
        assert!(!out.contains("javascript"), "{out}");
        assert!(
            out.contains("<a href=\"https://example.org/\">b</a>") && out.contains("<strong>c</strong>"),
            "{out}"
        );
    }
}
