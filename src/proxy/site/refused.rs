//! What is refused before it is a request: bytes that are no head, heads that are too large, connections that may not be.

use std::time::Duration;

use tokio::time::Instant;

use super::Site;
use crate::proxy::{complaint::Complaints, error::Reason};

/// How often the access log has a line for the same reason. Such answers cost their caller nothing, and there is nothing else that
/// a line could tell.
const EVERY: Duration = Duration::from_secs(30);

/// What was told lately.
#[derive(Debug)]
pub(super) struct Told {
    complaints: Complaints,
    start: Instant,
}

impl Default for Told {
    fn default() -> Self {
        Self { complaints: Complaints::default(), start: Instant::now() }
    }
}

impl Told {
    fn is_due(&self, reason: Reason) -> bool {
        // In seconds: a worker's ticks are its own, and connections are refused before they have a worker.
        let now = u32::try_from(self.start.elapsed().as_secs()).unwrap_or(u32::MAX);
        self.complaints.is_due(reason, now, EVERY.as_secs() as u32)
    }
}

impl Site {
    /// Counts it, and tells the access log.
    pub(in crate::proxy) fn refuses(&self, reason: Reason) {
        let status = reason.status().as_u16();
        self.unrouted.own_answer(reason.word());
        self.unrouted.answered(status);
        if self.access_log.takes(true) && self.told.is_due(reason) {
            tracing::info!(target: "attache::access", route = "", status, reason = reason.word(), "request");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_reason_has_a_line_once_in_a_while() {
        let told = Told::default();
        assert!(told.is_due(Reason::HeadTooLarge) && told.is_due(Reason::MalformedRequest));
        assert!(!told.is_due(Reason::HeadTooLarge));
        tokio::time::advance(EVERY + Duration::from_secs(1)).await;
        assert!(told.is_due(Reason::HeadTooLarge));
    }
}
