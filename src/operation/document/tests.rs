use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::{json, value::to_raw_value};

use super::*;

fn checked(document: &str, name: Option<&str>, kind: OperationType) -> Result<(), SubscribeError> {
    let payload = to_raw_value(&json!({"query": document, "operationName": name})).unwrap();
    Documents::default().check(&payload, kind)
}

fn error(document: &str) -> SyntaxError {
    match checked(document, None, OperationType::Subscription) {
        Err(SubscribeError::Syntax(error)) => error,
        other => panic!("a syntax error was expected, not {other:?}: {document}"),
    }
}

/// Found by a thread with a small stack, as a runtime or an application may have.
fn with_small_stack<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(512 * 1024);
        builder.spawn_scoped(scope, f).unwrap().join().unwrap()
    })
}

#[test]
fn a_document_of_any_valid_shape_passes() {
    for document in [
        include_str!("../../../queries/last_trade.graphql"),
        include_str!("../../../queries/place_order.graphql"),
        include_str!("../../../queries/quotes.graphql"),
        include_str!("../../../queries/symbols.graphql"),
        include_str!("../../../queries/trades.graphql"),
        INTROSPECTION,
        "{a}",
        "query { a }",
        "subscription S { a }",
        "\u{feff}subscription{a}",
        "# only\n\tsubscription S, { a, b,, c } # this\r\n",
        "subscription S { a }\rfragment F on T { a }",
        "query query { query mutation subscription fragment type on true false null }",
        "{ on { on } ... on on { on } ...onward }",
        "fragment fragment on fragment { on } { ...fragment }",
        "{ alias: field(argument: 1) @directive(a: 1) @other { __typename } }",
        "{ ...F ...F @d ... on T { a } ... on T @d { a } ... @include(if: $a) { a } ... { a } }",
        "fragment F on T @d(a: [1]) { ...G } fragment G on T { a } { ...F }",
        "query Q($a: Int, $b: [String!]! = [\"x\"], $c: T = {a: {b: [1, 2]}} @d(e: 1)) @f { a }",
        "{ a(b: 0, c: -0, d: 10, e: -1.5, f: 1e9, g: 1.5E-3, h: 0.0e+0) }",
        "{ a(b: true, c: false, d: null, e: ENUM, f: $variable, g: [], h: {}, i: [[1] {j: 2}]) }",
        "{ a(b: \"\", c: \"x\", d: \"é😀\u{1}\", e: \"\\\" \\\\ \\/ \\b\\f\\n\\r\\t\") }",
        "{ a(b: \"\\u00e9\", c: \"\\u{1F600}\", d: \"\\uD83D\\uDE00\") }",
        "{ a(b: \"\"\"\"\"\", c: \"\"\"x\n  y \\ \"z\" \\\"\"\" \"\"\") }",
        "{ a(b: \"# no comment\", c: \"{\") } # } \"\"\" \"",
        // Of definitions that are for no client, the server has to say so.
        "\"t\" type T implements A & B @d { \"f\" f(\"a\" a: Int = 1): [T!]! } { a }",
        "input I @oneOf { a: Int b: String } { a }",
    ] {
        for kind in [OperationType::Query, OperationType::Subscription, OperationType::Mutation] {
            let refusal = checked(document, None, kind).err();
            let fits = !matches!(&refusal, Some(error) if !matches!(error,
                SubscribeError::Mutation | SubscribeError::Subscription));
            assert!(fits, "{refusal:?}: {document}");
        }
    }
}

