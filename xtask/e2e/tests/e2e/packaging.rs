//! What is installed with the sensor: Debian packages in a system of their own, systemd units, and the script that
//! fetches the country database.

use crate::common::{teiten, teiten_report};
use lab::build::target_directory;
use lab::command::{find, root};
use lab::debian::System;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use xtask::package::Binaries;

const UNIT: &str = "packaging/teiten.service";

/// A line with a peer in a namespace of its own, and what scripts ask the sensor.
const COMMON: &str = r#"
# The packets of a class since counting began.
class() { teiten status --json | grep -o '"total":.*' | grep -o "\"class\":\"$1\",\"packets\":[0-9]*" | head -1 | grep -o '[0-9]*$'; }
fail() { echo "FAILED: $*"; systemctl status teiten --no-pager -l || true; journalctl -u teiten --no-pager | tail -30; exit 1; }
ready() { for i in $(seq 600); do ! teiten status >/dev/null 2>&1 || return 0; sleep 0.1; done; fail "not ready"; }
counted() { for i in $(seq 600); do [ "$(class access)" != "$1" ] || return 0; sleep 0.1; done; fail "$1 accesses were sent, $(class access) counted"; }
ip netns add peer
ip link add eth0 type veth peer name eth0 netns peer
ip link set eth0 up
ip -n peer link set eth0 up
ip addr add 192.0.2.1/24 dev eth0
ip -n peer addr add 192.0.2.2/24 dev eth0
ip route add default via 192.0.2.2
"#;

/// A package's life on a sensor. Each line that a test looks at is printed as `NAME: VALUE`.
const LIFE: &str = r#"
knock() { ip netns exec peer bash -c 'for port; do timeout 5 bash -c "exec 3<>/dev/tcp/192.0.2.1/$port" 2>/dev/null || true; done' knock "$@"; }
apt() { apt-get -y --no-install-recommends -o DPkg::Use-Pty=0 "$@" >>/root/apt.log 2>&1 || fail "$(tail -n 20 /root/apt.log)"; }

mkdir -p /etc/default
echo TEITEN_DRAIN_INTERVAL=1s >/etc/default/teiten

apt install /root/teiten.deb
ready
knock 2001 2002 2003
counted 3
echo "user: $(systemctl show teiten -p User --value)"
echo "exposure: $(systemd-analyze security teiten --no-pager | grep Overall)"
echo "notes: $(teiten status | grep -c ' note ' || true)"
echo "check: $(teiten check 2>&1 | grep 'belongs to' || true)"

echo 'service = ["2004/tcp"]' >>/etc/teiten/teiten.toml
systemctl reload teiten
for i in $(seq 600); do journalctl -u teiten -o cat | grep -q 'changed rules' && break; sleep 0.1; done
knock 2004 2005
counted 4
echo "service: $(class service)"

systemctl stop teiten
knock 2006 2007
systemctl start teiten
ready
counted 6

# The same program as a later version, whose unit differs; a peer sends until it is there.
dpkg-deb -R /root/teiten.deb /root/next
sed -i 's/^Version: .*/Version: 9.9/' /root/next/DEBIAN/control
echo '# Later.' >>/root/next/lib/systemd/system/teiten.service
dpkg-deb --root-owner-group -b /root/next /root/next.deb >/dev/null
knocks() {
    port=3000
    until [ -e /root/upgraded ]; do port=$((port + 1)); knock $port; done
    echo $((port - 3000)) >/root/sent
}
knocks &
apt install /root/next.deb
ready
touch /root/upgraded
wait
sent=$(cat /root/sent)
counted $((6 + sent))
echo "version: $(dpkg-query -W -f '${Version}' teiten)"
echo "sent during the upgrade: $sent"
echo "verify: $(teiten ledger verify)"

apt install /root/teiten-report.deb
teiten-report --month "$(date +%Y-%m)" --date "$(date -d 'tomorrow' +%F)" --ledger /var/lib/teiten --output /root/report.html
echo "report: $(grep -o '<h1[^>]*>[^<]*' /root/report.html | sed 's/.*>//')"
apt purge teiten-report

apt remove teiten
echo "pins: $(ls -d /sys/fs/bpf/teiten 2>/dev/null || true)"
echo "programs: $(ip -details link show eth0 | grep -c xdp || true)"
echo "ledger: $(ls /var/lib/teiten/ledger.sqlite)"

rm /etc/default/teiten
apt purge teiten
echo "left: $(find / -xdev -name '*teiten*' -not -path '/root/*' -not -path '/proc/*' -not -path '/tmp/*' | tr '\n' ' ')"

apt install /root/teiten.deb
ready
knock 1
counted 1
"#;

