#!/bin/sh
# Standard streams that are closed or full: nothing hangs, nothing is printed
# into a file that was opened for something else, and nothing is lost silently.
# shellcheck disable=SC2154 # what demo_model.sh has set
source=${SLUICE_SOURCE:-.}
sluice=${SLUICE:-./sluice}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-streams-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
export CUDA_VISIBLE_DEVICES='' # runs that name no device see no GPU
# shellcheck source=tests/demo_model.sh
. "$source/tests/demo_model.sh"

# A minute is far more than any of them takes; a hang is exit code 124.
patient()
{
    timeout 60 "$sluice" "$@"
}

patient generate -m "$model" --ram 64M -q --output-path "$work/kept" <&- \
    >"$work/out" 2>"$work/err"
[ $? = 0 ] && [ "$(grep -c Please "$work/out")" = 1 ]
check no_standard_input_is_the_end_of_the_queries

patient generate -m "$model" --ram 64M -q --out-seq-length 20 -p 'In the' \
    2>"$work/err" >&-
[ $? = 1 ] && grep -q 'cannot write to standard output' "$work/err"
check no_standard_output_is_told

for streams in '>&-' '2>&-' '<&- >&- 2>&-'; do
    eval "patient convert '$source/demo' --quant f16 --report \
        -o '$work/again.gguf' --force $streams" >"$work/out" 2>"$work/err"
    cmp "$model" "$work/again.gguf" || break
    streams=
done
[ -z "$streams" ]
check what_is_printed_to_a_closed_stream_is_not_in_the_model_file

patient generate -m "$model" --ram 64M --out-seq-length 20 -p 'In the' \
    --stats --trace "$work/trace.json" >"$work/out" 2>&-
[ $? = 0 ] && [ "$(head -c 1 "$work/trace.json")" = '{' ] &&
    ! grep -q KV "$work/trace.json"
check nor_in_a_trace

printf '{"context": "God", "choices": [" is", " the"], "answer": 0}\n' \
    >"$work/ask.jsonl"
if [ -c /dev/full ]; then
    for command in --help --version "inspect $model" "verify $model --json" \
        "plan -m $model --ram 64M" "plan -m $model --ram 64M --json" \
        "eval -m $model --ram 64M --tasks-json $work/ask.jsonl"; do
        # shellcheck disable=SC2086 # words on purpose
        patient $command >/dev/full 2>"$work/err"
        [ $? = 1 ] && grep -q 'cannot write to standard output: No space' \
            "$work/err" || break
        command=
    done
    [ -z "$command" ]
    check a_full_disk_behind_standard_output_is_told_with_its_reason
fi

# A file that may not grow so large is like a full disk, and no signal.
small()
{
    (ulimit -f 0 && "$sluice" "$@" 2>&1 >/dev/null) | cat >"$work/err"
    grep -q 'File too large' "$work/err" && [ ! -s "$work/new" ] &&
        [ ! -e "$work/new.partial" ]
}
echo '{"context": [1, 2], "answer": [3], "mask_position": 1}' >"$work/in.json"
small convert -q -o "$work/new" "$source/demo" &&
    small synth -Q -o "$work/new" tiny &&
    small logits -q -m "$model" --ram 64M -i "$work/in.json" -o "$work/new" &&
    small generate -q -m "$model" --ram 64M -p hi -n 2 --trace "$work/new" &&
    small eval -q -m "$model" --ram 64M --tasks-json "$work/ask.jsonl" \
        --output "$work/results"
check a_limit_of_file_sizes_is_told

if ! grep -q '^#define SL_SANITIZED' "$(dirname "$sluice")/config.h"; then
    # shellcheck disable=SC3045 # dash has it
    (ulimit -s 64 && "$sluice" generate -m "$model" --ram 64M -p hi) \
        >"$work/out" 2>"$work/err"
    [ $? = 1 ] && grep -q 'stack is limited to 64 KiB' "$work/err"
    check so_is_a_stack_that_is_too_small
fi
echo "1..$n"
