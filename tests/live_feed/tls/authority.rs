//! Certificates made for one test, and a file of roots that makes a program trust them. Knows
//! nothing of sockets.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// Certifies whoever asks.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its own certificate. Removed when this is dropped.
    roots: PathBuf,
}

/// What a server shows, and proves to hold.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

impl Identity {
    /// A certificate and its key in one text.
    pub(crate) fn from_pem(text: &str) -> Self {
        Self {
            certificate: CertificateDer::from_pem_slice(text.as_bytes()).unwrap(),
            key: PrivateKeyDer::from_pem_slice(text.as_bytes()).unwrap(),
            certificate_pem: text.to_owned(),
            key_pem: text.to_owned(),
        }
    }
}

impl Authority {
    pub(crate) fn new() -> Self {
        let number = FOUNDED.fetch_add(1, Ordering::Relaxed);
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two authorities of one name would be told apart by their signatures only, which is
        // another error.
        params.distinguished_name.push(DnType::CommonName, format!("Authority {number}"));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let roots = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("roots-{}-{number}.pem", process::id()));
        fs::write(&roots, issuer.pem()).unwrap();
        Self { issuer, roots }
    }

    /// For a host name or an IP address.
    pub(crate) fn certify(&self, name: &str) -> Identity {
        self.sign(&CertificateParams::new([name.to_owned()]).unwrap())
    }

    /// The same, but it was valid in the last century only.
    pub(crate) fn certify_the_past(&self, name: &str) -> Identity {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(1999, 12, 31);
        self.sign(&params)
    }

    /// The same, but it becomes valid long after these tests.
    pub(crate) fn certify_the_future(&self, name: &str) -> Identity {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(4000, 1, 1);
        self.sign(&params)
    }

    /// Its own certificate.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        self.issuer.der()
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A PEM file, for `SSL_CERT_FILE`.
    pub(crate) fn roots(&self) -> &Path {
        &self.roots
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        // What stays behind is in a directory for such files.
        let _ = fs::remove_file(&self.roots);
    }
}

/// The tests of a process share its directory.
static FOUNDED: AtomicU32 = AtomicU32::new(0);
