//! Frames of the library, cut in many ways, read by its server.

use bytes::Bytes;
use h2::{client, server};
use http::{HeaderMap, Request, Response, header::AUTHORIZATION};

use super::*;

/// What a server gets of requests with these credentials, over a pipe that takes so much at once.
async fn heads(room: usize, requests: Vec<(Option<(HeaderName, HeaderValue)>, usize)>) -> Vec<HeaderMap> {
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
            seen.push(head.headers);
        }
        seen
    });
    let credentials = Rc::new(Credentials::default());
    let (mut sender, connection) =
        client::handshake(Attaching::new(ours, Rc::clone(&credentials))).await.unwrap();
    tokio::task::LocalSet::new()
        .run_until(async move {
            tokio::task::spawn_local(async move { connection.await.unwrap() });
            let mut answers = Vec::new();
            for (credential, len) in requests {
                let mut request = Request::new(());
                *request.uri_mut() = "http://localhost/path".parse().unwrap();
                request.headers_mut().insert("x-of-the-caller", HeaderValue::from_static("one"));
                sender = sender.ready().await.unwrap();
                let (answer, mut stream) = sender.send_request(request, len == 0).unwrap();
                if let Some((name, value)) = credential {
                    credentials.add(stream.stream_id().as_u32(), name, value);
                }
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
            assert!(credentials.0.borrow().is_empty());
        })
        .await;
    server.await.unwrap()
}

#[tokio::test]
async fn every_head_has_its_own_credential_however_little_is_taken_at_once() {
    let token = |letter: &str, len| HeaderValue::from_str(&letter.repeat(len)).unwrap();
    let own = HeaderName::from_static("x-api-key");
    let wanted = vec![
        (Some((AUTHORIZATION, token("a", 900))), 0),
        (None, 0),
        (Some((own, token("b", 5))), 70_000),
        // More than one frame holds, more than two do, and as much as just fits or just does not.
        (Some((AUTHORIZATION, token("c", 16_384))), 10),
        (Some((AUTHORIZATION, token("d", 40_000))), 5_000),
        (Some((AUTHORIZATION, token("e", 16_300))), 0),
        (Some((AUTHORIZATION, token("f", 126))), 0),
        (Some((AUTHORIZATION, token("g", 127))), 0),
        (Some((AUTHORIZATION, token("h", 128))), 0),
    ];
    for room in [1, 10, 1000, 1 << 20] {
        let seen = heads(room, wanted.clone()).await;
        assert_eq!(seen.len(), wanted.len());
        for (headers, (credential, _)) in seen.iter().zip(&wanted) {
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
    // Each of these lengths puts the end of the frame elsewhere.
    for len in (16_300..16_400).step_by(7) {
        let value = HeaderValue::from_str(&"x".repeat(len)).unwrap();
        let seen = heads(1 << 20, vec![(Some((AUTHORIZATION, value.clone())), 0)]).await;
        assert_eq!(seen[0][AUTHORIZATION], value);
    }
}

#[test]
fn a_head_that_is_never_written_leaves_nothing_behind() {
    let credentials = Credentials::default();
    for stream in [1, 3, 7] {
        credentials.add(stream, AUTHORIZATION, HeaderValue::from(stream));
    }
    assert_eq!(credentials.take(3).unwrap().1, "3");
    // Trailers, or a request without one.
    assert!(credentials.take(3).is_none() && credentials.take(5).is_none());
    assert_eq!(credentials.take(7).unwrap().1, "7");
    assert!(credentials.0.borrow().is_empty());
}

#[test]
fn a_credential_is_told_never_to_be_indexed() {
    // RFC 7541 §6.2.3: 0001, and 23 or the name.
    for (name, expected) in
        [(AUTHORIZATION, &b"\x1f\x08\x03abc"[..]), (HeaderName::from_static("x"), b"\x10\x01x\x03abc")]
    {
        let mut written = Vec::new();
        literal(&name, b"abc", &mut written);
        assert_eq!(written, expected);
    }
}

#[test]
fn nothing_of_what_waits_is_shown() {
    let credentials = Rc::new(Credentials::default());
    let mut attaching = Attaching::new((), Rc::clone(&credentials));
    let mut value = HeaderValue::from_static("secret");
    value.set_sensitive(true);
    credentials.add(1, AUTHORIZATION, value);
    assert!(!format!("{credentials:?}").contains("secret"));
    attaching.take(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    attaching.take(&[0, 0, 1, HEADERS, END_HEADERS, 0, 0, 0, 1, 0x82]);
    let waiting = crate::proxy::http2::PREFACE_LEN + FRAME_HEADER_LEN + 1 + 2 + 1 + "secret".len();
    assert_eq!(format!("{attaching:?}"), format!("Attaching {{ stream: (), waiting: {waiting}, .. }}"));
}
