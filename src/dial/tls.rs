//! TLS under the WebSocket: our own step, so that provider, roots, ALPN and errors are ours.

use std::{io, sync::Arc};

use rustls::{ClientConfig, crypto::CryptoProvider, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::BoxedIo;
use crate::error::{BuildError, DialError, SharedError};

/// Which certificate authorities are trusted for `wss`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TlsRoots {
    /// What the operating system trusts. The default where it is compiled in.
    #[cfg(feature = "platform-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "platform-roots")))]
    Platform,
    /// Mozilla's list, compiled in.
    #[cfg(feature = "webpki-roots")]
    #[cfg_attr(docsrs, doc(cfg(feature = "webpki-roots")))]
    Webpki,
}

/// One configuration for a client's life, so that sessions resume across reconnects.
pub(crate) struct Tls(TlsConnector);

impl Tls {
    pub(crate) fn new(roots: Option<TlsRoots>) -> Result<Self, BuildError> {
        let shared = |error: rustls::Error| BuildError::Tls(Arc::new(error));
        let builder = ClientConfig::builder_with_provider(provider()?).with_safe_default_protocol_versions();
        let mut config = with_roots(builder.map_err(shared)?, roots)?;
        // An HTTP/2 front end would answer an offer of h2 with it, which no WebSocket upgrade survives.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    pub(crate) async fn handshake(&self, endpoint: &Url, tcp: TcpStream) -> Result<BoxedIo, DialError> {
        let name = match endpoint.host() {
            Some(Host::Domain(name)) => ServerName::try_from(name.to_owned())
                .map_err(|error| DialError::Permanent(Arc::new(error) as SharedError))?,
            Some(Host::Ipv4(address)) => ServerName::from(std::net::IpAddr::from(address)),
            Some(Host::Ipv6(address)) => ServerName::from(std::net::IpAddr::from(address)),
            None => return Err(DialError::Permanent(Arc::new(io::Error::from(io::ErrorKind::InvalidInput)))),
        };
        match self.0.connect(name, tcp).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) if is_about_the_certificate(&error) => Err(DialError::Certificate(Arc::new(error))),
            Err(error) => Err(DialError::Tls(Arc::new(error))),
        }
    }
}

/// The process's default provider where it has one, else the one that is compiled in.
#[allow(clippy::unnecessary_wraps, reason = "fails where no provider is compiled in")]
fn provider() -> Result<Arc<CryptoProvider>, BuildError> {
    if let Some(provider) = CryptoProvider::get_default() {
        return Ok(Arc::clone(provider));
    }
    #[cfg(feature = "ring")]
    return Ok(Arc::new(rustls::crypto::ring::default_provider()));
    #[cfg(all(feature = "aws-lc-rs", not(feature = "ring")))]
    return Ok(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    Err(unavailable("no crypto provider: enable the feature `ring` or `aws-lc-rs`, or install a process default"))
}

type WantsRoots = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn with_roots(builder: WantsRoots, roots: Option<TlsRoots>) -> Result<ClientConfig, BuildError> {
    let Some(roots) = roots.or(TlsRoots::default_choice()) else {
        drop(builder);
        return Err(unavailable("no root certificates: enable the feature `platform-roots` or `webpki-roots`"));
    };
    match roots {
        #[cfg(feature = "platform-roots")]
        TlsRoots::Platform => {
            use rustls_platform_verifier::BuilderVerifierExt as _;
            let builder = builder.with_platform_verifier().map_err(|error| BuildError::Tls(Arc::new(error)))?;
            Ok(builder.with_no_client_auth())
        }
        #[cfg(feature = "webpki-roots")]
        TlsRoots::Webpki => {
            let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect::<rustls::RootCertStore>();
            Ok(builder.with_root_certificates(roots).with_no_client_auth())
        }
    }
}

impl TlsRoots {
    #[allow(clippy::unnecessary_wraps, reason = "none where no roots are compiled in")]
    fn default_choice() -> Option<Self> {
        #[cfg(feature = "platform-roots")]
        return Some(Self::Platform);
        #[cfg(all(feature = "webpki-roots", not(feature = "platform-roots")))]
        return Some(Self::Webpki);
        #[cfg(not(any(feature = "platform-roots", feature = "webpki-roots")))]
        None
    }
}

fn unavailable(what: &'static str) -> BuildError {
    BuildError::Tls(Arc::new(io::Error::new(io::ErrorKind::Unsupported, what)))
}

fn is_about_the_certificate(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented))
}
