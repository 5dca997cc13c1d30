//! TLS towards others whose files may be replaced at any time: an authority, a client certificate and its key. The last
//! good edition stays in use until there is a better one.
//!
//! 1. [`TlsFiles`] names the files. [`KeptTls::build`] reads them once; a mistake ends it.
//! 2. [`KeptTls::look`] reads them again and compares by content, because a mounted file changes by swapping a symbolic
//!    link, which no time stamp of the file tells.
//! 3. A changed set that is good becomes the next [`Edition`]; one that is not (half written, the key of another
//!    certificate) changes nothing.
//! 4. A connection remembers the edition it was made with, so that whoever keeps it can tell that it is out of date.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{Context, Digest, SHA256};
use rustls::ClientConfig;

use super::{Herald, Standing, Validity, anchors::Anchors, certificates_in, config_with, identity};
use crate::{
    invalid::Invalid,
    secret::{Secret, SecretRef},
};

/// The files that TLS towards a peer is made of, beside the machine's authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsFiles {
    /// A PEM file with further authorities.
    pub ca_file: Option<PathBuf>,
    /// A PEM file with the client's certificate and those that lead to its authority.
    pub certificate: Option<PathBuf>,
    /// The private key of that certificate.
    pub private_key: Option<SecretRef>,
}

/// What the files held at one time.
struct Material {
    ca: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    private_key: Option<Secret>,
}

/// TLS towards a peer, and the files that it follows.
pub struct KeptTls {
    files: TlsFiles,
    alpn: Vec<Vec<u8>>,
    // Read for each connection on every worker, written when a file changes: a pointer swap keeps readers wait-free.
    config: ArcSwap<ClientConfig>,
    edition: Arc<AtomicU32>,
    // Taken by whoever looks, never by a request.
    seen: Mutex<Seen>,
}

struct Seen {
    good: Digest,
    // Of the client certificate in use, where there is one.
    validity: Option<Validity>,
    herald: Herald,
    // What was last refused: told once a change.
    refused: Option<Refused>,
}

#[derive(PartialEq)]
enum Refused {
    Unreadable(String),
    Unusable([u8; 32]),
}

/// What looking at the files led to.
#[derive(Debug)]
pub enum Look {
    /// They are what they were, or are bad in the way that was told already.
    Same,
    /// They have changed, and new connections use them.
    Replaced,
    /// They have changed and cannot be used; the old ones stay.
    Refused(Invalid),
}

/// The edition of the files that a connection was made with.
#[derive(Clone, Debug)]
pub struct Edition {
    latest: Arc<AtomicU32>,
    number: u32,
}

impl Edition {
    /// Whether a connection of this edition may be used for further requests.
    pub fn is_current(&self) -> bool {
        self.latest.load(Ordering::Acquire) == self.number
    }
}

impl TlsFiles {
    /// Whether there is anything to look at again.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn read(&self) -> Result<Material, Invalid> {
        match (&self.certificate, &self.private_key) {
            (Some(_), None) => {
                return Err(Invalid::new("private_key", "is missing, and `certificate` needs it")
                    .hint("add `private_key = { file = \"/run/secrets/client.key\" }`"));
            }
            (None, Some(_)) => {
                return Err(Invalid::new("certificate", "is missing, and `private_key` needs it")
                    .hint("add `certificate = \"/run/secrets/client.pem\"`"));
            }
            _ => {}
        }
        let file = |key, path: &Option<PathBuf>| path.as_deref().map(|path| read(key, path)).transpose();
        let private_key = match &self.private_key {
            None => None,
            Some(reference) => {
                let place = reference.check().map_err(|invalid| invalid.under("private_key"))?;
                let secret = place
                    .read()
                    .map_err(|error| Invalid::new("private_key", error.to_string()).hint(error.cure()))?;
                Some(secret)
            }
        };
        Ok(Material {
            ca: file("ca_file", &self.ca_file)?,
            certificate: file("certificate", &self.certificate)?,
            private_key,
        })
    }

    /// The configuration that the material makes.
    fn config(&self, material: &Material, alpn: &[Vec<u8>]) -> Result<ClientConfig, Invalid> {
        let unusable = |key: &'static str, path: &Option<PathBuf>, why: String| {
            let path = path.as_deref().unwrap_or(Path::new("")).display();
            Invalid::new(key, format!("cannot use `{path}`: {why}"))
        };
        let extra = match &material.ca {
            None => Vec::new(),
            Some(pem) => certificates_in(pem).map_err(|why| {
                unusable("ca_file", &self.ca_file, why)
                    .hint("name a PEM file with the certificate of the authority that signed the server's")
            })?,
        };
        let anchors = Anchors::with(extra).map_err(|why| unusable("ca_file", &self.ca_file, why))?;
        let identity = match (&material.certificate, &material.private_key) {
            (Some(certificate), Some(key)) => {
                let certificate = std::str::from_utf8(certificate)
                    .map_err(|_| unusable("certificate", &self.certificate, "it is not text".into()))?;
                let identity = identity(certificate, key.expose()).map_err(|why| {
                    Invalid::new("private_key", format!("cannot be used with `certificate`: {why}")).hint(
                        "name the PEM file with the certificate (and the intermediate ones behind it), and that with its key",
                    )
                })?;
                Some(identity)
            }
            _ => None,
        };
        let mut config = config_with(anchors, identity)?;
        config.alpn_protocols = alpn.to_vec();
        Ok(config)
    }
}

