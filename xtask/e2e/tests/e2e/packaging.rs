//! What is installed with the sensor: systemd units, and the script that fetches the country database.

use lab::command::{find, root};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

const UNIT: &str = "packaging/teiten.service";

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
    let (little, said) = analyze(&["security", "--offline=true", "--threshold=25"]);
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