/// Debian's `release`, or nothing where it cannot be had.
fn system(release: &str) -> Option<System> {
    match System::of_release(release, &target_directory().unwrap().join("debian")) {
        Ok(system) => Some(system),
        Err(error) => {
            println!("skipped: {error:#}");
            None
        }
    }
}

/// A system lies in memory, so there is one at a time.
static SYSTEM: Mutex<()> = Mutex::new(());

/// The Debian packages of this build, in `work`: dashboards, report and sensor.
fn packages(work: &Path) -> Vec<PathBuf> {
    let generated = work.join("generated");
    packaging::write_all(&generated.join("teiten")).unwrap();
    packaging::write_report(&generated.join("teiten-report")).unwrap();
    let programs = Binaries { teiten: teiten().to_owned(), report: Some(teiten_report().to_owned()) };
    xtask::package::debian_packages(&programs, &generated, work).unwrap()
}

/// The commands of the tutorial in a page: who types each, and what.
fn commands(page: &str) -> Vec<(&str, &str)> {
    let prompts = ["sensor$ ", "build$ ", "elsewhere$ "];
    page.lines()
        .filter_map(|line| {
            prompts
                .iter()
                .find_map(|prompt| Some((prompt.trim_end_matches("$ "), line.strip_prefix(prompt)?)))
        })
        .collect()
}

/// Every command of the tutorial, on Debian 13. What comes of itself after a moment is waited for; the month is the
/// present one, up to today.
#[test]
fn the_tutorial_leads_to_a_report_and_back() {
    needs_root!();
    let Some(system) = system("trixie") else { return };
    let read = |name: &str| fs::read_to_string(root().join("docs").join(name)).unwrap();
    let (english, japanese) = (read("tutorial.md"), read("tutorial.ja.md"));
    let typed = commands(&english);
    assert_eq!(typed, commands(&japanese));
    assert!(typed.len() > 10, "{typed:?}");

    let mut script = COMMON.to_owned();
    script.push_str(
        r#"
sudo() { "$@"; }
echo 'APT::Get::Assume-Yes "true";' >/etc/apt/apt.conf.d/yes
month=$(date +%Y-%m)
cd /root
"#,
    );
    for (who, command) in typed {
        let command = command
            .replace("2026-12 ", "$month --date $(date -d tomorrow +%F) ")
            .replace("2026-12", "$month");
        match who {
            "sensor" => writeln!(script, "{command}").unwrap(),
            // Nothing listens there.
            "elsewhere" => writeln!(script, "ip netns exec peer {command} || true\ncounted 1").unwrap(),
            _ => {}
        }
        if command.contains("install ./teiten_") {
            script.push_str("ready\n");
        }
    }
    script.push_str(
        r#"
echo "report: $(grep -c '</html>' $month.html) $(grep -c '</html>' $month.ja.html)"
echo "pins: $(ls -d /sys/fs/bpf/teiten 2>/dev/null || true)"
apt purge teiten-report
echo "left: $(find / -xdev -name '*teiten*' -not -path '/root/*' -not -path '/proc/*' -not -path '/tmp/*' | tr '\n' ' ')"
"#,
    );
    let work = tempfile::tempdir().unwrap();
    let made = packages(work.path());
    let [_, report, sensor] = &made[..] else { panic!("{made:?}") };
    let files: [(&Path, &str); 2] =
        [(sensor, "teiten_0.1.0_amd64.deb"), (report, "teiten-report_0.1.0_amd64.deb")];
    let _alone = SYSTEM.lock().unwrap_or_else(PoisonError::into_inner);
    let printed = system.run(&files, &script, Duration::from_mins(10)).unwrap();
    for line in ["active", "report: 1 1", "pins: ", "left: ", "exit status 0"] {
        assert!(printed.lines().any(|found| found == line), "no `{line}` in\n{printed}");
    }
}

#[test]
fn a_package_is_installed_upgraded_under_traffic_and_purged() {
    needs_root!();
    let Some(system) = system("bookworm") else { return };
    let work = tempfile::tempdir().unwrap();
    let made = packages(work.path());
    let [dashboards, report, sensor] = &made[..] else { panic!("{made:?}") };
    assert!(
        dashboards.ends_with(format!("teiten-grafana_{}_all.deb", env!("CARGO_PKG_VERSION"))),
        "{made:?}"
    );
    let files: [(&Path, &str); 2] = [(sensor, "teiten.deb"), (report, "teiten-report.deb")];
    let _alone = SYSTEM.lock().unwrap_or_else(PoisonError::into_inner);
    let printed = system.run(&files, &[COMMON, LIFE].concat(), Duration::from_mins(10)).unwrap();
    let value = |name: &str| {
        let line = printed.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in\n{printed}")).to_owned()
    };
    assert!(printed.ends_with("exit status 0\n"), "{printed}");
    assert_eq!(value("user"), "teiten");
    let exposure = value("exposure");
    let exposure: f64 = exposure
        .split(' ')
        .rev()
        .nth(2)
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{exposure}"));
    assert!(exposure <= 2.0, "{exposure}");
    assert_eq!(value("notes"), "0", "{printed}");
    assert_eq!(value("service"), "1", "{printed}");
    assert_eq!(value("version"), "9.9");
    assert!(value("sent during the upgrade").parse::<u32>().unwrap() > 0);
    assert!(value("verify").ends_with("all hold"), "{printed}");
    for nothing in ["pins", "left"] {
        assert_eq!(value(nothing), "", "{printed}");
    }
    assert_eq!(value("programs"), "0");
    assert!(!value("report").is_empty(), "{printed}");
    assert_eq!(value("ledger"), "/var/lib/teiten/ledger.sqlite");
}

