//! From addresses to a TCP connection: happy eyeballs (RFC 8305). Families alternate, and each address gets a head start on
//! the next, so that one that swallows packets costs a quarter of a second, not the whole `connect_timeout`.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time;

/// How long one address has before the next is tried beside it (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);

/// The first connection that comes about; the error of the last address when none does.
pub(super) async fn dial<S, F>(addresses: &[SocketAddr], connect: impl Fn(SocketAddr) -> F) -> io::Result<S>
where
    F: Future<Output = io::Result<S>>,
{
    let mut addresses = interleave(addresses).into_iter();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut attempts = FuturesUnordered::new();
    attempts.extend(addresses.next().map(&connect));
    loop {
        let more = addresses.len() > 0;
        tokio::select! {
            attempt = attempts.next() => match attempt {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => {
                    last = error;
                    attempts.extend(addresses.next().map(&connect));
                }
                None => return Err(last),
            },
            () = time::sleep(STAGGER), if more => attempts.extend(addresses.next().map(&connect)),
        }
    }
}

/// The resolver decides which family is first.
fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (same, other): (Vec<_>, Vec<_>) =
        addresses.iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut other = other.into_iter();
    let mut mixed = Vec::new();
    for address in same {
        mixed.push(address);
        mixed.extend(other.next());
    }
    mixed.extend(other);
    mixed
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;

    fn parse(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn address_families_alternate_and_the_resolver_decides_who_is_first() {
        let found = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1"]);
        assert_eq!(interleave(&found), parse(&["[::1]:1", "127.0.0.1:1", "[::2]:1", "[::3]:1"]));
    }

    /// Dials addresses of which each does what its port says: 1 is silent, 2 refuses at once, others answer after so many ms.
    async fn race(list: &[&str]) -> (io::Result<SocketAddr>, Vec<SocketAddr>, Duration) {
        let (tried, begun) = (RefCell::new(Vec::new()), Instant::now());
        let connect = |address: SocketAddr| {
            tried.borrow_mut().push(address);
            async move {
                match address.port() {
                    1 => std::future::pending().await,
                    2 => Err(io::ErrorKind::ConnectionRefused.into()),
                    after => {
                        time::sleep(Duration::from_millis(after.into())).await;
                        Ok(address)
                    }
                }
            }
        };
        let won = dial(&parse(list), connect).await;
        (won, tried.into_inner(), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn rfc_8305_a_silent_address_costs_a_quarter_of_a_second_and_one_that_refuses_nothing() {
        let (won, tried, took) = race(&["[::1]:1", "[::2]:1", "127.0.0.1:10"]).await;
        assert_eq!(won.unwrap(), parse(&["127.0.0.1:10"])[0]);
        assert_eq!(tried, parse(&["[::1]:1", "127.0.0.1:10"]));
        assert_eq!(took, Duration::from_millis(260));

        let (won, _, took) = race(&["[::1]:2", "[::2]:2", "127.0.0.1:2", "127.0.0.1:10"]).await;
        assert_eq!((won.unwrap(), took), (parse(&["127.0.0.1:10"])[0], Duration::from_millis(10)));
    }

    #[tokio::test(start_paused = true)]
    async fn rfc_8305_a_slow_address_may_still_win_and_a_fast_one_is_alone() {
        let (won, tried, took) = race(&["[::1]:400", "127.0.0.1:1"]).await;
        assert_eq!((won.unwrap(), took), (parse(&["[::1]:400"])[0], Duration::from_millis(400)));
        assert_eq!(tried.len(), 2);
        let (_, tried, _) = race(&["[::1]:10", "127.0.0.1:10"]).await;
        assert_eq!(tried.len(), 1);
        let (won, ..) = race(&["[::1]:2", "127.0.0.1:2"]).await;
        assert_eq!(won.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(race(&[]).await.0.is_err());
    }
}
