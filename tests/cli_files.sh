#!/bin/sh
# Nothing of the user's is destroyed: no output of any command is a file that
# is read, by whatever name; what fails leaves what was there; answers stay.
source=${SLUICE_SOURCE:-.}
sluice=${SLUICE:-./sluice}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-files-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
export CUDA_VISIBLE_DEVICES=''
if ! "$sluice" convert --help >/dev/null 2>&1; then
    echo "1..0 # SKIP this sluice cannot convert the demo model"
    exit 0
fi
# shellcheck source=tests/demo_model.sh
. "$source/tests/demo_model.sh"
cd "$work" || exit 99
case $sluice in /*) ;; *) sluice=$OLDPWD/$sluice ;; esac

cp -r "$source/demo" ckpt && chmod -R u+w ckpt || exit 99
mv demo.gguf m.gguf
ln m.gguf hard
ln -s m.gguf soft
mkdir below
printf 'a\tIn the beginning [gMASK]\na\tThe earth [gMASK]\nb\tGod [gMASK]\n' \
    >queries.txt
cp queries.txt q.txt # so that --force has something to replace
printf '{"context": [1, 2], "answer": [3], "mask_position": 1}' >in.json
printf '{"role": "user"}' >tools.json
printf '{"context": "God", "choices": [" is", " the"], "answer": 0}\n' >ask.jsonl
printf '0123456789abcdef0123456789abcdef\n' >keys
shards=$(find ckpt -type f | sort | tr '\n' ' ')
# shellcheck disable=SC2086 # these names have no blanks
all="m.gguf queries.txt q.txt in.json tools.json ask.jsonl keys $shards"
# shellcheck disable=SC2086
cksum $all >before

# refused OUT ARGUMENT...: a usage error that tells OUT, before anything.
bad=
refused()
{
    out=$1
    shift
    # shellcheck disable=SC2086
    timeout 60 "$sluice" "$@" >out 2>err </dev/null
    code=$?
    # shellcheck disable=SC2086
    cksum $all >after
    [ $code = 2 ] && grep -qF -- "$out" err && [ "$(wc -l <err)" = 1 ] &&
        cmp -s before after && return
    bad="$bad; $*: exit $code: $(cat err)"
}
for name in m.gguf ./m.gguf below/../m.gguf hard soft "$work/m.gguf"; do
    refused --trace generate -m m.gguf -p hi --trace "$name"
    refused --prompt-cache generate -m m.gguf -p hi --prompt-cache "$name"
    refused --output logits -m m.gguf -i in.json -o "$name"
    refused --trace logits -m m.gguf -i in.json -o x.npy --trace "$name"
    refused --plot bench -m m.gguf --plot "$name"
    refused --trace bench -m m.gguf --trace "$name"
    refused --history chat -m m.gguf -p hi --history "$name"
    refused --trace chat -m m.gguf -p hi --trace "$name"
    refused --output inspect "$name" --tensor model.layers.0.mlp -o m.gguf
done
refused --trace generate -m m.gguf --input-source queries.txt --trace queries.txt
refused --output logits -m m.gguf -i in.json -o in.json
refused --history chat -m m.gguf -p hi --tools tools.json --history tools.json
refused --trace generate -m m.gguf -p hi --trace t --prompt-cache ./t
refused --trace logits -m m.gguf -i in.json -o t --trace below/../t
refused --trace generate -m m.gguf -p hi --lora ckpt \
    --trace "$(echo "$shards" | cut -d' ' -f1)"
for shard in $shards; do
    case $shard in *README* | *.py | *golden* | *.inc) continue ;; esac
    refused "$shard" convert -q --force -o "$shard" ckpt
    refused "$shard" convert -q --force -o "./$shard" ckpt
done
# What a command reads beside the model, and that no command was left out.
arguments()
{
    case $1 in
    generate | chat) echo "-p hi" ;;
    logits) echo "-i in.json -o x.npy" ;;
    perplexity) echo "q.txt" ;;
    eval) echo "--tasks-json ask.jsonl --output e" ;;
    serve) echo "--api-key-file keys --port 0" ;;
    esac
}
for name in $("$sluice" --help | sed -n 's/^  \([a-z]*\)  .*/\1/p'); do
    [ "$name" != plan ] || continue # which makes no trace
    "$sluice" "$name" --help 2>&1 | grep -q -e '--trace=' || continue
    # shellcheck disable=SC2046
    refused --trace "$name" -m m.gguf $(arguments "$name") --trace m.gguf
    n_traces=$((${n_traces:-0} + 1))
