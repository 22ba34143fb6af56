//! The real daemon on the kernels of Debian's releases, in virtual machines: the verifier, the kind of
//! attachment and the maps are another kernel's.

use crate::common::teiten;
use lab::build::target_directory;
use lab::conversation::{self, COMMON, CONVERSE};
use lab::machine::{Flavour, Kernel};
use std::collections::BTreeMap;
use std::time::Duration;

/// One VLAN, seen by its own interface and, tagged, by the one below it.
const TAGGED: &str = r"
here_and_there link add link eth0 name eth0.42 type vlan id 42
ip addr add 192.0.2.1/24 dev eth0.42
peer ip addr add 192.0.2.2/24 dev eth0.42
here_and_there link set eth0.42 up
begin --interface eth0 --interface eth0.42 --observe 192.0.2.1/32
ping -q -c 4 -i 0.2 192.0.2.2
nc -w 5 192.0.2.2 1001 || true
for port in 2001 2002; do peer nc -w 5 192.0.2.1 $port || true; done
wait_counted access 4
end
";

/// The port of a bond, which has the addresses; then a VLAN on the bond has them.
const BONDED: &str = r"
ip link set bond0 type bond mode active-backup miimon 100
ip link set eth0 down
ip link set eth0 master bond0
ip link set bond0 up
ip addr add 192.0.2.1/24 dev bond0
peer ip addr add 192.0.2.2/24 dev eth0
start --interface eth0
wait_blind no_address
knock 192.0.2.1 1001 1002 1003
stop
begin --interface bond0
knock 192.0.2.1 2001 2002 2003
wait_counted access 3
ip link add link bond0 name bond0.42 type vlan id 42
peer ip link add link eth0 name eth0.42 type vlan id 42
ip addr add 198.51.100.1/24 dev bond0.42
peer ip addr add 198.51.100.2/24 dev eth0.42
ip link set bond0.42 up
peer ip link set eth0.42 up
ip addr flush dev bond0
wait_blind no_address
knock 198.51.100.1 3001 3002
stop
begin --interface bond0.42
knock 198.51.100.1 4001 4002
wait_counted access 5
end
";

/// A line by `PPPoE`, whose session ends and is dialled again with another address; then the Ethernet
/// interface below it.
const DIALLED: &str = r#"
touch /etc/ppp/options
echo noauth >/etc/ppp/server
peer pppoe-server -I eth0 -L 192.0.2.1 -R 192.0.2.101 -N 4 -O /etc/ppp/server
here() { ip -4 -o addr show dev ppp0 2>/dev/null | sed -n 's/.*inet \([0-9.]*\) .*/\1/p'; }
dial() {
    pppd plugin pppoe.so eth0 noauth defaultroute nodetach &
    pppd=$!
    until [ -n "$(here)" ]; do kill -0 $pppd; sleep 1; done
}
dial
begin
knock $(here) 1001 1002 1003
ping -q -c 4 -i 0.2 192.0.2.1
wait_counted access 3
first=$(here)
kill $pppd
wait $pppd || true
wait_blind detached
dial
echo "another address: $([ $(here) != $first ] && echo yes)"
wait_ready
knock $(here) 2001 2002
wait_counted access 5
stop
echo "below the session"
teiten check --state-dir /state --interface eth0
begin --interface eth0 --observe $(here)
knock $(here) 3001 3002 3003 3004
wait_counted access 9
end
"#;

