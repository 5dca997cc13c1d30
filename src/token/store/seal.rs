//! Encryption of a store at rest: AES-256-GCM, with a key that is derived from a secret (HKDF-SHA-256, RFC 5869).

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
};
use zeroize::Zeroizing;

use super::error::StoreError;
use crate::secret::Secret;

/// What a sealed store begins with. It is authenticated too.
const MAGIC: &[u8] = b"attache-sealed-1\n";

/// What a secret needs to be a key: 128 bits, even as hexadecimal digits.
pub(super) const LEAST_SECRET: usize = 32;

/// Seals and opens. The key is derived once for a secret, and kept nowhere else.
pub(super) struct Seal(LessSafeKey);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(****)")
    }
}

impl Seal {
    pub(super) fn new(secret: &Secret) -> Option<Self> {
        let key = Salt::new(HKDF_SHA256, b"attache").extract(secret.expose().as_bytes());
        let key = key.expand(&[b"token store"], &AES_256_GCM).ok()?;
        Some(Self(LessSafeKey::new(UnboundKey::from(key))))
    }

    /// `text`, sealed with a nonce of its own.
    pub(super) fn seal(&self, text: &[u8]) -> Option<Vec<u8>> {
        // 96 random bits: a store is written some thousand times a year, far from where they repeat.
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let mut text = Zeroizing::new(text.to_vec());
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(MAGIC), &mut text)
            .ok()?;
        Some([MAGIC, &nonce, &text, tag.as_ref()].concat())
    }

    /// What was sealed.
    pub(super) fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let rest = sealed.strip_prefix(MAGIC).ok_or(StoreError::Undecipherable)?;
        let (nonce, rest) = rest.split_at_checked(NONCE_LEN).ok_or(StoreError::Undecipherable)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| StoreError::Undecipherable)?;
        let mut text = Zeroizing::new(rest.to_vec());
        let length = self
            .0
            .open_in_place(nonce, Aad::from(MAGIC), &mut text)
            .map_err(|_| StoreError::Undecipherable)?
            .len();
        text.truncate(length);
        Ok(text)
    }
}

/// Whether these are the bytes of a sealed store.
pub(super) fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(secret: &str) -> Seal {
        Seal::new(&Secret::new(secret)).unwrap()
    }

    #[test]
    fn only_the_same_secret_opens_it_and_only_untouched() {
        let one = seal("one one one one one one one one 1");
        let sealed = one.seal(b"hunter2").unwrap();
        assert_eq!(&**one.open(&sealed).unwrap(), b"hunter2");
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert!(seal("another one another one another!").open(&sealed).is_err());
        for at in 0..sealed.len() {
            let mut touched = sealed.clone();
            touched[at] ^= 1;
            assert_eq!(one.open(&touched).unwrap_err(), StoreError::Undecipherable, "byte {at}");
            assert_eq!(one.open(&sealed[..at]).unwrap_err(), StoreError::Undecipherable, "cut at {at}");
        }
        assert_ne!(sealed, one.seal(b"hunter2").unwrap(), "each has a nonce of its own");
    }
}
