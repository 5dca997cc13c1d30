//! Interim answers (RFC 9110 §15.2), such as 103 (Early Hints, RFC 8297): passed on while the answer itself is awaited, less
//! what belongs to the hop. 100 (Continue) concerns one hop, and attaché asks for it itself.

use std::cell::RefCell;

use http::{Response, StatusCode, header::CONTENT_LENGTH};

use super::{
    exchange::{drop_echoes, drop_phrase},
    hop,
    route::Injected,
};
use crate::token::Current;

/// As many as may wait until the caller's side takes them; hints are only hints, and more are dropped.
const WAITING: usize = 8;

/// Interim answers on their way to a caller.
#[derive(Debug, Default)]
pub(super) struct Early(RefCell<Vec<Response<()>>>);

impl Early {
    /// One has come from an upstream that was asked with this token.
    pub(super) fn has_come(&self, mut answer: Response<()>, token: &Injected) {
        let mut waiting = self.0.borrow_mut();
        // Never a 101, which would be an end of HTTP to the caller.
        let passes = answer.status().is_informational()
            && !matches!(answer.status(), StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS);
        if !passes || waiting.len() == WAITING {
            return;
        }
        hop::strip_answer(answer.headers_mut(), false);
        // RFC 9110 §8.6.
        answer.headers_mut().remove(CONTENT_LENGTH);
        if let Some(token) = token.as_ref().map(Current::token) {
            drop_echoes(answer.headers_mut(), token);
            drop_phrase(answer.extensions_mut(), token);
        }
        waiting.push(answer);
    }

    /// Those that have come since the last time.
    pub(super) fn take(&self) -> Vec<Response<()>> {
        self.0.take()
    }
}
