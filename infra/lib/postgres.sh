# shellcheck shell=bash
# PostgreSQL from Debian's packages. Needs STATE. Sourced, never run.

# Debian keeps the server's programs off PATH, one directory per major version: take the newest.
postgres_bin() {
  local dirs
  if have pg_config && [[ -x $(pg_config --bindir)/initdb ]]; then
    pg_config --bindir
    return
  fi
  mapfile -t dirs < <(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V)
  [[ -x ${dirs[-1]}/initdb ]] || die "PostgreSQL is not installed: run infra/install"
  printf '%s\n' "${dirs[-1]}"
}

# PostgreSQL refuses to run as root. setpriv execs, so the pid we keep is the server's own.
as_postgres() {
  if ((EUID == 0)); then
    printf '%s\n' setpriv --reuid=postgres --regid=postgres --init-groups --
  fi
}

postgres_init() {
  local bin prefix
  [[ ! -s $STATE/postgres/PG_VERSION ]] || return 0
  bin=$(postgres_bin)
  mapfile -t prefix < <(as_postgres)
  rm -rf "$STATE/postgres"
  mkdir -m 700 "$STATE/postgres"
  if ((EUID == 0)); then chown postgres: "$STATE/postgres"; fi
  # Loopback only and for tests, hence trust; --no-sync skips only the sync of the empty cluster.
  (cd / && "${prefix[@]}" "$bin/initdb" -D "$STATE/postgres" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync) \
    >>"$STATE/postgres.log" 2>&1
}

# A killed server that is not reaped yet still accepts signals, so the next one would take it for alive: remove its lock
# file. (PostgreSQL finds left-over backends by their shared memory, without this file.)
postgres_forget_zombie() {
  local pid file="$STATE/postgres/postmaster.pid"
  read -r pid 2>/dev/null <"$file" || return 0
  if ! start_time_of "$pid" >/dev/null; then rm -f "$file"; fi
}

postgres_start() {
  local bin prefix
  bin=$(postgres_bin)
  mapfile -t prefix < <(as_postgres)
  postgres_init
  postgres_forget_zombie
  spawn postgres "${prefix[@]}" "$bin/postgres" -D "$STATE/postgres" \
    -c listen_addresses=127.0.0.1 -c port="$(port_of postgres)" -c unix_socket_directories= \
    -c max_connections=400 -c shared_buffers=256MB -c max_wal_size=2GB \
    -c fsync=on -c full_page_writes=on -c synchronous_commit=on
}

postgres_probe() { "$(postgres_bin)/pg_isready" -q -U postgres -h 127.0.0.1 -p "$(port_of postgres)"; }

# INT is PostgreSQL's fast shutdown; TERM would wait until the last client disconnects.
postgres_stop() { end_process postgres INT 30; }

postgres_url() { printf 'postgres://postgres@127.0.0.1:%s/postgres\n' "$(port_of postgres)"; }
