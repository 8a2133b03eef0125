# `just ci` is what CI runs; every other recipe is a part of it.

default:
    @just --list

# All of it, cheapest first.
ci: fmt width rules lint features test histories real bench-check members instructions docs deny msrv demo

# Formatting, as rustfmt.toml says.
fmt:
    cargo fmt --all --check

# No line of Rust or prose is longer than 100 columns. Tables and links cannot be wrapped.
width:
    #!/usr/bin/env bash
    set -euo pipefail
    export LC_ALL=C.UTF-8
    # Every line with its place, but no table, no code block of a document and no line of one link.
    long=$({
        git ls-files -z '*.rs' | xargs -0 awk '
            !/^ *\/\/[\/!] \|/ && !/^ *\/\/[\/!] \[[^]]*\]: / { print FILENAME ":" FNR ":" $0 }'
        git ls-files -z '*.md' | xargs -0 awk '
            FNR == 1 { code = 0 }
            /^ *```/ { code = !code; next }
            !code && !/^ *\|/ && !/^ *[-*]? *\[[^]]*\]:? ?[^ ]*$/ { print FILENAME ":" FNR ":" $0 }'
    } | grep -E '^[^:]+:[0-9]+:.{101,}' || true)
    test -z "$long" || { echo "$long"; echo "these lines have more than 100 columns"; exit 1; }

# Every rule and invariant that is cited is defined: in PROTOCOL.md and in ARCHITECTURE.md.
rules:
    #!/usr/bin/env bash
    set -euo pipefail
    defined=$(sed -nE 's/^### Rule ([0-9]+[a-f]?): .*/\1/p' PROTOCOL.md
        grep -oE '\*\*I[0-9]+\*\*' ARCHITECTURE.md | tr -d '*')
    undefined=0
    while read -r file; do
        # Lines are joined, as a citation may go on in the next one; a test cites by its name.
        text=$(sed -E 's/^ *\/\/[\/!]?//; s/rule_([0-9]+[a-f]?)_/rule \1 /' "$file" | tr -s '\n ' ' ')
        cited=$({ grep -oiE '\brules? [0-9]+[a-f]?(( to|,? and|,? or|,) [0-9]+[a-f]?)*' <<<"$text" \
            | grep -oE '[0-9]+[a-f]?'; grep -oE '\bI[0-9]+\b' <<<"$text"; } || true)
        for name in $(sort -u <<<"$cited"); do
            grep -qx "$name" <<<"$defined" || { echo "$file: $name is not defined"; undefined=1; }
        done
    done < <(git ls-files '*.rs' '*.md')
    exit $undefined

# Warnings are errors: by default, with everything, and with the pure core alone.
lint:
    cargo clippy --all-targets -- -D warnings
    cargo clippy --all-targets --all-features -- -D warnings
    cargo clippy --all-targets --no-default-features -- -D warnings
    cargo clippy --no-default-features -- -D warnings
    cargo check --no-default-features
    cargo clippy --no-default-features --features client,webpki-roots -- -D warnings

# Each feature alone compiles, and without a warning.
features:
    #!/usr/bin/env bash
    set -euo pipefail
    features=$(sed -n '/^\[features\]/,/^\[dependencies\]/s/^\([a-z_][a-z_-]*\) *=.*/\1/p' Cargo.toml)
    test "$(wc -w <<<"$features")" -ge 10
    for feature in $features; do
        echo "$feature alone"
        cargo clippy --quiet --no-default-features --features "$feature" -- -D warnings
    done

# The README's test command: units, properties, the mock server on a paused clock, real servers, the example, doc tests.
test:
    cargo test

# Twenty times as many random histories as `cargo test` runs, in the optimised profile.
histories:
    RESUB_HISTORIES=100000 RESUB_OUTAGES=10000 cargo test --release --lib -- client::tests::histories session::tests::outages

# The tests with programs of others, which `cargo test` ignores. A program that is not installed is said to be untested.
real:
    #!/usr/bin/env bash
    set -euo pipefail
    ran=0
    for program in tinyproxy microsocks nginx curl; do
        if ! PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null; then
            echo "NOT TESTED: $program is not installed, so the tests that need it were skipped (apt-get install $program)"
            continue
        fi
        # Its tests are those that its name is in; that there are none is a mistake in this recipe.
        expected=$(cargo test --quiet --test servers -- --ignored --list "$program" | grep -c ': test$' || true)
        test "$expected" -gt 0 || { echo "no test needs $program"; exit 1; }
        out=$(PATH="$PATH:/usr/sbin" cargo test --quiet --test servers -- --ignored "$program" 2>&1) || { echo "$out"; exit 1; }
        grep -q "test result: ok. $expected passed" <<<"$out" || { echo "$out"; exit 1; }
        echo "$program: $expected tests passed"
        ran=$((ran + expected))
    done
    echo "$ran tests with programs of others"

# Every benchmark of the pure parts runs once; nothing is measured.
bench-check:
    cargo bench --features _bench --bench pure -- --test

# The harness of benches/README.md compiles and its own tests pass; what it measures is no test. The example with SQLite
# compiles; `demo` runs it.
members:
    cargo clippy -p resub-compare -p resub-ledger --all-targets -- -D warnings
    cargo test -p resub-compare

# Instructions for each event, against those on record; they do not depend on what else the machine does.
instructions:
    benches/callgrind.sh

# The documentation as docs.rs builds it, and of the parts of the crate.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --no-default-features --features client

# Licences, bans and sources. The advisory database is fetched from GitHub, so it has a recipe of its own.
deny:
    cargo deny check bans licenses sources

# Known vulnerabilities; needs the network.
advisories:
    cargo deny check advisories

# The oldest supported compiler, where it is installed.
msrv:
    #!/usr/bin/env bash
    set -euo pipefail
    msrv=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if rustup toolchain list 2>/dev/null | grep -q "^$msrv"; then
        cargo "+$msrv" check --lib
    else
        echo "toolchain $msrv is not installed: not checked"
    fi

# The README's run command, and its promise that streams survive.
demo:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --quiet --example live_feed
    cargo run --quiet --example resume | tail -n 1
    cargo run --quiet --example place_order
    cargo run --quiet --example ticker | tail -n 1
    cargo run --quiet --example token_refresh -- 3s | tail -n 1
    cargo run --quiet --example rotation
    cargo run --quiet -p resub-ledger
    out=$(cargo run --quiet --example live_feed -- --count 20 --json)
    test "$(grep -c '"type":"next"' <<<"$out")" = 20
    out=$(cargo run --quiet --example live_feed -- --demo-drop-every 1s --for 10s --json)
    for operation in Trades Quotes; do
        # Gaps that are followed by an item of the same operation.
        survived=$(grep "\"operation\":\"$operation\"" <<<"$out" | grep -o '"type":"[a-z]*"' | uniq | tr -d '\n' \
            | { grep -o '"type":"gap""type":"next"' || true; } | wc -l)
        echo "$operation: $survived cuts survived in 10 s"
        test "$survived" -ge 5
    done
