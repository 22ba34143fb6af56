//! The landing page: today's picture on one screen, in English or Japanese, without scripts or anything
//! from elsewhere. It loads itself again every half minute.

mod language;

pub(crate) use language::Language;

use super::rows::{
    BandRow, CountryRow, ListRow, NO_NETWORK, NetworkRow, OTHER_NETWORKS, Ranked, listed, of_networks, top,
};
use super::{DayStatus, Status};
use crate::country::Country;
use crate::format::{percent, thousands};
use crate::who::lists::NO_LIST;
use jiff::tz::TimeZone;
use language::{blind_text, class_name};
use std::fmt::{self, Display, Write};

/// Seconds after which the page loads itself again.
const REFRESH: u32 = 30;

const STYLE: &str = "\
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#5d6670;--line:#d9dee3;--bar:#5b95d6;\
--track:#eef1f4;--good:#14672f;--bad:#b3151a;--badbg:#fdeceb}\
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e4e8ec;--dim:#98a2ad;--line:#30363d;\
--bar:#4d86c6;--track:#22272c;--good:#63c883;--bad:#ff8f8f;--badbg:#3a1d1e}}\
*{box-sizing:border-box}\
body{margin:0 auto;padding:1.25rem;max-width:72rem;background:var(--bg);color:var(--fg);\
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}\
h1{margin:0;font-size:1.5rem;line-height:1.3}h2{margin:1.75rem 0 .5rem;font-size:1.1rem}\
p{margin:.25rem 0}a{color:inherit}\
.dim{color:var(--dim)}.good{color:var(--good)}.bad{color:var(--bad);font-weight:600}\
.note{margin:.5rem 0;padding:.4rem .75rem;border-left:.25rem solid var(--bad);background:var(--badbg)}\
.tiles{display:flex;flex-wrap:wrap;gap:.75rem;margin:1rem 0}\
.tile{flex:1 1 auto;min-width:9rem;padding:.6rem 1rem;border:1px solid var(--line);border-radius:.5rem}\
.tile b{display:block;white-space:nowrap;font-size:clamp(1.2rem,5vw,1.75rem);line-height:1.2;font-variant-numeric:tabular-nums}\
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));gap:0 2.5rem}\
table{width:100%;border-collapse:collapse;font-variant-numeric:tabular-nums}\
th{font-weight:400;color:var(--dim);text-align:left;vertical-align:bottom}\
th,td{padding:.2rem .4rem;overflow-wrap:break-word}tr{border-bottom:1px solid var(--line)}\
th:first-child,td:first-child{padding-left:0;min-width:6.5rem}\
.n{text-align:right;white-space:nowrap}\
.share{width:18%}.share div{height:.7rem;background:var(--track);border-radius:2px}\
.share i{display:block;height:100%;background:var(--bar);border-radius:2px}\
section{min-width:0;overflow-x:auto}\
.detail,.identity{font-size:.9rem}.detail{color:var(--dim)}\
.hours{display:flex;gap:2px}\
.hours div{flex:1;min-width:0;text-align:center;font-size:.7rem;color:var(--dim)}\
.hours span{display:flex;align-items:flex-end;height:6rem;background:var(--track)}\
.hours i{flex:1;background:var(--bar);border-radius:2px 2px 0 0}\
.hours .now{color:var(--fg);font-weight:700}\
@media(max-width:32rem){body{padding:.75rem}th,td{padding:.2rem;font-size:.875rem}th:first-child,td:first-child{min-width:5rem}.share,.wide{display:none}\
.hours{gap:1px}.hours div{font-size:.55rem}}";

/// Text that came from elsewhere, as HTML text or attribute value.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl Write for Escaping<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for character in text.chars() {
                    match character {
                        '&' => self.0.write_str("&amp;")?,
                        '<' => self.0.write_str("&lt;")?,
                        '>' => self.0.write_str("&gt;")?,
                        '"' => self.0.write_str("&quot;")?,
                        '\'' => self.0.write_str("&#39;")?,
                        other => self.0.write_char(other)?,
                    }
                }
                Ok(())
            }
        }
        write!(Escaping(f), "{}", self.0)
    }
}

