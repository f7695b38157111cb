#!/bin/sh
# 'sluice generate --draft' and --num-answers on the demo model: the text is
# what it is without, fewer passes read the weights, and no budget grows
# unasked.
source=${SLUICE_SOURCE:-.}
sluice=${SLUICE:-./sluice}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-draft-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
export CUDA_VISIBLE_DEVICES='' # runs that name no device see no GPU
# shellcheck source=tests/demo_model.sh
. "$source/tests/demo_model.sh"

verse='For God so loved the world, that he gave his only begotten Son, that
whosoever believeth in him should not perish, but have everlasting life.'
again="$verse

For God so loved the world, that"

# run NAME ARGS...: JSON of the verse to be said again.
run()
{
    name=$1
    shift
    "$sluice" generate -m "$model" -q --json --out-seq-length 128 \
        -p "${again}[gMASK]" "$@" >"$work/$name.json" 2>"$work/err"
}

# field NAME PATTERN: what stands behind the first PATTERN, up to a comma or
# brace.
field()
{
    grep -o "$2[^,}]*" "$work/$1.json" | head -n 1 | sed "s/^$2//"
}

text()
{
    field "$1" '"text":"'
}

run off --draft off --top-k 1 --ram 20M &&
    run lookup --draft lookup --top-k 1 --ram 20M &&
    run auto --top-k 1 --ram 64M --threads 1 &&
    run one --draft lookup --draft-max 1 --top-k 1 --ram 20M &&
    [ -n "$(text off)" ] && [ "$(text off)" = "$(text lookup)" ] &&
    [ "$(text off)" = "$(text auto)" ] && [ "$(text off)" = "$(text one)" ]
check guesses_change_no_text

[ "$(field off '"drafts":\[')" = ']' ] &&
    [ "$(field lookup '"accepted":')" -gt 5 ] &&
    [ "$(field auto '"accepted":')" -gt 5 ] &&
    [ "$(field lookup '"passes":')" -lt "$(field off '"passes":')" ] &&
    [ "$(field one '"passes":')" -lt "$(field off '"passes":')" ] &&
    [ $((10 * $(field lookup '"bytes_read":'))) -lt \
        $((9 * $(field off '"bytes_read":'))) ]
check right_guesses_save_passes_and_reads

# Where words went on in several ways, guesses stand side by side.
ways='the man said yes. the man said no. the man said yes, and the man went.
the man said no, and the woman said yes. the man'
many()
{
    name=$1
    shift
    "$sluice" generate -m "$model" -q --json --out-seq-length 160 \
        --top-k 1 --ram 64M -p "${ways}[gMASK]" "$@" >"$work/$name.json" \
        2>"$work/err"
}
many ways --draft off && many wide --draft lookup &&
    many chain --draft lookup --draft-width 1 &&
    [ -n "$(text ways)" ] && [ "$(text ways)" = "$(text wide)" ] &&
    [ "$(text ways)" = "$(text chain)" ] &&
    [ "$(field chain '"beside":')" = 0 ]
check guesses_side_by_side_change_no_text

same=0
for seed in 1 2; do
    run drawn --draft off --temperature 0.7 --seed $seed --ram 64M &&
        run guessed --draft lookup --temperature 0.7 --seed $seed --ram 64M &&
        [ "$(text drawn)" = "$(text guessed)" ] && same=$((same + 1))
done
[ $same = 2 ]
check what_is_drawn_is_the_same_for_a_seed

# least ARGS...: the least budget, in KiB.
least()
{
    "$sluice" generate -m "$model" --ram 1M --out-seq-length 128 -p x "$@" 2>&1 |
        sed -n 's/.*(--ram \([0-9]*\)K).*/\1/p'
}

off=$(least --draft off)
auto=$(least)
asked=$(least --draft lookup)
# a page more or less of the program is resident each time
[ "$off" -gt 1000 ] && [ $((auto - off)) -le 256 ] &&
    [ $((off - auto)) -le 256 ] && [ "$asked" -gt "$auto" ]
check a_guess_that_nobody_asked_for_raises_no_budget