/// Prints, of each map of the daemon's, its type, the size of a value, entries, and the bytes that the kernel takes it
/// for.
const MAPS: &str = r#"
memory() {
    echo "possible $(cat /sys/devices/system/cpu/possible)"
    cat /proc/$teiten/fdinfo/* | awk '
        { is[$1] = $2 }
        $1 == "map_id:" && !($2 in seen) {
            seen[$2]
            print "map", is["map_type:"], is["value_size:"], is["max_entries:"], is["memlock:"]
        }'
    teiten check --state-dir /state --interface eth0 --source-table 10000 || true
}
"#;

const PATIENCE: Duration = Duration::from_mins(5);

/// What a machine printed, and the metrics in it.
struct Console {
    lines: Vec<String>,
    metrics: BTreeMap<String, String>,
}

impl Console {
    fn new(text: &str) -> Self {
        let lines: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).collect();
        let metrics = lines.iter().filter_map(|line| line.strip_prefix("metric ")?.rsplit_once(' '));
        let metrics = metrics.map(|(metric, value)| (metric.to_owned(), value.to_owned())).collect();
        Self { lines, metrics }
    }

    fn text(&self) -> String {
        self.lines.join("\n")
    }

    fn has_line(&self, line: &str) {
        assert!(self.lines.iter().any(|printed| printed == line), "{line}\n{}", self.text());
    }

    fn shows(&self, metric: &str, value: &str) {
        let shown = self.metrics.get(metric).map(String::as_str);
        assert_eq!(shown, Some(value), "{metric}\n{}", self.text());
    }
}

/// What a machine with the kernel of `series` printed when it had run `script`, or nothing where there is
/// none.
fn run(series: &str, script: &str) -> Option<Console> {
    run_on(series, Flavour::Cloud, script)
}

fn run_on(series: &str, flavour: Flavour, script: &str) -> Option<Console> {
    run_in(series, flavour, |kernel| kernel, script)
}

fn run_in(
    series: &str,
    flavour: Flavour,
    machine: impl FnOnce(Kernel) -> Kernel,
    script: &str,
) -> Option<Console> {
    let cache = target_directory().unwrap().join("kernels");
    std::fs::create_dir_all(&cache).unwrap();
    let kernel = match Kernel::of_series(series, flavour, &cache) {
        Ok(kernel) => machine(kernel),
        Err(error) => {
            println!("skipped: {error:#}");
            return None;
        }
    };
    let console = Console::new(&kernel.run(teiten(), &[COMMON, script].concat(), PATIENCE).unwrap());
    console.has_line("exit status 0");
    Some(console)
}

fn counts_on(series: &str, tracking: &str) {
    let Some(console) = run(series, CONVERSE) else { return };
    conversation::judge(&console.text(), tracking).unwrap();
}

/// Debian 12; before TCX.
#[test]
fn linux_6_1_counts_and_follows_flows_by_clsact() {
    counts_on("6.1", "clsact");
}

/// Debian 13.
#[test]
fn linux_6_12_counts_and_follows_flows_by_tcx() {
    counts_on("6.12", "tcx");
}

/// With CPUs for which not all blocks are allowed, the program that shares them passes the verifier, counts, and takes
/// no more memory than that.
fn shares_on(series: &str, tracking: &str) {
    const CPUS: u64 = 64;
    const BOUND: u64 = 256 << 20;
    let script = CONVERSE.replacen("begin --interface eth0\n", "begin --interface eth0\nmemory\n", 1);
    let kernel = |kernel: Kernel| kernel.with_possible_cpus(CPUS as u32);
    let Some(console) = run_in(series, Flavour::Cloud, kernel, &[MAPS, &script].concat()) else { return };
    conversation::judge(&console.text(), tracking).unwrap();
    console.has_line(&format!("possible 0-{}", CPUS - 1));
    assert!(console.text().contains("64 possible CPUs, which share 8 blocks"), "{}", console.text());

    let maps = console.lines.iter().filter_map(|line| line.strip_prefix("map "));
    let maps: Vec<Vec<u64>> =
        maps.map(|map| map.split(' ').map(|word| word.parse().unwrap()).collect()).collect();
    // BPF_MAP_TYPE_ARRAY and BPF_MAP_TYPE_PERCPU_ARRAY of `linux/bpf.h`.
    let (array, percpu_array) = (2, 6);
    let block = size_of::<sensor_common::layout::Block>() as u64;
    let generations = maps.iter().filter(|map| map[1] == block);
    assert_eq!(generations.map(|map| map[2]).collect::<Vec<_>>(), [8, 8], "{maps:?}");
    let grows =
        |map: &Vec<u64>| map[0] == percpu_array || map[0] == array && (map[1] == block || map[2] == CPUS);
    let bytes: u64 = maps.iter().filter(|map| grows(map)).map(|map| map[3]).sum();
    println!("Linux {series}: {CPUS} possible CPUs take {:.1} MiB", bytes as f64 / f64::from(1 << 20));
    assert!((16 * block..=BOUND).contains(&bytes), "{bytes} bytes: {maps:?}");
}

#[test]
fn linux_6_1_shares_blocks_among_64_cpus() {
    shares_on("6.1", "clsact");
}

#[test]
fn linux_6_12_shares_blocks_among_64_cpus() {
    shares_on("6.12", "tcx");
}

/// On both interfaces each packet is one: two connections twice; four echo replies and a refusal twice.
#[test]
fn a_vlan_is_counted_by_its_interface_and_by_the_one_below() {
    let Some(console) = run("6.12", TAGGED) else { return };
    let is = |metric: &str, value: &str| console.shows(metric, value);
    is(r#"teiten_packets_total{class="access"}"#, "4");
    is(r#"teiten_packets_total{class="solicited"}"#, "10");
    is(r#"teiten_packets_total{class="backscatter"}"#, "0");
    is(r#"teiten_accesses_total{transport="tcp",port="2001"}"#, "2");
}

#[test]
fn a_bond_and_a_vlan_are_observed_where_the_addresses_are() {
    let Some(console) = run("6.12", BONDED) else { return };
    let is = |metric: &str, value: &str| console.shows(metric, value);
    is(r#"teiten_packets_total{class="access"}"#, "5");
    for port in [2001, 2002, 2003, 4001, 4002] {
        is(&format!(r#"teiten_accesses_total{{transport="tcp",port="{port}"}}"#), "1");
    }
    is(r#"teiten_blind{reason="no_address"}"#, "0");
    for advice in [
        "interface eth0 has no address and is a port of the bond bond0",
        "observe bond0, which has the addresses: `--interface bond0`",
        "observe bond0.42, which has the addresses: `--interface bond0.42`",
    ] {
        assert!(console.text().contains(advice), "{advice}\n{}", console.text());
    }
    // The bond is attached to natively although its port was observed before.
    let native =
        |line: &&String| line.contains("observing") && line.contains("bond0\"") && line.contains("native");
    assert!(console.lines.iter().any(|line| native(&line)), "{}", console.text());
}

/// Without `--interface` the session is followed through its end; each SYN is one access, on the session
/// and on the Ethernet interface below it.
#[test]
fn a_pppoe_session_is_followed_and_counted_there_and_below() {
    let Some(console) = run_on("6.12", Flavour::Pppoe, DIALLED) else { return };
    console.has_line("another address: yes");
    let is = |metric: &str, value: &str| console.shows(metric, value);
    is(r#"teiten_packets_total{class="access"}"#, "9");
    for port in [1001, 1002, 1003, 2001, 2002, 3001, 3002, 3003, 3004] {
        is(&format!(r#"teiten_accesses_total{{transport="tcp",port="{port}"}}"#), "1");
    }
    // The echo replies.
    is(r#"teiten_packets_total{class="solicited"}"#, "4");
    is(r#"teiten_packets_total{class="backscatter"}"#, "0");
    is("teiten_up", "1");
    let text = console.text();
    for told in [
        // While the session is away, and of what would be observed without addresses.
        "not attached to interface ppp0",
        "the default route leads over ppp0, observe that: `--interface ppp0`",
    ] {
        assert!(text.contains(told), "{told}\n{text}");
    }
    assert!(!text.contains("ERROR"), "{text}");
}
