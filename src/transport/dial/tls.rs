//! TLS under the WebSocket: our own step, so that provider, roots, ALPN and errors are ours.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustls::{
    ClientConfig, RootCertStore, SignatureScheme,
    client::{ResolvesClientCert, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName},
    sign::CertifiedKey,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::{BoxedIo, Certificates, Pin, PrivateKey, pin::Pinned, refusal};
use crate::error::{BuildError, DialError, SharedError};

/// How `wss` servers are verified, and what the client shows of itself; for
/// [`ClientBuilder::tls`](crate::ClientBuilder::tls).
///
/// Verification cannot be turned off: a server with a certificate of its own making is trusted by
/// [`only_roots`](Self::only_roots).
///
/// ```no_run
/// # use resub::{Certificates, Client, PrivateKey, Tls};
/// # fn main() -> Result<(), resub::BuildError> {
/// let tls = Tls::new()
///     .only_roots(Certificates::from_file("/etc/market/ca.pem")?)
///     .identity(Certificates::from_file("client.pem")?, PrivateKey::from_file("client.key")?)
///     .pin("sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".parse()?);
/// let client = Client::builder("wss://market.internal/graphql").tls(tls).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until `ClientBuilder::tls` takes them"]
#[cfg_attr(
    docsrs,
    doc(cfg(any(
        feature = "ring",
        feature = "aws-lc-rs",
        feature = "platform-roots",
        feature = "webpki-roots"
    )))
)]
pub struct Tls {
    store: Store,
    /// Trusted beside those in the store.
    roots: Vec<Certificates>,
    identity: Option<(Certificates, PrivateKey)>,
    pins: Vec<Pin>,
}

/// Whose roots are trusted before any are added.
#[derive(Clone, Copy, Debug, Default)]
enum Store {
    #[default]
    Default,
    #[cfg(feature = "platform-roots")]
    Platform,
    #[cfg(feature = "webpki-roots")]
    Webpki,
    Empty,
}

impl Tls {
    /// The defaults: the roots of the operating system where they are compiled in (feature
    /// `platform-roots`), else Mozilla's (feature `webpki-roots`); no client certificate; no pins.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts what the operating system trusts. The default where it is compiled in.
    #[cfg(feature = "platform-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "platform-roots")))]
    pub fn platform_roots(mut self) -> Self {
        self.store = Store::Platform;
        self
    }

    /// Trusts Mozilla's list, compiled in. The default where the operating system's is not.
    #[cfg(feature = "webpki-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "webpki-roots")))]
    pub fn webpki_roots(mut self) -> Self {
        self.store = Store::Webpki;
        self
    }

    /// Trusts these authorities, too. Default: none. Can be called again for more.
    pub fn roots(mut self, certificates: Certificates) -> Self {
        self.roots.push(certificates);
        self
    }

    /// Trusts these authorities, those of [`roots`](Self::roots), and nobody else.
    pub fn only_roots(mut self, certificates: Certificates) -> Self {
        self.store = Store::Empty;
        self.roots(certificates)
    }

    /// Sets what the client shows to a server that asks for a certificate (mutual TLS). Default:
    /// nothing.
    ///
    /// The chain begins with the client's own certificate; its key belongs to that one, or
    /// [`build`](crate::ClientBuilder::build) fails with [`BuildError::Identity`].
    pub fn identity(mut self, chain: Certificates, key: PrivateKey) -> Self {
        self.identity = Some((chain, key));
        self
    }

    /// Allows the server this key, and with the first pin no key but those pinned. Default: any
    /// key.
    ///
    /// It is checked after everything else about the certificate was found to be in order, never
    /// instead. It is the key of the server itself that counts, not that of an authority. Pin the
    /// next key as well, before the server changes to it.
    pub fn pin(mut self, pin: Pin) -> Self {
        self.pins.push(pin);
        self
    }