#[test]
fn an_error_says_where_it_is_and_what_is_wrong() {
    for (document, place, message) in [
        ("", "1:1", "expected an operation, but the document ends"),
        (" \n\t# nothing", "2:11", "expected an operation, but the document ends"),
        ("{", "1:2", "expected at least one Selection in Selection Set, but the document ends"),
        ("{ }", "1:3", "expected at least one Selection in Selection Set"),
        ("{ a { } }", "1:7", "expected at least one Selection in Selection Set"),
        (
            "subscription {\n  a {\n",
            "3:1",
            "expected at least one Selection in Selection Set, but the document ends",
        ),
        ("subscription { a { b }", "1:23", "expected `}`, but the document ends"),
        ("{ a } }", "1:7", "expected a definition"),
        ("{ a }\r\nb", "2:1", "expected a definition"),
        ("subscripton { a }", "1:1", "expected a definition"),
        ("query", "1:6", "expected a Selection Set, but the document ends"),
        ("query A B { a }", "1:9", "expected a Selection Set"),
        ("query Q( { a }", "1:10", "expected a Variable Definition"),
        ("query Q($a) { a }", "1:11", "expected a Name"),
        ("query Q($a: ) { a }", "1:13", "expected a Type"),
        ("query Q($a: [Int) { a }", "1:17", "expected `]`"),
        ("query Q($a: Int = $b) { a }", "1:19", "unexpected variable value in a Const context"),
        ("{ a() }", "1:5", "expected an Argument"),
        ("{ a(b: 1 }", "1:10", "expected `)`"),
        ("{ a(b) }", "1:6", "expected `:`"),
        ("{ a(b # none\n, ) }", "2:3", "expected `:`"),
        ("{ a(b:) }", "1:7", "expected a valid Value"),
        ("{ a(b: {c}) }", "1:10", "expected `:`"),
        ("{ a(b: {c:}) }", "1:11", "expected a valid Value"),
        ("{ a(b: [1) }", "1:10", "expected a valid Value"),
        ("{ a: }", "1:6", "expected a Name"),
        ("{ ... }", "1:3", "expected an Inline Fragment or a Fragment Spread"),
        ("{ a @ }", "1:7", "expected a Name"),
        ("fragment on on T { a } { a }", "1:10", "fragment Name cannot be 'on'"),
        ("fragment F T { a } { a }", "1:12", "expected 'on'"),
        ("{ a(b: 0xF) }", "1:8", "unexpected character `x` as integer suffix"),
        ("{ a(b: 01) }", "1:8", "numbers must not have non-significant leading zeroes"),
        ("{ a(b: 1.) }", "1:8", "unexpected character `)`, expected fractional digit"),
        ("{ a(b: 'c') }", "1:8", "unexpected character \"'\""),
        ("{ é }", "1:3", "unexpected character \"é\""),
        ("{ a(b: \"é😀\", c: ?) }", "1:17", "unexpected character \"?\""),
        ("{ a(b: \"c) }", "1:8", "unterminated string value"),
        ("{ a(b: \"c\n\") }", "1:8", "unexpected line terminator"),
        ("{ a(b: \"\n\") }", "1:8", "unexpected line terminator"),
        ("{ a(b: \"\\x\") }", "1:8", "unexpected escaped character"),
        (
            "{ a(b: \"\\u{110000}\") }",
            "1:8",
            "unicode escape sequence must specify a Unicode scalar value",
        ),
        ("{ a(b: \"\"\"c) }", "1:8", "unterminated string value"),
        // Newer than the parser: what `unchecked` is for.
        ("\"What it does.\" query Q { a }", "1:1", "expected an Operation Type or a Selection Set"),
        ("query Q(\"which\" $a: Int) { a }", "1:9", "expected a Variable Definition"),
        ("fragment F($a: Int) on T { a } { ...F }", "1:11", "expected 'on'"),
    ] {
        let error = error(document);
        let found = format!("{}:{}: {}", error.line, error.column, error.message);
        assert_eq!(found, format!("{place}: {message}"), "{document}");
        assert!(error.to_string().starts_with(&format!("syntax error at {found}")), "{error}");
    }
}

#[test]
fn of_several_errors_the_first_is_told_and_the_others_are_counted() {
    let error = error("{ a ? }\n{ b % }\n{ c ^ }");
    assert_eq!((error.line, error.column, error.more), (1, 5, 2), "{error}");
    assert!(error.to_string().ends_with(" (and 2 more)"), "{error}");
}

#[test]
fn what_the_document_says_is_not_in_the_error() {
    for document in [
        "{ a(b: 1 \"secret\") }",
        "{ login(password: \"secret) }",
        "{ a } \"secret\"",
        "query Q secret { a }",
        "{ a(b: [1, \"secret\" } }",
    ] {
        let error = error(document);
        assert!(!format!("{error:?} {error}").contains("secret"), "{error}");
    }
}

