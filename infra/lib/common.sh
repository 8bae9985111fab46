# shellcheck shell=bash
# Shared by every script here: messages, the cache directory, a stopwatch. Sourced, never run.

say() { printf '%s\n' "$*" >&2; }

die() {
  say "$*"
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# The cache only saves time: every script works with an empty one.
cache_dir() { printf '%s\n' "${MINISHOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/minishop}"; }

# Prints milliseconds since a fixed moment, for durations.
now_ms() {
  local now=${EPOCHREALTIME/[.,]/}
  printf '%s\n' "${now%???}"
}

# Prints the time since $1 (from now_ms) in seconds with one decimal.
seconds_since() {
  local ms=$(($(now_ms) - $1))
  printf '%d.%d\n' $((ms / 1000)) $((ms % 1000 / 100))
}
