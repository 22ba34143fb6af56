//! Whether bytes are text, and in which characters.

use encoding_rs::{DecoderResult, Encoding, SHIFT_JIS, UTF_16BE, UTF_16LE};

/// The characters of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// ASCII among them.
    Utf8,
    /// With the additions of Windows (code page 932).
    ShiftJis,
    /// Little-endian.
    Utf16Le,
    /// Big-endian.
    Utf16Be,
}

impl Charset {
    /// Its name, as IANA registers it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::ShiftJis => "Shift_JIS",
            Self::Utf16Le => "UTF-16LE",
            Self::Utf16Be => "UTF-16BE",
        }
    }
}

/// Reads `bytes` as text; `None` when they are none. Characters that a text has at its end for the sake of a
/// format (NUL) are left out, and so is one of which only a part is there when the text `is_cut`.
pub fn decode(bytes: &[u8], is_cut: bool) -> Option<(Charset, String)> {
    if let Some(bytes) = bytes.strip_prefix(b"\xff\xfe") {
        return wide(UTF_16LE, bytes, is_cut).map(|text| (Charset::Utf16Le, text));
    }
    if let Some(bytes) = bytes.strip_prefix(b"\xfe\xff") {
        return wide(UTF_16BE, bytes, is_cut).map(|text| (Charset::Utf16Be, text));
    }
    if let Some(text) = utf8(bytes, is_cut) {
        return Some((Charset::Utf8, text));
    }
    // Without a mark, UTF-16 is recognised by its Latin letters, or by kana.
    for (charset, encoding) in [(Charset::Utf16Le, UTF_16LE), (Charset::Utf16Be, UTF_16BE)] {
        if let Some(text) = wide(encoding, bytes, is_cut) {
            let telling = text.chars().filter(|c| c.is_ascii() || is_kana(*c)).count();
            if telling * 2 >= text.chars().count() && telling >= 2 {
                return Some((charset, text));
            }
        }
    }
    let text = strict(SHIFT_JIS, trimmed(bytes, 1), is_cut)?;
    // Nearly any bytes are Shift_JIS of some kind; Japanese text has hiragana or katakana of full width.
    let wide = text.chars().filter(|c| !c.is_ascii()).count();
    let kana = text.chars().filter(|c| is_kana(*c)).count();
    (kana >= 2 && kana * 8 >= wide && is_readable(&text)).then_some((Charset::ShiftJis, text))
}

fn utf8(bytes: &[u8], is_cut: bool) -> Option<String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let bytes = trimmed(bytes, 1);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if is_cut && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    is_readable(text).then(|| text.to_owned())
}

fn wide(encoding: &'static Encoding, bytes: &[u8], is_cut: bool) -> Option<String> {
    let whole = if is_cut { bytes.len() & !1 } else { bytes.len() };
    let bytes = trimmed(bytes.get(..whole)?, 2);
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    strict(encoding, bytes, is_cut).filter(|text| is_readable(text))
}

/// Decodes without replacing anything.
fn strict(encoding: &'static Encoding, bytes: &[u8], is_cut: bool) -> Option<String> {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let mut text = String::with_capacity(decoder.max_utf8_buffer_length_without_replacement(bytes.len())?);
    let (result, _) = decoder.decode_to_string_without_replacement(bytes, &mut text, !is_cut);
    matches!(result, DecoderResult::InputEmpty).then_some(text)
}

/// Without units of zero at the end.
fn trimmed(bytes: &[u8], unit: usize) -> &[u8] {
    let mut bytes = bytes;
    while bytes.len() >= unit && bytes.len().is_multiple_of(unit) {
        let (rest, last) = bytes.split_at(bytes.len() - unit);
        if last.iter().any(|byte| *byte != 0) {
            break;
        }
        bytes = rest;
    }
    bytes
}

