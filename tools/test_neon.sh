#!/bin/sh
# Runs the tests of the kernels and of the coder of floats for aarch64 on a machine of another kind, with qemu:
#
#     tools/test_neon.sh [--install]
#
# The kernels of planes and of low-rank products need std alone, and are compiled by themselves. The coder's tests take
# the library's dependencies: cargo builds those. A Rust compiler that has std for aarch64 and for this machine, a cross
# compiler of C and qemu are enough. The Rust compiler is $RUSTC, or one that --install unpacked before, or rustc. Where
# something is missing, prints SKIP and what it is, and succeeds. With --install, gets it from Debian: the C compiler and
# qemu are installed; the Rust compiler is only unpacked into target/neon, so that rustc stays what it is.
set -eu

target=aarch64-unknown-linux-gnu
linker=aarch64-linux-gnu-gcc
repo=$(cd "$(dirname "$0")/.." && pwd)
unpacked=$repo/target/neon
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT

skip() {
    echo "SKIP: $1"
    exit 0
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# Runs the compiler, an unpacked one with the libraries that came with it.
compiler() {
    if [ -n "${RUSTC:-}" ]; then
        "$RUSTC" "$@"
    elif [ -x "$unpacked/usr/bin/rustc" ]; then
        LD_LIBRARY_PATH=$(echo "$unpacked"/usr/lib/*-linux-gnu) "$unpacked/usr/bin/rustc" "$@"
    else
        rustc "$@"
    fi
}

has_std() {
    for flags in "" "--target $target"; do
        # shellcheck disable=SC2086
        libdir=$(compiler --print target-libdir $flags 2>/dev/null) || return 1
        ls "$libdir"/libstd-*.rlib >/dev/null 2>&1 || return 1
    done
}

find_qemu() {
    qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64)
}

# apt with package lists of its own, which have arm64 too: the machine's settings stay as they are.
apt_with_arm64() {
    tool=$1
    shift
    "$tool" -q -o Dir::State::lists="$temp/lists" -o APT::Architectures::="$(dpkg --print-architecture)" \
        -o APT::Architectures::=arm64 "$@"
}

dependency() {
    apt_with_arm64 apt-cache depends --important "$1" | awk -v start="$2" '$1 == "Depends:" && index($2, start) == 1 { print $2; exit }'
}

unpack_compiler() {
    mkdir -p "$temp/lists/partial" "$temp/packages" "$temp/root"
    apt_with_arm64 apt-get update
    std=$(dependency libstd-rust-web-dev libstd-rust-web-)
    llvm=$(dependency "$std" libllvm)
    (cd "$temp/packages" && apt_with_arm64 apt-get download rustc-web "$std" "$llvm" libstd-rust-web-dev libstd-rust-web-dev:arm64)
    for package in "$temp"/packages/*.deb; do
        dpkg-deb -x "$package" "$temp/root"
    done
    mkdir -p "$repo/target"
    rm -rf "$unpacked"
    mv "$temp/root" "$unpacked"
}

install_missing() {
    has apt-get || skip "--install needs apt-get"
    { has $linker && find_qemu; } ||
        apt-get install -y --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
    has_std || unpack_compiler
}

case "$*" in
    "") ;;
    --install) install_missing ;;
    *) echo "usage: $0 [--install]" >&2 && exit 2 ;;
esac
has $linker || skip "no $linker (Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross; or run $0 --install)"
find_qemu || skip "no qemu-aarch64-static (Debian: qemu-user-static; or run $0 --install)"
has_std || skip "no Rust compiler with std for this machine and for $target (rustup target add $target; or run $0 --install)"

# The kernels' tests leave out what the processor lacks: that NEON is there is to be tested too.
# Predictions take no other instruction set from outside than the one that all machines of a kind have.
cat >"$temp/kernels.rs" <<END
#[path = "$repo/src/kernel/mod.rs"]
pub mod kernel;
#[path = "$repo/src/dtype.rs"]
pub mod dtype;
#[path = "$repo/src/float.rs"]
pub mod float;
pub mod rans {
    #[derive(Clone, Copy, Debug)]
    pub enum Isa {
        Scalar,
    }
    impl Isa {
        pub fn all() -> [Self; 1] {
            [Self::Scalar]
        }
        pub fn detect() -> Self {
            Self::Scalar
        }
    }
}
pub mod lowrank {
    #[allow(dead_code, unused_imports)]
    #[path = "$repo/src/lowrank/kernel/mod.rs"]
    mod kernel;
}

#[test]
fn neon_is_tested() {
    assert_eq!(kernel::Isa::detect(), kernel::Isa::Neon);
}
END
compiler --version
"$qemu" --version | head -n 1
# Unoptimised code and optimised code; statically linked, so that qemu needs no libraries of aarch64.
for level in 0 3; do
    compiler --test --edition 2024 --target $target -D warnings -C linker=$linker -C target-feature=+crt-static \
        -C opt-level=$level -C debug-assertions -o "$temp/kernels" "$temp/kernels.rs"
    "$qemu" "$temp/kernels"
done

# Cargo takes a program as compiler; one path at every run, or it would build everything anew.
mkdir -p "$repo/target"
{
    echo '#!/bin/sh'
    if [ -z "${RUSTC:-}" ] && [ -x "$unpacked/usr/bin/rustc" ]; then
        echo "export LD_LIBRARY_PATH='$(echo "$unpacked"/usr/lib/*-linux-gnu)'"
        echo "exec '$unpacked/usr/bin/rustc' \"\$@\""
    else
        echo "exec '${RUSTC:-rustc}' \"\$@\""
    fi
} >"$repo/target/neon-rustc"
chmod +x "$repo/target/neon-rustc"

# Tests of aarch64 with the library's dependencies, statically linked as above.
cross_test() {
    RUSTC="$repo/target/neon-rustc" \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$linker \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$qemu" \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
        cargo test --manifest-path "$repo/Cargo.toml" --locked --no-default-features \
        --target $target --target-dir "$repo/target/neon-tests" "$@"
}

has cargo || skip "no cargo"
cross_test --lib rans
cross_test --test golden_payloads
