# shellcheck shell=bash
# Keeps compiled third-party crates between clones on one machine, which saves most of a fresh clone's build.
# Our own crates are left out: cargo would judge them by file times, which mean nothing in a new clone.
# Losing the cache only costs time. Needs REPO. Sourced, never run.

target_dir() { printf '%s\n' "${CARGO_TARGET_DIR:-$REPO/target}"; }

# Keyed by the compiler and the crate versions.
target_cache() {
  local key
  key=$({ rustc -vV && cat "$REPO/Cargo.lock"; } | sha256sum | cut -c1-12)
  printf '%s/crates-%s.tar\n' "$(cache_dir)" "$key"
}

restore_crates() {
  local tar
  tar=$(target_cache)
  [[ -s $tar && ! -e $(target_dir)/release ]] || return 0
  mkdir -p "$(target_dir)"
  tar -xf "$tar" -C "$(target_dir)" || rm -rf "$tar" "$(target_dir)/release"
}

# Renames the archive when it is complete; removes those of other versions.
save_crates() {
  local tar
  tar=$(target_cache)
  [[ ! -s $tar && -d $(target_dir)/release ]] || return 0
  mkdir -p "$(cache_dir)"
  if tar -cf "$tar.$$" -C "$(target_dir)" --exclude='*minishop*' \
    release/deps release/build release/.fingerprint; then
    rm -f "$(cache_dir)"/crates-*.tar
    mv "$tar.$$" "$tar"
  else
    rm -f "$tar.$$"
  fi
}
