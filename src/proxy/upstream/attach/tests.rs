//! Frames of the library, cut in many ways, read by its server.

use bytes::Bytes;
use h2::{client, server};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header::AUTHORIZATION};

use super::{super::fields::Fields, *};

/// Where a request goes, what is injected into it, and how long its body is.
type Asked = (String, Option<(HeaderName, HeaderValue)>, usize);

fn fields<'a>(headers: &'a HeaderMap, credential: Option<&'a (HeaderName, HeaderValue)>) -> Fields<'a> {
    let injected = credential.map_or(&AUTHORIZATION, |(name, _)| name);
    Fields { headers, length: None, injected, credential: credential.map(|(_, value)| value) }
}

fn token(value: HeaderValue) -> (HeaderName, HeaderValue) {
    (AUTHORIZATION, value)
}

/// What a server gets of requests, over a pipe that takes so much at once.
async fn heads(room: usize, requests: Vec<Asked>) -> Vec<(String, HeaderMap)> {
    let (ours, theirs) = tokio::io::duplex(room);
    let server = tokio::spawn(async move {
        let mut connection: server::Connection<_, Bytes> =
            server::Builder::new().max_header_list_size(1 << 20).handshake(theirs).await.unwrap();
        let mut seen = Vec::new();
        while let Some(request) = connection.accept().await {
            let (request, mut respond) = request.unwrap();
            let (head, mut body) = request.into_parts();
            tokio::spawn(async move {
                let mut len = 0;
                while let Some(piece) = body.data().await {
                    let piece = piece.unwrap();
                    body.flow_control().release_capacity(piece.len()).unwrap();
                    len += piece.len();
                }
                let trailers = body.trailers().await.unwrap();
                let told =
                    trailers.as_ref().and_then(|trailers| trailers["length"].to_str().unwrap().parse().ok());
                assert_eq!(told.unwrap_or(0), len);
                assert!(trailers.is_none_or(|trailers| trailers.len() == 1));
                respond.send_response(Response::new(()), true).unwrap();
            });
            seen.push((head.uri.path().to_owned(), head.headers));
        }
        seen
    });
    let waiting = Rc::new(Heads::default());
    let (mut sender, connection) =
        client::handshake(Attaching::new(ours, Rc::clone(&waiting))).await.unwrap();
    let callers =
        HeaderMap::from_iter([(HeaderName::from_static("x-of-the-caller"), HeaderValue::from_static("one"))]);
    tokio::task::LocalSet::new()
        .run_until(async move {
            tokio::task::spawn_local(async move { connection.await.unwrap() });
            let mut answers = Vec::new();
            for (path, credential, len) in requests {
                let mut request = Request::new(());
                *request.uri_mut() = format!("http://localhost{path}").parse().unwrap();
                sender = sender.ready().await.unwrap();
                let (answer, mut stream) = sender.send_request(request, len == 0).unwrap();
                waiting.add(stream.stream_id().as_u32(), &fields(&callers, credential.as_ref()));
                if len > 0 {
                    stream.send_data(vec![b'x'; len].into(), false).unwrap();
                    let trailers = HeaderMap::from_iter([(HeaderName::from_static("length"), len.into())]);
                    stream.send_trailers(trailers).unwrap();
                }
                answers.push(answer);
            }
            for answer in answers {
                assert_eq!(answer.await.unwrap().status(), 200);
            }
            assert_eq!(waiting.waiting(), 0);
        })
        .await;
    server.await.unwrap()
}

#[tokio::test]
async fn every_head_has_its_own_credential_however_little_is_taken_at_once() {
    let token = |letter: &str, len| Some(token(HeaderValue::from_str(&letter.repeat(len)).unwrap()));
    let own = (HeaderName::from_static("x-api-key"), HeaderValue::from_static("b"));
    let path = |len| format!("/{}", "p".repeat(len));
    let wanted: Vec<Asked> = vec![
        (path(3), token("a", 900), 0),
        (path(0), None, 0),
        (path(1), Some(own), 70_000),
        // More than one frame holds, more than two do, and as much as just fits or just does not.
        (path(2), token("c", 16_384), 10),
        (path(3), token("d", 40_000), 5_000),
        (path(3), token("e", 16_300), 0),
        (path(3), token("f", 126), 0),
        (path(3), token("g", 127), 0),
        (path(3), token("h", 128), 0),
        // What the library writes itself is long, fills a frame, and needs more than one.
        (path(8_000), token("i", 900), 10),
        (path(25_000), token("j", 900), 0),
        (path(40_000), token("k", 900), 70_000),
    ];
    for room in [1, 10, 1000, 1 << 20] {
        let seen = heads(room, wanted.clone()).await;
        assert_eq!(seen.len(), wanted.len());
        for ((found, headers), (path, credential, _)) in seen.iter().zip(&wanted) {
            assert_eq!(found, path);
            assert_eq!(headers["x-of-the-caller"], "one");
            assert_eq!(headers.len(), 1 + usize::from(credential.is_some()), "{headers:?}");
            if let Some((name, value)) = credential {
                assert_eq!(headers[name], value);
            }
        }
    }
}

