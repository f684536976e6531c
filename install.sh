#!/bin/sh
# Builds spctl and puts it where PATH finds it. Safe to run again.
#
#   ./install.sh                 toolchain parts, release build, install
#   ./install.sh --toolchain     only what building needs
#
# SPCTL_BIN_DIR chooses where the binary goes. Package managers do all
# fetching (rustup, apt-get, cargo); nothing else is downloaded.
set -eu

WASM_TARGET=wasm32-unknown-unknown
RUST_MIN=95 # 1.95, as Cargo.toml's rust-version says
DEBIAN_WASM="rustc-web cargo-web rust-web-src lld-19"

say() { printf 'install: %s\n' "$*" >&2; }
die() {
  printf 'install: error: %s\n' "$1" >&2
  [ -z "${2:-}" ] || printf 'install: hint: %s\n' "$2" >&2
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"
  elif have sudo; then sudo "$@"
  else return 1
  fi
}

apt_updated=
apt_install() {
  have apt-get || return 1
  if [ -z "$apt_updated" ]; then
    as_root apt-get update -qq || return 1
    apt_updated=yes
  fi
  DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

rust_minor() {
  rustc --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p'
}

need_rust() {
  if ! have cargo || ! have rustc; then
    have rustup || die "no Rust toolchain (cargo, rustc)" "install rustup from https://rustup.rs, then run this again"
    say "installing the stable Rust toolchain"
    rustup toolchain install stable --profile minimal
  fi
  minor=$(rust_minor)
  if [ "${minor:-0}" -lt "$RUST_MIN" ]; then
    have rustup || die "rustc 1.${minor:-?} is too old: 1.$RUST_MIN or newer is needed" "update Rust"
    say "rustc 1.${minor:-?} is too old: updating"
    rustup update stable
    minor=$(rust_minor)
    [ "${minor:-0}" -ge "$RUST_MIN" ] || die "rustc is still too old" "run \`rustup default stable\`"
  fi
}

need_cc() {
  have cc || have gcc || have clang || {
    say "installing a C compiler (for SQLite and ring)"
    apt_install build-essential || die "no C compiler" "install one: build-essential, Xcode's command line tools, or your system's"
  }
}

# A Rust standard library for Wasm: rustup's, else Debian's sources.
have_wasm() {
  libdir=$(rustc --print target-libdir --target "$WASM_TARGET" 2>/dev/null) && [ -d "$libdir" ] && return 0
  [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] &&
    [ -f "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std/Cargo.toml" ] &&
    { have wasm-ld-19 || have wasm-ld; }
}

need_wasm() {
  have_wasm && return 0
  if have rustup; then
    say "adding the Rust target $WASM_TARGET"
    if rustup target add "$WASM_TARGET"; then
      have_wasm && return 0
    fi
    say "rustup could not add it; trying Debian's packages"
  fi
  # shellcheck disable=SC2086 # a list of packages
  apt_install $DEBIAN_WASM || true
  have_wasm || die "no Rust standard library for $WASM_TARGET" "run \`rustup target add $WASM_TARGET\`, or on Debian \`apt-get install $DEBIAN_WASM\`"
}

on_path() {
  case ":$PATH:" in *":$1:"*) return 0 ;; *) return 1 ;; esac
}

bin_dir() {
  if [ -n "${SPCTL_BIN_DIR:-}" ]; then
    printf '%s\n' "$SPCTL_BIN_DIR"
  elif [ "$(id -u)" -eq 0 ] && on_path /usr/local/bin; then
    printf '/usr/local/bin\n'
  else
    for dir in "$HOME/.local/bin" "${CARGO_HOME:-$HOME/.cargo}/bin"; do
      if on_path "$dir"; then
        printf '%s\n' "$dir"
        return
      fi
    done
    printf '%s\n' "$HOME/.local/bin"
  fi
}

main() {
  cd "$(dirname "$0")"
  need_rust
  need_cc
  need_wasm
  case "${1:-}" in
    --toolchain) return 0 ;;
    "") ;;
    *) die "unknown argument $1" "see the head of install.sh" ;;
  esac

  say "building (the first time takes some minutes)"
  cargo build --release --locked -p spctl
  dir=$(bin_dir)
  mkdir -p "$dir"
  # Beside the old one, then over it: a running spctl keeps its own file.
  cp "${CARGO_TARGET_DIR:-target}/release/spctl" "$dir/.spctl.new"
  chmod 755 "$dir/.spctl.new"
  mv -f "$dir/.spctl.new" "$dir/spctl"
  say "installed $("$dir/spctl" --version) as $dir/spctl"
  on_path "$dir" || say "add it to your PATH:  export PATH=\"$dir:\$PATH\""
}

main "$@"
