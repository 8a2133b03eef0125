//! Reads certificates and keys: PEM or DER, from memory or from a file.
//!
//! No error shows any part of the input. A key whose line breaks were lost looks like a broken PEM
//! header, and an error that quoted the header would show the key.

use std::{fmt, fs, path::Path, sync::Arc};

use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error as PemError, PemObject},
    },
};

use crate::error::BuildError;

/// Certificates for [`Tls`](crate::Tls): any number of them as PEM, or one as DER.
///
/// Other sections of a PEM text are ignored, so a file may have both certificates and their key.
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

/// A private key for [`Tls::identity`](crate::Tls::identity), as PEM or DER (PKCS#8, PKCS#1 or
/// SEC1), without a passphrase.
///
/// `Debug` does not show it.
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
    /// Reads certificates in PEM or DER. The encoding is detected.
    ///
    /// # Errors
    ///
    /// [`BuildError::Certificates`] if there is no certificate, or one cannot be read.
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Self, BuildError> {
        let bytes = bytes.as_ref();
        let certificates = match Encoding::of(bytes) {
            Encoding::Pem => CertificateDer::pem_slice_iter(bytes)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| BuildError::Certificates(pem_error(&error)))?,
            Encoding::Der => vec![CertificateDer::from(bytes.to_vec())],
        };
        if certificates.is_empty() {
            return Err(BuildError::Certificates(NOTHING));
        }
        // This also accepts certificates of version 1, which authorities may have but servers may
        // not.
        let mut scratch = RootCertStore::empty();
        for certificate in &certificates {
            let unreadable =
                |_| BuildError::Certificates("neither PEM nor the DER of an X.509 certificate");
            scratch.add(certificate.clone()).map_err(unreadable)?;
        }
        Ok(Self(certificates))
    }

    /// Reads a file in PEM or DER. The file is read once: later changes have no effect.
    ///
    /// # Errors
    ///
    /// [`BuildError::File`] if the file cannot be read, and the errors of [`parse`](Self::parse).
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
    /// Reads a key in PEM or DER. The encoding is detected.
    ///
    /// # Errors
    ///
    /// [`BuildError::PrivateKey`] if there is no key, or it cannot be read.
    pub fn parse(bytes: impl AsRef<[u8]>) -> Result<Self, BuildError> {
        let bytes = bytes.as_ref();
        let key = match Encoding::of(bytes) {
            Encoding::Pem => {
                PrivateKeyDer::from_pem_slice(bytes).map_err(|error| pem_error(&error))
            }
            Encoding::Der => PrivateKeyDer::try_from(bytes.to_vec())
                .map_err(|_| "neither PEM nor the DER of a key without a passphrase"),
        };
        key.map(|key| Self(Arc::new(key))).map_err(BuildError::PrivateKey)
    }

    /// Reads a file in PEM or DER. The file is read once: later changes have no effect.
    ///
    /// # Errors
    ///
    /// [`BuildError::File`] if the file cannot be read, and the errors of [`parse`](Self::parse).
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
        // Text may precede the first header, so the first byte is not enough.
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

fn pem_error(error: &PemError) -> &'static str {
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