impl Material {
    fn validity(&self) -> Option<Validity> {
        Validity::of_pem(self.certificate.as_deref()?)
    }

    fn digest(&self) -> Digest {
        let mut context = Context::new(&SHA256);
        let key = self.private_key.as_ref().map(|key| key.expose().as_bytes());
        for part in [self.ca.as_deref(), self.certificate.as_deref(), key] {
            // With its length in front, two parts cannot pass for two others.
            let part = part.unwrap_or_default();
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.finish()
    }
}

impl KeptTls {
    /// Reads the files as they are now. `alpn` are the protocols, the preferred one first.
    pub fn build(files: TlsFiles, alpn: &[&[u8]]) -> Result<Self, Invalid> {
        let alpn: Vec<_> = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let material = files.read()?;
        let config = files.config(&material, &alpn)?;
        Ok(Self {
            files,
            alpn,
            config: ArcSwap::from_pointee(config),
            edition: Arc::default(),
            seen: Mutex::new(Seen {
                good: material.digest(),
                validity: material.validity(),
                herald: Herald::default(),
                refused: None,
            }),
        })
    }

    /// What a new connection is made with.
    pub fn current(&self) -> (Arc<ClientConfig>, Edition) {
        // In this order, a connection that meets a change is taken for older than it is, never for newer.
        let number = self.edition.load(Ordering::Acquire);
        (self.config.load_full(), Edition { latest: Arc::clone(&self.edition), number })
    }

    /// From when until when the client certificate in use is valid, and what is to be told of that now, if anything.
    pub fn certificate(&self, now: SystemTime) -> Option<(Validity, Option<Standing>)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let validity = seen.validity?;
        Some((validity, seen.herald.news(validity, now)))
    }

    /// Whether it has files that can change.
    pub fn can_change(&self) -> bool {
        !self.files.is_empty()
    }

    /// Looks at the files again. Blocking: file reads.
    pub fn look(&self) -> Look {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (outcome, refused) = match self.files.read() {
            Err(invalid) => {
                let refused = Refused::Unreadable(invalid.message().to_owned());
                (Err(invalid), refused)
            }
            Ok(material) => {
                let digest = material.digest();
                if digest.as_ref() == seen.good.as_ref() {
                    seen.refused = None;
                    return Look::Same;
                }
                let mut bytes = [0; 32];
                bytes.copy_from_slice(digest.as_ref());
                let refused = Refused::Unusable(bytes);
                if seen.refused.as_ref() == Some(&refused) {
                    return Look::Same;
                }
                let validity = material.validity();
                (self.files.config(&material, &self.alpn).map(|config| (config, digest, validity)), refused)
            }
        };
        match outcome {
            Ok((config, digest, validity)) => {
                (seen.good, seen.validity, seen.refused) = (digest, validity, None);
                self.config.store(Arc::new(config));
                self.edition.fetch_add(1, Ordering::Release);
                Look::Replaced
            }
            Err(_) if seen.refused.as_ref() == Some(&refused) => Look::Same,
            Err(invalid) => {
                seen.refused = Some(refused);
                Look::Refused(invalid)
            }
        }
    }
}

impl std::fmt::Debug for KeptTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeptTls").field("files", &self.files).finish_non_exhaustive()
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, Invalid> {
    super::read(path).map_err(|why| {
        Invalid::new(key, format!("cannot use `{}`: {why}", path.display()))
            .hint("name a PEM file that the user that attaché runs as can read")
    })
}

#[cfg(test)]
mod tests;
