//! A request on its way to an upstream: what is sent, and what may be sent once more.

use std::rc::Rc;

use http::{HeaderMap, Method, uri::PathAndQuery};

use super::{
    caller::Caller,
    route::Route,
    upload::{RequestBody, Upload},
};

/// A request that is ready to be sent, except for its credential.
pub(super) struct Outgoing<'a> {
    pub(super) method: &'a Method,
    pub(super) target: PathAndQuery,
    pub(super) headers: &'a mut HeaderMap,
    /// The body and its length, when there is a body.
    pub(super) upload: Option<(Rc<Upload>, Option<u64>)>,
    /// It may be sent again on a fresh connection.
    pub(super) repeatable: bool,
    /// It may be sent again with a new token, after a 401 that refused the old one.
    pub(super) replayable: bool,
    /// It asks for WebSocket: on a connection of its own, and never twice.
    pub(super) upgrade: bool,
    /// It is a gRPC call.
    pub(super) call: bool,
    /// The caller takes trailers.
    pub(super) trailers: bool,
}

impl Outgoing<'_> {
    /// The body from its beginning.
    pub(super) fn body(&self) -> RequestBody {
        match &self.upload {
            None => RequestBody::Empty,
            Some((upload, length)) => RequestBody::again(upload, *length),
        }
    }

    /// Nothing of it has been sent yet, so it may go elsewhere whatever its method: what is taken of its body is held until
    /// there is.
    pub(super) fn is_about_to_begin(&self) {
        if let Some((upload, _)) = &self.upload {
            upload.hold();
        }
    }

    /// The first bytes of it have been sent.
    pub(super) fn has_begun(&self) {
        if let Some((upload, _)) = &self.upload
            && !self.replayable
        {
            upload.release();
        }
    }

    /// Whether all of it can be sent once more.
    pub(super) fn is_held(&self) -> bool {
        self.repeatable && self.body_is_held()
    }

    /// Whether what was sent of the body is here.
    pub(super) fn body_is_held(&self) -> bool {
        self.upload.as_ref().is_none_or(|(upload, _)| upload.is_held())
    }

    /// Whether it can be sent once more with another token: a call only when all of its messages are here, not a stream of them
    /// that goes on.
    pub(super) fn is_replayable(&self) -> bool {
        let ended = || self.upload.as_ref().is_none_or(|(upload, _)| upload.has_ended());
        self.replayable && self.body_is_held() && (!self.call || ended())
    }

    /// How many ticks its answer may take to begin; the deadline of a call is its caller's.
    pub(super) fn time_limit(&self, caller: &Caller, route: &Route) -> u32 {
        if self.call { 0 } else { caller.worker.ticks.of(route.response_timeout) }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.upload.as_ref().is_some_and(|(upload, _)| upload.has_failed())
    }
}
