#!/bin/sh
# Wide instructions must stay in the libraries that are used after the CPU was
# asked: none in libsluice.a, and none wider than 256 bits in libk_avx2.a.
set -u
build=$(dirname "$SLUICE")

if ! command -v objdump >/dev/null; then
    echo '1..0 # SKIP no objdump'
    exit 0
fi
if [ ! -f "$build/libk_avx2.a" ]; then
    echo '1..0 # SKIP not an x86-64 build'
    exit 0
fi

# count LIBRARY PATTERN
count() {
    objdump -d --no-show-raw-insn "$build/$1" | grep -c "$2"
}

n=0
# check DESCRIPTION TEST...
check() {
    n=$((n + 1))
    what=$1
    shift
    if test "$@"; then
        echo "ok $n - $what"
    else
        echo "not ok $n - $what ($*)"
    fi
}

echo 1..10
check 'libsluice.a has no 256 or 512 bit register' \
    "$(count libsluice.a '%[yz]mm')" -eq 0
check 'libk_avx2.a has no 512 bit register and no mask' \
    "$(count libk_avx2.a '%zmm\|{%k')" -eq 0
check 'libk_avx2.a has no instruction of VNNI' \
    "$(count libk_avx2.a 'vpdpbus')" -eq 0
check 'libk_avxvnni.a has no 512 bit register and no mask' \
    "$(count libk_avxvnni.a '%zmm\|%[xy]mm\(1[6-9]\|2[0-9]\|3[01]\)\|{%k')" -eq 0
check 'libk_avxvnni.a multiplies with vpdpbusd, encoded with VEX' \
    "$(count libk_avxvnni.a '{vex} vpdpbusd.*%ymm')" -gt 10
check 'libk_avx2.a uses 256 bits' "$(count libk_avx2.a '%ymm')" -gt 100
check 'libk_avx512.a multiplies with vpdpbusd' \
    "$(count libk_avx512.a 'vpdpbusd.*%zmm')" -gt 10
check 'libk_avx512.a multiplies tiles' \
    "$(count libk_avx512.a 'tdpbssd')" -gt 1
check 'libk_avx512.a has nothing of BF16' \
    "$(count libk_avx512.a 'vcvtne.*ps2bf16\|dpbf16ps')" -eq 0
check 'libk_bf16.a multiplies tiles of BF16' \
    "$(count libk_bf16.a 'tdpbf16ps')" -gt 1
