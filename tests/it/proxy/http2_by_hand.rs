//! Upstreams that speak HTTP/2 by hand: what no library would say, and connections that end without a word.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use http::HeaderValue;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::{
    Authority, FakeServer, Files, Http2Caller, Sidecar, block, credential,
    either::ask,
    frame, get, http2_request, post, provider, server_config, until,
    websocket::{Chat, Http},
};

const H2C: &str = "protocol = \"h2c\"";

/// A frame as it came.
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// Whether it is the head of a request.
    fn is_head(&self) -> bool {
        self.kind == 1
    }

    /// Whether it is the end of a request.
    fn is_end(&self) -> bool {
        matches!(self.kind, 0 | 1) && self.flags & 1 == 1
    }

    /// Whether it holds these bytes.
    fn says(&self, bytes: &[u8]) -> bool {
        self.payload.windows(bytes.len()).any(|window| window == bytes)
    }
}

/// Opens a connection with these settings.
fn open(stream: &mut (impl Read + Write), settings: &[u8]) {
    stream.write_all(&[frame(4, 0, 0, settings), frame(4, 1, 0, b"")].concat()).unwrap();
    stream.read_exact(&mut [0; 24]).unwrap();
}

/// The next frame, until the connection ends.
fn next(stream: &mut impl Read) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let [a, b, c, kind, flags, id @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).ok()?;
    Some(Frame { kind, flags, stream: u32::from_be_bytes(id), payload })
}

/// Reads up to a frame.
fn read_to(stream: &mut impl Read, is_it: impl Fn(&Frame) -> bool) {
    while !is_it(&next(stream).expect("it comes")) {}
}

