//! One socket, perhaps with TLS (server side) over it; what the kernel does not take at once waits here.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    rc::Rc,
};

use rustix::{
    event::epoll::{self, EventData, EventFlags},
    fd::OwnedFd,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, send},
};

use super::{origin::Answer, stock::Body};

pub struct Wire {
    pub socket: TcpStream,
    tls: Option<Box<rustls::ServerConnection>>,
    pending: VecDeque<Pending>,
    /// Whether the poll set asks for writability.
    asked: bool,
}

/// What waits to be sent, and how much of it has been.
enum Pending {
    Bytes(Rc<[u8]>, usize),
    /// The head of an answer whose body follows.
    Head(Rc<[u8]>, usize),
    Body(Body),
}

impl Pending {
    /// Sends what the kernel takes.
    fn send(&mut self, mut socket: &TcpStream) -> io::Result<usize> {
        let (count, sent) = match self {
            Self::Bytes(bytes, sent) => (socket.write(&bytes[*sent..])?, sent),
            Self::Head(bytes, sent) => (send(socket, &bytes[*sent..], SendFlags::MORE)?, sent),
            Self::Body(body) => return body.send(socket),
        };
        *sent += count;
        Ok(count)
    }

    fn is_sent(&self) -> bool {
        match self {
            Self::Bytes(bytes, sent) | Self::Head(bytes, sent) => *sent == bytes.len(),
            Self::Body(body) => body.is_sent(),
        }
    }
}

impl Wire {
    pub fn new(socket: TcpStream, tls: Option<rustls::ServerConnection>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, tls: tls.map(Box::new), pending: VecDeque::new(), asked: false })
    }

    /// What has arrived; `None` when nothing has, 0 at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(tls) = &mut self.tls else { return unblocked(self.socket.read(buffer)) };
        let plain =
            |tls: &mut rustls::ServerConnection, buffer: &mut [u8]| unblocked(tls.reader().read(buffer));
        if let Some(read) = plain(tls, buffer)? {
            return Ok(Some(read));
        }
        match unblocked(tls.read_tls(&mut self.socket))? {
            None => return Ok(None),
            Some(0) => return Ok(Some(0)),
            Some(_) => {}
        }
        tls.process_new_packets().map_err(io::Error::other)?;
        while tls.wants_write() {
            if unblocked(tls.write_tls(&mut self.socket))?.is_none() {
                break;
            }
        }
        plain(tls, buffer)
    }

    /// Takes what has arrived, up to as much as fits the buffer, without copying it there (tcp(7), `MSG_TRUNC`). Without TLS only.
    pub fn skip(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if self.tls.is_some() {
            return self.read(buffer);
        }
        let skipped = rustix::net::recv(&self.socket, buffer, RecvFlags::TRUNC);
        unblocked(skipped.map(|(_, count)| count).map_err(io::Error::from))
    }

    /// Asks for writability only while something waits to be written.
    pub fn ask(&mut self, poll: &OwnedFd, index: usize) -> io::Result<()> {
        let blocked = self.blocked();
        if blocked != self.asked {
            self.asked = blocked;
            let flags = if blocked { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(poll, self.socket.as_fd(), EventData::new_u64(index as u64), flags)?;
        }
        Ok(())
    }

    /// Sends an answer; without TLS a large body comes from what is kept of it in the kernel.
    pub fn answer(&mut self, answer: &Rc<Answer>) -> io::Result<()> {
        match &answer.large {
            Some(large) if self.tls.is_none() => {
                self.pending.push_back(Pending::Head(large.head.clone(), 0));
                self.pending.push_back(Pending::Body(large.stock.body(large.size)?));
                self.flush()
            }
            _ => self.send(&answer.http1),
        }
    }

    pub fn send(&mut self, bytes: &Rc<[u8]>) -> io::Result<()> {
        if let Some(sent) = self.try_send(bytes)? {
            self.pending.push_back(Pending::Bytes(bytes.clone(), sent));
        }
        Ok(())
    }

    /// The same with bytes that are not kept.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(sent) = self.try_send(bytes)? {
            self.pending.push_back(Pending::Bytes(bytes.into(), sent));
        }
        Ok(())
    }

    /// Sends what the kernel takes; `Some` tells how much that is when it is not all.
    fn try_send(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(bytes)?;
            return self.flush().map(|()| None);
        }
        let mut sent = 0;
        if self.pending.is_empty() {
            sent = unblocked(self.socket.write(bytes))?.unwrap_or(0);
        }
        Ok((sent < bytes.len()).then_some(sent))
    }

    pub fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() && unblocked(tls.write_tls(&mut self.socket))?.is_some() {}
            return Ok(());
        }
        while let Some(pending) = self.pending.front_mut() {
            if unblocked(pending.send(&self.socket))?.is_none() {
                break;
            }
            if pending.is_sent() {
                self.pending.pop_front();
            }
        }
        Ok(())
    }

    fn blocked(&self) -> bool {
        !self.pending.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }
}

/// `None` for what would wait.
pub fn unblocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the machine's default is BBR, the generator would be busy with timers that pace what never leaves the machine. Before a socket
/// connects; what a listening one has, its connections have.
pub fn do_not_pace(socket: &impl AsFd) {
    let _ = rustix::net::sockopt::set_tcp_congestion(socket, "reno");
}

/// A connection that is not paced.
pub fn dial(to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    do_not_pace(&socket);
    rustix::net::connect(&socket, &to)?;
    Ok(socket.into())
}