/// Whether a person could read it: one character in twenty may be a control character that no text has, and
/// none a NUL.
fn is_readable(text: &str) -> bool {
    let mut characters = 0;
    let mut odd = 0;
    for c in text.chars() {
        if c == '\0' {
            return false;
        }
        characters += 1;
        odd += usize::from((c.is_control() && !matches!(c, '\n' | '\r' | '\t')) || is_private(c));
    }
    characters > 0 && odd * 20 <= characters
}

fn is_private(c: char) -> bool {
    matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}' | '\u{f0000}'..)
}

fn is_kana(c: char) -> bool {
    matches!(c, '\u{3041}'..='\u{30ff}')
}

/// What a terminal may be given of a character: itself, or a name of it. Control characters, those that
/// change the direction of text and those that are not seen are named. Line breaks are left to the caller.
pub fn shown(c: char, out: &mut String) {
    use std::fmt::Write as _;
    let is_plain = match c {
        '\n' | '\t' => true,
        _ if c.is_control() => false,
        // Soft hyphen; marks and overrides of direction; joiners; separators; variation selectors; tags;
        // fillers that look like nothing.
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => false,
        _ => !is_private(c),
    };
    if is_plain {
        out.push(c);
    } else if (c as u32) < 0x100 {
        let _ = write!(out, "\\x{:02x}", c as u32);
    } else {
        let _ = write!(out, "\\u{{{:x}}}", c as u32);
    }
}

/// A text as a terminal may be given it; a return before a line break is part of it.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if c == '\r' {
            if characters.peek() != Some(&'\n') {
                out.push('\n');
            }
            continue;
        }
        shown(c, &mut out);
    }
    out
}

/// The same in one line.
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => shown(c, &mut out),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Option<(&'static str, String)> {
        decode(bytes, false).map(|(charset, text)| (charset.name(), text))
    }

    fn utf16(text: &str, swap: bool) -> Vec<u8> {
        let bytes = |unit: u16| if swap { unit.to_be_bytes() } else { unit.to_le_bytes() };
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn characters_are_recognised() {
        assert_eq!(of(b"Critical Error\r\n\0"), Some(("UTF-8", "Critical Error\r\n".into())));
        assert_eq!(of("警告: システム".as_bytes()), Some(("UTF-8", "警告: システム".into())));
        // 警告です, in Shift_JIS.
        let sjis = b"\x8c\x78\x8d\x90\x82\xc5\x82\xb7";
        assert_eq!(of(sjis), Some(("Shift_JIS", "警告です".into())));
        assert_eq!(of(&utf16("STOP! 55", false)), Some(("UTF-16LE", "STOP! 55".into())));
        assert_eq!(of(&utf16("これは警告です", true)), Some(("UTF-16BE", "これは警告です".into())));
        assert_eq!(of(b"\xff\xfeA\0"), Some(("UTF-16LE", "A".into())));
    }

    #[test]
    fn what_is_no_text_is_none() {
        assert_eq!(of(b""), None);
        assert_eq!(of(b"\0\0\0"), None);
        assert_eq!(of(b"\x17\x00\x03\x2a\0\0\0\0"), None);
        assert_eq!(of(b"abc\x01\x02\x03\x04"), None);
        assert_eq!(of(b"\x80\x81\xfe\xff\x00\x10"), None);
    }

    #[test]
    fn a_character_that_is_cut_is_left_out() {
        let text = "あいう".as_bytes();
        assert_eq!(of(&text[..8]), None);
        assert_eq!(decode(&text[..8], true), Some((Charset::Utf8, "あい".into())));
        assert_eq!(decode(b"\x82\xa0\x82\xa2\x82", true), Some((Charset::ShiftJis, "あい".into())));
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_shown() {
        assert_eq!(plain("a\x1b[31m\u{9b}b\u{202e}c\r\nd\re"), "a\\x1b[31m\\x9bb\\u{202e}c\nd\ne");
        assert_eq!(line("a\n\x07"), "a\\n\\x07");
    }
}