/// The answer to a stream: 200, without a body.
fn answer(stream: u32) -> Vec<u8> {
    frame(1, 5, stream, &[0x88])
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// A sidecar whose requests have everything in common.
fn with_one_worker(url: &str, provider: &FakeServer, lines: &str) -> Sidecar {
    let route = format!("[routes.main]\nupstream = \"{url}\"\ncredential = \"main\"\n{H2C}\n{lines}\n");
    Sidecar::with_workers("1", &format!("{}{route}", credential(provider)))
}

/// How many requests wait for a connection to an upstream.
fn waiting(sidecar: &Sidecar, url: &str) -> f64 {
    let upstream = url.trim_start_matches("http://");
    sidecar.metric(&format!("attache_upstream_requests_waiting{{upstream=\"{upstream}\"}}"))
}

/// An upstream that goes away without having looked at what is on its way (RFC 9113 §6.8).
#[test]
fn what_came_behind_the_last_stream_of_a_goaway_is_sent_elsewhere() {
    let (provider, (listener, url)) = (provider(), listen());
    let upstream = thread::spawn(move || {
        for answer in [frame(7, 0, 0, &[0; 8]), answer(1)] {
            let mut stream = listener.accept().unwrap().0;
            open(&mut stream, b"");
            read_to(&mut stream, Frame::is_end);
            stream.write_all(&answer).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let sidecar = Sidecar::to(&url, &provider, H2C);
    assert_eq!(post(sidecar.proxy, "/", b"hello").status, 200);
    drop(sidecar);
    upstream.join().unwrap();
}

/// Answers one stream at a time on each connection, those that are to meet when there are two, and ends one of the first two
/// connections when it is asked to, which is counted.
fn serve(mut stream: TcpStream, two: &Barrier, ends: bool, asked: &AtomicUsize) {
    let one_at_a_time = [0, 3, 0, 0, 0, 1];
    open(&mut stream, &one_at_a_time);
    while let Some(came) = next(&mut stream) {
        if !came.is_head() {
            continue;
        }
        if came.says(b"leave-me") {
            asked.fetch_add(1, Ordering::AcqRel);
            if ends {
                return;
            }
        }
        if came.says(b"meet-me") {
            two.wait();
        }
        stream.write_all(&answer(came.stream)).unwrap();
    }
}

#[test]
fn f9_of_kept_connections_that_end_together_a_request_meets_one_over_http_2() {
    for (method, status, opened, sent) in [("GET", 200, 3, 2), ("DELETE", 200, 3, 2), ("POST", 502, 2, 1)] {
        let (provider, (listener, url)) = (provider(), listen());
        let (connections, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, leaving) = (Arc::clone(&connections), Arc::clone(&asked));
        thread::spawn(move || {
            let two = Arc::new(Barrier::new(2));
            for stream in listener.incoming() {
                let (stream, two, leaving) = (stream.unwrap(), Arc::clone(&two), Arc::clone(&leaving));
                let ends = counted.fetch_add(1, Ordering::AcqRel) < 2;
                thread::spawn(move || serve(stream, &two, ends, &leaving));
            }
        });
        let sidecar = with_one_worker(&url, &provider, "");
        let mut caller = Http2Caller::connect(sidecar.proxy);
        let asking = |method, field| {
            let mut request = http2_request(method, "/");
            request.headers_mut().insert(field, HeaderValue::from_static("now"));
            request
        };
        let both = [(); 2].map(|()| caller.begin(asking("GET", "meet-me"), None));
        for exchange in both {
            assert_eq!(caller.rest(exchange).status, 200);
        }
        assert_eq!(caller.ask(asking(method, "leave-me"), None).status, status, "{method}");
        assert_eq!(connections.load(Ordering::Acquire), opened, "{method}");
        assert_eq!(asked.load(Ordering::Acquire), sent, "{method}");
    }
}

#[test]
fn where_there_may_be_one_connection_a_kept_one_that_ends_makes_room_for_the_next() {
    let (provider, (listener, url)) = (provider(), listen());
    thread::spawn(move || {
        for (nth, stream) in listener.incoming().enumerate() {
            let (two, asked) = (Barrier::new(1), AtomicUsize::new(0));
            thread::spawn(move || serve(stream.unwrap(), &two, nth == 0, &asked));
        }
    });
    // Nobody may wait for one.
    let route = format!("{H2C}\nmax_connections = 1\nmax_waiting = 0");
    let sidecar = Sidecar::to(&url, &provider, &route);
    let mut caller = Http2Caller::connect(sidecar.proxy);
    assert_eq!(caller.ask(http2_request("GET", "/"), None).status, 200);
    let mut request = http2_request("GET", "/");
    request.headers_mut().insert("leave-me", HeaderValue::from_static("now"));
    assert_eq!(caller.ask(request, None).status, 200);
}

#[test]
fn requests_whose_connection_ends_under_them_share_the_next_one_where_there_may_be_one() {
    two_meet_an_end("wait_timeout = \"2s\"");
}

#[test]
fn a_connection_that_has_ended_makes_room_although_requests_have_not_been_told_yet() {
    two_meet_an_end("max_waiting = 0");
}

fn two_meet_an_end(waiting: &str) {
    let (provider, (listener, url)) = (provider(), listen());
    thread::spawn(move || {
        let mut kept = listener.accept().unwrap().0;
        open(&mut kept, b"");
        read_to(&mut kept, Frame::is_head);
        kept.write_all(&answer(1)).unwrap();
        (0..2).for_each(|_| read_to(&mut kept, Frame::is_head));
        drop(kept);
        let mut next_one = listener.accept().unwrap().0;
        open(&mut next_one, b"");
        // None is answered before both are there.
        (0..2).for_each(|_| read_to(&mut next_one, Frame::is_head));
        next_one.write_all(&[answer(1), answer(3)].concat()).unwrap();
        let _ = next_one.read_to_end(&mut Vec::new());
    });
    let sidecar = with_one_worker(&url, &provider, &format!("max_connections = 1\n{waiting}"));
    let mut caller = Http2Caller::connect(sidecar.proxy);
    assert_eq!(caller.get("/").status, 200);
    let both = [(); 2].map(|()| caller.begin(http2_request("GET", "/"), None));
    assert_eq!(both.map(|exchange| caller.rest(exchange).status), [200, 200]);
    let opened = "attache_upstream_connections_total{outcome=\"opened\",route=\"main\"}";
    assert!((sidecar.metric(opened) - 2.0).abs() < 0.5);
}

#[test]
fn a_connection_that_has_ended_makes_room_although_its_last_answer_is_read_slowly() {
    let (provider, (listener, url)) = (provider(), listen());
    let length = 8 * 16_384;
    thread::spawn(move || {
        let mut ended = listener.accept().unwrap().0;
        open(&mut ended, b"");
        read_to(&mut ended, Frame::is_head);
        let (head, data) = (frame(1, 4, 1, &[0x88]), frame(0, 0, 1, &[b'x'; 16_384]).repeat(8));
        ended.write_all(&[head, data, frame(0, 1, 1, b"")].concat()).unwrap();
        ended.shutdown(Shutdown::Write).unwrap();
        // Its socket is closed, and nothing of what it said is lost.
        let _ = ended.read_to_end(&mut Vec::new());
        let mut next_one = listener.accept().unwrap().0;
        open(&mut next_one, b"");
        read_to(&mut next_one, Frame::is_head);
        next_one.write_all(&answer(1)).unwrap();
        let _ = next_one.read_to_end(&mut Vec::new());
    });
    let sidecar = with_one_worker(&url, &provider, "max_connections = 1\nmax_waiting = 0");
    let mut slow = Http2Caller::connect(sidecar.proxy);
    let exchange = slow.begin(http2_request("GET", "/"), None);
    let (head, _request) = slow.head(exchange);
    assert_eq!(Http2Caller::connect(sidecar.proxy).get("/").status, 200);
    let mut body = head.into_body();
    let read = slow.block_on(async {
        let mut read = 0;
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            read += data.len();
        }
        read
    });
    assert_eq!(read, length);
}

#[test]
fn who_opens_a_connection_after_its_turn_in_the_queue_is_served_before_those_behind_it() {
    const NUMBERS: [&str; 3] = ["number-1", "number-2", "number-3"];
    let (provider, (listener, url)) = (provider(), listen());
    let (leave, left) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let one_at_a_time = [0, 3, 0, 0, 0, 1];
        let mut kept = listener.accept().unwrap().0;
        open(&mut kept, &one_at_a_time);
        read_to(&mut kept, Frame::is_head);
        tell.send("the first").unwrap();
        left.recv().unwrap();
        drop(kept);
        let mut next_one = listener.accept().unwrap().0;
        open(&mut next_one, &one_at_a_time);
        while let Some(came) = next(&mut next_one) {
            if let Some(number) = NUMBERS.into_iter().find(|number| came.says(number.as_bytes())) {
                tell.send(number).unwrap();
                next_one.write_all(&answer(came.stream)).unwrap();
            }
        }
    });
    let sidecar = with_one_worker(&url, &provider, "max_connections = 1\nmax_waiting = 3");
    let mut caller = Http2Caller::connect(sidecar.proxy);
    let first = caller.begin(http2_request("POST", "/"), None);
    assert_eq!(told.recv().unwrap(), "the first");
    let queue: Vec<_> = (1..)
        .zip(NUMBERS)
        .map(|(count, number)| {
            let mut request = http2_request("GET", "/");
            request.headers_mut().insert(number, HeaderValue::from_static("now"));
            let exchange = caller.begin(request, None);
            until(|| waiting(&sidecar, &url) > f64::from(count) - 0.5);
            exchange
        })
        .collect();
    leave.send(()).unwrap();
    assert_eq!(caller.rest(first).status, 502);
    for exchange in queue {
        assert_eq!(caller.rest(exchange).status, 200);
    }
    assert_eq!(told.iter().take(3).collect::<Vec<_>>(), NUMBERS);
}

#[test]
fn an_attempt_that_fails_counts_once_however_many_waited_for_it() {
    let (provider, (listener, url)) = (provider(), listen());
    let (leave, left) = mpsc::channel::<()>();
    thread::spawn(move || {
        let silent = listener.accept().unwrap().0;
        left.recv().unwrap();
        drop((silent, listener));
    });
    let sidecar = with_one_worker(&url, &provider, "");
    // Or they would wait for the token, and not for one attempt.
    sidecar.ready();
    let mut caller = Http2Caller::connect(sidecar.proxy);
    let exchanges: Vec<_> = (0..5).map(|_| caller.begin(http2_request("GET", "/"), None)).collect();
    until(|| sidecar.in_flight() > 4.5);
    leave.send(()).unwrap();
    for exchange in exchanges {
        assert_eq!(caller.rest(exchange).status, 502);
    }
    let failed = "attache_upstream_connections_total{outcome=\"failed\",route=\"main\"}";
    assert!((sidecar.metric(failed) - 1.0).abs() < 0.5, "{}", sidecar.metric(failed));
}

#[test]
fn an_attempt_that_failed_with_nobody_left_to_wait_for_it_is_over() {
    let (provider, (listener, url)) = (provider(), listen());
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        // It says nothing.
        let mut silent = listener.accept().unwrap().0;
        tell.send(()).unwrap();
        let _ = silent.read_to_end(&mut Vec::new());
        tell.send(()).unwrap();
        let mut stream = listener.accept().unwrap().0;
        open(&mut stream, b"");
        read_to(&mut stream, Frame::is_head);
        stream.write_all(&answer(1)).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let sidecar = with_one_worker(&url, &provider, "connect_timeout = \"300ms\"");
    let mut caller = Http2Caller::connect(sidecar.proxy);
    let given_up = caller.begin(http2_request("GET", "/"), None);
    told.recv().unwrap();
    drop(given_up);
    until(|| sidecar.in_flight() < 0.5);
    told.recv().unwrap();
    assert_eq!(caller.get("/").status, 200);
}

#[test]
fn a_connection_that_was_at_rest_is_a_kept_one_also_when_nothing_was_sent_on_it() {
    let (provider, (listener, url)) = (provider(), listen());
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::AcqRel);
            let mut stream = stream.unwrap();
            open(&mut stream, b"");
            // It ends with the first request.
            read_to(&mut stream, Frame::is_head);
        }
    });
    let sidecar = with_one_worker(&url, &provider, "");
    // A place for a tunnel, of which the upstream takes none.
    let asked = Chat::ask(Http::Two, sidecar.proxy, "/", &[]);
    assert_eq!(asked.reason.as_deref(), Some("upgrade_failed"));
    let answer = get(sidecar.proxy, "/");
    assert_eq!((answer.status, answer.reason().as_deref()), (502, Some("upstream_closed")));
    // Once more on a new one, which is nobody's fault but the upstream's.
    assert_eq!(connections.load(Ordering::Acquire), 2);
    let opened = "attache_upstream_connections_total{outcome=\"opened\",route=\"main\"}";
    assert!((sidecar.metric(opened) - 2.0).abs() < 0.5);
}