# Where nothing is ever right, guesses cost nothing: a pass reads what it reads
# without them. (The program has some pages more or less each time.)
same=0
for mib in 20 24 26; do
    "$sluice" generate -m "$model" -q --json --top-k 1 --out-seq-length 24 \
        --draft off --ram $((mib * 1024 - 128))K -p 'And Moses' \
        >"$work/plain.json" 2>"$work/err" &&
        "$sluice" generate -m "$model" -q --json --top-k 1 \
            --out-seq-length 24 --ram ${mib}M -p 'And Moses' \
            >"$work/asked.json" 2>"$work/err" &&
        [ $((100 * $(field asked '"bytes_read":') *
            $(field plain '"passes":'))) -le \
            $((103 * $(field plain '"bytes_read":') *
                $(field asked '"passes":'))) ] && same=$((same + 1))
done
[ $same = 3 ]
check a_guess_that_nobody_asked_for_makes_no_pass_read_more

run least --top-k 1 --ram least && [ "$(text off)" = "$(text least)" ]
check the_least_budget_gives_the_same_text

"$sluice" generate -m "$model" -q --ram 20M --top-p 0.9 --temperature 1.2 \
    --num-answers 4 --json --out-seq-length 48 -p 'In the beginning' \
    >"$work/four.json" 2>"$work/err" &&
    "$sluice" generate -m "$model" -q --ram 20M --top-p 0.9 --temperature 1.2 \
        --json --out-seq-length 48 -p 'In the beginning' \
        >"$work/alone.json" 2>"$work/err" &&
    [ "$(text four)" = "$(text alone)" ] &&
    [ "$(grep -o '"blanks"' "$work/four.json" | wc -l)" = 4 ]
check several_answers_begin_with_the_one_there_is_without

# All of them go through a pass together: hardly more passes than the longest
# answer alone.
[ "$(field four '"passes":')" -le 50 ]
check several_answers_share_their_passes

"$sluice" generate -m "$model" -q --ram 64M --num-answers 2 --top-p 0.9 \
    --out-seq-length 32 -p 'In the beginning' >"$work/two" 2>"$work/err" &&
    [ "$(grep -c 'In the beginning' "$work/two")" = 2 ]
check several_answers_are_printed

# --- a smaller model ---

small=$work/small.gguf
"$sluice" convert --quant int4-g64 -o "$small" "$source/demo" \
    >"$work/log" 2>&1 &&
    run small --draft "$small" --top-k 1 --ram 64M &&
    run both --draft lookup --draft "$small" --top-k 1 --ram 64M &&
    run chain --draft "$small" --draft-width 1 --top-k 1 --ram 64M &&
    [ "$(text off)" = "$(text small)" ] && [ "$(text off)" = "$(text both)" ] &&
    [ "$(text off)" = "$(text chain)" ] &&
    grep -q '"beside":0,' "$work/chain.json" &&
    grep -q '"source":"model","drafted":[1-9]' "$work/small.json"
check a_smaller_model_changes_no_text

[ "$(least --draft "$small")" -gt $((asked + 4096)) ] &&
    "$sluice" plan -m "$model" --ram 64M --draft "$small" >"$work/plan" \
        2>"$work/err" && grep -q '^  drafts  *[0-9.]* MiB' "$work/plan"
check it_has_its_place_in_the_budget

wrong=0
for args in '--draft x' '--draft off --draft lookup' '--draft-max 0' \
    '--draft-max 64' '--draft-width 0' '--draft-width 5' '--num-answers 0' \
    "--draft $small --draft $model" \
    '--num-answers 2 --sampling-strategy BeamSearchStrategy'; do
    # shellcheck disable=SC2086 # options and values
    "$sluice" generate -m "$model" $args -p x >"$work/out" 2>"$work/err" &&
        continue
    [ "$(wc -l <"$work/err")" = 1 ] && [ ! -s "$work/out" ] &&
        wrong=$((wrong + 1))
done
[ $wrong = 9 ]
check wrong_options_are_refused_in_one_line

echo "1..$n"
