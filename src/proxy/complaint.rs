//! Telling in the log why an upstream fails, without a line for each request that it fails.

use std::sync::atomic::{AtomicU32, Ordering};

use super::error::Reason;

/// What a route has complained about lately: one line for each reason in a while.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    // The tick of the last line for each reason, plus one; 0 for none. Workers share it, so a line may come twice.
    last: [AtomicU32; Reason::ALL.len()],
}

impl Complaints {
    /// Whether the log should tell of this reason again, `every` so many ticks.
    pub(super) fn is_due(&self, reason: Reason, now: u32, every: u32) -> bool {
        let last = &self.last[reason as usize];
        let now = now.wrapping_add(1).max(1);
        let told = last.load(Ordering::Relaxed);
        let due = told == 0 || now.wrapping_sub(told) > every;
        if due {
            last.store(now, Ordering::Relaxed);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_told_once_in_a_while() {
        let complaints = Complaints::default();
        assert!(complaints.is_due(Reason::UpstreamTls, 7, 10));
        assert!(!complaints.is_due(Reason::UpstreamTls, 8, 10));
        assert!(complaints.is_due(Reason::UpstreamTimeout, 8, 10));
        assert!(!complaints.is_due(Reason::UpstreamTls, 17, 10));
        assert!(complaints.is_due(Reason::UpstreamTls, 18, 10));
    }

    #[test]
    fn the_list_of_reasons_is_in_the_order_of_their_numbers() {
        for (number, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
        }
    }
}
