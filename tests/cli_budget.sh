#!/bin/sh
# The RAM budget is a promise: with every budget from the least to all weights
# resident the text is the same, and the largest resident set plus the page
# cache of the model file stays under the budget.
source=${SLUICE_SOURCE:-.}
build=${SLUICE%/*}
peak=$build/tests/peak

skip()
{
    echo "1..0 # SKIP $1"
    exit 0
}

grep -q '^#define SL_SANITIZED' "$build/config.h" &&
    skip "sanitizers take memory of their own"
[ -x "$peak" ] || skip "built without cmocka"
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-budget-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
export CUDA_VISIBLE_DEVICES='' # runs that name no device see no GPU

n=0
# ok NAME COMMAND...: one case; it passes when the command does.
ok()
{
    n=$((n + 1))
    name=$1
    shift
    if "$@" >"$work/log" 2>&1; then
        echo "ok $n - $name"
    else
        echo "not ok $n - $name"
        sed 's/^/# /' "$work/log"
    fi
}

bail()
{
    echo "Bail out! $1"
    sed 's/^/# /' "$work/log"
    exit 1
}

generate="--top-k 1 --out-seq-length 48 --threads 2 --quiet"
english="In the beginning God created the heaven and the"

# run BUDGET TEXT EXTRA...: generates under the watch of peak.
run()
{
    budget=$1
    text=$2
    shift 2
    "$peak" "$work/report" "$model" "$SLUICE" generate -m "$model" \
        --ram "$budget" -p "$text" $generate "$@" >"$work/out" 2>"$work/err" ||
        { cat "$work/err"; return 1; }
}

# within BUDGET: the report's sum is under it.
within()
{
    read -r resident cached sum <"$work/report"
    [ "$sum" -le "$1" ] && return
    echo "budget $1, but $resident resident + $cached cached = $sum"
    return 1
}

# budget BYTES EXTRA...: same text, under the budget.
budget()
{
    bytes=$1
    shift
    run "$bytes" "$english" "$@" && within "$bytes" &&
        cmp "$work/out" "$work/want"
}

# The least that a budget of one page is refused with, in bytes.
least()
{
    "$SLUICE" generate -m "$model" --ram 4096 -p "$english" $generate "$@" \
        2>&1 | sed -n 's/.*(--ram \([0-9]*\)K).*/\1/p' | {
        read -r k
        echo $((k * 1024))
    }
}

under_file_size()
{
    [ "$least" -lt "$(stat -c %s "$model")" ] && return
    echo "least $least, file $(stat -c %s "$model")"
    return 1
}

# refused BYTES: exit 1, one line that names the least, nothing on stdout.
refused()
{
    "$SLUICE" generate -m "$model" --ram "$1" -p "$english" $generate \
        >"$work/out" 2>"$work/err"
    [ $? -eq 1 ] && [ ! -s "$work/out" ] &&
        [ "$(grep -c . "$work/err")" -eq 1 ] &&
        grep -q "the least that works here is" "$work/err"
}

# exact COMMAND OPTION...: one least budget for these options, whoever asks; it
# is taken, and a KiB less is refused by naming it.
exact()
{
    once=$(named "$@")
    again=$(named "$@")
    [ "${once:-0}" -gt 0 ] && [ "$once" = "$again" ] ||
        { echo "$*: least $once, then $again"; return 1; }
    "$SLUICE" "$@" -m "$model" --ram "${once}K" >"$work/out" 2>"$work/err" ||
        { echo "$*: $once"; cat "$work/err"; return 1; }
    [ "$(named "$@" --ram $((once - 1))K)" = "$once" ] ||
        { echo "$*: $((once - 1)) is not refused for $once"; return 1; }
}
# The least in KiB that a budget (of a page) is refused for.
named()
{
    command=$1
    shift
    "$SLUICE" "$command" -m "$model" --ram 4096 "$@" 2>&1 >/dev/null |
        sed -n 's/.*(--ram \([0-9]*\)K).*/\1/p'
}

