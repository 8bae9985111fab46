# shellcheck shell=bash
# Redis from Debian's packages. Needs STATE. Sourced, never run.

redis_start() {
  have redis-server || die "Redis is not installed: run infra/install"
  mkdir -p "$STATE/redis"
  # The append-only file keeps the keys over a restart.
  spawn redis redis-server --bind 127.0.0.1 --port "$(port_of redis)" --dir "$STATE/redis" \
    --daemonize no --save '' --appendonly yes
}

redis_probe() { [[ $(redis-cli -h 127.0.0.1 -p "$(port_of redis)" ping) == PONG ]]; }

redis_stop() { end_process redis TERM 10; }

redis_url() { printf 'redis://127.0.0.1:%s\n' "$(port_of redis)"; }
