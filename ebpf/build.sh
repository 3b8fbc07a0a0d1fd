#!/usr/bin/env bash
# Builds ebpf/portolan.bpf.o from its sources and writes beside it, in portolan.bpf.json, what it was built from.
#
#   build.sh           build (needs the toolchain of ebpf/toolchain.sh)
#   build.sh --check   fail unless the committed object belongs to the sources; needs no toolchain
#
# BPF_RUSTC and BPF_CARGO name another rustc (with sources) and its cargo.
set -euo pipefail
cd "$(dirname "$0")/.."
object=ebpf/portolan.bpf.o
sidecar=ebpf/portolan.bpf.json
rustc=${BPF_RUSTC:-/usr/bin/rustc}
cargo=${BPF_CARGO:-/usr/bin/cargo}

# Everything that decides about the object but the toolchain.
sources() {
	cat ebpf/Cargo.toml ebpf/src/*.rs
	awk '/^name = "aya-ebpf/ {found = 1} found && /^(name|version|checksum)/ {print} /^$/ {found = 0}' Cargo.lock
}
source_hash=$(sources | sha256sum | cut -d' ' -f1)

field() { sed -n "s/.*\"$1\": \"\([^\"]*\)\".*/\1/p" "$sidecar"; }

if [ "${1:-}" = --check ]; then
	object_hash=$(sha256sum "$object" | cut -d' ' -f1)
	if [ "$(field sources)" != "$source_hash" ]; then
		echo "error: $object was built from other sources; run \`cargo xtask ebpf\`" >&2
		exit 1
	fi
	if [ "$(field object)" != "$object_hash" ]; then
		echo "error: $object is not the object that $sidecar describes; run \`cargo xtask ebpf\`" >&2
		exit 1
	fi
	echo "$object belongs to its sources"
	exit 0
fi

for tool in "$rustc" "$cargo" bpf-linker; do
	if ! command -v "$tool" >/dev/null; then
		echo "error: $tool is missing; ebpf/toolchain.sh installs it on Debian" >&2
		exit 3
	fi
done
target_dir=${CARGO_TARGET_DIR:-$PWD/target}/bpf
# Paths are remapped, so that the bytes do not depend on where the repository and the registry lie.
registry=${CARGO_HOME:-$HOME/.cargo}/registry
flags=(--cfg 'bpf_target_arch="x86_64"' -C linker=bpf-linker -C link-arg=--btf -C debuginfo=2
	"--remap-path-prefix=$PWD=/portolan" "--remap-path-prefix=$registry=/registry")
joined=$(printf '%s\x1f' "${flags[@]}")
env -u RUSTFLAGS -u RUSTUP_TOOLCHAIN RUSTC="$rustc" RUSTC_BOOTSTRAP=1 CARGO_ENCODED_RUSTFLAGS="${joined%$'\x1f'}" \
	"$cargo" build --quiet --locked --release --package portolan-ebpf --features programs --bin portolan-bpf \
	-Z build-std=core --target bpfel-unknown-none --target-dir "$target_dir"
before=$(sha256sum "$object" 2>/dev/null | cut -d' ' -f1 || true)
cp "$target_dir/bpfel-unknown-none/release/portolan-bpf" "$object"
chmod 644 "$object"
after=$(sha256sum "$object" | cut -d' ' -f1)
cat >"$sidecar" <<JSON
{
  "sources": "$source_hash",
  "object": "$after",
  "rustc": "$("$rustc" --version)",
  "linker": "$(bpf-linker --version | head -n 1)"
}
JSON
if [ "$before" = "$after" ]; then
	echo "built $object: the same bytes as before"
else
	echo "built $object: $after (before: ${before:-none})"
fi
