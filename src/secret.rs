//! Secrets: values that must never be printed, and the references by which a configuration names them.
//!
//! A configuration never holds a secret, only a [`SecretRef`]: the path of a file or the name of an environment
//! variable. [`SecretRef::check`] turns it into a [`SecretSource`], which is read again for every use, so that a
//! rotated file is picked up without a restart.

use std::{
    fmt, fs, io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::invalid::Invalid;

/// The largest secret that is read, in bytes: larger files are a mistake in the path.
pub const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// A secret value. It has no `Display`, no `Serialize`, a `Debug` that hides it, and is zeroed when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a value that must not be printed.
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// The value itself. Whoever calls this is responsible for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(****)")
    }
}

/// Where a secret is kept, as the operator wrote it: `{ file = "/run/secrets/x" }` or `{ env = "NAME" }`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// Path of the file that holds the secret; one trailing line break is not part of it. Read again when it changes.
    pub file: Option<PathBuf>,
    /// Name of the environment variable that holds the secret.
    pub env: Option<String>,
    /// Accept a secret file that every user of the machine can read.
    #[serde(default)]
    pub unsafe_world_readable: bool,
}

impl SecretRef {
    /// Checks that exactly one place is named and that a usable secret is there now.
    pub fn check(&self) -> Result<SecretSource, Invalid> {
        let place = match (&self.file, &self.env) {
            (Some(path), None) => {
                Place::File { path: path.clone(), world_readable: self.unsafe_world_readable }
            }
            (None, Some(name)) => Place::Env { name: name.clone() },
            _ => {
                return Err(Invalid::new("", "a secret is either a file or an environment variable")
                    .hint("write `{ file = \"/run/secrets/name\" }` or `{ env = \"NAME\" }`"));
            }
        };
        let source = SecretSource(place);
        source.read().map_err(|error| {
            let key = if self.file.is_some() { "file" } else { "env" };
            let error = error.of_unknown();
            Invalid::new(key, error.to_string()).hint(error.cure())
        })?;
        Ok(source)
    }
}

/// A place that held a usable secret when the configuration was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretSource(Place);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    File { path: PathBuf, world_readable: bool },
    Env { name: String },
}

impl SecretSource {
    /// Reads the secret as it is now. Blocking: a file read.
    pub fn read(&self) -> Result<Secret, SecretError> {
        match &self.0 {
            Place::File { path, world_readable } => read_file(path, *world_readable),
            Place::Env { name } => read_env(name),
        }
    }

    /// Whether the secret can change while attaché runs: a file can, the environment cannot.
    pub fn can_change(&self) -> bool {
        matches!(self.0, Place::File { .. })
    }
}

fn read_file(path: &Path, world_readable: bool) -> Result<Secret, SecretError> {
    let fail = |source: io::Error| SecretError::Unreadable { path: path.to_owned(), kind: source.kind() };
    // A named pipe in its place must not keep us waiting for somebody to write.
    let without_waiting = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = fs::OpenOptions::new().read(true).custom_flags(without_waiting).open(path).map_err(fail)?;
    // The opened file is asked, not the path: between two looks at a path it can become another file.
    let meta = file.metadata().map_err(fail)?;
    if !meta.is_file() {
        return Err(SecretError::NotAFile { path: path.to_owned() });
    }
    let mode = meta.permissions().mode() & 0o7777;
    if mode & 0o004 != 0 && !world_readable {
        return Err(SecretError::WorldReadable { path: path.to_owned(), mode });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    io::Read::read_to_end(&mut io::Read::take(file, MAX_SECRET_BYTES + 1), &mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(SecretError::TooLarge { path: path.to_owned() });
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::NotText { path: path.to_owned() })?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(SecretError::Empty { path: path.to_owned() });
    }
    Ok(Secret::new(text))
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads secrets from the environment"
)]
fn read_env(name: &str) -> Result<Secret, SecretError> {
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Err(SecretError::EnvEmpty { name: name.to_owned() }),
        Ok(value) => Ok(Secret::new(value)),
        Err(_) => Err(SecretError::EnvMissing { name: name.to_owned() }),
    }
}

