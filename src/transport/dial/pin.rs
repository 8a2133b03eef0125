//! Pins: which keys a server may have, after everything else about its certificate was found to be
//! in order.

use std::{fmt, str::FromStr, sync::Arc};

use data_encoding::BASE64;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    SupportedCipherSuite,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider,
        hash::{Hash, HashAlgorithm},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::{Certificates, tls::provider};
use crate::error::BuildError;

/// The SHA-256 of a server's public key (of its `SubjectPublicKeyInfo`), as
/// [`Tls::pin`](crate::Tls::pin) takes it.
///
/// Parsed from, and printed as, `sha256//` and base64, as curl's `--pinnedpubkey` has it:
///
/// ```
/// let pin: resub::Pin = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".parse()?;
/// assert_eq!(pin.to_string(), "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
/// # Ok::<_, resub::BuildError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    docsrs,
    doc(cfg(any(
        feature = "ring",
        feature = "aws-lc-rs",
        feature = "platform-roots",
        feature = "webpki-roots"
    )))
)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of a server that shows this certificate: of a chain the first one, as the server
    /// sends it.
    ///
    /// # Errors
    ///
    /// [`BuildError::Certificates`] if it is not a certificate that a server can have,
    /// [`BuildError::Tls`] without a crypto provider that knows SHA-256.
    pub fn of(certificates: &Certificates) -> Result<Self, BuildError> {
        let hash = sha256(&*provider()?)?;
        let [leaf, ..] = certificates.der() else {
            return Err(BuildError::Certificates("there is none"));
        };
        Self::of_leaf(leaf, hash).map_err(|_| BuildError::Certificates("its version is not 3"))
    }

    fn of_leaf(leaf: &CertificateDer<'_>, sha256: &dyn Hash) -> Result<Self, Error> {
        let key = ParsedCertificate::try_from(leaf)?.subject_public_key_info();
        let mut pin = [0; 32];
        pin.copy_from_slice(sha256.hash(&key).as_ref());
        Ok(Self(pin))
    }
}

impl FromStr for Pin {
    type Err = BuildError;

    /// # Errors
    ///
    /// [`BuildError::Pin`].
    fn from_str(text: &str) -> Result<Self, BuildError> {
        let digest =
            text.strip_prefix(PREFIX).and_then(|base64| BASE64.decode(base64.as_bytes()).ok());
        digest.and_then(|digest| digest.try_into().ok()).map(Self).ok_or(BuildError::Pin)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64.encode_display(&self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A verifier that asks another one first.
pub(super) struct Pinned {
    first: Arc<dyn ServerCertVerifier>,
    pins: Vec<Pin>,
    sha256: &'static dyn Hash,
}

impl Pinned {
    pub(super) fn new(
        first: Arc<dyn ServerCertVerifier>,
        pins: Vec<Pin>,
        provider: &CryptoProvider,
    ) -> Result<Self, BuildError> {
        Ok(Self { first, pins, sha256: sha256(provider)? })
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned")
            .field("first", &self.first)
            .field("pins", &self.pins)
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.first.verify_server_cert(leaf, intermediates, name, ocsp, now)?;
        let found = Pin::of_leaf(leaf, self.sha256)?;
        if self.pins.contains(&found) {
            return Ok(verified);
        }
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Mismatch(
            found,
        ))))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.first.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.first.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.first.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.first.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.first.root_hint_subjects()
    }
}

/// How [`Pinned`] says no, through rustls.
#[derive(Debug, thiserror::Error)]
#[error("the server's key is not one that is pinned: it is {0}")]
pub(super) struct Mismatch(pub(super) Pin);

/// The provider's own, as a cipher suite uses it, so that no crate is needed for hashing.
fn sha256(provider: &CryptoProvider) -> Result<&'static dyn Hash, BuildError> {
    let hashes = provider.cipher_suites.iter().map(|suite| match suite {
        SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
        SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
    });
    let mut sha256 = hashes.filter(|hash| hash.algorithm() == HashAlgorithm::SHA256);
    sha256.next().ok_or_else(|| super::tls::unavailable("the crypto provider has no SHA-256"))
}

const PREFIX: &str = "sha256//";
