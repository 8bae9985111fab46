# shellcheck shell=bash
# Takes the symbols out of a program. Sourced, never run.

# Strips a program and leaves its symbols beside it, in PROGRAM.debug: debuggers, and the program's own backtraces, find them there
# by the link that the program keeps.
split_symbols() {
  local program=$1 symbols
  symbols=$(basename "$program").debug
  (
    cd "$(dirname "$program")" || exit
    objcopy --only-keep-debug --compress-debug-sections=zlib "$(basename "$program")" "$symbols"
    objcopy --strip-all --add-gnu-debuglink="$symbols" "$(basename "$program")"
    chmod 644 "$symbols"
  )
}
