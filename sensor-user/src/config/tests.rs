use super::*;
use crate::cli::{Cli, Command};
use sensor_common::Transport;
use std::io::Write;

fn environment(variables: &[(&str, &str)]) -> Environment {
    Environment {
        variables: variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
        host_name: "dark-1".to_owned(),
        timezone: TimeZone::get("Asia/Tokyo").unwrap(),
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn run_args(args: &[&str]) -> Flags {
    match Cli::try_from_args(["teiten", "run"].iter().chain(args)).unwrap().command {
        Command::Run(args) => args.flags,
        other => panic!("{other:?}"),
    }
}

fn load(args: &[&str], variables: &[(&str, &str)], text: &str) -> Result<Config, ConfigError> {
    let file = file(text);
    let path = file.path().to_str().unwrap();
    Config::load(&run_args(&[args, &["--config", path]].concat()), &environment(variables))
}

/// The whole message, causes included, without the file's name.
fn message(error: &ConfigError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    match (text.find("in `/"), text.rfind(".toml`")) {
        (Some(from), Some(to)) => format!("{}in FILE{}", &text[..from], &text[to + 6..]),
        _ => text,
    }
}

fn refused(args: &[&str]) -> String {
    message(&Config::load(&run_args(args), &environment(&[])).unwrap_err())
}

fn refused_file(text: &str) -> String {
    message(&load(&[], &[], text).unwrap_err())
}

#[test]
fn without_settings_the_documented_defaults_hold() {
    let config = Config::load(&Flags::default(), &environment(&[])).unwrap();
    assert_eq!(
        config,
        Config {
            interfaces: vec![],
            xdp_mode: XdpMode::Auto,
            observe: vec![],
            excluded: vec![],
            services: vec![],
            port_groups: vec![],
            features: vec![],
            max_ports: 500,
            feature_ports: 30,
            source_table: None,
            kernel_memory: 256 << 20,
            series_hold: Duration::from_secs(75),
            drain_interval: Duration::from_secs(10),
            timezone: TimeZone::get("Asia/Tokyo").unwrap(),
            sensor_name: "dark-1".to_owned(),
            geoip: None,
            asn: None,
            source_lists: vec![],
            samples: SampleSettings::default(),
            keep_days: 400,
            archive_dir: None,
            archive_keep: Keep::default(),
            state_dir: PathBuf::from("/var/lib/teiten"),
            pin_dir: PathBuf::from("/sys/fs/bpf/teiten"),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 9477))],
            web_config: None,
            systemd_socket: false,
            telemetry_path: "/metrics".to_owned(),
            web_client: WebClient::default(),
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
            local: vec![],
        }
    );
}

/// Keys that `teiten status` alone has flags for.
const OF_STATUS: [&str; 4] = ["web.user", "web.password-file", "web.client-cert-file", "web.client-key-file"];