#[test]
fn nesting_is_an_error_before_it_is_a_stack_overflow() {
    for (open, deep) in [("{", 100_000), ("{a", 100_000), ("{a(", 10_000), ("{...on T@d", 10_000)] {
        let error = with_small_stack(|| error(&open.repeat(deep)));
        assert_eq!(error.line, 1);
    }
    for (before, open) in [("{a(b:", "["), ("{a(b:", "{c:"), ("query($a:", "["), ("{a(b:", "[{c:")]
    {
        let error = with_small_stack(|| error(&format!("{before}{}", open.repeat(10_000))));
        assert_eq!(error.message, "nested more than 200 levels deep", "{open}");
    }
    let nested = |n: usize| format!("{}{}", "{a".repeat(n), "}".repeat(n));
    let allowed = || checked(&nested(MAX_DEPTH), None, OperationType::Query);
    assert!(with_small_stack(allowed).is_ok());
    let error = error(&nested(MAX_DEPTH + 1));
    assert_eq!((error.line, error.column, error.more), (1, 402, 0), "{error}");
}

#[test]
fn a_document_of_too_many_tokens_is_an_error_and_one_that_is_merely_long_is_none() {
    let error = error(&format!("{{ a{} }}", ",".repeat(MAX_TOKENS)));
    assert_eq!(error.message, "more than 1000000 tokens");
    let long = format!("{{ a(b: \"{}\") }}", "x".repeat(MAX_TOKENS));
    assert!(checked(&long, None, OperationType::Query).is_ok());
}

#[test]
fn an_operation_is_known_by_the_keyword_of_its_definition_and_nothing_else() {
    let (query, mutation) = (OperationType::Query, OperationType::Mutation);
    let subscription = OperationType::Subscription;
    for (document, kind) in [
        ("{ mutation }", query),
        ("query mutation { subscription }", query),
        ("# mutation M { a }\n{ a }", query),
        ("fragment mutation on T { a } query Q { a }", query),
        ("query Q { a(b: \"} mutation M {\") }", query),
        ("query Q { a(b: \"\"\"} mutation M { \\\"\"\" mutation \"\"\") }", query),
        ("mutation { a }", mutation),
        ("mutation M($a: Int = 1) { query }", mutation),
        ("\u{feff} # query\n , mutation M { a }", mutation),
        ("fragment F on T { a } mutation M { ...F }", mutation),
        ("subscription query { mutation { mutation } }", subscription),
        ("subscription S($a: T = \"} mutation { a }\") { a(b: $a) }", subscription),
    ] {
        let found = parse(document).unwrap();
        assert_eq!(found.iter().map(|found| found.kind).collect::<Vec<_>>(), [kind], "{document}");
    }
}

#[test]
fn what_is_started_as_something_else_is_refused_where_that_would_do_harm() {
    let (query, mutation) = (OperationType::Query, OperationType::Mutation);
    let subscription = OperationType::Subscription;
    for (document, kind, refusal) in [
        ("{ a }", query, None),
        ("mutation { a }", query, Some("mutation")),
        ("subscription { a }", query, Some("subscription")),
        ("{ a }", mutation, None),
        ("mutation { a }", mutation, None),
        ("subscription { a }", mutation, Some("subscription")),
        ("{ a }", subscription, None),
        ("mutation { a }", subscription, Some("mutation")),
        ("subscription { a }", subscription, None),
    ] {
        let refused = match checked(document, None, kind) {
            Ok(()) => None,
            Err(SubscribeError::Mutation) => Some("mutation"),
            Err(SubscribeError::Subscription) => Some("subscription"),
            Err(error) => panic!("{error:?}"),
        };
        assert_eq!(refused, refusal, "{document} as a {kind:?}");
    }
}

