//! Callers that go away while nothing of theirs is read, and answers that break off for callers that only the end of the
//! connection could tell.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use attache::shutdown::Stage;
use tokio::time::Instant;

use crate::support::{Caller, FakeServer, PATIENCE, Reply, Sidecar, provider};

const IN_FLIGHT: &str = "attache_requests_in_flight{route=\"main\"}";

/// All that comes for an HTTP/1.0 request, and how it ends.
fn old_get(proxy: SocketAddr, target: &str) -> (String, Option<ErrorKind>) {
    let mut stream = TcpStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    (String::from_utf8(answer).unwrap(), ended.err().map(|error| error.kind()))
}

#[test]
fn f8_an_answer_that_breaks_off_ends_with_a_reset_where_only_the_end_tells_1000_of_1000() {
    let provider = provider();
    let upstream = FakeServer::start(|request| match request.line().contains("/whole") {
        true => Reply::raw("HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        false => Reply::raw("HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").close(),
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let looks_cut = (0..1000).filter(|number| {
        let (answer, ended) = old_get(sidecar.proxy, &format!("/cut/{number}"));
        // A head that came together with the end is told as what it is.
        ended == Some(ErrorKind::ConnectionReset) || answer.starts_with("HTTP/1.0 502 ")
    });
    assert_eq!(looks_cut.count(), 1000);
    for _ in 0..100 {
        let (answer, ended) = old_get(sidecar.proxy, "/whole");
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
        assert_eq!(ended, None, "a whole answer ends as it should");
    }
}

#[test]
fn an_answer_that_the_end_of_the_process_cuts_off_ends_with_a_reset_too() {
    let provider = provider();
    let upstream = FakeServer::start(|_| {
        Reply::raw("HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .then(|reader, _| drop(reader.read(&mut [0])))
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut stream = TcpStream::connect(sidecar.proxy).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    sidecar.trigger.advance(Stage::Now);
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_caller_that_resets_an_upload_that_the_upstream_does_not_read_ends_the_request() {
    let provider = provider();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, held) = mpsc::channel();
    // Accepts, and reads nothing.
    thread::spawn(move || {
        for stream in listener.incoming() {
            sender.send(stream.unwrap()).unwrap();
        }
    });
    let sidecar = Sidecar::to(&url, &provider, "response_timeout = \"0s\"");
    let mut caller = TcpStream::connect(sidecar.proxy).unwrap();
    caller.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    write!(caller, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1073741824\r\n\r\n").unwrap();
    // Until every buffer on the way is full.
    while caller.write_all(&[b'x'; 64 * 1024]).is_ok() {}
    let _upstream = held.recv().unwrap();
    assert!((sidecar.metric(IN_FLIGHT) - 1.0).abs() < f64::EPSILON);
    socket2::SockRef::from(&caller).set_linger(Some(Duration::ZERO)).unwrap();
    drop(caller);
    let begun = Instant::now();
    while sidecar.metric(IN_FLIGHT) > 0.5 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the request is still in flight");
        thread::yield_now();
    }
}

#[test]
fn a_caller_that_leaves_a_quiet_answer_frees_its_upstream() {
    let provider = provider();
    let (sender, freed) = mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let upstream = FakeServer::start(move |_| {
        let sender = sender.lock().unwrap().clone();
        Reply::raw("HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").then(
            move |reader, _| {
                // Says nothing more, and waits until nobody listens.
                let _ = reader.read(&mut [0]);
                sender.send(()).unwrap();
            },
        )
    });
    let sidecar = Sidecar::to(&upstream.url(), &provider, "");
    let mut caller = Caller::connect(sidecar.proxy);
    caller.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    caller.head();
    assert_eq!(caller.chunk().as_deref(), Some(&b"hello"[..]));
    drop(caller);
    freed.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_caller_that_reads_only_when_it_has_sent_everything_gets_its_answer() {
    const SIZE: usize = 12 * 1024 * 1024;
    let provider = provider();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // Reads and writes at the same time.
    let upstream = thread::spawn(move || {
        let mut reading = listener.accept().unwrap().0;
        let mut writing = reading.try_clone().unwrap();
        let answering = thread::spawn(move || {
            write!(writing, "HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").unwrap();
            writing.write_all(&vec![b'a'; SIZE]).unwrap();
        });
        let mut received = 0;
        let mut piece = vec![0; 64 * 1024];
        while received < SIZE {
            received += reading.read(&mut piece).unwrap();
        }
        answering.join().unwrap();
    });
    let sidecar = Sidecar::to(&url, &provider, "");
    let mut caller = TcpStream::connect(sidecar.proxy).unwrap();
    caller.set_write_timeout(Some(PATIENCE)).unwrap();
    caller.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        caller,
        "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {SIZE}\r\n\r\n"
    )
    .unwrap();
    caller.write_all(&vec![b'u'; SIZE]).unwrap();
    let mut answer = Vec::new();
    caller.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.len() > SIZE, "{} bytes", answer.len());
    upstream.join().unwrap();
}
