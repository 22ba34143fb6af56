//! `cargo xtask geoip`: fetches the country database that `teiten` carries inside it.

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use lab::command;
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

/// Debian's package of the `IPFire` project's Location database, as text; Debian keeps it up to date.
const PACKAGE: &str = "tor-geoipdb";
/// The files inside the package: a range a line, IPv4 and IPv6.
const FILES: [&str; 2] = ["usr/share/tor/geoip", "usr/share/tor/geoip6"];
/// What each file must still say of its terms.
const LICENCE: &str = "# License:   CC BY-SA 4.0";
/// Where the database and its attribution lie, from the project's root.
const DIRECTORY: &str = "sensor-user/geoip";
/// A range a line, which people and the other programs read.
const FILE: &str = "country.txt.zst";
/// The same ranges as the program embeds them: `sensor-user/src/geoip/embedded.rs` has the format.
const EMBEDDED: &str = "country.bin";
/// Ranges in a block of it: as many as are decoded to find one country.
const BLOCK: usize = 2048;
/// The code of no country there.
const NO_COUNTRY: &str = "??";

/// Networks that have been where they are for decades: universities, registries, incumbent carriers.
const KNOWN: [(&str, &str); 14] = [
    ("5.9.0.1", "DE"),
    ("8.8.8.8", "US"),
    ("41.0.0.1", "ZA"),
    ("61.1.1.1", "IN"),
    ("81.2.69.142", "GB"),
    ("133.11.0.1", "JP"),
    ("177.1.1.1", "BR"),
    ("193.0.6.139", "NL"),
    ("202.12.29.1", "AU"),
    ("218.30.1.1", "CN"),
    ("240e::1", "CN"),
    ("2001:200::1", "JP"),
    ("2001:4860:4860::8888", "US"),
    ("2a01:4f8::1", "DE"),
];
/// Addresses that no country has: private, loopback, documentation.
const NOWHERE: [&str; 6] = ["10.0.0.1", "127.0.0.1", "192.0.2.1", "::1", "2001:db8::1", "fd00::1"];

/// What is known of a database that was found good.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    ranges_v4: u64,
    ranges_v6: u64,
    /// IPv4 addresses that have a country.
    addresses_v4: u64,
    countries: usize,
    built: Timestamp,
}

/// Fetches the database with apt, checks it, and replaces the embedded one.
///
/// # Errors
///
/// apt or dpkg fails, the licence or the contents are not what they must be, or a file cannot be
/// written. The embedded database is then as it was.
pub fn refresh() -> Result<()> {
    let work = tempfile::tempdir().context("make a temporary directory")?;
    let package = download(work.path())?;
    let version = command::output(Command::new("dpkg-deb").args(["-f"]).arg(&package).arg("Version"))?;
    let version = version.trim();
    command::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(work.path()))?;
    let texts = FILES.map(|file| {
        fs::read_to_string(work.path().join(file)).with_context(|| format!("read {file} of {PACKAGE}"))
    });
    let [v4, v6] = texts;
    let database = joined(&v4?, &v6?).with_context(|| format!("take over {PACKAGE} {version}"))?;
    let compressed = compress(database.as_bytes())?;
    let directory = command::root().join(DIRECTORY);
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let contents = embed(&database, version, compressed.len())?;
    let file = directory.join(FILE);
    fs::write(&file, &compressed).with_context(|| format!("write {}", file.display()))?;
    eprintln!(
        "{DIRECTORY}/{FILE}: {PACKAGE} {version}, {} countries, {} bytes",
        contents.countries,
        compressed.len()
    );
    Ok(())
}

/// Writes what is embedded again, from the text that is there: when its format has changed.
///
/// # Errors
///
/// A file cannot be read or written, or the text is not what it must be.
pub fn again() -> Result<()> {
    let directory = command::root().join(DIRECTORY);
    let read = |file| fs::read(directory.join(file)).with_context(|| format!("read {DIRECTORY}/{file}"));
    let compressed = read(FILE)?;
    let text = String::from_utf8(zstd::stream::decode_all(&compressed[..])?)?;
    let readme = String::from_utf8(read("README.md")?)?;
    let version = version(&readme).with_context(|| format!("find the version of {PACKAGE} in README.md"))?;
    embed(&text, version, compressed.len())?;
    Ok(())
}