/// The page; `metrics` is the path of the metrics.
pub(crate) fn render(status: &Status, metrics: &str, language: Language) -> String {
    let mut page = HtmlPage { status, language, out: String::with_capacity(16 * 1024) };
    // Writing to a string does not fail.
    let _ = page.write(metrics);
    page.out
}

struct HtmlPage<'a> {
    status: &'a Status,
    language: Language,
    out: String,
}

impl HtmlPage<'_> {
    fn pick(&self, english: &'static str, japanese: &'static str) -> &'static str {
        self.language.pick(english, japanese)
    }

    fn write(&mut self, metrics: &str) -> fmt::Result {
        let sensor = Escaped(&self.status.sensor);
        write!(
            self.out,
            "<!doctype html>\n<html lang=\"{}\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <meta http-equiv=\"refresh\" content=\"{REFRESH}\">\
             <title>Teiten – {sensor}</title><style>{STYLE}</style></head><body>\n<header>",
            self.language.code()
        )?;
        let what = self.pick("fixed-point observation of the Internet", "インターネット定点観測");
        let version = Escaped(&self.status.version);
        write!(self.out, "<p class=\"dim\">Teiten {version} · {what}</p><h1>{sensor}</h1>")?;
        self.state()?;
        self.out.push_str("</header>\n<main>");
        if let Some(today) = &self.status.today {
            self.day(today)?;
        } else {
            let title = self.pick("Today", "本日");
            let text = self.pick("Nothing was committed today yet.", "本日の集計はまだありません。");
            write!(self.out, "<h2>{title}</h2><p>{text}</p>")?;
        }
        self.out.push_str("<div class=\"columns\">");
        self.classes()?;
        self.tools()?;
        self.samples()?;
        self.loss()?;
        let (more, metrics_text, json, healthy, ready) = match self.language {
            Language::English => ("More", "metrics for Prometheus", "status as JSON", "healthy", "ready"),
            Language::Japanese => {
                ("その他", "Prometheus 用メトリクス", "状態（JSON）", "稼働確認", "準備確認")
            }
        };
        write!(
            self.out,
            "</div></main>\n<footer><h2>{more}</h2><p><a href=\"{}\">{metrics_text}</a> · \
             <a href=\"/api/v1/status\">{json}</a> · <a href=\"/-/healthy\">{healthy}</a> · \
             <a href=\"/-/ready\">{ready}</a> · <a href=\"/?lang=en\" lang=\"en\">English</a> · \
             <a href=\"/?lang=ja\" lang=\"ja\">日本語</a></p></footer></body></html>\n",
            Escaped(metrics)
        )
    }

    /// Whether the sensor sees its line, since when, and what else there is to know.
    fn state(&mut self) -> fmt::Result {
        let status = self.status;
        let state = match (status.up, status.blind.is_empty()) {
            (true, true) => self
                .pick("<span class=\"good\">● sees its line</span>", "<span class=\"good\">● 観測中</span>"),
            (true, false) => self.pick(
                "<span class=\"bad\">● may not see all of its line</span>",
                "<span class=\"bad\">● 観測に支障のおそれ</span>",
            ),
            (false, false) => self.pick(
                "<span class=\"bad\">● does not see its line</span>",
                "<span class=\"bad\">● 回線を観測できていません</span>",
            ),
            (false, true) => self.pick(
                "<span class=\"bad\">● down</span>: no drain was committed within three intervals",
                "<span class=\"bad\">● 停止</span>：集計間隔の 3 倍以上、集計が行われていません",
            ),
        };
        write!(self.out, "<p>{state}")?;
        if let Some(last) = status.last_drain {
            let ago = self.language.spoken(status.now.duration_since(last).as_secs_f64());
            let text = match self.language {
                Language::English => format!("last drain {ago} ago"),
                Language::Japanese => format!("最終集計 {ago}前"),
            };
            write!(self.out, " <span class=\"dim\">· {text}</span>")?;
        }
        for interface in &status.interfaces {
            let (name, mode) = (Escaped(&interface.name), Escaped(&interface.xdp_mode));
            write!(self.out, " <span class=\"dim\">· {name} ({mode})</span>")?;
        }
        self.out.push_str("</p>");
        if let Some(since) = status.since {
            let zone = TimeZone::get(&status.timezone).unwrap_or(TimeZone::UTC);
            let since = since.to_zoned(zone).strftime("%Y-%m-%d %H:%M %Z").to_string();
            let (since, observed) = (Escaped(since), self.language.spoken(status.observed_seconds));
            let zone = Escaped(&status.timezone);
            match self.language {
                Language::English => write!(
                    self.out,
                    "<p class=\"dim\">Counting since {since}, {observed} observed; days by {zone}</p>"
                )?,
                Language::Japanese => write!(
                    self.out,
                    "<p class=\"dim\">{since} から計数、観測時間 {observed}、日付は {zone}</p>"
                )?,
            }
        }
        for blind in &status.blind {
            let interface = blind.interface.as_deref().unwrap_or_default();
            let japanese = format!("{interface} {}", blind_text(blind.reason));
            self.note(Some(japanese.trim_start()), &format_args!("{}: {blind}", blind.reason))?;
        }
        for note in &status.notes {
            self.note(note.japanese(), note)?;
        }
        Ok(())
    }

    /// In Japanese, the English text follows for its details.
    fn note(&mut self, japanese: Option<&str>, english: &dyn Display) -> fmt::Result {
        match japanese.filter(|_| self.language == Language::Japanese) {
            Some(japanese) => write!(
                self.out,
                "<p class=\"note\">{}<br><span class=\"detail\" lang=\"en\">{}</span></p>",
                Escaped(japanese),
                Escaped(english)
            ),
            None => write!(self.out, "<p class=\"note\" lang=\"en\">{}</p>", Escaped(english)),
        }
    }

    fn day(&mut self, today: &DayStatus) -> fmt::Result {
        let date = match self.language {
            Language::English => format!("Today, {}", today.date),
            Language::Japanese => format!("本日（{}）", today.date.strftime("%Y年%-m月%-d日")),
        };
        write!(self.out, "<h2>{}</h2><div class=\"tiles\">", Escaped(date))?;
        for (value, what) in [
            (today.accesses, self.pick("accesses", "アクセス数")),
            (today.sources, self.pick("cumulative sources", "延べ発信元数")),
            (today.hosts, self.pick("unique hosts", "ユニークホスト数")),
        ] {
            write!(self.out, "<div class=\"tile\"><b>{}</b>{what}</div>", thousands(value))?;
        }
        self.out.push_str("</div>");
        if today.accesses == 0 {
            let text = self.pick("No access was counted today yet.", "本日のアクセスはまだありません。");
            return write!(self.out, "<p>{text}</p>");
        }
        self.hours(&today.hours)?;
        self.out.push_str("<div class=\"columns\">");
        let ports = today.ports.iter().map(Ranked::from).collect();
        let (title, label) = (self.pick("Ports", "宛先（ポート種類）"), self.pick("Port", "ポート"));
        self.ranking(title, label, ports, today.accesses)?;
        let language = self.language;
        let region = |row: &CountryRow| {
            let mut ranked = Ranked::from(row);
            let names = Country::from_label(&row.country).and_then(Country::names);
            if let Some((english, japanese)) = names {
                language.pick(english, japanese).clone_into(&mut ranked.label);
                // Codes of two letters; the others are words themselves.
                ranked.name = if row.country.len() == 2 { row.country.clone() } else { String::new() };
            }
            ranked
        };
        let regions = today.countries.iter().map(region).collect();
        let (title, label) = (self.pick("Regions", "発信元地域"), self.pick("Region", "地域"));
        self.ranking(title, label, regions, today.accesses)?;
        if let Some(lists) = listed(&today.lists) {
            let row = |row: &ListRow| {
                let mut ranked = Ranked::from(row);
                if row.list == NO_LIST {
                    language.pick("no list", "リスト外").clone_into(&mut ranked.label);
                }
                ranked
            };
            let lists = lists.iter().map(row).collect();
            let (title, label) = (self.pick("Source lists", "発信元リスト"), self.pick("List", "リスト"));
            self.ranking(title, label, lists, today.accesses)?;
        }
        if let Some(networks) = of_networks(&today.networks) {
            let row = |row: &NetworkRow| {
                let ranked = Ranked::from(row);
                match row.asn.as_str() {
                    NO_NETWORK => {
                        Ranked { label: language.pick("no network", "該当なし").to_owned(), ..ranked }
                    }
                    OTHER_NETWORKS => {
                        Ranked { label: language.pick("others", "その他").to_owned(), ..ranked }
                    }
                    // The name says more than the number.
                    _ => Ranked { label: ranked.name, name: ranked.label, ..ranked },
                }
            };
            let networks = networks.iter().map(row).collect();
            let (title, label) =
                (self.pick("Networks", "発信元ネットワーク"), self.pick("Network", "ネットワーク"));
            self.ranking(title, label, networks, today.accesses)?;
        }
        self.breadth(&today.breadth, [today.hosts, today.accesses])?;
        self.out.push_str("</div>");
        Ok(())
    }

    /// Sources by how many ports they reached, as shares of `hosts` and `accesses`.
    fn breadth(&mut self, rows: &[BandRow], [hosts, accesses]: [u64; 2]) -> fmt::Result {
        if rows.is_empty() {
            return Ok(());
        }
        let (title, ports, of_hosts, share, of_accesses) = match self.language {
            Language::English => ("Ports reached by a source", "Ports", "Hosts", "Share", "Accesses"),
            Language::Japanese => ("発信元ごとの宛先ポート数", "ポート数", "ホスト", "割合", "アクセス"),
        };
        write!(
            self.out,
            "<section><h2>{title}</h2><table><thead><tr><th>{ports}</th><th class=\"n\">{of_hosts}</th>\
             <th class=\"n\">{share}</th><th class=\"n\">{of_accesses}</th><th class=\"n\">{share}</th></tr></thead><tbody>"
        )?;
        for row in rows {
            let label =
                if row.ports == "unknown" { self.pick("not known", "不明") } else { row.ports.as_str() };
            write!(
                self.out,
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{} %</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{} %</td></tr>",
                Escaped(label),
                thousands(row.hosts),
                percent(row.hosts, hosts),
                thousands(row.accesses),
                percent(row.accesses, accesses)
            )?;
        }
        self.out.push_str("</tbody></table></section>");
        Ok(())
    }

    fn hours(&mut self, hours: &[u64]) -> fmt::Result {
        let most = hours.iter().copied().max().unwrap_or(0);
        let zone = TimeZone::get(&self.status.timezone).unwrap_or(TimeZone::UTC);
        let now = self.status.now.to_zoned(zone).hour();
        let title = self.pick("Accesses by hour", "時間帯別アクセス数");
        let label = self.pick("most in an hour", "最多");
        write!(
            self.out,
            "<h2>{title} <span class=\"dim\">· {label} {}</span></h2>\
             <div class=\"hours\" role=\"img\" aria-label=\"{title}\">",
            thousands(most)
        )?;
        for (hour, &accesses) in hours.iter().enumerate() {
            let class = if usize::try_from(now) == Ok(hour) { " class=\"now\"" } else { "" };
            write!(
                self.out,
                "<div{class} title=\"{hour:02}: {}\"><span><i style=\"height:{}%\"></i></span>{hour}</div>",
                thousands(accesses),
                percent(accesses, most)
            )?;
        }
        self.out.push_str("</div>");
        Ok(())
    }

    fn ranking(&mut self, title: &str, label: &str, rows: Vec<Ranked>, whole: u64) -> fmt::Result {
        let (accesses, share, sources) = match self.language {
            Language::English => ("Accesses", "Share", "Sources"),
            Language::Japanese => ("アクセス", "割合", "発信元"),
        };
        write!(
            self.out,
            "<section><h2>{title}</h2><table><thead><tr><th>{label}</th><th class=\"n\">{accesses}</th>\
             <th class=\"share\"></th><th class=\"n\">{share}</th><th class=\"n\">{sources}</th></tr></thead><tbody>"
        )?;
        let (top, rest) = top(rows);
        for row in top {
            write!(
                self.out,
                "<tr><td>{} <span class=\"dim\">{}</span></td><td class=\"n\">{}</td>",
                Escaped(row.label),
                Escaped(row.name),
                thousands(row.accesses)
            )?;
            self.share(row.accesses, whole)?;
            write!(self.out, "<td class=\"n\">{}</td></tr>", thousands(row.sources))?;
        }
        if let Some((rows, accesses, sources)) = rest {
            let rows = thousands(rows as u64);
            let more = match self.language {
                Language::English => format!("{rows} more"),
                Language::Japanese => format!("ほか {rows} 件"),
            };
            write!(
                self.out,
                "<tr><td class=\"dim\">{more}</td><td class=\"n\">{}</td>",
                thousands(accesses)
            )?;
            self.share(accesses, whole)?;
            write!(self.out, "<td class=\"n\">{}</td></tr>", thousands(sources))?;
        }
        self.out.push_str("</tbody></table></section>");
        Ok(())
    }

    /// The cells of a share: its bar, and beside it the number.
    fn share(&mut self, part: u64, whole: u64) -> fmt::Result {
        let share = percent(part, whole);
        write!(
            self.out,
            "<td class=\"share\"><div><i style=\"width:{share}%\"></i></div></td><td class=\"n\">{share} %</td>"
        )
    }

    fn classes(&mut self) -> fmt::Result {
        let status = self.status;
        let today = status.today.as_ref().map(|today| &today.classes);
        let (title, class, of_today, packets, share, bytes) = match self.language {
            Language::English => {
                ("All packets since counting began", "Class", "Today", "Packets", "Share", "Bytes")
            }
            Language::Japanese => ("計数開始からの全パケット", "分類", "本日", "パケット", "割合", "バイト"),
        };
        write!(self.out, "<section><h2>{title}</h2><table><thead><tr><th>{class}</th>")?;
        if today.is_some() {
            write!(self.out, "<th class=\"n\">{of_today}</th>")?;
        }
        write!(
            self.out,
            "<th class=\"n\">{packets}</th><th class=\"n\">{share}</th><th class=\"n wide\">{bytes}</th></tr></thead>\
             <tbody>"
        )?;
        let whole = status.total.classes.iter().map(|row| row.packets).sum();
        for row in &status.total.classes {
            let label = Escaped(&row.class);
            match class_name(&row.class).filter(|_| self.language == Language::Japanese) {
                Some(name) => write!(self.out, "<tr><td>{name} <span class=\"dim\">{label}</span></td>")?,
                None => write!(self.out, "<tr><td>{label}</td>")?,
            }
            if let Some(today) = today {
                let of_day = today.iter().find(|of_day| of_day.class == row.class);
                let packets = of_day.map_or(0, |row| row.packets);
                write!(self.out, "<td class=\"n\">{}</td>", thousands(packets))?;
            }
            write!(
                self.out,
                "<td class=\"n\">{}</td><td class=\"n\">{} %</td><td class=\"n wide\">{}</td></tr>",
                thousands(row.packets),
                percent(row.packets, whole),
                size(row.bytes)
            )?;
        }
        self.out.push_str("</tbody></table></section>");
        Ok(())
    }

    /// What made the TCP SYNs, when there were some.
    fn tools(&mut self) -> fmt::Result {
        let tools = self.status.total.tools.iter().filter(|row| row.accesses > 0);
        let whole: u64 = tools.clone().map(|row| row.accesses).sum();
        if whole == 0 {
            return Ok(());
        }
        let (title, tool, accesses, share) = match self.language {
            Language::English => {
                ("Scanners, by TCP SYN, since counting began", "Scanner", "Accesses", "Share")
            }
            Language::Japanese => ("計数開始からのスキャナー別TCP SYN", "スキャナー", "アクセス", "割合"),
        };
        write!(
            self.out,
            "<section><h2>{title}</h2><table><thead><tr><th>{tool}</th><th class=\"n\">{accesses}</th>\
             <th class=\"n\">{share}</th></tr></thead><tbody>"
        )?;
        for row in tools {
            let label = if row.tool == "other" { self.pick("other", "その他") } else { row.tool.as_str() };
            write!(
                self.out,
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{} %</td></tr>",
                Escaped(label),
                thousands(row.accesses),
                percent(row.accesses, whole)
            )?;
        }
        self.out.push_str("</tbody></table></section>");
        Ok(())
    }

    /// What became of packets whose content was looked at, when there were some, and how to see what they held.
    fn samples(&mut self) -> fmt::Result {
        let rows = self.status.total.samples.iter().filter(|row| row.packets > 0);
        let whole: u64 = rows.clone().map(|row| row.packets).sum();
        if whole == 0 {
            return Ok(());
        }
        let (title, result, packets, share, how) = match self.language {
            Language::English => (
                "Samples of what packets hold",
                "Content",
                "Packets",
                "Share",
                "<code>teiten samples</code> shows the contents on this host; docs/samples.md says what is kept and for how long.",
            ),
            Language::Japanese => (
                "パケット内容の標本",
                "内容",
                "パケット",
                "割合",
                "内容はこのホストの <code>teiten samples</code> で表示。保存内容と期間は docs/samples.md を参照。",
            ),
        };
        write!(
            self.out,
            "<section><h2>{title}</h2><table><thead><tr><th>{result}</th><th class=\"n\">{packets}</th>\
             <th class=\"n\">{share}</th></tr></thead><tbody>"
        )?;
        for row in rows {
            let label = match row.result.as_str() {
                "kept" => self.pick("new, kept", "新規（保存）"),
                "known" => self.pick("known", "既知"),
                "over_budget" => self.pick("not kept: a bound was reached", "上限のため保存せず"),
                other => other,
            };
            write!(
                self.out,
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{} %</td></tr>",
                Escaped(label),
                thousands(row.packets),
                percent(row.packets, whole)
            )?;
        }
        write!(self.out, "</tbody></table><p class=\"dim\">{how}</p></section>")
    }

    fn loss(&mut self) -> fmt::Result {
        let loss = self.status.loss;
        write!(self.out, "<section><h2>{}</h2>", self.pick("Loss", "欠測・損失"))?;
        let overflow = loss.source_table_overflow_packets;
        self.line(
            overflow == 0,
            overflow,
            "accesses counted by port without their source",
            "件のアクセスは発信元を記録できず、ポートのみで計数",
        )?;
        if loss.source_set_overflow > 0 {
            self.line(
                false,
                loss.source_set_overflow,
                "sources not counted as such: the day's sets of sources were full",
                "件の発信元は、1 日の発信元集合が満杯のため計数されず",
            )?;
        }
        if let Some(unobserved) = loss.unobserved_seconds {
            let unobserved = self.language.spoken(unobserved);
            match self.language {
                Language::English => write!(self.out, "<p>{unobserved} without counting</p>")?,
                Language::Japanese => write!(self.out, "<p>観測できなかった時間 {unobserved}</p>")?,
            }
        }
        let archive = self.status.archive;
        if archive.lost_packets > 0 {
            self.line(
                false,
                archive.lost_packets,
                "packets are not in the archive, which could not be written",
                "件のパケットは、書き込めなかったためアーカイブになし",
            )?;
        }
        self.line(loss.drain_failures == 0, loss.drain_failures, "drains tried again", "回の集計を再試行")?;
        write!(self.out, "<h2>{}</h2>", self.pick("Sums that must agree", "一致すべき合計"))?;
        for identity in &self.status.identities {
            let holds =
                if identity.holds { self.pick("holds", "一致") } else { self.pick("fails", "不一致") };
            write!(
                self.out,
                "<p class=\"identity {}\">{holds}: {}</p>",
                class(identity.holds),
                Escaped(&identity.identity)
            )?;
            if !identity.holds {
                let (left, right) = (thousands(identity.left), thousands(identity.right));
                write!(self.out, "<p>{left} ≠ {right}</p>")?;
            }
        }
        self.out.push_str("</section>");
        Ok(())
    }

    /// A number and what it counts.
    fn line(
        &mut self,
        is_good: bool,
        number: u64,
        english: &'static str,
        japanese: &'static str,
    ) -> fmt::Result {
        let (class, number, text) = (class(is_good), thousands(number), self.pick(english, japanese));
        write!(self.out, "<p class=\"{class}\">{number} {text}</p>")
    }
}

