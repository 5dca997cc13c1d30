//! `attache-bench relay LISTEN UPSTREAM`: copies bytes both ways and understands nothing. What it costs is the kernel's
//! part of any proxy: the floor.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use crate::engine::{dial, do_not_pace};

/// Holds the largest messages that are asked for but one, so that these take one read and one write.
const BUFFER: usize = 256 * 1024;

pub fn run(listen: &str, upstream: &str) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    do_not_pace(&listener);
    let upstream = upstream.parse().map_err(io::Error::other)?;
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&poll, listener.as_fd(), EventData::new_u64(u64::MAX), EventFlags::IN)?;
    let mut sides: Vec<Option<TcpStream>> = Vec::new(); // side n talks to side n ^ 1
    let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 256];
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = epoll::wait(&poll, &mut events, None)?;
        for event in &events[..count] {
            let token = event.data.u64();
            if token == u64::MAX {
                while let Ok((caller, _)) = listener.accept() {
                    for side in [caller, dial(upstream)?] {
                        side.set_nodelay(true)?;
                        side.set_nonblocking(true)?;
                        epoll::add(
                            &poll,
                            side.as_fd(),
                            EventData::new_u64(sides.len() as u64),
                            EventFlags::IN,
                        )?;
                        sides.push(Some(side));
                    }
                }
                continue;
            }
            let side = token as usize;
            let read = match sides[side].as_mut().map(|stream| stream.read(&mut buffer)) {
                Some(Ok(read)) if read > 0 => read,
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => continue,
                _ => {
                    sides[side] = None;
                    sides[side ^ 1] = None;
                    continue;
                }
            };
            if let Some(other) = sides[side ^ 1].as_mut() {
                // A floor needs no back-pressure: the few bytes that the kernel does not take at once are pushed.
                let mut rest = &buffer[..read];
                while !rest.is_empty() {
                    match other.write(rest) {
                        Ok(written) => rest = &rest[written..],
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                        Err(_) => break,
                    }
                }
            }
        }
    }
}
