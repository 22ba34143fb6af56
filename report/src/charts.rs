//! A chart as SVG, with text as text.
//!
//! Everything that a dark page turns round has a class: `ink` for text and axes, `rule` for grid lines, `edge` for what
//! parts two pieces, which has the colour of the page.

use crate::document::{Chart, Form, Line};
use crate::palette::{Style, Texture};
use crate::words;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Width of every chart.
const WIDTH: f64 = 720.0;
const SIZE: f64 = 11.0;
/// Room for the axis's numbers, and for the legend.
const LEFT: f64 = 58.0;
const LEGEND: f64 = 168.0;
const ROW: f64 = 17.0;

/// The fonts of a chart, first choice first.
pub(crate) const FONTS: &str = "Noto Sans JP, IPAexGothic, sans-serif";

/// Draws `chart`. `id` is unique in the document.
pub(crate) fn draw(chart: &Chart, id: &str, alternative: &str) -> String {
    let mut pen = Pen { out: String::new(), id: id.to_owned(), textures: BTreeSet::new() };
    let height = match chart.form {
        Form::BarsAndLine => pen.bars_and_line(chart),
        Form::Pairs => pen.pairs(chart),
        Form::Daily => pen.stacked(chart, 300.0, true),
        Form::Hours => pen.stacked(chart, 280.0, false),
        Form::Pie => pen.pie(chart),
        Form::Shares => pen.shares(chart),
        Form::ShareRows => pen.share_rows(chart),
    };
    pen.finish(height, alternative)
}

/// Escapes text for XML, also within attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML has no other control characters.
            c if c.is_control() && !matches!(c, '\t' | '\n') => out.push('\u{fffd}'),
            // These turn the text after them round.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            c => out.push(c),
        }
    }
    out
}

#[derive(Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

struct Pen {
    out: String,
    id: String,
    textures: BTreeSet<Style>,
}

/// A length as short as it can be written.
fn at(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// About how wide a text is: East Asian characters are square, others take a bit more than half of that.
fn width(text: &str) -> f64 {
    text.chars().map(|c| if u32::from(c) < 0x1100 { 0.6 } else { 1.0 }).sum::<f64>() * SIZE
}

/// The text, or its two ends where it is wider than `room`: a name can end in a port.
fn clip(text: &str, room: f64) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let mut clipped = text.to_owned();
    while width(&clipped) > room && chars.len() > 2 {
        let middle = chars.len() / 2;
        chars.remove(middle);
        clipped = chars.iter().take(middle).chain(&['…']).chain(&chars[middle..]).collect();
    }
    clipped
}

