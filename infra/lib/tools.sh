# shellcheck shell=bash
# Where infra/install keeps programs. Each directory is named by a hash of its inputs, so that clones of different ages
# share one cache without conflicts. Needs INFRA. Sourced, never run.

GRPCURL_VERSION=v1.9.4

key_of() { cat "$@" | sha256sum | cut -c1-12; }

tools_dir() { printf '%s/tools-%s-%s\n' "$(cache_dir)" "$(key_of "$INFRA"/tools/*.txt)" "$GRPCURL_VERSION"; }

python_client_dir() {
  printf '%s/python-client-%s\n' "$(cache_dir)" "$(key_of "$INFRA/../clients/python/requirements.txt")"
}

# Puts the installed programs on PATH, before any of another version.
use_tools() {
  PATH="$(tools_dir)/path:$PATH"
  export PATH
}
