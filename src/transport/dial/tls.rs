//! TLS under the WebSocket.
//!
//! tungstenite's TLS is not used, because it offers neither ALPN nor a choice of roots and crypto
//! provider, and does not classify errors.

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

use super::{BoxedIo, Certificates, Pin, PrivateKey, pin::PinnedVerifier, tls_error};
use crate::error::{BuildError, DialError, SharedError};

/// How the client verifies `wss` servers, and which certificate it shows them. For
/// [`ClientBuilder::tls`](crate::ClientBuilder::tls).
///
/// Verification cannot be turned off. To trust a server with a self-signed certificate, pass that
/// certificate to [`only_roots`](Self::only_roots).
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
    /// Trusted in addition to those of the store.
    roots: Vec<Certificates>,
    identity: Option<(Certificates, PrivateKey)>,
    pins: Vec<Pin>,
}

/// Which roots are trusted before others are added.
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
    /// Creates the default options: the roots of the operating system (feature `platform-roots`) or
    /// else those of Mozilla (feature `webpki-roots`), no client certificate, and no pins.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the roots of the operating system. This is the default if the feature is enabled.
    #[cfg(feature = "platform-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "platform-roots")))]
    pub fn platform_roots(mut self) -> Self {
        self.store = Store::Platform;
        self
    }

    /// Trusts Mozilla's roots, which are compiled in. This is the default if the feature
    /// `platform-roots` is not enabled.
    #[cfg(feature = "webpki-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "webpki-roots")))]
    pub fn webpki_roots(mut self) -> Self {
        self.store = Store::Webpki;
        self
    }

    /// Also trusts these authorities. Default: none. Can be called several times.
    pub fn roots(mut self, certificates: Certificates) -> Self {
        self.roots.push(certificates);
        self
    }

    /// Trusts only these authorities and those of [`roots`](Self::roots).
    pub fn only_roots(mut self, certificates: Certificates) -> Self {
        self.store = Store::Empty;
        self.roots(certificates)
    }

    /// Sets the certificate that the client shows to a server that asks for one (mutual TLS).
    /// Default: none.
    ///
    /// The chain begins with the client's own certificate, and the key belongs to that certificate.
    /// Otherwise [`build`](crate::ClientBuilder::build) fails with [`BuildError::Identity`].
    pub fn identity(mut self, chain: Certificates, key: PrivateKey) -> Self {
        self.identity = Some((chain, key));
        self
    }

    /// Allows only servers with this key. Default: any key. Can be called several times to allow
    /// several keys.
    ///
    /// The pin is checked after all other checks of the certificate, and does not replace any of
    /// them. It is compared with the key of the server itself, not with that of an authority. Pin
    /// the server's next key as well, before the server changes to it.
    pub fn pin(mut self, pin: Pin) -> Self {
        self.pins.push(pin);
        self
    }

    /// Creates the rustls configuration, which the client uses for its whole life.
    fn config(self, requested: &Arc<RequestWatch>) -> Result<ClientConfig, BuildError> {
        let provider = provider()?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions();
        let mut verifier = self.store.verifier(
            self.roots.into_iter().flat_map(Certificates::into_der).collect(),
            &provider,
        )?;
        if !self.pins.is_empty() {
            verifier = Arc::new(PinnedVerifier::new(verifier, self.pins, &provider)?);
        }
        // A custom verifier is dangerous if it verifies less than rustls does. These are the
        // verifiers of rustls and of the platform, to which `PinnedVerifier` only adds a check.
        let builder =
            builder.map_err(unusable)?.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match self.identity {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain.into_der(), key.der())
                .map_err(|error| BuildError::Identity(Arc::new(error)))?,
            None => builder
                .with_client_cert_resolver(Arc::clone(requested) as Arc<dyn ResolvesClientCert>),
        };
        // A server that is offered `h2` may choose HTTP/2, which has no such upgrade (rule 8).
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
                    "no roots: enable the feature `platform-roots` or `webpki-roots`, or use \
                     `Tls::only_roots`",
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

/// The TLS of one client. One configuration is used for all connections, so that TLS sessions can
/// be resumed.
pub(crate) struct TlsStep {
    connector: TlsConnector,
    /// Shared with the configuration, unless the client has a certificate.
    requested: Arc<RequestWatch>,
}

impl TlsStep {
    pub(crate) fn new(tls: Tls) -> Result<Self, BuildError> {
        let requested = Arc::default();
        let config = tls.config(&requested)?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), requested })
    }

    /// Uses a configuration that the application made.
    pub(crate) fn ready(config: Arc<ClientConfig>) -> Self {
        Self { connector: TlsConnector::from(config), requested: Arc::default() }
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
        self.requested.0.store(false, Ordering::Relaxed);
        match self.connector.connect(name, tcp).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) if self.requested.0.load(Ordering::Relaxed) => {
                Err(tls_error::classify_without_certificate(error))
            }
            Err(error) => Err(tls_error::classify(error, DialError::Tls)),
        }
    }
}

/// Resolves to no certificate, and remembers whether the server has asked for one.
#[derive(Default, Debug)]
struct RequestWatch(AtomicBool);

impl ResolvesClientCert for RequestWatch {
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

/// Returns the default crypto provider of the process, or else the one that is compiled in.
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
        "no crypto provider: enable the feature `ring` or `aws-lc-rs`, or install a process \
         default",
    ))
}

pub(super) fn unavailable(what: &'static str) -> BuildError {
    BuildError::Tls(Arc::new(io::Error::new(io::ErrorKind::Unsupported, what)))
}

fn unusable(error: rustls::Error) -> BuildError {
    BuildError::Tls(Arc::new(error))
}