#[test]
fn a_connection_that_nobody_was_left_to_take_is_a_kept_one() {
    let (provider, (listener, url)) = (provider(), listen());
    let ((tell, told), (speak, speaks)) = (mpsc::channel(), mpsc::channel::<()>());
    thread::spawn(move || {
        let mut kept = listener.accept().unwrap().0;
        tell.send(()).unwrap();
        speaks.recv().unwrap();
        open(&mut kept, b"");
        // Its settings have come, and there it is.
        read_to(&mut kept, |frame| frame.kind == 4 && frame.flags == 1);
        tell.send(()).unwrap();
        read_to(&mut kept, Frame::is_head);
        drop(kept);
        let mut next_one = listener.accept().unwrap().0;
        open(&mut next_one, b"");
        read_to(&mut next_one, Frame::is_head);
        next_one.write_all(&answer(1)).unwrap();
        let _ = next_one.read_to_end(&mut Vec::new());
    });
    let sidecar = with_one_worker(&url, &provider, "");
    let mut caller = Http2Caller::connect(sidecar.proxy);
    let given_up = caller.begin(http2_request("GET", "/"), None);
    told.recv().unwrap();
    drop(given_up);
    until(|| sidecar.in_flight() < 0.5);
    speak.send(()).unwrap();
    told.recv().unwrap();
    assert_eq!(caller.get("/").status, 200);
}

