use proptest::prelude::*;
use serde_json::json;

use super::*;

fn merged(parts: &[Value]) -> Result<Merged> {
    let parts: Vec<String> = parts.iter().map(Value::to_string).collect();
    merge(parts.iter().map(|part| Ok(part.as_str())))
}

#[track_caller]
fn data(parts: &[Value]) -> Value {
    serde_json::from_str(&merged(parts).unwrap().data).unwrap()
}

fn failure(parts: &[Value]) -> IncrementalError {
    merged(parts).unwrap_err()
}

fn messages(errors: &[GraphQlError]) -> Vec<&str> {
    errors.iter().map(|error| error.message.as_str()).collect()
}

/// Field and index segments, as the errors show them.
fn unknown(path: &[&str]) -> String {
    format!("a part belongs to a place that is not in the data: `{}`", path.join("."))
}

#[test]
fn the_format_of_2023_is_merged() {
    // The example of the specification's working group.
    let whole = data(&[
        json!({"data": {"person": {"name": "Luke", "films": [{"title": "A"}]}}, "hasNext": true}),
        json!({"incremental": [
            {"label": "home", "path": ["person"], "data": {"homeWorld": {"name": "Tatooine"}}},
            {"label": "films", "path": ["person", "films", 1], "items": [{"title": "B"}]},
        ], "hasNext": true}),
        json!({"incremental": [
            {"label": "films", "path": ["person", "films", 2], "items": [{"title": "C"}]},
        ], "hasNext": false}),
    ]);
    let films = json!([{"title": "A"}, {"title": "B"}, {"title": "C"}]);
    let person = json!({"name": "Luke", "films": films, "homeWorld": {"name": "Tatooine"}});
    assert_eq!(whole, json!({"person": person}));
}

#[test]
fn patches_from_before_2023_are_merged() {
    let whole = data(&[
        json!({"data": {"a": {"b": 1}, "list": [1]}, "hasNext": true}),
        json!({"data": {"c": 2}, "path": ["a"], "label": "x", "hasNext": true}),
        json!({"data": 2, "path": ["list", 1], "hasNext": true}),
        json!({"data": {"d": 3}, "path": [], "hasNext": true}),
        json!({"hasNext": false}),
    ]);
    assert_eq!(whole, json!({"a": {"b": 1, "c": 2}, "list": [1, 2], "d": 3}));
}

#[test]
fn the_draft_of_the_specification_is_merged() {
    let whole = data(&[
        json!({
            "data": {"a": {"b": {}}, "list": []},
            "pending": [
                {"id": "0", "path": ["a"], "label": "x"},
                {"id": "1", "path": ["list"]},
            ],
            "hasNext": true,
        }),
        json!({"incremental": [{"id": "1", "items": [1, 2]}], "hasNext": true}),
        json!({
            "pending": [{"id": "2", "path": ["a", "b"]}],
            "incremental": [
                {"id": "0", "data": {"c": 1}},
                {"id": "0", "subPath": ["b"], "data": {"d": 2}},
                {"id": "1", "items": [3]},
                {"id": "2", "data": {"e": 3}},
            ],
            "completed": [{"id": "0"}, {"id": "1"}],
            "hasNext": true,
        }),
        json!({"completed": [{"id": "2"}], "hasNext": false}),
    ]);
    assert_eq!(whole, json!({"a": {"b": {"d": 2, "e": 3}, "c": 1}, "list": [1, 2, 3]}));
}

#[test]
fn objects_are_merged_deeply_and_lists_by_their_places() {
    let whole = data(&[
        json!({"data": {"rows": [{"id": 1}, {"id": 2}], "a": {"b": {"c": 1}}}, "hasNext": true}),
        json!({"incremental": [{"path": [], "data": {
            "rows": [{"x": 1}, {"x": 2}, {"x": 3}], "a": {"b": {"d": 2}}, "e": null,
        }}], "hasNext": false}),
    ]);
    let rows = json!([{"id": 1, "x": 1}, {"id": 2, "x": 2}, {"x": 3}]);
    assert_eq!(whole, json!({"rows": rows, "a": {"b": {"c": 1, "d": 2}}, "e": null}));
}

