#!/bin/sh
# What a person sees at a terminal while the program works: the demo model, its
# products slowed down by kernels that nobody optimised.
source=${SLUICE_SOURCE:-.}
sluice=${SLUICE:-./sluice}
pty=$(dirname "$sluice")/tests/pty
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-terminal-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
export CUDA_VISIBLE_DEVICES='' XDG_STATE_HOME="$work/state" TERM=xterm
unset NO_COLOR
if [ ! -x "$pty" ] || ! "$sluice" convert --help >/dev/null 2>&1; then
    echo "1..0 # SKIP no terminal, or this sluice cannot convert"
    exit 0
fi
# shellcheck source=tests/demo_model.sh
. "$source/tests/demo_model.sh"

esc=$(printf '\033')
long=$(yes 'In the beginning God created the heaven.' | head -n 36 | tr '\n' ' ')


# --- something moves ---------------------------------------------------------

# generate OPTION...: a prompt whose pass takes seconds
set -- generate -m "$model" --ram 64M --isa ref -t 1 --top-k 1 \
    --out-seq-length 330
"$sluice" "$@" -q --progress=json -p "$long" >"$work/out" 2>"$work/json" &
"$sluice" "$@" -p "$long" >"$work/plain" 2>"$work/quiet" &
TERM=dumb "$pty" "$sluice" "$@" -p 'In the' </dev/null >"$work/dumb" 2>&1 &
"$pty" "$sluice" "$@" -p "$long" >"$work/screen" 2>"$work/err" <<'END'
expect weights: 
expect first token in
END
check how_far_a_first_pass_is_stands_on_a_terminal
tr -d '\r' <"$work/screen" | tail -n 1 | grep -q "^sluice: [0-9]* token" &&
    grep -qF "${esc}8${esc}7${esc}[B" "$work/screen" &&
    ! grep -qF 'first token in' "$work/plain"
check and_goes_when_text_comes
wait
[ -s "$work/plain" ] && ! grep -q -e 'first token in' -e "$esc" "$work/quiet" &&
    cmp "$work/plain" "$work/out"
check no_terminal_no_line
grep -q '^{"schema":1,"progress":"answering","seconds":[0-9.]*,"phase":"[a-z]*",' \
    "$work/json" && grep -q '"seconds_left":[0-9]' "$work/json" &&
    ! grep -qv '^{.*}$' "$work/json"
check json_tells_scripts
[ -s "$work/dumb" ] && ! grep -q -e "$esc" "$work/dumb"
check a_dumb_terminal_gets_no_escapes

# --- queries are typed ---------------------------------------------------------

# Lines are edited here if the program was linked with what does it.
edits=false
! ldd "$sluice" 2>/dev/null | grep -q libedit || edits=true

# interactive OPTION...: plays the script of standard input, in which "prompt"
# waits for the next query to be asked for.
interactive()
{
    sed "s/^prompt\$/expect Please Input Query (stop to exit) >>> /" \
        >"$work/played"
    "$pty" "$sluice" generate -m "$model" --ram 64M --top-k 1 "$@" \
        --output-path "$work/kept" <"$work/played" >"$work/screen" 2>"$work/err"
}

interactive --out-seq-length 20 <<END
expect answers are kept in $work/kept
prompt
send In the\r
expect Taken time
prompt
send \003
expect Ctrl-C again
prompt
send gone
sleep 200
send \003
prompt
send And God said\r
expect Taken time
prompt
send \004
END
[ $? = 0 ] && [ "$(find "$work/kept" -name 'In the-*' -o -name 'And God*' |
    wc -l)" = 2 ]
check ctrl_d_leaves_and_it_says_where_answers_are_kept

interactive --out-seq-length 500 --isa ref -t 1 --min-gen-length 400 <<'END'
prompt
send In the beginning\r
expect Output: 
sleep 300
send \003
prompt
send And then\r
expect Output: 
sleep 300
send \003
prompt
send \003
prompt
send \003
END
[ $? = 130 ] && grep -c '^Taken time' "$work/screen" | grep -qx 2
check ctrl_c_stops_an_answer_and_asks_again

if $edits; then
    rm -rf "$work/kept"
    long=$(printf '%05000d' 0)
    interactive --out-seq-length 60 <<END
prompt
send 天下\033[D\b大\r
expect Taken time
prompt
send \033[A\r
expect Taken time
prompt
send one\\\\\\r
expect ... 
send two\r
expect Input: one
expect two
prompt
send \033[200~x $long\033[201~\r
expect text too long: 
prompt
send \004
END
    [ $? = 0 ] && [ "$(find "$work/kept" -name '大下-*' | wc -l)" -ge 1 ] &&
        [ "$(grep -c '大下 \[gMASK\]' "$work/screen")" = 2 ] &&
        [ "$(tail -n 1 "$work/state/sluice/queries" | wc -c)" = 5003 ]
    check queries_are_edited_remembered_and_long
fi

# --- tables ----------------------------------------------------------------------

# widest COLUMNS COMMAND...: of the lines that a terminal of so many gets
widest()
{
    columns=$1
    shift
    # shellcheck disable=SC2016 # for the inner shell
    "$pty" sh -c 'stty cols "$0" && exec "$@"' "$columns" "$sluice" "$@" \
        </dev/null 2>/dev/null | tr -d '\r' >"$work/table"
    awk '{ if (length($0) > most) most = length($0) } END { print most + 0 }' \
        "$work/table"
}
wide=''
for columns in 40 51 60; do
    for command in "plan -m $model --ram 64M" "inspect --tensors $model" \
        devices 'plan --machine rtx3090-ddr4 --preset 7b' \
        "generate -m $model --ram 64M -n 3 -p hi"; do
        # shellcheck disable=SC2086 # words on purpose
        most=$(widest "$columns" $command)
        [ "$most" -gt 20 ] && [ "$most" -le "$columns" ] ||
            wide="$wide $command: $most in $columns;"
    done
done
# What programs read stays as it is.
"$sluice" inspect --json "$model" >"$work/json" && widest 40 inspect --json \
    "$model" >/dev/null && cmp -s "$work/json" "$work/table" || wide="$wide json"
echo "$wide" | sed '/./s/^/# /'
[ -z "$wide" ]
check tables_fit_a_narrow_terminal

echo "1..$n"
