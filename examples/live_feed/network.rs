//! TLS, proxy and addresses. The flags have the names and meanings of curl's flags.

use std::{fs, net::IpAddr, path::Path, time::Duration};

use resub::{BuildError, Certificates, ClientBuilder, Pin, PrivateKey, Proxy, Tls, Url};

use crate::{args::Args, news::Chain, outcome::Misuse};

/// Has no `Debug`, because it contains secrets.
pub(crate) struct Network {
    /// `None` for the default of the library.
    tls: Option<Tls>,
    route: Route,
    /// The addresses of the server. If empty, its name is resolved.
    addresses: Vec<IpAddr>,
    connect_timeout: Option<Duration>,
}

/// Which proxy to use.
enum Route {
    Environment,
    Direct,
    Through(Proxy),
}

impl Network {
    pub(crate) fn new(args: &Args) -> Result<Self, Misuse> {
        let rules =
            args.resolve.iter().map(|text| Rule::parse(text)).collect::<Result<Vec<_>, _>>()?;
        // The library reports an invalid URL later.
        let url = args.url.as_deref().and_then(|url| Url::parse(url).ok());
        Ok(Self {
            tls: tls(args)?,
            route: match args.proxy.as_deref() {
                None => Route::Environment,
                Some("") => Route::Direct,
                Some(url) => Route::Through(proxy(url)?),
            },
            addresses: url.map(|url| addresses(&rules, &url)).unwrap_or_default(),
            connect_timeout: args.connect_timeout,
        })
    }

    pub(crate) fn configure(self, mut builder: ClientBuilder) -> ClientBuilder {
        if let Some(tls) = self.tls {
            builder = builder.tls(tls);
        }
        if let Some(timeout) = self.connect_timeout {
            builder = builder.connect_timeout(timeout);
        }
        match self.route {
            Route::Environment => builder,
            Route::Direct => builder.proxy(None),
            Route::Through(proxy) => builder.proxy(proxy),
        }
        .addresses(self.addresses)
    }
}

/// Parses the URL of a proxy. As in curl, the default port is 1080 for every scheme.
fn proxy(url: &str) -> Result<Proxy, Misuse> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (authority, _) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let has_port = host.rsplit_once(']').map_or(host, |(_, port)| port).contains(':');
    let port = if has_port || host.is_empty() { "" } else { ":1080" };
    format!("{scheme}://{authority}{port}").parse().map_err(|error| misuse("--proxy", &error))
}

fn tls(args: &Args) -> Result<Option<Tls>, Misuse> {
    if args.cacert.is_none() && args.cert.is_none() && args.pinnedpubkey.is_none() {
        return Ok(None);
    }
    let mut tls = Tls::new();
    if let Some(file) = &args.cacert {
        tls = tls
            .only_roots(Certificates::from_file(file).map_err(|error| misuse("--cacert", &error))?);
    }
    if let Some(file) = &args.cert {
        let (chain, key) = identity(file, args.key.as_deref())?;
        tls = tls.identity(chain, key);
    }
    for pin in args.pinnedpubkey.iter().flat_map(|pins| pins.split(';')) {
        tls = tls.pin(pin.parse::<Pin>().map_err(|error| misuse("--pinnedpubkey", &error))?);
    }
    Ok(Some(tls))
}

fn identity(cert: &Path, key: Option<&Path>) -> Result<(Certificates, PrivateKey), Misuse> {
    // Read the file once for both, because it may be a pipe.
    let bytes = fs::read(cert)
        .map_err(|source| misuse("--cert", &BuildError::File { path: cert.to_owned(), source }))?;
    let chain = Certificates::parse(&bytes).map_err(|error| misuse("--cert", &error))?;
    let key = match key {
        Some(file) => PrivateKey::from_file(file).map_err(|error| misuse("--key", &error)),
        None => PrivateKey::parse(&bytes)
            .map_err(|error| misuse("--cert, as there is no --key", &error)),
    };
    Ok((chain, key?))
}

/// The value of one `--resolve`.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    /// The host as in a URL, or `*` for any host.
    host: String,
    port: u16,
    addresses: Vec<IpAddr>,
}

impl Rule {
    fn parse(text: &str) -> Result<Self, Misuse> {
        let expected = || Misuse(format!("--resolve: expected HOST:PORT:ADDRESS, found `{text}`"));
        let host_end = match text.strip_prefix('[') {
            Some(_) => text.find(']').map(|end| end + 1),
            None => text.find(':'),
        };
        let (host, rest) = text.split_at(host_end.ok_or_else(expected)?);
        let (port, addresses) =
            rest.strip_prefix(':').and_then(|rest| rest.split_once(':')).ok_or_else(expected)?;
        // curl also has `+HOST` and `-HOST`, which control how long it caches an entry. This
        // program has no such cache.
        if host.is_empty() || host.starts_with(['+', '-']) {
            return Err(expected());
        }
        Ok(Self {
            host: canonical(host),
            port: port.parse().map_err(|_| expected())?,
            addresses: addresses
                .split(',')
                .map(address)
                .collect::<Option<_>>()
                .ok_or_else(expected)?,
        })
    }
}

