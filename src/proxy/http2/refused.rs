//! Streams that the library refuses by itself, before they become requests: it resets what is malformed (RFC 9113 §8.1.1), and
//! answers a head that is too large with 431. It tells nobody, so what it sends is looked at.

use std::collections::VecDeque;

use super::{MAX_STREAMS, frames::Seen};
use crate::proxy::{caller::Caller, error::Reason};

/// As many are remembered at most: more have not been looked at only when a connection is about to end.
const MOST: usize = 2 * MAX_STREAMS as usize;

/// Counts what was refused, if nobody else does.
pub(super) fn count(caller: &Caller, reason: Reason) {
    caller.site().refuses(reason);
}

/// The streams that have arrived and have not come out of the library, and whether it has refused them.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    streams: VecDeque<(u32, bool)>,
    last: u32,
}

impl Unseen {
    /// HEADERS have arrived: of a new stream, or trailers.
    pub(super) fn arrived(&mut self, stream: u32) {
        if stream <= self.last {
            return;
        }
        self.last = stream;
        if self.streams.len() == MOST {
            self.streams.pop_front();
        }
        self.streams.push_back((stream, false));
    }

    /// It has come out, as those before it would have; whether it is still to be answered.
    pub(super) fn accepted(&mut self, stream: u32) -> bool {
        let refused = self.streams.contains(&(stream, true));
        self.streams.retain(|(unseen, refused)| *unseen > stream || (*unseen < stream && !refused));
        !refused
    }

    /// Why what is sent refuses a stream that never became a request, if it does. Too many at once are no fault of what they ask
    /// for: REFUSED_STREAM is an invitation to ask again.
    pub(super) fn why(&mut self, sent: Seen) -> Option<Reason> {
        let (stream, reason) = match sent {
            Seen::Head(stream) => (stream, Some(Reason::HeadTooLarge)),
            Seen::Reset(stream, code) => {
                let is_fault = h2::Reason::from(code) != h2::Reason::REFUSED_STREAM;
                (stream, is_fault.then_some(Reason::MalformedRequest))
            }
        };
        let (_, refused) = self.streams.iter_mut().find(|(unseen, _)| *unseen == stream)?;
        if std::mem::replace(refused, true) { None } else { reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_never_became_a_request_is_refused_and_once() {
        let mut unseen = Unseen::default();
        for stream in [1, 3, 5, 7, 3] {
            unseen.arrived(stream);
        }
        assert!(unseen.accepted(1));
        for (sent, why) in [
            (Seen::Reset(1, 1), None),
            (Seen::Head(1), None),
            (Seen::Reset(3, 1), Some(Reason::MalformedRequest)),
            (Seen::Reset(3, 1), None),
            (Seen::Head(5), Some(Reason::HeadTooLarge)),
            (Seen::Reset(5, 0), None),
            (Seen::Reset(7, 7), None),
            (Seen::Reset(9, 1), None),
        ] {
            assert_eq!(unseen.why(sent), why, "{sent:?}");
        }
        // What was refused between its head and its turn is not answered.
        assert!(!unseen.accepted(5));
        unseen.arrived(11);
        assert!(unseen.accepted(11) && unseen.streams.is_empty());
    }
}
