//! A report as a PDF, set by Typst: tagged, PDF/UA-1 and PDF/A-2b in one file.
//!
//! Everything comes from memory: no file, no font of the system, no clock. All text reaches Typst as string literals.

mod notes;

use crate::charts;
use crate::document::{Block, Document, Figure, Form, Table};
use crate::html;
use crate::words::Lang;
use anyhow::{Context as _, Result, ensure};
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use typst::diag::{FileError, FileResult, SourceDiagnostic};
use typst::foundations::{Bytes, Datetime, Duration, Smart};
use typst::syntax::{FileId, RootedPath, Source, VirtualPath, VirtualRoot};
use typst::text::{Font, FontBook};
use typst::utils::LazyHash;
use typst::{Library, LibraryExt as _, World};
use typst_layout::PagedDocument;
use typst_pdf::{PdfOptions, PdfStandard, PdfStandards};

const TEMPLATE: &str = include_str!("pdf/report.typ");
/// See `report/fonts/README.md`.
const FONTS: [&[u8]; 2] = [
    include_bytes!("../fonts/NotoSansJP-Regular.ttf.zst"),
    include_bytes!("../fonts/NotoSansJP-Bold-subset.ttf.zst"),
];

/// Rows up to which the numbers of a figure are printed: the days of a quarter.
const ROWS: usize = 92;

/// The fonts of the project, and those of `files` for characters that they lack.
pub(crate) fn fonts(files: &[PathBuf]) -> Result<Vec<Font>> {
    let mut fonts = Vec::new();
    for font in FONTS {
        fonts.extend(Font::iter(Bytes::new(zstd::decode_all(font).context("the font of the project")?)));
    }
    for file in files {
        let at = || format!("--font {}", file.display());
        let found: Vec<Font> = Font::iter(Bytes::new(std::fs::read(file).with_context(at)?)).collect();
        ensure!(!found.is_empty(), "{}: no font in OpenType or TrueType form", at());
        fonts.extend(found);
    }
    Ok(fonts)
}

/// The whole file, and the characters for which no font has a glyph.
pub(crate) fn write(document: &Document, fonts: Vec<Font>) -> Result<(Vec<u8>, BTreeSet<char>)> {
    let mut sheet = Sheet {
        lang: document.lang,
        out: String::from(TEMPLATE),
        files: HashMap::new(),
        fonts: &fonts,
        missing: BTreeSet::new(),
        level: 1,
    };
    sheet.document(document)?;
    let Sheet { out, files, missing, .. } = sheet;
    let world = Desk {
        library: LazyHash::new(Library::default()),
        book: LazyHash::new(FontBook::from_fonts(&fonts)),
        fonts,
        main: Source::new(id("report.typ"), out),
        files,
    };
    let said = |errors: &[SourceDiagnostic]| {
        errors.iter().map(|error| error.message.to_string()).collect::<Vec<_>>().join("; ")
    };
    let pages = typst::compile::<PagedDocument>(&world)
        .output
        .map_err(|errors| anyhow::anyhow!("the PDF cannot be set: {}", said(&errors)))?;
    let standards = PdfStandards::new(&[PdfStandard::Ua_1, PdfStandard::A_2b])
        .map_err(|error| anyhow::anyhow!("{}", error.message()))?;
    let options = PdfOptions {
        ident: Smart::Custom(format!("teiten-report {} {}", document.period, document.lang.code())),
        creator: Smart::Custom(Some(concat!("teiten-report ", env!("CARGO_PKG_VERSION")).to_owned())),
        standards,
        ..PdfOptions::default()
    };
    let file = typst_pdf::pdf(&pages, &options)
        .map_err(|errors| anyhow::anyhow!("the PDF cannot be written: {}", said(&errors)))?;
    Ok((file, missing))
}

/// What Typst reads.
struct Desk {
    library: LazyHash<Library>,
    book: LazyHash<FontBook>,
    fonts: Vec<Font>,
    main: Source,
    files: HashMap<FileId, Bytes>,
}

