//! The header fields of a request, as they are sent over HTTP/2.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING},
};

use super::hpack::{Indexing, literal};

/// What is put into the head of a request when it is written.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct Fields<'a> {
    pub(in crate::proxy) headers: &'a HeaderMap,
    /// Of the body, if it is known.
    pub(in crate::proxy) length: Option<u64>,
    /// Where the route's credential is, also when it is the caller's own.
    pub(in crate::proxy) injected: &'a HeaderName,
    /// What attaché injects there. Any other field of that name is of an earlier sending, over HTTP/1.1.
    pub(in crate::proxy) credential: Option<&'a HeaderValue>,
}

impl Fields<'_> {
    /// Writes them, without what HTTP/2 says otherwise (RFC 9113 §8.2.2, §8.3.1). The rest of the hop-by-hop fields does not get
    /// this far.
    pub(super) fn write(&self, into: &mut Vec<u8>) {
        for (name, value) in self.headers {
            let is_of_http_1 = *name == HOST || *name == CONNECTION || *name == TRANSFER_ENCODING;
            let is_replaced = (self.length.is_some() && *name == CONTENT_LENGTH)
                || (self.credential.is_some() && name == self.injected);
            if !is_of_http_1 && !is_replaced {
                debug_assert!(may_cross(name, value), "{name}");
                // Which fields a caller over HTTP/2 has marked, the library does not tell.
                let is_secret = *name == AUTHORIZATION || *name == COOKIE || name == self.injected;
                let indexing = if is_secret { Indexing::Never } else { Indexing::Without };
                literal(name, value.as_bytes(), indexing, into);
            }
        }
        if let Some(length) = self.length {
            literal(&CONTENT_LENGTH, HeaderValue::from(length).as_bytes(), Indexing::Without, into);
        }
        if let Some(value) = self.credential {
            literal(self.injected, value.as_bytes(), Indexing::Never, into);
        }
    }
}

/// Whether HTTP/2 may carry a field (RFC 9113 §8.2.2). The library would refuse those that it may not; it does not see them.
fn may_cross(name: &HeaderName, value: &HeaderValue) -> bool {
    match name.as_str() {
        "keep-alive" | "proxy-connection" | "upgrade" => false,
        "te" => value == "trailers",
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;

    fn written(
        headers: &HeaderMap,
        length: Option<u64>,
        injected: &HeaderName,
        value: Option<&str>,
    ) -> Vec<u8> {
        let value = value.map(|value| HeaderValue::from_str(value).unwrap());
        let mut block = Vec::new();
        Fields { headers, length, injected, credential: value.as_ref() }.write(&mut block);
        block
    }

    fn map<const N: usize>(lines: [(HeaderName, &'static str); N]) -> HeaderMap {
        HeaderMap::from_iter(lines.map(|(name, value)| (name, HeaderValue::from_static(value))))
    }

    #[test]
    fn no_credential_of_an_earlier_sending_is_beside_the_one_that_is_injected() {
        let headers = map([(AUTHORIZATION, "refused")]);
        // RFC 7541 §6.2.3: 0001, and 23.
        assert_eq!(written(&headers, None, &AUTHORIZATION, Some("fresh")), b"\x1f\x08\x05fresh");
        // Where attaché injects nothing, it is the caller's own.
        assert_eq!(written(&headers, None, &AUTHORIZATION, None), b"\x1f\x08\x07refused");
    }

    #[test]
    fn a_credential_is_told_never_to_be_indexed_whatever_its_name_and_whosever_it_is() {
        let name = HeaderName::from_static("x");
        assert_eq!(written(&HeaderMap::new(), None, &name, Some("abc")), b"\x10\x01x\x03abc");
        assert_eq!(written(&map([(name.clone(), "abc")]), None, &name, None), b"\x10\x01x\x03abc");
    }

    #[test]
    fn lines_of_one_name_keep_their_order_and_empty_ones_stay() {
        let mut headers = map([(ACCEPT, "b")]);
        headers.append(ACCEPT, HeaderValue::from_static(""));
        headers.append(ACCEPT, HeaderValue::from_static("a"));
        let expected = b"\x00\x06accept\x01b\x00\x06accept\x00\x00\x06accept\x01a";
        assert_eq!(written(&headers, None, &AUTHORIZATION, None), expected);
    }

    #[test]
    #[should_panic(expected = "keep-alive")]
    fn what_must_not_cross_a_hop_would_be_noticed() {
        written(&map([(HeaderName::from_static("keep-alive"), "1")]), None, &AUTHORIZATION, None);
    }

    #[test]
    fn what_http_2_says_otherwise_is_left_out_and_the_length_is_the_bodys() {
        let headers = map([
            (HOST, "h"),
            (CONNECTION, "close"),
            (TRANSFER_ENCODING, "chunked"),
            (CONTENT_LENGTH, "7"),
            (COOKIE, "a"),
            (ACCEPT, "b"),
        ]);
        let with = |length| written(&headers, length, &AUTHORIZATION, None);
        assert_eq!(with(Some(12)), b"\x10\x06cookie\x01a\x00\x06accept\x01b\x00\x0econtent-length\x0212");
        assert_eq!(with(None), b"\x00\x0econtent-length\x017\x10\x06cookie\x01a\x00\x06accept\x01b");
    }
}
