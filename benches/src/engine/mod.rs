//! The closed-loop generator and the upstream, in one thread that never sleeps under load: so the proxy is what saturates.
//!
//! 1. `wire` is one socket, `origin` answers as the upstream and the token endpoint, `caller` asks. `origin2` and `caller2` are
//!    the same in HTTP/2, by `frames`, `hpack` and `huffman`.
//! 2. [`Engine::run`] lets every caller of a load send, one request at a time, until the time is over; then it drains.

mod caller;
mod caller2;
mod frames;
mod hpack;
mod huffman;
mod origin;
mod origin2;
mod run;
mod slot;
mod stock;
mod wire;

pub use self::{
    frames::{DATA, END_HEADERS, END_STREAM, HEADERS, put as put_frame},
    hpack::literals,
    origin::{Answer, Answers, Large},
    run::{Limit, Load, Plan, Tally},
    stock::{BYTE, LARGE, Stock},
    wire::{dial, do_not_pace},
};

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::AsFd,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    fd::OwnedFd,
};

use self::{
    caller::Caller,
    caller2::Caller2,
    origin::Origin,
    run::Run,
    slot::{Slot, Slots},
    wire::Wire,
};

pub struct Engine {
    poll: OwnedFd,
    slots: Slots,
    buffer: Vec<u8>,
    events: Vec<Event>,
    /// Busy-polling; else it sleeps until something happens, for when generator and proxy share a core.
    pub busy: bool,
}

