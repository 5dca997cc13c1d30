//! From a name to addresses: one question at a time for all workers, an answer used for a few seconds, and the last good
//! one while there is no other.
//!
//! The question is the C library's, so that `/etc/hosts`, search domains and the rest hold here as everywhere on the
//! machine. It blocks a thread and cannot be cancelled, so a name server that does not answer must not be asked by
//! every request.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::lookup_host,
    sync::Mutex as Turn,
    time::{self, Instant},
};

/// How long an answer is used: new connections follow a change within 10 s (F10).
const FRESH: Duration = Duration::from_secs(5);

/// How long an answer may take while there is an older one.
const PATIENCE: Duration = Duration::from_secs(2);

type Addresses = Arc<[SocketAddr]>;

/// A name and what is known of it.
#[derive(Debug)]
pub(super) struct Resolver {
    host: Box<str>,
    port: u16,
    // Of a name that must mean this machine, no other answer counts.
    loopback_only: bool,
    known: Mutex<Option<Known>>,
    // Held by whoever asks; the others wait for that answer.
    turn: Turn<()>,
}

/// An answer, and what became of the latest question.
#[derive(Debug)]
struct Known {
    addresses: Addresses,
    since: Instant,
    /// The name did not resolve when it was last asked for: told once.
    failing: bool,
}

impl Resolver {
    pub(super) fn new(host: &str, port: u16, loopback_only: bool) -> Self {
        Self { host: host.into(), port, loopback_only, known: Mutex::default(), turn: Turn::default() }
    }

    /// The addresses, the preferred one first; never none.
    pub(super) async fn addresses(&self) -> io::Result<Addresses> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok([SocketAddr::new(address, self.port)].into());
        }
        self.answer(|| lookup_host((&*self.host, self.port))).await
    }

    async fn answer<A, F>(&self, ask: impl Fn() -> F) -> io::Result<Addresses>
    where
        A: Iterator<Item = SocketAddr>,
        F: Future<Output = io::Result<A>>,
    {
        if let Some(fresh) = self.known(FRESH) {
            return Ok(fresh);
        }
        let _turn = self.turn.lock().await;
        if let Some(fresh) = self.known(FRESH) {
            return Ok(fresh);
        }
        let old = self.known(Duration::MAX);
        let asked = match &old {
            None => ask().await,
            Some(_) => time::timeout(PATIENCE, ask()).await.unwrap_or_else(|late| Err(late.into())),
        };
        let found = asked.and_then(|found| self.usable(found));
        match (found, old) {
            (Ok(found), _) => {
                if self.remember(&found, false) {
                    tracing::info!(name = %self.host, "the name resolves again");
                }
                Ok(found)
            }
            // An address that was good is better than none. It is asked again once this is not fresh any more.
            (Err(error), Some(old)) => {
                if !self.remember(&old, true) {
                    tracing::warn!(name = %self.host, %error, "the name does not resolve; its last addresses are used");
                }
                Ok(old)
            }
            (Err(error), None) => Err(error),
        }
    }

    fn usable(&self, found: impl Iterator<Item = SocketAddr>) -> io::Result<Addresses> {
        let found: Addresses =
            found.filter(|address| !self.loopback_only || address.ip().is_loopback()).collect();
        match found.is_empty() {
            true => Err(io::Error::from(io::ErrorKind::AddrNotAvailable)),
            false => Ok(found),
        }
    }

    fn known(&self, age: Duration) -> Option<Addresses> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|known| known.since.elapsed() < age).map(|known| Arc::clone(&known.addresses))
    }

    /// Notes what came; returns whether the question before failed.
    fn remember(&self, addresses: &Addresses, failing: bool) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Known { addresses: Arc::clone(addresses), since: Instant::now(), failing };
        known.replace(next).is_some_and(|before| before.failing)
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending};

    use tokio::task::yield_now;

    use super::*;

    fn one(address: &str) -> std::vec::IntoIter<SocketAddr> {
        vec![address.parse().unwrap()].into_iter()
    }

    #[tokio::test(start_paused = true)]
    async fn f10_a_changed_address_is_followed_within_10_s_and_many_requests_ask_once() {
        let (resolver, asked, address) =
            (Resolver::new("a.example", 1, false), Cell::new(0), Cell::new("10.0.0.1:1"));
        let ask = || async {
            asked.set(asked.get() + 1);
            yield_now().await;
            Ok(one(address.get()))
        };
        let answers = futures_util::future::join_all((0..100).map(|_| resolver.answer(ask))).await;
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap()[0].ip().to_string() == "10.0.0.1"));
        assert_eq!(asked.get(), 1);
        address.set("10.0.0.2:1");
        let changed = Instant::now();
        while resolver.answer(ask).await.unwrap()[0].ip().to_string() != "10.0.0.2" {
            time::advance(Duration::from_millis(100)).await;
        }
        assert!(changed.elapsed() <= Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn while_there_is_no_answer_the_last_one_is_used() {
        let resolver = Resolver::new("a.example", 1, false);
        let refused = || async { Err::<std::vec::IntoIter<_>, _>(io::ErrorKind::NotFound.into()) };
        assert!(resolver.answer(refused).await.is_err());
        resolver.answer(|| async { Ok(one("10.0.0.1:1")) }).await.unwrap();
        for _ in 0..3 {
            time::advance(FRESH).await;
            assert_eq!(resolver.answer(refused).await.unwrap()[0].port(), 1);
        }
        let is_failing = || resolver.known.lock().unwrap().as_ref().unwrap().failing;
        assert!(is_failing(), "told the first time, and not again");
        time::advance(FRESH).await;
        let begun = Instant::now();
        let silent = || pending::<io::Result<std::vec::IntoIter<SocketAddr>>>();
        assert_eq!(resolver.answer(silent).await.unwrap()[0].port(), 1);
        assert!(begun.elapsed() <= PATIENCE + Duration::from_millis(10));
        time::advance(FRESH).await;
        resolver.answer(|| async { Ok(one("10.0.0.2:1")) }).await.unwrap();
        assert!(!is_failing());
    }

    #[tokio::test]
    async fn a_name_that_must_mean_this_machine_has_no_other_address() {
        let resolver = Resolver::new("localhost", 1, true);
        assert!(resolver.answer(|| async { Ok(one("10.0.0.1:1")) }).await.is_err());
        assert!(resolver.answer(|| async { Ok(one("127.0.0.1:1")) }).await.is_ok());
        assert_eq!(
            Resolver::new("::1", 7, true).addresses().await.unwrap()[..],
            one("[::1]:7").collect::<Vec<_>>()
        );
    }
}
