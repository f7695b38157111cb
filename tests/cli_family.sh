#!/bin/sh
# Models of other publishers as a person uses them: what lies beside the weights
# (generation_config.json), on the golden models.
source=${SLUICE_SOURCE:-.}
sluice=${SLUICE:-./sluice}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-family-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
export CUDA_VISIBLE_DEVICES='' # runs that name no device see no GPU
# shellcheck source=tests/golden.sh
. "$source/tests/golden.sh"
qwen=$(golden H_family/qwen3/hf) || exit 99
out=$work/out
err=$work/err
n=0

# check NAME: passes if the last command did.
check()
{
    rc=$?
    n=$((n + 1))
    if [ $rc -eq 0 ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        [ ! -e "$err" ] || sed 's/^/# /' "$err"
    fi
}

run()
{
    "$sluice" "$@" >"$out" 2>"$err" </dev/null
    code=$?
}

# refused EXIT TEXT...: the last run ended so, and said all of it in one line.
refused()
{
    [ "$code" = "$1" ] && [ "$(wc -l <"$err")" = 1 ] || return 1
    shift
    for text in "$@"; do
        grep -qF -- "$text" "$err" || return 1
    done
}

# --- generation_config.json --------------------------------------------------

folder=$work/qwen
mkdir "$folder" && cp "$qwen"/* "$folder" && chmod u+w "$folder"/*
settings=$folder/generation_config.json
model=$work/qwen.gguf

# converted JSON: the model with these settings beside it.
converted()
{
    printf '%s\n' "$1" >"$settings"
    run convert -q --force --quant f32 -o "$model" "$folder"
}

# answer OPTION...: what chat says to a few words.
answer()
{
    "$sluice" chat -q -m "$model" --ram 64M -n 24 -p 'In the beginning' "$@" \
        2>"$err"
}

converted '{"do_sample": true, "temperature": 4.5, "top_k": 70, "top_p": 0.9,
    "repetition_penalty": 1.3, "eos_token_id": [420, 427]}' &&
    [ $code = 0 ] && run inspect "$model" && [ $code = 0 ] &&
    grep -q 'sampling *temperature 4.5, top-k 70, top-p 0.9, repetition' \
        "$out" && grep -qF '420 (<|endoftext|>), 427 (<|user|>)' "$out"
check what_a_publisher_says_of_sampling_is_in_the_model_file

run inspect --json "$model" && [ $code = 0 ] &&
    grep -A5 '"sampling"' "$out" | tr -d ' \n' |
    grep -q '"top_k":70,.*"repetition_penalty":1.3'
check and_in_its_json

answer >"$out" && [ -s "$out" ] &&
    answer --temperature 4.5 --top-k 70 --top-p 0.9 --repetition-penalty 1.3 \
        >"$work/said" && cmp "$out" "$work/said" &&
    answer --top-k 1 >"$work/said" && ! cmp -s "$out" "$work/said"
check chat_samples_as_the_publisher_says_and_options_go_first

converted '{"do_sample": false}' && [ $code = 0 ] && answer >"$out" &&
    answer --top-k 1 --repetition-penalty 1 >"$work/said" &&
    cmp "$out" "$work/said" && answer --temperature 5 --top-p 0 >"$work/said" &&
    ! cmp -s "$out" "$work/said"
check a_model_that_does_not_sample_takes_the_likeliest_until_told_how

converted '{"eos_token_id": 420}' && [ $code = 0 ] && answer >"$out" &&
    answer --temperature 0.6 --top-k 20 --top-p 0.95 >"$work/said" &&
    cmp "$out" "$work/said" && run inspect "$model" &&
    ! grep -q '^  sampling' "$out"
check where_nothing_is_said_the_template_knows

for bad in '{' '[]' '{"top_p": 2}' '{"temperature": "hot"}' \
    '{"eos_token_id": ["a"]}' '{"eos_token_id": 4200}'; do
    rm -f "$model"
    converted "$bad"
    refused 1 || break
    if [ -e "$model" ] || [ -e "$model.partial" ]; then
        code=none
        break
    fi
done
refused 1 'vocabulary has 434'
check damaged_settings_are_told_in_one_line

echo "1..$n"
