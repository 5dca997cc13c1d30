//! A TCP port, which two processes may share while one takes over from the other (`SO_REUSEPORT`, see socket(7)).
//!
//! 1. Both say before they bind that they share the port. The kernel allows that to processes of one user only.
//! 2. It would spread new connections over both, and reset those that wait for the one that closes its socket. So whoever
//!    listens last takes all of them: the group of sockets gets a program that chooses the second one.
//! 3. When the old process has closed its socket, the new one's is the first and only one. The choice of a second one is
//!    then none, and the kernel makes its own.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted; the kernel has a limit of its own.
pub(super) const BACKLOG: i32 = 4096;

/// Binds an address. `is_shared` lets another process that says the same take it over.
pub(super) fn bind(address: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // After a restart, connections of the old process may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if is_shared {
        rustix::net::sockopt::set_socket_reuseport(&socket, true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    if is_shared {
        lead_here(&socket);
    }
    Ok(socket.into())
}

/// Now that it listens: new connections come here and no longer to the process that listened before. Where that cannot be
/// had, they go to both, and a connection that is just being made when the other ends may be reset.
#[cfg(target_os = "linux")]
fn lead_here(socket: &Socket) {
    use nix::{
        libc,
        sys::socket::{setsockopt, sockopt::AttachReusePortCbpf},
    };

    // "Return 1", as a classic BPF program: sockets are counted from 0, in the order in which they began to listen.
    let code = u16::try_from(libc::BPF_RET | libc::BPF_K).unwrap_or_default();
    let mut second = [libc::sock_filter { code, jt: 0, jf: 0, k: 1 }];
    let program = libc::sock_fprog { len: 1, filter: second.as_mut_ptr() };
    if let Err(error) = setsockopt(socket, AttachReusePortCbpf, &program) {
        tracing::warn!(%error, "new connections go to the process before this one as well");
    }
}

/// Elsewhere the kernel has a way of its own.
#[cfg(not(target_os = "linux"))]
fn lead_here(_: &Socket) {}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn shared(address: SocketAddr) -> TcpListener {
        let listener = bind(address, true).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    }

    /// Connections that wait to be accepted.
    fn waiting(listener: &TcpListener) -> usize {
        std::iter::from_fn(|| listener.accept().ok()).count()
    }

    #[test]
    fn whoever_listens_last_takes_every_new_connection_and_nobody_s_is_lost() {
        let mut last = shared(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = last.local_addr().unwrap();
        for _ in 0..3 {
            let before = TcpStream::connect(address).unwrap();
            let next = shared(address);
            let callers: Vec<_> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
            assert_eq!((waiting(&last), waiting(&next)), (1, 100));
            drop((before, callers));
            last = next;
        }
        let callers: Vec<_> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert_eq!(waiting(&last), callers.len());
    }

    #[test]
    fn a_port_is_shared_only_by_those_who_say_so() {
        for is_shared in [true, false] {
            let first = bind(SocketAddr::from(([127, 0, 0, 1], 0)), is_shared).unwrap();
            let refused = bind(first.local_addr().unwrap(), !is_shared).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        }
    }
}
