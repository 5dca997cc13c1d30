//! Ports that are free.

use std::{io, net::TcpListener};

use super::kind::Way;

/// Where a target listens: for each way, and for its operator.
pub struct Ports {
    pub admin: u16,
    pub ways: [u16; Way::ALL.len()],
}

impl Ports {
    /// All are held until the last is found.
    pub fn find() -> io::Result<Self> {
        let mut held = Vec::new();
        let mut one = || -> io::Result<u16> {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let port = listener.local_addr()?.port();
            held.push(listener);
            Ok(port)
        };
        let mut ports = Self { admin: one()?, ways: [0; Way::ALL.len()] };
        for port in &mut ports.ways {
            *port = one()?;
        }
        Ok(ports)
    }

    /// That of the plain way.
    pub fn plain(&self) -> u16 {
        self.ways[0]
    }
}