/// A number of bytes with three digits: `9.88 TB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    // What would be rounded to 1,000 is 1 of the next unit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1_000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

const fn class(is_good: bool) -> &'static str {
    if is_good { "good" } else { "bad" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shown::tests::{info, status_with};
    use crate::shown::{Note, PortName};
    use crate::sight::{Blind, Reason};

    fn english(status: &Status) -> String {
        render(status, "/metrics", Language::English)
    }

    #[test]
    fn names_and_notes_cannot_become_markup() {
        let mut info = info();
        let evil = "</title><script>alert('1')</script>&";
        info.sensor = evil.to_owned();
        info.interfaces = vec![evil.to_owned()];
        let mut status = status_with(&info, &[Note::new(evil, evil)]);
        if let Some(today) = &mut status.today {
            today.ports[0].name = PortName::Known(evil.to_owned());
            today.countries[0].country = evil.to_owned();
        }
        for language in [Language::English, Language::Japanese] {
            let page = render(&status, "/metrics", language);
            assert!(!page.contains("<script"), "{page}");
            let escaped = "&lt;/title&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;";
            // Title, heading, interface, note, port and country; in Japanese the note has two texts.
            let expected = if language == Language::English { 6 } else { 7 };
            assert_eq!(page.matches(escaped).count(), expected, "{page}");
        }
    }

    #[test]
    fn the_day_has_its_classes_beside_the_totals_and_the_page_says_since_when() {
        let mut status = status_with(&info(), &[]);
        let page = english(&status);
        // 09:59:50 in Tokyo, and ten minutes less than a day observed.
        assert!(page.contains("Counting since 2026-11-21 09:59 JST, 23 h 50 min observed"), "{page}");
        let row = "<tr><td>access</td><td class=\"n\">200</td><td class=\"n\">1,000</td>";
        assert!(page.contains(row), "{page}");
        status.today = None;
        let row = "<tr><td>access</td><td class=\"n\">1,000</td><td class=\"n\">50 %</td>";
        assert!(english(&status).contains(row), "without a day there is no column for it");
    }

    #[test]
    fn scanners_are_there_when_one_was_seen() {
        let mut status = status_with(&info(), &[]);
        status.total.tools.iter_mut().for_each(|row| row.accesses = 0);
        assert!(!english(&status).contains("Scanners"));
        let mirai = status.total.tools.iter_mut().find(|row| row.tool == "mirai").unwrap();
        mirai.accesses = 3_000;
        status.total.tools.iter_mut().find(|row| row.tool == "other").unwrap().accesses = 1_000;
        let row = "<tr><td>mirai</td><td class=\"n\">3,000</td><td class=\"n\">75 %</td></tr>";
        assert!(english(&status).contains(row), "{}", english(&status));
        assert!(!english(&status).contains("<td>zmap</td>"));
        let page = render(&status, "/metrics", Language::Japanese);
        assert!(
            page.contains("<tr><td>その他</td><td class=\"n\">1,000</td><td class=\"n\">25 %</td></tr>"),
            "{page}"
        );
    }

    #[test]
    fn samples_are_there_when_packets_were_looked_at() {
        let mut status = status_with(&info(), &[]);
        status.total.samples.iter_mut().for_each(|row| row.packets = 0);
        assert!(!english(&status).contains("Samples"));
        for (result, packets) in [("kept", 30), ("known", 1_500), ("over_budget", 1_470)] {
            let row = status.total.samples.iter_mut().find(|row| row.result == result);
            row.expect("one row for each result").packets = packets;
        }
        let row = "<tr><td>known</td><td class=\"n\">1,500</td><td class=\"n\">50 %</td></tr>";
        let page = english(&status);
        assert!(page.contains(row) && page.contains("<code>teiten samples</code>"), "{page}");
        let row = "<tr><td>新規（保存）</td><td class=\"n\">30</td><td class=\"n\">1 %</td></tr>";
        let page = render(&status, "/metrics", Language::Japanese);
        assert!(page.contains(row), "{page}");
    }

    #[test]
    fn what_is_wrong_stands_out() {
        let mut status = status_with(&info(), &[]);
        assert!(english(&status).contains("<span class=\"good\">● sees its line</span>"));
        // 200 accesses of the example lost their source.
        assert!(
            english(&status).contains("<p class=\"bad\">200 accesses counted by port without their source")
        );
        assert!(!english(&status).contains("sets of sources were full"));
        status.loss.source_set_overflow = 1_200;
        assert!(english(&status).contains("<p class=\"bad\">1,200 sources not counted as such"));
        status.up = false;
        status.identities[0].holds = false;
        let page = english(&status);
        assert!(page.contains("<span class=\"bad\">● down</span>"), "{page}");
        assert!(page.contains("<p class=\"identity bad\">fails: sum(teiten_accesses_total)"), "{page}");
    }

    #[test]
    fn the_whole_page_is_in_the_language_of_the_reader() {
        let note = Note::new("eth0 is slow", "eth0 は低速です");
        let page = render(&status_with(&info(), &[note]), "/metrics", Language::Japanese);
        for text in [
            "<p class=\"note\">eth0 は低速です<br><span class=\"detail\" lang=\"en\">eth0 is slow</span></p>",
            "<html lang=\"ja\">",
            "<title>Teiten – tokyo-1</title>",
            "本日（2026年11月22日）",
            "● 観測中",
            "最終集計 4 秒前",
            "観測時間 23 時間 50 分",
            "<td>日本 <span class=\"dim\">JP</span></td>",
            "延べ発信元数",
            "アクセス <span class=\"dim\">access</span>",
        ] {
            assert!(page.contains(text), "{text}: {page}");
        }
        for word in ["accesses", "Today", "sources", "ago", "Share", "drain", "Packets", "holds"] {
            let outside = page.replace("teiten_", "").replace("_accesses", "").replace("accesses_total", "");
            let outside = outside.replace("sources_total", "").replace("source_table_overflow", "");
            assert!(
                !outside.contains(&format!(" {word}")) && !outside.contains(&format!(">{word}")),
                "{word}"
            );
        }
        assert!(english(&status_with(&info(), &[])).contains("<td>Japan <span class=\"dim\">JP</span></td>"));
    }

    #[test]
    fn the_state_says_what_keeps_the_sensor_from_seeing() {
        let mut status = status_with(&info(), &[]);
        status.blind = vec![Blind {
            reason: Reason::NoCarrier,
            interface: Some("eth0".to_owned()),
            what: "eth0 has <no> carrier".to_owned(),
            advice: "plug it in".to_owned(),
        }];
        assert!(english(&status).contains("● may not see all of its line"));
        status.up = false;
        let page = english(&status);
        assert!(page.contains("● does not see its line") && !page.contains("● down"), "{page}");
        assert!(page.contains("lang=\"en\">no_carrier: eth0 has &lt;no&gt; carrier; "), "{page}");
        let page = render(&status, "/metrics", Language::Japanese);
        assert!(page.contains("eth0 リンクがありません（キャリアなし）"), "{page}");
        status.blind.clear();
        assert!(english(&status).contains("● down</span>: no drain was committed within three intervals"));
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, said) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (60_000, "60.0 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (9_876_543_210_987, "9.88 TB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), said);
        }
    }

    #[test]
    fn a_day_without_an_access_says_so() {
        let mut status = status_with(&info(), &[]);
        let today = status.today.as_mut().unwrap();
        (today.accesses, today.sources, today.hosts) = (0, 0, 0);
        (today.ports, today.countries, today.hours) = (Vec::new(), Vec::new(), vec![0; 24]);
        assert!(english(&status).contains("No access was counted today yet."));
        assert!(!english(&status).contains("class=\"hours\""));
        status.today = None;
        assert!(english(&status).contains("Nothing was committed today yet."));
    }
}
