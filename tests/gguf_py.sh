#!/bin/sh
# A GGUF reader that is not ours, PyPI's gguf package, opens model files of
# every format and lists what `sluice inspect --json` lists. SLUICE_PYTHON is
# the interpreter that has it.
python=${SLUICE_PYTHON:-python3}
source=${SLUICE_SOURCE:-.}
make_model=${SLUICE%/*}/tests/make_model

if ! "$python" -c 'import gguf' 2>/dev/null; then
    echo "1..0 # SKIP $python has no gguf package"
    exit 0
fi
if [ ! -x "$make_model" ]; then
    echo "1..0 # SKIP built without cmocka"
    exit 0
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-gguf-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT

n=0
for format in f32 f16 bf16 int8 int4 int8-g64 int4-g32; do
    n=$((n + 1))
    if "$make_model" "$work/m.gguf" $format >"$work/log" 2>&1 &&
        "$SLUICE" inspect --json "$work/m.gguf" >"$work/m.json" \
            2>>"$work/log" &&
        "$python" "$source/tests/gguf_reader.py" "$work/m.gguf" \
            "$work/m.json" >>"$work/log" 2>&1; then
        echo "ok $n - gguf for Python lists an $format file as we do"
    else
        echo "not ok $n - gguf for Python lists an $format file as we do"
        sed 's/^/# /' "$work/log"
    fi
done
echo "1..$n"
