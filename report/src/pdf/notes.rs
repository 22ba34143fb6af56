//! The staff's Markdown as Typst's code.

use super::{Sheet, array, id, literal};
use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use pulldown_cmark::{Alignment, Event, Options, Parser, Tag, TagEnd};
use typst::foundations::Bytes;

impl Sheet<'_> {
    /// An expression of Typst that is the Markdown's content.
    pub(super) fn markdown(&mut self, text: &str) -> Result<String> {
        let mut out = String::from("{ []\n");
        // How each open element ends.
        let mut ends: Vec<&str> = Vec::new();
        // What is gathered instead of being set: code, and the alternative text of an image.
        let mut code: Option<String> = None;
        let mut image: Option<(String, String)> = None;
        for event in Parser::new_ext(text, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH) {
            match event {
                Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => {
                    if let Some((_, alternative)) = &mut image {
                        alternative.push_str(&text);
                    } else if let Some(code) = &mut code {
                        code.push_str(&text);
                    } else {
                        let text = self.shown(&text);
                        out += &format!("text({text})\n");
                    }
                }
                Event::Code(text) => {
                    if let Some((_, alternative)) = &mut image {
                        alternative.push_str(&text);
                    } else {
                        let text = self.shown(&text);
                        out += &format!("raw({text})\n");
                    }
                }
                Event::SoftBreak if image.is_none() => out.push_str("text(\" \")\n"),
                Event::HardBreak if image.is_none() => out.push_str("linebreak()\n"),
                Event::Rule => out.push_str("line(length: 100%, stroke: 0.5pt + rule)\n"),
                Event::Start(Tag::Image { dest_url, .. }) => {
                    image = Some((dest_url.into_string(), String::new()));
                }
                Event::End(TagEnd::Image) => {
                    let (url, alternative) = image.take().unwrap_or_default();
                    out += &self.image(&url, &alternative)?;
                }
                Event::Start(Tag::CodeBlock(_)) => code = Some(String::new()),
                Event::End(TagEnd::CodeBlock) => {
                    let code = code.take().unwrap_or_default();
                    let lines: Vec<String> = code.lines().map(|line| self.shown(line)).collect();
                    out += &format!("raw({}.join(\"\\n\", default: \"\"), block: true)\n", array(lines));
                }
                Event::Start(tag) if image.is_none() => {
                    let (start, end) = self.open(&tag);
                    out += &start;
                    ends.push(end);
                }
                Event::End(_) if image.is_none() => {
                    out.push_str(ends.pop().unwrap_or_default());
                    out.push('\n');
                }
                _ => {}
            }
        }
        out.push('}');
        Ok(out)
    }

    /// How an element begins and ends.
    fn open(&self, tag: &Tag<'_>) -> (String, &'static str) {
        let body = |name: &str| (format!("{name}({{ []\n"), "})");
        match tag {
            Tag::Paragraph => body("par"),
            Tag::Heading { .. } => {
                (format!("heading(level: {}, outlined: false, {{ []\n", self.level + 1), "})")
            }
            Tag::BlockQuote(_) => body("quote"),
            Tag::List(Some(first)) => (format!("enum(start: {first}, "), ")"),
            Tag::List(None) => ("list(".to_owned(), ")"),
            Tag::Item | Tag::TableCell => ("{ []\n".to_owned(), "},"),
            Tag::Emphasis => body("emph"),
            Tag::Strong => body("strong"),
            Tag::Strikethrough => body("strike"),
            Tag::Link { dest_url, .. } => {
                let known = ["https://", "http://", "mailto:"].iter().any(|it| dest_url.starts_with(it));
                if known { (format!("link({}, {{ []\n", literal(dest_url)), "})") } else { body("text") }
            }
            Tag::Table(sides) => {
                let sides = sides.iter().map(|side| {
                    match side {
                        Alignment::Right => "right",
                        Alignment::Center => "center",
                        Alignment::None | Alignment::Left => "left",
                    }
                    .to_owned()
                });
                let sides = array(sides);
                (format!("table(columns: {sides}.len(), align: {sides}, stroke: 0.4pt + rule, "), ")")
            }
            Tag::TableHead => ("table.header(".to_owned(), "),"),
            Tag::TableRow => (String::new(), ""),
            _ => ("{ []\n".to_owned(), "}"),
        }
    }

    /// An image that is in the notes themselves; of others the alternative text.
    fn image(&mut self, url: &str, alternative: &str) -> Result<String> {
        let shown = if alternative.is_empty() { self.lang.t("Image", "画像") } else { alternative };
        let Some((kind, data)) = url.strip_prefix("data:image/").and_then(|rest| rest.split_once(";base64,"))
        else {
            let text = self.shown(shown);
            return Ok(format!("text({text})\n"));
        };
        let ending = kind.split('+').next().unwrap_or(kind);
        ensure!(
            ["png", "jpeg", "gif", "svg", "webp"].contains(&ending),
            "--notes: the image {shown:?} is {kind:?}; a PDF takes PNG, JPEG, GIF, WebP and SVG"
        );
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(data)
            .with_context(|| format!("--notes: the image {shown:?} is not base64"))?;
        let name = format!("note-{}.{ending}", self.files.len());
        self.files.insert(id(&name), Bytes::new(bytes));
        Ok(format!("image({}, alt: {})\n", literal(&name), literal(shown)))
    }
}
