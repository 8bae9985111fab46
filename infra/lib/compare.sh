# shellcheck shell=bash
# Compares two builds alternately on the same servers, for infra/bench --against. Needs INFRA, WORK, LENGTH, BUILDS and the
# functions of infra/bench. Sourced, never run.

figure() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" <<<"$2"; }

# Stops the roles from the given index on.
end_roles() {
  local from=$1 pid
  for pid in "${PIDS[@]:from}"; do kill -TERM "$pid"; done
  for pid in "${PIDS[@]:from}"; do wait "$pid" || true; done
  PIDS=("${PIDS[@]:0:from}")
}

# Measures one build with the given number of processes per role, on its own database and topics.
measure() {
  local build=$1 roles=$2 round=$3 name http="" watched=() pid figures line
  BINARY=${BUILDS[$build]}
  name=bench_${build}_${roles}_$round
  psql -qc "CREATE DATABASE $name" -c CHECKPOINT "$SERVER"
  export DATABASE_URL=${SERVER%/*}/$name MINISHOP_TOPIC_PREFIX=$name.
  "$BINARY" migrate >/dev/null
  "$BINARY" topics create >/dev/null
  for _ in $(seq "$roles"); do
    start_role api --http-addr 127.0.0.1:0 --grpc-addr 127.0.0.1:0 --admin-addr 127.0.0.1:0
    http+=${http:+,}$(address http)
  done
  for _ in $(seq "$roles"); do start_role worker --admin-addr 127.0.0.1:0; done
  for pid in "${PIDS[@]}"; do watched+=(--pid "own=$pid"); done
  figures=$(load end-to-end "$http" --brokers "$KAFKA_BROKERS" --pid "postgres=$(postgres_pid)" "${watched[@]}")
  line="\"endToEndPerSecond\":$(figure endToEndPerSecond "$figures"),\"acceptsPerSecond\":$(figure acceptsPerSecond "$figures")"
  line+=",\"postgresMicrosPerOrder\":$(figure postgresCpuMicrosPerOrder "$figures")"
  line+=",\"ownMicrosPerOrder\":$(figure ownCpuMicrosPerOrder "$figures")"
  line+=",\"outboxKiB\":$(outbox_kib)"
  # Acceptance alone: the workers are stopped.
  end_roles "$roles"
  figures=$(load accept "$http")
  line+=",\"acceptsAlonePerSecond\":$(figure acceptsPerSecond "$figures")"
  end_roles 0
  psql -qc "DROP DATABASE $name WITH (FORCE)" "$SERVER"
  echo "{\"build\":\"$build\",\"apis\":$roles,\"workers\":$roles,\"round\":$round,$line}" | tee -a "$WORK/figures"
}

# Runs the same clients for both builds. They retry if they sent no order because the new topics had no leaders yet. They also
# fail if an order is not processed in time; the figures show it.
load() {
  local figures
  for _ in 1 2 3 4 5; do
    figures=$("${BUILDS[new]}" bench "$1" --seconds "$LENGTH" --json --connections 64 --http "${@:2}") ||
      say "the clients of $MINISHOP_TOPIC_PREFIX have failed"
    [[ -z $figures ]] || break
    sleep 1
  done
  echo "$figures"
}

# Prints the size of all outbox tables with their indexes, whatever their names in a build.
outbox_kib() {
  psql -qAtc "SELECT sum(pg_total_relation_size(oid)) / 1024 FROM pg_class WHERE relkind = 'r' AND relname LIKE 'outbox%'" \
    "$DATABASE_URL" | cut -d. -f1
}

# Prints the median of each figure per build and number of processes, then ratios: new build to old, two processes to one.
medians() {
  tr -d '{}"' <"$WORK/figures" | awk -F, '
    {
      split($1, build, ":"); split($2, roles, ":")
      for (i = 5; i <= NF; i++) { split($i, f, ":"); print build[2], roles[2], f[1], f[2] }
    }' | sort -k1,1 -k2,2n -k3,3 -k4,4n | awk '
    function flush() { if (n) { median = values[int((n + 1) / 2)]; all[key] = median; order[++keys] = key } n = 0 }
    { next_key = $1 " " $2 " " $3; if (next_key != key) { flush(); key = next_key } values[++n] = $4 }
    END {
      flush()
      for (i = 1; i <= keys; i++) {
        split(order[i], part, " ")
        printf "{\"median\":\"%s\",\"build\":\"%s\",\"processes\":%s,\"value\":%s}\n", part[3], part[1], part[2], all[order[i]]
      }
      count = split("endToEndPerSecond acceptsAlonePerSecond postgresMicrosPerOrder ownMicrosPerOrder", figures, " ")
      for (f = 1; f <= count; f++) for (r = 1; r <= 2; r++) {
        ratio = all["new " r " " figures[f]] / all["old " r " " figures[f]]
        printf "{\"ratio\":\"%s, new to old\",\"processes\":%d,\"value\":%.3f}\n", figures[f], r, ratio
      }
      split("old new", builds, " ")
      for (b = 1; b <= 2; b++) printf "{\"ratio\":\"endToEndPerSecond, two processes to one\",\"build\":\"%s\",\"value\":%.3f}\n",
        builds[b], all[builds[b] " 2 endToEndPerSecond"] / all[builds[b] " 1 endToEndPerSecond"]
    }'
}

# Compares the builds over the given number of rounds.
compare() {
  local rounds=$1 round roles build order
  SERVER=$DATABASE_URL
  for round in $(seq "$rounds"); do
    order=(old new)
    # The second build meets fuller servers, so the order alternates.
    if ((round % 2 == 0)); then order=(new old); fi
    for roles in 1 2; do
      for build in "${order[@]}"; do measure "$build" "$roles" "$round"; done
    done
  done
  medians
}
