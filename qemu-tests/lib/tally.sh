# Running test commands and counting what they report. Sourced by verify.
# shellcheck shell=bash

logs=target/verify
table=()
tier_logs=()
skipped=()
all_passed=0
all_failed=0

# The tier that runs: its name, start, counts and log.
begin_tier() {
    tier=$1
    tier_started=$SECONDS
    passed=0 failed=0 ignored=0
    log=$logs/$tier.log
    mkdir -p "$logs"
    : >"$log"
    tier_logs+=("$log")
    echo
    echo "=== $tier"
}

part() {
    echo
    echo "--- $tier, $1"
}

# Runs a command to its end, shows and keeps its output, and adds up libtest's `test result:` lines. A command that fails
# without a failed test (it does not compile, a test program crashed) counts as one failure: nothing is lost between the lines.
run() {
    local output status=0 counts
    output=$(mktemp)
    "$@" </dev/null 2>&1 | tee "$output" || status=$?
    counts=$(awk '/^test result: / { p += $4; f += $6; i += $8 } END { print p + 0, f + 0, i + 0 }' "$output")
    cat "$output" >>"$log"
    rm "$output"
    local p f i
    read -r p f i <<<"$counts"
    passed=$((passed + p)) failed=$((failed + f)) ignored=$((ignored + i))
    if [ "$status" != 0 ] && [ "$f" = 0 ]; then
        failure "status $status from: $*"
    fi
}

# Counts a failure that no test reported.
failure() {
    failed=$((failed + 1))
    echo "verify: $tier: $*" | tee -a "$log"
}

# Names what can't be tried on this machine: not a failure, and not forgotten in the end.
skip() {
    skipped+=("$tier: $*")
    echo "not run: $*" | tee -a "$log"
}

end_tier() {
    [ $((passed + failed)) -gt 0 ] || failure "no tests ran"
    table+=("$(printf '%-8s %7d %7d %8d %6d s' "$tier" "$passed" "$failed" "$ignored" $((SECONDS - tier_started)))")
    all_passed=$((all_passed + passed))
    all_failed=$((all_failed + failed))
}

# The table, then the line that programs read; ends the script.
summary() {
    echo
    echo "tier      passed  failed  ignored    time"
    printf '%s\n' "${table[@]}"
    if [ "$all_failed" != 0 ]; then
        echo
        grep -hE '^(test .* \.\.\. FAILED|verify: )' "${tier_logs[@]}" || true
    fi
    if [ ${#skipped[@]} != 0 ]; then
        echo
        echo "${#skipped[@]} not run:"
        printf '  %s\n' "${skipped[@]}"
    fi
    echo
    echo "$all_passed passed, $all_failed failed"
    [ "$all_failed" = 0 ]
}
