//! What a connection to an upstream was opened under.

use super::Permit;
use crate::tls::Edition;

/// What a connection was opened under.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) permit: Permit,
    /// The TLS files that it was made with, if they can change.
    pub(super) edition: Option<Edition>,
    /// The tick of its opening.
    pub(super) born: u32,
}

impl Terms {
    /// Whether further requests may be sent under them.
    pub(super) fn is_current(&self) -> bool {
        self.edition.as_ref().is_none_or(Edition::is_current)
    }
}
