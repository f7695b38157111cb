#!/bin/sh
# 'sluice generate --batch' on the demo model: what comes out is what comes
# out line by line, and a step of all lines costs one pass over the weights.
source=${SLUICE_SOURCE:-.}
sluice=${SLUICE:-./sluice}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-batch-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
export CUDA_VISIBLE_DEVICES='' # runs that name no device see no GPU
tab=$(printf '\t')
unset NO_COLOR
# shellcheck source=tests/demo_model.sh
. "$source/tests/demo_model.sh"

generate()
{
    "$sluice" generate -m "$model" -q "$@" 2>"$work/err"
}

long=$(printf 'x%.0s' $(seq 400))
cat >"$work/queries" <<END
one${tab}In the beginning God created the heaven and the
two${tab}And God said, Let there be [MASK]: and there was light.

../bad${tab}In the
three${tab}春眠不觉晓，
no id
four${tab}红豆生[MASK]，春来发几[MASK]。愿君多采[MASK]
five${tab}$long
six${tab}And
seven${tab}And the LORD spake unto
END

# run NAME ARGS...: all lines to $work/NAME.*, times left out.
run()
{
    name=$1
    shift
    rm -rf "${work:?}/$name" # no answers of another run
    generate --with-id --input-source "$work/queries" \
        --output-path "$work/$name" --out-seq-length 48 "$@" \
        >"$work/$name.raw"
    echo "exit $?" >"$work/$name.rc"
    sed 's/^Taken time [0-9.]*$/Taken time/' "$work/$name.raw" \
        >"$work/$name.out"
    cp "$work/err" "$work/$name.err"
}

# same A B: two runs printed and kept the same and ended the same.
same()
{
    cmp "$work/$1.out" "$work/$2.out" && cmp "$work/$1.err" "$work/$2.err" &&
        cmp "$work/$1.rc" "$work/$2.rc" && diff -r "$work/$1" "$work/$2"
}

run alone --ram 64M --top-k 1
run two --ram least --top-k 1 --batch 2
run three --ram 64M --top-k 1 --batch 3 --threads 1
run all --ram least --top-k 1 --batch 100
grep -q 'exit 1' "$work/alone.rc" && [ "$(wc -l <"$work/alone.err")" = 3 ] &&
    [ "$(ls "$work/alone" | wc -l)" = 6 ] &&
    same alone two && same alone three && same alone all
check greedy_batches_print_and_keep_what_single_lines_do

run alone --ram 64M --seed 7
run three --ram least --seed 7 --batch 3
run all --ram 64M --seed 7 --batch 10
same alone three && same alone all &&
    ! cmp -s "$work/alone/one.txt" "$work/two/one.txt"
check draws_for_a_line_do_not_depend_on_the_batch

beams='--sampling-strategy BeamSearchStrategy --num-beams 3'
# shellcheck disable=SC2086
{
    run alone --ram 64M $beams
    run three --ram least $beams --batch 3
    run all --ram 64M $beams --batch 10
}
same alone three && same alone all
check beams_of_a_line_do_not_depend_on_the_batch
# shellcheck disable=SC2086
{
    run alone --ram 64M $beams --deterministic --print-all-beams
    run all --ram least $beams --deterministic --print-all-beams --batch 10
}
same alone all && grep -q '^Output beam 2: ' "$work/all.out"
check all_beams_of_all_lines_are_printed

# The bytes that the queries of a run say were read while they were filled.
bytes()
{
    sed 's/.*"bytes_read":\([0-9]*\).*/\1/' "$work/out"
}