impl Pen {
    fn finish(self, height: f64, alternative: &str) -> String {
        let mut defs = String::new();
        for style in &self.textures {
            let mark = match style.texture {
                Texture::Plain => continue,
                Texture::Rising => {
                    "<path d=\"M-1 7L7 -1M-1 1L1 -1M5 7L7 5\" stroke=\"#fff\" stroke-opacity=\".55\"/>"
                }
                Texture::Falling => {
                    "<path d=\"M-1 -1L7 7M5 -1L7 1M-1 5L1 7\" stroke=\"#000\" stroke-opacity=\".35\"/>"
                }
                Texture::Dots => "<circle cx=\"3\" cy=\"3\" r=\"1.1\" fill=\"#fff\" fill-opacity=\".75\"/>",
            };
            write!(
                defs,
                "<pattern id=\"{}\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\"><rect width=\"6\" \
                 height=\"6\" fill=\"{}\"/>{mark}</pattern>",
                self.reference(*style),
                style.color
            )
            .expect("memory");
        }
        let alternative = escape(alternative);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" width=\"{WIDTH}\" height=\"{}\" \
             role=\"img\" aria-label=\"{alternative}\" font-family=\"{FONTS}\" font-size=\"{SIZE}\"><title>{alternative}\
             </title><defs>{defs}</defs>{}</svg>",
            at(height),
            at(height),
            self.out
        )
    }

    fn reference(&self, style: Style) -> String {
        format!("{}-{}-{:?}", self.id, style.color.trim_start_matches('#'), style.texture).to_lowercase()
    }

    fn fill(&mut self, style: Style) -> String {
        if style.texture == Texture::Plain {
            return style.color.to_owned();
        }
        self.textures.insert(style);
        format!("url(#{})", self.reference(style))
    }

    fn text(&mut self, x: f64, y: f64, anchor: Anchor, text: &str) {
        self.colored_text(x, y, anchor, "class=\"ink\" fill=\"#222\"", text);
    }

    fn colored_text(&mut self, x: f64, y: f64, anchor: Anchor, attributes: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        write!(
            self.out,
            "<text x=\"{}\" y=\"{}\"{anchor} {attributes}>{}</text>",
            at(x),
            at(y),
            escape(text)
        )
        .expect("memory");
    }

    fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, style: Style) {
        let fill = self.fill(style);
        write!(
            self.out,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{fill}\" class=\"edge\" stroke=\"#fff\" \
             stroke-width=\".5\"/>",
            at(x),
            at(y),
            at(width),
            at(height)
        )
        .expect("memory");
    }

    fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, axis: bool) {
        let look = if axis { "class=\"axis\" stroke=\"#222\"" } else { "class=\"rule\" stroke=\"#ddd\"" };
        write!(
            self.out,
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" {look}/>",
            at(x1),
            at(y1),
            at(x2),
            at(y2)
        )
        .expect("memory");
    }

    /// Names beside their styles, from `y` down.
    fn legend(&mut self, x: f64, y: f64, entries: &[(String, Style)]) {
        for (row, (name, style)) in entries.iter().enumerate() {
            let y = y + row as f64 * ROW;
            self.rect(x, y - 9.5, 14.0, 11.0, *style);
            self.text(x + 20.0, y, Anchor::Start, &clip(name, WIDTH - x - 20.0));
        }
    }

    /// The axis of amounts: grid, numbers and unit. Gives what one unit of height is.
    fn scale(&mut self, unit: &str, max: u64, top: f64, bottom: f64, right: f64) -> f64 {
        let step = step(max, 5);
        let highest = max.div_ceil(step).max(1) * step;
        let scale = (bottom - top) / highest as f64;
        let mut tick = 0;
        while tick <= highest {
            let y = bottom - tick as f64 * scale;
            self.line(LEFT, y, right, y, tick == 0);
            self.text(LEFT - 6.0, y + 4.0, Anchor::End, &words::number(tick));
            tick += step;
        }
        self.text(LEFT - 50.0, top - 10.0, Anchor::Start, unit);
        scale
    }

    fn bars_and_line(&mut self, chart: &Chart) -> f64 {
        let (top, bottom, right) = (34.0, 250.0, WIDTH - LEGEND);
        let [bars, line] = [&chart.series[0], &chart.series[1]];
        let max =
            chart.series.iter().flat_map(|line| line.values.iter().flatten()).max().copied().unwrap_or(0);
        let scale = self.scale(&chart.unit, max, top, bottom, right);
        let slot = (right - LEFT) / chart.categories.len().max(1) as f64;
        let middle = |at: usize| LEFT + slot * (at as f64 + 0.5);
        for (category, name) in chart.categories.iter().enumerate() {
            self.text(middle(category), bottom + 16.0, Anchor::Middle, name);
            if let Some(value) = bars.values[category] {
                let height = value as f64 * scale;
                self.rect(middle(category) - slot * 0.3, bottom - height, slot * 0.6, height, bars.style);
                self.text(middle(category), bottom - height - 5.0, Anchor::Middle, &words::number(value));
            } else {
                self.text(middle(category), bottom - 6.0, Anchor::Middle, "–");
            }
        }
        let points: Vec<(f64, f64, u64)> = (0..chart.categories.len())
            .filter_map(|at| line.values[at].map(|value| (middle(at), bottom - value as f64 * scale, value)))
            .collect();
        for pair in points.windows(2) {
            write!(
                self.out,
                "<path d=\"M{} {}L{} {}\" fill=\"none\" stroke=\"#fff\" stroke-width=\"5\"/><path d=\"M{} {}L{} {}\" \
                 fill=\"none\" stroke=\"{}\" stroke-width=\"2.5\"/>",
                at(pair[0].0),
                at(pair[0].1),
                at(pair[1].0),
                at(pair[1].1),
                at(pair[0].0),
                at(pair[0].1),
                at(pair[1].0),
                at(pair[1].1),
                line.style.color
            )
            .expect("memory");
        }
        for (x, y, value) in points {
            write!(
                self.out,
                "<circle cx=\"{}\" cy=\"{}\" r=\"4.5\" fill=\"{}\" stroke=\"#fff\" stroke-width=\"1.5\"/>",
                at(x),
                at(y),
                line.style.color
            )
            .expect("memory");
            let text = words::number(value);
            let width = text.len() as f64 * 6.6 + 6.0;
            write!(
                self.out,
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"14\" rx=\"2\" fill=\"#fff\"/>",
                at(x - width / 2.0),
                at(y - 21.0),
                at(width)
            )
            .expect("memory");
            self.colored_text(x, y - 10.0, Anchor::Middle, "fill=\"#222\"", &text);
        }
        self.legend(right + 20.0, top + 6.0, &[(bars.name.clone(), bars.style)]);
        let y = top + 6.0 + ROW;
        write!(
            self.out,
            "<path d=\"M{0} {2}L{1} {2}\" stroke=\"{3}\" stroke-width=\"2.5\"/><circle cx=\"{4}\" cy=\"{2}\" r=\"3.5\" \
             fill=\"{3}\"/>",
            at(right + 18.0),
            at(right + 36.0),
            at(y - 4.0),
            line.style.color,
            at(right + 27.0)
        )
        .expect("memory");
        self.text(right + 40.0, y, Anchor::Start, &line.name);
        bottom + 30.0
    }

    fn pairs(&mut self, chart: &Chart) -> f64 {
        let (left, right, top) = (110.0, WIDTH - 70.0, 30.0);
        let max =
            chart.series.iter().flat_map(|line| line.values.iter().flatten()).max().copied().unwrap_or(0);
        let scale = (right - left) / max.max(1) as f64;
        let mut x = left;
        for line in &chart.series {
            self.legend(x, 14.0, &[(line.name.clone(), line.style)]);
            x += 160.0;
        }
        let (pitch, bar) = (29.0, 11.5);
        for (category, name) in chart.categories.iter().enumerate() {
            let y = top + pitch * category as f64;
            self.text(left - 8.0, y + bar + 4.0, Anchor::End, &clip(name, left - 8.0));
            for (row, line) in chart.series.iter().enumerate() {
                let y = y + row as f64 * bar;
                match line.values[category] {
                    Some(value) => {
                        let width = value as f64 * scale;
                        self.rect(left, y, width, bar, line.style);
                        self.text(left + width + 5.0, y + bar - 2.0, Anchor::Start, &words::number(value));
                    }
                    None => self.text(left + 5.0, y + bar - 2.0, Anchor::Start, "–"),
                }
            }
        }
        let bottom = top + pitch * chart.categories.len() as f64;
        self.line(left, top - 2.0, left, bottom, true);
        bottom + 6.0
    }

    fn stacked(&mut self, chart: &Chart, height: f64, days: bool) -> f64 {
        let (top, bottom, right) = (34.0, height - 34.0, WIDTH - LEGEND);
        let count = chart.categories.len().max(1);
        let max = (0..chart.categories.len()).map(|at| chart.whole(at)).max().unwrap_or(0);
        let scale = self.scale(&chart.unit, max, top, bottom, right);
        let slot = (right - LEFT) / count as f64;
        let every = if !days {
            3
        } else if count <= 31 {
            5
        } else {
            count.div_ceil(8)
        };
        for (category, name) in chart.categories.iter().enumerate() {
            let x = LEFT + slot * category as f64;
            let marked = if days && count <= 31 {
                category == 0 || (category + 1) % every == 0
            } else {
                category % every == 0
            };
            if marked {
                self.text(x + slot / 2.0, bottom + 16.0, Anchor::Middle, name);
            }
            if chart.series.iter().all(|line| line.values[category].is_none()) {
                write!(
                    self.out,
                    "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" class=\"gap\" fill=\"#ececec\"/>",
                    at(x),
                    at(top),
                    at(slot),
                    at(bottom - top)
                )
                .expect("memory");
                self.colored_text(
                    x + slot / 2.0,
                    bottom - 4.0,
                    Anchor::Middle,
                    "class=\"ink\" fill=\"#222\"",
                    "–",
                );
                continue;
            }
            let mut y = bottom;
            for line in &chart.series {
                let piece = line.values[category].unwrap_or(0) as f64 * scale;
                if piece > 0.0 {
                    y -= piece;
                    self.rect(x + slot * 0.1, y, slot * 0.8, piece, line.style);
                }
            }
        }
        self.text(right, bottom + 30.0, Anchor::End, &chart.axis);
        // The uppermost part of a bar is the uppermost name.
        let entries: Vec<(String, Style)> =
            chart.series.iter().rev().map(|line| (line.name.clone(), line.style)).collect();
        self.legend(right + 20.0, top + 6.0, &entries);
        let legend = top + entries.len() as f64 * ROW + 10.0;
        (bottom + 36.0).max(legend)
    }

    fn pie(&mut self, chart: &Chart) -> f64 {
        let (cx, cy, radius) = (180.0, 152.0, 138.0);
        let whole = chart.whole(0);
        let mut angle = 0.0_f64;
        let point = |angle: f64, radius: f64| (cx + radius * angle.sin(), cy - radius * angle.cos());
        for line in &chart.series {
            let value = line.values[0].unwrap_or(0);
            if value == 0 || whole == 0 {
                continue;
            }
            let part = value as f64 / whole as f64;
            let next = angle + part * std::f64::consts::TAU;
            let fill = self.fill(line.style);
            let edge = "class=\"edge\" stroke=\"#fff\"";
            if value == whole {
                write!(self.out, "<circle cx=\"{cx}\" cy=\"{cy}\" r=\"{radius}\" fill=\"{fill}\" {edge}/>")
                    .expect("memory");
            } else {
                let ((x1, y1), (x2, y2)) = (point(angle, radius), point(next, radius));
                write!(
                    self.out,
                    "<path d=\"M{cx} {cy}L{} {}A{radius} {radius} 0 {} 1 {} {}Z\" fill=\"{fill}\" {edge}/>",
                    at(x1),
                    at(y1),
                    u8::from(part > 0.5),
                    at(x2),
                    at(y2)
                )
                .expect("memory");
            }
            if part >= 0.045 {
                let (x, y) = point(f64::midpoint(angle, next), radius * 0.74);
                let percent = words::percent(value, whole).unwrap_or(0);
                self.label(x, y + 4.0, &format!("{percent}%"));
            }
            angle = next;
        }
        for (row, line) in chart.series.iter().enumerate() {
            let y = 26.0 + row as f64 * (ROW + 3.0);
            let percent =
                chart.percent(line, 0).map_or_else(|| "–".to_owned(), |percent| format!("{percent}%"));
            self.rect(370.0, y - 9.5, 14.0, 11.0, line.style);
            self.text(390.0, y, Anchor::Start, &clip(&line.name, 185.0));
            self.text(610.0, y, Anchor::End, &percent);
            self.text(690.0, y, Anchor::End, &words::number(line.values[0].unwrap_or(0)));
        }
        (26.0 + chart.series.len() as f64 * (ROW + 3.0)).max(cy + radius + 12.0)
    }

    /// A number on a piece, readable on every colour and texture.
    fn label(&mut self, x: f64, y: f64, text: &str) {
        let width = text.len() as f64 * 6.4 + 4.0;
        write!(
            self.out,
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"13\" rx=\"2\" fill=\"#fff\" fill-opacity=\".88\"/>",
            at(x - width / 2.0),
            at(y - 10.0),
            at(width)
        )
        .expect("memory");
        self.colored_text(x, y, Anchor::Middle, "fill=\"#222\"", text);
    }

    fn shares(&mut self, chart: &Chart) -> f64 {
        let (top, bottom, right) = (20.0, 300.0, WIDTH - LEGEND);
        for tick in 0..=5 {
            let y = bottom - f64::from(tick) * (bottom - top) / 5.0;
            self.line(LEFT, y, right, y, tick == 0);
            self.text(LEFT - 6.0, y + 4.0, Anchor::End, &format!("{}%", tick * 20));
        }
        let slot = (right - LEFT) / chart.categories.len().max(1) as f64;
        for (category, name) in chart.categories.iter().enumerate() {
            let x = LEFT + slot * (category as f64 + 0.14);
            let width = slot * 0.72;
            self.text(x + width / 2.0, bottom + 16.0, Anchor::Middle, name);
            let whole = chart.whole(category);
            if whole == 0 {
                self.text(x + width / 2.0, bottom - 6.0, Anchor::Middle, "–");
                continue;
            }
            let mut y = bottom;
            for line in &chart.series {
                let piece = line.values[category].unwrap_or(0) as f64 / whole as f64 * (bottom - top);
                if piece <= 0.0 {
                    continue;
                }
                y -= piece;
                self.rect(x, y, width, piece, line.style);
                if piece >= 14.0
                    && let Some(percent) = chart.percent(line, category)
                {
                    self.label(x + width / 2.0, y + piece / 2.0 + 4.0, &format!("{percent}%"));
                }
            }
        }
        let entries: Vec<(String, Style)> =
            chart.series.iter().rev().map(|line| (line.name.clone(), line.style)).collect();
        self.legend(right + 20.0, top + 6.0, &entries);
        (bottom + 26.0).max(top + entries.len() as f64 * ROW + 12.0)
    }

    fn share_rows(&mut self, chart: &Chart) -> f64 {
        let (left, right, top) = (126.0, WIDTH - LEGEND, 12.0);
        let pitch = 30.0;
        for (category, name) in chart.categories.iter().enumerate() {
            let y = top + pitch * category as f64;
            self.text(left - 8.0, y + 15.0, Anchor::End, &clip(name, left - 8.0));
            let whole = chart.whole(category);
            let mut x = left;
            for line in &chart.series {
                if whole == 0 {
                    break;
                }
                let piece = line.values[category].unwrap_or(0) as f64 / whole as f64 * (right - left);
                if piece <= 0.0 {
                    continue;
                }
                self.rect(x, y, piece, 22.0, line.style);
                if piece >= 26.0
                    && let Some(percent) = chart.percent(line, category)
                {
                    self.label(x + piece / 2.0, y + 15.0, &format!("{percent}%"));
                }
                x += piece;
            }
        }
        let bottom = top + pitch * chart.categories.len() as f64;
        for tick in 0..=4 {
            let x = left + f64::from(tick) * (right - left) / 4.0;
            self.text(x, bottom + 8.0, Anchor::Middle, &format!("{}%", tick * 25));
        }
        let entries: Vec<(String, Style)> =
            chart.series.iter().map(|line: &Line| (line.name.clone(), line.style)).collect();
        self.legend(right + 20.0, top + 12.0, &entries);
        (bottom + 16.0).max(top + entries.len() as f64 * ROW + 16.0)
    }
}

