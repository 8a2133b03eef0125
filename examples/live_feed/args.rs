//! The command line, parsed by clap. `settings` checks the values.

use std::{num::NonZeroU64, path::PathBuf, time::Duration};

use clap::{
    ArgMatches, CommandFactory, FromArgMatches, Parser, ValueEnum,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{duration, outcome::Misuse};

/// Prints the events of GraphQL subscriptions as they arrive, and survives reconnects.
///
/// Without a URL, it serves its own market on a free local port and subscribes to its trades and
/// quotes. With --demo-drop-every, you can watch the streams survive. With a URL and a --query, it
/// works with any server that speaks graphql-transport-ws or graphql-ws.
///
/// Events go to standard output. Status changes, errors and a summary go to standard error.
#[derive(Parser)]
#[command(name = "live_feed", version, after_help = AFTER_HELP, verbatim_doc_comment)]
pub(crate) struct Args {
    /// The server: ws:// or wss:// (http:// and https:// mean the same) [default: the embedded
    /// market]
    pub(crate) url: Option<String>,

    /// A document to subscribe to; repeat it for several operations on one connection
    #[arg(long, value_name = "DOC", help_heading = "Operations")]
    pub(crate) query: Vec<String>,

    /// A file with a document; `-` reads standard input
    #[arg(short = 'f', long, value_name = "FILE", help_heading = "Operations")]
    pub(crate) query_file: Vec<PathBuf>,

    /// The variables as a JSON object; the n-th belongs to the n-th operation
    #[arg(long, value_name = "JSON", help_heading = "Operations")]
    pub(crate) variables: Vec<String>,

    /// The operation of the document to run; the n-th belongs to the n-th document
    #[arg(long, value_name = "NAME", help_heading = "Operations")]
    pub(crate) operation_name: Vec<String>,

    /// Send documents as they are, unchecked: their syntax may be newer than this program
    #[arg(long, help_heading = "Operations")]
    pub(crate) unchecked: bool,

    /// A header of the upgrade request, such as 'Authorization: Bearer TOKEN'; repeatable
    #[arg(short = 'H', long, value_name = "NAME: VALUE", help_heading = "Connection")]
    pub(crate) header: Vec<String>,

    /// The payload of `connection_init`, a JSON object such as '{"token": "TOKEN"}'
    #[arg(long, value_name = "JSON", help_heading = "Connection")]
    pub(crate) init_payload: Option<String>,

    /// The subprotocol; `auto` offers graphql-transport-ws first, then graphql-ws
    #[arg(long, value_name = "NAME", help_heading = "Connection")]
    #[arg(value_enum, default_value_t = Subprotocol::Auto)]
    pub(crate) subprotocol: Subprotocol,

    /// Give up after N failed attempts to connect in a row [default: never]
    #[arg(long, value_name = "N", help_heading = "Connection")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) retries: Option<u32>,

    /// Drop every connection to the embedded market this often, to see the streams survive
    #[arg(long, value_name = "DURATION", help_heading = "Connection")]
    #[arg(value_parser = duration::parse, conflicts_with = "url")]
    pub(crate) demo_drop_every: Option<Duration>,

    /// Trust only the certificate authorities in this file (PEM or DER)
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    pub(crate) cacert: Option<PathBuf>,

    /// The client certificate (PEM or DER); a PEM file may also contain its key
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    pub(crate) cert: Option<PathBuf>,

    /// The key of --cert, if it is in another file
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "Network")]
    pub(crate) key: Option<PathBuf>,

    /// The only public key to accept from the server, 'sha256//BASE64'; separate several with `;`
    #[arg(long, value_name = "PIN", help_heading = "Network")]
    pub(crate) pinnedpubkey: Option<String>,

    /// http://, socks5:// or socks5h:// and [USER:PASSWORD@]HOST[:PORT]; '' for none [default:
    /// environment]
    #[arg(long, value_name = "URL", help_heading = "Network")]
    pub(crate) proxy: Option<String>,

    /// The address to use for HOST instead of resolving it; separate several addresses with `,`;
    /// repeatable
    #[arg(long, value_name = "HOST:PORT:ADDRESS", help_heading = "Network")]
    pub(crate) resolve: Vec<String>,

    /// How long an attempt to connect may take, including TLS; may be a fraction [default: 10]
    #[arg(long, value_name = "SECONDS", help_heading = "Network")]
    #[arg(value_parser = duration::parse_seconds)]
    pub(crate) connect_timeout: Option<Duration>,

    /// Stop after N items, counted over all operations
    #[arg(short = 'n', long, value_name = "N", help_heading = "Output")]
    pub(crate) count: Option<NonZeroU64>,

    /// Stop after this time: 500ms, 30s, 2m, 1h
    #[arg(long = "for", value_name = "DURATION", help_heading = "Output")]
    #[arg(value_parser = duration::parse)]
    pub(crate) limit: Option<Duration>,

    /// Print one JSON object per line: type is next, gap, error (an item that does not decode) or
    /// end
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,

    /// Print no status changes and no summary on standard error; errors are still printed
    #[arg(short, long, help_heading = "Output")]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Subprotocol {
    Auto,
    GraphqlTransportWs,
    GraphqlWs,
}

/// Where a document comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Inline(String),
    File(PathBuf),
}