/// Whether this looks like the name of a variable. What stands there may be the secret itself, written where its place belongs:
/// lower case, or digits between capitals without an underscore, is what secrets are made of.
fn is_usual_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_uppercase())
        && bytes.all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
        && (name.contains('_') || !name.bytes().any(|byte| byte.is_ascii_digit()))
}

/// The name of a variable in a message, if it may be shown; the key beside it tells which one is meant.
fn variable(name: &str) -> String {
    if is_usual_name(name) {
        format!("environment variable `{name}`")
    } else {
        "the environment variable that is named here".to_owned()
    }
}

/// Folders in which secrets usually lie, whether or not they are there: in an image with nothing but attaché they may be missing.
const FOLDERS: [&str; 11] =
    ["etc", "home", "mnt", "opt", "root", "run", "secrets", "srv", "tmp", "usr", "var"];

/// Whether what stands there is a path. What is there is one. Otherwise it may be the secret itself, which can begin like an
/// absolute path (`/` is a digit of base64), but hardly with a folder.
fn is_usual_path(path: &Path) -> bool {
    let mut parts = path.components();
    let first = (parts.next(), parts.next(), parts.next());
    fs::symlink_metadata(path).is_ok()
        || matches!(first, (Some(Component::RootDir), Some(Component::Normal(folder)), Some(_))
            if FOLDERS.iter().any(|usual| folder == *usual) || Path::new("/").join(folder).is_dir())
}

/// Why a secret could not be read. Never holds any part of it in what it shows.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SecretError {
    #[error("cannot read secret file `{}`: {kind}", path.display())]
    Unreadable { path: PathBuf, kind: io::ErrorKind },
    #[error("cannot read the secret file that is named here: {kind}")]
    Unnamed { kind: io::ErrorKind },
    #[error("secret file `{}` is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("secret file `{}` can be read by every user (mode {mode:04o})", path.display())]
    WorldReadable { path: PathBuf, mode: u32 },
    #[error("secret file `{}` is empty", path.display())]
    Empty { path: PathBuf },
    #[error("secret file `{}` is larger than 64 KiB", path.display())]
    TooLarge { path: PathBuf },
    #[error("secret file `{}` is not UTF-8 text", path.display())]
    NotText { path: PathBuf },
    #[error("{} is not set or is not UTF-8 text", variable(name))]
    EnvMissing { name: String },
    #[error("{} is empty", variable(name))]
    EnvEmpty { name: String },
}

impl fmt::Debug for SecretError {
    /// As it is told to people: a derived one would show what they are not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretError({self})")
    }
}

impl SecretError {
    /// The same where it is not known yet whether a path is one: if it does not look like one, it is not told.
    fn of_unknown(self) -> Self {
        match self {
            Self::Unreadable { path, kind } if !is_usual_path(&path) => Self::Unnamed { kind },
            told => told,
        }
    }

