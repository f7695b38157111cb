#!/bin/sh
# 'sluice convert --quant int8-planes': two planes of four bits give the logits
# of the same integers in one piece, in any budget, and the texts, guesses of the
# high planes (--draft self) or not.
source=${SLUICE_SOURCE:-.}
sluice=${SLUICE:-./sluice}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-planes-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
XDG_CACHE_HOME=$work/cache
export XDG_CACHE_HOME

# shellcheck source=tests/demo_model.sh
. "$source/tests/demo_model.sh"

convert()
{
    "$sluice" convert "$@" "$source/demo" >"$work/out" 2>"$work/err"
}

logits()
{
    "$sluice" logits --device cpu -q -m "$1" -i "$work/ids.json" -o "$2" \
        --ram "$3" --activations "$4" 2>"$work/err"
}

# Refused with one line that has these words.
refused()
{
    words=$1
    shift
    ! "$@" && [ "$(wc -l <"$work/err")" = 1 ] &&
        grep -q -e "$words" "$work/err"
}

echo '{"context": [204, 205, 206, 300, 301], "answer": [207, 208, 302, 303],
    "mask_position": null}' >"$work/ids.json"
same=0
for q in int8-planes-g64 int8-planes; do
    convert -q --quant $q -o "$work/$q.gguf" &&
        convert -q --quant $q --no-planes -o "$work/$q-one.gguf" &&
        "$sluice" verify "$work/$q.gguf" >"$work/out" 2>"$work/err" &&
        same=$((same + 1))
    for act in f32 int8 bf16; do
        logits "$work/$q-one.gguf" "$work/want.npy" 200M $act
        for ram in least 22M 200M; do
            logits "$work/$q.gguf" "$work/got.npy" $ram $act &&
                cmp "$work/want.npy" "$work/got.npy" 2>>"$work/err" &&
                same=$((same + 1))
        done
    done
done
[ $same = 20 ]
check planes_give_the_logits_of_one_piece_in_every_budget

planes=$work/int8-planes-g64.gguf
"$sluice" inspect "$planes" >"$work/out" 2>"$work/err" &&
    grep -q 'weights of int8-planes-g64, 8.25 bits each' "$work/out" &&
    "$sluice" inspect --tensors "$planes" >"$work/out" 2>"$work/err" &&
    grep -q '^transformer.layers.0.attention.query_key_value.low ' "$work/out"
check inspect_shows_them

for f in "$planes" "$work/int8-planes-g64-one.gguf"; do
    "$sluice" inspect "$f" -o "$f.npy" \
        --tensor transformer.layers.3.mlp.dense_h_to_4h.weight 2>"$work/err"
done
[ -s "$planes.npy" ] &&
    cmp "$planes.npy" "$work/int8-planes-g64-one.gguf.npy" 2>>"$work/err"
check a_tensor_is_read_as_both_planes

# said FILE ARGS...: the text alone.
said()
{
    file=$1
    shift
    "$sluice" generate -m "$file" --device cpu -q -c 48 \
        -p 'And God said, Let there be [gMASK]' "$@" 2>"$work/err"
}

# generate's count of what stands behind "NAME":
field()
{
    sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" "$work/json"
}

want=$(said "$work/int8-planes-g64-one.gguf" --top-k 1 --draft off)
[ -n "$want" ] &&
    [ "$(said "$planes" --top-k 1 --draft self --ram least)" = "$want" ] &&
    [ "$(said "$planes" --top-k 1 --draft self --draft lookup)" = "$want" ] &&
    [ "$(said "$planes" --top-k 1 --draft self --kv int8 --draft-max 3)" = \
        "$(said "$planes" --top-k 1 --draft off --kv int8)" ]
check a_model_that_guesses_for_itself_says_the_same

said "$planes" --top-k 1 --draft self --ram least --json >"$work/json" &&
    [ "$(field drafted)" -gt 4 ] && [ $((2 * $(field accepted))) -gt \
        "$(field drafted)" ] && [ "$(field discarded)" -le "$(field ahead)" ]
check most_of_its_guesses_are_right

drawn=$(said "$planes" --temperature 0.8 --seed 3 --num-answers 2 --draft off)
[ -n "$drawn" ] && [ "$(said "$planes" --temperature 0.8 --seed 3 \
    --num-answers 2 --draft self)" = "$drawn" ]
check what_is_drawn_is_the_same_for_a_seed

said "$planes" --top-k 1 --draft self --prompt-cache "$work/kept" >"$work/out" &&
    [ "$(said "$planes" --top-k 1 --draft self --prompt-cache "$work/kept")" = \
        "$want" ]
check a_prompt_that_was_kept_needs_no_pass_before

refused 'only files of convert --quant int8-planes have a part that guesses' \
    said "$work/int8-planes-g64-one.gguf" --draft self &&
    refused 'and the weights that --draft self keeps' \
        said "$planes" --draft self --ram 20M &&
    said "$planes" --ram 20M --draft off >"$work/out"
check what_it_needs_is_said

refused 'no-planes belongs to --quant int8-planes; int8-g64 has none' \
    convert --quant int8-g64 --no-planes -o "$work/x.gguf" &&
    refused 'are not compressed; leave out one of the two' \
        convert --quant int8-planes --compress lz4 -o "$work/x.gguf"
check what_does_not_go_together_is_refused

cp "$planes" "$work/bad.gguf"
size=$(stat -c %s "$planes")
printf 'x' | dd of="$work/bad.gguf" bs=1 seek=$((size * 3 / 4)) conv=notrunc \
    2>/dev/null
refused 'checksum' "$sluice" verify -q "$work/bad.gguf" 2>"$work/err"
check a_damaged_plane_is_found

# shellcheck disable=SC2154 # demo_model.sh counts
echo "1..$n"
