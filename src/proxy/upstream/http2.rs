//! An HTTP/2 connection to an upstream, which the requests of a worker share (RFC 9113).
//!
//! 1. [`Multiplexed::open`] starts it; a task of the worker drives it until it has neither streams nor owners.
//! 2. [`Multiplexed::seat`] is a place for one request ([`Seat`]), if the connection is alive and has room.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::client::{self, SendRequest};

use super::{
    Limit, Permit, Shared, Upstream, UpstreamStream, attach::Attaching, heads::Heads, seat::Seat,
    terms::Terms,
};
use crate::{proxy::ticks::Ticks, tls::Edition};

/// Requests at once on one connection, however many more the upstream allows.
const MAX_STREAMS: usize = 64;

/// What the library takes for the upstream's limit until that has told its own (RFC 9113 §6.5.2): a number that nobody else
/// would choose.
const UNTOLD: usize = 7919;

/// What of one answer may be on its way to us.
const STREAM_WINDOW: u32 = 512 * 1024;

/// Bytes of one request that wait to be written.
const SEND_BUFFER: usize = 64 * 1024;

type Connection = client::Connection<Attaching<UpstreamStream>, Bytes>;

/// A connection that requests share.
#[derive(Debug)]
pub(in crate::proxy) struct Multiplexed {
    // What sends for each request is a copy of it. It never sends itself, and so never waits.
    sender: RefCell<SendRequest<Bytes>>,
    driver: Rc<Driver>,
    heads: Rc<Heads>,
    limit: Arc<Limit>,
    edition: Option<Edition>,
    // The tick of its opening.
    born: u32,
    number: u64,
    ticks: Rc<Ticks>,
    streams: Cell<usize>,
    used: Cell<bool>,
    counted: Cell<bool>,
    // Since which tick it has had no streams.
    quiet: Cell<u32>,
    // Who is told when a place comes free, and under which number.
    owner: Weak<Shared>,
    slot: usize,
}

/// Drives the connection, from a task of its own and from whoever wants to know whether it is alive.
#[derive(Debug)]
struct Driver {
    // With its permit: there is room for another one as soon as its socket is closed, although its requests find that out later, and
    // those that have their answers never.
    connection: RefCell<Option<(Connection, Permit)>>,
    task: RefCell<Option<Waker>>,
    // Somebody was, because too many heads waited. When they are written, those that wait are told.
    turned_away: Cell<bool>,
}