#[test]
fn an_upstream_that_turns_from_http_1_alone_to_http_2_alone_is_served_at_once() {
    let (authority, files, provider) = (Authority::new("an authority"), Files::new(), provider());
    let (listener, url) = listen();
    let speaking = |protocol: &[u8]| {
        let mut config = server_config(&authority, "localhost", None);
        Arc::make_mut(&mut config).alpn_protocols = vec![protocol.to_vec()];
        config
    };
    let (before, after) = (speaking(b"http/1.1"), speaking(b"h2"));
    thread::spawn(move || {
        let accept = |config: &Arc<ServerConfig>| {
            let (mut tls, mut tcp) =
                (ServerConnection::new(Arc::clone(config)).unwrap(), listener.accept().unwrap().0);
            let agreed = tls.complete_io(&mut tcp).is_ok();
            agreed.then(|| StreamOwned::new(tls, tcp))
        };
        let mut stream = accept(&before).unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
        drop(stream);
        assert!(accept(&after).is_none(), "it offers what it was seen to speak");
        let mut stream = accept(&after).unwrap();
        open(&mut stream, b"");
        read_to(&mut stream, Frame::is_head);
        stream.write_all(&answer(1)).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let route = format!(
        "[routes.main]\nupstream = \"{}\"\ncredential = \"main\"\ntls.ca_file = \"{}\"\n",
        url.replace("http://127.0.0.1", "https://localhost"),
        files.write("ca.pem", &authority.pem).display()
    );
    let sidecar = Sidecar::with_workers("1", &format!("{}{route}", credential(&provider)));
    for _ in 0..2 {
        assert_eq!(get(sidecar.proxy, "/").status, 200);
    }
}

#[test]
fn an_answer_that_is_not_http_2_is_a_502_and_its_connection_is_not_used_again() {
    let answers: &[(&str, Vec<u8>)] = &[
        ("HTTP/1.1", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("a connection field", frame(1, 5, 1, &block(&[(":status", "200"), ("connection", "close")]))),
        (
            "a transfer coding",
            frame(1, 5, 1, &block(&[(":status", "200"), ("transfer-encoding", "chunked")])),
        ),
        ("no status", frame(1, 5, 1, &block(&[("x-a", "b")]))),
        ("101", frame(1, 5, 1, &block(&[(":status", "101")]))),
        (
            "no status behind an interim answer",
            [frame(1, 4, 1, &block(&[(":status", "103")])), frame(1, 5, 1, &block(&[("x-a", "b")]))].concat(),
        ),
        (
            "two lengths",
            frame(1, 4, 1, &block(&[(":status", "200"), ("content-length", "1"), ("content-length", "2")])),
        ),
        ("data before a head", frame(0, 1, 1, b"abc")),
        ("interim answers without end", frame(1, 4, 1, &block(&[(":status", "103")])).repeat(1_000)),
    ];
    for ((name, bytes), from) in answers.iter().flat_map(|row| [(row, Http::One), (row, Http::Two)]) {
        let provider = provider();
        let (listener, url) = listen();
        let bytes = bytes.clone();
        let upstream = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            open(&mut stream, b"");
            read_to(&mut stream, Frame::is_head);
            let _ = stream.write_all(&bytes);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let sidecar = Sidecar::to(&url, &provider, H2C);
        let answer = ask(from, sidecar.proxy, "GET", "/", None);
        assert_eq!((answer.status, answer.reason.as_deref()), (502, Some("upstream_invalid")), "{name}");
        drop(sidecar);
        upstream.join().unwrap();
    }
}
