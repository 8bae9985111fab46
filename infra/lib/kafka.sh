# shellcheck shell=bash
# Apache Kafka, one node in KRaft mode, run from its Maven jars. Needs INFRA and STATE. Sourced, never run.

KAFKA_VERSION=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$INFRA/kafka/pom.xml")

kafka_libs() { printf '%s/kafka-%s\n' "$(cache_dir)" "$KAFKA_VERSION"; }

# The last step of the installation creates this mark.
kafka_installed() { [[ -e $(kafka_libs)/.complete ]]; }

# Prints the Java on PATH if it is new enough for Kafka 4, else one of Debian's.
kafka_java_bin() {
  local java
  for java in java /usr/lib/jvm/*/bin/java; do
    if [[ $("$java" -version 2>&1) =~ version\ \"([0-9]+) ]] && ((BASH_REMATCH[1] >= 17)); then
      printf '%s\n' "$java"
      return
    fi
  done
  return 1
}

# For short-lived tools: they start faster without the optimising compiler.
kafka_java() {
  "$(kafka_java_bin)" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp "$(kafka_libs)/*" \
    -Dlog4j2.configurationFile="$INFRA/kafka/log4j2.properties" "$@"
}

kafka_config() {
  local port controller_port
  port=$(port_of kafka)
  controller_port=$(port_of kafka-controller)
  sed -e "s:@PORT@:$port:g" -e "s:@CONTROLLER_PORT@:$controller_port:g" -e "s:@DATA@:$STATE/kafka/data:g" \
    "$INFRA/kafka/server.properties" >"$STATE/kafka/server.properties"
}

kafka_format() {
  local id
  [[ ! -s $STATE/kafka/data/meta.properties ]] || return 0
  # A cluster id is 16 bytes in URL-safe base64; the fixed first letter keeps it from looking like an option.
  id=M$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c2-22)
  kafka_java kafka.tools.StorageTool format --standalone -t "$id" -c "$STATE/kafka/server.properties" \
    >>"$STATE/kafka.log" 2>&1
}

kafka_start() {
  kafka_installed || die "Kafka is not installed: run infra/install"
  kafka_java_bin >/dev/null || die "There is no Java 17 or newer: run infra/install"
  mkdir -p "$STATE/kafka"
  kafka_config
  kafka_format
  # Every partition holds several files open.
  ulimit -n "$(ulimit -Hn)"
  spawn kafka "$(kafka_java_bin)" -Xms512m -Xmx1g -XX:+UseG1GC -cp "$(kafka_libs)/*" \
    -Dlog4j2.configurationFile="$INFRA/kafka/log4j2.properties" kafka.Kafka "$STATE/kafka/server.properties"
}

# An open port is not enough: the broker is ready once it is in the metadata.
# kcat retries for 2 s; its default backoff would be much longer.
kafka_probe() {
  kcat -b "127.0.0.1:$(port_of kafka)" -X reconnect.backoff.ms=20 -X reconnect.backoff.max.ms=50 -m 2 -L 2>/dev/null |
    grep -q ' 1 brokers:'
}

kafka_stop() { end_process kafka TERM 30; }

kafka_address() { printf '127.0.0.1:%s\n' "$(port_of kafka)"; }
