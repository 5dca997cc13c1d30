//! A secret that may be replaced at any time: the last good value stays in use until there is a better one.

use crate::{
    invalid::Invalid,
    secret::{Secret, SecretError, SecretRef, SecretSource},
};

/// A secret and its last good value.
#[derive(Debug)]
pub(super) struct KeptSecret {
    source: SecretSource,
    value: Secret,
    // What was last complained about: one warning a change.
    complaint: Option<SecretError>,
}

impl KeptSecret {
    /// Checks that there is a usable secret now.
    pub(super) fn build(reference: &SecretRef) -> Result<Self, Invalid> {
        let source = reference.check()?;
        let value = source.read().map_err(|error| Invalid::new("", error.to_string()).hint(error.cure()))?;
        Ok(Self { source, value, complaint: None })
    }

    /// The value to use.
    pub(super) fn value(&self) -> &Secret {
        &self.value
    }

    /// Looks again; true when there is a new good value. Compared by content, because a mounted secret changes by
    /// swapping a symbolic link, which no time stamp of the file tells.
    pub(super) fn look(&mut self) -> bool {
        if !self.source.can_change() {
            return false;
        }
        match self.source.read() {
            Ok(value) => {
                self.complaint = None;
                let changed = value != self.value;
                if changed {
                    self.value = value;
                }
                changed
            }
            Err(error) => {
                if self.complaint.as_ref() != Some(&error) {
                    tracing::warn!(%error, "a secret cannot be read; the last good value stays in use");
                    self.complaint = Some(error);
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn f13_whatever_happens_to_the_file_a_good_value_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let version = |name: &str, content: &str| {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            path
        };
        let link = folder.path().join("secret");
        let point_to = |target: &std::path::Path| {
            let next = folder.path().join("next");
            symlink(target, &next).unwrap();
            fs::rename(&next, &link).unwrap();
        };
        point_to(&version("1", "one\n"));
        let reference = SecretRef { file: Some(link.clone()), ..SecretRef::default() };
        let mut kept = KeptSecret::build(&reference).unwrap();
        assert!(!kept.look());
        point_to(&version("2", "two"));
        assert!(kept.look());
        assert_eq!(kept.value().expose(), "two");
        for bad in [version("empty", ""), folder.path().join("gone"), folder.path().to_owned()] {
            point_to(&bad);
            assert!(!kept.look());
            assert_eq!(kept.value().expose(), "two");
        }
        point_to(&version("3", "three"));
        assert!(kept.look());
        assert_eq!(kept.value().expose(), "three");
    }
}
