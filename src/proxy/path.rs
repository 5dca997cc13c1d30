//! What a request target may look like, and what is forwarded of it.
//!
//! A target is forwarded byte for byte or refused, never repaired: whoever repairs a path and whoever reads it next may
//! read two different ones.

use http::uri::PathAndQuery;

/// Why a target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// Refuses what could leave a path prefix under any decoding: `.` and `..` segments raw, decoded once or twice, encoded
/// slashes, `\`, `;` before `/` (path parameters), empty segments, encoded NUL and control bytes.
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
    let mut decoded = path.to_vec();
    // Raw, decoded once, decoded twice: a gateway in front of the upstream may decode before the upstream does.
    for round in 0..3 {
        check_segments(&decoded, round == 0)?;
        if memchr::memchr(b'%', &decoded).is_none() {
            return Ok(());
        }
        decoded = decode(&decoded);
    }
    Ok(())
}

fn check_segments(path: &[u8], raw: bool) -> Result<(), Refused> {
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
        if raw && has_encoded_separator(segment) {
            return Err(Refused);
        }
    }
    Ok(())
}

/// `%2f` and `%5c`, however often their `%` is encoded again.
fn has_encoded_separator(segment: &[u8]) -> bool {
    let mut rest = segment;
    while let Some(at) = memchr::memchr(b'%', rest) {
        let mut code = &rest[at + 1..];
        while let Some(inner) = code.strip_prefix(b"25") {
            code = inner;
        }
        if let Some(code) = code.get(..2)
            && (code.eq_ignore_ascii_case(b"2f") || code.eq_ignore_ascii_case(b"5c") || code == b"00")
        {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

fn decode(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'%').then(|| tail.get(..2)).flatten().and_then(hex);
        match code {
            Some(byte) => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            None => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    decoded
}

fn hex(digits: &[u8]) -> Option<u8> {
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
        for path in
            ["/", "/a", "/a/b/", "/a.b/..c", "/a%20b", "/a;v=1", "/%E2%82%AC", "/a:b@c,d", "/...", "/a%2541"]
        {
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
                for decodings in 0..3 {
                    prop_assert!(depth_below_root(&path, decodings), "{} decoded {} times", path, decodings);
                }
            }
        }
    }
}
