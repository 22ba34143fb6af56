//! Which of the UDP conversations that are over are remembered, when they are too many: by
//! [`sensor_common::flow::MEMORY`], one that this host started once is its own also when the peer speaks
//! first the next time.

use sensor_common::flow::{FlowKey, FlowState};

/// A conversation that lasted so long, seconds, is more than a question and its answer.
const LASTING: u64 = 10;

/// The keys to forget of `over`, so that `room` are left: questions before conversations that lasted, and
/// those that ended earlier before others.
pub(crate) fn to_forget(mut over: Vec<(FlowKey, FlowState)>, room: usize) -> Vec<FlowKey> {
    let excess = over.len().saturating_sub(room);
    if excess > 0 {
        over.select_nth_unstable_by_key(excess - 1, |(_, state)| (state.lasted() >= LASTING, state.sent));
    }
    over.truncate(excess);
    over.into_iter().map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sensor_common::flow::Phase;

    #[test]
    fn questions_are_forgotten_before_conversations_and_old_ones_first() {
        // Local port, begin and end, seconds.
        let over: Vec<_> = [(1, 0, 100), (2, 500, 500), (3, 400, 409), (4, 90, 200), (5, 600, 600)]
            .map(|(local_port, began, end)| {
                let key = FlowKey { local_port, ..FlowKey::default() };
                (key, FlowState { sent: end * 1_000_000_000, phase: Phase::Udp as u32, began })
            })
            .into();
        let forgotten = |room| {
            let mut ports: Vec<u16> =
                to_forget(over.clone(), room).iter().map(|key| key.local_port).collect();
            ports.sort_unstable();
            ports
        };
        assert!(forgotten(5).is_empty());
        assert_eq!(forgotten(4), [3]);
        assert_eq!(forgotten(3), [2, 3]);
        assert_eq!(forgotten(1), [1, 2, 3, 5]);
        assert_eq!(forgotten(0), [1, 2, 3, 4, 5]);
    }
}
