//! What a request target may look like, and what is forwarded of it.
//!
//! A target is forwarded byte for byte or refused, never repaired: whoever repairs a path and whoever reads it next may
//! read two different ones.

use http::uri::PathAndQuery;

/// Why a target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// Refuses what could leave a path prefix under any decoding: `.` and `..` segments raw, decoded once or twice, encoded
/// slashes, `\`, `;` before `/` (path parameters), empty segments, encoded NUL and control bytes, what only lenient decoders
/// take for one of these (UTF-8 that is longer than it need be, `%c0%ae`, RFC 3629 §3; and `%u002e`), and what is encoded
/// more than twice.
pub(super) fn check_within_prefix(path: &str) -> Result<(), Refused> {
    if is_plain(path.as_bytes()) { Ok(()) } else { check_every_decoding(path.as_bytes()) }
}

/// Whether there is nothing in a path that must be looked at twice, as in nearly all of them: found without a copy.
fn is_plain(path: &[u8]) -> bool {
    let mut last = 0;
    for &byte in path {
        if matches!(byte, b'%' | b'\\' | b';' | ..=0x1f | 0x7f..)
            || (last == b'/' && matches!(byte, b'/' | b'.'))
        {
            return false;
        }
        last = byte;
    }
    path.first() == Some(&b'/')
}

fn check_every_decoding(path: &[u8]) -> Result<(), Refused> {
    let separators = |path: &[u8]| memchr::memchr_iter(b'/', path).count();
    let mut decoded = path.to_vec();
    // Raw, decoded once, decoded twice: a gateway in front of the upstream may decode before the upstream does.
    for _ in 0..3 {
        check_segments(&decoded)?;
        if separators(&decoded) != separators(path) || is_read_leniently(&decoded) {
            return Err(Refused);
        }
        let next = decode(&decoded);
        if next == decoded {
            return Ok(());
        }
        decoded = next;
    }
    // No honest name is encoded three times.
    Err(Refused)
}

fn check_segments(path: &[u8]) -> Result<(), Refused> {
    let odd = |byte: &u8| *byte < 0x20 || *byte == 0x7f || *byte == b'\\';
    if path.iter().any(odd) {
        return Err(Refused);
    }
    let mut segments = path.split(|byte| *byte == b'/');
    // What stands before the first slash: nothing, in every path that a route matches.
    if segments.next().is_some_and(|first| !first.is_empty()) {
        return Err(Refused);
    }
    let mut segments = segments.peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        // `..;x` is `..` to servers that know path parameters (RFC 3986 §3.3).
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        if name == b"." || name == b".." || (segment.is_empty() && !last) {
            return Err(Refused);
        }
        if !last && segment.contains(&b';') {
            return Err(Refused);
        }
    }
    Ok(())
}

/// Whether there is what no decoder should take for a character, and some take for a dot or a slash: overlong UTF-8, and the
/// `%uXXXX` of old servers.
fn is_read_leniently(path: &[u8]) -> bool {
    let overlong =
        |pair: &[u8]| matches!(pair, [0xc0 | 0xc1, 0x80..=0xbf] | [0xe0, 0x80..=0x9f] | [0xf0, 0x80..=0x8f]);
    let unicode = |code: &[u8]| matches!(code, [b'%', b'u' | b'U', digits @ ..] if digits.iter().all(u8::is_ascii_hexdigit));
    path.windows(2).any(overlong) || path.windows(6).any(unicode)
}