    /// What to do about it, in words for the operator.
    pub fn cure(&self) -> String {
        match self {
            Self::Unnamed { .. } => {
                "write the path of a file that holds the secret, from `/` on, not the secret itself; in a \
                 container, mount its folder"
                    .into()
            }
            Self::Unreadable { kind: io::ErrorKind::NotFound, .. } => {
                "create the file, or correct the path; in a container, mount it".into()
            }
            Self::Unreadable { kind: io::ErrorKind::PermissionDenied, .. } => {
                "let the user that attaché runs as read it (in Kubernetes: `fsGroup` and `defaultMode: 0440`)"
                    .into()
            }
            Self::Unreadable { .. } => "make the file readable".into(),
            Self::NotAFile { .. } => "name a file, not a directory or a device".into(),
            Self::WorldReadable { path, .. } => format!(
                "run `chmod o-r {}` (in Kubernetes: `defaultMode: 0440` with `fsGroup`), or accept it with \
                 `unsafe_world_readable = true`",
                path.display()
            ),
            Self::Empty { .. } | Self::EnvEmpty { .. } => "write the secret into it".into(),
            Self::TooLarge { .. } | Self::NotText { .. } => "check that the path names the right file".into(),
            Self::EnvMissing { name } if is_usual_name(name) => {
                "set the variable in attaché's own environment".into()
            }
            Self::EnvMissing { .. } => {
                "set the variable in attaché's own environment; `env` takes its name, not the secret itself"
                    .into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, io::Write as _};

    use super::*;

    fn file(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        file
    }

    fn check(path: &Path) -> Result<Secret, Invalid> {
        let reference = SecretRef { file: Some(path.to_owned()), ..SecretRef::default() };
        reference.check().map(|source| source.read().unwrap())
    }

    #[test]
    fn one_trailing_line_break_is_not_part_of_a_secret() {
        for (content, secret) in [("a b\n", "a b"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a", " a")] {
            assert_eq!(check(file(content.as_bytes(), 0o600).path()).unwrap().expose(), secret);
        }
    }

    #[test]
    fn a_bad_secret_file_is_refused_with_a_cure_and_without_its_content() {
        let long = vec![b'x'; MAX_SECRET_BYTES as usize + 1];
        for (content, mode, message) in [
            (&b"hunter2"[..], 0o604, "every user"),
            (b"", 0o600, "empty"),
            (b"\n", 0o600, "empty"),
            (b"hunter2\xff", 0o600, "UTF-8"),
            (&long, 0o600, "64 KiB"),
        ] {
            let error = check(file(content, mode).path()).unwrap_err().to_string();
            assert!(error.contains(message) && error.contains("hint:"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_world_readable_file_is_accepted_when_the_operator_says_so() {
        let file = file(b"x", 0o644);
        let reference = SecretRef {
            file: Some(file.path().to_owned()),
            unsafe_world_readable: true,
            ..SecretRef::default()
        };
        assert!(reference.check().is_ok());
    }

    #[test]
    fn a_named_pipe_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(check(&pipe).unwrap_err().to_string().contains("not a regular file"));
    }

    #[test]
    fn a_reference_names_exactly_one_place() {
        assert!(SecretRef::default().check().is_err());
        let both = SecretRef { file: Some("/x".into()), env: Some("X".into()), ..SecretRef::default() };
        assert!(both.check().is_err());
    }

    #[test]
    fn a_secret_that_was_written_where_its_place_belongs_is_not_shown() {
        let env = |name: &str| SecretRef { env: Some(name.into()), ..SecretRef::default() };
        let file = |path: &str| SecretRef { file: Some(path.into()), ..SecretRef::default() };
        for written in [
            "Sup3rS3cretValue",
            "JBSWY3DPEHPK3PXP",
            "hunter2",
            "4F_2",
            "a/b+c=",
            "/b+c=",
            "/b+c/d=",
            "-----BEGIN\nKEY",
        ] {
            for reference in [env(written), file(written), file(&written.repeat(40))] {
                let error = reference.check().unwrap_err();
                let shown = format!("{error} {error:?}");
                assert!(!shown.contains(written) && shown.contains("not the secret itself"), "{shown}");
            }
        }
        let error = SecretError::EnvMissing { name: "hunter2".into() };
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn a_place_that_looks_like_one_is_named() {
        let env = |name: &str| SecretRef { env: Some(name.into()), ..SecretRef::default() };
        for name in ["ATTACHE_TEST_NO_SUCH", "OAUTH2_SECRET_9", "TESTNOSUCH"] {
            assert!(env(name).check().unwrap_err().to_string().contains(name), "{name}");
        }
        let file = |path: &str| SecretRef { file: Some(path.into()), ..SecretRef::default() };
        for path in ["/etc/no/such/file", "/secrets/no-such-file", "/proc/no-such-file", "/etc/passwd/secret"]
        {
            assert!(file(path).check().unwrap_err().to_string().contains(path), "{path}");
        }
    }

    #[test]
    fn debug_hides_the_value() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(****)");
    }
}
