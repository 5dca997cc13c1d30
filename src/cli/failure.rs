//! Why a command failed: one message, a hint when the cure is known, and the exit code.

use std::{fmt::Write as _, process::ExitCode};

use super::output;
use crate::config::LoadError;

/// `EX_CONFIG` of sysexits.h.
const INVALID_CONFIGURATION: u8 = 78;

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// Anything but a mistake in the configuration.
    pub(super) fn other(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What went wrong.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Prints it and says what to exit with.
    pub fn report(&self) -> ExitCode {
        let mut text = format!("error: {}", self.message);
        if let Some(hint) = &self.hint {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "\n  hint: {hint}");
        }
        output::complain(&text);
        ExitCode::from(self.code)
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self {
            code: INVALID_CONFIGURATION,
            message: format!("invalid configuration: {error}"),
            hint: error.cure().map(str::to_owned),
        }
    }
}
