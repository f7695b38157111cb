#!/bin/sh
# `sluice convert` as a person uses it: what it says where, exit codes, what
# it leaves behind, and how much memory it takes.
source=${SLUICE_SOURCE:-.}
build=${SLUICE%/*}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-convert-XXXXXX") || exit 99
trap 'cleanup' EXIT
mounted=
cleanup()
{
    [ -n "$mounted" ] && umount "$work/small"
    rm -rf "$work"
}
cp -r "$source/demo" "$work/demo" && chmod -R u+w "$work/demo" || exit 99
cd "$work" || exit 99

n=0
# run EXIT ARGUMENT...: output in out and err; wrong lists what is not so.
run()
{
    want=$1
    shift
    "$SLUICE" convert "$@" >out 2>err
    code=$?
    wrong=
    [ $code -eq "$want" ] || wrong="exit $code instead of $want"
    [ "$want" -eq 0 ] || [ ! -s out ] || wrong="$wrong; standard output"
}
# says WORD...: standard error has each of the words.
says()
{
    for word; do
        grep -qF -- "$word" err || wrong="$wrong; no '$word'"
    done
}
# leaves NAME...: exactly these model.* files are there.
leaves()
{
    found=$(find . -maxdepth 1 -name 'model*' | sort | tr '\n' ' ')
    [ "$found" = "$(for i; do printf './%s ' "$i"; done)" ] ||
        wrong="$wrong; leaves $found"
}
verdict()
{
    n=$((n + 1))
    if [ -z "$wrong" ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        echo "# $wrong"
        sed 's/^/# /' err
    fi
    rm -f model*
}

run 0 --quant f16 -o model.gguf demo
grep -q 'model.gguf: f16, 16.9 MiB' out || wrong="$wrong; summary"
grep -q 'sluice generate -m model.gguf' out || wrong="$wrong; what next"
leaves model.gguf
cp model.gguf f16.gguf
verdict the_demo_becomes_a_model_file

"$SLUICE" verify f16.gguf >out 2>err && wrong= || wrong="verify: $?"
verdict its_checksums_are_right

# Told first, not when a file of a day's work wants its name.
run 2 -o '' demo
says 'name is empty' '-o FILE'
[ ! -e .partial ] || wrong="$wrong; leaves .partial"
verdict an_empty_name_for_the_file_is_refused

# Nobody writes to the pipe: opening it would wait for ever.
mkfifo pipe
timeout -k 5 20 "$SLUICE" convert --tokenizer pipe -o other.gguf demo \
    >out 2>err
[ $? = 1 ] && wrong= || wrong='exit code'
says pipe 'not a regular file'
verdict a_pipe_is_no_tokenizer

# What was named for its vocabulary has none: the checkpoint's is another.
mkdir bare && cp demo/config.json bare
run 1 --tokenizer bare -o other.gguf demo
says 'bare: there is no vocabulary in it'
[ ! -e other.gguf ] || wrong="$wrong; other.gguf"
run 1 --tokenizer nowhere -o other.gguf demo
says '--tokenizer nowhere: No such file'
cp demo/ice_text.model bare
run 0 -q --force --tokenizer bare -o other.gguf demo
rm -rf bare other.gguf
verdict a_vocabulary_comes_from_where_it_was_named

run 1 --lora nowhere -o other.gguf demo
says 'nowhere: no adapter: No such file'
missing=$wrong
run 2 --lora demo/ice_text.model -o other.gguf demo
says 'ice_text.model: not an adapter: that is a folder'
wrong="$missing$wrong"
verdict what_is_no_adapters_folder_is_told_so

run 0 demo
[ -f demo-int4-g64.gguf ] || wrong="$wrong; no demo-int4-g64.gguf"
verdict the_default_is_int4_g64_under_the_sources_name

run 0 --quant int4-g32 --report -o model.gguf demo
[ "$(grep -c 'transformer\..*int4-g32' out)" -eq 32 ] || wrong="$wrong; lines"
grep -q 'word_embeddings.*int8-g64' out || wrong="$wrong; head"
grep -q '^all ' out || wrong="$wrong; sum"
verdict the_report_has_a_line_for_every_matrix

run 0 --quant int8 --report --json -o model.gguf demo
grep -q '"rmse":' out && grep -q '"bytes":' out || wrong="$wrong; JSON"
if command -v python3 >/dev/null; then
    python3 -m json.tool <out >json 2>err || wrong="$wrong; no JSON"
fi
verdict json_is_json

run 0 --quiet --quant f16 -o model.gguf demo
[ ! -s out ] && [ ! -s err ] || wrong="$wrong; not quiet"
verdict quiet_says_nothing

run 2
says 'no SOURCE'
verdict no_source_is_wrong_usage

run 2 --quant int5 -o model.gguf demo
says int5 int4-gN
leaves
verdict an_unknown_quant_is_wrong_usage

run 1 -o model.gguf nowhere
says nowhere
leaves
verdict a_missing_source_is_named

mkdir lone && cp -r demo/latest demo/49300 demo/config.json lone
rm lone/49300/mp_rank_01_model_states.pt
run 1 -o model.gguf lone
says lone/49300/mp_rank_00_model_states.pt
leaves
verdict a_missing_shard_is_refused

cp demo/49300/mp_rank_01_model_states.pt whole.pt
for cut in 0 100 70000 4000000; do
    head -c $cut whole.pt >lone/49300/mp_rank_01_model_states.pt
    run 1 -o model.gguf lone
    says mp_rank_01_model_states.pt
    leaves
    verdict "a_shard_cut_off_at_byte_${cut}_is_named"
done

run 1 -o model.gguf --hidden-size 512 demo
says '256' '512' transformer.layers.0.input_layernorm.weight
leaves
verdict a_wrong_size_is_named

run 1 -o model.gguf --num-image-tokens 65 demo
says ice_text.model '[MASK]' 7809 7808
verdict a_tokenizer_that_does_not_belong_is_refused

cp whole.pt lone/49300/mp_rank_01_model_states.pt
echo '{"num_layers": 8' >lone/config.json
run 1 -o model.gguf lone
says config.json
verdict a_broken_config_is_named

echo precious >model.gguf
run 2 -o model.gguf demo
says 'model.gguf exists' --force
[ "$(cat model.gguf)" = precious ] || wrong="$wrong; overwritten"
verdict an_existing_file_is_not_overwritten

run 2 --ram least -o model.gguf demo
says --ram
verdict a_budget_that_is_no_number_is_wrong_usage

run 1 --ram 2M -o model.gguf demo
says '--ram 2.0 MiB' 'at least'
leaves
verdict a_budget_that_cannot_work_is_refused

# A signal that waits since before the start comes at the first chance.
if env --block-signal=TERM true 2>/dev/null; then
    env --block-signal=TERM sh -c 'kill -TERM $$; exec "$@"' sh \
        "$SLUICE" convert --quant f16 -o model.gguf demo >out 2>err
    [ $? -eq 130 ] && wrong= || wrong="exit $?"
    says stopped model.gguf.partial --resume
    leaves model.gguf.partial model.gguf.partial.journal
    verdict a_signal_leaves_what_can_be_resumed

    env --block-signal=TERM sh -c 'kill -TERM $$; exec "$@"' sh \
        "$SLUICE" convert --quant f16 -o model.gguf demo >out 2>err
    run 2 --quant f16 -o model.gguf demo
    says model.gguf.partial --resume --force
    run 0 --quant f16 --resume -o model.gguf demo
    cmp model.gguf f16.gguf || wrong="$wrong; differs"
    leaves model.gguf
    verdict the_resumed_file_is_the_same

    env --block-signal=TERM sh -c 'kill -TERM $$; exec "$@"' sh \
        "$SLUICE" convert --quant f16 -o model.gguf demo >out 2>err
    echo 'sluice-convert 2 0' >model.gguf.partial.journal
    run 2 --quant f16 --resume -o model.gguf demo
    says 'another source' --force
    ! grep -q 'goes on with it' err || wrong="$wrong; and --resume"
    : >model.gguf.partial.journal # nothing is known of what was done
    run 0 --quant f16 --resume -o model.gguf demo
    cmp model.gguf f16.gguf || wrong="$wrong; differs"
    verdict an_empty_journal_is_none_and_advice_is_one
fi

if grep -q '^#define SL_SANITIZED' "$build/config.h"; then
    : # sanitizers take memory of their own
elif [ -x "$build/tests/peak" ]; then
    least=$("$SLUICE" convert --ram 2M -o model.gguf demo 2>&1 |
        sed -n 's/.*(--ram \([0-9]*\)K).*/\1/p')
    for more in 0 4096 65536; do
        budget=$((least + more))
        for quant in int4-g64 int8 f16; do
            "$build/tests/peak" report \
                demo/49300/mp_rank_00_model_states.pt \
                "$SLUICE" convert --quiet --threads 2 --force --quant $quant \
                --ram ${budget}K -o model.gguf demo >out 2>err
            [ $? -eq 0 ] && wrong= || wrong="exit $?"
            read -r resident cached sum <report
            [ "$sum" -le $((budget * 1024)) ] ||
                wrong="$wrong; $resident resident, $cached cached"
            verdict "${quant}_stays_within_the_least_and_${more}_KiB"
        done
    done
fi

# A disk of 12 MiB, where only root can make one.
mkdir small
if mount -t tmpfs -o size=12M none small 2>/dev/null; then
    mounted=yes
    run 1 --quant f16 -o small/model.gguf demo
    says small 16.9 free
    [ -z "$(ls small)" ] || wrong="$wrong; leaves $(ls small)"
    verdict a_disk_that_is_too_small_is_refused_first
fi

echo "1..$n"