    /// The configuration of a client's whole life.
    fn config(self, asked: &Arc<Asked>) -> Result<ClientConfig, BuildError> {
        let provider = provider()?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions();
        let mut verifier = self.store.verifier(
            self.roots.into_iter().flat_map(Certificates::into_der).collect(),
            &provider,
        )?;
        if !self.pins.is_empty() {
            verifier = Arc::new(Pinned::new(verifier, self.pins, &provider)?);
        }
        // Not to verify less than rustls: each verifier that can get here does, and `Pinned` adds
        // to it.
        let builder =
            builder.map_err(unusable)?.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match self.identity {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain.into_der(), key.der())
                .map_err(|error| BuildError::Identity(Arc::new(error)))?,
            None => {
                builder.with_client_cert_resolver(Arc::clone(asked) as Arc<dyn ResolvesClientCert>)
            }
        };
        // An HTTP/2 front end would answer an offer of h2 with it, which no WebSocket upgrade
        // survives.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl Store {
    #[allow(unused_variables, reason = "the roots of a store that is not compiled in")]
    fn verifier(
        self,
        extra: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ServerCertVerifier>, BuildError> {
        match self {
            Self::Default => {
                #[cfg(feature = "platform-roots")]
                return Self::Platform.verifier(extra, provider);
                #[cfg(all(feature = "webpki-roots", not(feature = "platform-roots")))]
                return Self::Webpki.verifier(extra, provider);
                #[cfg(not(any(feature = "platform-roots", feature = "webpki-roots")))]
                Err(unavailable(
                    "no roots: enable the feature `platform-roots` or `webpki-roots`, or use `Tls::only_roots`",
                ))
            }
            #[cfg(feature = "platform-roots")]
            Self::Platform => platform(extra, Arc::clone(provider)),
            #[cfg(feature = "webpki-roots")]
            Self::Webpki => {
                let mut roots: RootCertStore =
                    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
                add(&mut roots, extra)?;
                webpki(roots, provider)
            }
            Self::Empty => {
                let mut roots = RootCertStore::empty();
                add(&mut roots, extra)?;
                webpki(roots, provider)
            }
        }
    }
}

#[cfg(all(feature = "platform-roots", not(target_os = "android")))]
fn platform(
    extra: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, BuildError> {
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(extra, provider);
    Ok(Arc::new(verifier.map_err(unusable)?))
}

#[cfg(all(feature = "platform-roots", target_os = "android"))]
fn platform(
    extra: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, BuildError> {
    if !extra.is_empty() {
        return Err(unavailable("Android's verifier takes no other roots: use `Tls::only_roots`"));
    }
    Ok(Arc::new(rustls_platform_verifier::Verifier::new(provider).map_err(unusable)?))
}

fn add(roots: &mut RootCertStore, extra: Vec<CertificateDer<'static>>) -> Result<(), BuildError> {
    extra.into_iter().try_for_each(|certificate| roots.add(certificate)).map_err(unusable)
}

fn webpki(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, BuildError> {
    let builder =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    Ok(builder.build().map_err(|error| BuildError::Tls(Arc::new(error)))?)
}

/// The TLS of one client: one configuration for its life, so that sessions resume across
/// reconnects.
pub(crate) struct TlsStep {
    connector: TlsConnector,
    asked: Arc<Asked>,
}

impl TlsStep {
    pub(crate) fn new(tls: Tls) -> Result<Self, BuildError> {
        let asked = Arc::default();
        let config = tls.config(&asked)?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), asked })
    }

    /// A configuration that the application made.
    pub(crate) fn ready(config: Arc<ClientConfig>) -> Self {
        Self { connector: TlsConnector::from(config), asked: Arc::default() }
    }

    pub(crate) async fn handshake(
        &self,
        endpoint: &Url,
        tcp: TcpStream,
    ) -> Result<BoxedIo, DialError> {
        let name = match endpoint.host() {
            Some(Host::Domain(name)) => ServerName::try_from(name.to_owned())
                .map_err(|error| DialError::Permanent(Arc::new(error) as SharedError))?,
            Some(Host::Ipv4(address)) => ServerName::from(std::net::IpAddr::from(address)),
            Some(Host::Ipv6(address)) => ServerName::from(std::net::IpAddr::from(address)),
            None => {
                return Err(DialError::Permanent(Arc::new(io::Error::from(
                    io::ErrorKind::InvalidInput,
                ))));
            }
        };
        self.asked.0.store(false, Ordering::Relaxed);
        match self.connector.connect(name, tcp).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) if self.asked.0.load(Ordering::Relaxed) => {
                Err(refusal::of_one_without_certificate(error))
            }
            Err(error) => Err(refusal::classify(error, DialError::Tls)),
        }
    }
}

/// Has no certificate for a server that asks for one, and remembers that it did.
#[derive(Default, Debug)]
struct Asked(AtomicBool);

impl ResolvesClientCert for Asked {
    fn resolve(
        &self,
        _issuers: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// The process's default provider where it has one, else the one that is compiled in.
#[allow(clippy::unnecessary_wraps, reason = "fails where no provider is compiled in")]
pub(super) fn provider() -> Result<Arc<CryptoProvider>, BuildError> {
    if let Some(provider) = CryptoProvider::get_default() {
        return Ok(Arc::clone(provider));
    }
    #[cfg(feature = "ring")]
    return Ok(Arc::new(rustls::crypto::ring::default_provider()));
    #[cfg(all(feature = "aws-lc-rs", not(feature = "ring")))]
    return Ok(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    Err(unavailable(
        "no crypto provider: enable the feature `ring` or `aws-lc-rs`, or install a process default",
    ))
}

pub(super) fn unavailable(what: &'static str) -> BuildError {
    BuildError::Tls(Arc::new(io::Error::new(io::ErrorKind::Unsupported, what)))
}

fn unusable(error: rustls::Error) -> BuildError {
    BuildError::Tls(Arc::new(error))
}