/// A round distance of ticks, about `count` of them up to `max`.
fn step(max: u64, count: u64) -> u64 {
    let least = max.div_ceil(count).max(1);
    let mut power = 1;
    loop {
        for factor in [1, 2, 5] {
            if power * factor >= least {
                return power * factor;
            }
        }
        let Some(next) = u64::checked_mul(power, 10) else { return least };
        power = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        for (max, expected) in [(0, 1), (1, 1), (5, 1), (6, 2), (375, 100), (1_811, 500), (543_415, 200_000)]
        {
            assert_eq!(step(max, 5), expected, "{max}");
        }
        assert!(step(u64::MAX, 5) > u64::MAX / 10);
    }

    #[test]
    fn a_long_name_keeps_its_ends() {
        assert_eq!(clip("445/tcp", 100.0), "445/tcp");
        let clipped = clip("観測点01（東京・府中市） 80/tcp", 140.0);
        assert!(clipped.starts_with("観測点01") && clipped.ends_with("80/tcp"), "{clipped}");
        assert!(clipped.contains('…') && width(&clipped) <= 140.0, "{clipped}");
    }

    #[test]
    fn hostile_names_stay_text() {
        let line =
            |name: &str| Line { name: name.to_owned(), style: Style::OTHERS, values: vec![Some(3), None] };
        for form in [
            Form::Pairs,
            Form::Daily,
            Form::Pie,
            Form::Shares,
            Form::ShareRows,
            Form::Hours,
            Form::BarsAndLine,
        ] {
            let chart = Chart {
                form,
                axis: "<axis>".into(),
                categories: vec!["<script>alert(1)</script>".into(), "\u{1}".into()],
                unit: "\"unit\"".into(),
                series: vec![line("a&b"), line("</svg>")],
            };
            let svg = draw(&chart, "f", "\"><script>");
            assert!(!svg.contains("<script"), "{svg}");
            assert!(!svg.contains('\u{1}'));
            assert_eq!(svg.matches("</svg>").count(), 1);
        }
    }
}