/// One row for each key: what the file says (in TOML), the environment, the flag, and what then
/// shows in the configuration for each.
struct Row {
    key: &'static str,
    given: [&'static str; 3],
    shown: [&'static str; 3],
    show: fn(&Config) -> String,
}

const PRECEDENCE: [Row; 32] = [
    Row {
        key: "interface",
        given: [r#"["eth0", "eth1"]"#, "eth2,eth3", "eth4"],
        shown: [r#"["eth0", "eth1"]"#, r#"["eth2", "eth3"]"#, r#"["eth4"]"#],
        show: |config| format!("{:?}", config.interfaces),
    },
    Row {
        key: "xdp-mode",
        given: [r#""native""#, "generic", "auto"],
        shown: ["Native", "Generic", "Auto"],
        show: |config| format!("{:?}", config.xdp_mode),
    },
    Row {
        key: "observe",
        given: [r#"["192.0.2.0/24", "2001:db8::/32"]"#, "198.51.100.7", "203.0.113.0/25"],
        shown: ["[192.0.2.0/24, 2001:db8::/32]", "[198.51.100.7/32]", "[203.0.113.0/25]"],
        show: |config| format!("{:?}", config.observe),
    },
    Row {
        key: "exclude-source",
        given: [r#""10.0.0.0/8""#, "10.1.0.0/16, fd00::/8", "10.2.0.0/16"],
        shown: ["[10.0.0.0/8]", "[10.1.0.0/16, fd00::/8]", "[10.2.0.0/16]"],
        show: |config| format!("{:?}", config.excluded),
    },
    Row {
        key: "service",
        given: [r#"["80/tcp", "22/tcp"]"#, "53/udp", "36412/sctp"],
        shown: ["22/tcp 80/tcp", "53/udp", "36412/sctp"],
        show: |config| slots(&config.services),
    },
    Row {
        key: "port-group",
        given: [
            r#"{ messenger = "1026-1028/udp", web = ["80/tcp", "443/tcp"] }"#,
            "sip=5060/udp,5061/tcp,db=1433/tcp",
            "ping=8/icmp,128/icmpv6",
        ],
        shown: [
            "messenger: 1026/udp 1027/udp 1028/udp; web: 80/tcp 443/tcp",
            "sip: 5061/tcp 5060/udp; db: 1433/tcp",
            "ping: 8/icmp 128/icmpv6",
        ],
        show: |config| {
            let groups = config.port_groups.iter();
            let groups = groups
                .map(|group| format!("{}: {}", group.name, slots(&Vec::from_iter(group.slots.clone()))));
            groups.collect::<Vec<_>>().join("; ")
        },
    },
    Row {
        key: "feature",
        given: [r#"["445/tcp"]"#, "23/tcp,8/icmp", "47/other"],
        shown: ["445/tcp", "23/tcp 8/icmp", "47/other"],
        show: |config| slots(&config.features),
    },
    Row {
        key: "max-ports",
        given: ["200", "300", "400"],
        shown: ["200", "300", "400"],
        show: |config| config.max_ports.to_string(),
    },
    Row {
        key: "feature-ports",
        given: ["10", "20", "0"],
        shown: ["10", "20", "0"],
        show: |config| config.feature_ports.to_string(),
    },
    Row {
        key: "source-table",
        given: ["1_000", "2000", "1"],
        shown: ["1000", "2000", "1"],
        show: |config| config.source_table.map_or_else(String::new, |entries| entries.to_string()),
    },
    Row {
        key: "kernel-memory",
        given: [r#""32MiB""#, "1_000MB", "2GiB"],
        shown: ["33554432", "1000000000", "2147483648"],
        show: |config| config.kernel_memory.to_string(),
    },
    Row {
        key: "series-hold",
        given: [r#""30s""#, "2m", "0s"],
        shown: ["30s", "120s", "0ns"],
        show: |config| format!("{:?}", config.series_hold),
    },
    Row {
        key: "drain-interval",
        given: [r#""1m30s""#, "500ms", "1h"],
        shown: ["90s", "500ms", "3600s"],
        show: |config| format!("{:?}", config.drain_interval),
    },
    Row {
        key: "timezone",
        given: [r#""Europe/Berlin""#, "UTC", "America/New_York"],
        shown: ["Europe/Berlin", "UTC", "America/New_York"],
        show: |config| config.timezone_name().to_owned(),
    },
    Row {
        key: "sensor-name",
        given: [r#""north""#, "south", "east"],
        shown: ["north", "south", "east"],
        show: |config| config.sensor_name.clone(),
    },
    Row {
        key: "geoip",
        given: [r#""/a.mmdb""#, "/b.mmdb", "c.mmdb"],
        shown: ["Some(\"/a.mmdb\")", "Some(\"/b.mmdb\")", "Some(\"c.mmdb\")"],
        show: |config| format!("{:?}", config.geoip),
    },
    Row {
        key: "asn",
        given: [r#""/a.mmdb""#, "/b.mmdb", "c.mmdb"],
        shown: ["Some(\"/a.mmdb\")", "Some(\"/b.mmdb\")", "Some(\"c.mmdb\")"],
        show: |config| format!("{:?}", config.asn),
    },
    Row {
        key: "source-list",
        given: [r#"["a=/a.txt", "b=/b=c"]"#, "c=/c,d=d.json", "e=/e"],
        shown: ["a:/a.txt b:/b=c", "c:/c d:d.json", "e:/e"],
        show: |config| {
            let lists = config.source_lists.iter();
            lists.map(|list| format!("{}:{}", list.name, list.path.display())).collect::<Vec<_>>().join(" ")
        },
    },
    Row {
        key: "samples",
        given: [r#"["1026-1027/udp", "8/icmp"]"#, "feature,80/tcp", "all"],
        shown: ["1026/udp 1027/udp 8/icmp false false", "80/tcp true false", " false true"],
        show: |config| {
            let Choice { all, features, slots: chosen } = &config.samples.choice;
            format!("{} {features} {all}", slots(&Vec::from_iter(chosen.clone())))
        },
    },
    Row {
        key: "sample-bytes",
        given: ["1", "256", "1024"],
        shown: ["1", "256", "1024"],
        show: |config| config.samples.bytes.to_string(),
    },
    Row {
        key: "sample-contents",
        given: ["1", "20", "1000"],
        shown: ["1", "20", "1000"],
        show: |config| config.samples.contents.to_string(),
    },
    Row {
        key: "keep-days",
        given: ["31", "366", "1"],
        shown: ["31", "366", "1"],
        show: |config| config.keep_days.to_string(),
    },
    Row {
        key: "archive-dir",
        given: [r#""/srv/a""#, "/srv/b", "/srv/c"],
        shown: ["Some(\"/srv/a\")", "Some(\"/srv/b\")", "Some(\"/srv/c\")"],
        show: |config| format!("{:?}", config.archive_dir),
    },
    Row {
        key: "archive-keep",
        given: [r#"["400d", "50GB"]"#, "1_000MiB", "20GiB,36525d"],
        shown: ["Some(400) Some(50000000000)", "None Some(1048576000)", "Some(36525) Some(21474836480)"],
        show: |config| format!("{:?} {:?}", config.archive_keep.days, config.archive_keep.bytes),
    },
    Row {
        key: "state-dir",
        given: [r#""/srv/a""#, "/srv/b", "/srv/c"],
        shown: ["/srv/a", "/srv/b", "/srv/c"],
        show: |config| config.state_dir.display().to_string(),
    },
    Row {
        key: "pin-dir",
        given: [r#""/bpf/a""#, "/bpf/b", "/bpf/c"],
        shown: ["/bpf/a", "/bpf/b", "/bpf/c"],
        show: |config| config.pin_dir.display().to_string(),
    },
    Row {
        key: "web.listen-address",
        given: [r#"["127.0.0.1:1", "[::1]:1"]"#, ":2", "localhost:3"],
        shown: ["[127.0.0.1:1, [::1]:1]", "[[::]:2]", "[127.0.0.1:3]"],
        show: |config| format!("{:?}", config.listen),
    },
    Row {
        key: "web.config.file",
        given: [r#""/a.yml""#, "/b.yml", "/c.yml"],
        shown: ["Some(\"/a.yml\")", "Some(\"/b.yml\")", "Some(\"/c.yml\")"],
        show: |config| format!("{:?}", config.web_config),
    },
    Row {
        key: "web.systemd-socket",
        given: ["true", "false", "true"],
        shown: ["true", "false", "true"],
        show: |config| config.systemd_socket.to_string(),
    },
    Row {
        key: "web.telemetry-path",
        given: [r#""/a""#, "/b", "/c/d"],
        shown: ["/a", "/b", "/c/d"],
        show: |config| config.telemetry_path.clone(),
    },
    Row {
        key: "log-format",
        given: [r#""json""#, "text", "json"],
        shown: ["Json", "Text", "Json"],
        show: |config| format!("{:?}", config.log_format),
    },
    Row {
        key: "log-level",
        given: [r#""warn""#, "debug", "info,sensor_user::drain=trace"],
        shown: ["warn", "debug", "info,sensor_user::drain=trace"],
        show: |config| config.log_level.clone(),
    },
];

fn slots(slots: &[Slot]) -> String {
    slots.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn flags_beat_the_environment_and_the_environment_beats_the_file_for_each_key() {
    for key in &KEYS {
        assert!(
            PRECEDENCE.iter().any(|row| row.key == key.name)
                || ["config", "local"].contains(&key.name)
                || OF_STATUS.contains(&key.name),
            "no row for {}",
            key.name
        );
    }
    for row in &PRECEDENCE {
        let key = KEYS.iter().find(|key| key.name == row.key).unwrap();
        let variable = key.variable();
        let flag = format!("--{}", row.key);
        let text = format!("{} = {}", row.key, row.given[0]);
        let (variables, args) = ([(variable.as_str(), row.given[1])], [flag.as_str(), row.given[2]]);

        let shown = |args: &[&str], variables: &[(&str, &str)], text: &str| {
            (row.show)(&load(args, variables, text).unwrap_or_else(|error| panic!("{}", message(&error))))
        };
        assert_eq!(shown(&[], &[], &text), row.shown[0], "{} from the file", row.key);
        assert_eq!(shown(&[], &variables, &text), row.shown[1], "{} from the environment", row.key);
        assert_eq!(shown(&args, &variables, &text), row.shown[2], "{} from the flag", row.key);
        assert_eq!(shown(&args, &[], &text), row.shown[2], "{}: flag over file", row.key);
        assert_eq!(shown(&args, &variables, ""), row.shown[2], "{}: flag over environment", row.key);
    }
}

#[test]
fn keys_with_dots_may_stand_in_tables() {
    let text = "[web]\nlisten-address = [\"127.0.0.1:1\"]\nconfig.file = \"web.yml\"\n";
    let config = load(&[], &[], text).unwrap();
    assert_eq!(config.listen, [SocketAddr::from(([127, 0, 0, 1], 1))]);
    assert_eq!(config.web_config, Some(PathBuf::from("web.yml")));
}

#[test]
fn repeated_flags_and_commas_add_up_and_repeated_values_count_once() {
    let args = run_args(&["--feature", "445/tcp", "--feature", "23/tcp,445/tcp"]);
    let config = Config::load(&args, &environment(&[])).unwrap();
    assert_eq!(config.features, [Slot::new(Transport::Tcp, 23), Slot::new(Transport::Tcp, 445)]);
}

#[test]
fn the_file_can_be_named_by_the_environment() {
    let file = file("sensor-name = \"from-file\"");
    let path = file.path().to_str().unwrap();
    let config = Config::load(&Flags::default(), &environment(&[("TEITEN_CONFIG", path)])).unwrap();
    assert_eq!(config.sensor_name, "from-file");
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let config = load(&[], &[("TEITEN_SENSOR_NAME", ""), ("TEITEN_OBSERVE", " ")], "").unwrap();
    assert_eq!((config.sensor_name.as_str(), config.observe.len()), ("dark-1", 0));
}

#[test]
fn unknown_keys_are_errors_that_name_the_key_and_the_nearest() {
    for (text, expected) in [
        ("drain_interval = \"1s\"", "unknown key `drain_interval` in FILE; did you mean `drain-interval`?"),
        ("interfaces = [\"eth0\"]", "unknown key `interfaces` in FILE; did you mean `interface`?"),
        ("colour = 1", "unknown key `colour` in FILE"),
        ("[web]\nlisten = \":1\"", "unknown key `web.listen` in FILE"),
        (
            "[web]\nlisten_address = \":1\"",
            "unknown key `web.listen_address` in FILE; did you mean `web.listen-address`?",
        ),
        ("config = \"other.toml\"", "unknown key `config` in FILE"),
    ] {
        assert_eq!(refused_file(text), expected);
    }
}

#[test]
fn unknown_variables_are_told_with_the_nearest_and_do_no_harm() {
    let environment = environment(&[
        ("TEITEN_INTERFACES", "eth0"),
        ("TEITEN_PORT_9477_TCP_ADDR", "10.0.0.1"),
        ("TEITEN_OBSERVE", "192.0.2.1"),
        ("PATH", "/bin"),
    ]);
    assert_eq!(
        environment.unknown_variables(),
        [("TEITEN_INTERFACES", Some("TEITEN_INTERFACE".to_owned())), ("TEITEN_PORT_9477_TCP_ADDR", None)]
    );
    assert!(Config::load(&Flags::default(), &environment).is_ok());
}

#[test]
fn bad_values_are_refused_with_the_way_out() {
    for (args, expected) in [
        (["--drain-interval", "0s"], "`--drain-interval 0s`: expected 100ms to 1h"),
        (["--drain-interval", "99ms"], "`--drain-interval 99ms`: expected 100ms to 1h"),
        (["--drain-interval", "61m"], "`--drain-interval 61m`: expected 100ms to 1h"),
        (["--drain-interval", "10"], "`--drain-interval 10`: a duration has a unit; did you mean `10s`?"),
        (
            ["--series-hold", "soon"],
            "`--series-hold soon`: expected a duration like `10s`, `500ms`, `5m` or `1h30m`",
        ),
        (["--source-table", "0"], "`--source-table 0`: expected a whole number from 1 to 67108864"),
        (["--max-ports", "0"], "`--max-ports 0`: expected a whole number from 1 to 197376"),
        (["--keep-days", "x"], "`--keep-days x`: expected a whole number from 1 to 36525"),
        (
            ["--observe", "198.51.100.7/24"],
            "`--observe 198.51.100.7/24`: the address has bits set beyond the prefix length; the network is \
             `198.51.100.0/24`, the address alone `198.51.100.7`",
        ),
        (
            ["--observe", "::ffff:192.0.2.0/120"],
            "`--observe ::ffff:192.0.2.0/120`: packets carry IPv4 addresses as such, so this would match \
             none; give `192.0.2.0/24`",
        ),
        (
            ["--observe", "224.0.0.0/4"],
            "`--observe 224.0.0.0/4`: multicast never counts as the sensor; give unicast prefixes",
        ),
        (
            ["--exclude-source", "office"],
            "`--exclude-source office`: expected an address or a prefix, like `192.0.2.0/24`, `192.0.2.7` \
             or `2001:db8::/32`",
        ),
        (["--service", "8/icmp"], "`--service 8/icmp`: only tcp, udp and sctp have services"),
        (["--service", "22"], "`--service 22`: expected a port and a transport, like `445/tcp` or `8/icmp`"),
        (
            ["--feature", "22/tpc"],
            "`--feature 22/tpc`: there is no transport `tpc`; did you mean `tcp`?; there are tcp, udp, \
             sctp, icmp, icmpv6, other",
        ),
        (["--feature", "65536/tcp"], "`--feature 65536/tcp`: `65536` is not a port of tcp, 0 to 65535"),
        (["--feature", "256/icmp"], "`--feature 256/icmp`: `256` is not a message type of icmp, 0 to 255"),
        (
            ["--port-group", "sip=5061-5060/udp"],
            "`--port-group sip=5061-5060/udp`: the range `5061-5060/udp` runs backwards; give \
             `5060-5061/udp`",
        ),
        (
            ["--port-group", "=5060/udp"],
            "`--port-group =5060/udp`: the group has no name; expected a name and its ports, like \
             `messenger=1026-1039/udp,1434/udp`",
        ),
        (
            ["--port-group", "sip=5060"],
            "`--port-group sip=5060`: `5060` is neither `PORT/PROTO` nor `PORT-PORT/PROTO`; expected a name \
             and its ports, like `messenger=1026-1039/udp,1434/udp`",
        ),
        (
            ["--timezone", "Tokyo"],
            "`--timezone Tokyo`: there is no such time zone; did you mean `Asia/Tokyo`?; expected an IANA \
             name like `Asia/Tokyo`",
        ),
        (
            ["--timezone", "Europe/Berlim"],
            "`--timezone Europe/Berlim`: there is no such time zone; did you mean `Europe/Berlin`?; \
             expected an IANA name like `Asia/Tokyo`",
        ),
        (
            ["--sensor-name", ""],
            "`--sensor-name `: the sensor's name is empty; leave it out for the host name",
        ),
        (["--interface", ""], "`--interface `: the interface name is empty; give one as `ip link` shows it"),
        (
            ["--web.listen-address", "127.0.0.1"],
            "`--web.listen-address 127.0.0.1`: the port is missing; expected an address and a port, like \
             `127.0.0.1:9477`, `[::1]:9477` or `:9477`",
        ),
        (["--log-format", "xml"], "`--log-format xml`: expected `text` or `json`"),
        (
            ["--log-level", "inof"],
            "`--log-level inof`: there is no level `inof`; did you mean `info`?; there are error, warn, \
             info, debug, trace, off, alone or for a target, like `info,sensor_user::drain=debug`",
        ),
        (["--xdp-mode", "skb"], "`--xdp-mode skb`: expected `auto`, `native` or `generic`"),
    ] {
        assert_eq!(refused(&args), expected);
    }
}

#[test]
fn a_bad_value_is_named_where_it_stands() {
    let error = load(&[], &[("TEITEN_KEEP_DAYS", "0")], "").unwrap_err();
    assert_eq!(
        message(&error),
        "`TEITEN_KEEP_DAYS=0` in the environment: expected a whole number from 1 to 36525"
    );
    assert_eq!(
        refused_file("observe = [\"192.0.2.0/24\", \"x\"]"),
        "`observe = x` in FILE: expected an address or a prefix, like `192.0.2.0/24`, `192.0.2.7` or \
         `2001:db8::/32`"
    );
    assert_eq!(
        refused_file("keep-days = true"),
        "`keep-days = true` in FILE: this is a boolean, expected a string or a number"
    );
    assert!(refused_file("keep-days = ").starts_with("the configuration file `"));
    let missing = refused(&["--config", "/nonexistent/teiten.toml"]);
    assert!(missing.starts_with("cannot read the configuration file"), "{missing}");
}

#[test]
fn contradictions_name_both_sides() {
    assert_eq!(
        refused(&["--feature", "22/tcp", "--service", "22/tcp"]),
        "`--feature 22/tcp` contradicts `--service 22/tcp`: a service is left out of the totals by port \
         and has its own by country; drop one of the two"
    );
    assert_eq!(
        refused(&["--max-ports", "1", "--feature", "1/tcp,2/tcp"]),
        "`--feature 2/tcp` contradicts `--max-ports 1`: each of the 2 features has a series of its own; \
         raise `max-ports` or name fewer"
    );
    assert_eq!(
        refused(&["--feature-ports", "501"]),
        "`--feature-ports 501` contradicts the default `--max-ports 500`: a port with detail has a series \
         of its own too; raise `max-ports` or lower `feature-ports`"
    );
    assert_eq!(
        refused(&["--port-group", "a=1/tcp", "--port-group", "a=2/tcp"]),
        "`--port-group a=1/tcp` contradicts `--port-group a=2/tcp`: a group is given once; join the two \
         lists with a comma"
    );
    assert_eq!(
        refused(&["--pin-dir", "/x", "--state-dir", "/x"]),
        "`--state-dir /x` contradicts `--pin-dir /x`: pins live on a bpffs, which holds no files; give two \
         directories"
    );
}

#[test]
fn groups_may_overlap_and_hold_services_and_features() {
    let args = run_args(&[
        "--port-group=a=20-25/tcp",
        "--port-group=b=22-23/tcp",
        "--service=22/tcp",
        "--feature=23/tcp",
    ]);
    let config = Config::load(&args, &environment(&[])).unwrap();
    assert_eq!(config.port_groups.iter().map(|group| group.slots.len()).collect::<Vec<_>>(), [6, 2]);
}

#[test]
fn fewer_own_ports_than_the_default_of_detailed_ones_is_no_contradiction() {
    let config = Config::load(&run_args(&["--max-ports", "10"]), &environment(&[])).unwrap();
    assert_eq!((config.max_ports, config.feature_ports), (10, 10));
}

#[test]
fn a_reload_takes_what_can_be_taken_and_names_what_cannot() {
    let file = file("exclude-source = \"10.0.0.0/8\"\nmax-ports = 100\nkeep-days = 30\n");
    let args = run_args(&["--config", file.path().to_str().unwrap(), "--keep-days", "60"]);
    let environment = environment(&[]);
    let config = Config::load(&args, &environment).unwrap();
    let unchanged = config.reload(&args, &environment).unwrap();
    assert_eq!((unchanged.changed.len(), unchanged.needs_restart.len()), (0, 0));

    let text = "exclude-source = [\"10.0.0.0/8\", \"fd00::/8\"]\nmax-ports = 200\nkeep-days = 90\n";
    std::fs::write(file.path(), text).unwrap();
    let reload = config.reload(&args, &environment).unwrap();
    // The flag still beats the file.
    assert_eq!((reload.changed, reload.needs_restart), (vec!["exclude-source"], vec!["max-ports"]));
    assert_eq!(reload.config.excluded.len(), 2);
    assert_eq!((reload.config.max_ports, reload.config.keep_days), (100, 60));

    std::fs::write(file.path(), "max-portz = 1").unwrap();
    assert!(config.reload(&args, &environment).is_err());
}

#[test]
fn every_key_takes_part_in_a_reload() {
    for row in &PRECEDENCE {
        let old = load(&[], &[], &format!("{} = {}", row.key, row.given[0])).unwrap();
        let file = file(&format!("{} = {}", row.key, row.given[0]));
        let path = file.path().to_str().unwrap().to_owned();
        let flag = format!("--{}", row.key);
        let reload =
            old.reload(&run_args(&["--config", &path, &flag, row.given[2]]), &environment(&[])).unwrap();
        let told: Vec<_> = reload.changed.iter().chain(&reload.needs_restart).copied().collect();
        let expected = if row.shown[0] == row.shown[2] { vec![] } else { vec![row.key] };
        assert_eq!(told, expected);
    }
}

#[test]
fn a_replay_writes_only_into_the_directory_that_its_flag_names() {
    let replay = |args: &[&str]| {
        let args = ["teiten", "replay", "a.pcap"].iter().chain(args);
        let Command::Replay(args) = Cli::try_from_args(args).unwrap().command else { unreachable!() };
        let environment =
            environment(&[("TEITEN_STATE_DIR", "/srv/sensor"), ("TEITEN_LOCAL", "192.0.2.0/24")]);
        Config::load_for_replay(&args.flags, &environment).unwrap()
    };
    let (config, state_dir) = replay(&[]);
    assert_eq!((config.local.len(), state_dir), (1, None));
    assert_eq!(replay(&["--state-dir", "/srv/captures"]).1, Some(PathBuf::from("/srv/captures")));
}

#[test]
fn tens_of_thousands_of_prefixes_and_ports_are_read_in_linear_time() {
    let prefixes: Vec<_> = (0..80_000_u32)
        .map(|index| format!("\"{}/32\"", std::net::Ipv4Addr::from(0x0a00_0000 + index)))
        .collect();
    let ports: Vec<_> = (1..30_000).map(|port| format!("{port}")).collect();
    let list = |transport| {
        let ports: Vec<_> = ports.iter().map(|port| format!("\"{port}/{transport}\"")).collect();
        ports.join(",")
    };
    let text = format!(
        "observe = [{0}]\nexclude-source = [{0}]\nmax-ports = 65000\nfeature = [{1}]\nservice = [{2}]\n",
        prefixes.join(","),
        list("tcp"),
        list("udp"),
    );
    let config = load(&[], &[], &text).unwrap();
    assert_eq!(config.observe.len(), 80_000);
    assert_eq!(config.excluded.len(), 80_000);
    assert_eq!(config.features.len(), 29_999);
}

#[test]
fn everything_that_is_wrong_is_reported_at_once() {
    let text =
        "nosuch = 1\nkeep-days = 0\nobserve = [\"300.0.0.1\", \"192.0.2.0/24\", \"x\"]\nmax-ports = true\n";
    let error = load(&["--timezone", "Nowhere/Town"], &[("TEITEN_DRAIN_INTERVAL", "1x")], text).unwrap_err();
    let texts: Vec<String> = error.each().iter().map(ToString::to_string).collect();
    for wrong in
        ["nosuch", "keep-days", "300.0.0.1", "`observe = x`", "max-ports", "Nowhere/Town", "DRAIN_INTERVAL"]
    {
        assert_eq!(texts.iter().filter(|text| text.contains(wrong)).count(), 1, "{wrong}: {texts:#?}");
    }
    assert_eq!(texts.len(), 7, "{texts:#?}");
    // Values that are right alone: both pairs.
    let contradictory =
        ["--feature", "22/tcp", "--service", "22/tcp", "--state-dir", "/x", "--pin-dir", "/x"];
    let error = load(&contradictory, &[], "").unwrap_err();
    assert_eq!(error.each().len(), 2, "{error}");
}

#[test]
fn source_lists_have_names_that_can_be_labels_and_each_one_file() {
    for (value, reason) in [
        ("research", "expected a name and a file"),
        ("=/a", "expected a name and a file"),
        ("a=", "expected a name and a file"),
        ("none=/a", "`none` is what sources of no list count as"),
        ("other=/a", "`other` is what lists beyond those that a ledger can name count as"),
        ("a b=/a", "letters, digits, `_`, `-` and `.`"),
        ("a\"=/a", "letters, digits, `_`, `-` and `.`"),
        ("12345678901234567890123456789012345678901=/a", "at most 40"),
    ] {
        let text = refused(&["--source-list", value]);
        assert!(text.contains(reason), "{value}: {text}");
    }
    let text = refused(&["--source-list", "a=/a", "--source-list", "a=/b"]);
    assert!(text.contains("a list has one file"), "{text}");
    let many: Vec<String> = (0..33).map(|at| format!("--source-list=l{at}=/l")).collect();
    let text = refused(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(text.contains("32 source lists at most"), "{text}");
}
