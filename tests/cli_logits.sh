#!/bin/sh
# 'sluice logits' with input that is wrong: one line that says what and where,
# exit code 1 (2 for usage), and no output file.
source=${SLUICE_SOURCE:-.}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-logits-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
export CUDA_VISIBLE_DEVICES='' # runs that name no device see no GPU
"$SLUICE" convert "$source/demo" --quiet --quant int8 -o "$work/m.gguf" ||
    exit 99
cd "$work" || exit 99

n=0
verdict()
{
    n=$((n + 1))
    if [ -z "$wrong" ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        { echo "$wrong"; cat err; } | sed 's/^/# /'
    fi
}

# refuses JSON TEXT: exit code 1, one line with TEXT in it, nothing written.
refuses()
{
    printf '%s' "$1" | "$SLUICE" logits -q -m m.gguf -i - -o out.npy 2>err
    rc=$?
    [ $rc = 1 ] && [ "$(wc -l <err)" = 1 ] && grep -qF -- "$2" err &&
        [ "$(echo out*)" = 'out*' ] || wrong="$wrong
$1: exit code $rc, wanted: $2"
    rm -f out*
}

wrong=
refuses '' 'line 1: not JSON'
refuses '{"context":' 'line 1: not JSON'
refuses '[]' 'an empty list'
refuses '{}' 'object 0: needs "context" and "answer"'
refuses '{"context":[1],"answer":[]}' 'object 0: needs "context" and "answer"'
refuses '{"context":[1],"answer":[2]}' 'needs "positions", or "mask_position"'
refuses '{"context":["a"],"answer":[2],"mask_position":0}' 'not a whole number'
refuses '[{"context":[1],"answer":[2],"mask_position":null},5]' 'object 1: '
refuses '{"ids":[]}' 'object 0: "ids" must be a list of token ids'
refuses '{"ids":7}' 'object 0: "ids" must be a list of token ids'
refuses '{"ids":[1,2.5]}' 'not a whole number'
refuses '{"ids":[1,8192]}' 'id 8192 at place 1 is outside the vocabulary'
verdict what_is_no_input_is_refused

wrong=
refuses '{"context":[1],"answer":[2,8192],"mask_position":0}' \
    'object 0: id 8192 at place 2 is outside the vocabulary of 8192'
refuses '{"context":[-1],"answer":[2],"mask_position":0}' 'not a whole number'
refuses '{"context":[1],"answer":[2],"mask_position":1}' 'an index into'
refuses '{"context":[1],"answer":[2],"positions":[0]}' 'one whole number for'
refuses '{"context":[1],"answer":[2],"positions":[0,-1]}' 'one whole number for'
refuses '{"context":[1],"answer":[2],"positions":[[0,1],[0,1]]}' \
    'object 0: has 2-D positions'
refuses '{"context":[1],"answer":[2],"positions":[0,1],"mask_position":0}' \
    'give one of the two'
verdict ids_and_positions_that_the_model_has_not_are_refused

wrong=
"$SLUICE" logits -q -m m.gguf -i none.json -o out.npy 2>err
[ $? = 1 ] && grep -q '^sluice: none.json: cannot open the input: No such' err ||
    wrong='a missing input'
echo '{"context":[1],"answer":[2],"mask_position":null}' >in.json
"$SLUICE" logits -q -m m.gguf -i in.json -o none/out.npy 2>err
[ $? = 1 ] && grep -q '^sluice: cannot write none/out.npy' err ||
    wrong='a missing folder'
"$SLUICE" logits -q -m m.gguf -i . -o out.npy 2>err
[ $? = 1 ] && grep -q '^sluice: \.: cannot read the input: Is a dir' err ||
    wrong='a folder for an input'
"$SLUICE" logits -q -m m.gguf 2>err
[ $? = 2 ] || wrong='wrong usage'
"$SLUICE" logits -q -m m.gguf -i in.json -o out.npy 2>err &&
    [ "$(wc -c <out.npy)" = $((128 + 4 * 8192)) ] || wrong='right input'
verdict files_are_named

# Thousands of steps, so that the signal finds it at work.
wrong=
rm -f out*
awk 'BEGIN {
    printf "{\"context\":[1],\"mask_position\":null,\"answer\":[2"
    for (i = 0; i < 3000; i++) printf ",3"
    print "]}"
}' >long.json
# (In the foreground: else timeout signals its group as well, and a second
# signal ends the program at once, as it should.)
timeout --foreground --preserve-status -s INT 1 "$SLUICE" logits -q -m m.gguf \
    -i long.json -o out.npy --step-by-step --io pread 2>err
[ $? = 130 ] && [ "$(echo out*)" = 'out*' ] || wrong="left: $(echo out*)"
verdict an_interrupt_leaves_nothing_behind
echo "1..$n"