/// The version of the package that the attribution names.
fn version(readme: &str) -> Option<&str> {
    readme.split_once(&format!("`{PACKAGE}` "))?.1.split(' ').next()
}

/// Checks the text of the database, and writes what is embedded of it, and its attribution. `compressed` is
/// the size of the text as it is kept, bytes.
fn embed(database: &str, version: &str, compressed: usize) -> Result<Contents> {
    let contents =
        examine(database, &KNOWN, &NOWHERE).with_context(|| format!("check {PACKAGE} {version}"))?;
    let embedded = compact(&parse(database)?, contents.built)?;
    let directory = command::root().join(DIRECTORY);
    let file = directory.join(EMBEDDED);
    fs::write(&file, &embedded).with_context(|| format!("write {}", file.display()))?;
    let readme = directory.join("README.md");
    fs::write(&readme, attribution(version, &contents, [database.len(), compressed, embedded.len()]))
        .with_context(|| format!("write {}", readme.display()))?;
    Ok(contents)
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut compressed = Vec::new();
    zstd::stream::compress_sized_into(bytes, &mut compressed, 19, bytes.len() as u64)
        .context("compress the database")?;
    Ok(compressed)
}

/// The ranges as the program embeds them.
///
/// # Errors
///
/// There are more blocks or larger ones than the format has numbers for, or more than 256 countries in one.
fn compact(ranges: &[AddressRange<'_>], built: Timestamp) -> Result<Vec<u8>> {
    let number = |address: &IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(*address)),
        IpAddr::V6(address) => u128::from(*address),
    };
    let families = [(true, u128::from(u32::MAX)), (false, u128::MAX)].map(|(is_v4, last)| {
        let family = ranges.iter().filter(|range| range.0.is_ipv4() == is_v4);
        covering(family.map(|(first, last, country)| (number(first), number(last), *country)), last)
    });
    let mut bytes = built.as_second().to_le_bytes().to_vec();
    for family in &families {
        bytes.extend(u32::try_from(family.chunks(BLOCK).count())?.to_le_bytes());
    }
    for (family, size) in families.iter().zip([4, 16]) {
        for block in family.chunks(BLOCK) {
            bytes.extend(&block[0].0.to_le_bytes()[..size]);
        }
    }
    let mut blocks = Vec::new();
    for block in families.iter().flat_map(|family| family.chunks(BLOCK)) {
        blocks.extend(compress(&encoded(block)?)?);
        bytes.extend(u32::try_from(blocks.len())?.to_le_bytes());
    }
    bytes.extend(blocks);
    Ok(bytes)
}

/// The first address and the country of each range, where the ranges cover the space up to `end` and neighbours
/// differ.
fn covering<'a>(ranges: impl Iterator<Item = (u128, u128, &'a str)>, end: u128) -> Vec<(u128, &'a str)> {
    let mut covering = Vec::new();
    let mut append = |start, country| {
        if covering.last().is_none_or(|(_, before)| *before != country) {
            covering.push((start, country));
        }
    };
    // The first address after the range before; none after the last of all.
    let mut next = Some(0);
    for (first, last, country) in ranges {
        if let Some(next) = next.filter(|next| *next < first) {
            append(next, NO_COUNTRY);
        }
        append(first, country);
        next = last.checked_add(1);
    }
    if let Some(next) = next.filter(|next| *next <= end) {
        append(next, NO_COUNTRY);
    }
    covering
}

/// A block before it is compressed.
fn encoded(block: &[(u128, &str)]) -> Result<Vec<u8>> {
    let countries: Vec<&str> =
        block.iter().map(|(_, country)| *country).collect::<BTreeSet<_>>().into_iter().collect();
    let mut bytes = u16::try_from(block.len())?.to_le_bytes().to_vec();
    bytes.extend(u16::try_from(countries.len())?.to_le_bytes());
    bytes.extend(countries.iter().flat_map(|country| country.bytes()));
    let mut odd_sizes = Vec::new();
    for pair in block.windows(2) {
        let size = pair[1].0 - pair[0].0;
        let exponent = size.trailing_zeros();
        match size >> exponent {
            1 => bytes.push(exponent as u8),
            odd => {
                bytes.push(exponent as u8 | 0x80);
                leb128((odd - 3) / 2, &mut odd_sizes);
            }
        }
    }
    for (_, country) in block {
        bytes.push(u8::try_from(countries.partition_point(|before| before < country))?);
    }
    bytes.extend(odd_sizes);
    Ok(bytes)
}

