//! What a provider says about itself (RFC 8414 §2, OpenID Connect Discovery 1.0 §3): the few members that attaché uses.
//! Anyone may have written it; a member that is not what it should be is as good as not there.

use serde_json::{Map, Value};
use url::Url;

use super::{client_auth::ClientAuthMethod, error::FetchError, http::provider_url};

/// An endpoint that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Token,
    Introspection,
    Userinfo,
    Keys,
}

impl Wanted {
    /// The member of the metadata.
    pub(super) fn member(self) -> &'static str {
        match self {
            Self::Token => "token_endpoint",
            Self::Introspection => "introspection_endpoint",
            Self::Userinfo => "userinfo_endpoint",
            Self::Keys => "jwks_uri",
        }
    }

    fn missing(self) -> FetchError {
        FetchError::Metadata(match self {
            Self::Token => "it has no `token_endpoint`",
            Self::Introspection => "it has no `introspection_endpoint`",
            Self::Userinfo => "it has no `userinfo_endpoint`",
            Self::Keys => "it has no `jwks_uri`",
        })
    }

    fn unusable(self) -> FetchError {
        FetchError::Metadata(match self {
            Self::Token => "its `token_endpoint` is not an https URL",
            Self::Introspection => "its `introspection_endpoint` is not an https URL",
            Self::Userinfo => "its `userinfo_endpoint` is not an https URL",
            Self::Keys => "its `jwks_uri` is not an https URL",
        })
    }
}

/// Where a URL in the metadata may lead without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plaintext {
    /// The issuer is https. What it says must not lead to a port of this machine that anyone may have taken.
    Nowhere,
    /// The issuer itself is asked without TLS, on this machine.
    Loopback,
    /// The operator has allowed it with `unsafe_plaintext`, and the issuer is http.
    Anywhere,
}

/// Metadata of the configured issuer.
pub(super) struct Metadata(Map<String, Value>);

impl Metadata {
    /// Reads it; RFC 8414 §3.3: its issuer must be the configured one, character by character.
    pub(super) fn read(body: &[u8], issuer: &str) -> Result<Self, FetchError> {
        let metadata: Map<String, Value> =
            serde_json::from_slice(body).map_err(|_| FetchError::Metadata("it is not a JSON object"))?;
        match metadata.get("issuer").and_then(Value::as_str) {
            Some(own) if own == issuer => Ok(Self(metadata)),
            _ => Err(FetchError::Metadata("its `issuer` is not the configured one, character by character")),
        }
    }

    /// The URL of an endpoint. A client that shows a certificate takes the one that asks for it, where there is one
    /// (RFC 8705 §5), and takes none without TLS.
    pub(super) fn url(
        &self,
        wanted: Wanted,
        mutual_tls: bool,
        plaintext: Plaintext,
    ) -> Result<Url, FetchError> {
        let member = wanted.member();
        let alias = self.0.get("mtls_endpoint_aliases").and_then(|aliases| aliases.get(member));
        let found = alias.filter(|_| mutual_tls).or_else(|| self.0.get(member));
        let found = found.and_then(Value::as_str).ok_or_else(|| wanted.missing())?;
        let anywhere = plaintext == Plaintext::Anywhere;
        let url = provider_url(member, found, anywhere).map_err(|_| wanted.unusable())?;
        let needs_tls = mutual_tls && matches!(wanted, Wanted::Token | Wanted::Introspection);
        if url.scheme() != "https" && (needs_tls || plaintext == Plaintext::Nowhere) {
            return Err(wanted.unusable());
        }
        Ok(url)
    }

    /// The ways of client authentication that it lists, as far as attaché knows them: nothing of it is printed that is
    /// not in our own list. Nothing when it lists none, which is its right.
    pub(super) fn methods(&self) -> Option<Vec<ClientAuthMethod>> {
        let listed = self.0.get("token_endpoint_auth_methods_supported")?.as_array()?;
        let known = |name: &Value| serde_json::from_value(name.clone()).ok();
        Some(listed.iter().filter_map(known).collect())
    }
}