fn decode(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.split_first_chunk::<2>().filter(|_| *first == b'%');
        match code.and_then(|(code, tail)| Some((hex(code)?, tail))) {
            Some((byte, tail)) => {
                decoded.push(byte);
                rest = tail;
            }
            None => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    decoded
}

fn hex(digits: &[u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (high, low) = (digit(digits[0])?, digit(digits[1])?);
    u8::try_from(high * 16 + low).ok()
}

/// How the path of a request becomes the path at the upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rewrite {
    /// Bytes cut from the front.
    pub(super) strip: usize,
    /// What is put in front then, without a slash at its end.
    pub(super) base: String,
}

impl Rewrite {
    /// Nothing to do: the target goes on as it came.
    pub(super) fn is_identity(&self) -> bool {
        self.strip == 0 && self.base.is_empty()
    }

    /// The target at the upstream.
    pub(super) fn apply(&self, target: &PathAndQuery) -> Result<PathAndQuery, Refused> {
        let rest = target.as_str().get(self.strip..).ok_or(Refused)?;
        let mut path = String::with_capacity(self.base.len() + rest.len() + 1);
        path.push_str(&self.base);
        if !rest.starts_with('/') && self.base.is_empty() {
            path.push('/');
        }
        path.push_str(rest);
        PathAndQuery::from_maybe_shared(bytes::Bytes::from(path)).map_err(|_| Refused)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_paths_pass() {
        for path in [
            "/",
            "/a",
            "/a/b/",
            "/a.b/..c",
            "/a%20b",
            "/a;v=1",
            "/%E2%82%AC",
            "/a:b@c,d",
            "/...",
            "/a%2541",
            "/100%25",
            "/100%25/a%",
            "/%C0",
            "/VOIL%C0.pdf",
            "/%E0%A0%80",
            "/a%u12",
        ] {
            assert_eq!(check_within_prefix(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn whatever_could_leave_the_prefix_is_refused() {
        for path in [
            "/a/../b",
            "/a/..",
            "/./a",
            "/a/.",
            "/a/%2e%2e/b",
            "/a/%2E./b",
            "/a/%252e%252e/b",
            "/a/.%252e",
            "/a%2fb",
            "/a%2Fb",
            "/a%252fb",
            "/a%25252fb",
            "/a%5cb",
            "/a%255Cb",
            "/a\\b",
            "/a;x/b",
            "/a/..;/b",
            "/a/..;x",
            "/a//b",
            "//a",
            "/a%00",
            "/a%2500",
            "/a%0d",
            "/a%0A",
            "/a%7f",
            "/a%250a",
            "a/b",
            "/a%3b/b",
            "/a/%2e%3bx",
            "/a/%25252e%25252e/b",
            "/a/%2%35%32e./b",
            "/a/%%%33%32e./b",
            "/a/%252541",
            "/a/%c0%ae%c0%ae/b",
            "/a/%25c0%25ae./b",
            "/a%C0%AFb",
            "/a/%e0%80%ae./b",
            "/a/%f0%80%80%ae./b",
            "/a/%u002e%u002e/b",
            "/a%U2215b",
            "/a%25uFF0Fb",
        ] {
            assert_eq!(check_within_prefix(path), Err(Refused), "{path}");
        }
    }

    #[test]
    fn a_rewrite_changes_the_front_and_nothing_else() {
        for (strip, base, target, expected) in [
            (0, "/v2", "/a%20b?q=//..", "/v2/a%20b?q=//.."),
            (4, "", "/api/a", "/a"),
            (4, "", "/api", "/"),
            (4, "", "/api?q", "/?q"),
            (4, "/v2", "/api", "/v2"),
            (4, "/v2", "/api?q", "/v2?q"),
            (4, "/v2", "/api/", "/v2/"),
        ] {
            let rewrite = Rewrite { strip, base: base.into() };
            let target = target.parse().unwrap();
            assert_eq!(rewrite.apply(&target).unwrap().as_str(), expected);
        }
    }

    /// Resolves a path as a careless server might: decode so many times, then walk the segments.
    fn depth_below_root(path: &str, decodings: usize) -> bool {
        let mut bytes = path.as_bytes().to_vec();
        for _ in 0..decodings {
            bytes = decode(&bytes);
        }
        let mut depth = 0i32;
        for segment in bytes.split(|byte| matches!(byte, b'/' | b'\\')) {
            let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
            match name {
                b".." => depth -= 1,
                b"." | b"" => {}
                _ => depth += 1,
            }
            if depth < 0 {
                return false;
            }
        }
        true
    }

    proptest! {
        #[test]
        fn what_is_taken_for_plain_passes_under_every_decoding(path in "[/.%;\\\\a2fF5cC\x00\x7f€-]{0,12}") {
            if is_plain(path.as_bytes()) {
                prop_assert_eq!(check_every_decoding(path.as_bytes()), Ok(()));
            }
        }

        #[test]
        fn an_accepted_path_has_no_decoding_that_leaves_its_prefix(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("/"), Just(".."), Just("."), Just("%2e"), Just("%252e"), Just("%2f"), Just("%252f"), Just("%5c"),
                    Just("\\"), Just(";"), Just("%3b"), Just("%25"), Just("a"), Just("2e"), Just("%"), Just("%00"),
                ],
                0..14,
            )
        ) {
            let path = format!("/{}", parts.concat());
            if check_within_prefix(&path).is_ok() {
                for decodings in 0..8 {
                    prop_assert!(depth_below_root(&path, decodings), "{} decoded {} times", path, decodings);
                }
            }
        }
    }
}
