//! F13 for the files of TLS, and what is said of a mistake in them.

use std::{fs, os::unix::fs::PermissionsExt as _};

use rcgen::{CertificateParams, KeyPair};

use super::*;

/// A folder with a client certificate, its key, and an authority.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.issue();
        folder.write("ca.pem", &certificate().0);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let next = self.path("next");
        fs::write(&next, content).unwrap();
        fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&next, self.path(name)).unwrap();
    }

    fn issue(&self) {
        let (certificate, key) = certificate();
        self.write("client.pem", &certificate);
        self.write("client.key", &key);
    }

    fn files(&self) -> TlsFiles {
        TlsFiles {
            ca_file: Some(self.path("ca.pem")),
            certificate: Some(self.path("client.pem")),
            private_key: Some(SecretRef { file: Some(self.path("client.key")), ..SecretRef::default() }),
        }
    }
}

fn certificate() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["client".into()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[test]
fn f13_whatever_happens_to_the_files_a_good_edition_is_in_use() {
    let folder = Folder::new();
    let kept = KeptTls::build(folder.files(), &[b"http/1.1"]).unwrap();
    let (first, edition) = kept.current();
    assert!(first.client_auth_cert_resolver.has_certs());
    assert_eq!(first.alpn_protocols, [b"http/1.1"]);
    assert!(matches!(kept.look(), Look::Same));

    let key = fs::read_to_string(folder.path("client.key")).unwrap();
    for (file, content) in [
        ("client.key", certificate().1),
        ("client.key", "not a key\n".into()),
        ("client.key", String::new()),
        ("client.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n".into()),
        ("ca.pem", "nothing\n".into()),
        ("ca.pem", "x".repeat(1024 * 1024 + 1)),
    ] {
        let good = fs::read_to_string(folder.path(file)).unwrap();
        folder.write(file, &content);
        assert!(matches!(kept.look(), Look::Refused(_)), "{file}");
        assert!(matches!(kept.look(), Look::Same), "it is told once");
        assert!(edition.is_current() && Arc::ptr_eq(&first, &kept.current().0));
        folder.write(file, &good);
        assert!(matches!(kept.look(), Look::Same), "back to what is in use");
        folder.write(file, &content);
        assert!(matches!(kept.look(), Look::Refused(_)), "bad again is another change");
        folder.write(file, &good);
        kept.look();
    }
    assert_eq!(fs::read_to_string(folder.path("client.key")).unwrap(), key);

    fs::remove_file(folder.path("client.key")).unwrap();
    assert!(matches!(kept.look(), Look::Refused(_)));
    folder.issue();
    assert!(matches!(kept.look(), Look::Replaced));
    assert!(!edition.is_current() && kept.current().1.is_current());
    assert!(!Arc::ptr_eq(&first, &kept.current().0));
}

#[test]
fn a_mistake_names_its_key_and_shows_nothing_of_a_private_key() {
    let folder = Folder::new();
    let files = folder.files();
    let mistake = |files: TlsFiles| KeptTls::build(files, &[]).unwrap_err();
    assert_eq!(mistake(TlsFiles { private_key: None, ..files.clone() }).key(), "private_key");
    assert_eq!(mistake(TlsFiles { certificate: None, ..files.clone() }).key(), "certificate");
    assert_eq!(mistake(TlsFiles { ca_file: Some("/nonexistent".into()), ..files.clone() }).key(), "ca_file");
    for (key, expected) in [
        (certificate().1, "not the one of the certificate"),
        (
            "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n".into(),
            "of a kind that TLS cannot use",
        ),
        ("hunter2".into(), "is not in PEM"),
    ] {
        folder.write("client.key", &key);
        let mistake = mistake(files.clone());
        assert_eq!(mistake.key(), "private_key");
        let text = mistake.to_string();
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("c2VjcmV0"), "{text}");
    }
    fs::set_permissions(folder.path("client.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(mistake(files).key(), "private_key.file");
}
