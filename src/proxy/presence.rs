//! Whether whoever is at the other end of a socket is still there, found out without reading: what has arrived must stay
//! where it is, because nobody may be ready to take it.

use std::{os::fd::BorrowedFd, time::Duration};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, TcpKeepalive};

/// When the kernel begins to ask a peer that says nothing, how often it asks, and how many questions may stay unanswered:
/// a machine that has vanished is known after half a minute. Those that live answer by themselves.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);

/// What is known of the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Nothing tells otherwise.
    There,
    /// It sends nothing more. It may still read.
    Silent,
    /// It has reset the connection, or has not answered for too long.
    Gone,
}

/// A socket that somebody else may look at.
pub(super) trait Look {
    /// Whether the other end is there.
    fn presence(&self) -> Presence;
    /// Lets the kernel find out when the other end vanishes without a word.
    fn keep_alive(&self);
    /// Makes the end of the connection look like what it is not otherwise: broken off.
    fn abort(&self);
}

#[cfg(target_os = "linux")]
const SILENT: PollFlags = PollFlags::RDHUP;
#[cfg(not(target_os = "linux"))]
const SILENT: PollFlags = PollFlags::empty();

/// Whether the other end of a socket is there.
pub(super) fn presence(socket: BorrowedFd<'_>) -> Presence {
    let mut asked = [PollFd::from_borrowed_fd(socket, SILENT)];
    // Errors and a full close are told also to those who do not ask for them.
    match poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Err(_) => Presence::There,
        Ok(_) => {
            let told = asked[0].revents();
            if told.intersects(PollFlags::ERR | PollFlags::HUP) {
                Presence::Gone
            } else if told.intersects(SILENT) {
                Presence::Silent
            } else {
                Presence::There
            }
        }
    }
}

/// Has the kernel ask whether the other end is there. A Unix socket has no such thing, and needs none.
pub(super) fn keep_alive(socket: BorrowedFd<'_>) {
    let (time, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries);
    let _ = SockRef::from(&socket).set_tcp_keepalive(&keepalive);
}

/// Closing will reset the connection, and drop what is not sent yet.
pub(super) fn abort(socket: BorrowedFd<'_>) {
    // Without it the end only looks like an ordinary one.
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        net::{Shutdown, TcpListener, TcpStream},
        os::fd::AsFd,
        os::unix::net::UnixStream,
    };

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (caller, listener.accept().unwrap().0)
    }

    /// On loopback what was sent has arrived, but the kernel may take a moment to say so.
    fn becomes(socket: &impl AsFd, expected: Presence) -> bool {
        (0..1_000_000).any(|_| presence(socket.as_fd()) == expected)
    }

    #[test]
    fn an_end_and_a_reset_show_behind_bytes_that_nobody_has_read() {
        let (mut caller, ours) = pair();
        caller.write_all(b"unread").unwrap();
        assert_eq!(presence(ours.as_fd()), Presence::There);
        caller.shutdown(Shutdown::Write).unwrap();
        assert!(becomes(&ours, Presence::Silent));
        abort(caller.as_fd());
        drop(caller);
        assert!(becomes(&ours, Presence::Gone));

        let (mut caller, ours) = UnixStream::pair().unwrap();
        caller.write_all(b"unread").unwrap();
        keep_alive(ours.as_fd());
        assert_eq!(presence(ours.as_fd()), Presence::There);
        drop(caller);
        assert_eq!(presence(ours.as_fd()), Presence::Gone);
    }
}
