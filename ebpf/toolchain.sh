#!/usr/bin/env bash
# Installs what ebpf/build.sh needs, on Debian: a rustc that comes with its library sources, and bpf-linker built against
# the same LLVM. Elsewhere: `rustup component add rust-src` and `cargo install bpf-linker`. Does nothing if it is there.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
packages=(rustc-web cargo-web rust-web-src llvm-22-dev libpolly-22-dev libzstd-dev zlib1g-dev)
if ! dpkg -s "${packages[@]}" >/dev/null 2>&1; then
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
if ! command -v bpf-linker >/dev/null; then
	(cd / && LLVM_PREFIX=/usr/lib/llvm-22 cargo install --quiet --locked bpf-linker --version 0.13.0 \
		--no-default-features --features llvm-22)
fi
/usr/bin/rustc --version
bpf-linker --version
