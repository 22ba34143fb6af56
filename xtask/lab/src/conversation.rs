//! What the real daemon counts of a conversation between two hosts, as a shell script for a machine of its own, and
//! the counts derived from that script by hand.

use anyhow::{Result, ensure};

/// A peer in a namespace of its own, and the functions of scripts.
pub const COMMON: &str = r#"
ip netns add peer
ip link add eth0 type veth peer name eth0 netns peer
peer() { ip netns exec peer "$@"; }
here_and_there() { ip "$@"; peer ip "$@"; }
here_and_there link set eth0 up
metrics() { wget -q -O - http://127.0.0.1:9477/metrics; }
start() {
    teiten run --state-dir /state --source-table 10000 --series-hold 0s --drain-interval 1s "$@" &
    teiten=$!
    until metrics >/dev/null 2>&1; do kill -0 $teiten; sleep 1; done
}
wait_ready() {
    until wget -q -O /dev/null http://127.0.0.1:9477/-/ready 2>/dev/null; do kill -0 $teiten; sleep 1; done
}
begin() { start "$@"; wait_ready; }
wait_metric() { for i in $(seq 60); do ! metrics | grep -qx "$1" || return 0; sleep 1; done; metrics; false; }
wait_counted() { wait_metric "teiten_packets_total{class=\"$1\"} $2"; }
wait_blind() { wait_metric "teiten_blind{reason=\"$1\"} 1"; }
knock() { address=$1; shift; for port in "$@"; do peer nc -w 5 $address $port || true; done; }
stop() { kill -TERM $teiten; wait $teiten; }
# A machine that gets too little time drains late now and then, which the sensor shows. Nothing else prints
# while the metrics are printed.
end() {
    sleep 2
    for i in $(seq 60); do metrics >/metrics; ! grep -qx 'teiten_up 1' /metrics || break; sleep 1; done
    stop
    teiten detach --state-dir /state
    grep -v '^#' /metrics | sed 's/^/metric /'
}
"#;

/// Conversations of the sensor's, remote hosts' packets, a killed daemon with more packets while it is away, and a
/// second one.
pub const CONVERSE: &str = r#"
ip addr add 192.0.2.1/24 dev eth0
ip addr add 2001:db8::1/64 dev eth0 nodad
peer ip addr add 192.0.2.2/24 dev eth0
peer ip addr add 2001:db8::2/64 dev eth0 nodad
begin --interface eth0
ping -q -c 4 -i 0.2 192.0.2.2
ping -q -c 4 -i 0.2 2001:db8::2
for port in 1001 1002 1003; do nc -w 5 192.0.2.2 $port || true; done
for port in 2001 2002 2003 2004 2005; do peer nc -w 5 192.0.2.1 $port || true; done
peer ping -q -c 3 -i 0.2 192.0.2.1
peer ping -q -c 2 -i 0.2 2001:db8::1
wait_counted access 10
kill -9 $teiten
wait $teiten || true
for port in 3001 3002; do peer nc -w 5 192.0.2.1 $port || true; done
begin --interface eth0
ping -q -c 2 -i 0.2 192.0.2.2
wait_counted access 12
end
echo "pins: $(find /sys/fs/bpf/teiten -type f 2>/dev/null | wc -l)"
echo "filters: $(tc filter show dev eth0 egress | wc -l)"
echo "programs: $(ip link show eth0 | grep -c xdp)"
"#;

/// What [`CONVERSE`] has to print, when conversations are followed by `tracking` (`tcx`).
///
/// # Errors
///
/// A count differs, or something is left in the kernel; the error holds what was printed.
pub fn judge(printed: &str, tracking: &str) -> Result<()> {
    let followed = format!(r#"metric teiten_flow_tracking{{interface="eth0",method="{tracking}"}} 1"#);
    for line in [
        // Five connections, two more while no daemon ran, three and two echo requests.
        r#"metric teiten_packets_total{class="access"} 12"#,
        // Ten echo replies, and three connections refused.
        r#"metric teiten_packets_total{class="solicited"} 13"#,
        r#"metric teiten_packets_total{class="backscatter"} 0"#,
        r#"metric teiten_accesses_total{transport="tcp",port="2003"} 1"#,
        r#"metric teiten_accesses_total{transport="tcp",port="3002"} 1"#,
        &followed,
        "metric teiten_up 1",
        "pins: 0",
        "filters: 0",
        "programs: 0",
        "exit status 0",
    ] {
        ensure!(printed.lines().any(|found| found.trim_end() == line), "no line `{line}` in\n{printed}");
    }
    Ok(())
}
