//! The bodies of messages: where one ends, what breaks it, and that it does not matter how it is cut.

use proptest::prelude::*;

use super::*;

type Whole = (Vec<u8>, Option<HeaderMap>, Vec<u8>, bool);

/// A body that comes in pieces: what is in it, its trailers, and what is left behind it.
fn read(mut decoder: Decoder, pieces: &[&[u8]]) -> Result<Whole, Broken> {
    let (mut came, mut body, mut trailers) = (BytesMut::new(), Vec::new(), None);
    for piece in pieces {
        came.extend_from_slice(piece);
        loop {
            match decoder.take(&mut came)? {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::Trailers(map) => trailers = Some(map),
                Piece::End | Piece::More => break,
            }
        }
    }
    Ok((body, trailers, came.to_vec(), decoder.is_done()))
}

#[test]
fn a_body_is_as_long_as_it_says() {
    assert_eq!(
        read(Decoder::length(3), &[b"ab", b"cd"]).unwrap(),
        (b"abc".to_vec(), None, b"d".to_vec(), true)
    );
    assert!(!read(Decoder::length(3), &[b"ab"]).unwrap().3);
    assert!(Decoder::length(0).is_done());
    assert_eq!(read(Decoder::UntilClose, &[b"ab", b"cd"]).unwrap(), (b"abcd".to_vec(), None, vec![], false));
    assert_eq!(Decoder::length(u64::MAX).left(), Some(u64::MAX));
}

#[test]
fn chunks_extensions_and_trailers_are_read() {
    let all = b"3;a=\"b\"\r\nabc\r\n0a \t\r\n0123456789\r\n000\r\nX: y\r\nZ: 1\r\n\r\nGET";
    let (body, trailers, rest, done) = read(Decoder::chunked(), &[all]).unwrap();
    assert_eq!((&body[..], &rest[..], done), (&b"abc0123456789"[..], &b"GET"[..], true));
    assert_eq!(trailers.unwrap()["x"], "y");
    assert!(read(Decoder::chunked(), &[b"0\r\n\r\n"]).unwrap().3);
    // Some servers write sizes of a fixed width, for as long as a body lasts.
    let padded = format!("{}0\r\n\r\n", "00000001  \r\nx\r\n".repeat(10_000));
    let (body, _, _, done) = read(Decoder::chunked(), &[padded.as_bytes()]).unwrap();
    assert_eq!((body.len(), done), (10_000, true));
}

#[test]
fn what_is_not_a_chunk_breaks_the_body() {
    let long = |text: &str| text.replace('~', &"x".repeat(MAX_BESIDE + 1));
    for chunks in [
        "zz\r\n",
        "\r\n",
        "-5\r\n",
        "+5\r\n",
        "0x5\r\n",
        " 5\r\n",
        "5 5\r\n",
        "5\n",
        "5;a\n",
        "5\rh",
        "5;a\rb",
        "5 \nx",
        "1000000000000000000\r\n",
        "fffffffffffffffe\r\n",
        "1\r\nab",
        "1\r\na\n",
        "1\r\na\rb",
        "0\r\n\n",
        "0\r\nX: y\n\r\n",
        "0\r\n\rx",
        "0\r\nX\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\nX: y\r\n z\r\n\r\n",
        "5;~",
        "0\r\nX: ~\r\n\r\n",
        "0\r\nX: ~",
    ] {
        assert_eq!(read(Decoder::chunked(), &[long(chunks).as_bytes()]).unwrap_err(), Broken, "{chunks:?}");
    }
    let zeros = "0".repeat(MAX_BESIDE + 2);
    assert_eq!(read(Decoder::chunked(), &[zeros.as_bytes()]).unwrap_err(), Broken);
}

#[test]
fn bytes_behind_a_body_are_seen_before_it_is_taken() {
    assert!(!Decoder::length(2).is_exceeded_by(b"ab"));
    assert!(Decoder::length(2).is_exceeded_by(b"abc"));
    assert!(Decoder::Done.is_exceeded_by(b"x"));
    assert!(!Decoder::UntilClose.is_exceeded_by(b"x"));
    for (chunks, more) in [
        ("2\r\nab\r\n0\r\n\r\n", false),
        ("2\r\nab\r\n0\r\n\r\nx", true),
        ("0\r\nA: b\r\n\r\nx", true),
        ("2\r\na", false),
    ] {
        assert_eq!(Decoder::chunked().is_exceeded_by(chunks.as_bytes()), more, "{chunks:?}");
    }
}

proptest! {
    #[test]
    fn it_does_not_matter_how_a_body_is_cut(
        chunks in proptest::collection::vec("[a-z]{1,30}", 0..8),
        end in "0\r\n\r\n|0;x\r\nA: b\r\nC: d\r\n\r\nmore|0\r\nA\r\n\r\n|5\r\nab|zz",
        cuts in proptest::collection::vec(1usize..40, 1..20),
    ) {
        let mut bytes: String = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
        bytes.push_str(&end);
        let whole = read(Decoder::chunked(), &[bytes.as_bytes()]);
        let (mut pieces, mut rest) = (Vec::new(), bytes.as_bytes());
        for step in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, tail) = rest.split_at((*step).min(rest.len()));
            pieces.push(piece);
            rest = tail;
        }
        prop_assert_eq!(whole, read(Decoder::chunked(), &pieces));
    }
}
