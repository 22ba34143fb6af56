//! The landing page: today's picture on one screen, without scripts or anything from elsewhere.

use crate::status::{CountryRow, DayStatus, PortRow, Status, percent, spoken, thousands};
use jiff::tz::TimeZone;
use std::fmt::{self, Display, Write};

/// Rows of a ranking; the rest is summed up.
const TOP: usize = 10;

const STYLE: &str = "\
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#5d6670;--line:#d9dee3;--bar:#9ec5ee;\
--good:#14672f;--bad:#b3151a}\
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e4e8ec;--dim:#98a2ad;--line:#30363d;\
--bar:#2c5686;--good:#63c883;--bad:#ff8080}}\
*{box-sizing:border-box}\
body{margin:0 auto;padding:1.5rem;max-width:72rem;background:var(--bg);color:var(--fg);\
font:16px/1.5 system-ui,sans-serif}\
h1{margin:0;font-size:1.5rem}h2{margin:2rem 0 .5rem;font-size:1.1rem}\
p{margin:.25rem 0}a{color:inherit}\
.dim{color:var(--dim)}.good{color:var(--good)}.bad{color:var(--bad);font-weight:600}\
.tiles{display:flex;flex-wrap:wrap;gap:1rem;margin:1rem 0}\
.tile{flex:1 1 10rem;padding:.75rem 1rem;border:1px solid var(--line);border-radius:.5rem}\
.tile b{display:block;font-size:1.75rem;line-height:1.2;font-variant-numeric:tabular-nums}\
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:0 2.5rem}\
table{width:100%;border-collapse:collapse;font-variant-numeric:tabular-nums}\
th{font-weight:400;color:var(--dim);text-align:left}\
th,td{padding:.2rem .5rem;border-bottom:1px solid var(--line)}\
.n{text-align:right;white-space:nowrap}\
.share{min-width:7rem;background:linear-gradient(var(--bar),var(--bar)) no-repeat 0 50%/calc(var(--share)*.6%) 70%}\
section{min-width:0;overflow-x:auto}\
@media(max-width:40rem){th,td{padding:.2rem .25rem}.share{min-width:4.5rem}}\
.identity{font-size:.9rem;overflow-wrap:anywhere}\
.hours{display:flex;align-items:flex-end;gap:2px;height:8rem}\
.hours div{flex:1;display:flex;flex-direction:column;justify-content:flex-end;height:100%;\
font-size:.7rem;text-align:center;color:var(--dim)}\
.hours i{display:block;background:var(--bar);border-radius:2px 2px 0 0;min-height:1px}";

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

/// The page.
pub(super) fn render(status: &Status) -> String {
    let mut out = String::with_capacity(16 * 1024);
    // Writing to a string does not fail.
    let _ = write(status, &mut out);
    out
}

fn write(status: &Status, out: &mut String) -> fmt::Result {
    let sensor = Escaped(&status.sensor);
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{sensor} – Teiten</title><style>{STYLE}</style></head><body>\n\
         <header><h1>{sensor}</h1><p class=\"dim\">Teiten {}: fixed-point observation of the Internet, \
         days by {}</p><p>",
        Escaped(&status.version),
        Escaped(&status.timezone),
    )?;
    out.push_str(if status.up {
        "<span class=\"good\">● up</span>"
    } else {
        "<span class=\"bad\">● down</span>: the XDP program is not attached, or the last drain is too old"
    });
    if let Some(last) = status.last_drain {
        let ago = spoken(status.now.duration_since(last).as_secs_f64());
        write!(out, " <span class=\"dim\">last drain {ago} ago</span>")?;
    }
    for interface in &status.interfaces {
        let (name, mode) = (Escaped(&interface.name), Escaped(&interface.xdp_mode));
        write!(out, " <span class=\"dim\">· {name} ({mode})</span>")?;
    }
    out.push_str("</p>");
    if let Some(since) = status.since {
        let zone = TimeZone::get(&status.timezone).unwrap_or(TimeZone::UTC);
        let since = since.to_zoned(zone).strftime("%Y-%m-%d %H:%M %Z").to_string();
        let observed = spoken(status.observed_seconds);
        write!(out, "<p class=\"dim\">Counting since {}, {observed} observed</p>", Escaped(since))?;
    }
    for note in &status.notes {
        write!(out, "<p class=\"bad\">{}</p>", Escaped(note))?;
    }
    out.push_str("</header>\n<main>");
    match &status.today {
        Some(today) => day(today, out)?,
        None => out.push_str("<h2>Today</h2><p>Nothing was committed today yet.</p>"),
    }
    out.push_str("<div class=\"columns\">");
    classes(status, out)?;
    loss(status, out)?;
    out.push_str(
        "</div></main>\n<footer><h2>More</h2><p><a href=\"/metrics\">Metrics</a> for Prometheus · \
         <a href=\"/api/v1/status\">status</a> as JSON · <a href=\"/-/healthy\">healthy</a> · \
         <a href=\"/-/ready\">ready</a></p></footer></body></html>\n",
    );
    Ok(())
}

