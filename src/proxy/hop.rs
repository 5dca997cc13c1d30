//! Hop-by-hop header fields: what concerns one connection does not cross attaché (RFC 9110 §7.6.1).

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, MAX_FORWARDS},
};

use super::{error::Reason, seen::Seen};

/// Removes from a request what `Connection` names, in all of its lines, and then the hop-by-hop set.
///
/// `Content-Length` goes too: the body is framed anew for the next connection, from what was really received. `Expect`
/// goes because attaché answers it itself, once (RFC 9110 §10.1.1).
pub(super) fn strip_request(headers: &mut HeaderMap, seen: Seen) {
    if seen.connection {
        strip_named(headers);
    }
    if seen.of_hop || seen.content_length || seen.expect {
        remove(headers, |name| Seen::is_of_hop(name) || matches!(name, "content-length" | "expect"));
    }
}

/// Removes the same from an answer, except what it says about its own length, and about its trailers if the caller takes
/// some.
pub(super) fn strip_answer(headers: &mut HeaderMap, trailers: bool) {
    let seen = Seen::of(headers);
    if seen.connection {
        strip_named(headers);
    }
    if seen.of_hop {
        remove(headers, |name| Seen::is_of_hop(name) && !(trailers && name == "trailer"));
    }
}

/// Takes this hop off those that `Max-Forwards` allows (RFC 9110 §7.6.2). False when none is left: the request ends here.
pub(super) fn count_down(headers: &mut HeaderMap) -> Result<bool, Reason> {
    let mut lines = headers.get_all(MAX_FORWARDS).iter();
    let Some(hops) = lines.next() else { return Ok(true) };
    let is_number = !hops.is_empty() && hops.as_bytes().iter().all(u8::is_ascii_digit);
    if !is_number || lines.next().is_some() {
        return Err(Reason::MalformedRequest);
    }
    // More than can be counted are as many as can.
    let hops = hops.to_str().ok().and_then(|hops| hops.parse().ok()).unwrap_or(u64::MAX);
    let Some(left) = hops.checked_sub(1) else { return Ok(false) };
    headers.insert(MAX_FORWARDS, HeaderValue::from(left));
    Ok(true)
}

/// Whether a comma-separated field names a word, in any of its lines and in any case.
pub(super) fn lists(headers: &HeaderMap, name: &HeaderName, word: &[u8]) -> bool {
    let lines = headers.get_all(name).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(word))
}

fn strip_named(headers: &mut HeaderMap) {
    // Collected first: a map cannot be changed while its lines are read. Most lines name nothing but themselves.
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|option| {
            !option.eq_ignore_ascii_case(b"keep-alive") && !option.eq_ignore_ascii_case(b"close")
        })
        // What is not a field name names no field.
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .collect();
    for name in &named {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
}

/// Looks at the names that are there: there are few, and hardly ever one of those to remove. Asking the map for each of them
/// costs three times as much.
fn remove(headers: &mut HeaderMap, is_one: impl Fn(&str) -> bool) {
    while let Some(name) = headers.keys().find(|name| is_one(name.as_str())).cloned() {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_connection_names_goes_whichever_line_names_it() {
        let mut headers = map(&[
            ("connection", "close, X-One"),
            ("connection", " x-two ,, \"bad\", keep-alive"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
        ]);
        let seen = Seen::of(&headers);
        strip_request(&mut headers, seen);
        assert_eq!(names(&headers), ["x-three"]);
    }

    #[test]
    fn the_hop_by_hop_set_goes_even_when_connection_does_not_name_it() {
        let mut headers = map(&[
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eA=="),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("content-length", "3"),
            ("expect", "100-continue"),
            ("accept", "*/*"),
        ]);
        let seen = Seen::of(&headers);
        strip_request(&mut headers, seen);
        assert_eq!(names(&headers), ["accept"]);
    }

    #[test]
    fn max_forwards_is_counted_down_if_it_is_one_number() {
        for (before, after) in [
            ("7", Ok(Some("6"))),
            ("1", Ok(Some("0"))),
            ("0010", Ok(Some("9"))),
            ("99999999999999999999999", Ok(Some("18446744073709551614"))),
            ("0", Ok(None)),
            ("00", Ok(None)),
            ("", Err(Reason::MalformedRequest)),
            ("-1", Err(Reason::MalformedRequest)),
            ("+1", Err(Reason::MalformedRequest)),
            ("1, 1", Err(Reason::MalformedRequest)),
        ] {
            let mut headers = map(&[("max-forwards", before)]);
            let goes_on = count_down(&mut headers);
            let left = goes_on.map(|goes_on| goes_on.then(|| headers[MAX_FORWARDS].to_str().unwrap()));
            assert_eq!(left, after, "{before}");
        }
        assert_eq!(
            count_down(&mut map(&[("max-forwards", "1"), ("max-forwards", "1")])),
            Err(Reason::MalformedRequest)
        );
        assert_eq!(count_down(&mut HeaderMap::new()), Ok(true));
    }

    #[test]
    fn an_answer_keeps_its_length() {
        let mut headers = map(&[("content-length", "3"), ("connection", "x-internal"), ("x-internal", "1")]);
        strip_answer(&mut headers, false);
        assert_eq!(names(&headers), ["content-length"]);
    }
}
