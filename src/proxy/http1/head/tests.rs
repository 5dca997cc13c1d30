//! The heads of messages: what is read, what is refused, and that it does not matter how they are cut.

use proptest::prelude::*;

use super::*;

const MAX: usize = 65536;

type Read = Result<Option<(Parts, Said)>, Malformed>;

fn take(bytes: &mut BytesMut, ending: &mut Ending) -> Read {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    Ok(take_request(bytes, ending, MAX, false, &mut parts)?.map(|said| (parts, said)))
}

fn request(bytes: &[u8]) -> Read {
    take(&mut BytesMut::from(bytes), &mut Ending::default())
}

fn facts(bytes: &[u8]) -> Facts {
    request(bytes).unwrap().unwrap().1.facts
}

#[test]
fn a_request_is_read_as_it_stands() {
    let bytes = b"\r\nPOST /a?b=c HTTP/1.1\r\nHost: a#b\r\nX:\t two words \t\r\nX:\r\nContent-Length: 3\r\n\r\nabcGET";
    let mut came = BytesMut::from(&bytes[..]);
    let (request, said) = take(&mut came, &mut Ending::default()).unwrap().unwrap();
    assert_eq!(
        (&request.method, &request.uri, request.version),
        (&Method::POST, &"/a?b=c".parse().unwrap(), Version::HTTP_11)
    );
    let lines: Vec<_> = request.headers.get_all("x").iter().map(|line| line.to_str().unwrap()).collect();
    assert_eq!((lines, request.headers.len()), (vec!["two words", ""], 4));
    assert_eq!(said, Said { facts: Facts { lengths: 1, ..Facts::default() }, length: 3, connection: false });
    assert_eq!(came, "abcGET");
}

#[test]
fn an_answer_is_read_as_it_stands() {
    for (line, status, phrase) in [
        ("HTTP/1.1 200 OK", 200, None),
        ("HTTP/1.1 200 Fine enough", 200, Some("Fine enough")),
        ("HTTP/1.0 404", 404, Some("")),
        ("HTTP/1.1 799 \u{e9}t\u{e9}", 799, Some("\u{e9}t\u{e9}")),
    ] {
        let mut came = BytesMut::from(format!("{line}\r\nContent-Length: 0\r\n\r\n").as_bytes());
        let (answer, said) =
            take_answer(&mut came, &mut Ending::default(), MAX, false, &mut HeaderMap::new())
                .unwrap()
                .unwrap();
        assert_eq!((answer.status().as_u16(), said.facts.lengths), (status, 1));
        let told = answer.extensions().get::<Phrase>().map(|phrase| phrase.0.as_ref());
        assert_eq!(told, phrase.map(str::as_bytes), "{line}");
    }
}

#[test]
fn a_head_keeps_the_buffer_that_it_came_in_unless_it_is_copied() {
    for apart in [false, true] {
        let ending = &mut Ending::default();
        let mut came = BytesMut::from("\r\nGET /a HTTP/1.1\r\nX: one\r\n\r\nabc");
        let (mut parts, ()) = http::Request::new(()).into_parts();
        take_request(&mut came, ending, MAX, apart, &mut parts).unwrap().unwrap();
        assert_eq!(
            (parts.uri.path(), parts.headers["x"].as_bytes(), &came[..]),
            ("/a", &b"one"[..], &b"abc"[..])
        );
        let mut came = BytesMut::from("HTTP/1.1 200 Fine\r\nX: one\r\n\r\nabc");
        let fields = &mut HeaderMap::new();
        let (answer, _) = take_answer(&mut came, ending, MAX, apart, fields).unwrap().unwrap();
        assert_eq!((answer.headers()["x"].as_bytes(), &came[..]), (&b"one"[..], &b"abc"[..]));
        came.clear();
        assert_eq!(came.try_reclaim(16), apart);
    }
}

#[test]
fn a_fragment_is_seen_in_the_target_only() {
    assert!(facts(b"GET /a#b HTTP/1.1\r\n\r\n").fragment);
    assert!(!facts(b"GET /a HTTP/1.1\r\nX: #\r\n\r\n").fragment);
}

#[test]
fn whatever_two_readers_could_disagree_on_is_ambiguous() {
    for head in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 1\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "X: y\n",
    ] {
        assert!(
            facts(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n").as_bytes()).is_ambiguous(),
            "{head:?}"
        );
    }
    assert!(facts(b"\nGET / HTTP/1.1\r\n\r\n").is_ambiguous());
}

#[test]
fn what_is_not_a_head_is_not_read() {
    for bytes in [
        &b"GET /\r\n\r\n"[..],
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET / x HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1 \r\n\r\n",
        b"GET / HTTP/1.2\r\n\r\n",
        b" GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01",
        b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n",
        b"GET / HTTP/1.1\r\n: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nA\r\n\r\n",
    ] {
        assert_eq!(request(bytes).unwrap_err(), Malformed::Head, "{:?}", String::from_utf8_lossy(bytes));
    }
    for bytes in [
        "HTTP/2 200 OK\r\n\r\n",
        "SSH-2.0-x",
        "<html>",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
    ] {
        let answer = take_answer(
            &mut BytesMut::from(bytes),
            &mut Ending::default(),
            MAX,
            false,
            &mut HeaderMap::new(),
        );
        assert_eq!(answer.unwrap_err(), Malformed::Head, "{bytes:?}");
    }
    assert_eq!(request(b"GET /\x7f HTTP/1.1\r\n\r\n").unwrap_err(), Malformed::Target);
}

#[test]
fn a_head_has_as_many_bytes_and_fields_as_are_read() {
    let long = |len: usize| format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(len - 23));
    assert!(request(long(MAX).as_bytes()).is_ok());
    assert_eq!(request(long(MAX + 1).as_bytes()).unwrap_err(), Malformed::TooLarge);
    assert_eq!(request(&long(MAX + 1).as_bytes()[..MAX]).unwrap_err(), Malformed::TooLarge);
    let many = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(count));
    assert!(request(many(MAX_FIELDS).as_bytes()).is_ok());
    assert_eq!(request(many(MAX_FIELDS + 1).as_bytes()).unwrap_err(), Malformed::TooLarge);
}

proptest! {
    #[test]
    fn it_does_not_matter_how_a_head_is_cut(
        pieces in proptest::collection::vec(
            "[A-Za-z0-9 :#/\r\n-]{0,40}|Content-Length: [0-9]{1,3}\r\n|Transfer-Encoding: x\r\n|\r\n\r\n",
            0..12,
        ),
        cuts in proptest::collection::vec(1usize..90, 1..40),
    ) {
        let bytes = format!("GET / HTTP/1.1\r\n{}", pieces.concat());
        let mut came = BytesMut::from(bytes.as_bytes());
        let told = |read: Read| read.map(|read| {
            read.map(|(request, said)| (format!("{:?}", request.headers), said))
        });
        let whole = (told(take(&mut came, &mut Ending::default())), came.len());
        let (mut came, mut ending, mut rest) = (BytesMut::new(), Ending::default(), bytes.as_bytes());
        let mut cut = told(Ok(None));
        for step in cuts.iter().cycle() {
            if rest.is_empty() || cut != Ok(None) {
                break;
            }
            let (piece, tail) = rest.split_at((*step).min(rest.len()));
            came.extend_from_slice(piece);
            cut = told(take(&mut came, &mut ending));
            rest = tail;
        }
        prop_assert_eq!(whole.0, cut);
        if whole.1 > 0 {
            prop_assert_eq!(whole.1, came.len() + rest.len());
        }
    }
}
