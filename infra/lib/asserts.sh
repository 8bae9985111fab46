# shellcheck shell=bash
# Assertions for the script tests. Sourced, never run.

PASSED=0 FAILED=0

# Runs a command and counts whether it succeeds; the sentence says what success proves.
proves() {
  local sentence=$1
  shift
  if "$@"; then
    PASSED=$((PASSED + 1))
  else
    FAILED=$((FAILED + 1))
    printf 'FAILED: %s\n' "$sentence"
  fi
}

fails() { ! "$@"; }

equal() {
  [[ $1 == "$2" ]] && return
  printf 'got:      %s\nexpected: %s\n' "$1" "$2"
  return 1
}

report() {
  printf 'tests: %d passed, %d failed\n' "$PASSED" "$FAILED"
  ((FAILED == 0))
}