#[test]
fn the_unit_is_understood_by_systemd_and_exposes_little() {
    if find("systemd-analyze").is_none() {
        println!("skipped: systemd-analyze is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join("teiten.service");
    let text = fs::read_to_string(root().join(UNIT)).unwrap();
    // The program need not be installed here.
    fs::write(&unit, text.replace("/usr/local/bin/teiten ", "/bin/true ")).unwrap();
    let analyze = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze").args(arguments).arg(&unit).output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    };
    let (sound, said) = analyze(&["verify"]);
    assert!(sound && !said.contains("teiten.service"), "{said}");
    // Of 100: 0 can do nothing, 96 is what a unit without any restriction has.
    let (little, said) = analyze(&["security", "--offline=true", "--threshold=21"]);
    assert!(little, "{said}");
}

#[test]
fn the_units_of_the_country_database_are_understood_by_systemd() {
    if find("systemd-analyze").is_none() {
        println!("skipped: systemd-analyze is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let units = ["teiten-geoip.service", "teiten-geoip.timer"].map(|unit| {
        let text = fs::read_to_string(root().join("packaging").join(unit)).unwrap();
        let path = directory.path().join(unit);
        // The script need not be installed here.
        fs::write(&path, text.replace("/usr/local/sbin/teiten-geoip ", "/bin/true ")).unwrap();
        path
    });
    let output = Command::new("systemd-analyze").arg("verify").args(&units).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("teiten-geoip"), "{said}");
}

/// A package of these files, as `apt-get download` would leave it.
fn package(directory: &Path, geoip: &str, geoip6: &str) {
    let tree = directory.join("tree");
    for (file, text) in [
        (
            "DEBIAN/control",
            "Package: tor-geoipdb\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n",
        ),
        ("usr/share/tor/geoip", geoip),
        ("usr/share/tor/geoip6", geoip6),
    ] {
        let path = tree.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let built =
        Command::new("dpkg-deb").arg("-b").arg(&tree).arg(directory.join("package.deb")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

#[test]
fn the_country_database_is_fetched_without_installing_anything() {
    if find("dpkg-deb").is_none() {
        println!("skipped: dpkg-deb is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (bin, target) = (directory.path().join("bin"), directory.path().join("target"));
    fs::create_dir(&bin).unwrap();
    // In place of apt-get: only what the script may ask of it.
    let apt = format!(
        "#!/bin/sh\ncase \"$*\" in *download*) cp {}/package.deb tor-geoipdb_1_all.deb;; *update) ;; *) exit 9;; esac\n",
        directory.path().display()
    );
    fs::write(bin.join("apt-get"), apt).unwrap();
    fs::set_permissions(bin.join("apt-get"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let run = || {
        let script = root().join("packaging/teiten-geoip");
        let output = Command::new("sh").arg(script).arg(&target).env("PATH", &path).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let read = |file: &str| fs::read_to_string(target.join(file)).unwrap();
    let generated =
        |day: u32, range: &str| format!("# Generated: Thu, {day} Jun 2026 04:33:59 GMT\n{range}\n");

    package(directory.path(), &generated(25, "1,2,AU"), &generated(25, "2001::,2002::,JP"));
    assert_eq!(run(), (true, String::new()));
    assert_eq!(read("geoip"), generated(25, "1,2,AU"));
    let inode = target.join("geoip").metadata().unwrap().ino();

    package(directory.path(), &generated(25, "1,2,AU"), &generated(26, "2001::,2002::,KR"));
    assert_eq!(run(), (true, String::new()));
    assert_eq!(read("geoip6"), generated(26, "2001::,2002::,KR"));
    assert_eq!(target.join("geoip").metadata().unwrap().ino(), inode, "what is the same stays");

    package(directory.path(), "nothing", &generated(27, "2001::,2002::,US"));
    let (done, said) = run();
    assert!(!done && said.contains("geoip of tor-geoipdb does not say"), "{said}");
    assert_eq!(read("geoip6"), generated(26, "2001::,2002::,KR"));
}
