#!/bin/sh
# What other programs read: all that --json prints is an object whose first
# member is the schema's number, and the command's page names every member.
sluice=${SLUICE:-./sluice}
source=$(cd "${SLUICE_SOURCE:-.}" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-json-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 99
XDG_CACHE_HOME=$work/cache
export XDG_CACHE_HOME
n=0
# check NAME: what stands in `wrong` is not so.
check()
{
    n=$((n + 1))
    if [ -z "$wrong" ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        { echo "$wrong" && head -c 600 out && echo && cat err; } | sed 's/^/# /'
    fi
    wrong=''
}
wrong=''
# object COMMAND ARGUMENT...: what it prints is as this file's head says, and
# the command is crossed off.
object()
{
    command=$1
    asked="$asked $command"
    "$sluice" "$@" >out 2>err </dev/null || { [ -s out ] && [ "${bad:-}" ]; } ||
        wrong="$wrong $*: exit code $?"
    members "$source/man/sluice-$command.1" "$*"
}
# members PAGE WHAT: of the file out. A member's name is followed by a colon; a
# disk's has one in it, and no page can know it.
members()
{
    awk '/^{/ { n++; line = $0; if (line == "{") getline line
             if (line !~ /^{? ?"schema": ?[0-9]+,/) bad++ }
         END { exit n == 0 || bad > 0 }' out || wrong="$wrong $2: no schema"
    tr -cs 'A-Za-z0-9_' '\n' <"$1" | sort -u >words
    grep -oE '"[A-Za-z0-9_]+": ?' out | tr -cd 'A-Za-z0-9_\n' |
        sed 's/_least$//; s/_most$//' | sort -u |
        comm -23 - words | grep -v '^schema$' >unnamed
    [ ! -s unnamed ] || wrong="$wrong $2: ${1##*/} lacks $(tr '\n' ' ' <unnamed)"
    grep -q schema words || wrong="$wrong $2: ${1##*/} says nothing of schema"
}

"$sluice" convert -q --quant f16 -o demo.gguf "$source/demo" || exit 99
asked=''
object convert --json -q --quant int4-g64 --report -o m.gguf "$source/demo"
object synth --json -Q tiny --num-layers 1 -o s.gguf
object inspect --json m.gguf
object inspect --json "$source/demo"
object verify --json -q m.gguf
cp s.gguf bad.gguf && echo damage | dd of=bad.gguf bs=1 seek=100000 conv=notrunc \
    2>/dev/null
bad=yes object verify --json -q bad.gguf
object tokenize --json -m m.gguf 'In the beginning'
object detokenize --json -m m.gguf 5 6 7
object devices --json
printf 'In the beginning\n\n' >lines
object generate --json -q -m m.gguf -n 3 --ram least --input-source lines
object generate --json -q -m m.gguf -n 3 --sampling-strategy BeamSearchStrategy \
    --num-beams 2 -p 'In the [MASK] was'
object plan --json -m m.gguf --eval 1000
object plan --json --machine rtx3090-ddr4 --preset 7b --accept 0.5
object bench --json -m s.gguf --gen 4 --repeat 1 --prompt 4 --draft lookup \
    --batch 1
object bench --json -m s.gguf --gen 4 --repeat 1 --prompt 4 --positions 1,2
printf 'In the beginning God created the heaven and the earth.\n' >text
object perplexity --json -m m.gguf --against demo.gguf text text
check what_is_printed_has_a_schema_and_its_members_a_description

for command in $("$sluice" --help | sed -n 's/^  \([a-z]*\)  .*/\1/p'); do
    case $command in
    probe) continue ;; # t_survey makes one
    esac
    "$sluice" "$command" --help 2>/dev/null | grep -q -- ' --json' || continue
    case " $asked " in
    *" $command "*) ;;
    *) wrong="$wrong $command --json: no case here" ;;
    esac
done
check every_command_that_prints_json_is_among_them

# What JSON cannot hold is null.
# null COMMAND ARGUMENT...: an object that says so
null()
{
    object "$@"
    grep -q 'null' out || wrong="$wrong $*: nothing is null"
}
name=$(printf 'n\377.gguf')
cp s.gguf "$name"
cp text "$(printf 't\377')"
null inspect --json "$name"
null verify --json -q "$name"
null bench --json -m "$name" --gen 2 --repeat 1 --prompt 2
null bench --json -m "$name" --gen 2 --repeat 1 --prompt 2 --positions 1
null plan --json -m "$name" --ram least
null synth --json -Q tiny --num-layers 1 --force -o "$name"
null perplexity --json -m m.gguf "$(printf 't\377')"
check names_that_are_no_utf8_are_null

echo "1..$n"
