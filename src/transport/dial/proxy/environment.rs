//! Reads the environment variables for proxies in the way that curl does.
//!
//! It differs from curl in three points: connections to this machine never use a proxy, a `*` in a
//! list of hosts has the same meaning as alone, and an exempt IPv6 address may be written in any
//! form.

use hyper_util::client::proxy::matcher::Matcher;
use url::{Host, Url};

use super::{Proxy, target};
use crate::error::BuildError;

/// Returns the proxy for an endpoint, if there is one.
///
/// A value that cannot be read is an error, because a direct connection may not be allowed.
/// [`Matcher::from_env`] would ignore it, so the variables are read here.
pub(super) fn environment(
    endpoint: &Url,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, BuildError> {
    // An empty variable counts as not set.
    let first = |names: &[&str]| {
        names.iter().find_map(|name| variable(name).filter(|value| !value.trim().is_empty()))
    };
    let proxy = first(match endpoint.scheme() {
        "wss" => {
            &["wss_proxy", "WSS_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
        }
        // `HTTP_PROXY` is not read: in a CGI program it has the request's header `Proxy`, which
        // the caller chooses (CVE-2016-5385).
        _ => &["ws_proxy", "WS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY"],
    });
    let Some(proxy) = proxy else { return Ok(None) };
    let exempt = first(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
    if is_exempt(endpoint, &exempt)? { Ok(None) } else { proxy.trim().parse().map(Some) }
}

fn is_exempt(endpoint: &Url, rules: &str) -> Result<bool, BuildError> {
    let rules = || {
        let rules = rules.split(|c: char| c == ',' || c.is_ascii_whitespace());
        rules.filter(|rule| !rule.is_empty())
    };
    // hyper-util applies `*` to names only, not to addresses.
    if rules().any(|rule| rule == "*") {
        return Ok(true);
    }
    let mut endpoint = endpoint.clone();
    let mut exempt = THIS_MACHINE.to_owned();
    let name = match endpoint.host() {
        Some(Host::Domain(name)) => Some(without_dot(name).to_owned()),
        Some(Host::Ipv4(_) | Host::Ipv6(_)) | None => None,
    };
    for rule in rules() {
        exempt.push(',');
        exempt.push_str(if name.is_some() { without_dot(rule) } else { rule });
    }
    if let Some(name) = name {
        // This fails only if the name was a single dot, which no rule matches.
        let _ = endpoint.set_host(Some(&name));
    }
    // The matcher needs some proxy; which one makes no difference.
    let matcher = Matcher::builder().all("http://proxy").no(exempt).build();
    Ok(matcher.intercept(&target(&endpoint)?).is_none())
}

/// Removes the dot of the root domain from the end of a name.
fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Hosts that never use a proxy, in the form of `NO_PROXY`.
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
    fn the_first_variable_that_is_set_is_used_in_the_order_of_curl() {
        let wss =
            ["wss_proxy", "WSS_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
        let ws = ["ws_proxy", "WS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY"];
        for (endpoint, order, others) in [
            ("wss://example.com/", &wss as &[_], &["ws_proxy", "WS_PROXY", "http_proxy"] as &[_]),
            ("ws://example.com/", &ws, &["wss_proxy", "WSS_PROXY", "https_proxy", "HTTPS_PROXY"]),
        ] {
            for first in 0..order.len() {
                let set = order[first..].iter().chain(others).chain(&["HTTP_PROXY"]);
                let values: Vec<_> = set.map(|name| (*name, format!("p-{name}"))).collect();
                let mut values: Vec<_> =
                    values.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let expected = format!("http://p-{}:80", order[first].to_ascii_lowercase());
                assert_eq!(chosen(endpoint, &values).unwrap(), Some(expected), "{values:?}");
                // An empty variable counts as not set.
                values.extend(order[..first].iter().map(|name| (*name, " ")));
                values.reverse();
                let expected = format!("http://p-{}:80", order[first].to_ascii_lowercase());
                assert_eq!(chosen(endpoint, &values).unwrap(), Some(expected), "{values:?}");
            }
            let values: Vec<_> = others.iter().map(|name| (*name, "p")).collect();
            assert_eq!(chosen(endpoint, &values).unwrap(), None);
        }
        assert_eq!(
            chosen("wss://example.com/", &[("ALL_PROXY", "socks5h://a:3")]).unwrap(),
            Some("socks5h://a:3".into())
        );
    }

    /// In a CGI program the caller of the program chooses the value.
    #[test]
    fn http_proxy_in_upper_case_is_never_read() {
        for endpoint in ["ws://example.com/", "wss://example.com/"] {
            for others in [&[] as &[_], &[("REQUEST_METHOD", "GET")], &[("all_proxy", " ")]] {
                let values = [&[("HTTP_PROXY", "evil")], others].concat();
                assert_eq!(chosen(endpoint, &values).unwrap(), None);
            }
        }
    }

    #[test]
    fn the_lower_case_list_of_exempt_hosts_is_used_unless_it_is_empty() {
        for (lower, upper, exempt) in [
            ("example.com", "other.example", true),
            ("other.example", "example.com", false),
            ("", "example.com", true),
            ("example.com", "", true),
        ] {
            let values = [("all_proxy", "p"), ("no_proxy", lower), ("NO_PROXY", upper)];
            let proxy = chosen("ws://example.com/", &values).unwrap();
            assert_eq!(proxy.is_none(), exempt, "{values:?}");
        }
    }

    #[test]
    fn exempt_hosts_are_dialed_directly() {
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
            ("example.com", "a.b example.com"),
            ("example.com", "a.b\texample.com"),
            ("example.com", " ,a.b ,\t, example.com\t, c"),
            ("192.0.2.7", "a.b 192.0.2.7"),
            ("192.0.2.7", "a.b\t192.0.2.0/24"),
            ("example.com.", "example.com"),
            ("example.com", "example.com."),
            ("example.com.", "example.com."),
            ("www.example.com.", ".example.com."),
            ("192.0.2.7.", "192.0.2.7"),
            ("[2001:db8::7]", "2001:0db8:0::7"),
            ("localhost", ""),
            ("localhost.", ""),
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
            // As with curl, an address has no dot at the end, no brackets and no port.
            ("192.0.2.7", "192.0.2.7."),
            ("[2001:db8::7]", "[2001:db8::7]"),
            ("example.com:81", "example.com:81"),
            ("example.com", "."),
            ("example.com.", ".. ."),
            ("example.com", "..com"),
            (".", "."),
            (".", "com"),
            // As with curl, `*` is no wildcard within a name.
            ("www.example.com", "*.example.com"),
        ] {
            assert!(!is_exempt(host, rules), "{host} by {rules}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_read_is_an_error_unless_the_host_is_exempt() {
        for bad in
            ["https://p:1", "socks4://p", "http://", "http://p:99999", "ftp://p", "\"http://p:1\""]
        {
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