impl World for Desk {
    fn library(&self) -> &LazyHash<Library> {
        &self.library
    }

    fn book(&self) -> &LazyHash<FontBook> {
        &self.book
    }

    fn main(&self) -> FileId {
        self.main.id()
    }

    fn source(&self, id: FileId) -> FileResult<Source> {
        if id == self.main.id() { Ok(self.main.clone()) } else { Err(FileError::AccessDenied) }
    }

    fn file(&self, id: FileId) -> FileResult<Bytes> {
        self.files.get(&id).cloned().ok_or(FileError::AccessDenied)
    }

    fn font(&self, index: usize) -> Option<Font> {
        self.fonts.get(index).cloned()
    }

    fn today(&self, _: Option<Duration>) -> Option<Datetime> {
        None
    }
}

fn id(name: &str) -> FileId {
    let path = VirtualPath::new(name).expect("a name of this program");
    RootedPath::new(VirtualRoot::Project, path).intern()
}

/// A string literal of Typst.
fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_whitespace() && c != '\u{a0}' && c != '\u{3000}' => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// An array of Typst.
fn array(items: impl IntoIterator<Item = String>) -> String {
    let mut out = String::from("(");
    for item in items {
        out.push_str(&item);
        out.push_str(", ");
    }
    out.push(')');
    out
}

/// Characters that are seen in their effect only.
fn is_ignorable(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}')
}

/// The source of a report.
struct Sheet<'a> {
    lang: Lang,
    out: String,
    files: HashMap<FileId, Bytes>,
    fonts: &'a [Font],
    missing: BTreeSet<char>,
    /// Of the last heading.
    level: u8,
}

