//! A user name and a password for HTTP Basic (RFC 7617), where an upstream offers nothing else. Both are files or variables;
//! a file is looked at every few seconds, and a new pair is in use at once.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::Fetched;
use crate::{
    invalid::Invalid,
    secret::SecretRef,
    token::{
        access_token::AccessToken,
        answer::{Issued, Lifetime},
        client_auth::kept,
        error::FetchError,
        kept_secret::KeptSecret,
    },
};

/// The keys of a credential of type `basic`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BasicConfig {
    /// The user name; it must not hold a colon.
    pub user: SecretRef,
    /// The password.
    pub password: SecretRef,
}

/// A pair that is ready to be sent.
pub(in crate::token) struct Basic {
    username: KeptSecret,
    password: KeptSecret,
    good: AccessToken,
}

impl Basic {
    /// Checks the section; both must be there now.
    pub(in crate::token) fn build(config: &BasicConfig) -> Result<Self, Invalid> {
        let username = kept("user", Some(&config.user))?;
        let password = kept("password", Some(&config.password))?;
        let good = pair(&username, &password).map_err(|why| Invalid::new("user", why))?;
        Ok(Self { username, password, good })
    }

    /// What stands behind `Basic` in the header.
    pub(in crate::token) fn fetch(&self) -> Result<Fetched, FetchError> {
        let issued =
            Issued { token: self.good.clone(), lifetime: Lifetime::Unknown, scope: None, refresh: None };
        Ok(Fetched { issued, narrowed: false, skew: None })
    }

    /// Whether there is a new good pair.
    pub(in crate::token) fn look(&mut self) -> bool {
        if !(self.username.look() | self.password.look()) {
            return false;
        }
        match pair(&self.username, &self.password) {
            Ok(good) => {
                self.good = good;
                true
            }
            Err(why) => {
                tracing::warn!(why, "a new user name cannot be used; the last good pair stays in use");
                false
            }
        }
    }
}

/// RFC 7617 §2: joined by a colon, so that the user name must not hold one; no control characters in either.
fn pair(username: &KeptSecret, password: &KeptSecret) -> Result<AccessToken, &'static str> {
    let (username, password) = (username.value().expose(), password.value().expose());
    if username.contains(':') {
        return Err("it holds a colon, which Basic cannot carry");
    }
    if username.chars().chain(password.chars()).any(char::is_control) {
        return Err("it, or the password, holds a control character");
    }
    let joined = Zeroizing::new(format!("{username}:{password}"));
    AccessToken::new(BASE64_STANDARD.encode(joined.as_bytes())).map_err(|_| "it cannot be sent")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_fetch_reads_no_file_and_leaves_what_is_new_to_the_next_look() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            SecretRef { file: Some(path), ..SecretRef::default() }
        };
        let config = BasicConfig { user: write("user", "u"), password: write("password", "old") };
        let mut basic = Basic::build(&config).unwrap();
        let token = |basic: &Basic| basic.fetch().unwrap().issued.token.expose().to_owned();
        let old = token(&basic);
        write("password", "new");
        assert_eq!(token(&basic), old);
        assert!(basic.look());
        assert_ne!(token(&basic), old);
    }
}
