# `just ci` is what CI runs; every other recipe is a part of it.

default:
    @just --list

# All of it, cheapest first.
ci: fmt lint test bench-check compare instructions docs deny msrv demo

# Formatting, as rustfmt.toml says.
fmt:
    cargo fmt --all --check

# Warnings are errors: by default, with everything, and with the pure core alone.
lint:
    cargo clippy --all-targets -- -D warnings
    cargo clippy --all-targets --all-features -- -D warnings
    cargo clippy --no-default-features -- -D warnings
    cargo check --no-default-features
    cargo clippy --no-default-features --features client -- -D warnings
    cargo clippy --no-default-features --features client,webpki-roots -- -D warnings
    cargo clippy --no-default-features --features client,proxy -- -D warnings
    cargo clippy --no-default-features --features network-watch -- -D warnings
    cargo clippy --no-default-features --features ring -- -D warnings
    cargo clippy --no-default-features --features mock -- -D warnings

# The README's test command: units, properties, the mock server on a paused clock, real servers, the example, doc tests.
test:
    cargo test

# Every benchmark of the pure parts runs once; nothing is measured.
bench-check:
    cargo bench --features _bench --bench pure -- --test

# The harness of benches/README.md compiles and its own tests pass; what it measures is no test.
compare:
    cargo clippy -p resub-compare --all-targets -- -D warnings
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
