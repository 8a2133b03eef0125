//! Whether a request may be sent: the syntax of its document, and what the operation in it does.
//!
//! Several servers close the whole connection over a syntax error, which every other operation on
//! it would pay for. Owns the check and the memory of what passed it. The grammar is
//! `apollo-parser`'s.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use apollo_parser::{
    Parser, SyntaxKind, SyntaxNode, SyntaxToken,
    cst::{self, CstNode},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    error::{SubscribeError, SyntaxError},
    operation::OperationType,
};

/// The documents of a client that passed the check. Generated ones are static and sent again and
/// again: parsing costs microseconds, finding one again a fraction of that.
#[derive(Default)]
pub(crate) struct Documents(Mutex<Known>);

/// At most [`MAX_DOCUMENTS`] and [`MAX_BYTES`]. It is emptied when it is full: with more documents
/// than that in turns, most are found all the same, which dropping the oldest would not do.
#[derive(Default)]
struct Known {
    /// By the document as a JSON string, as it is in the request.
    by_text: HashMap<Box<str>, Arc<[Definition]>>,
    /// Of all texts and definitions.
    bytes: usize,
}

/// An operation in a document.
#[derive(PartialEq, Eq, Debug)]
struct Definition {
    kind: OperationType,
    name: Option<Box<str>>,
}

/// What of a request decides whether it may be sent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(borrow)]
    query: Option<&'a RawValue>,
    operation_name: Option<String>,
}

impl Documents {
    /// Refuses a request whose document is not GraphQL or does not have the operation to run, and
    /// one that is not what it is started as, as far as that would do harm: a mutation that would
    /// be sent again, and a subscription of which only the first result would be seen. A persisted
    /// operation, without a document, is taken at its word.
    pub(crate) fn check(
        &self,
        payload: &RawValue,
        kind: OperationType,
    ) -> Result<(), SubscribeError> {
        check_shape(payload)?;
        let Body { query, operation_name } =
            serde_json::from_str(payload.get()).map_err(SubscribeError::Serialize)?;
        let Some(query) = query else { return Ok(()) };
        let definitions = self.definitions(query)?;
        // Some servers take an empty name for none.
        let name = operation_name.filter(|name| !name.is_empty());
        // `GetOperation` of the GraphQL specification, section 6.1. That several have one name is
        // for the server to refuse.
        let named =
            |found: &&Definition| name.is_none() || found.name.as_deref() == name.as_deref();
        let mut run = definitions.iter().filter(named);
        match (run.clone().count(), &name) {
            (0, Some(name)) if !definitions.is_empty() => {
                return Err(SubscribeError::UnknownOperation(name.clone()));
            }
            (0, _) => return Err(SubscribeError::NoOperation),
            (operations @ 2.., None) => return Err(SubscribeError::UnnamedOperation(operations)),
            (1.., Some(_)) | (1, None) => {}
        }
        run.try_for_each(|found| check_kind(found.kind, kind))
    }

    /// The operations of a document, which is a JSON string.
    fn definitions(&self, query: &RawValue) -> Result<Arc<[Definition]>, SubscribeError> {
        if let Some(definitions) = self.known(|known| known.by_text.get(query.get()).cloned()) {
            return Ok(definitions);
        }
        let document: String =
            serde_json::from_str(query.get()).map_err(SubscribeError::Serialize)?;
        let definitions: Arc<[_]> = parse(&document).map_err(SubscribeError::Syntax)?.into();
        self.known(|known| known.insert(query.get(), &definitions));
        Ok(definitions)
    }

