#!/usr/bin/env bash
# Counts the instructions of one event on the hot path, and fails when resub needs over 5 % more than benches/README.md has
# on record. `--write` records instead. Deterministic up to hashing and masking keys: well below 1 %.
set -euo pipefail
cd "$(dirname "$0")/.."

readme=benches/README.md
few=100
many=300
subscriptions=100

if ! command -v valgrind >/dev/null 2>&1; then
    echo "valgrind is not installed: instructions are not counted"
    exit 0
fi
cargo build --quiet --release -p resub-compare
program=${CARGO_TARGET_DIR:-target}/release/resub-compare

count() { # contender, bytes, events for each subscription
    local log
    log=$(timeout 300 valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" steps "$1" "$2" $subscriptions "$3" 2>&1) || {
        echo "$log" >&2
        return 1
    }
    awk '/Collected *:/ { print $NF; counted = 1 } END { exit !counted }' <<<"$log"
}

per_event() { # contender, bytes
    local low high
    # `set -e` does not reach into `$(...)`: without this, a run that failed would count as no instructions at all.
    low=$(count "$1" "$2" $few) || return 1
    high=$(count "$1" "$2" $many) || return 1
    echo $(((high - low) / ((many - few) * subscriptions)))
}

recorded() { # row
    awk -F' *[|] *' -v row="$1" '
        /<!-- begin: instructions -->/ { on = 1 }
        /<!-- end: instructions -->/ { on = 0 }
        on && $2 == row { print $3 }' "$readme"
}

table=$'| 100 subscriptions | instructions for each event |\n|---|---:|\n'
worse=0
for bytes in 150 2048; do
    for contender in routed prefix 'resub, tasks' 'resub, shared'; do
        row="$contender, $bytes B"
        now=$(per_event "$contender" $bytes)
        before=$(recorded "$row")
        table+="| $row | $now |"$'\n'
        echo "$row: $now instructions (on record: ${before:-none})"
        if [[ $contender == resub* && -n $before ]] && ((now * 100 > before * 105)); then
            echo "  that is more than 5 % above the record" >&2
            worse=1
        fi
    done
done

if [[ ${1:-} == --write ]]; then
    TABLE=$table awk '
        /<!-- begin: instructions -->/ { print; print ""; printf "%s", ENVIRON["TABLE"]; print ""; skip = 1 }
        /<!-- end: instructions -->/ { skip = 0 }
        !skip && !/<!-- begin: instructions -->/' "$readme" >"$readme.new"
    mv "$readme.new" "$readme"
    echo "recorded in $readme"
    exit 0
fi
exit $worse