impl Engine {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: epoll::create(CreateFlags::CLOEXEC)?,
            slots: Slots::default(),
            buffer: vec![0; 256 * 1024],
            events: vec![Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 256],
            busy: true,
        })
    }

    pub fn listen(
        &mut self,
        answers: &Rc<Answers>,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        wire::do_not_pace(&listener);
        rustix::net::listen(&listener, 4096)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let slot = self.slots.put(Slot::Free);
        epoll::add(&self.poll, listener.as_fd(), EventData::new_u64(slot as u64), EventFlags::IN)?;
        self.slots[slot] = Slot::Listener { listener, answers: answers.clone(), tls };
        Ok(address)
    }

    /// Opens connections to a target, a few at a time: a burst of thousands would overflow its queue.
    pub fn connect(&mut self, to: SocketAddr, count: usize, plan: &Rc<Plan>) -> io::Result<Load> {
        let mut callers = Vec::with_capacity(count);
        for opened in 0..count {
            let wire = Wire::new(wire::dial(to)?, None)?;
            let slot = self.slots.put(Slot::Free);
            epoll::add(&self.poll, wire.socket.as_fd(), EventData::new_u64(slot as u64), EventFlags::IN)?;
            self.slots[slot] = match plan.streams {
                0 => Slot::Caller(Caller::new(wire)),
                _ => Slot::Caller2(Caller2::new(wire)),
            };
            callers.push(slot);
            if opened % 64 == 63 {
                self.serve(Duration::from_millis(5))?;
            }
        }
        Ok(Load { callers, plan: plan.clone() })
    }

    pub fn close(&mut self, load: Load) {
        for slot in load.callers {
            self.slots.free(slot);
        }
    }

    /// Serves as the upstream only.
    pub fn serve(&mut self, time: Duration) -> io::Result<()> {
        let idle = Load::none();
        let until = Instant::now() + time;
        let mut run = Run::new(&idle, Limit::Until(until));
        while Instant::now() < until {
            self.turn(&mut run, Some(time.min(Duration::from_millis(1))))?;
        }
        Ok(())
    }

    /// A closed loop over all callers until a limit; returns when the last answer has come.
    pub fn run(&mut self, load: &Load, limit: Limit) -> io::Result<Tally> {
        let mut run = Run::new(load, limit);
        let gone = load.callers.iter().filter(|caller| !self.slots[**caller].asks()).count();
        if gone > 0 {
            run.tally.errors += gone as u64;
            run.tally.example = Some(format!("{gone} connections have been lost"));
        }
        let start = Instant::now();
        for caller in &load.callers {
            for _ in 0..load.plan.streams.max(1) {
                self.next(*caller, &mut run);
            }
            self.push(*caller)?;
        }
        let mut last = Instant::now();
        let mut seen = 0;
        while run.in_flight > 0 {
            self.turn(&mut run, if self.busy { Some(Duration::ZERO) } else { Some(Duration::from_secs(1)) })?;
            if run.tally.completed != seen {
                (seen, last) = (run.tally.completed, Instant::now());
            } else if last.elapsed() > Duration::from_secs(10) {
                run.tally.errors += run.in_flight as u64;
                run.tally.example = Some("no answer within 10 s".into());
                // Whatever still comes for them is no answer to what is sent next.
                load.callers.iter().for_each(|caller| self.slots.free(*caller));
                break;
            }
        }
        run.tally.elapsed = start.elapsed();
        Ok(run.tally)
    }

    /// One turn of the loop.
    fn turn(&mut self, run: &mut Run<'_>, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout
            .map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() });
        let count = match epoll::wait(&self.poll, &mut self.events[..], timeout.as_ref()) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for index in 0..count {
            let event = self.events[index];
            self.handle(event.data.u64() as usize, event.flags, run)?;
        }
        Ok(())
    }

    fn handle(&mut self, index: usize, flags: EventFlags, run: &mut Run<'_>) -> io::Result<()> {
        let mut slot = std::mem::replace(&mut self.slots[index], Slot::Free);
        let alive = match &mut slot {
            Slot::Free => return Ok(()),
            Slot::Listener { listener, answers, tls } => {
                while let Ok((socket, _)) = listener.accept() {
                    let tls = tls
                        .clone()
                        .map(rustls::ServerConnection::new)
                        .transpose()
                        .map_err(io::Error::other)?;
                    let wire = Wire::new(socket, tls)?;
                    let new = self.slots.put(Slot::Free);
                    epoll::add(
                        &self.poll,
                        wire.socket.as_fd(),
                        EventData::new_u64(new as u64),
                        EventFlags::IN,
                    )?;
                    self.slots[new] = Slot::Origin(Origin::new(wire, answers.clone()));
                }
                true
            }
            Slot::Origin(origin) => {
                let flushed = !flags.contains(EventFlags::OUT) || origin.wire.flush().is_ok();
                let mut alive = flushed && origin.on_readable(&mut self.buffer).unwrap_or(false);
                if alive {
                    alive = origin.wire.ask(&self.poll, index).is_ok();
                }
                alive
            }
            Slot::Caller(_) | Slot::Caller2(_) => {
                self.slots[index] = slot;
                return self.answered(index, flags, run);
            }
        };
        self.slots[index] = slot;
        if !alive {
            self.slots.free(index);
        }
        Ok(())
    }

    /// Takes what came for a caller, and lets it ask on.
    fn answered(&mut self, index: usize, flags: EventFlags, run: &mut Run<'_>) -> io::Result<()> {
        let expected = run.load.plan.expected;
        let mut done = std::mem::take(&mut run.done);
        let (wire, open) = match &mut self.slots[index] {
            Slot::Caller(caller) => (&mut caller.wire, 1),
            Slot::Caller2(caller) => {
                let open = caller.open();
                (&mut caller.wire, open)
            }
            _ => return Ok(()),
        };
        let flushed = if flags.contains(EventFlags::OUT) { wire.flush() } else { Ok(()) };
        let taken = flushed.and_then(|()| match &mut self.slots[index] {
            Slot::Caller(caller) => caller.on_readable(&mut self.buffer, expected, &mut done),
            Slot::Caller2(caller) => caller.on_readable(&mut self.buffer, expected, &mut done),
            _ => Ok(()),
        });
        run.tally.completed += done.len() as u64;
        run.tally.latencies.extend_from_slice(&done);
        run.in_flight = run.in_flight.saturating_sub(done.len());
        match taken {
            Ok(()) => {
                for _ in 0..done.len() {
                    self.next(index, run);
                }
                self.push(index)?;
            }
            Err(error) => {
                let lost = open - done.len();
                // One of another load is told of when that has its turn.
                if run.load.callers.contains(&index) {
                    run.tally.errors += lost.max(1) as u64;
                    run.tally.example.get_or_insert(error.to_string());
                    run.in_flight = run.in_flight.saturating_sub(lost);
                }
                self.slots.free(index);
            }
        }
        done.clear();
        run.done = done;
        Ok(())
    }

    /// The next request of a caller, unless the limit is reached. A failure shows when the socket is read.
    fn next(&mut self, caller: usize, run: &mut Run<'_>) {
        let over = match run.limit {
            Limit::Until(time) => Instant::now() >= time,
            Limit::Requests(count) => run.sent >= count,
        };
        if over {
            return;
        }
        let requests = &run.load.plan.requests;
        let request = &requests[(run.sent + 1) as usize % requests.len()];
        match &mut self.slots[caller] {
            Slot::Caller(open) => drop(open.send(request)),
            Slot::Caller2(open) => open.send(request),
            _ => return,
        }
        run.sent += 1;
        run.in_flight += 1;
    }

    /// Sends what a caller has gathered.
    fn push(&mut self, caller: usize) -> io::Result<()> {
        let wire = match &mut self.slots[caller] {
            Slot::Caller(open) => &mut open.wire,
            Slot::Caller2(open) => {
                drop(open.push());
                &mut open.wire
            }
            _ => return Ok(()),
        };
        wire.ask(&self.poll, caller)
    }
}