    fn known<T>(&self, f: impl FnOnce(&mut Known) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Known {
    fn insert(&mut self, text: &str, definitions: &Arc<[Definition]>) {
        let bytes = bytes(text, definitions);
        if bytes > MAX_BYTES / 2 {
            return;
        }
        if self.by_text.len() >= MAX_DOCUMENTS || self.bytes + bytes > MAX_BYTES {
            self.by_text.clear();
            self.bytes = 0;
        }
        if self.by_text.insert(text.into(), Arc::clone(definitions)).is_none() {
            self.bytes += bytes;
        }
    }
}

fn bytes(text: &str, definitions: &[Definition]) -> usize {
    let names: usize =
        definitions.iter().flat_map(|found| &found.name).map(|name| name.len()).sum();
    text.len() + size_of_val(definitions) + names
}

/// Refuses what no server could read as a request.
pub(crate) fn check_shape(payload: &RawValue) -> Result<(), SubscribeError> {
    if payload.get().starts_with('{') {
        return Ok(());
    }
    Err(SubscribeError::Serialize(serde::ser::Error::custom("a request is an object")))
}

/// Refuses an operation that is not what it is started as, where that would do harm.
fn check_kind(found: OperationType, started_as: OperationType) -> Result<(), SubscribeError> {
    match (started_as, found) {
        (OperationType::Query | OperationType::Subscription, OperationType::Mutation) => {
            Err(SubscribeError::Mutation)
        }
        (OperationType::Query | OperationType::Mutation, OperationType::Subscription) => {
            Err(SubscribeError::Subscription)
        }
        (_, OperationType::Query)
        | (OperationType::Mutation, OperationType::Mutation)
        | (OperationType::Subscription, OperationType::Subscription) => Ok(()),
    }
}

fn parse(document: &str) -> Result<Vec<Definition>, SyntaxError> {
    let tree = Parser::new(document).recursion_limit(MAX_DEPTH).token_limit(MAX_TOKENS).parse();
    // The parser looks one token ahead, so errors are not in the order of the document.
    if let Some(first) = tree.errors().min_by_key(|error| error.index()) {
        let message = if !first.is_limit() {
            message(first)
        } else if tree.recursion_limit().high > MAX_DEPTH {
            format!("nested more than {MAX_DEPTH} levels deep")
        } else {
            format!("more than {MAX_TOKENS} tokens")
        };
        let more = tree.errors().filter(|error| error.index() != first.index()).count();
        return Err(SyntaxError::new(document, first.index(), message, more));
    }
    let root = tree.document();
    if let Some((at, message)) = missed(root.syntax()) {
        return Err(SyntaxError::new(document, at, message.to_owned(), 0));
    }
    Ok(root.definitions().filter_map(definition).collect())
}

/// `None` if it is no operation.
fn definition(definition: cst::Definition) -> Option<Definition> {
    let cst::Definition::OperationDefinition(operation) = definition else { return None };
    let kind = match operation.operation_type() {
        Some(keyword) if keyword.mutation_token().is_some() => OperationType::Mutation,
        Some(keyword) if keyword.subscription_token().is_some() => OperationType::Subscription,
        Some(_) | None => OperationType::Query,
    };
    Some(Definition { kind, name: operation.name().map(|name| name.text().as_str().into()) })
}

/// The parser's words, without those of the document, which may be a secret.
fn message(error: &apollo_parser::Error) -> String {
    let said = error.message();
    let expected = match said.split_once(", got ").map_or(said, |(expected, _)| expected) {
        "expected R_CURLY" => "expected `}`",
        "expected R_PAREN" => "expected `)`",
        "expected R_BRACK" => "expected `]`",
        "expected definition" | "expected a StringValue, Name or OperationDefinition" => {
            "expected a definition"
        }
        "Unexpected <EOF>." => "expected an operation",
        other => other,
    };
    let mut message = expected.to_owned();
    if let Some(first) = message.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    if error.is_eof() {
        message.push_str(", but the document ends");
    }
    message
}

/// What `apollo-parser` 0.8 takes for GraphQL and servers do not: a name without a value, as in
/// `a(b)` and `{b}`, and a string whose first character is a line terminator.
fn missed(document: &SyntaxNode) -> Option<(usize, &'static str)> {
    document.descendants_with_tokens().find_map(|element| match element.kind() {
        SyntaxKind::ARGUMENT | SyntaxKind::OBJECT_FIELD => {
            let named = element.as_node()?;
            let has_value =
                named.children_with_tokens().any(|part| part.kind() == SyntaxKind::COLON);
            let next = named.last_token()?.next_token().and_then(significant)?;
            (!has_value).then(|| (start(&next), "expected `:`"))
        }
        SyntaxKind::STRING => {
            let string = element.as_token()?;
            let breaks =
                string.text().contains(['\n', '\r']) && !string.text().starts_with("\"\"\"");
            breaks.then(|| (start(string), "unexpected line terminator"))
        }
        _ => None,
    })
}

/// This token, or the next that means something.
fn significant(token: SyntaxToken) -> Option<SyntaxToken> {
    std::iter::successors(Some(token), SyntaxToken::next_token).find(|token| {
        !matches!(token.kind(), SyntaxKind::WHITESPACE | SyntaxKind::COMMENT | SyntaxKind::COMMA)
    })
}

fn start(token: &SyntaxToken) -> usize {
    token.text_range().start().into()
}

/// Of selections and values. No document that is written by hand comes near, servers allow less,
/// and a thread with a small stack parses it.
const MAX_DEPTH: usize = 200;

/// White space is a token, too. The bound is for errors, of which each token may be one.
const MAX_TOKENS: usize = 1_000_000;

/// How many documents are remembered by a client.
const MAX_DOCUMENTS: usize = 256;

/// How large those are together, with what is known of them.
const MAX_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests;
