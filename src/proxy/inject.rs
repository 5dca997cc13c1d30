//! The credential on a request: every spelling of the caller's is removed, ours is set, last of all.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries the token of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Injection {
    name: HeaderName,
    // Lower-case letters and digits of the name: what is left of it in a CGI-style environment.
    letters: Box<[u8]>,
}

impl Injection {
    pub(super) fn new(name: HeaderName) -> Self {
        let letters = name.as_str().bytes().filter(u8::is_ascii_alphanumeric).collect();
        Self { name, letters }
    }

    /// Whether a header may carry a token: not one that frames a message, names its host or belongs to one hop.
    pub(super) fn may_carry(name: &HeaderName) -> bool {
        !matches!(
            name.as_str(),
            "host"
                | "connection"
                | "content-length"
                | "transfer-encoding"
                | "te"
                | "trailer"
                | "upgrade"
                | "expect"
                | "via"
                | "keep-alive"
                | "proxy-connection"
                | "proxy-authorization"
                | "content-type"
                | "content-encoding"
                | "date"
        )
    }

    /// Removes the caller's own: every header whose letters and digits are those of the injected one, whatever stands
    /// between them, because servers exist that read `X_Api.Key` as `X-Api-Key`.
    pub(super) fn remove_spellings(&self, headers: &mut HeaderMap) {
        let mut is_plain = false;
        let is_other = |name: &&HeaderName| {
            is_plain |= **name == self.name;
            **name != self.name && self.is_spelling(name)
        };
        // Allocates only when there is something to remove.
        let other: Vec<HeaderName> = headers.keys().filter(is_other).cloned().collect();
        for name in &other {
            headers.remove(name);
        }
        if is_plain {
            headers.remove(&self.name);
        }
    }

    /// Whether the caller sent one, in any spelling.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        headers.keys().any(|name| self.is_spelling(name))
    }

    /// Whether there is exactly one, in the plain spelling; none at all is fine as well, and anything else is not.
    pub(super) fn only(&self, headers: &HeaderMap) -> Result<bool, ()> {
        let mut spellings = headers.keys().filter(|name| self.is_spelling(name));
        match (spellings.next(), spellings.next()) {
            (None, _) => Ok(false),
            (Some(name), None) if *name == self.name && headers.get_all(name).iter().count() == 1 => Ok(true),
            _ => Err(()),
        }
    }

    /// Sets the one credential. Neither copies the value nor allocates for it.
    pub(super) fn set(&self, headers: &mut HeaderMap, value: &HeaderValue) {
        headers.insert(self.name.clone(), value.clone());
    }

    /// The name of the header.
    pub(super) fn name(&self) -> &HeaderName {
        &self.name
    }

    /// Whether a name could be read as the injected one.
    pub(super) fn is_spelling(&self, name: &HeaderName) -> bool {
        // `HeaderName` is lower-case already. One that is shorter cannot be, and most are.
        let name = name.as_str();
        name.len() >= self.letters.len()
            && name.bytes().filter(u8::is_ascii_alphanumeric).eq(self.letters.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_the_injected_name_goes() {
        let injection = Injection::new(HeaderName::from_static("x-api-key"));
        let mut headers = HeaderMap::new();
        for name in ["x-api-key", "x_api_key", "x_api.key", "xapikey", "x-api-key-", "x-api-keys", "api-key"]
        {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("caller"));
        }
        injection.remove_spellings(&mut headers);
        injection.set(&mut headers, &HeaderValue::from_static("ours"));
        let mut left: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(left, [("api-key", "caller"), ("x-api-key", "ours"), ("x-api-keys", "caller")]);
    }

    #[test]
    fn stripping_and_injecting_allocate_nothing_for_an_ordinary_request() {
        let injection = Injection::new(http::header::AUTHORIZATION);
        let format = crate::token::Format::default();
        let ours = format.render(&crate::token::AccessToken::new("x".repeat(900)).unwrap());
        let mut headers = HeaderMap::with_capacity(16);
        for name in
            ["host", "accept", "user-agent", "connection", "authorization", "content-type", "x-request-id"]
        {
            headers.append(name, HeaderValue::from_static("keep-alive"));
        }
        let counted = allocation_counter::measure(|| {
            let seen = super::super::seen::Seen::of(&headers);
            super::super::hop::strip_request(&mut headers, seen);
            injection.remove_spellings(&mut headers);
            injection.set(&mut headers, &ours);
        });
        assert_eq!(counted.count_total, 0, "{counted:?}");
        assert_eq!(headers["authorization"], ours);
        // The counter counts: the same with something odd to remove does allocate.
        headers.append("author_ization", HeaderValue::from_static("caller"));
        assert!(allocation_counter::measure(|| injection.remove_spellings(&mut headers)).count_total > 0);
    }

    proptest! {
        #[test]
        fn exactly_one_credential_leaves(
            names in proptest::collection::vec("authori[-_.~]?zation|AUTHORI[-_.]?Zation|author-ization|[a-z-]{1,12}|connection", 0..24)
        ) {
            let injection = Injection::new(http::header::AUTHORIZATION);
            let mut headers = HeaderMap::new();
            for name in &names {
                headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("authorization"));
            }
            let seen = super::super::seen::Seen::of(&headers);
            super::super::hop::strip_request(&mut headers, seen);
            injection.remove_spellings(&mut headers);
            injection.set(&mut headers, &HeaderValue::from_static("Bearer ours"));
            let credentials: Vec<_> = headers
                .iter()
                .filter(|(name, _)| {
                    name.as_str().replace(|c: char| !c.is_ascii_alphanumeric(), "").eq_ignore_ascii_case("authorization")
                })
                .collect();
            prop_assert_eq!(credentials.len(), 1);
            prop_assert_eq!(credentials[0].1, "Bearer ours");
        }
    }
}
