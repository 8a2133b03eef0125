//! What the environment says about proxies, as curl and others read it.

use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

use super::{Proxy, target};
use crate::error::BuildError;

/// The proxy for an endpoint, if any. A value that cannot be read is an error, or traffic would go
/// where it must not; as [`Matcher::from_env`] does not tell it from none, the variables are read
/// here.
pub(super) fn environment(
    endpoint: &Url,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, BuildError> {
    let either = |names: &[&str]| {
        names.iter().find_map(|name| variable(name).filter(|value| !value.trim().is_empty()))
    };
    let specific = match endpoint.scheme() {
        "wss" => either(&["HTTPS_PROXY", "https_proxy"]),
        // In a CGI program the upper case one is a header of the request (CVE-2016-5385).
        _ if variable("REQUEST_METHOD").is_some() => either(&["http_proxy"]),
        _ => either(&["HTTP_PROXY", "http_proxy"]),
    };
    let Some(proxy) = specific.or_else(|| either(&["ALL_PROXY", "all_proxy"])) else {
        return Ok(None);
    };
    let exempt = either(&["NO_PROXY", "no_proxy"]).unwrap_or_default();
    if is_exempt(endpoint, &exempt)? { Ok(None) } else { proxy.trim().parse().map(Some) }
}

fn is_exempt(endpoint: &Url, rules: &str) -> Result<bool, BuildError> {
    // To hyper-util this one stands for names, but not for addresses.
    if rules.split(',').any(|rule| rule.trim() == "*") {
        return Ok(true);
    }
    // Which proxy it would be makes no difference.
    let matcher =
        Matcher::builder().all("http://proxy").no(format!("{THIS_MACHINE},{rules}")).build();
    Ok(matcher.intercept(&target(endpoint)?).is_none())
}

/// Is not where a proxy leads to, whatever `NO_PROXY` says.
const THIS_MACHINE: &str = "localhost,127.0.0.0/8,::1";

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(endpoint: &str, variables: &[(&str, &str)]) -> Result<Option<String>, BuildError> {
        let endpoint = Url::parse(endpoint).unwrap();
        let variable = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        environment(&endpoint, variable).map(|proxy| proxy.map(|proxy| proxy.to_string()))
    }

    #[test]
    fn the_scheme_decides_which_variable_counts() {
        let all = [
            ("HTTPS_PROXY", "http://s:1"),
            ("HTTP_PROXY", "p:2"),
            ("ALL_PROXY", "socks5h://a:3"),
            ("all_proxy", "b:4"),
        ];
        let proxy = |endpoint, variables| chosen(endpoint, variables).unwrap();
        assert_eq!(proxy("wss://example.com/", &all), Some("http://s:1".into()));
        assert_eq!(proxy("ws://example.com/", &all), Some("http://p:2".into()));
        assert_eq!(proxy("wss://example.com/", &all[1..]), Some("socks5h://a:3".into()));
        assert_eq!(proxy("ws://example.com/", &all[3..]), Some("http://b:4".into()));
        assert_eq!(proxy("ws://example.com/", &[("http_proxy", "p")]), Some("http://p:80".into()));
        assert_eq!(
            proxy("ws://example.com/", &[("HTTP_PROXY", " "), ("ALL_PROXY", "socks5://a")]),
            Some("socks5://a:1080".into())
        );
        assert_eq!(proxy("ws://example.com/", &[("HTTPS_PROXY", "p")]), None);
        // A header `Proxy:` of whoever calls the program.
        let cgi = [("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "evil"), ("http_proxy", "p")];
        assert_eq!(proxy("ws://example.com/", &cgi), Some("http://p:80".into()));
        assert_eq!(proxy("ws://example.com/", &cgi[..2]), None);
    }

    #[test]
    fn what_is_exempt_is_dialed_directly() {
        let is_exempt = |host: &str, rules: &str| {
            let variables = [("ALL_PROXY", "p"), ("NO_PROXY", rules)];
            chosen(&format!("ws://{host}/"), &variables).unwrap().is_none()
        };
        for (host, rules) in [
            ("example.com", "*"),
            ("example.com", "a.b, example.com"),
            ("EXAMPLE.com", ".Example.Com"),
            ("www.example.com", "example.com"),
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7", "192.0.2.0/24"),
            ("192.0.2.7", "0.0.0.0/0"),
            ("[2001:db8::7]", "2001:db8::/32"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("192.0.2.7", "a.b, *"),
            ("localhost", ""),
            ("a.localhost", ""),
            ("127.0.0.1", ""),
            ("[::1]", ""),
        ] {
            assert!(is_exempt(host, rules), "{host} by {rules}");
        }
        for (host, rules) in [
            ("example.com", ""),
            ("example.com", ",. ,"),
            ("notexample.com", "example.com"),
            ("example.com", "www.example.com"),
            ("192.0.3.7", "192.0.2.0/24"),
            ("192.0.2.7", "192.0.2.0/33"),
            ("192.0.2.7", "::/0"),
            ("[2001:db9::7]", "2001:db8::/32"),
            ("192.0.2.7", "2.7"),
            // Only alone, as for curl.
            ("www.example.com", "*.example.com"),
        ] {
            assert!(!is_exempt(host, rules), "{host} by {rules}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_read_is_an_error_unless_it_does_not_matter() {
        for bad in ["https://p:1", "socks4://p", "http://", "http://p:99999", "ftp://p"] {
            assert!(
                matches!(
                    chosen("ws://example.com/", &[("ALL_PROXY", bad)]),
                    Err(BuildError::Proxy(_))
                ),
                "{bad}"
            );
            let exempt = [("ALL_PROXY", bad), ("NO_PROXY", "example.com")];
            assert_eq!(chosen("ws://example.com/", &exempt).unwrap(), None);
        }
    }
}
