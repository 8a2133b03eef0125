//! The settings of a run. Finds every error that can be found before the client connects.

use std::{fs, io, num::NonZeroU64, path::Path, time::Duration};

use http::HeaderName;
use resub::Subprotocol;
use serde_json::value::RawValue;

use crate::{
    args::{self, Args, Source},
    document::Document,
    network::Network,
    outcome::Misuse,
};

/// Has no `Debug`, because it contains secrets.
pub(crate) struct Settings {
    pub(crate) target: Target,
    /// Empty for the operations of the demo.
    pub(crate) documents: Vec<Document>,
    /// Whether these are sent as they are.
    pub(crate) unchecked: bool,
    pub(crate) headers: Vec<(String, String)>,
    /// A JSON object.
    pub(crate) init_payload: Option<Box<RawValue>>,
    pub(crate) subprotocol: Option<Subprotocol>,
    pub(crate) retries: Option<u32>,
    pub(crate) network: Network,
    pub(crate) count: Option<NonZeroU64>,
    pub(crate) limit: Option<Duration>,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

/// The server to connect to.
pub(crate) enum Target {
    /// The market that this program serves. It drops every connection this often.
    Embedded {
        drop_every: Option<Duration>,
    },
    Server {
        url: String,
    },
}

impl Settings {
    pub(crate) fn from_command_line() -> Result<Self, Misuse> {
        let (args, sources) = Args::from_command_line()?;
        Self::new(args, sources)
    }

    fn new(args: Args, sources: Vec<Source>) -> Result<Self, Misuse> {
        let network = Network::new(&args)?;
        let target = match args.url {
            Some(_) if sources.is_empty() => {
                let missing = "a URL needs an operation: add --query 'subscription { ... }' or \
                               --query-file FILE";
                return Err(Misuse(missing.into()));
            }
            Some(url) => Target::Server { url },
            None => Target::Embedded { drop_every: args.demo_drop_every },
        };
        Ok(Self {
            target,
            documents: documents(sources, args.variables, args.operation_name)?,
            unchecked: args.unchecked,
            headers: args.header.iter().map(|text| header(text)).collect::<Result<_, _>>()?,
            init_payload: args
                .init_payload
                .map(|text| object("--init-payload", &text))
                .transpose()?,
            subprotocol: match args.subprotocol {
                args::Subprotocol::Auto => None,
                args::Subprotocol::GraphqlTransportWs => Some(Subprotocol::GraphqlTransportWs),
                args::Subprotocol::GraphqlWs => Some(Subprotocol::GraphqlWs),
            },
            retries: args.retries,
            network,
            count: args.count,
            limit: args.limit,
            json: args.json,
            quiet: args.quiet,
        })
    }
}

fn documents(
    sources: Vec<Source>,
    variables: Vec<String>,
    names: Vec<String>,
) -> Result<Vec<Document>, Misuse> {
    for (flag, given) in [("--variables", variables.len()), ("--operation-name", names.len())] {
        if given > sources.len() {
            return Err(Misuse(format!(
                "{flag} was given {given} times, for {} of --query",
                sources.len()
            )));
        }
    }
    let (mut variables, mut names) = (variables.into_iter(), names.into_iter());
    sources
        .into_iter()
        .map(|source| {
            let variables =
                variables.next().map(|text| object("--variables", &text)).transpose()?;
            Ok(Document { text: text(source)?, operation_name: names.next(), variables })
        })
        .collect()
}

fn text(source: Source) -> Result<String, Misuse> {
    let (flag, text) = match source {
        Source::Inline(text) => ("--query", text),
        Source::File(path) => {
            let failed =
                |error| Misuse(format!("--query-file: cannot read `{}`: {error}", path.display()));
            ("--query-file", read(&path).map_err(failed)?)
        }
    };
    if text.trim().is_empty() {
        return Err(Misuse(format!("{flag}: the document is empty")));
    }
    Ok(text)
}

fn read(path: &Path) -> io::Result<String> {
    if path == Path::new("-") { io::read_to_string(io::stdin()) } else { fs::read_to_string(path) }
}

/// Parses `name: value`. An invalid header is not shown, because it may be the secret itself.
fn header(text: &str) -> Result<(String, String), Misuse> {
    let Some((name, value)) = text.split_once(':') else {
        return Err(Misuse("--header: expected 'name: value', found no colon".into()));
    };
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err(Misuse("--header: what is before the colon is not a header name".into()));
    }
    Ok((name.into(), value.trim().into()))
}

/// Parses a JSON object and keeps its text. An error contains the position, never the text.
fn object(flag: &str, text: &str) -> Result<Box<RawValue>, Misuse> {
    let value: Box<RawValue> = serde_json::from_str(text)
        .map_err(|error| Misuse(format!("{flag}: not valid JSON: {error}")))?;
    if !value.get().starts_with('{') {
        return Err(Misuse(format!("{flag}: expected a JSON object")));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(count: usize) -> Vec<Source> {
        vec![Source::Inline("subscription { a }".into()); count]
    }

    #[test]
    fn the_nth_variables_belong_to_the_nth_operation() {
        let documents =
            documents(sources(2), vec![r#"{"n": 1.0}"#.into()], vec!["A".into(), "B".into()])
                .unwrap();
        let of = |n: usize| {
            (
                documents[n].variables.as_deref().map(RawValue::get),
                documents[n].operation_name.as_deref(),
            )
        };
        assert_eq!([of(0), of(1)], [(Some(r#"{"n": 1.0}"#), Some("A")), (None, Some("B"))]);
    }

    #[test]
    fn variables_without_an_operation_are_refused() {
        let Misuse(refusal) = documents(sources(1), vec!["{}".into(); 2], vec![]).unwrap_err();
        assert_eq!(refusal, "--variables was given 2 times, for 1 of --query");
    }

    #[test]
    fn a_header_is_split_at_its_first_colon() {
        let expected = ("X-Url".to_owned(), "http://a:1".to_owned());
        for text in ["X-Url: http://a:1", "X-Url:http://a:1 "] {
            assert_eq!(header(text), Ok(expected.clone()));
        }
        assert_eq!(header("X-Empty:"), Ok(("X-Empty".into(), String::new())));
    }

    #[test]
    fn no_refusal_shows_a_secret() {
        for text in ["SECRET", "Authorization Bearer SECRET:x", ":SECRET", "\nSECRET: x"] {
            let Misuse(refusal) = header(text).unwrap_err();
            assert!(refusal.starts_with("--header: ") && !refusal.contains("SECRET"), "{refusal}");
        }
        for text in
            [r#"{"token": "SECRET""#, r#"["SECRET"]"#, r#""SECRET""#, "SECRET", r#"{"SECRET": 1,}"#]
        {
            let Misuse(refusal) = object("--init-payload", text).unwrap_err();
            assert!(
                refusal.starts_with("--init-payload: ") && !refusal.contains("SECRET"),
                "{refusal}"
            );
        }
    }
}