/// What is wrong with the configured way of client authentication, by the provider's own word.
pub(super) fn contradiction(method: ClientAuthMethod, listed: &[ClientAuthMethod]) -> Option<String> {
    let registered = |method: &ClientAuthMethod| method.registered();
    if listed.iter().any(|listed| registered(listed) == method.registered()) {
        return None;
    }
    Some(match listed {
        [] => "the provider's metadata lists no method that attaché knows".to_owned(),
        listed => format!("the provider's metadata lists only {}", names(listed)),
    })
}

/// These ways of client authentication, for people.
pub(super) fn names(listed: &[ClientAuthMethod]) -> String {
    let mut names: Vec<_> = listed.iter().map(|method| method.name()).collect();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use ClientAuthMethod as Method;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_metadata_panics(body in proptest::collection::vec(any::<u8>(), 0..200), member in "[\\[\\]{}\",:a-z0-9]{0,30}") {
            let _ = Metadata::read(&body, "https://a").map(|_| ());
            let names = "\"token_endpoint_auth_methods_supported\":[\"none\"],\"mtls_endpoint_aliases\"";
            let text = format!("{{\"issuer\":\"https://a\",{names}:{member}}}");
            if let Ok(metadata) = Metadata::read(text.as_bytes(), "https://a") {
                let _ = (metadata.url(Wanted::Token, true, Plaintext::Nowhere), metadata.methods());
            }
        }
    }

    fn read(text: &str) -> Metadata {
        Metadata::read(format!("{{\"issuer\":\"https://a\",{text}}}").as_bytes(), "https://a").unwrap()
    }

    #[test]
    fn a_client_with_a_certificate_takes_the_alias_and_never_plain_text() {
        let metadata = read(
            "\"token_endpoint\":\"https://a/t\",\"introspection_endpoint\":\"http://127.0.0.1/i\",\
             \"mtls_endpoint_aliases\":{\"token_endpoint\":\"https://m/t\"}",
        );
        let url =
            |wanted, mutual| metadata.url(wanted, mutual, Plaintext::Anywhere).map(|url| url.to_string());
        assert_eq!(url(Wanted::Token, false).unwrap(), "https://a/t");
        assert_eq!(url(Wanted::Token, true).unwrap(), "https://m/t");
        assert!(url(Wanted::Introspection, false).is_ok() && url(Wanted::Introspection, true).is_err());
        let plain = |plaintext| metadata.url(Wanted::Introspection, false, plaintext);
        assert!(plain(Plaintext::Loopback).is_ok());
        assert!(plain(Plaintext::Nowhere).is_err(), "http only if the issuer is");
        assert_eq!(url(Wanted::Keys, false), Err(FetchError::Metadata("it has no `jwks_uri`")));
    }

    #[test]
    fn members_of_the_wrong_type_are_as_good_as_not_there() {
        let odd = read(
            "\"token_endpoint\":7,\"mtls_endpoint_aliases\":[],\"token_endpoint_auth_methods_supported\":\"x\"",
        );
        assert!(odd.url(Wanted::Token, true, Plaintext::Nowhere).is_err() && odd.methods().is_none());
        let odd = read("\"token_endpoint_auth_methods_supported\":[7,\"hunter2\",\"private_key_jwt\"]");
        assert_eq!(odd.methods(), Some(vec![Method::PrivateKeyJwt]));
    }

    #[test]
    fn a_method_that_is_not_listed_is_told_with_those_that_are() {
        let listed = [Method::PrivateKeyJwt];
        let told = contradiction(Method::ClientSecretBasic, &listed).unwrap();
        assert_eq!(told, "the provider's metadata lists only private_key_jwt");
        assert!(contradiction(Method::None, &[]).unwrap().contains("no method"));
        for method in [Method::PrivateKeyJwt, Method::ClientAssertion] {
            assert_eq!(contradiction(method, &listed), None);
        }
        assert_eq!(contradiction(Method::ClientSecretBasicRaw, &[Method::ClientSecretBasic]), None);
    }
}