#[test]
fn of_several_operations_the_named_one_counts_and_there_has_to_be_one() {
    let checked = |document, name| checked(document, name, OperationType::Subscription);
    let all = "mutation M { a } subscription S { a } fragment F on T { a } { a }";
    assert!(matches!(checked(all, Some("M")), Err(SubscribeError::Mutation)));
    assert!(checked(all, Some("S")).is_ok());
    for unknown in ["F", "T", "m", "mutation", "S "] {
        let Err(SubscribeError::UnknownOperation(name)) = checked(all, Some(unknown)) else {
            panic!("{unknown}")
        };
        assert_eq!(name, unknown);
    }
    for none in [None, Some("")] {
        let refused = checked(all, none);
        assert!(matches!(refused, Err(SubscribeError::UnnamedOperation(3))), "{none:?}");
        assert!(matches!(checked("mutation M { a }", none), Err(SubscribeError::Mutation)));
        for document in ["fragment F on T { a }", "type T { a: Int }"] {
            let refused = checked(document, none);
            assert!(matches!(refused, Err(SubscribeError::NoOperation)), "{document}");
        }
    }
    let refused = checked("fragment F on T { a }", Some("F"));
    assert!(matches!(refused, Err(SubscribeError::NoOperation)));
    // Whichever of them a server would run.
    let twice = "subscription S { a } mutation S { a } subscription S { a }";
    assert!(matches!(checked(twice, Some("S")), Err(SubscribeError::Mutation)));
}

