//! A mistake in the configuration: which key, what is wrong with it, and the cure.
//!
//! Every part of the house checks its own section and returns an [`Invalid`] whose key is relative to that section;
//! whoever owns the section puts its name in front with [`Invalid::under`], until the key is the whole path.

use std::fmt;

/// Why a text is no URL; with the cure where the parser does not know it: the tables that translate international names are not
/// in the binary.
pub fn not_a_url(error: url::ParseError) -> String {
    match error {
        url::ParseError::IdnaError => {
            "is not a URL: an international host name is written in its ASCII form (`xn--...`)".into()
        }
        error => format!("is not a URL: {error}"),
    }
}

/// One mistake. Its message never holds the rejected value of a key that could hold a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    key: String,
    message: String,
    hint: Option<String>,
}

impl Invalid {
    /// A mistake at `key`; an empty key means the section itself.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts the name of the enclosing section in front of the key.
    #[must_use]
    pub fn under(mut self, section: &str) -> Self {
        self.key = match (section, self.key.as_str()) {
            ("", _) => self.key,
            (_, "") => section.to_owned(),
            (_, key) => format!("{section}.{key}"),
        };
        self
    }

    /// The path of the key, its parts joined by dots.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it, when that is known.
    pub fn cure(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Invalid {}
