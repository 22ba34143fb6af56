//! The catalogue of settings: flags, environment variables, keys of the file and what a reload takes are
//! read from it.

use super::Config;

/// One setting: the name of its flag and of its key in the file.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As in `--drain-interval`, without the dashes in front.
    pub name: &'static str,
    /// Takes several values; a layer's values replace those of the layers below as a whole.
    pub list: bool,
    /// A running daemon takes a new value on SIGHUP.
    pub reloadable: bool,
    /// Copies its value.
    pub(super) copy: fn(&mut Config, &Config),
}

/// A setting whose new value needs a restart, and one that a running daemon takes.
const FIXED: bool = false;
const RELOADED: bool = true;

const fn one(name: &'static str, reloadable: bool, copy: fn(&mut Config, &Config)) -> Key {
    Key { name, list: false, reloadable, copy }
}

const fn list(name: &'static str, reloadable: bool, copy: fn(&mut Config, &Config)) -> Key {
    Key { name, list: true, reloadable, copy }
}

/// All settings, in the order of the documentation.
///
/// What decides how the counters are cut (time zone, series, groups) stays as it is while the daemon
/// runs: a series whose meaning changed midway would be a wrong report.
pub const KEYS: [Key; 38] = [
    list("interface", FIXED, |to, from| to.interfaces.clone_from(&from.interfaces)),
    one("xdp-mode", FIXED, |to, from| to.xdp_mode.clone_from(&from.xdp_mode)),
    list("observe", RELOADED, |to, from| to.observe.clone_from(&from.observe)),
    list("exclude-source", RELOADED, |to, from| to.excluded.clone_from(&from.excluded)),
    list("service", RELOADED, |to, from| to.services.clone_from(&from.services)),
    list("port-group", FIXED, |to, from| to.port_groups.clone_from(&from.port_groups)),
    list("feature", FIXED, |to, from| to.features.clone_from(&from.features)),
    one("max-ports", FIXED, |to, from| to.max_ports.clone_from(&from.max_ports)),
    one("feature-ports", FIXED, |to, from| to.feature_ports.clone_from(&from.feature_ports)),
    one("source-table", FIXED, |to, from| to.source_table.clone_from(&from.source_table)),
    one("kernel-memory", FIXED, |to, from| to.kernel_memory.clone_from(&from.kernel_memory)),
    one("series-hold", RELOADED, |to, from| to.series_hold.clone_from(&from.series_hold)),
    one("drain-interval", RELOADED, |to, from| to.drain_interval.clone_from(&from.drain_interval)),
    one("timezone", FIXED, |to, from| to.timezone.clone_from(&from.timezone)),
    one("sensor-name", FIXED, |to, from| to.sensor_name.clone_from(&from.sensor_name)),
    one("geoip", RELOADED, |to, from| to.geoip.clone_from(&from.geoip)),
    one("asn", RELOADED, |to, from| to.asn.clone_from(&from.asn)),
    list("source-list", RELOADED, |to, from| to.source_lists.clone_from(&from.source_lists)),
    list("samples", RELOADED, |to, from| to.samples.choice.clone_from(&from.samples.choice)),
    one("sample-bytes", RELOADED, |to, from| to.samples.bytes.clone_from(&from.samples.bytes)),
    one("sample-contents", RELOADED, |to, from| to.samples.contents.clone_from(&from.samples.contents)),
    one("keep-days", RELOADED, |to, from| to.keep_days.clone_from(&from.keep_days)),
    one("archive-dir", FIXED, |to, from| to.archive_dir.clone_from(&from.archive_dir)),
    list("archive-keep", FIXED, |to, from| to.archive_keep.clone_from(&from.archive_keep)),
    one("state-dir", FIXED, |to, from| to.state_dir.clone_from(&from.state_dir)),
    one("pin-dir", FIXED, |to, from| to.pin_dir.clone_from(&from.pin_dir)),
    list("web.listen-address", FIXED, |to, from| to.listen.clone_from(&from.listen)),
    one("web.config.file", FIXED, |to, from| to.web_config.clone_from(&from.web_config)),
    one(SYSTEMD_SOCKET, FIXED, |to, from| to.systemd_socket.clone_from(&from.systemd_socket)),
    one("web.telemetry-path", FIXED, |to, from| to.telemetry_path.clone_from(&from.telemetry_path)),
    // Of `teiten status` alone; a sensor's file may hold them for it.
    one("web.user", FIXED, |to, from| to.web_client.clone_from(&from.web_client)),
    one("web.password-file", FIXED, |to, from| to.web_client.clone_from(&from.web_client)),
    one("web.client-cert-file", FIXED, |to, from| to.web_client.clone_from(&from.web_client)),
    one("web.client-key-file", FIXED, |to, from| to.web_client.clone_from(&from.web_client)),
    one("log-format", FIXED, |to, from| to.log_format.clone_from(&from.log_format)),
    one("log-level", RELOADED, |to, from| to.log_level.clone_from(&from.log_level)),
    // Of `teiten replay` alone; a sensor's file may hold it for its captures.
    list("local", FIXED, |to, from| to.local.clone_from(&from.local)),
    one(CONFIG, FIXED, |_, _| {}),
];

/// Takes true or false.
pub(super) const SYSTEMD_SOCKET: &str = "web.systemd-socket";
/// Names the file, so it cannot be in it.
pub(super) const CONFIG: &str = "config";

impl Key {
    /// The name of its environment variable: `TEITEN_WEB_LISTEN_ADDRESS`.
    pub fn variable(&self) -> String {
        format!("TEITEN_{}", self.name.replace(['-', '.'], "_").to_uppercase())
    }
}
