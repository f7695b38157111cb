#!/bin/sh
# 'sluice convert --compress': compressed stages give the same logits from
# fewer bytes of disk, through every command, in any budget.
source=${SLUICE_SOURCE:-.}
sluice=${SLUICE:-./sluice}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-compress-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
XDG_CACHE_HOME=$work/cache
export XDG_CACHE_HOME

# shellcheck source=tests/demo_model.sh
. "$source/tests/demo_model.sh"

convert()
{
    "$sluice" convert "$@" "$source/demo" >"$work/out" 2>"$work/err"
}

generate()
{
    "$sluice" generate --device cpu "$@" --top-k 1 --out-seq-length 24 \
        -p 'In the beginning God created' 2>"$work/err"
}

logits()
{
    "$sluice" logits --device cpu -q -m "$1" -i "$work/ids.json" -o "$2" \
        "$3" "$4" 2>"$work/err"
}

echo '{"context": [204, 205, 206], "answer": [207, 208],
    "mask_position": null}' \
    >"$work/ids.json"
plain=$work/plain.gguf
packed=$work/packed.gguf
convert -q --quant f32 -o "$plain" && convert --quant f32 --compress lz4 \
    -o "$packed" && grep -q 'stages are compressed: ' "$work/out" &&
    "$sluice" inspect "$packed" >"$work/out" 2>"$work/err" &&
    grep -q '^ *compressed .* stages: .* kept of ' "$work/out" &&
    "$sluice" verify "$packed" >"$work/out" 2>"$work/err"
check float_stages_are_compressed

[ "$(du -k "$packed" | cut -f1)" -lt $(($(du -k "$plain" | cut -f1) * 9 / 10)) ]
check what_is_saved_is_a_hole

logits "$plain" "$work/a.npy" --ram 200M
for ram in least 48M 200M; do
    logits "$packed" "$work/b.npy" --ram $ram &&
        cmp "$work/a.npy" "$work/b.npy" 2>>"$work/err" || break
    ram=all
done
[ $ram = all ]
check the_logits_are_the_same_in_every_budget

want=$(generate -q -m "$plain" --ram 200M)
[ -n "$want" ] && [ "$(generate -q -m "$packed" --ram least)" = "$want" ] &&
    [ "$(generate -q -m "$packed" --ram 200M --threads 1)" = "$want" ] &&
    [ "$(generate -q -m "$packed" --ram least --io pread)" = "$want" ]
check the_text_is_the_same

if ! grep -q '^#define SL_SANITIZED' "$(dirname "$sluice")/config.h"; then
    peak=$(generate -m "$packed" --ram least --json --stats)
    grep -q ' [0-9.]* [KM]iB decompressed in ' "$work/err" &&
        grep -q 'memory  *peak' "$work/err" && awk '
        function mib(x, u) { return u == "KiB" ? x / 1024 : x + 0 }
        / peak / { ok = mib($3, $4) <= mib($9, $10) } END { exit !ok }' "$work/err"
    check the_least_budget_is_kept
    : "$peak"
fi

# read_bytes FILE: what a pass reads of it.
streamed()
{
    "$sluice" plan --device cpu -m "$1" --ram least --json 2>"$work/err" |
        sed -n 's/.*"streamed_bytes": \([0-9]*\).*/\1/p'
}
a=$(streamed "$plain") b=$(streamed "$packed")
[ "$b" -gt 0 ] && [ "$b" -lt $((a * 95 / 100)) ]
check a_pass_reads_less

"$sluice" bench --device cpu -m "$packed" --ram least --prompt 4 --gen 1 \
    --repeat 1 --json >"$work/out" 2>"$work/err" &&
    grep -q '"phase": *"decode"' "$work/out"
check bench_runs_it

cp "$packed" "$work/once.gguf"
[ "$(generate -q -m "$work/once.gguf" --ram least)" = "$want" ]
check a_copy_is_as_good

for quant in int4-g64 int8; do
    convert --quant $quant --compress auto -o "$work/$quant.gguf" || break
    grep -q '^0 of [0-9]* stages are compressed' "$work/out" || break
    quant=all
done
[ $quant = all ] && "$sluice" verify "$work/int8.gguf" >"$work/out" 2>&1
check auto_leaves_packed_weights_as_they_are

for quant in f16 int4-g64; do
    convert -q --force --quant $quant -o "$work/p.gguf" &&
        convert -q --force --quant $quant --compress lz4 -o "$work/c.gguf" &&
        logits "$work/p.gguf" "$work/a.npy" --ram least &&
        logits "$work/c.gguf" "$work/b.npy" --ram least &&
        cmp "$work/a.npy" "$work/b.npy" 2>"$work/err" || break
    quant=all
done
[ $quant = all ]
check every_format_survives_it

# Bytes of the first stage's chunks, turned over: the stage is named.
off=$("$sluice" inspect --json "$packed" | awk '
    /"sections"/ { s = 1 } s && /"name": "layer 0/ { found = 1 }
    found && /"offset"/ { gsub(/[^0-9]/, ""); print; exit }')
cp "$packed" "$work/bad.gguf"
head -c 4096 /dev/zero | tr '\0' '\377' |
    dd of="$work/bad.gguf" bs=4096 seek=$((off / 4096 + 1)) conv=notrunc \
        2>/dev/null
! generate -q -m "$work/bad.gguf" --ram least >"$work/out" &&
    grep -q 'layer 0.* compressed bytes at [0-9]* are damaged' "$work/err" &&
    [ "$(wc -l <"$work/err")" = 1 ] &&
    ! "$sluice" verify "$work/bad.gguf" >"$work/out" 2>"$work/err" &&
    grep -q "layer 0.*is damaged" "$work/err"
check damaged_bytes_are_an_error_that_names_the_stage

# Lengths of its chunks that cannot be.
off=$("$sluice" inspect --json "$packed" | awk '
    /"name": "sluice.stage.3.chunks"/ { found = 1 }
    found && /"offset"/ { gsub(/[^0-9]/, ""); print; exit }')
cp "$packed" "$work/bad.gguf"
head -c 8 /dev/zero | tr '\0' '\377' |
    dd of="$work/bad.gguf" bs=1 seek="$off" conv=notrunc 2>/dev/null
! "$sluice" inspect "$work/bad.gguf" >"$work/out" 2>"$work/err" &&
    grep -q "section 'layer 1 mlp': chunk 0 of .* damaged" "$work/err" &&
    [ "$(wc -l <"$work/err")" = 1 ]
check a_damaged_table_is_an_error_that_names_the_stage

"$sluice" generate -m "$packed" --device cuda -p x >"$work/out" 2>"$work/err"
[ $? = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] &&
    grep -q "compress.*--compress none\|without CUDA" "$work/err"
check a_gpu_is_refused_with_what_to_do

"$sluice" plan -m "$packed" --machine rtx3090-ddr4 >"$work/out" 2>"$work/err"
[ $? = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] &&
    grep -q "compress.*--compress none" "$work/err"
check so_is_a_machine_that_is_not_there

convert -q --compress gzip -o "$work/x.gguf"
[ $? = 2 ] && [ ! -e "$work/x.gguf" ]
check an_unknown_kind_is_refused

echo "1..$n"