fn day(today: &DayStatus, out: &mut String) -> fmt::Result {
    write!(out, "<h2>Today, {}</h2><div class=\"tiles\">", Escaped(today.date))?;
    for (value, what) in
        [(today.accesses, "accesses"), (today.sources, "cumulative sources"), (today.hosts, "unique hosts")]
    {
        write!(out, "<div class=\"tile\"><b>{}</b>{what}</div>", thousands(value))?;
    }
    out.push_str("</div>");
    hours(&today.hours, out)?;
    out.push_str("<div class=\"columns\">");
    ranking(
        "Ports",
        "Port",
        today.ports.iter().map(|row: &PortRow| {
            let name = row.name.as_deref().unwrap_or_default();
            (format!("{}/{}", row.port, row.transport), name, row.accesses, row.sources)
        }),
        today,
        out,
    )?;
    ranking(
        "Regions",
        "Country",
        today.countries.iter().map(|row: &CountryRow| (row.country.clone(), "", row.accesses, row.sources)),
        today,
        out,
    )?;
    out.push_str("</div>");
    Ok(())
}

fn hours(hours: &[u64], out: &mut String) -> fmt::Result {
    let most = hours.iter().copied().max().unwrap_or(0);
    out.push_str(
        "<h2>Accesses by hour</h2><div class=\"hours\" role=\"img\" aria-label=\"Accesses by local hour\">",
    );
    for (hour, &accesses) in hours.iter().enumerate() {
        write!(
            out,
            "<div title=\"{hour:02}: {}\"><i style=\"height:{}%\"></i>{hour}</div>",
            thousands(accesses),
            // Room for the hour below.
            percent(accesses, most) * 85 / 100
        )?;
    }
    out.push_str("</div>");
    Ok(())
}

fn ranking<'a>(
    title: &str,
    label: &str,
    rows: impl ExactSizeIterator<Item = (String, &'a str, u64, u64)>,
    today: &DayStatus,
    out: &mut String,
) -> fmt::Result {
    write!(
        out,
        "<section><h2>{title}</h2><table><thead><tr><th>{label}</th><th class=\"n\">Accesses</th>\
         <th class=\"n\">Share</th><th class=\"n\">Sources</th></tr></thead><tbody>"
    )?;
    let mut rest = (rows.len().saturating_sub(TOP), 0, 0);
    for (index, (label, name, accesses, sources)) in rows.enumerate() {
        if index >= TOP {
            rest = (rest.0, rest.1 + accesses, rest.2 + sources);
            continue;
        }
        write!(out, "<tr><td>{} <span class=\"dim\">{}</span></td>", Escaped(label), Escaped(name))?;
        numbers(accesses, sources, today.accesses, out)?;
    }
    if rest.0 > 0 {
        write!(out, "<tr><td class=\"dim\">{} more</td>", thousands(rest.0 as u64))?;
        numbers(rest.1, rest.2, today.accesses, out)?;
    }
    out.push_str("</tbody></table></section>");
    Ok(())
}

fn numbers(accesses: u64, sources: u64, whole: u64, out: &mut String) -> fmt::Result {
    let share = percent(accesses, whole);
    write!(
        out,
        "<td class=\"n\">{}</td><td class=\"n share\" style=\"--share:{share}\">{share} %</td>\
         <td class=\"n\">{}</td></tr>",
        thousands(accesses),
        thousands(sources)
    )
}

fn classes(status: &Status, out: &mut String) -> fmt::Result {
    let today = status.today.as_ref().map(|today| &today.classes).filter(|classes| !classes.is_empty());
    out.push_str("<section><h2>All packets since counting began</h2><table><thead><tr><th>Class</th>");
    if today.is_some() {
        out.push_str("<th class=\"n\">Today</th>");
    }
    out.push_str(
        "<th class=\"n\">Packets</th><th class=\"n\">Share</th><th class=\"n\">Bytes</th></tr></thead><tbody>",
    );
    let whole = status.total.classes.iter().map(|row| row.packets).sum();
    for row in &status.total.classes {
        let share = percent(row.packets, whole);
        write!(out, "<tr><td>{}</td>", Escaped(&row.class))?;
        if let Some(today) = today {
            let packets = today.iter().find(|of_day| of_day.class == row.class).map_or(0, |row| row.packets);
            write!(out, "<td class=\"n\">{}</td>", thousands(packets))?;
        }
        write!(
            out,
            "<td class=\"n\">{}</td><td class=\"n share\" style=\"--share:{share}\">{share} %</td>\
             <td class=\"n\">{}</td></tr>",
            thousands(row.packets),
            thousands(row.bytes)
        )?;
    }
    out.push_str("</tbody></table></section>");
    Ok(())
}