#[test]
fn a_fragment_that_failed_leaves_the_data_as_it_was_and_adds_its_errors() {
    let draft = [
        json!({"data": {"a": 1, "l": []}, "errors": [{"message": "0"}],
            "pending": [{"id": "0", "path": []}, {"id": "1", "path": ["l"]}], "hasNext": true}),
        json!({"completed": [
            {"id": "0", "errors": [{"message": "1"}]}, {"id": "1", "errors": [{"message": "2"}]},
        ], "hasNext": false}),
    ];
    let patches = [
        json!({"data": {"a": 1, "l": []}, "errors": [{"message": "0"}], "hasNext": true}),
        json!({"incremental": [
            {"path": [], "data": null, "errors": [{"message": "1"}]},
            {"path": ["l", 0], "items": null, "errors": [{"message": "2"}]},
        ], "hasNext": false}),
    ];
    for parts in [&draft[..], &patches] {
        let whole = merged(parts).unwrap();
        assert_eq!(whole.data, r#"{"a":1,"l":[]}"#);
        assert_eq!(messages(&whole.errors), ["0", "1", "2"]);
    }
}

#[test]
fn extensions_are_merged_and_the_later_one_counts() {
    let whole = merged(&[
        json!({"data": {}, "extensions": {"a": 1, "b": 1}, "hasNext": true}),
        json!({"incremental": [{"path": [], "data": {}, "extensions": {"b": 2}}],
            "extensions": {"c": 3}, "hasNext": false}),
    ]);
    let expected = json!({"a": 1, "b": 2, "c": 3});
    assert_eq!(whole.unwrap().extensions, expected.as_object().cloned());
}

#[test]
fn what_no_part_touches_stays_as_the_server_wrote_it() {
    let parts = [
        r#"{"data":{"n":1.50,"s":"\ud83d","deep":{ "x" : 1 }},"hasNext":true}"#,
        r#"{"data":{"m":1e3},"path":[],"hasNext":false}"#,
    ];
    let whole = merge(parts.into_iter().map(Ok)).unwrap();
    assert_eq!(whole.data, r#"{"deep":{ "x" : 1 },"m":1e3,"n":1.50,"s":"\ud83d"}"#);
}

#[test]
fn everything_may_be_deferred() {
    for first in [json!({"data": {}, "hasNext": true}), json!({"data": null, "hasNext": true})] {
        let rest = json!({"data": {"a": 1}, "path": [], "hasNext": false});
        assert_eq!(data(&[first, rest]), json!({"a": 1}));
    }
}

#[test]
fn without_the_last_part_or_an_announced_one_the_result_is_incomplete() {
    let pending = json!({"data": {"a": 1}, "pending": [{"id": "0", "path": []}],
        "errors": [{"message": "e"}], "hasNext": true});
    let silent = json!({"errors": [{"message": "f"}]});
    let last = json!({"hasNext": false});
    for parts in [
        &[pending.clone()][..],
        &[pending.clone(), last],
        &[pending.clone(), silent],
        &[json!({"data": {}, "incremental": [], "errors": [{"message": "e"}]})],
    ] {
        let IncrementalError::Incomplete(errors) = failure(parts) else { panic!() };
        assert_eq!(errors[0].message, "e");
        assert_eq!(
            errors.len(),
            1 + usize::from(
                parts.len() == 2 && parts[1].is_object() && parts[1].get("errors").is_some()
            )
        );
    }
}

#[test]
fn a_part_for_a_place_that_is_not_there_is_an_error() {
    for (path, key, value) in [
        (json!(["b"]), "data", json!({})),
        (json!(["a", "b"]), "data", json!({})),
        (json!(["null", "b"]), "data", json!({})),
        (json!(["null"]), "data", json!({"x": 1})),
        (json!(["list", 3]), "data", json!({})),
        (json!(["list", 3]), "items", json!([1])),
        (json!(["list", u64::MAX]), "items", json!([1])),
        (json!(["list", "x", 0]), "items", json!([1])),
        (json!(["list"]), "items", json!([1])),
        (json!(["a", 0]), "items", json!([1])),
        (json!([]), "items", json!([1])),
        (json!(["a", 0]), "data", json!({})),
    ] {
        let parts = [
            json!({"data": {"a": 1, "null": null, "list": [0, 1]}, "hasNext": true}),
            json!({"incremental": [{"path": path, key: value}], "hasNext": false}),
        ];
        let error = failure(&parts).to_string();
        let path: Vec<_> = path.as_array().unwrap().iter().map(ToString::to_string).collect();
        let path: Vec<_> = path.iter().map(|it| it.trim_matches('"')).collect();
        assert_eq!(error, unknown(&path));
    }
}

#[test]
fn a_part_with_an_id_that_was_not_announced_is_an_error() {
    let first = json!({"data": {}, "pending": [{"id": "0", "path": []}], "hasNext": true});
    for part in [
        json!({"incremental": [{"id": "1", "data": {}}], "hasNext": false}),
        json!({"incremental": [{"id": "1"}], "hasNext": false}),
        json!({"completed": [{"id": "1"}], "hasNext": false}),
    ] {
        let error = failure(&[first.clone(), part]);
        assert!(matches!(&error, IncrementalError::UnknownId(id) if id == "1"), "{error:?}");
    }
}

#[test]
fn an_id_may_be_a_number() {
    let whole = data(&[
        json!({"data": {}, "pending": [{"id": 0, "path": []}], "hasNext": true}),
        json!({"incremental": [{"id": "0", "data": {"a": 1}}], "completed": [{"id": 0}],
            "hasNext": false}),
    ]);
    assert_eq!(whole, json!({"a": 1}));
}

#[test]
fn garbage_is_an_error() {
    let first = json!({"data": {"a": {}}, "hasNext": true});
    for part in [
        json!([]),
        json!(7),
        json!(null),
        json!({"hasNext": 1}),
        json!({"incremental": 7, "hasNext": false}),
        json!({"incremental": [7], "hasNext": false}),
        json!({"incremental": [[]], "hasNext": false}),
        json!({"incremental": [{"path": 7, "data": {}}], "hasNext": false}),
        json!({"incremental": [{"path": {"a": "a"}, "data": {}}], "hasNext": false}),
        json!({"incremental": [{"path": [-1], "data": {}}], "hasNext": false}),
        json!({"incremental": [{"path": [null], "data": {}}], "hasNext": false}),
        json!({"pending": [{}], "hasNext": false}),
        json!({"completed": [{}], "hasNext": false}),
        json!({"data": 7, "path": [], "hasNext": false}),
    ] {
        let error = failure(&[first.clone(), part.clone()]);
        assert!(matches!(error, IncrementalError::Malformed(_)), "{part}: {error:?}");
    }
    let unreadable = [Ok(r#"{"hasNext":true"#)];
    assert!(matches!(merge(unreadable.into_iter()), Err(IncrementalError::Malformed(_))));
}

#[test]
fn the_errors_of_all_parts_are_bounded_together() {
    let errors = vec![json!({"message": "m"}); 60];
    let entry = json!({"path": [], "errors": errors});
    let whole = merged(&[
        json!({"data": {}, "errors": errors, "hasNext": true}),
        json!({"errors": errors, "incremental": [entry], "hasNext": false}),
    ]);
    assert_eq!(whole.unwrap().errors.len(), MAX_ERRORS);
    let many = json!({"x": vec![0; 40_000]});
    let error = failure(&[
        json!({"data": {}, "extensions": many, "hasNext": true}),
        json!({"extensions": many, "hasNext": false}),
    ]);
    assert!(error.to_string().contains("65536 values"), "{error}");
}

#[test]
fn paths_and_merging_have_a_depth_beyond_which_they_are_an_error() {
    let nested = |depth: usize| {
        format!("{}{}", r#"{"a":"#.repeat(depth), format_args!("{{}}{}", "}".repeat(depth)))
    };
    let merge_both = |depth| {
        let parts = [
            format!(r#"{{"data":{},"hasNext":true}}"#, nested(depth)),
            format!(r#"{{"data":{},"path":[],"hasNext":false}}"#, nested(depth)),
        ];
        merge(parts.iter().map(|part| Ok(part.as_str()))).map(|whole| whole.data)
    };
    assert_eq!(merge_both(MAX_DEPTH - 1).unwrap(), nested(MAX_DEPTH - 1));
    for depth in [MAX_DEPTH, 100_000] {
        assert!(matches!(merge_both(depth), Err(IncrementalError::TooComplex)), "{depth}");
    }
    for path in [vec!["a"; MAX_DEPTH + 1], vec![&*"x".repeat(MAX_PATH_BYTES + 1)]] {
        let parts = [
            json!({"data": {}, "hasNext": true}),
            json!({"path": path, "data": {}, "hasNext": false}),
        ];
        assert!(matches!(failure(&parts), IncrementalError::TooComplex));
    }
}

#[test]
fn twenty_thousand_parts_of_one_list_are_merged() {
    let mut parts = vec![json!({"data": {"list": []}, "hasNext": true})];
    parts.extend((0..20_000).map(
        |n| json!({"incremental": [{"path": ["list", n], "items": [n]}], "hasNext": n < 19_999}),
    ));
    let list = data(&parts)["list"].as_array().unwrap().len();
    assert_eq!(list, 20_000);
}

#[test]
fn what_merging_takes_is_bounded() {
    let rows = format!("[{}0]", r#"{"":0},"#.repeat(100_000));
    let parts = [
        format!(r#"{{"data":{{"rows":{rows}}},"hasNext":true}}"#),
        format!(r#"{{"data":{{"rows":{rows}}},"path":[],"hasNext":false}}"#),
    ];
    let error = merge(parts.iter().map(|part| Ok(part.as_str()))).unwrap_err();
    assert!(matches!(error, IncrementalError::TooComplex), "{error:?}");
}

/// Splits a value into a first part and patches that make it whole again.
fn split(
    value: &Value,
    path: &mut Vec<Value>,
    patches: &mut Vec<Value>,
    choices: &mut u64,
) -> Value {
    let mut chooses = || {
        *choices = choices.rotate_right(1);
        *choices & 1 == 1
    };
    match value {
        Value::Object(object) => {
            let (mut now, mut later) = (Map::new(), Map::new());
            for (name, value) in object {
                if chooses() {
                    later.insert(name.clone(), value.clone());
                } else {
                    now.insert(name.clone(), value.clone());
                }
            }
            patches.push(json!({"path": path, "data": later}));
            for (name, value) in &mut now {
                path.push(name.clone().into());
                *value = split(value, path, patches, choices);
                path.pop();
            }
            Value::Object(now)
        }
        Value::Array(list) => {
            let kept = if chooses() { list.len() / 2 } else { list.len() };
            path.push(kept.into());
            patches.push(json!({"path": path, "items": list[kept..]}));
            path.pop();
            let mut now = Vec::new();
            for (index, value) in list[..kept].iter().enumerate() {
                path.push(index.into());
                now.push(split(value, path, patches, choices));
                path.pop();
            }
            Value::Array(now)
        }
        other => other.clone(),
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::from),
        "[a-z]{0,3}".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-d]{1,2}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_is_split_into_parts_is_whole_again(
        root in prop::collection::btree_map("[a-d]{1,2}", any_json(), 0..5),
        mut choices: u64,
        size in 1..4_usize,
    ) {
        let whole = Value::Object(root.into_iter().collect());
        let mut patches = Vec::new();
        let first = split(&whole, &mut Vec::new(), &mut patches, &mut choices);
        let mut parts = vec![json!({"data": first, "hasNext": true})];
        for some in patches.chunks(size) {
            parts.push(json!({"incremental": some, "hasNext": true}));
        }
        parts.push(json!({"hasNext": false}));
        prop_assert_eq!(data(&parts), whole);
    }

    #[test]
    fn any_parts_are_merged_or_an_error(texts in prop::collection::vec(
        prop_oneof![
            any_json().prop_map(|data| json!({"data": data, "hasNext": true}).to_string()),
            (any_json(), any_json()).prop_map(
                |(path, data)| json!({"path": path, "data": data, "hasNext": false}).to_string()
            ),
            (any_json(), any_json()).prop_map(
                |(path, items)| json!({"incremental": [{"path": path, "items": items}]}).to_string()
            ),
            (any_json(), any_json()).prop_map(
                |(pending, id)| json!({"pending": [pending], "completed": [{"id": id}]}).to_string()
            ),
            ".{0,20}",
        ],
        0..5,
    )) {
        let _ = merge(texts.iter().map(|text| Ok(text.as_str())));
    }
}
