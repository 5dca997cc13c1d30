//! A token or an API key that something else writes: a projected service-account token, a key from a vault's agent.
//!
//! The file is looked at every few seconds, and a new value is published at once. Whatever is bad about a later one (gone,
//! empty, half a token), the last good value stays in use.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::Fetched;
use crate::{
    invalid::Invalid,
    secret::SecretRef,
    token::{
        access_token::AccessToken,
        answer::{Issued, Lifetime},
        clock::Clock,
        error::FetchError,
        kept_secret::KeptSecret,
    },
};

/// The keys of a credential of type `file`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FileConfig {
    /// Where the token is; required.
    pub token: SecretRef,
    /// Until when it is believed.
    #[serde(default)]
    pub expiry: Expiry,
}

/// Until when a token from a file is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// For `default_lifetime` from each reading: as long as the file stays as it is.
    #[default]
    Reading,
    /// Until the `exp` of the JWT that it is. The one place where attaché looks into a token.
    Jwt,
}

/// A file that is ready to be read.
pub(in crate::token) struct FileSource {
    kept: KeptSecret,
    expiry: Expiry,
    clock: Clock,
    good: Good,
}

/// The last value that was fit to be a token.
struct Good {
    token: AccessToken,
    expires: Option<SystemTime>,
}

impl FileSource {
    /// Checks the section; a token must be there now.
    pub(in crate::token) fn build(config: &FileConfig, clock: Clock) -> Result<Self, Invalid> {
        let kept = KeptSecret::build(&config.token).map_err(|invalid| invalid.under("token"))?;
        let good = Good::parse(kept.value().expose(), config.expiry).map_err(|why| {
            Invalid::new("token", format!("holds no usable token: {why}"))
                .hint("check that the file holds the bare token and nothing else, in one line")
        })?;
        Ok(Self { kept, expiry: config.expiry, clock, good })
    }

    /// Reads the token.
    pub(in crate::token) fn fetch(&mut self) -> Result<Fetched, FetchError> {
        let lifetime = match self.good.expires {
            None => Lifetime::Unknown,
            Some(expires) => match expires.duration_since(self.clock.now().wall) {
                Ok(left) if !left.is_zero() => Lifetime::Known(left),
                _ => return Err(FetchError::Stale),
            },
        };
        let issued = Issued { token: self.good.token.clone(), lifetime, scope: None, refresh: None };
        Ok(Fetched { issued, narrowed: false, skew: None })
    }

    /// Whether there is a new good token. A bad one is told once, because the content is compared.
    pub(in crate::token) fn look(&mut self) -> bool {
        if !self.kept.look() {
            return false;
        }
        match Good::parse(self.kept.value().expose(), self.expiry) {
            Ok(good) => {
                self.good = good;
                true
            }
            Err(why) => {
                tracing::warn!(why, "a token file holds no usable token; the last good one stays in use");
                false
            }
        }
    }
}

impl Good {
    fn parse(value: &str, expiry: Expiry) -> Result<Self, &'static str> {
        let token = AccessToken::new(value).map_err(|_| "it has blanks or characters that are not ASCII")?;
        let expires = match expiry {
            Expiry::Reading => None,
            Expiry::Jwt => Some(exp(value).ok_or("it is not a JWT with an `exp`")?),
        };
        Ok(Self { token, expires })
    }
}

/// RFC 7519 §4.1.4: seconds since 1970, perhaps with a fraction, which is cut off.
fn exp(jwt: &str) -> Option<SystemTime> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let mut parts = jwt.split('.');
    let (_header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
    let Claims { exp } = serde_json::from_slice(&claims).ok()?;
    // The year 9999: whatever is later is not a time, and sums with it must not overflow.
    let whole = (0.0..=253_402_300_799.0).contains(&exp).then(|| exp.floor())?;
    UNIX_EPOCH.checked_add(Duration::from_secs_f64(whole))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, path::Path};

    use super::*;

    fn jwt(claims: &str) -> String {
        format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims))
    }

    fn source(path: &Path, expiry: Expiry) -> Result<FileSource, Invalid> {
        let token = SecretRef { file: Some(path.to_owned()), ..SecretRef::default() };
        let clock = Clock::with_wall(|| UNIX_EPOCH + Duration::from_secs(1_000));
        FileSource::build(&FileConfig { token, expiry }, clock)
    }

    fn file(content: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file
    }

    #[test]
    fn f13_a_new_token_is_taken_and_a_bad_one_is_not() {
        let file = file("one\n");
        let mut source = source(file.path(), Expiry::Reading).unwrap();
        let token = |source: &mut FileSource| source.fetch().unwrap().issued.token.expose().to_owned();
        assert!(!source.look());
        assert_eq!(token(&mut source), "one");
        fs::write(file.path(), "two").unwrap();
        assert!(source.look());
        assert_eq!(token(&mut source), "two");
        for bad in ["", "a b", "a\nb", "é"] {
            fs::write(file.path(), bad).unwrap();
            assert!(!source.look(), "{bad:?}");
            assert_eq!(token(&mut source), "two");
        }
        fs::remove_file(file.path()).unwrap();
        assert_eq!(token(&mut source), "two");
    }

    #[test]
    fn a_jwt_expires_when_it_says_so_and_only_when_asked() {
        let file = file(&jwt("{\"exp\":1060.9}"));
        let lifetime = |expiry| source(file.path(), expiry).unwrap().fetch().unwrap().issued.lifetime;
        assert_eq!(lifetime(Expiry::Jwt), Lifetime::Known(Duration::from_secs(60)));
        assert_eq!(lifetime(Expiry::Reading), Lifetime::Unknown);
        fs::write(file.path(), jwt("{\"exp\":1000}")).unwrap();
        assert_eq!(source(file.path(), Expiry::Jwt).unwrap().fetch().unwrap_err(), FetchError::Stale);
    }

    #[test]
    fn what_is_no_jwt_with_an_end_is_refused_without_being_shown() {
        for content in
            ["Hunter2", "a.b.c", &jwt("{}"), &jwt("{\"exp\":-1}"), &jwt("{\"exp\":1e300}"), &jwt("[]")]
        {
            let Err(invalid) = source(file(content).path(), Expiry::Jwt) else { panic!("{content}") };
            assert_eq!(invalid.key(), "token");
            assert!(!invalid.to_string().contains(content));
        }
    }
}