for quant in f16 int8 int4-g64; do
    model=$work/$quant.gguf
    "$SLUICE" convert --quant $quant -o "$model" "$source/demo" \
        >"$work/log" 2>&1 || bail "convert --quant $quant failed"
    run 4G "$english" || { cp "$work/err" "$work/log"; bail "generate failed"; }
    cp "$work/out" "$work/want"
    least=$(least)
    [ "${least:-0}" -gt 0 ] || bail "no least budget was named"
    [ $quant = f16 ] &&
        ok "the least budget is under the size of the f16 file" under_file_size
    ok "$quant: the least budget holds and gives the same text" budget "$least"
    for more in 512 2048 8192 16384; do
        ok "$quant: the least and $more KiB hold and give the same text" \
            budget $((least + more * 1024))
    done
    ok "$quant: pread within the least budget" budget "$least" --io pread
    ok "$quant: less than the least is refused" refused $((least - 1048576))
done

# Whatever takes memory counts, in every command.
printf 'In the beginning\nGod created\n' >"$work/two"
echo '{"context": [3, 4, 5], "answer": [6], "mask_position": null}' >"$work/ids"
for _ in 1 2 3 4; do # more than the least pass
    echo 'And God saw the light, that it was good: and God divided the light.'
done >"$work/text"
echo '[{"context": "And God said, Let there be", "choices": ["light", "a day"],
    "answer": 0}, {"context": "In the", "choices": ["beginning"], "answer": 0}]' \
    >"$work/questions"
mkdir "$work/made"
for _ in 1 2 3; do
    echo '{"inputs_pretokenized": "And God", "targets_pretokenized": ["said"]}'
done >"$work/made/made.jsonl"
printf '%s\n' 'name: made' 'type: gen' 'path: made' 'max_gen_length: 4' \
    >"$work/task.yaml"
every_least_is_exact()
{
    set -- generate -q --out-seq-length 24 --threads 2 --input-source "$work/two"
    for options in '' '--draft lookup --draft-max 7' '--draft off' \
        '--num-answers 3 --temp 1' "--trace $work/trace.json" '--kv int8' \
        '--sampling-strategy BeamSearchStrategy --num-beams 3' '--batch 2' \
        '--activations f32' "--prompt-cache $work/cache" '--threads 1'; do
        # shellcheck disable=SC2086 # words on purpose
        exact "$@" $options || return 1
    done
    exact plan --out-seq-length 300 --batch 3 &&
        exact bench --prompt 4 --gen 2 --repeat 1 &&
        exact logits -i "$work/ids" -o "$work/rows.npy" &&
        exact perplexity -q "$work/text" &&
        exact eval -q --tasks-json "$work/questions" &&
        exact eval -q --task "$work/task.yaml" --data-path "$work"
}
model=$work/int4-g64.gguf
ok "the least is exact for the options given" every_least_is_exact
"$SLUICE" synth glm-4.5-air --num-layers 3 --hidden-size 128 \
    --num-attention-heads 8 --inner-hidden-size 128 --vocab-size 512 -Q \
    -o "$work/experts.gguf" >"$work/log" 2>&1 || bail "synth failed"
model=$work/experts.gguf
ok "a mixture's least is exact too" exact plan

model=$work/f16.gguf
beams="--sampling-strategy BeamSearchStrategy --deterministic --num-beams 4"
run 4G "$english" $beams && cp "$work/out" "$work/want"
least=$(least $beams)
ok "four beams within their least budget" budget "$least" $beams
least=$(least $beams --trace "$work/trace.json")
ok "four beams with one thread and a trace" \
    budget "$least" $beams --threads 1 --trace "$work/trace.json"

# Nine million blanks or letters: held or tokenized they take many times that.
# `refusals` lines are refused, the others answered, all within 24 MiB.
{
    printf 'In the %*s end\n' 9000000 ''
    head -c 9000000 /dev/zero | tr '\0' x
    printf '\nIn the'
} >"$work/endless"
endless()
{
    refusals=$1 answers=$2
    shift 2
    "$peak" "$work/peak" "$model" "$SLUICE" generate -m "$model" --ram 24M \
        $generate --output-path "$work/kept" "$@" \
        <"$work/endless" >"$work/out" 2>"$work/err"
    cat "$work/err" "$work/peak"
    [ "$(grep -c '^sluice: text too long: more than' "$work/err")" \
        -eq "$refusals" ] &&
        [ "$(grep -c '^Output: In the' "$work/out")" -eq "$answers" ] &&
        read -r _ _ most <"$work/peak" && [ "$most" -le $((24 << 20)) ]
}
ok "endless queries are refused within the budget" endless 2 1
ok "an endless prompt is refused within the budget" endless 1 0 -p -

echo "1..$n"
