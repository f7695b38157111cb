#!/bin/sh
# A GGUF reader that is not ours opens model files of every format and lists
# what `sluice inspect --json` lists: PyPI's gguf package, if SLUICE_PYTHON or
# python3 has it (.ci/long brings it), else the few lines of gguf_reader.py.
python=${SLUICE_PYTHON:-python3}
source=${SLUICE_SOURCE:-.}
make_model=${SLUICE%/*}/tests/make_model

if ! "$python" -c 'import json' 2>/dev/null; then
    echo "1..0 # SKIP there is no Python"
    exit 0
fi
if [ ! -x "$make_model" ]; then
    echo "1..0 # SKIP built without cmocka"
    exit 0
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-gguf-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
if "$python" -c 'import gguf' 2>/dev/null; then
    echo "# read with PyPI's gguf"
fi

n=0
# listed NAME MAKE...: MAKE writes $work/m.gguf, and both list the same of it.
listed()
{
    n=$((n + 1))
    name=$1
    shift
    rm -f "$work/m.gguf"
    if "$@" >"$work/log" 2>&1 &&
        "$SLUICE" inspect --json "$work/m.gguf" >"$work/m.json" \
            2>>"$work/log" &&
        "$python" "$source/tests/gguf_reader.py" "$work/m.gguf" \
            "$work/m.json" >>"$work/log" 2>&1; then
        echo "ok $n - another reader lists $name as we do"
    else
        echo "not ok $n - another reader lists $name as we do"
        sed 's/^/# /' "$work/log"
    fi
}

for format in f32 f16 bf16 int8 int4 int8-g64 int4-g32; do
    listed "an $format file" "$make_model" "$work/m.gguf" $format
done
for quant in f16 int4-g64; do
    listed "the demo model as $quant" "$SLUICE" convert "$source/demo" \
        -o "$work/m.gguf" --quant $quant
done
echo "1..$n"
