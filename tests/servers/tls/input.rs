//! What is given for certificates, keys and pins, and is none.

use resub::{BuildError, ClientBuilder};

use super::*;

fn builder() -> ClientBuilder {
    Client::builder("wss://localhost/")
}

#[test]
fn broken_certificates_are_an_error_at_once() {
    let pem = Authority::new().pem();
    let cut = &pem[..pem.len() / 2];
    let no_base64 = pem.replace("\nMII", "\n!!!");
    let no_certificate = pem.replace("\nMII", "\nAAA");
    let other = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    for bad in ["", "nonsense", cut, &no_base64, &no_certificate, other, "\u{30}\u{3}"] {
        let error = Certificates::parse(bad).unwrap_err();
        assert!(matches!(error, BuildError::Certificates(_)), "{bad}: {error:?}");
    }
}

#[test]
fn a_broken_key_is_an_error_that_shows_nothing_of_it() {
    let pem = Authority::new().certify("client").key_pem;
    let secret = pem.lines().nth(1).unwrap();
    let on_one_line = pem.replace('\n', "");
    let without_the_break = pem.replacen("-----\n", "", 1);
    let cut = &pem[..pem.len() / 2];
    let no_base64 = pem.replacen("\nM", "\n!", 1);
    let encrypted = pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    for bad in ["", "nonsense", &on_one_line, &without_the_break, cut, &no_base64, &encrypted] {
        let error = PrivateKey::parse(bad).unwrap_err();
        assert!(matches!(error, BuildError::PrivateKey(_)), "{bad}: {error:?}");
        assert!(!format!("{error:?} {}", text(&error)).contains(&secret[1..10]), "{error:?}");
    }
    assert_eq!(format!("{:?}", PrivateKey::parse(&pem).unwrap()), "PrivateKey");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Certificates::from_file("/no/such/ca.pem").unwrap_err();
    assert!(text(&error).starts_with("cannot read `/no/such/ca.pem`: "), "{error:?}");
    let error = PrivateKey::from_file("/no/such/client.key").unwrap_err();
    assert!(matches!(error, BuildError::File { .. }), "{error:?}");
}

#[tokio::test]
async fn a_key_of_another_certificate_is_an_error_of_build() {
    let authority = Authority::new();
    let (one, other) = (authority.certify("client"), authority.certify("client"));
    let key = PrivateKey::parse(&other.key_pem).unwrap();
    let tls = trusting(&authority).identity(certificates(&one.certificate), key);
    let error = builder().tls(tls.clone()).build().unwrap_err();
    assert!(matches!(error, BuildError::Identity(_)), "{error:?}");
    // Without TLS it does not matter.
    assert!(Client::builder("ws://localhost/").tls(tls).build().is_ok());
}

#[test]
fn a_pin_is_what_curl_takes() {
    // openssl x509 -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary
    // | base64
    let pin = Pin::of(&certificates(KNOWN)).unwrap();
    assert_eq!(pin.to_string(), "sha256//GdIKkqCcpJKR2UdvjiH7Z/VXLOqhhnB5yqeGxLfxw9o=");
    assert_eq!(pin.to_string().parse::<Pin>().unwrap(), pin);
    let base64 = pin.to_string().replace("sha256//", "");
    let bad = [
        "",
        "sha256//",
        &base64,
        &format!("sha1//{base64}"),
        &format!("sha256//{}", &base64[4..]),
        "sha256//%%%%",
    ];
    for bad in bad {
        assert!(matches!(bad.parse::<Pin>(), Err(BuildError::Pin)), "{bad}");
    }
}

#[test]
fn nothing_secret_is_in_the_debug_output() {
    let identity = Authority::new().certify("client");
    let key = PrivateKey::parse(&identity.key_pem).unwrap();
    let own = certificates(&identity.certificate);
    let shown = format!("{:?}", Tls::new().only_roots(own.clone()).identity(own, key));
    assert!(shown.contains("PrivateKey") && shown.len() < 200, "{shown}");
}

/// Of an authority long gone.
const KNOWN: &str = "\
-----BEGIN CERTIFICATE-----
MIIBdTCCARugAwIBAgIUL0liREy39x5A9mO/5bzzlDark6kwCgYIKoZIzj0EAwIw
EDEOMAwGA1UEAwwFa25vd24wHhcNMjYxMTIxMTY1NjUyWhcNMjYxMTIyMTY1NjUy
WjAQMQ4wDAYDVQQDDAVrbm93bjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABCHQ
cdQdTRSaXaHzQRSJR/lqv4Ro/LZyPX/d9f3LThtei2bDhTd23gnLf8vDZA0iWDD7
ozJuFaU8sW9YUFIjGUyjUzBRMB0GA1UdDgQWBBRyoxuW2vPamGPOg6/uSsByfJ6o
CjAfBgNVHSMEGDAWgBRyoxuW2vPamGPOg6/uSsByfJ6oCjAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0gAMEUCIHcxhRoAMvUwQ/XVMDCbWZ2+U1+yQca0s29H
CBl7zIU7AiEAkWORb8uvxuJ1ueLs6uEbkMxArC3/hb/d7d9OlSkNf6M=
-----END CERTIFICATE-----
";