impl Args {
    /// Parses the command line of this process. Also returns the sources of the documents, in
    /// order. `--help` and `--version` exit the process.
    pub(crate) fn from_command_line() -> Result<(Self, Vec<Source>), Misuse> {
        Self::from(std::env::args_os()).map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.exit(),
            _ => Misuse(format!("{} (see --help)", summary(&error))),
        })
    }

    fn from<T>(words: impl IntoIterator<Item = T>) -> clap::error::Result<(Self, Vec<Source>)>
    where
        T: Into<std::ffi::OsString> + Clone,
    {
        let matches = Self::command().try_get_matches_from(words)?;
        let mut args = Self::from_arg_matches(&matches)?;
        let sources = args.take_sources(&matches);
        Ok((args, sources))
    }

    /// Combines `--query` and `--query-file` into one list, in the order of the command line.
    fn take_sources(&mut self, matches: &ArgMatches) -> Vec<Source> {
        let places = |id| matches.indices_of(id).into_iter().flatten();
        let inline = places("query").zip(self.query.drain(..).map(Source::Inline));
        let files = places("query_file").zip(self.query_file.drain(..).map(Source::File));
        let mut sources: Vec<_> = inline.chain(files).collect();
        sources.sort_by_key(|&(place, _)| place);
        sources.into_iter().map(|(_, source)| source).collect()
    }
}

/// Formats an error of clap on one line.
fn summary(error: &clap::Error) -> String {
    if let (ErrorKind::UnknownArgument, Some(ContextValue::String(word))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
        && !word.starts_with('-')
    {
        // The argument is not shown, because it may be part of a secret header without quotes.
        return "unexpected argument: only the URL has no flag, and a value with spaces needs \
                quotes"
            .into();
    }
    let text = error.to_string();
    let parts = text
        .split("\n\n")
        .take_while(|part| !part.starts_with("Usage:") && !part.starts_with("For more"));
    let lines = parts.map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("; ").trim_start_matches("error: ").to_owned()
}

const AFTER_HELP: &str = "\
Exit codes:
    0  completed; or stopped by --count, by --for, or because the output was closed
    1  the operation was rejected, or returned only errors
    2  invalid usage, file or JSON; or the output cannot be written
    3  refused for good: no such endpoint, bad certificate, rejected credentials
    4  gave up connecting (--retries)
  130  interrupted by Ctrl-C
With several operations, the exit code is the highest of all. A second Ctrl-C exits at once.

Examples:
  live_feed --demo-drop-every 3s
  live_feed --json --count 5 | jq -c 'select(.type == \"next\").data'
  live_feed wss://example.com/graphql -H 'Authorization: Bearer TOKEN' \\
      --query 'subscription($id: ID!) { orderChanged(id: $id) { status } }' \\
      --variables '{\"id\": 7}'
  live_feed wss://market.internal/graphql -f trades.graphql --cacert ca.pem --cert client.pem

The flags under Network work as in curl.

RUST_LOG=resub=debug logs what the library does, to standard error.";

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(words: &[&str]) -> String {
        let words = ["live_feed"].iter().chain(words);
        summary(&Args::from(words).err().unwrap())
    }

    #[test]
    fn the_command_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn documents_keep_their_order_across_both_flags() {
        let words =
            ["live_feed", "--query", "A", "-f", "b", "ws://x/", "--query", "C", "--query-file=d"];
        let (args, sources) = Args::from(words).ok().unwrap();
        let [a, c] = ["A", "C"].map(|text| Source::Inline(text.into()));
        let [b, d] = ["b", "d"].map(|path| Source::File(path.into()));
        assert_eq!(sources, [a, b, c, d]);
        assert_eq!(args.url.as_deref(), Some("ws://x/"));
    }

    #[test]
    fn a_refusal_is_one_line_that_names_the_flag() {
        for (words, expected) in [
            (&["--count", "0"][..], "--count <N>"),
            (&["--count", "many"], "--count <N>"),
            (&["--retries", "0"], "--retries <N>"),
            (&["--for", "1.5s"], "'--for <DURATION>': expected a whole number with a unit"),
            (
                &["--demo-drop-every", "0s"],
                "'--demo-drop-every <DURATION>': must be longer than nothing",
            ),
            (
                &["ws://x", "--demo-drop-every", "1s"],
                "'[URL]' cannot be used with '--demo-drop-every <DURATION>'",
            ),
            (
                &["--subprotocol", "mqtt"],
                "[possible values: auto, graphql-transport-ws, graphql-ws]",
            ),
            (&["--cuont", "1"], "a similar argument exists: '--count'"),
            (&["--query"], "--query <DOC>"),
            (&["--key", "client.key"], "--cert <FILE>"),
            (
                &["--connect-timeout", "soon"],
                "'--connect-timeout <SECONDS>': expected a number of seconds",
            ),
        ] {
            let refusal = refusal(words);
            assert!(refusal.contains(expected) && !refusal.contains('\n'), "{refusal}");
            assert!(!refusal.starts_with("error"), "{refusal}");
        }
    }

    #[test]
    fn a_header_that_was_not_quoted_is_not_echoed() {
        let refusal = refusal(&["ws://x", "-H", "Authorization:", "Bearer", "SECRET"]);
        assert!(!refusal.contains("Bearer") && refusal.contains("needs quotes"), "{refusal}");
    }
}