cat >"$work/queries" <<END
In the beginning God created the heaven and the
And God said, Let there be light: and there was
And the LORD spake unto Moses, saying, Speak unto
And it came to pass in those days, that
END
for strategy in BaseStrategy "BeamSearchStrategy --num-beams 2"; do
    # shellcheck disable=SC2086
    set -- --json --ram least --top-k 1 --out-seq-length 40 \
        --min-gen-length 40 --output-path "$work/kept" \
        --sampling-strategy $strategy --input-source "$work/queries"
    generate "$@" >"$work/out"
    single=$(bytes | awk '{ sum += $1 } END { print sum + 0 }')
    alone=$(bytes | sort -n | tail -n 1)
    generate "$@" --batch 4 >"$work/out"
    together=$(bytes | sort -n | tail -n 1)
    echo "# ${strategy%% *}: $single bytes one by one, $together together"
    # Fewer weights stay in RAM where four texts take more of it, but at the
    # least budget next to none do anyway; and reads run ahead.
    [ "$(wc -l <"$work/out")" = 4 ] && [ "$alone" -gt 100000000 ] &&
        [ "$together" -gt 0 ] && [ $((together * 10)) -lt $((alone * 11)) ] &&
        [ $((together * 3)) -lt "$single" ]
    check "four_lines_cost_the_passes_of_one_with_${strategy%% *}"
done

generate --ram 3M --batch 4 --input-source "$work/queries" \
    --output-path "$work/kept" >"$work/out"
[ $? = 1 ] && grep -q 'KV cache for 4 texts of 256 tokens ' "$work/err" &&
    grep -q 'a smaller --batch' "$work/err"
check a_budget_too_small_for_the_batch_is_refused

for args in '-p x' '--input-source interactive' ''; do
    # shellcheck disable=SC2086
    generate --batch 2 $args >"$work/out" </dev/null
    [ $? = 2 ] && [ ! -s "$work/out" ] || break
    args=ok
done
[ "$args" = ok ]
check a_batch_needs_a_file

# Nothing to fill: nothing is computed, and wrong lines are told as ever.
printf '\n\n\n' >"$work/nothing"
generate --batch 2 --input-source "$work/nothing" \
    --output-path "$work/kept" >"$work/out"
[ $? = 0 ] && [ "$(grep -c '^Working on' "$work/out")" = 3 ]
check a_batch_of_empty_lines_is_no_work
printf '%s\n' "$long" >"$work/nothing"
generate --batch 2 --ram 64M --out-seq-length 20 \
    --input-source "$work/nothing" --output-path "$work/kept" >"$work/out"
[ $? = 1 ] && grep -q 'line 1: text too long' "$work/err"
check a_batch_of_wrong_lines_is_told

# A disk that is full ends the run, but answers made before it are there.
if [ -c /dev/full ]; then
    generate --ram 64M --top-k 1 --out-seq-length 20 --batch 4 \
        --input-source "$work/queries" --output-path "$work/kept" >/dev/full
    [ $? = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] &&
        grep -q 'cannot write' "$work/err"
    check a_full_disk_is_told_once
fi

# Ctrl-C keeps the text of every line of the batch.
if env --default-signal=INT true 2>/dev/null; then
    env --default-signal=INT "$sluice" generate -m "$model" --device cpu \
        --ram 256M --min-gen-length 2000 --out-seq-length 2048 \
        --threads 1 --batch 4 \
        --with-id --input-source /dev/stdin \
        --output-path "$work/cut" >"$work/out" 2>"$work/err" <<END &
a${tab}In the
b${tab}And God said
c${tab}天下
END
    pid=$!
    i=0
    until grep -q 'KV cache' "$work/err" || [ $i = 100 ]; do
        sleep 0.1
        i=$((i + 1))
    done
    sleep 0.5
    kill -INT $pid
    wait $pid
    [ $? = 130 ] && [ "$(wc -l <"$work/err")" = 3 ] &&
        [ "$(ls "$work/cut" | tr '\n' ' ')" = 'a.cut.txt b.cut.txt c.cut.txt ' ] &&
        grep -q '^Output: In the ' "$work/out" &&
        [ "$(grep -c '^Taken time' "$work/out")" = 3 ]
    check ctrl_c_keeps_the_texts_of_all_lines
fi
echo "1..$n"