done
[ "${n_traces:-0}" -ge 5 ] || bad="$bad; $n_traces commands make traces"
refused --trace perplexity -m m.gguf q.txt --trace q.txt
refused --trace perplexity -m m.gguf --against hard q.txt --trace hard
refused --trace eval -m m.gguf --tasks-json ask.jsonl --trace ask.jsonl
ln ask.jsonl below/results.json
refused --output eval -m m.gguf --tasks-json ask.jsonl --output below --force
refused --compare eval -m m.gguf --tasks-json ask.jsonl --output below --force \
    --compare below/results.json
rm below/results.json
if "$sluice" serve --help 2>&1 | grep -q -e --log; then
    refused --log serve -m m.gguf --port 0 --log soft
    refused --log serve -m m.gguf --port 0 --api-key-file keys --log ./keys
fi
cp m.gguf m.gguf.partial
refused --output synth --hidden-size 64 --force -o m.gguf --tokenizer hard
refused --output synth --hidden-size 64 --force -o m.gguf \
    --tokenizer m.gguf.partial
rm m.gguf.partial
[ -z "$bad" ]
rc=$?
[ $rc = 0 ] || echo "# $bad"
(exit $rc)
check no_output_is_a_file_that_is_read

# Standard input is a file like others.
"$sluice" generate -m m.gguf -p - --trace queries.txt <queries.txt >out 2>err
[ $? = 2 ] && "$sluice" logits -m m.gguf -i - -o in.json <in.json >out 2>err
[ $? = 2 ] && cmp -s queries.txt q.txt
check neither_is_what_comes_on_standard_input

# A run that is refused, or fails on its way, leaves what was there.
echo old >trace.json
cp trace.json old
"$sluice" generate -m m.gguf --ram 1M -p hi --trace trace.json >out 2>err
[ $? = 1 ] && cmp -s trace.json old &&
    ! "$sluice" generate -m m.gguf -p hi --trace trace.json >/dev/full 2>err &&
    cmp -s trace.json old && ! ls trace.json.* 2>/dev/null &&
    "$sluice" generate -q -m m.gguf -p hi --out-seq-length 8 \
        --trace trace.json >out 2>err && ! cmp -s trace.json old
check a_run_that_fails_leaves_the_trace_of_another

eval_into()
{
    "$sluice" eval -q -m m.gguf --tasks-json ask.jsonl --output e "$@" \
        >out 2>err
}
eval_into && cp e/journal.jsonl journal && [ "$(wc -l <journal)" = 2 ] &&
    ! eval_into --force --ram 1M && cmp -s e/journal.jsonl journal &&
    { echo '{"task"' && tail -n 1 journal; } >>e/journal.jsonl &&
    eval_into --resume && [ "$(wc -l <e/journal.jsonl)" = 4 ] &&
    rm e/journal.jsonl && ! eval_into && grep -q 'results.json is there' err &&
    echo 'my own' >e/journal.jsonl && ! eval_into --resume &&
    [ "$(cat e/journal.jsonl)" = 'my own' ] && eval_into --force
check so_it_is_with_what_an_evaluation_has_answered

