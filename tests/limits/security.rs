//! SECURITY.md names the test that holds each promise; this is the one that holds SECURITY.md.

use std::{fs, path::Path};

/// Every file and test that it names, in its own order: `` `tests/file.rs` `a_name_of_a_test` ``.
fn named(text: &str) -> Vec<(&str, &str)> {
    let mut named = Vec::new();
    for line in text.lines() {
        let mut file = None;
        for code in line.split('`').skip(1).step_by(2) {
            if Path::new(code).extension().is_some_and(|it| it == "rs") {
                file = Some(code);
            } else if code.matches('_').count() >= 3
                && code.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            {
                named.push((file.unwrap_or_else(|| panic!("{code} is in no file")), code));
            }
        }
    }
    named
}

/// Whether there is such a test in the source: the function, with an attribute or a macro that
/// makes it one.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let is_function =
            ["fn", "async fn"].iter().any(|word| line.starts_with(&format!("{word} {name}(")));
        let before = &lines[at.saturating_sub(4)..at];
        is_function
            && before
                .iter()
                .any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}

#[test]
fn every_test_that_is_named_there_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let named = named(&text);
    assert!(named.len() > 40, "{}", named.len());
    let missing: Vec<_> = named
        .iter()
        .filter(|(file, name)| {
            !fs::read_to_string(root.join(file)).is_ok_and(|source| is_test(&source, name))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_row_of_its_tables_names_a_test() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("SECURITY.md")).unwrap();
    let rows = text.lines().filter(|line| {
        line.starts_with("| ") && !line.starts_with("| who |") && !line.starts_with("| of |")
    });
    let (with, without): (Vec<_>, Vec<_>) = rows.partition(|row| !named(row).is_empty());
    // The one row that is in every other.
    assert!(with.len() > 25 && without.len() == 1, "{without:#?}");
}

#[test]
fn a_test_that_does_not_exist_is_noticed() {
    assert_eq!(
        named("| x | `tests/a.rs` `a_b_c_d`; `src/b.rs` `b_c_d_e` | `max_x`"),
        [("tests/a.rs", "a_b_c_d"), ("src/b.rs", "b_c_d_e")]
    );
    let source = "#[test]\nfn a_b_c_d() {}\n#[tokio::test]\n    async fn b_c_d_e() {}\n}\n\n\n\n\
                  fn c_d_e_f() {}";
    assert!(is_test(source, "a_b_c_d") && is_test(source, "b_c_d_e"));
    assert!(!is_test(source, "c_d_e_f") && !is_test(source, "a_b_c"));
}
