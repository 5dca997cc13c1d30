//! What `tests/fuzz` may call of the way of a request. Not part of any other build.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, uri::PathAndQuery};

use super::{
    check, hop,
    http1::{Ending, Length, Out, Piece, body_length, encode_request, take_request},
    inject::Injection,
    path,
    seen::Seen,
};

/// A request's headers as they go on: stripped, every spelling of the injected name removed, the credential set.
pub fn forward(headers: &mut HeaderMap, injected: HeaderName, credential: &HeaderValue) {
    let seen = Seen::of(headers);
    hop::strip_request(headers, seen);
    let injection = Injection::new(injected);
    injection.remove_spellings(headers);
    injection.set(headers, credential);
}

/// Whether a path is taken by a route with a prefix.
pub fn is_accepted(path: &str) -> bool {
    path::check_within_prefix(path).is_ok()
}

/// A request of HTTP/1.1 that is taken, as it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub target: String,
    /// Its header fields, without those of the hop.
    pub headers: HeaderMap,
    /// All of its body.
    pub body: Vec<u8>,
}

/// The requests of a connection whose bytes come in these pieces, up to the first that is refused or not whole.
pub fn take_all<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Taken> {
    let mut pieces = pieces.into_iter();
    let (mut came, mut taken) = (BytesMut::new(), Vec::new());
    let mut more = |came: &mut BytesMut| pieces.next().map(|piece| came.extend_from_slice(piece)).is_some();
    loop {
        let mut ending = Ending::default();
        let (mut parts, ()) = Request::new(()).into_parts();
        let said = loop {
            match take_request(&mut came, &mut ending, 64 * 1024, false, &mut parts) {
                Ok(Some(said)) => break said,
                Ok(None) if more(&mut came) => {}
                Ok(None) | Err(_) => return taken,
            }
        };
        let mut decoder = body_length::of_request(said);
        if check::check(&parts, said.facts, !decoder.is_done()).is_err() {
            return taken;
        }
        let mut body = Vec::new();
        loop {
            match decoder.take(&mut came) {
                Ok(Piece::Data(data)) => body.extend_from_slice(&data),
                Ok(Piece::Trailers(_) | Piece::End) => break,
                Ok(Piece::More) if more(&mut came) => {}
                Ok(Piece::More) | Err(_) => return taken,
            }
        }
        let Some(target) = parts.uri.path_and_query().map(ToString::to_string) else { return taken };
        let mut headers = parts.headers;
        let seen = Seen::of(&headers);
        hop::strip_request(&mut headers, seen);
        taken.push(Taken { method: parts.method, target, headers, body });
    }
}

/// The same request as it is written to an upstream, its body in chunks or not.
pub fn write(taken: &Taken, chunked: bool) -> Vec<u8> {
    let (mut out, mut written) = (Out::default(), Vec::new());
    let mut length = match taken.body.len() {
        0 => Length::None,
        _ if chunked => Length::Chunked,
        len => Length::Exact(len as u64),
    };
    let target = PathAndQuery::try_from(&*taken.target).expect("it was one");
    encode_request(&taken.method, &target, &taken.headers, length, &mut out);
    let fitting = length.piece(Bytes::copy_from_slice(&taken.body), &mut out);
    out.drain(&mut written);
    let ended = length.end(&HeaderMap::new(), &mut out);
    out.drain(&mut written);
    assert!(fitting.is_ok() && ended.is_ok());
    written
}