impl Multiplexed {
    /// Begins HTTP/2 on a stream, and waits for the limits of the upstream: what is sent beyond them is refused, or waits behind
    /// others for no reason.
    pub(super) async fn open(
        stream: UpstreamStream,
        upstream: &Upstream,
        owner: &Rc<Shared>,
        terms: Terms,
    ) -> Result<Rc<Self>, h2::Error> {
        let heads = Rc::new(Heads::default());
        let (sender, mut connection) = client::Builder::new()
            .enable_push(false)
            .initial_max_send_streams(UNTOLD)
            .initial_window_size(STREAM_WINDOW)
            // Every stream can fill its window: callers that read slowly hold up no other.
            .initial_connection_window_size(MAX_STREAMS as u32 * STREAM_WINDOW)
            .max_frame_size(16 * 1024)
            .max_header_list_size(u32::try_from(upstream.max_header_bytes).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_reset_streams(MAX_STREAMS)
            // A reset that the upstream has not seen yet must not make what it still sends an error.
            .reset_stream_duration(Duration::from_secs(10))
            .handshake(Attaching::new(stream, Rc::clone(&heads)))
            .await?;
        poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(ended) => Poll::Ready(ended),
            Poll::Pending if connection.max_concurrent_send_streams() == UNTOLD => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
        })
        .await?;
        let Terms { permit, edition, born } = terms;
        let limit = Arc::clone(permit.limit());
        let driver = Rc::new(Driver {
            connection: RefCell::new(Some((connection, permit))),
            task: RefCell::default(),
            turned_away: Cell::new(false),
        });
        let ticks = Rc::clone(owner.ticks());
        let quiet = Cell::new(ticks.now());
        let this = Rc::new(Self {
            sender: RefCell::new(sender),
            driver,
            heads,
            limit,
            edition,
            born,
            number: owner.opened(),
            ticks,
            streams: Cell::new(0),
            used: Cell::new(false),
            counted: Cell::new(false),
            quiet,
            owner: Rc::downgrade(owner),
            slot: upstream.slot,
        });
        tokio::task::spawn_local(this.driven());
        Ok(this)
    }

    /// Drives it to its end. When nobody has it any more, it ends: what it cannot write then is of requests that were given up.
    fn driven(self: &Rc<Self>) -> impl Future<Output = ()> + use<> {
        let (driver, heads, owned) = (Rc::clone(&self.driver), Rc::clone(&self.heads), Rc::downgrade(self));
        let mut closing = false;
        poll_fn(move |cx| {
            *driver.task.borrow_mut() = Some(cx.waker().clone());
            if driver.poll(cx).is_ready() || closing {
                driver.connection.take();
                return Poll::Ready(());
            }
            match owned.upgrade() {
                // It may have more to say than can be said at once, but not more than twice.
                None => {
                    closing = true;
                    cx.waker().wake_by_ref();
                }
                Some(this) if driver.turned_away.get() && heads.waiting() < MAX_STREAMS => {
                    driver.turned_away.set(false);
                    this.tell();
                }
                Some(_) => {}
            }
            Poll::Pending
        })
    }

    /// How many requests wait for a connection.
    pub(super) fn waiting(&self) -> usize {
        self.limit.waiting()
    }

    /// The tick of its opening.
    pub(super) fn born(&self) -> u32 {
        self.born
    }

    /// Its number among those that its worker has opened.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Since which tick it has been quiet, if it is.
    pub(super) fn quiet_since(&self) -> Option<u32> {
        (self.streams.get() == 0).then(|| self.quiet.get())
    }

    /// Whether it takes further requests at all, as far as anyone can tell.
    pub(super) fn is_usable(&self) -> bool {
        if self.streams.get() == 0 {
            // A close may have arrived that its task has not been told of.
            self.driver.look();
        }
        let mut sender = self.sender.borrow_mut();
        self.edition.as_ref().is_none_or(Edition::is_current)
            && matches!(sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
    }

    /// Whether another request can begin at once. The first one always can, unless as many heads wait to be written as there may be
    /// requests. Those of requests that were given up wait, too: the upstream reads too little.
    pub(super) fn has_room(&self) -> bool {
        if self.heads.waiting() >= MAX_STREAMS {
            self.driver.turned_away.set(true);
            return false;
        }
        self.streams.get() < self.sender.borrow().current_max_send_streams().clamp(1, MAX_STREAMS)
    }

    /// Whether the upstream takes requests for tunnels (RFC 8441 §3).
    pub(super) fn takes_tunnels(&self) -> bool {
        self.sender.borrow().is_extended_connect_protocol_enabled()
    }

    /// A place for a request.
    pub(super) fn seat(self: &Rc<Self>) -> Seat {
        self.streams.set(self.streams.get() + 1);
        Seat::new(Rc::clone(self))
    }

    /// A request has begun on it.
    pub(super) fn begun(&self) {
        self.used.set(true);
    }

    /// It is kept, whether or not it has carried a request, unless one has a place on it.
    pub(super) fn rests(&self) {
        if self.streams.get() == 0 {
            self.used.set(true);
        }
    }

    /// Whether a request ever has, or could have: it has been at rest.
    pub(super) fn is_used(&self) -> bool {
        self.used.get()
    }

    /// Whether nobody has asked this before: true once.
    pub(super) fn count_once(&self) -> bool {
        !self.counted.replace(true)
    }

    /// A place has been given up.
    pub(super) fn left(&self) {
        self.streams.set(self.streams.get() - 1);
        self.rests();
        self.quiet.set(self.ticks.now());
        if let Some(owner) = self.owner.upgrade() {
            owner.left(self.slot, self);
        }
    }

    /// Tells those that wait that there may be room.
    fn tell(&self) {
        if let Some(owner) = self.owner.upgrade() {
            owner.hand_over(self.slot);
        }
    }

    /// Where the fields of requests wait for their heads.
    pub(super) fn heads(&self) -> &Heads {
        &self.heads
    }

    /// What sends on it.
    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.sender.borrow().clone()
    }
}

impl Driver {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut slot = self.connection.borrow_mut();
        if let Some((connection, _)) = slot.as_mut() {
            // Its end, with or without an error, is told to its streams.
            let _ended = ready!(Pin::new(connection).poll(cx));
            *slot = None;
        }
        Poll::Ready(())
    }

    /// Reads and writes what can be, on behalf of its task.
    fn look(&self) {
        let task = self.task.borrow().clone();
        let waker = task.as_ref().unwrap_or(Waker::noop());
        if self.poll(&mut Context::from_waker(waker)).is_ready() || self.turned_away.get() {
            waker.wake_by_ref();
        }
    }
}