fn leb128(mut number: u128, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Has apt put the package into `directory`, and returns its path.
fn download(directory: &Path) -> Result<std::path::PathBuf> {
    let Some(apt) = command::find("apt-get") else {
        bail!("apt-get is not installed; the database comes from Debian");
    };
    command::run(Command::new(apt).args(["download", PACKAGE]).current_dir(directory))?;
    let package = fs::read_dir(directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    package.with_context(|| format!("find the file that `apt-get download {PACKAGE}` wrote"))
}

/// One text of both families, of countries alone.
///
/// # Errors
///
/// A file does not name its licence or when it was generated.
fn joined(v4: &str, v6: &str) -> Result<String> {
    let generated = v4.lines().find(|line| line.starts_with("# Generated: "));
    let generated = generated.context("find when it was generated")?;
    let mut database = format!(
        "{generated}\n# IPFire Location database, https://location.ipfire.org/, CC BY-SA 4.0; see README.md.\n"
    );
    for text in [v4, v6] {
        ensure!(
            text.lines().any(|line| line == LICENCE),
            "it does not say {LICENCE:?}: read the new terms first"
        );
        let ranges = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        // Neither unknown networks nor those of the whole European Union have a country.
        for range in ranges.filter(|range| !range.ends_with(",??") && !range.ends_with(",EU")) {
            database.push_str(range);
            database.push('\n');
        }
    }
    Ok(database)
}

/// Looks at everything in `database`.
///
/// # Errors
///
/// It is no database of both families with an ISO 3166-1 code for each range, or says something else than
/// `known` and `nowhere`.
fn examine(database: &str, known: &[(&str, &str)], nowhere: &[&str]) -> Result<Contents> {
    let ranges = parse(database)?;
    for (address, expected) in known {
        let found = country(&ranges, address)?;
        ensure!(found == Some(*expected), "{address} is in {expected}, the database says {found:?}");
    }
    for address in nowhere {
        let found = country(&ranges, address)?;
        ensure!(found.is_none(), "{address} is in no country, the database says {found:?}");
    }
    let is_v4 = |range: &&AddressRange<'_>| range.0.is_ipv4();
    let (ranges_v4, all) = (ranges.iter().filter(is_v4).count() as u64, ranges.len() as u64);
    ensure!(ranges_v4 > 0 && all > ranges_v4, "{ranges_v4} IPv4 ranges of {all}");
    let addresses_v4 = ranges.iter().filter_map(|(first, last, _)| match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => Some(u64::from(u32::from(*last) - u32::from(*first)) + 1),
        _ => None,
    });
    let countries: BTreeSet<&str> = ranges.iter().map(|(.., country)| *country).collect();
    let built = database.lines().find_map(|line| line.strip_prefix("# Generated: "));
    let built = jiff::fmt::rfc2822::parse(built.context("find when it was generated")?)?.timestamp();
    Ok(Contents {
        ranges_v4,
        ranges_v6: all - ranges_v4,
        addresses_v4: addresses_v4.sum(),
        countries: countries.len(),
        built,
    })
}

/// First and last address, country.
type AddressRange<'a> = (IpAddr, IpAddr, &'a str);

/// The ranges, ascending.
///
/// # Errors
///
/// A line is none, or lies within the one before.
pub fn parse(database: &str) -> Result<Vec<AddressRange<'_>>> {
    let address = |text: &str| match text.parse::<u32>() {
        Ok(number) => Ok(IpAddr::from(std::net::Ipv4Addr::from(number))),
        Err(_) => text.parse(),
    };
    let mut ranges: Vec<AddressRange<'_>> = Vec::new();
    for line in database.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(',').collect();
        let [first, last, code] = fields[..] else { bail!("the line {line:?} is no range") };
        let (first, last) = (address(first).with_context(|| line.to_owned())?, address(last)?);
        ensure!(
            code.len() == 2 && code.bytes().all(|letter| letter.is_ascii_uppercase()),
            "the line {line:?} has no ISO 3166-1 alpha-2 code"
        );
        let is_behind = ranges.last().is_none_or(|(_, before, _)| *before < first);
        ensure!(
            first.is_ipv4() == last.is_ipv4() && first <= last && is_behind,
            "the line {line:?} is not in order"
        );
        ranges.push((first, last, code));
    }
    Ok(ranges)
}

