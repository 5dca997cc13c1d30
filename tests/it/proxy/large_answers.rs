//! Answers so large that the kernel moves them (`src/proxy/http1/pouring.rs`): they come as others do, and break off as others do.

use std::{fs, io::Write as _, net::Shutdown, time::Duration};

use crate::support::{Caller, FakeServer, Reply, Sidecar, credential, get, provider, until};

const MIB: usize = 1 << 20;

/// Bytes that are not where they belong are others.
fn body(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8 ^ (at / 65_536) as u8).collect()
}

/// The head for `said` bytes, and `size` of them.
fn answer(said: usize, size: usize) -> Reply {
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {said}\r\n\r\n").into_bytes();
    bytes.extend(body(size));
    Reply::raw(bytes)
}

/// An upstream that answers with as many bytes as the path says.
fn upstream() -> FakeServer {
    FakeServer::start(|request| {
        let size = request.line().split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        answer(size, size)
    })
}

fn ask(caller: &mut Caller, size: usize) {
    caller.send(format!("GET /{size} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
}

/// Ends of pipes of this process: every test has one of its own.
fn pipes() -> usize {
    let files = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = files.filter_map(|file| fs::read_link(file.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("pipe:")).count()
}

#[test]
fn large_answers_come_whole_and_their_connection_is_kept() {
    let (provider, upstream) = (provider(), upstream());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let before = pipes();
    let mut caller = Caller::connect(sidecar.proxy);
    let mut most = 0;
    for size in [
        57_343, 57_344, 58_300, 58_368, 65_400, 65_536, 131_072, 140_000, MIB, 10, 5_000_001, 300_000, 0,
        65_536, 262_144,
    ] {
        ask(&mut caller, size);
        let answer = caller.answer();
        assert!(answer.complete && answer.body == body(size), "{size}");
        most = most.max(pipes() - before);
    }
    assert_eq!(upstream.connections(), 1);
    assert_eq!(most, 2, "one pipe is enough, and is kept for a while");
    until(|| pipes() == before);
}

#[test]
fn an_answer_of_64_kib_is_moved_and_one_of_32_is_copied() {
    let (provider, upstream) = (provider(), upstream());
    let before = pipes();
    for (size, ends) in [(32_768, 0), (65_536, 2)] {
        let sidecar = Sidecar::to(&upstream.url(), &provider, "");
        // The second one finds a connection on which one has passed.
        for _ in 0..2 {
            assert!(get(sidecar.proxy, &format!("/{size}")).body == body(size));
            assert_eq!(pipes() - before, ends, "{size}");
        }
    }
}

#[test]
fn a_large_answer_that_breaks_off_looks_truncated_and_has_all_that_came() {
    let provider = provider();
    let upstream = FakeServer::start(|_| answer(MIB, MIB - 1).close());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    for _ in 0..20 {
        let answer = get(sidecar.proxy, "/");
        assert_eq!((answer.status, answer.complete), (200, false));
        assert!(answer.body == body(MIB - 1));
    }
    assert_eq!(upstream.received().len(), 20, "nothing is sent again once an answer has begun");
}

#[test]
fn what_comes_behind_a_large_answer_reaches_nobody() {
    let provider = provider();
    let upstream = FakeServer::start(|request| match request.number {
        1 => answer(MIB, MIB + 100),
        _ => Reply::text(200, "fine"),
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Caller::connect(sidecar.proxy);
    ask(&mut caller, 1);
    assert!(caller.answer().body == body(MIB));
    ask(&mut caller, 1);
    assert_eq!(caller.answer().text(), "fine");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_caller_that_takes_nothing_of_a_large_answer_holds_up_nobody_and_gets_it_whole() {
    let (provider, upstream) = (provider(), upstream());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let before = pipes();
    let mut slow = [(); 3].map(|()| Caller::connect(sidecar.proxy));
    for caller in &mut slow {
        ask(caller, 32 * MIB);
    }
    // Each holds a pipe that is not empty.
    until(|| pipes() - before == 6);
    let mut other = Caller::connect(sidecar.proxy);
    for _ in 0..10 {
        ask(&mut other, MIB);
        assert!(other.answer().body == body(MIB));
    }
    for caller in &mut slow {
        let answer = caller.answer();
        assert!(answer.complete && answer.body == body(32 * MIB));
    }
}

#[test]
fn a_caller_that_leaves_in_a_large_answer_leaves_nothing_to_others() {
    let (provider, upstream) = (provider(), upstream());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let before = pipes();
    for resets in [false, true] {
        let mut caller = Caller::connect(sidecar.proxy);
        ask(&mut caller, 32 * MIB);
        caller.head();
        until(|| pipes() > before);
        if resets {
            caller.reset();
        } else {
            drop(caller);
        }
        until(|| sidecar.in_flight() < 0.5);
        let answer = get(sidecar.proxy, &format!("/{MIB}"));
        assert!(answer.complete && answer.body == body(MIB));
    }
}

#[test]
fn callers_that_take_nothing_share_a_few_pipes_and_the_answers_of_others_are_copied() {
    let (provider, upstream) = (provider(), upstream());
    let route = format!("[routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n", upstream.url());
    let sidecar = Sidecar::with_workers("1", &format!("{}{route}", credential(&provider)));
    let before = pipes();
    let mut slow: Vec<_> = (0..10).map(|_| Caller::connect(sidecar.proxy)).collect();
    for caller in &mut slow {
        ask(caller, 12 * MIB);
    }
    until(|| pipes() - before == 16);
    for caller in &mut slow {
        let answer = caller.answer();
        assert!(answer.complete && answer.body == body(12 * MIB));
    }
}

#[test]
fn a_large_answer_that_is_reset_is_not_whole() {
    let provider = provider();
    let upstream = FakeServer::start(|_| {
        Reply::raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {MIB}\r\n\r\n")).then(|_, stream| {
            stream.write_all(&body(MIB / 2)).unwrap();
            socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).unwrap();
            stream.shutdown(Shutdown::Both).unwrap();
        })
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    for _ in 0..5 {
        let answer = get(sidecar.proxy, "/");
        assert!(answer.status == 200 && !answer.complete && body(MIB).starts_with(&answer.body));
    }
}

#[test]
fn requests_behind_a_large_answer_are_answered_after_it() {
    let (provider, upstream) = (provider(), upstream());
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Caller::connect(sidecar.proxy);
    let sizes = [MIB, 10, 200_000, 2 * MIB, 0];
    for size in sizes {
        ask(&mut caller, size);
    }
    for size in sizes {
        assert!(caller.answer().body == body(size), "{size}");
    }
}

#[test]
fn who_takes_nothing_of_a_large_answer_for_idle_timeout_loses_the_connection() {
    let (provider, upstream) = (provider(), upstream());
    let route = format!("[routes.main]\nupstream = \"{}\"\ncredential = \"main\"\n", upstream.url());
    let sidecar =
        Sidecar::run(&format!("[proxy]\nidle_timeout = \"600ms\"\n{}{route}", credential(&provider)));
    let before = pipes();
    let mut caller = Caller::connect(sidecar.proxy);
    ask(&mut caller, 32 * MIB);
    until(|| pipes() > before);
    until(|| sidecar.in_flight() < 0.5);
    assert!(!caller.answer().complete);
}

#[test]
fn with_few_files_large_answers_are_copied() {
    let (provider, upstream) = (provider(), upstream());
    let few = rustix::process::Rlimit { current: Some(200), maximum: Some(200) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let before = pipes();
    let answer = get(sidecar.proxy, &format!("/{}", 4 * MIB));
    assert!(answer.complete && answer.body == body(4 * MIB));
    assert_eq!(pipes(), before);
}
