#!/bin/sh
# 'sluice synth': what cannot be a model is wrong usage, in one line that names
# what synth takes, and a pipe is not replaced. A tokenizer gives it texts.
sluice=${SLUICE:-./sluice}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-synth-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
n=0
check()
{
    if [ $? = 0 ]; then result=ok; else result='not ok'; fi
    n=$((n + 1))
    echo "$result $n - $1"
}
# refused TEXT ARGUMENT...: wrong usage, in one line with the text.
refused()
{
    text=$1
    shift
    "$sluice" synth "$@" --force -o "$work/m.gguf" >"$work/out" 2>"$work/err"
    [ $? = 2 ] && [ "$(wc -l <"$work/err")" = 1 ] &&
        grep -qF -- "$text" "$work/err" && [ ! -f "$work/m.gguf" ]
}

refused 'give --hidden-size, --num-attention-heads, --vocab-size' \
    --num-layers 2 && grep -q 'or a PRESET (glm-130b, ' "$work/err" &&
    ! grep -q -e --preset -e config.json "$work/err"
check what_is_missing_is_named_for_synth

refused '--num-layers takes a whole number from 1' tiny --num-layers 0 &&
    refused '--hidden-size: hidden size 100' glm-130b --hidden-size 100 &&
    refused '--layernorm-epsilon takes' tiny --layernorm-epsilon 0
check a_shape_that_cannot_be_is_wrong_usage

mkfifo "$work/m.gguf" &&
    refused 'where a file is to be' tiny && [ -p "$work/m.gguf" ]
check a_pipe_is_not_replaced

tokens=${SLUICE_SOURCE:-.}/demo/ice_text.model
"$sluice" synth tiny -Q --tokenizer "$tokens" --vocab-size 8192 \
    -o "$work/text.gguf" 2>"$work/err" &&
    "$sluice" tokenize -m "$work/text.gguf" 'the heaven' >"$work/out" 2>>"$work/err" &&
    grep -q '[0-9]' "$work/out" &&
    refused 'ids, the vocabulary 64: give --vocab-size' tiny \
        --tokenizer "$tokens" --vocab-size 64
check a_random_model_knows_texts_by_a_tokenizer
echo "1..$n"
