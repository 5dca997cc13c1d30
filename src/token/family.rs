//! A family of refresh tokens: what came from one token by rotation (RFC 9700 §4.14.2). Pure: what an answer makes of it.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Serialize;

use super::{
    answer::IssuedRefresh,
    oauth::OAuthConfig,
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
    pub(super) fn begin(token: Secret, origin: Origin, now: SystemTime) -> Self {
        let Origin { both, initial, audience } = origin;
        Self::of_store(StoredRefresh {
            token,
            origin: both,
            initial: Some(initial),
            audience: Some(audience),
            began: seconds(now),
            expires: None,
            ends: None,
        })
    }

    /// How it is, where so many lost answers are a doubt.
    pub(super) fn status(&self, tries: u32) -> FamilyStatus {
        let state = match (self.refused, self.unanswered >= tries) {
            (true, _) => FamilyState::Refused,
            (false, true) => FamilyState::InDoubt,
            (false, false) => FamilyState::Usable,
        };
        FamilyStatus { state, began_at: self.stored.began, ends_at: self.stored.ends }
    }

    /// Goes on with a token that another grant brought.
    pub(super) fn begin_again(&mut self, token: Secret, now: SystemTime) {
        let stored = self.stored.clone();
        *self =
            Self::of_store(StoredRefresh { token, began: seconds(now), expires: None, ends: None, ..stored });
    }

    pub(super) fn of_store(stored: StoredRefresh) -> Self {
        Self { stored, unanswered: 0, refused: false, outlived: None }
    }

    /// What it has to do with this token, which is its own also when it goes on in place of that one.
    pub(super) fn kinship(&mut self, audience: &Audience, initial: &Secret) -> Kinship {
        match &self.outlived {
            Some(outlived) if *outlived == audience.origin(initial).both => Kinship::Own,
            _ => audience.kinship(&mut self.stored, initial),
        }
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

/// Where a family comes from: digests of its first token, of whom it is presented to, and of both, so that no token that a
/// store holds is ever presented to somebody else. A refresh token is too long to be guessed from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) both: String,
    initial: String,
    audience: String,
}

/// Whom refresh tokens are presented to, and as whom.
#[derive(Debug)]
pub(super) struct Audience {
    name: String,
    /// Beside an issuer, tokens still go to the endpoint that is given: what came from there goes there.
    endpoint: Option<String>,
}

/// What a family that is there has to do with the token and the provider in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kinship {
    /// It came from this token, and from this provider.
    Own,
    /// It came from another token, and from this provider.
    Earlier,
    /// It came from this token, and from another provider or for another client.
    Elsewhere,
    /// It came from another token; from which provider is not known, or it is another one.
    Stranger,
}

impl Audience {
    pub(super) fn new(oauth: &OAuthConfig, client_id: &str) -> Self {
        let endpoint = oauth.token_endpoint.as_ref();
        let name = |provider: &String| format!("{provider} {client_id}");
        Self {
            name: name(oauth.issuer.as_ref().or(endpoint).unwrap_or(&String::new())),
            endpoint: endpoint.filter(|_| oauth.issuer.is_some()).map(name),
        }
    }

    /// The origin of a family that begins with this token.
    pub(super) fn origin(&self, initial: &Secret) -> Origin {
        origin(initial, &self.name)
    }

    fn origins(&self, initial: &Secret) -> impl Iterator<Item = Origin> {
        [Some(&self.name), self.endpoint.as_ref()].into_iter().flatten().map(|name| origin(initial, name))
    }

    /// Whether what has this origin came from this token and this provider.
    pub(super) fn is_origin(&self, both: &str, initial: &Secret) -> bool {
        self.origins(initial).any(|origin| origin.both == both)
    }

    /// What a family has to do with this token. One that was stored without the two digests gets them as soon as they are
    /// known.
    pub(super) fn kinship(&self, stored: &mut StoredRefresh, initial: &Secret) -> Kinship {
        if let Some(own) = self.origins(initial).find(|origin| origin.both == stored.origin) {
            (stored.initial, stored.audience) = (Some(own.initial), Some(own.audience));
            return Kinship::Own;
        }
        let mut origins = self.origins(initial);
        // A token that was never replaced is not spent: it may be presented wherever the configuration says.
        if stored.initial == Some(fingerprint(&[initial.expose()])) && stored.token != *initial {
            Kinship::Elsewhere
        } else if origins.any(|origin| stored.audience == Some(origin.audience)) {
            Kinship::Earlier
        } else {
            Kinship::Stranger
        }
    }
}

fn origin(initial: &Secret, audience: &str) -> Origin {
    Origin {
        both: fingerprint(&[initial.expose(), audience]),
        initial: fingerprint(&[initial.expose()]),
        audience: fingerprint(&["audience", audience]),
    }
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
        assert_ne!(origin(&Secret::new("a"), "x").both, origin(&Secret::new("a"), "y").both);
    }

    fn audience(issuer: &str, endpoint: &str, client_id: &str) -> Audience {
        let some = |url: &str| Some(url.to_owned()).filter(|url| !url.is_empty());
        let mut oauth: OAuthConfig = serde_json::from_str("{}").unwrap();
        (oauth.issuer, oauth.token_endpoint) = (some(issuer), some(endpoint));
        Audience::new(&oauth, client_id)
    }

    #[test]
    fn a_family_belongs_to_the_provider_and_the_token_that_it_came_from() {
        let (first, other) = (Secret::new("first"), Secret::new("other"));
        let mut stored = Family::begin(first.clone(), audience("", "t", "c").origin(&first), at(1)).stored;
        assert_eq!(audience("i", "", "c").kinship(&mut stored, &first), Kinship::Stranger, "not spent");
        stored.token = Secret::new("second");
        for (issuer, endpoint, client, of_first, of_other) in [
            ("", "t", "c", Kinship::Own, Kinship::Earlier),
            ("i", "t", "c", Kinship::Own, Kinship::Earlier),
            ("i", "", "c", Kinship::Elsewhere, Kinship::Stranger),
            ("i", "u", "c", Kinship::Elsewhere, Kinship::Stranger),
            ("", "t", "d", Kinship::Elsewhere, Kinship::Stranger),
        ] {
            let audience = audience(issuer, endpoint, client);
            assert_eq!(audience.kinship(&mut stored, &first), of_first, "{issuer} {endpoint} {client}");
            assert_eq!(audience.kinship(&mut stored, &other), of_other, "{issuer} {endpoint} {client}");
        }
        // As an earlier version wrote it.
        (stored.initial, stored.audience) = (None, None);
        let audience = audience("i", "t", "c");
        assert_eq!(audience.kinship(&mut stored, &other), Kinship::Stranger);
        assert_eq!(audience.kinship(&mut stored, &first), Kinship::Own);
        assert_eq!(audience.kinship(&mut stored, &other), Kinship::Earlier, "known from now on");
    }
}