#[test]
fn a_request_is_an_object_with_a_document_and_a_name_or_a_persisted_one() {
    let checked = |json: &str| {
        let payload = RawValue::from_string(json.to_owned()).unwrap();
        Documents::default().check(&payload, OperationType::Subscription)
    };
    for persisted in [
        r#"{"extensions":{"persistedQuery":{}}}"#,
        r#"{"id":"7","operationName":"A","variables":{}}"#,
        r#"{"query":null,"documentId":"7"}"#,
    ] {
        assert!(checked(persisted).is_ok(), "{persisted}");
    }
    assert!(checked(r#"{"query":"\u007ba\u007D","operationName":null}"#).is_ok());
    for odd in [
        "5",
        "[]",
        "\"x\"",
        "null",
        r#"{"query":7}"#,
        r#"{"query":["{a}"]}"#,
        r#"{"query":"{a}","operationName":7}"#,
        r#"{"query":"{a}","query":"mutation { a }"}"#,
    ] {
        assert!(matches!(checked(odd), Err(SubscribeError::Serialize(_))), "{odd}");
    }
}

#[test]
fn a_document_that_passed_is_remembered_and_one_that_did_not_is_not() {
    let documents = Documents::default();
    let check = |document: &str, name| {
        let payload = to_raw_value(&json!({"query": document, "operationName": name})).unwrap();
        documents.check(&payload, OperationType::Subscription)
    };
    let remembered = || documents.known(|known| known.by_text.len());
    let both = "subscription S { a } mutation M { a }";
    for _ in 0..2 {
        assert!(check(both, "S").is_ok());
        assert!(matches!(check(both, "M"), Err(SubscribeError::Mutation)));
        assert!(matches!(check(both, "X"), Err(SubscribeError::UnknownOperation(_))));
        assert!(matches!(check("subscription S {", "S"), Err(SubscribeError::Syntax(_))));
        assert_eq!(remembered(), 1);
    }
}

#[test]
fn what_is_remembered_is_bounded_in_documents_and_in_bytes() {
    let documents = Documents::default();
    let check = |document: &str| {
        let payload = to_raw_value(&json!({"query": document, "operationName": "S"})).unwrap();
        documents.check(&payload, OperationType::Subscription).unwrap();
        let (count, counted) = documents.known(|known| (known.by_text.len(), known.bytes));
        let bytes = documents.known(|known| {
            known.by_text.iter().map(|(text, found)| super::bytes(text, found)).sum::<usize>()
        });
        assert_eq!(counted, bytes);
        assert!(count <= MAX_DOCUMENTS && bytes <= MAX_BYTES, "{count} documents, {bytes} bytes");
        count
    };
    for n in 0..MAX_DOCUMENTS {
        assert_eq!(check(&format!("subscription S {{ a{n} }}")), n + 1);
    }
    assert_eq!(check("subscription S { one_more }"), 1);
    let long = |n| format!("subscription S {{ a(b: \"{n}{}\") }}", "x".repeat(300_000));
    assert_eq!([1, 2, 3, 4].map(|n| check(&long(n))), [2, 3, 4, 1]);
    assert_eq!(check(&format!("subscription S {{ a }} #{}", "x".repeat(MAX_BYTES))), 1);
    let mut many = String::from("subscription S { a }");
    (0..20_000).for_each(|n| write!(many, "query Q{n}{{a}}").unwrap());
    assert_eq!(check(&many), 1, "definitions count, too");
}

proptest! {
    #[test]
    fn no_text_panics_and_what_is_refused_says_where(
        document in prop_oneof![".*", tokens()],
        name: Option<String>,
    ) {
        let refusal = checked(&document, name.as_deref(), OperationType::Subscription).err();
        if let Some(SubscribeError::Syntax(error)) = refusal {
            let lines = document.split(['\n', '\r']).count() as u64;
            prop_assert!((1..=lines).contains(&error.line), "{error:?}");
            prop_assert!((1..=document.chars().count() as u64 + 1).contains(&error.column));
            prop_assert!(!error.to_string().chars().any(char::is_control));
        }
    }

    #[test]
    fn a_mutation_is_found_whatever_is_around_it(before in definitions(), after in definitions()) {
        let document = format!("{before}mutation M {{ a }} {after}");
        let refused = checked(&document, Some("M"), OperationType::Subscription);
        prop_assert!(matches!(refused, Err(SubscribeError::Mutation)), "{refused:?}: {document}");
        let refused = checked(&document, None, OperationType::Subscription);
        prop_assert!(
            matches!(refused, Err(SubscribeError::Mutation | SubscribeError::UnnamedOperation(_))),
            "{refused:?}: {document}"
        );
    }
}

/// Any number of valid ones, in which a mutation is hard to find.
fn definitions() -> impl Strategy<Value = String> {
    const DEFINITIONS: [&str; 8] = [
        "subscription S { a }\n",
        "query mutation { mutation(mutation: mutation) { mutation } } ",
        "query Q($mutation: T = \"}\\\" mutation M {\") { a(b: {c: [\"{\", \"(\"]}) } ",
        "{ a(b: \"\"\"mutation M { \\\"\"\" {{{ \"\"\") } ",
        "# mutation M { \" \"\"\" {\n",
        "# \r",
        "fragment mutation on mutation @mutation { ...M } ",
        ",\u{feff} ",
    ];
    proptest::collection::vec(proptest::sample::select(&DEFINITIONS[..]), 0..6)
        .prop_map(|definitions| definitions.concat())
}

/// What looks like GraphQL, and is now and then.
fn tokens() -> impl Strategy<Value = String> {
    const TOKENS: [&str; 36] = [
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        ":",
        "=",
        "!",
        "@",
        "$",
        "...",
        "&",
        "|",
        "a",
        "B",
        "on",
        "query",
        "mutation",
        "subscription",
        "fragment",
        "type",
        "extend",
        "true",
        "null",
        "0",
        "-1.5",
        "\"s\"",
        "\"\"\"b\"\"\"",
        "\"",
        "\\",
        "#",
        "\n",
        "\r\n",
        "é",
        ",",
    ];
    proptest::collection::vec(proptest::sample::select(&TOKENS[..]), 0..40)
        .prop_map(|tokens| tokens.join(" "))
}

/// What tools send to learn a schema, with everything that the September 2025 edition has.
const INTROSPECTION: &str = "
query IntrospectionQuery {
  __schema {
    description
    queryType { name kind }
    mutationType { name kind }
    subscriptionType { name kind }
    types { ...FullType }
    directives {
      name description isRepeatable locations
      args(includeDeprecated: true) { ...InputValue }
    }
  }
}
fragment FullType on __Type {
  kind name description specifiedByURL isOneOf
  fields(includeDeprecated: true) {
    name description
    args(includeDeprecated: true) { ...InputValue }
    type { ...TypeRef }
    isDeprecated deprecationReason
  }
  inputFields(includeDeprecated: true) { ...InputValue }
  interfaces { ...TypeRef }
  enumValues(includeDeprecated: true) { name description isDeprecated deprecationReason }
  possibleTypes { ...TypeRef }
}
fragment InputValue on __InputValue {
  name description type { ...TypeRef } defaultValue isDeprecated deprecationReason
}
fragment TypeRef on __Type {
  kind name
  ofType { kind name ofType { kind name ofType { kind name ofType { kind name } } } }
}
";
