//! Certificates and keys as they come: PEM or DER, from memory or from a file.
//!
//! No error shows a piece of what was read: a key whose line breaks got lost looks like a broken
//! header.

use std::{fmt, fs, path::Path, sync::Arc};

use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error as PemError, PemObject},
    },
};

use crate::error::BuildError;

/// Certificates: any number of them as PEM, or one as DER. For [`Tls`](crate::Tls).
///
/// What else a PEM text holds is passed over, so a file with both certificates and their key will
/// do for either.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(
    docsrs,
    doc(cfg(any(
        feature = "ring",
        feature = "aws-lc-rs",
        feature = "platform-roots",
        feature = "webpki-roots"
    )))
)]
pub struct Certificates(Vec<CertificateDer<'static>>);

/// A private key without a passphrase, as PEM or DER (PKCS#8, PKCS#1 or SEC1). For
/// [`Tls::identity`](crate::Tls::identity).
///
/// Not shown by `Debug`.
#[derive(Clone)]
#[cfg_attr(
    docsrs,
    doc(cfg(any(
        feature = "ring",
        feature = "aws-lc-rs",
        feature = "platform-roots",
        feature = "webpki-roots"
    )))
)]
pub struct PrivateKey(Arc<PrivateKeyDer<'static>>);

impl Certificates {
    /// Reads PEM or DER; which one is found out.
    ///
    /// # Errors
    ///
    /// [`BuildError::Certificates`] if there is no certificate, or one cannot be read.
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Self, BuildError> {
        let bytes = bytes.as_ref();
        let certificates = match Encoding::of(bytes) {
            Encoding::Pem => CertificateDer::pem_slice_iter(bytes)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| BuildError::Certificates(flaw(&error)))?,
            Encoding::Der => vec![CertificateDer::from(bytes.to_vec())],
        };
        if certificates.is_empty() {
            return Err(BuildError::Certificates(NOTHING));
        }
        // Also reads authorities' certificates of version 1, which are not valid for servers.
        let mut scratch = RootCertStore::empty();
        for certificate in &certificates {
            let unreadable =
                |_| BuildError::Certificates("neither PEM nor the DER of an X.509 certificate");
            scratch.add(certificate.clone()).map_err(unreadable)?;
        }
        Ok(Self(certificates))
    }

    /// Reads a PEM or DER file, now and not again.
    ///
    /// # Errors
    ///
    /// [`BuildError::File`] if the file cannot be read, else as [`parse`](Self::parse).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, BuildError> {
        Self::parse(read(path.as_ref())?)
    }

    pub(super) fn der(&self) -> &[CertificateDer<'static>] {
        &self.0
    }

    pub(super) fn into_der(self) -> Vec<CertificateDer<'static>> {
        self.0
    }
}

impl PrivateKey {
    /// Reads PEM or DER; which one is found out.
    ///
    /// # Errors
    ///
    /// [`BuildError::PrivateKey`] if there is no key, or it cannot be read.
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Self, BuildError> {
        let bytes = bytes.as_ref();
        let key = match Encoding::of(bytes) {
            Encoding::Pem => PrivateKeyDer::from_pem_slice(bytes).map_err(|error| flaw(&error)),
            Encoding::Der => PrivateKeyDer::try_from(bytes.to_vec())
                .map_err(|_| "neither PEM nor the DER of a key without a passphrase"),
        };
        key.map(|key| Self(Arc::new(key))).map_err(BuildError::PrivateKey)
    }

    /// Reads a PEM or DER file, now and not again.
    ///
    /// # Errors
    ///
    /// [`BuildError::File`] if the file cannot be read, else as [`parse`](Self::parse).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, BuildError> {
        Self::parse(read(path.as_ref())?)
    }

    pub(super) fn der(&self) -> PrivateKeyDer<'static> {
        self.0.clone_key()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificates({})", self.0.len())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

enum Encoding {
    Pem,
    Der,
}

impl Encoding {
    fn of(bytes: &[u8]) -> Self {
        // Text may stand before the first header, so the first byte does not tell.
        if bytes.windows(HEADER.len()).any(|window| window == HEADER) {
            Self::Pem
        } else {
            Self::Der
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    fs::read(path).map_err(|source| BuildError::File { path: path.to_owned(), source })
}

fn flaw(error: &PemError) -> &'static str {
    match error {
        PemError::MissingSectionEnd { .. } => "the PEM has no end",
        PemError::IllegalSectionStart { .. } => "the PEM has a broken header",
        PemError::Base64Decode(_) => "the PEM is not base64",
        PemError::NoItemsFound => NOTHING,
        _ => "the PEM cannot be read",
    }
}

const HEADER: &[u8] = b"-----BEGIN ";

const NOTHING: &str = "the PEM holds none that can be read; a key with a passphrase cannot";
