//! The body of a request, as it comes from its caller.

use std::{
    cell::RefMut,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::wire::{Inner, Wire};
use crate::proxy::{activity::Activity, inflow::BrokenOff};

/// The body of a request, and which of its connection's requests that is.
#[derive(Debug)]
pub(in crate::proxy) struct Incoming(Option<(Rc<Wire>, u64)>);

impl Incoming {
    /// `number` is that of the request, if it has a body.
    pub(super) fn new(wire: &Rc<Wire>, number: Option<u64>) -> Self {
        Self(number.map(|number| (Rc::clone(wire), number)))
    }

    fn inner(&self) -> Option<(RefMut<'_, Inner>, &Activity)> {
        let (wire, number) = self.0.as_ref()?;
        wire.during(*number)
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.inner() {
            None if self.0.is_none() => Poll::Ready(None),
            None => Poll::Ready(Some(Err(BrokenOff(None)))),
            Some((mut inner, activity)) => inner.poll_body(activity, cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none() || self.inner().is_some_and(|(inner, _)| inner.body.is_done())
    }

    fn size_hint(&self) -> SizeHint {
        let left = match self.inner() {
            None if self.0.is_none() => Some(0),
            None => None,
            Some((inner, _)) => inner.body.left(),
        };
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
