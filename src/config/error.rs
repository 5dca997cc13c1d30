//! Why a configuration could not be loaded: which file or variable, which key, what is wrong, and the cure. No message
//! holds a value that was written.

use std::{io, path::PathBuf};

use crate::invalid::Invalid;

/// Five lines that work, for whoever has none.
const SMALLEST: &str = "the smallest configuration is\n
    [credentials.orders]
    type = \"client_credentials\"
    issuer = \"https://login.example.com/realms/prod\"
    client_id = \"checkout\"
    client_secret = { file = \"/run/secrets/orders\" }

    [routes.orders]
    upstream = \"https://orders.internal\"
    credential = \"orders\"";

/// Where a key was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Place {
    #[error("in `{}`{}", file.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
    File { file: PathBuf, line: Option<usize> },
    #[error("in the environment variable `{0}`")]
    Variable(String),
    #[error("in the environment")]
    Environment,
}

/// Why a configuration could not be loaded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum LoadError {
    #[error("cannot read `{}`: {kind}", file.display())]
    Unreadable { file: PathBuf, kind: io::ErrorKind },
    #[error("cannot read `{}`: it is a directory", file.display())]
    Directory { file: PathBuf },
    #[error("`{}` is not UTF-8 text", file.display())]
    NotText { file: PathBuf },
    #[error("`{}` is larger than 4 MiB", file.display())]
    TooLarge { file: PathBuf },
    #[error("cannot tell what `{}` is written in", file.display())]
    Ending { file: PathBuf },
    #[error("`{}` is not {language}: line {line}, column {column}: {what}", file.display())]
    Syntax { file: PathBuf, language: &'static str, line: u64, column: u64, what: String },
    #[error("`{}` does not hold sections", file.display())]
    NotASection { file: PathBuf },
    #[error("the environment variable `{variable}` is not UTF-8 text")]
    VariableNotText { variable: String },
    #[error("the environment variable `{variable}` does not name a key")]
    VariableName { variable: String },
    #[error("the environment variables `{one}` and `{other}` set the same key")]
    VariableTwice { one: String, other: String },
    #[error("there is nothing to do: {place} no route is defined")]
    NoRoute { place: Place },
    #[error("{place}: {}", headline(invalid))]
    Invalid { place: Place, invalid: Invalid },
}

fn headline(invalid: &Invalid) -> String {
    match invalid.key() {
        "" => invalid.message().to_owned(),
        key => format!("`{key}`: {}", invalid.message()),
    }
}

impl LoadError {
    /// What to do about it, when that is known.
    pub fn cure(&self) -> Option<&str> {
        match self {
            Self::Unreadable { kind: io::ErrorKind::NotFound, .. } => {
                Some("correct the path behind `--config`; in a container, mount the file")
            }
            Self::Unreadable { kind: io::ErrorKind::PermissionDenied, .. } => {
                Some("let the user that attaché runs as read the file and enter its directories")
            }
            Self::Unreadable { .. } => None,
            Self::Directory { .. } => Some("name the file in it"),
            Self::NotText { .. } | Self::TooLarge { .. } => Some("check that the path names the right file"),
            Self::Ending { .. } => Some("let its name end in `.toml`, `.yaml` or `.yml`"),
            Self::Syntax { .. } => Some("the line is not shown, because it may hold a secret"),
            Self::NotASection { .. } | Self::NoRoute { .. } => Some(SMALLEST),
            Self::VariableNotText { .. } => Some("write its value in UTF-8"),
            Self::VariableName { .. } => Some(
                "join the parts of the key's path by two underscores, such as ATTACHE__ROUTES__ORDERS__UPSTREAM",
            ),
            Self::VariableTwice { .. } => Some("remove one of them"),
            Self::Invalid { invalid, .. } => invalid.cure(),
        }
    }
}
