#!/bin/sh
# Models of other publishers as a person uses them: what lies beside the weights
# (generation_config.json), on a golden model; ChatGLM-6B with its prefixes and
# adapters.
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

# --- ChatGLM-6B --------------------------------------------------------------

chatglm=$work/chatglm.gguf
mkdir "$work/c6" &&
    "$(dirname "$sluice")/tests/make_chatglm" "$work/c6" \
        "$source/demo/ice_text.model" &&
    run convert -q --quant f32 -o "$chatglm" "$work/c6/hf" && [ $code = 0 ]
check a_small_chatglm_converts

# text OPTION...: how generate goes on.
text()
{
    "$sluice" generate -q -m "$chatglm" --ram 64M --top-k 1 \
        --activations f32 --out-seq-length 40 "$@" 2>"$err" </dev/null
}

bible='In the beginning [MASK] created'
text -p "$bible" --json >"$out" &&
    grep -qF '"text":"In the beginning created' "$out" &&
    words=$("$sluice" tokenize -m "$chatglm" "$bible" 2>"$err" | wc -w) &&
    grep -qF "\"tokens\":{\"prompt\":$((words + 1))," "$out"
check a_text_is_followed_by_gmask_and_sop_alone

text -p "$bible" >"$work/plain" && text -p "$bible" --ram least >"$out" &&
    cmp "$work/plain" "$out" &&
    grep -qF 'In the beginning' "$out" && ! grep -qF 'MASK]' "$out"
check marks_are_not_shown_and_every_budget_gives_the_same

# --- prefixes ----------------------------------------------------------------

text -p "$bible" --prefix "$work/c6/prefix" >"$work/tuned" &&
    ! cmp -s "$work/plain" "$work/tuned" &&
    text -p "$bible" --prefix "$work/c6/prefix" --threads 1 --ram least \
        >"$out" && cmp "$work/tuned" "$out"
check a_prefix_changes_the_text_in_the_same_way_every_time

# speaks OPTION...: what chat answers.
speaks()
{
    "$sluice" chat -q -m "$chatglm" --ram 64M --top-k 1 --activations f32 \
        -n 12 -p "In the beginning" "$@" 2>"$err"
}

speaks >"$work/said" && speaks --prefix "$work/c6/prefix" >"$out" &&
    [ -s "$out" ] && ! cmp -s "$work/said" "$out"
check chat_takes_a_prefix

converted '{}' && [ $code = 0 ] &&
    run generate -q -m "$model" --ram 64M -p x --prefix "$work/c6/prefix" &&
    refused 1 prefix
check a_model_that_takes_no_prefix_says_so

# --- adapters ----------------------------------------------------------------

lora=$work/c6/lora
text -p "$bible" --lora "$lora" >"$work/adapted" &&
    ! cmp -s "$work/plain" "$work/adapted" &&
    text -p "$bible" --lora "$lora:0" >"$out" && cmp "$work/plain" "$out" &&
    text -p "$bible" --lora "$lora:0.5" --lora "$lora:0.5" >"$out" &&
    cmp "$work/adapted" "$out"
check adapters_add_up_and_scale

merged=$work/merged.gguf
run convert -q --quant f32 --lora "$lora" -o "$merged" "$work/c6/hf" &&
    [ $code = 0 ] &&
    "$sluice" generate -q -m "$merged" --ram 64M --top-k 1 \
        --activations f32 --out-seq-length 40 -p "$bible" >"$out" 2>"$err" &&
    cmp "$work/adapted" "$out"
check a_merged_adapter_gives_the_same_text

speaks --lora "$lora" >"$out" && [ -s "$out" ] &&
    ! cmp -s "$work/said" "$out" &&
    speaks --lora "$lora" --prefix "$work/c6/prefix" >"$work/both" &&
    ! cmp -s "$work/both" "$out"
check chat_takes_adapters_and_a_prefix_at_once

# A signal that waits since before the start comes at the first chance.
# stopped: a conversion with an adapter that was told to stop in the middle.
stopped()
{
    rm -f "$work/again.gguf"*
    env --block-signal=TERM sh -c 'kill -TERM $$; exec "$@"' sh "$sluice" \
        convert -q --quant f32 --lora "$lora" -o "$work/again.gguf" \
        "$work/c6/hf" >"$out" 2>"$err"
    [ $? -eq 130 ] && [ -e "$work/again.gguf.partial" ] &&
        [ ! -e "$work/again.gguf" ]
}

if env --block-signal=TERM true 2>/dev/null; then
    stopped && run convert -q --quant f32 --lora "$lora" --resume \
        -o "$work/again.gguf" "$work/c6/hf" && [ $code = 0 ] &&
        cmp "$merged" "$work/again.gguf" &&
        [ ! -e "$work/again.gguf.partial" ]
    check a_conversion_with_an_adapter_goes_on

    stopped && run convert -q --quant f32 --resume \
        -o "$work/again.gguf" "$work/c6/hf" && [ $code = 2 ] &&
        tail -n 1 "$err" | grep -qF 'begun from another source' &&
        run convert -q --quant f32 --lora "$lora:2" --resume \
            -o "$work/again.gguf" "$work/c6/hf" && [ $code = 2 ] &&
        tail -n 1 "$err" | grep -qF 'begun from another source'
    check but_not_without_it_or_with_another
fi

# bad_adapter CONFIG: the adapter with another configuration.
bad_adapter()
{
    mkdir -p "$work/bad" && cp "$lora"/* "$work/bad" &&
        printf '%s\n' "$1" >"$work/bad/adapter_config.json" &&
        run generate -q -m "$chatglm" --ram 64M -p x --lora "$work/bad"
}

type='"peft_type": "LORA"'
run generate -q -m "$chatglm" --ram 64M -p x --lora "$work/c6/other" &&
    refused 1 'of another model' &&
    bad_adapter "{$type, \"r\": 0, \"lora_alpha\": 1}" &&
    refused 1 'r is 0' &&
    bad_adapter "{$type, \"r\": 2}" && refused 1 lora_alpha &&
    bad_adapter "{$type, \"r\": 8, \"lora_alpha\": 1}" && refused 1 lora_A &&
    bad_adapter '{' && refused 1 adapter_config.json &&
    run convert -q -o "$work/no.gguf" --lora "$work/bad" "$work/c6/hf" &&
    [ $code = 1 ] && tail -n 1 "$err" | grep -qF adapter_config.json &&
    [ ! -e "$work/no.gguf" ] &&
    [ ! -e "$work/no.gguf.partial" ] &&
    run generate -q -m "$chatglm" -p x --lora "$work/nothing" &&
    refused 1 'nothing: no adapter' &&
    run generate -q -m "$chatglm" -p x --lora "$lora:much" && refused 2 --lora
check adapters_that_do_not_fit_are_refused_in_one_line

echo "1..$n"