impl Sheet<'_> {
    /// The text with a box for each character that no font has, as the standards allow no missing glyph.
    fn fit(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            let has = |font: &Font| font.info().coverage.contains(u32::from(c));
            if c.is_whitespace() {
                out.push(if c == '\u{a0}' || c == '\u{3000}' { c } else { ' ' });
            } else if is_ignorable(c) {
            } else if self.fonts.iter().any(has) {
                out.push(c);
            } else {
                self.missing.insert(c);
                out.push('□');
            }
        }
        out
    }

    /// A literal that is shown.
    fn shown(&mut self, text: &str) -> String {
        literal(&self.fit(text))
    }

    fn line(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    fn document(&mut self, document: &Document) -> Result<()> {
        let (title, period) = (self.shown(&document.title), self.shown(&document.subtitle));
        let date = document.date;
        self.line(&format!(
            "#show: report.with(lang: \"{}\", title: {title}, period: {period}, date: datetime(year: {}, month: {}, day: {}))\n#{{",
            self.lang.code(),
            date.year(),
            date.month(),
            date.day()
        ));
        for block in &document.blocks {
            self.block(block)?;
        }
        self.numbers(document);
        self.line("}");
        Ok(())
    }

    fn block(&mut self, block: &Block) -> Result<()> {
        match block {
            Block::Heading(level, text) => self.heading(*level, text),
            Block::Paragraph(text) => {
                let text = self.shown(text);
                self.line(&format!("par({text})"));
            }
            Block::Remark(text) => {
                let text = self.shown(text);
                self.line(&format!("remark({text})"));
            }
            Block::Items(items) => {
                let items: Vec<String> = items.iter().map(|item| self.shown(item)).collect();
                self.line(&format!("list(tight: false, ..{})", array(items)));
            }
            Block::Figure(figure) => self.figure(figure),
            Block::Table(table) => self.table(&table.caption, table, false),
            Block::Notes(text) => {
                let code = self.markdown(text)?;
                self.line(&format!("notes({code})"));
            }
        }
        Ok(())
    }

    fn heading(&mut self, level: u8, text: &str) {
        self.level = level;
        let text = self.shown(text);
        self.line(&format!("heading(level: {level}, {text})"));
    }

    fn figure(&mut self, figure: &Figure) {
        let alternative = figure.chart.alternative(&figure.caption, self.lang);
        let svg = charts::draw(&figure.chart, &format!("figure-{}", figure.number), &alternative);
        let svg = self.fit(&svg);
        let name = format!("figure-{}.svg", figure.number);
        self.files.insert(id(&name), Bytes::from_string(svg));
        let caption = self.shown(&html::caption(figure, self.lang));
        self.line(&format!("chart(\"{name}\", {}, {caption})", literal(&alternative)));
    }

    /// The numbers that charts show as lengths only.
    fn numbers(&mut self, document: &Document) {
        let figures: Vec<&Figure> = document
            .blocks
            .iter()
            .filter_map(|block| match block {
                Block::Figure(figure) => Some(figure),
                _ => None,
            })
            .filter(|figure| !matches!(figure.chart.form, Form::BarsAndLine | Form::Pairs | Form::Pie))
            .collect();
        if figures.is_empty() {
            return;
        }
        self.line("pagebreak(weak: true)");
        self.heading(1, self.lang.t("Numbers of the figures", "図の数値"));
        for figure in figures {
            let caption = html::caption(figure, self.lang);
            if figure.chart.categories.len() > ROWS {
                let text = match self.lang {
                    Lang::En => format!(
                        "{caption}: too many days to be printed; they are in the report as HTML and as JSON."
                    ),
                    Lang::Ja => format!("{caption}：日数が多いため印刷しない。HTMLとJSONの報告に含まれる。"),
                };
                let text = self.shown(&text);
                self.line(&format!("remark({text})"));
            } else {
                self.table(&caption, &figure.chart.table(self.lang), true);
            }
        }
    }

    fn table(&mut self, caption: &str, table: &Table, small: bool) {
        let long = |at: usize| table.rows.iter().any(|row| row[at].chars().count() > 40);
        let widths: Vec<String> = (0..table.columns.len())
            .map(|at| if long(at) && !table.columns[at].numbers { "1fr" } else { "auto" }.to_owned())
            .collect();
        let sides = array(
            table.columns.iter().map(|column| if column.numbers { "right" } else { "left" }.to_owned()),
        );
        let header: Vec<String> = table.columns.iter().map(|column| self.shown(&column.name)).collect();
        let cells: Vec<String> = table.rows.iter().flatten().map(|cell| self.shown(cell)).collect();
        let caption = self.shown(caption);
        // Many columns in small print fit on the page.
        let size = match (small, table.columns.len()) {
            (false, _) => "7.5pt",
            (true, ..=9) => "7pt",
            (true, _) => "6pt",
        };
        self.line(&format!(
            "listing({caption}, {size}, {}, {sides}, {}, {})",
            array(widths),
            array(header),
            array(cells)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_literal() {
        assert_eq!(literal("a\"b\\c\n#d"), "\"a\\\"b\\\\c #d\"");
        assert_eq!(array(["1".to_owned()]), "(1, )");
        assert_eq!(array([]), "()");
    }

    #[test]
    fn the_font_of_the_project_has_the_words_of_both_languages_and_a_box_for_others() {
        let fonts = fonts(&[]).unwrap();
        assert_eq!(fonts.len(), 2);
        let mut sheet = Sheet {
            lang: Lang::Ja,
            out: String::new(),
            files: HashMap::new(),
            fonts: &fonts,
            missing: BTreeSet::new(),
            level: 1,
        };
        let text = "観測点01 – −5% ～ “q” ※ é Ж 髙﨑";
        assert_eq!(sheet.fit(text), text);
        assert_eq!(sheet.fit("a\u{202e}b한🦀\u{1}"), "ab□□□");
        assert_eq!(sheet.missing, BTreeSet::from(['\u{1}', '한', '🦀']));
    }
}
