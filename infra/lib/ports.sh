# shellcheck shell=bash
# Loopback ports, chosen once per state directory and kept, so that a restarted server has the same address.
# Needs STATE. Sourced, never run.

port_is_free() {
  local hex
  hex=$(printf '%04X' "$1")
  ! awk -v suffix=":$hex" '$2 ~ suffix "$" { found = 1 } END { exit !found }' /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# Ports below the ephemeral range: while a server is stopped, no outgoing connection can take its port.
new_port() {
  local low port
  read -r low _ </proc/sys/net/ipv4/ip_local_port_range
  ((low > 12000)) || low=32768
  for _ in {1..200}; do
    port=$((10000 + (RANDOM * 32768 + RANDOM) % (low - 10000)))
    if port_is_free "$port" && ! grep -qsx "$port" "$STATE"/*.port; then
      printf '%s\n' "$port"
      return
    fi
  done
  return 1
}

port_of() {
  local file="$STATE/$1.port"
  [[ -s $file ]] || new_port >"$file"
  cat "$file"
}
