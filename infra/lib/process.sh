# shellcheck shell=bash
# Processes that outlive the script that started them, recorded by pid *and* start time, so that a reused pid is never
# signalled. Needs STATE. Sourced, never run.

# Prints the start time of a live process (clock ticks since boot); fails if it is gone or a zombie.
start_time_of() {
  local stat fields
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # The command name may contain spaces and brackets: count fields after its last bracket. State is then 0, start time 19.
  read -ra fields <<<"${stat##*) }"
  [[ ${fields[0]} != Z ]] || return 1
  printf '%s\n' "${fields[19]}"
}

remember() { printf '%s %s\n' "$2" "$(start_time_of "$2")" >"$STATE/$1.pid"; }

# Prints the pid of a server that we started and that still runs.
running_pid() {
  local pid start
  read -r pid start 2>/dev/null <"$STATE/$1.pid" || return 1
  [[ -n $start && $(start_time_of "$pid") == "$start" ]] || return 1
  printf '%s\n' "$pid"
}

# Starts a command in a session of its own, so that neither Ctrl-C nor the end of the caller reaches it.
# Descriptor 9 is the caller's lock: a server that inherited it would hold the lock for ever.
spawn() {
  local name=$1
  shift
  setsid "$@" >>"$STATE/$name.log" 2>&1 </dev/null 9>&- &
  remember "$name" $!
}

# Waits until the command succeeds; fails if the server dies first, or after the given seconds.
wait_ready() {
  local name=$1 seconds=$2 deadline
  shift 2
  deadline=$((SECONDS + seconds))
  until "$@" >/dev/null 2>&1; do
    if ! running_pid "$name" >/dev/null || ((SECONDS >= deadline)); then
      say "$name did not become ready; the end of $STATE/$name.log:"
      tail -n 20 "$STATE/$name.log" >&2
      return 1
    fi
    sleep 0.1
  done
}

# Waits at most the given seconds for a process to end.
wait_gone() {
  local pid=$1 start=$2 deadline=$((SECONDS + $3))
  while [[ $(start_time_of "$pid") == "$start" ]]; do
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

# Stops a server with the given signal, and with KILL if it still runs after the given seconds.
end_process() {
  local name=$1 signal=$2 seconds=$3 pid start
  if pid=$(running_pid "$name"); then
    start=$(start_time_of "$pid")
    kill -s "$signal" "$pid" 2>/dev/null || true
    if ! wait_gone "$pid" "$start" "$seconds"; then
      say "$name ignored $signal for $seconds s: killed"
      kill -s KILL "$pid" 2>/dev/null || true
      wait_gone "$pid" "$start" 10
    fi
  fi
  rm -f "$STATE/$name.pid"
}

# Kills a server and its children at once, as a power cut would.
kill_process() {
  local name=$1 pid start children
  pid=$(running_pid "$name") || return 0
  start=$(start_time_of "$pid")
  # The kernel ends this list without a newline, so read returns a failure.
  read -ra children <"/proc/$pid/task/$pid/children" || true
  kill -s KILL "$pid" "${children[@]}" 2>/dev/null || true
  wait_gone "$pid" "$start" 10
  rm -f "$STATE/$name.pid"
}