#[tokio::test]
async fn a_head_of_any_length_can_have_one() {
    // Each of these lengths puts the end of the frame elsewhere. Of the path, eight letters become five bytes.
    for len in (16_300..16_400).step_by(7) {
        let value = HeaderValue::from_str(&"x".repeat(len)).unwrap();
        let path = format!("/{}", "e".repeat((len - 3) * 8 / 5));
        let asked = vec![
            ("/path".into(), Some(token(value.clone())), 0),
            (path.clone(), Some(token(value.clone())), 0),
        ];
        let seen = heads(1 << 20, asked).await;
        assert_eq!(seen[0].1[AUTHORIZATION], value);
        assert_eq!((&seen[1].0, &seen[1].1[AUTHORIZATION]), (&path, &value));
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_takes_nothing_from_those_behind_it() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let server = tokio::spawn(async move {
        let mut connection: server::Connection<_, Bytes> =
            server::Builder::new().max_concurrent_streams(1).handshake(theirs).await.unwrap();
        let mut seen = Vec::new();
        while let Some(request) = connection.accept().await {
            let (request, mut respond) = request.unwrap();
            seen.push((request.uri().path().to_owned(), request.headers()["n"].to_str().unwrap().to_owned()));
            // One that was given up may be reset by now.
            let _ = respond.send_response(Response::new(()), true);
        }
        seen
    });
    let waiting = Rc::new(Heads::default());
    let (mut sender, connection) = client::Builder::new()
        .initial_max_send_streams(1)
        .handshake::<_, Bytes>(Attaching::new(ours, Rc::clone(&waiting)))
        .await
        .unwrap();
    tokio::task::LocalSet::new()
        .run_until(async move {
            tokio::task::spawn_local(async move { connection.await.unwrap() });
            let mut answers = Vec::new();
            for number in 0..20 {
                let mut request = Request::new(());
                *request.uri_mut() = format!("http://localhost/{number}").parse().unwrap();
                // Beyond what the server allows: they wait in the library.
                let (answer, stream) = sender.send_request(request, true).unwrap();
                let headers =
                    HeaderMap::from_iter([(HeaderName::from_static("n"), HeaderValue::from(number))]);
                waiting.add(stream.stream_id().as_u32(), &fields(&headers, None));
                if number % 3 == 0 {
                    answers.push(answer);
                }
                sender = sender.clone();
            }
            for answer in answers {
                assert_eq!(answer.await.unwrap().status(), 200);
            }
            assert_eq!(waiting.waiting(), 0);
        })
        .await;
    let seen = server.await.unwrap();
    assert!(seen.len() >= 7 && seen.iter().all(|(path, number)| *path == format!("/{number}")), "{seen:?}");
}

#[tokio::test]
async fn a_head_without_fields_is_not_sent() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let server = tokio::spawn(async move {
        let mut connection: server::Connection<_, Bytes> = server::handshake(theirs).await.unwrap();
        connection.accept().await.is_none_or(|request| request.is_err())
    });
    let (sender, connection) = client::handshake(Attaching::new(ours, Rc::default())).await.unwrap();
    let asking = async {
        let mut sender = sender.ready().await.unwrap();
        sender.send_request(Request::new(()), true).unwrap().0.await
    };
    let (ended, answer) = tokio::join!(connection, asking);
    assert!(ended.is_err() && answer.is_err());
    assert!(server.await.unwrap());
}

#[tokio::test]
async fn more_than_is_taken_at_once_arrives_whole() {
    let long = |number: usize| HeaderValue::from_str(&format!("{number}").repeat(8_000)).unwrap();
    let asked: Vec<Asked> =
        (10..60).map(|number| (format!("/{number}"), Some(token(long(number))), number % 3 * 100)).collect();
    let seen = heads(10_000, asked).await;
    assert_eq!(seen.len(), 50);
    for (number, (path, headers)) in (10..).zip(&seen) {
        assert_eq!((path, &headers[AUTHORIZATION]), (&format!("/{number}"), &long(number)));
    }
}

#[test]
fn nothing_of_what_waits_is_shown() {
    let heads = Rc::new(Heads::default());
    let mut attaching = Attaching::new((), Rc::clone(&heads));
    heads.add(1, &fields(&HeaderMap::new(), Some(&token(HeaderValue::from_static("secret")))));
    assert_eq!(format!("{heads:?}"), "Heads { waiting: 1, .. }");
    attaching.take(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    attaching.take(&[0, 0, 1, HEADERS, END_HEADERS, 0, 0, 0, 1, 0x82]).unwrap();
    let waiting = crate::proxy::http2::PREFACE_LEN + FRAME_HEADER_LEN + 1 + 2 + 1 + "secret".len();
    assert_eq!(format!("{attaching:?}"), format!("Attaching {{ stream: (), waiting: {waiting}, .. }}"));
}

#[test]
fn not_more_than_a_certain_amount_is_on_its_way() {
    let heads = Rc::new(Heads::default());
    let mut attaching = Attaching::new((), Rc::clone(&heads));
    attaching.take(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    let value = token(HeaderValue::from_str(&"x".repeat(10_000)).unwrap());
    let mut given = Vec::new();
    for stream in (1..201_u32).step_by(2) {
        heads.add(stream, &fields(&HeaderMap::new(), Some(&value)));
        given.extend_from_slice(&[0, 0, 1, HEADERS, END_HEADERS]);
        given.extend_from_slice(&stream.to_be_bytes());
        given.push(0x82);
    }
    let taken = attaching.take(&given).unwrap();
    assert!(attaching.out.len() < MAX_OUT + 20_000, "{}", attaching.out.len());
    // When that is written, more is taken, and no more than before.
    attaching.written(attaching.out.len());
    let rest = attaching.take(&given[taken..]).unwrap();
    attaching.written(attaching.out.len());
    assert!(rest > 0 && rest < given.len() - taken && heads.waiting() > 0);
}
