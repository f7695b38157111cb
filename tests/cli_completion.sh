#!/bin/sh
# What shells complete is what the commands take: in bash, where there is one;
# the others' scripts are held to their shells' grammar where those are.
sluice=${SLUICE:-./sluice}
if ! command -v bash >/dev/null; then
    echo "1..0 # SKIP no bash"
    exit 0
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-completion-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
n=0

# check NAME: whether what was run before it succeeded.
check()
{
    rc=$?
    n=$((n + 1))
    if [ $rc -eq 0 ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        sed 's/^/# /' "$work/log"
    fi
}

"$sluice" completion bash >"$work/sluice" && : >"$work/log"
check it_is_printed

# offers WORD...: what bash offers for the last of a line's words.
offers()
{
    (cd "$work" && bash -c 'source ./sluice || exit
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _sluice
        printf "%s\n" "${COMPREPLY[@]}"' bash "$@") 2>"$work/log" |
        tr '\n' ' '
}

[ "$(offers sluice gen)" = 'generate ' ] &&
    [ "$(offers sluice --v)" = '--version ' ]
check commands_are_completed
[ "$(offers sluice generate --out)" = '--output-path --out-seq-length ' ] &&
    [ "$(offers sluice convert --no-verify)" = '--no-verify-source ' ]
check options_are_those_of_the_command
case $(offers sluice generate --) in
*'--mode '* | *--program-name*) false ;;
*--trace*--kv*) ;;
*) false ;;
esac
check hidden_ones_are_not_offered
[ "$(offers sluice generate --kv '')" = 'f32 f16 int8 ' ] &&
    [ "$(offers sluice generate --kv = i)" = 'int8 ' ] &&
    [ "$(offers sluice chat --progress j)" = 'json ' ]
check values_that_are_listed_are_completed
[ "$(offers sluice convert --quant int8-planes-g3)" = 'int8-planes-g32 ' ] &&
    [ "$(offers sluice synth -q bf)" = 'bf16 ' ] &&
    [ "$(offers sluice convert --compress '')" = 'none lz4 auto ' ] &&
    [ "$(offers sluice generate --sampling-strategy Be)" = \
        'BeamSearchStrategy ' ] &&
    [ "$(offers sluice plan --preset glm-4.5)" = 'glm-4.5-air ' ] &&
    [ "$(offers sluice plan --machine rtx40)" = 'rtx4090-ddr5 ' ] &&
    [ "$(offers sluice chat --template chatglm3)" = 'chatglm3 ' ] &&
    [ "$(offers sluice help dev)" = 'devices ' ]
check names_that_a_table_has_are_completed
: >"$work/model.gguf"
[ "$(offers sluice generate -m mod)" = 'model.gguf ' ] &&
    [ "$(offers sluice inspect mod)" = 'model.gguf ' ] &&
    [ -z "$(offers sluice generate --top-k '' | tr -d ' ')" ]
check files_are_where_options_take_them
[ "$(offers sluice plan --machine mod)" = 'model.gguf ' ]
check what_takes_names_or_files_has_both

for shell in zsh fish; do
    "$sluice" completion $shell >"$work/$shell" 2>"$work/log" &&
        grep -q 'no-verify-source' "$work/$shell" || break
    ! command -v $shell >/dev/null || $shell -n "$work/$shell" 2>"$work/log" ||
        break
    shell=
done
[ -z "$shell" ]
check other_shells_have_theirs
! "$sluice" completion csh >"$work/out" 2>"$work/log" &&
    grep -q 'bash, zsh or fish' "$work/log" && [ ! -s "$work/out" ]
check others_are_refused

echo "1..$n"
