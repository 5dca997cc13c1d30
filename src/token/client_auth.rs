//! How the OAuth client authenticates at the token endpoint: exactly one way a request (RFC 6749 §2.3).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use form_urlencoded::Serializer;
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use super::{
    kept_secret::KeptSecret,
    source::{ClientAuthMethod, ClientCredentialsConfig},
};
use crate::invalid::Invalid;

/// An authentication method with what it needs.
#[derive(Debug)]
pub(super) enum ClientAuth {
    Basic { secret: KeptSecret, raw: bool },
    Post { secret: KeptSecret },
    None,
}

impl ClientAuth {
    /// Checks that the method has what it needs, and nothing that it would ignore.
    pub(super) fn build(config: &ClientCredentialsConfig) -> Result<Self, Invalid> {
        let secret = || {
            let reference = config.client_secret.as_ref().ok_or_else(|| {
                Invalid::new("client_secret", "is missing")
                    .hint("write `client_secret = { file = \"/run/secrets/name\" }` or `{ env = \"NAME\" }`")
            })?;
            KeptSecret::build(reference).map_err(|invalid| invalid.under("client_secret"))
        };
        Ok(match config.client_auth {
            ClientAuthMethod::ClientSecretBasic => Self::Basic { secret: secret()?, raw: false },
            ClientAuthMethod::ClientSecretBasicRaw => {
                if config.client_id.contains(':') {
                    return Err(Invalid::new(
                        "client_id",
                        "holds a `:`, which Basic without encoding cannot carry",
                    )
                    .hint("use `client_secret_basic` or `client_secret_post`"));
                }
                Self::Basic { secret: secret()?, raw: true }
            }
            ClientAuthMethod::ClientSecretPost => Self::Post { secret: secret()? },
            ClientAuthMethod::None if config.client_secret.is_some() => {
                return Err(Invalid::new("client_secret", "is given, but `client_auth` is `none`"));
            }
            ClientAuthMethod::None => Self::None,
        })
    }

    /// Adds what goes into the body; returns what goes into `Authorization`.
    pub(super) fn apply(&self, client_id: &str, form: &mut Serializer<'_, String>) -> Option<HeaderValue> {
        match self {
            Self::Basic { secret, raw } => Some(basic(client_id, secret.value().expose(), *raw)),
            Self::Post { secret } => {
                form.append_pair("client_id", client_id)
                    .append_pair("client_secret", secret.value().expose());
                None
            }
            Self::None => {
                form.append_pair("client_id", client_id);
                None
            }
        }
    }

    /// Whether a secret has been replaced.
    pub(super) fn look(&mut self) -> bool {
        match self {
            Self::Basic { secret, .. } | Self::Post { secret } => secret.look(),
            Self::None => false,
        }
    }
}

/// RFC 6749 §2.3.1: id and secret are form-urlencoded before they are joined; `raw` is for servers that do not decode.
fn basic(id: &str, secret: &str, raw: bool) -> HeaderValue {
    let encode = |text: &str| {
        let encoded = form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        Zeroizing::new(if raw { text.to_owned() } else { encoded })
    };
    let pair = Zeroizing::new(format!("{}:{}", *encode(id), *encode(secret)));
    let value = format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes()));
    let mut value = HeaderValue::try_from(value).expect("Base64 is visible ASCII");
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_and_secret_are_encoded_before_basic() {
        let decode = |value: HeaderValue| {
            let text = value.to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
            String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap()
        };
        let (id, secret) = ("a b+%:&", "=?\"~/é");
        assert_eq!(decode(basic(id, secret, false)), "a+b%2B%25%3A%26:%3D%3F%22%7E%2F%C3%A9");
        assert_eq!(decode(basic("id", secret, true)), "id:=?\"~/é");
        assert!(basic(id, secret, false).is_sensitive());
    }
}
