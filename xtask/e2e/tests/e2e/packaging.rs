//! The systemd unit that is installed with the sensor.

use std::process::Command;

const UNIT: &str = "packaging/teiten.service";

#[test]
fn the_unit_is_understood_by_systemd_and_exposes_little() {
    if lab::command::find("systemd-analyze").is_none() {
        println!("skipped: systemd-analyze is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join("teiten.service");
    let text = std::fs::read_to_string(lab::command::root().join(UNIT)).unwrap();
    // The program need not be installed here.
    std::fs::write(&unit, text.replace("/usr/local/bin/teiten ", "/bin/true ")).unwrap();
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
