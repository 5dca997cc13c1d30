//! A family of refresh tokens: what came from one token by rotation (RFC 9700 §4.14.2). Pure: what an answer makes of it.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Serialize;

use super::{
    answer::IssuedRefresh,
    store::{StoredRefresh, seconds},
};
use crate::secret::Secret;

/// An end that moves by less than this, in seconds, has not moved: answers count in whole seconds from when they were made.
const SAME_END: u64 = 60;

/// The family in use.
#[derive(Clone, Debug)]
pub(super) struct Family {
    pub(super) stored: StoredRefresh,
    /// How often its newest token was presented without an answer.
    pub(super) unanswered: u32,
    /// The provider has refused it.
    pub(super) refused: bool,
    /// The origin of a later token that the provider refused, so that this family goes on.
    pub(super) outlived: Option<String>,
}

/// How a family is, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FamilyStatus {
    /// Whether its newest token can be used.
    pub state: FamilyState,
    /// When it began, in seconds since 1970.
    pub began_at: u64,
    /// When it ends for good, in seconds since 1970, as far as that is known.
    pub ends_at: Option<u64>,
}

/// Whether the newest refresh token can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FamilyState {
    /// Nothing speaks against it.
    Usable,
    /// Two answers to it were lost.
    InDoubt,
    /// The provider does not accept it any more.
    Refused,
}

impl Family {
    pub(super) fn begin(token: Secret, origin: String, now: SystemTime) -> Self {
        Self::of_store(StoredRefresh { token, origin, began: seconds(now), expires: None, ends: None })
    }

    pub(super) fn of_store(stored: StoredRefresh) -> Self {
        Self { stored, unanswered: 0, refused: false, outlived: None }
    }

    /// An access token came, and perhaps another refresh token. Returns whether the token is another one now.
    ///
    /// When the family ends: as long after its begin as the configuration says; else when the provider says, once a later
    /// answer says the same. An end that moves on with each answer is that of an idle session, which never comes.
    pub(super) fn answered(
        &mut self,
        issued: Option<&IssuedRefresh>,
        now: SystemTime,
        lifetime: Option<Duration>,
    ) -> bool {
        (self.unanswered, self.refused) = (0, false);
        let stored = &mut self.stored;
        let told =
            issued.and_then(|issued| issued.lifetime).map(|left| seconds(now).saturating_add(left.as_secs()));
        stored.ends = match (lifetime, stored.expires, told) {
            (Some(lifetime), ..) => Some(stored.began.saturating_add(lifetime.as_secs())),
            (None, Some(before), Some(told)) => (told <= before.saturating_add(SAME_END)).then_some(told),
            (None, ..) => stored.ends,
        };
        stored.expires = told.or(stored.expires);
        match issued {
            Some(issued) if issued.token != stored.token => {
                stored.token = issued.token.clone();
                true
            }
            _ => false,
        }
    }
}

/// A digest of where a family comes from: of its first token and of whom it is presented to, so that no token that a store
/// holds is ever presented to somebody else. A refresh token is too long to be guessed from it.
pub(super) fn origin(initial: &Secret, audience: &str) -> String {
    fingerprint(&[initial.expose(), audience])
}

/// A digest of these parts, each of which ends where it ends.
pub(super) fn fingerprint(parts: &[&str]) -> String {
    let mut text = zeroize::Zeroizing::new(Vec::new());
    for part in parts {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part.as_bytes());
    }
    BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, &text))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn family() -> Family {
        Family::begin(Secret::new("first"), origin(&Secret::new("first"), "a"), at(1_000))
    }

    fn issued(token: &str, lifetime: Option<u64>) -> IssuedRefresh {
        IssuedRefresh { token: Secret::new(token), lifetime: lifetime.map(Duration::from_secs) }
    }

    #[test]
    fn an_end_that_slides_is_none_and_one_that_stays_is_the_familys() {
        let mut family = family();
        family.answered(Some(&issued("second", Some(1_800))), at(1_000), None);
        assert_eq!(family.stored.ends, None, "one answer does not tell");
        family.answered(Some(&issued("third", Some(1_800))), at(1_200), None);
        assert_eq!(family.stored.ends, None, "it slides");
        family.answered(Some(&issued("fourth", Some(1_600))), at(1_400), None);
        assert_eq!(family.stored.ends, Some(3_000), "it does not slide any more");
        family.answered(Some(&issued("fifth", Some(3_600))), at(1_500), None);
        assert_eq!(family.stored.ends, None);
    }

    #[test]
    fn a_configured_lifetime_counts_from_the_first_token() {
        let mut family = family();
        assert!(family.answered(Some(&issued("second", None)), at(5_000), Some(Duration::from_secs(10_000))));
        assert_eq!((family.stored.began, family.stored.ends), (1_000, Some(11_000)));
        assert_eq!(family.stored.token, Secret::new("second"));
    }

    #[test]
    fn a_store_that_tells_of_times_that_never_come_is_no_reason_to_panic() {
        let mut family = family();
        (family.stored.began, family.stored.expires) = (u64::MAX, Some(u64::MAX));
        family.answered(Some(&issued("second", Some(60))), at(1_000), None);
        assert_eq!(family.stored.ends, Some(1_060));
        family.answered(None, at(1_000), Some(Duration::from_secs(60)));
        assert_eq!(family.stored.ends, Some(u64::MAX));
    }

    #[test]
    fn an_answer_without_a_refresh_token_leaves_the_old_one() {
        let mut family = family();
        family.unanswered = 1;
        assert!(!family.answered(None, at(2_000), None));
        assert!(!family.answered(Some(&issued("first", None)), at(2_000), None));
        assert_eq!((family.stored.token, family.unanswered), (Secret::new("first"), 0));
    }

    #[test]
    fn a_fingerprint_tells_apart_what_is_cut_elsewhere() {
        assert_ne!(fingerprint(&["ab", "c"]), fingerprint(&["a", "bc"]));
        assert_ne!(origin(&Secret::new("a"), "x"), origin(&Secret::new("a"), "y"));
    }
}
