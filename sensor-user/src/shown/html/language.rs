//! The languages of the page: which one a reader gets, and the Japanese words for what has an English name elsewhere.

use crate::format::spoken;
use crate::sight::Reason;
use http::header::{ACCEPT_LANGUAGE, HeaderMap};

/// A language of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    English,
    Japanese,
}

impl Language {
    /// As `Content-Language` and `lang` have it.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Japanese => "ja",
        }
    }

    /// The one that a reader wants: as `?lang=` says, else as `Accept-Language` (RFC 9110, 12.5.4) does.
    pub(crate) fn wanted(query: Option<&str>, headers: &HeaderMap) -> Self {
        match query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("lang=")) {
            Some("ja") => return Self::Japanese,
            Some("en") => return Self::English,
            _ => {}
        }
        // Of those of equal weight the first is meant.
        let mut best = (0.0, Self::English);
        for value in headers.get_all(ACCEPT_LANGUAGE) {
            for range in value.to_str().unwrap_or_default().split(',') {
                let mut parts = range.split(';').map(str::trim);
                let name = parts.next().unwrap_or_default();
                let quality = parts.find_map(|part| part.strip_prefix("q="));
                let quality: f32 = quality.map_or(Ok(1.0), str::parse).unwrap_or(0.0);
                let language = match name.split('-').next().unwrap_or_default().to_ascii_lowercase().as_str()
                {
                    "ja" => Self::Japanese,
                    "en" => Self::English,
                    _ => continue,
                };
                if quality > best.0 {
                    best = (quality, language);
                }
            }
        }
        best.1
    }

    /// One of two texts.
    pub(super) const fn pick(self, english: &'static str, japanese: &'static str) -> &'static str {
        match self {
            Self::English => english,
            Self::Japanese => japanese,
        }
    }

    /// A duration in this language.
    pub(super) fn spoken(self, seconds: f64) -> String {
        let text = spoken(seconds);
        if self == Self::English {
            return text;
        }
        let words = text.split(' ').map(|word| match word {
            "d" => "日",
            "h" => "時間",
            "min" => "分",
            "s" => "秒",
            number => number,
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// What keeps a sensor from seeing, and the way out, in Japanese.
pub(super) const fn blind_text(reason: Reason) -> &'static str {
    match reason {
        Reason::NoAddress => {
            "観測対象となるアドレスがありません。インターフェースにアドレスを付けるか、--observe で指定してください"
        }
        Reason::LinkDown => "インターフェースが停止しています。`ip link set dev 名前 up` で起動してください",
        Reason::NoCarrier => "リンクがありません（キャリアなし）。ケーブルと対向機器を確認してください",
        Reason::WrongInterface => {
            "追従すべきデフォルトルートがないか、インターフェースがブリッジまたはボンドのポートです"
        }
        Reason::Detached => {
            "XDP プログラムが接続されていません。接続できるようになり次第、自動で再接続します"
        }
        Reason::Unreadable => {
            "受信フレームの大半が解釈できない種類です。観測するインターフェースを確認してください"
        }
        Reason::Silent => {
            "通常よりはるかに長い間、何も受信していません。回線、上流のファイアウォール、事業者のフィルタを確認してください"
        }
    }
}

/// The Japanese name of a class.
pub(super) fn class_name(label: &str) -> Option<&'static str> {
    Some(match label {
        "non_ip" => "IP 以外",
        "malformed" => "不正な形式",
        "fragment" => "後続フラグメント",
        "other_destination" => "宛先が対象外",
        "excluded" => "除外した発信元",
        "service" => "提供サービス",
        "solicited" => "自ホスト発の通信への応答",
        "backscatter" => "バックスキャッタ",
        "access" => "アクセス",
        "other" => "その他",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_language_is_the_one_that_the_reader_prefers() {
        for (query, accept, wanted) in [
            (None, "ja", Language::Japanese),
            (None, "ja-JP,ja;q=0.9,en-US;q=0.8,en;q=0.7", Language::Japanese),
            (None, "en-US,en;q=0.9,ja;q=0.8", Language::English),
            (None, "fr,de;q=0.9,JA;q=0.1", Language::Japanese),
            (None, "ja;q=0", Language::English),
            (None, "ja;q=x", Language::English),
            (None, "fr", Language::English),
            (None, "", Language::English),
            (Some("lang=en"), "ja", Language::English),
            (Some("a=b&lang=ja"), "en", Language::Japanese),
            (Some("lang=fr"), "ja", Language::Japanese),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_LANGUAGE, HeaderValue::from_str(accept).unwrap())]);
            assert_eq!(Language::wanted(query, &headers), wanted, "{query:?} {accept}");
        }
        assert_eq!(Language::wanted(None, &HeaderMap::new()), Language::English);
    }
}
