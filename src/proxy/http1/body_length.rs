//! Where the body of a message ends, as its head says (RFC 9112 §6.3).

use http::{
    HeaderMap, Method, Response, StatusCode, Version,
    header::{CONNECTION, TRANSFER_ENCODING},
};

use super::{Decoder, Facts, head::Said};
use crate::proxy::hop;

/// The body of a request. Of one that is ambiguous nothing is read: it is refused.
pub(in crate::proxy) fn of_request(said: Said) -> Decoder {
    let Said { facts, length, .. } = said;
    if facts.is_ambiguous() {
        Decoder::Done
    } else if facts.encodings > 0 {
        // A coding other than `chunked` is refused as well.
        Decoder::chunked()
    } else {
        Decoder::length(length)
    }
}

/// The body of an answer to a request with this method, and whether the connection ends with it. Nothing, when two readers could
/// disagree on where the body ends.
pub(in crate::proxy) fn of_answer(
    method: &Method,
    answer: &Response<()>,
    said: Said,
) -> Option<(Decoder, bool)> {
    let Said { facts, length, connection } = said;
    let (status, headers) = (answer.status(), answer.headers());
    // Of HTTP/1.0, chunks are not to be trusted (§6.1).
    let is_old = answer.version() != Version::HTTP_11;
    if facts.is_ambiguous() || (is_old && facts.encodings > 0) || has_odd_coding(headers, facts) {
        return None;
    }
    let bodiless = *method == Method::HEAD
        || matches!(
            status,
            StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    let decoder = if bodiless {
        Decoder::Done
    } else if facts.encodings > 0 {
        Decoder::chunked()
    } else if facts.lengths > 0 {
        Decoder::length(length)
    } else {
        Decoder::UntilClose
    };
    let ends = is_old
        || matches!(decoder, Decoder::UntilClose)
        || (connection && hop::lists(headers, &CONNECTION, b"close"));
    Some((decoder, ends))
}

/// Whether there is a coding other than `chunked`, of which no end is known. More lines than one are ambiguous already.
pub(in crate::proxy) fn has_odd_coding(headers: &HeaderMap, facts: Facts) -> bool {
    facts.encodings > 0
        && headers
            .get(TRANSFER_ENCODING)
            .is_none_or(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::proxy::http1::{Ending, take_answer};

    // In words: how the body is framed, and whether the connection ends.
    fn answer(method: &Method, head: &str) -> String {
        let mut bytes = BytesMut::from(format!("{head}\r\n\r\n").as_str());
        let taken = take_answer(&mut bytes, &mut Ending::default(), 4096, false, &mut HeaderMap::new());
        let (answer, said) = taken.unwrap().unwrap();
        match of_answer(method, &answer, said) {
            None => "refused".into(),
            Some((decoder, ends)) => {
                let decoder = match decoder {
                    Decoder::Length(left) => left.to_string(),
                    Decoder::Chunked(_) => "chunks".into(),
                    Decoder::UntilClose => "all".into(),
                    Decoder::Done => "none".into(),
                };
                format!("{decoder}{}", if ends { ", last" } else { "" })
            }
        }
    }

    #[test]
    fn the_body_of_an_answer_ends_where_the_rfc_says() {
        for (head, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 7", "7"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0", "none"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked", "chunks"),
            ("HTTP/1.1 200 OK", "all, last"),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 7", "none"),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 7", "none"),
            ("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade", "none"),
            ("HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 7", "7, last"),
            ("HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 7", "7"),
            ("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 7", "7, last"),
            ("HTTP/1.0 200 OK", "all, last"),
        ] {
            assert_eq!(answer(&Method::GET, head), expected, "{head}");
        }
        assert_eq!(answer(&Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 7"), "none");
        assert_eq!(answer(&Method::HEAD, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked"), "none");
    }

    #[test]
    fn an_answer_that_two_readers_could_frame_differently_is_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\ncontent-length: 7\r\ncontent-length: 7",
            "HTTP/1.1 200 OK\r\ncontent-length: 7, 7",
            "HTTP/1.1 200 OK\r\ncontent-length: +7",
            "HTTP/1.1 200 OK\r\ncontent-length: 7\r\ntransfer-encoding: chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: identity",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\ntransfer-encoding: chunked",
        ] {
            for method in [Method::GET, Method::HEAD] {
                assert_eq!(answer(&method, head), "refused", "{head}");
            }
        }
    }
}