/// The country of an address.
///
/// # Errors
///
/// The text is not an address.
pub fn country<'a>(ranges: &[AddressRange<'a>], address: &str) -> Result<Option<&'a str>> {
    let address: IpAddr = address.parse().with_context(|| format!("parse {address}"))?;
    Ok(country_of(ranges, address))
}

/// The country of an address.
pub fn country_of<'a>(ranges: &[AddressRange<'a>], address: IpAddr) -> Option<&'a str> {
    let after = ranges.partition_point(|(first, ..)| *first <= address);
    let range = after.checked_sub(1).map(|at| ranges[at]);
    range.filter(|(_, last, _)| address <= *last).map(|(.., country)| country)
}

fn attribution(version: &str, contents: &Contents, [size, compressed, embedded]: [usize; 3]) -> String {
    let Contents { ranges_v4, ranges_v6, addresses_v4, countries, built } = contents;
    let share = addresses_v4 * 100 / (1_u64 << 32);
    let built = built.strftime("%Y-%m-%d");
    format!(
        "# The embedded country database\n\
         \n\
         `{EMBEDDED}` is what `teiten` locates sources with unless `--geoip` names another file; `{FILE}` has the\n\
         same ranges as text. Both are written by `cargo xtask geoip`, which also checks them; do not edit them.\n\
         \n\
         | | |\n\
         |---|---|\n\
         | data | IPFire Location database, <https://location.ipfire.org/>, of the IPFire project |\n\
         | licence | [CC BY-SA 4.0](https://creativecommons.org/licenses/by-sa/4.0/); it holds for these files and for what is made from it, not for the program |\n\
         | changes | both families in one file; ranges without a country and those of the whole EU left out |\n\
         | taken from | Debian's package `{PACKAGE}` {version} |\n\
         | built | {built} |\n\
         | form | a range a line, `first,last,country` with an ISO 3166-1 alpha-2 code, compressed with zstd -19; as embedded: `sensor-user/src/geoip/embedded.rs` |\n\
         | contents | {countries} countries; {ranges_v4} IPv4 ranges ({share} % of all IPv4 addresses); {ranges_v6} IPv6 ranges |\n\
         | size | {size} bytes, {compressed} compressed; as embedded {embedded} |\n\
         \n\
         ## How good it is\n\
         \n\
         Measured on 2026-11-29 with five databases of June 2026, on random addresses of announced networks for which\n\
         at least three of them agree (198,503 IPv4 addresses; 48,591 IPv6 addresses, each network alike):\n\
         \n\
         | database | IPv4: known | agrees | IPv6: known | agrees | of Japan's IPv6 missed | licence |\n\
         |---|---|---|---|---|---|---|\n\
         | **this one** | 100.0 % | 99.3 % | 100.0 % | 98.3 % | 2.7 % | CC BY-SA 4.0 |\n\
         | `geo-whois-asn-country` of ip-location-db | 100.0 % | 99.2 % | 99.4 % | 94.1 % | 16.9 % | CC0, CC BY 4.0 |\n\
         | GeoLite2 Country | 100.0 % | 98.8 % | 99.9 % | 92.8 % | 9.9 % | MaxMind's EULA |\n\
         | DB-IP Lite Country | 100.0 % | 96.4 % | 100.0 % | 95.1 % | 2.9 % | CC BY 4.0 |\n\
         | IPtoASN | 94.1 % | 88.4 % | 65.9 % | 58.4 % | 34.7 % | PDDL 1.0 |\n\
         \n\
         A majority is not the truth, and a country is that of the network's user as registry or operator tells it; for\n\
         hosting and anycast it need not be the machine's. Addresses that the database does not hold are `unknown`.\n\
         \n\
         It is as old as its build date above, and older with every month after the release. A centre whose reports rest\n\
         on regions gives a database that is kept fresh with `--geoip`: [Countries](../../docs/operating.md#countries) says how.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedded() -> String {
        let file = command::root().join(DIRECTORY).join(FILE);
        String::from_utf8(zstd::stream::decode_all(&fs::read(file).unwrap()[..]).unwrap()).unwrap()
    }

    #[test]
    fn the_embedded_database_is_good() {
        let contents = examine(&embedded(), &KNOWN, &NOWHERE).unwrap();
        // ISO 3166-1 has 249 codes and reserves a few more; a handful of territories announces no network.
        assert!((200..=260).contains(&contents.countries), "{contents:?}");
        // 3.7 billion IPv4 addresses can be announced, of which most are.
        assert!((2_500_000_000..3_700_000_000).contains(&contents.addresses_v4), "{contents:?}");
        assert!(contents.ranges_v4 > 100_000 && contents.ranges_v6 > 10_000, "{contents:?}");
    }

    #[test]
    fn what_is_embedded_is_what_the_text_says() {
        let text = embedded();
        let built = examine(&text, &[], &[]).unwrap().built;
        let bytes = fs::read(command::root().join(DIRECTORY).join(EMBEDDED)).unwrap();
        assert!(bytes == compact(&parse(&text).unwrap(), built).unwrap(), "run `cargo xtask geoip --again`");
    }

    #[test]
    fn ranges_cover_the_space_and_are_in_blocks() {
        let text = "16777216,16777471,AU\n16777472,16777473,AU\n16777474,16777474,CN\n::,::1,JP\n\
                    ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff,ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff,US\n";
        let bytes = compact(&parse(text).unwrap(), Timestamp::from_second(0x0102).unwrap()).unwrap();
        // One block of each family, which begins at 0.
        let mut head = vec![2, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0];
        head.extend([0; 4 + 16]);
        assert_eq!(bytes[..head.len()], head);
        let (ends, blocks) = bytes[head.len()..].split_at(8);
        let [v4_end, v6_end] =
            [&ends[..4], &ends[4..]].map(|end| u32::from_le_bytes(end.try_into().unwrap()) as usize);
        assert_eq!(v6_end, blocks.len());
        // Nothing up to 1.0.0.0, 2^24; 259 addresses, of which AU has 258 = 129 × 2; then nothing.
        let mut v4 = vec![4, 0, 3, 0];
        v4.extend(b"??AUCN");
        v4.extend([24, 0x81, 0, 0, 1, 2, 0, 63]);
        assert_eq!(zstd::stream::decode_all(&blocks[..v4_end]).unwrap(), v4);
        // 2^128 - 3 addresses between, of which 3 are taken off and the half is stored.
        let mut v6 = vec![3, 0, 3, 0];
        v6.extend(b"??JPUS");
        v6.extend([1, 0x80, 1, 0, 2, 0xfd]);
        v6.extend([0xff; 17]);
        v6.push(0x01);
        assert_eq!(zstd::stream::decode_all(&blocks[v4_end..]).unwrap(), v6);
    }

    #[test]
    fn its_attribution_names_what_it_is() {
        let database = embedded();
        let contents = examine(&database, &[], &[]).unwrap();
        let readme = fs::read_to_string(command::root().join(DIRECTORY).join("README.md")).unwrap();
        let size = |file| fs::metadata(command::root().join(DIRECTORY).join(file)).unwrap().len() as usize;
        assert_eq!(
            readme,
            attribution(version(&readme).unwrap(), &contents, [database.len(), size(FILE), size(EMBEDDED)])
        );
    }

    #[test]
    fn a_database_that_is_wrong_about_a_known_network_is_refused() {
        let error = examine(&embedded(), &[("8.8.8.8", "JP")], &[]).unwrap_err();
        assert_eq!(error.to_string(), "8.8.8.8 is in JP, the database says Some(\"US\")");
        let error = examine(&embedded(), &[], &["8.8.8.8"]).unwrap_err();
        assert_eq!(error.to_string(), "8.8.8.8 is in no country, the database says Some(\"US\")");
    }

    #[test]
    fn other_terms_and_damage_are_refused() {
        let v4 = "# Generated: Thu, 25 Jun 2026 04:33:59 GMT\n# License:   CC BY-SA 4.0\n16777216,16777471,AU\n1,2,??\n";
        let v6 = "# License:   CC BY-SA 4.0\n2001:200::,2001:200:ffff::,JP\n2a00::,2a00::1,EU\n";
        let database = joined(v4, v6).unwrap();
        let lines: Vec<&str> = database.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines, ["16777216,16777471,AU", "2001:200::,2001:200:ffff::,JP"]);
        assert!(joined(v4, &v6.replace("BY-SA", "BY-NC")).is_err());
        assert!(examine(&database[..database.len() - 4], &[], &[]).is_err());
    }
}
