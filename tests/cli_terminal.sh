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
long=$(yes 'In the beginning God created the heaven.' | head -n 15 | tr '\n' ' ')


# --- something moves ---------------------------------------------------------

# generate OPTION...: a prompt whose pass takes seconds
set -- generate -m "$model" --ram 64M --isa ref -t 1 --top-k 1 \
    --out-seq-length 160
"$sluice" "$@" -q --progress=json -p "$long" >"$work/out" 2>"$work/json" &
"$sluice" "$@" -p "$long" >"$work/plain" 2>"$work/quiet" &
TERM=dumb "$pty" "$sluice" "$@" -p 'In the' </dev/null >"$work/dumb" 2>&1 &
"$pty" "$sluice" "$@" -p "$long" >"$work/screen" 2>"$work/err" <<'END'
expect first pass: 
expect of weights
expect to the first token
END
check how_far_a_first_pass_is_stands_on_a_terminal
tr -d '\r' <"$work/screen" | tail -n 1 | grep -q "^sluice: [0-9]* token" &&
    grep -qF "${esc}8${esc}7${esc}[B" "$work/screen" &&
    ! grep -qF 'first pass' "$work/plain"
check and_goes_when_text_comes
wait
[ -s "$work/plain" ] && ! grep -q -e 'first pass' -e "$esc" "$work/quiet" &&
    cmp "$work/plain" "$work/out"
check no_terminal_no_line
grep -q '^{"progress":"answering","seconds":[0-9.]*,"phase":"weights",' \
    "$work/json" && grep -q '"seconds_left":[0-9]' "$work/json" &&
    ! grep -qv '^{.*}$' "$work/json"
check json_tells_scripts
[ -s "$work/dumb" ] && ! grep -q -e "$esc" "$work/dumb"
check a_dumb_terminal_gets_no_escapes

echo "1..$n"
