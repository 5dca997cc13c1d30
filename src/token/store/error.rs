//! What can be wrong with a store. Nothing in it comes from the file.

use std::io;

/// Why a store cannot be used as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum StoreError {
    #[error("another process uses it")]
    InUse,
    #[error("it cannot be read: {0}")]
    Unreadable(io::ErrorKind),
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it belongs to another user")]
    ForeignOwner,
    #[error("other users can read or write it")]
    OpenToOthers,
    #[error("it is larger than 1 MiB")]
    TooLarge,
    #[error("it does not hold what attaché writes")]
    Corrupt,
    #[error("it cannot be decrypted with this `store_key`")]
    Undecipherable,
    #[error(
        "its refresh token came from another provider, or for another client, than the configuration names"
    )]
    Elsewhere,
    #[error("it cannot be written: {0}")]
    Unwritable(io::ErrorKind),
    #[error("its disk does not answer")]
    Stalled,
    #[error("writing it met a bug in attaché")]
    Panicked,
}

impl StoreError {
    /// What it holds is of no use, and may be written over by whoever does not need it.
    pub(in crate::token) fn is_of_content(self) -> bool {
        matches!(self, Self::Corrupt | Self::Undecipherable | Self::TooLarge)
    }

    /// A fixed word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::InUse => "in_use",
            Self::Unreadable(_) => "unreadable",
            Self::NotAFile => "not_a_file",
            Self::ForeignOwner => "foreign_owner",
            Self::OpenToOthers => "open_to_others",
            Self::TooLarge => "too_large",
            Self::Corrupt => "corrupt",
            Self::Undecipherable => "undecipherable",
            Self::Elsewhere => "elsewhere",
            Self::Unwritable(_) => "unwritable",
            Self::Stalled => "stalled",
            Self::Panicked => "internal",
        }
    }

    /// What the operator can do about it.
    pub fn cure(self) -> &'static str {
        match self {
            Self::InUse => "give each process a `store` of its own, or wait until the other one has ended",
            Self::Unreadable(_) | Self::NotAFile => {
                "name a file in a folder that attaché's user can read and write"
            }
            Self::ForeignOwner => "run `chown` so that the file belongs to the user that attaché runs as",
            Self::OpenToOthers => "run `chmod 600` on the file",
            Self::TooLarge | Self::Corrupt => {
                "remove the file, and put a new refresh token where `refresh_token` says"
            }
            Self::Undecipherable => {
                "bring back the `store_key` that it was written with, or remove the file and put a new refresh \
                 token where `refresh_token` says"
            }
            Self::Elsewhere => {
                "put a new refresh token where `refresh_token` says, or bring back the `issuer`, the `token_endpoint` and \
                 the `client_id` that the one in the store came with"
            }
            Self::Unwritable(_) => {
                "make room on the disk, or make the folder writable for attaché; it is tried again every 5 s"
            }
            Self::Stalled => "look at the file system that the store is on; it is tried again every 5 s",
            Self::Panicked => "report the bug",
        }
    }
}