# A link to an output is written through: another disk may be meant, or
# /dev/stdout.
mkdir far
bad=
# through NAME COMMAND... : the output far/NAME by links, one of them to nothing.
through()
{
    name=$1
    shift
    rm -f far/* ./*.x
    cp old "far/$name"
    [ "$name" != history ] || echo '[]' >"far/$name"
    [ "$name" != cache ] || : >"far/$name"
    ln -s "far/$name" old.x
    ln -s far/new 2.x
    ln -s 2.x new.x
    for link in old.x new.x; do
        timeout 60 "$sluice" "$@" $link >out 2>err ||
            bad="$bad; $1 $link: $(cat err)"
    done
    [ -h old.x ] && [ -h new.x ] && [ -h 2.x ] && [ -s far/new ] &&
        [ -s "far/$name" ] && ! cmp -s old "far/$name" &&
        [ "$(find far -type f | wc -l)" = 2 ] ||
        bad="$bad; $*: $(ls -l far ./*.x)"
}
through trace generate -q -m m.gguf -p hi --out-seq-length 8 --trace
through cache generate -q -m m.gguf -p hi --out-seq-length 8 --prompt-cache
through history chat -q -m m.gguf -p hi -n 4 --history
through npy logits -q -m m.gguf -i in.json -o
through npy inspect m.gguf --tensor transformer.layers.0.mlp.dense_h_to_4h.bias -o
through plot bench -m m.gguf --prompt 4 --gen 1 --repeat 1 --plot
through model synth -Q --force --hidden-size 64 --num-attention-heads 2 \
    --num-layers 1 --vocab-size 64 --max-sequence-length 64 -o
through model convert -q --force ckpt -o
"$sluice" logits -q -m m.gguf -i in.json -o want.npy 2>err &&
    "$sluice" logits -q -m m.gguf -i in.json -o /proc/self/fd/1 >got.npy &&
    cmp -s want.npy got.npy &&
    "$sluice" logits -q -m m.gguf -i in.json -o /proc/self/fd/1 | cmp -s want.npy ||
    bad="$bad; logits to a descriptor"
for command in 'synth tiny' "convert $PWD/ckpt"; do
    # shellcheck disable=SC2086
    "$sluice" $command --force -o /proc/self/fd/1 >to 2>err
    [ $? = 2 ] && [ ! -s to ] && grep -q 'a pipe or device' err ||
        bad="$bad; $command to a descriptor: $(cat err)"
done
ln -s round round
"$sluice" logits -q -m m.gguf -i in.json -o round >out 2>err
[ $? = 1 ] && grep -q 'round: Too many levels' err ||
    bad="$bad; a link without an end: $(cat err)"
echo "$bad" >err
[ -z "$bad" ]
check an_output_by_a_link_goes_where_the_link_leads

# A temporary name may be somebody's, too.
echo mine >trace.json.partial
"$sluice" generate -q -m m.gguf -p hi --out-seq-length 8 --trace trace.json \
    >out 2>err && [ "$(cat trace.json.partial)" = mine ]
check temporary_names_are_new_ones

ask()
{
    "$sluice" generate -m m.gguf --ram 64M --with-id --out-seq-length 12 \
        --input-source queries.txt --output-path "$@" >out 2>err
}
ask o && [ "$(ls o)" = "$(printf 'a-2.txt\na.txt\nb.txt')" ] &&
    [ "$(grep -c "id 'a' comes again.*o/a-2.txt" err)" = 1 ] &&
    grep -q 'In the beginning' o/a.txt && grep -q 'The earth' o/a-2.txt
check an_id_that_comes_twice_has_two_answers

cksum o/*.txt >kept
ask o && cksum o/a.txt o/a-2.txt o/b.txt >again && sort kept >kept1 &&
    sort again | cmp -s - kept1 && [ -e o/b-2.txt ] && [ -e o/a-3.txt ] &&
    [ "$(grep -c 'answers of an earlier run' err)" = 1 ] &&
    ask o --force && [ "$(ls o | wc -l)" = 6 ]
check a_second_run_replaces_answers_by_force_alone

# --force replaces answers, not what they come from.
mkdir f && cp queries.txt f/a.txt && cp queries.txt f/was
"$sluice" generate -m m.gguf --ram 64M --with-id --out-seq-length 12 --force \
    --input-source f/a.txt --output-path f >out 2>err
cmp -s f/a.txt f/was && mv f/a.txt f/a-2.txt &&
    ! "$sluice" generate -m m.gguf --ram 64M --with-id --out-seq-length 12 \
        --force --input-source f/a-2.txt --output-path f >out 2>err &&
    cmp -s f/a-2.txt f/was && grep -q 'would replace what --input-source reads' err
check an_answer_never_replaces_the_queries

resume()
{
    ask o2 --resume && grep -q "$1 of 3 queries have" err &&
        [ "$(grep -c '^Input:' out)" = "$2" ]
}
ask o2 && resume 3 0 && rm o2/b.txt && resume 2 1 && resume 3 0 &&
    rm o2/a-2.txt && resume 2 1 && [ -e o2/a-2.txt ] &&
    rm o2/.sluice-answers && resume 3 0
check what_is_answered_is_not_asked_again

# Without ids files have the time in their names.
lines()
{
    "$sluice" generate -m m.gguf --ram 64M --out-seq-length 12 --resume \
        --input-source plain.txt --output-path o3 >out 2>err
}
printf 'In the [gMASK]\nGod [gMASK]\nIn the [gMASK]\n' >plain.txt
lines && [ "$(ls o3 | wc -l)" = 3 ] && lines &&
    grep -q '3 of 3 queries have' err && [ "$(ls o3 | wc -l)" = 3 ] &&
    rm "$(find o3 -name 'In the*' | head -n 1)" && lines &&
    [ "$(ls o3 | wc -l)" = 3 ] && grep -q '2 of 3 queries have' err
check so_it_is_with_answers_that_are_named_by_time

"$sluice" generate -m m.gguf -p hi --resume >out 2>err
[ $? = 2 ] && grep -q -- --input-source err
check resume_goes_on_with_files
# shellcheck disable=SC2154 # demo_model.sh counts
echo "1..$n"