/// Parses an address. An IPv6 address may have brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text).parse().ok()
}

/// Returns a host in the form that it has in a URL, such as in lower case.
fn canonical(host: &str) -> String {
    let url = Url::parse(&format!("ws://{host}/")).ok();
    url.as_ref().and_then(Url::host_str).unwrap_or(host).to_owned()
}

/// Returns the addresses of the last rule for the host and port of the URL, else of the last rule
/// for any host.
fn addresses(rules: &[Rule], url: &Url) -> Vec<IpAddr> {
    let of = |host: &str| {
        rules
            .iter()
            .rev()
            .find(|rule| rule.host == host && Some(rule.port) == url.port_or_known_default())
    };
    let rule = url.host_str().and_then(of).or_else(|| of("*"));
    rule.map(|rule| rule.addresses.clone()).unwrap_or_default()
}

fn misuse(flag: &str, error: &BuildError) -> Misuse {
    Misuse(format!("{flag}: {}", Chain(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(url: &str, rules: &[&str]) -> String {
        let rules: Vec<_> = rules.iter().map(|text| Rule::parse(text).unwrap()).collect();
        let found = addresses(&rules, &Url::parse(url).unwrap());
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_default_port_of_a_proxy_is_1080() {
        for (url, shown) in [
            ("p", "http://p:1080"),
            ("p:80/", "http://p:80"),
            ("http://u:p@p/x", "http://p:1080"),
            ("http://u:p@[2001:db8::1]", "http://[2001:db8::1]:1080"),
            ("http://[2001:db8::1]:3128", "http://[2001:db8::1]:3128"),
            ("socks5h://u@p", "socks5h://p:1080"),
        ] {
            assert_eq!(proxy(url).map(|proxy| proxy.to_string()), Ok(shown.to_owned()));
        }
        for bad in [
            "http://",
            "u:SECRET@",
            "ftp://u:SECRET@p",
            "https://u:SECRET@p",
            "u:SECRET@a b",
            "u:SECRET@p:x",
        ] {
            let Misuse(refusal) = proxy(bad).unwrap_err();
            assert!(refusal.starts_with("--proxy: ") && !refusal.contains("SECRET"), "{refusal}");
        }
    }

    #[test]
    fn a_rule_is_for_one_host_and_port() {
        for (url, rule, expected) in [
            ("wss://example.com/", "example.com:443:192.0.2.1", "192.0.2.1"),
            (
                "https://example.com/",
                "EXAMPLE.com:443:192.0.2.1,2001:db8::1",
                "192.0.2.1 2001:db8::1",
            ),
            (
                "ws://example.com/",
                "example.com:80:[2001:db8::1], 192.0.2.1",
                "2001:db8::1 192.0.2.1",
            ),
            ("ws://bücher.example:81/", "BÜCHER.example:81:192.0.2.1", "192.0.2.1"),
            ("ws://[2001:DB8:0::1]/", "[2001:db8::1]:80:::1", "::1"),
            ("ws://example.com/", "*:80:192.0.2.1", "192.0.2.1"),
            ("wss://example.com/", "example.com:80:192.0.2.1", ""),
            ("wss://example.com/", "www.example.com:443:192.0.2.1", ""),
        ] {
            assert_eq!(resolved(url, &[rule]), expected, "{url} {rule}");
        }
    }

    #[test]
    fn the_last_rule_for_a_host_counts_and_a_rule_for_any_host_comes_last() {
        let rules = ["a:80:192.0.2.1", "a:80:192.0.2.2", "*:80:192.0.2.3"];
        assert_eq!(
            (resolved("ws://a/", &rules), resolved("ws://b/", &rules)),
            ("192.0.2.2".into(), "192.0.2.3".into())
        );
    }

    #[test]
    fn an_invalid_rule_is_refused_and_shown() {
        for bad in [
            "",
            "a",
            "a:80",
            "a:80:",
            "a:80:b",
            "a:x:192.0.2.1",
            "a:80:192.0.2.1,",
            ":80:::1",
            "[::1:80:::1",
        ] {
            assert_eq!(
                Rule::parse(bad),
                Err(Misuse(format!("--resolve: expected HOST:PORT:ADDRESS, found `{bad}`")))
            );
        }
        for unknown in ["-a:80:192.0.2.1", "+a:80:192.0.2.1", "192.0.2.1:443"] {
            assert!(Rule::parse(unknown).is_err(), "{unknown}");
        }
    }
}
