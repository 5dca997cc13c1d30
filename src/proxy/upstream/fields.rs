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
    /// What attaché injects. Any other field of that name is of an earlier sending, over HTTP/1.1.
    pub(in crate::proxy) credential: Option<(&'a HeaderName, &'a HeaderValue)>,
}

impl Fields<'_> {
    /// Writes them, without what HTTP/2 says otherwise (RFC 9113 §8.2.2, §8.3.1). The rest of the hop-by-hop fields does not get
    /// this far.
    pub(super) fn write(&self, into: &mut Vec<u8>) {
        for (name, value) in self.headers {
            let is_of_http_1 = *name == HOST || *name == CONNECTION || *name == TRANSFER_ENCODING;
            let is_replaced = (self.length.is_some() && *name == CONTENT_LENGTH)
                || self.credential.is_some_and(|(injected, _)| injected == name);
            if !is_of_http_1 && !is_replaced {
                // Which fields a caller over HTTP/2 has marked, the library does not tell.
                let is_secret = *name == AUTHORIZATION || *name == COOKIE;
                let indexing = if is_secret { Indexing::Never } else { Indexing::Without };
                literal(name, value.as_bytes(), indexing, into);
            }
        }
        if let Some(length) = self.length {
            literal(&CONTENT_LENGTH, HeaderValue::from(length).as_bytes(), Indexing::Without, into);
        }
        if let Some((name, value)) = self.credential {
            literal(name, value.as_bytes(), Indexing::Never, into);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;

    fn written(fields: Fields<'_>) -> Vec<u8> {
        let mut block = Vec::new();
        fields.write(&mut block);
        block
    }

    fn map<const N: usize>(lines: [(HeaderName, &'static str); N]) -> HeaderMap {
        HeaderMap::from_iter(lines.map(|(name, value)| (name, HeaderValue::from_static(value))))
    }

    #[test]
    fn no_credential_of_an_earlier_sending_is_beside_the_one_that_is_injected() {
        let headers = map([(AUTHORIZATION, "refused")]);
        let fresh = HeaderValue::from_static("fresh");
        // RFC 7541 §6.2.3: 0001, and 23.
        let credential = Some((&AUTHORIZATION, &fresh));
        assert_eq!(written(Fields { headers: &headers, length: None, credential }), b"\x1f\x08\x05fresh");
        // Where attaché injects nothing, it is the caller's own.
        let without = Fields { headers: &headers, length: None, credential: None };
        assert_eq!(written(without), b"\x1f\x08\x07refused");
    }

    #[test]
    fn a_credential_is_told_never_to_be_indexed_whatever_its_name() {
        let (name, value) = (HeaderName::from_static("x"), HeaderValue::from_static("abc"));
        let headers = HeaderMap::new();
        let fields = Fields { headers: &headers, length: None, credential: Some((&name, &value)) };
        assert_eq!(written(fields), b"\x10\x01x\x03abc");
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
        let with = |length| written(Fields { headers: &headers, length, credential: None });
        assert_eq!(with(Some(12)), b"\x10\x06cookie\x01a\x00\x06accept\x01b\x00\x0econtent-length\x0212");
        assert_eq!(with(None), b"\x00\x0econtent-length\x017\x10\x06cookie\x01a\x00\x06accept\x01b");
    }
}