fn loss(status: &Status, out: &mut String) -> fmt::Result {
    let loss = status.loss;
    out.push_str("<section><h2>Loss</h2>");
    let class = |is_good| if is_good { "good" } else { "bad" };
    let overflow = loss.source_table_overflow_packets;
    write!(
        out,
        "<p class=\"{}\">{} accesses counted by port without their source</p>",
        class(overflow == 0),
        thousands(overflow)
    )?;
    if loss.source_set_overflow > 0 {
        let sources = thousands(loss.source_set_overflow);
        write!(
            out,
            "<p class=\"bad\">{sources} sources not counted as such: the day's sets of sources were full</p>"
        )?;
    }
    if let Some(unobserved) = loss.unobserved_seconds {
        write!(out, "<p>{} without counting</p>", spoken(unobserved))?;
    }
    write!(
        out,
        "<p class=\"{}\">{} drains tried again</p>",
        class(loss.drain_failures == 0),
        thousands(loss.drain_failures)
    )?;
    out.push_str("<h2>Sums that must agree</h2>");
    for identity in &status.identities {
        write!(
            out,
            "<p class=\"identity {}\">{}: {}</p>",
            class(identity.holds),
            if identity.holds { "holds" } else { "fails" },
            Escaped(&identity.identity)
        )?;
        if !identity.holds {
            write!(out, "<p>{} and {}</p>", thousands(identity.left), thousands(identity.right))?;
        }
    }
    out.push_str("</section>");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::{info, status_with};

    #[test]
    fn names_and_notes_cannot_become_markup() {
        let mut info = info();
        let evil = "</title><script>alert('1')</script>&";
        info.sensor = evil.to_owned();
        info.interfaces = vec![evil.to_owned()];
        let mut status = status_with(&info, &[evil.to_owned()]);
        if let Some(today) = &mut status.today {
            today.ports[0].name = Some(evil.to_owned());
            today.countries[0].country = evil.to_owned();
        }
        let page = render(&status);
        assert!(!page.contains("<script"), "{page}");
        let escaped = "&lt;/title&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;";
        // Title, heading, interface, note, port and country.
        assert_eq!(page.matches(escaped).count(), 6, "{page}");
    }

    #[test]
    fn the_day_has_its_classes_beside_the_totals_and_the_page_says_since_when() {
        let mut status = status_with(&info(), &[]);
        // 09:59:50 in Tokyo, and ten minutes less than a day observed.
        assert!(
            render(&status).contains("Counting since 2026-11-21 09:59 JST, 23 h 50 min observed"),
            "{}",
            render(&status)
        );
        let row = "<tr><td>access</td><td class=\"n\">1,000</td><td class=\"n share\"";
        assert!(render(&status).contains(row), "without classes of the day there is no column for them");
        status.today.as_mut().unwrap().classes =
            vec![crate::status::DayClassRow { class: "access".to_owned(), packets: 200 }];
        let row = "<tr><td>access</td><td class=\"n\">200</td><td class=\"n\">1,000</td>";
        assert!(render(&status).contains(row), "{}", render(&status));
    }

    #[test]
    fn what_is_wrong_stands_out() {
        let mut status = status_with(&info(), &[]);
        assert!(render(&status).contains("<span class=\"good\">● up</span>"));
        // 200 accesses of the example lost their source.
        assert!(
            render(&status).contains("<p class=\"bad\">200 accesses counted by port without their source")
        );
        assert!(!render(&status).contains("sets of sources were full"));
        status.loss.source_set_overflow = 1_200;
        assert!(render(&status).contains("<p class=\"bad\">1,200 sources not counted as such"));
        status.up = false;
        status.identities[0].holds = false;
        let page = render(&status);
        assert!(page.contains("<span class=\"bad\">● down</span>"), "{page}");
        assert!(page.contains("<p class=\"identity bad\">fails: sum(teiten_accesses_total)"), "{page}");
    }
}
