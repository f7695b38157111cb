#!/bin/sh
# 'sluice generate --prompt-cache': the same texts without the prompt's pass,
# and nothing but a line of warning when the file is not what it should be.
# shellcheck disable=SC2154 # what demo_model.sh has set
source=${SLUICE_SOURCE:-.}
sluice=${SLUICE:-./sluice}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-prompt-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
export CUDA_VISIBLE_DEVICES='' # runs that name no device see no GPU
cache=$work/kept
# shellcheck source=tests/demo_model.sh
. "$source/tests/demo_model.sh"

generate()
{
    "$sluice" generate -m "$model" --ram 64M --out-seq-length 64 "$@" \
        2>"$work/err"
}

# number NAME: of the JSON in $out.
number()
{
    printf '%s\n' "$out" | sed -n "s/.*\"$1\": *\\([0-9]*\\).*/\\1/p"
}

text='In the beginning God created'
want=$(generate -q --top-k 1 -p "$text")

# The same text, from a pass and from the file.
same=true
for kind in f32 f16 int8; do
    plain=$(generate -q --kv $kind --top-k 1 -p "$text")
    first=$(generate -q --kv $kind --top-k 1 -p "$text" \
        --prompt-cache "$cache.$kind")
    size=$(wc -c <"$cache.$kind")
    again=$(generate --stats --kv $kind --top-k 1 -p "$text" \
        --prompt-cache "$cache.$kind")
    [ -n "$plain" ] && [ "$first" = "$plain" ] && [ "$again" = "$plain" ] &&
        [ "$size" -gt 1000 ] &&
        grep -q 'positions from the prompt cache' "$work/err" || same=false
done
$same
check the_text_is_the_same_from_a_pass_and_from_the_file

set -- -p 'In the [MASK] God [MASK] the heaven' --top-k 1
plain=$(generate -q "$@")
generate -q "$@" --prompt-cache "$work/blanks" >"$work/out"
again=$(generate -q "$@" --prompt-cache "$work/blanks")
[ -n "$plain" ] && [ "$again" = "$plain" ] && [ "$(cat "$work/out")" = "$plain" ]
check blanks_are_filled_alike

set -- -p "$text" --sampling-strategy BeamSearchStrategy --num-beams 3 \
    --print-all-beams
plain=$(generate -q "$@")
generate -q "$@" --prompt-cache "$work/beams" >"$work/out"
again=$(generate -q "$@" --prompt-cache "$work/beams")
[ -n "$plain" ] && [ "$again" = "$plain" ] && [ "$(cat "$work/out")" = "$plain" ]
check beams_are_searched_alike

plain=$(generate -q -p "$text" --seed 5)
again=$(generate --stats -p "$text" --seed 5 --prompt-cache "$cache.f16")
[ "$again" = "$plain" ] && grep -q 'from the prompt cache' "$work/err"
check what_is_drawn_does_not_depend_on_the_file

# With all weights streamed a pass reads each of them once.
out=$("$sluice" generate -m "$model" --ram least --top-k 1 -q --json \
    --out-seq-length 16 -p "$text" --prompt-cache "$work/bytes" 2>"$work/err")
read=$(number bytes_read) passes=$(number passes)
out=$("$sluice" generate -m "$model" --ram least --top-k 1 -q --json \
    --out-seq-length 16 -p "$text" --prompt-cache "$work/bytes" 2>"$work/err")
[ "$(number passes)" = $((passes - 1)) ] && [ "$(number restored_positions)" \
    -gt 3 ] && [ "$(number bytes_read)" -lt $((read - read / passes / 2)) ]
check the_prompt_s_pass_over_the_weights_is_not_paid_again

cp "$cache.f16" "$cache"
other=$(generate -q --top-k 1 -p 'And God said')
got=$(generate --top-k 1 -p 'And God said' --prompt-cache "$cache")
[ "$got" = "$other" ] && grep -q "$cache: holds another prompt" "$work/err" &&
    ! cmp -s "$cache" "$cache.f16" &&
    got=$(generate --stats --top-k 1 -p 'And God said' \
        --prompt-cache "$cache") &&
    [ "$got" = "$other" ] && grep -q 'from the prompt cache' "$work/err"
check another_prompt_s_file_is_replaced_with_a_notice

cp "$cache.f16" "$cache"
got=$(generate --top-k 1 --kv int8 -p "$text" --prompt-cache "$cache") &&
    grep -q "$cache: holds another prompt" "$work/err" &&
    [ "$got" = "$(generate -q --top-k 1 --kv int8 -p "$text")" ]
check keys_and_values_of_another_kind_are_not_taken

# A byte changed at every 997th place, and every such length.
size=$(wc -c <"$cache.f16")
good=true
at=120
while [ $at -lt "$size" ]; do
    cp "$cache.f16" "$cache"
    byte=$(od -An -tu1 -j $at -N 1 "$cache" | tr -d ' ')
    # shellcheck disable=SC2059 # an octal escape
    printf "\\$(printf %o $((255 - byte)))" |
        dd of="$cache" bs=1 seek=$at conv=notrunc 2>/dev/null
    got=$(generate --top-k 1 -p "$text" --prompt-cache "$cache")
    [ "$got" = "$want" ] && [ "$(grep -c "$cache: " "$work/err")" = 1 ] &&
        cmp -s "$cache" "$cache.f16" || good=false
    head -c $at "$cache.f16" >"$cache"
    got=$(generate --top-k 1 -p "$text" --prompt-cache "$cache")
    [ "$got" = "$want" ] && [ "$(grep -c "$cache: " "$work/err")" = 1 ] &&
        cmp -s "$cache" "$cache.f16" || good=false
    at=$((at + size / 12))
done
(cat "$cache.f16" && echo) >"$cache"
got=$(generate --top-k 1 -p "$text" --prompt-cache "$cache")
[ "$got" = "$want" ] && grep -q "$cache: goes on behind its end" "$work/err" &&
    $good
check a_damaged_file_is_a_warning_and_made_anew

echo 'my notes' >"$cache"
got=$(generate --top-k 1 -p "$text" --prompt-cache "$cache")
[ "$got" = "$want" ] && [ "$(cat "$cache")" = 'my notes' ] &&
    grep -q "$cache: no prompt cache but another kind of.*left alone" \
        "$work/err" &&
    got=$(generate -q --top-k 1 -p "$text" --prompt-cache "$work") &&
    [ "$got" = "$want" ] &&
    grep -q "$work: no prompt cache but a folder; .*alone" "$work/err" &&
    mkfifo "$work/pipe" &&
    got=$(generate -q --top-k 1 -p "$text" --prompt-cache "$work/pipe") &&
    [ "$got" = "$want" ] && [ -p "$work/pipe" ] &&
    grep -q "$work/pipe: no prompt cache but a pipe; .*alone" "$work/err" &&
    ln -s round "$work/round" &&
    got=$(generate -q --top-k 1 -p "$text" --prompt-cache "$work/round") &&
    [ "$got" = "$want" ] && [ -L "$work/round" ] &&
    grep -q "$work/round: cannot be read: .*; it is left alone" "$work/err"
check what_is_no_prompt_cache_is_left_alone

# Text and notices share a terminal.
if script -qec true /dev/null >/dev/null 2>&1; then
    cp "$cache.f16" "$cache"
    script -qec "'$sluice' generate -m '$model' --ram 64M --top-k 1 \
        --out-seq-length 16 -p 'And God said' --prompt-cache '$cache'" \
        /dev/null </dev/null | tr -d '\r' >"$work/terminal"
    grep -q '^And God said$' "$work/terminal" &&
        tr '\n' ' ' <"$work/terminal" |
        grep -q " sluice: $cache: holds another prompt.*replaced "
    check a_notice_begins_a_line_of_its_own
fi

# No room: a limit on the length of files stands for a full disk.
rm -f "$cache"
got=$(
    trap '' XFSZ
    ulimit -f 1
    "$sluice" generate -m "$model" --ram 64M --out-seq-length 64 --top-k 1 \
        -p "$text" --prompt-cache "$cache" 2>"$work/err.small"
)
cp "$work/err.small" "$work/err"
[ "$got" = "$want" ] && [ ! -e "$cache" ] &&
    [ -z "$(find "$work" -name 'kept.??????')" ] &&
    got=$(generate --top-k 1 -p "$text" --prompt-cache "$work/no/such") &&
    [ "$got" = "$want" ] && grep -q 'the prompt is not kept' "$work/err"
check a_disk_without_room_costs_a_line_only

printf '%s\n' "$text" 'And God said' "$text" >"$work/lines"
for batch in 1 3; do
    for run in 1 2; do
        out=$(generate -q --json --top-k 1 --input-source "$work/lines" \
            --batch $batch --output-path "$work/texts" \
            --prompt-cache "$work/file.$batch")
        # shellcheck disable=SC2034 # used by eval
        restored=$(number restored_positions | paste -sd' ')
        printf '%s\n' "$out" | sed 's/"stats".*//; s/"seconds".*//' \
            >"$work/out.$batch.$run"
        eval "restored_${batch}_$run=\$restored"
    done
done
# shellcheck disable=SC2154 # set by eval
[ "${restored_1_1%% *}" = 0 ] && [ "${restored_1_1##* }" -gt 3 ] &&
    [ "${restored_1_2%% *}" -gt 3 ] && [ "${restored_3_2%% *}" -gt 3 ] &&
    cmp -s "$work/out.1.1" "$work/out.1.2" &&
    cmp -s "$work/out.1.1" "$work/out.3.1" &&
    cmp -s "$work/out.1.1" "$work/out.3.2"
check the_first_line_of_a_file_is_kept_and_found_again

# A control group of version 1, where somebody may make one.
group=/sys/fs/cgroup/memory/sluice-test-$$
if ! grep -q '^#define SL_SANITIZED' "$(dirname "$sluice")/config.h" \
    2>/dev/null && mkdir "$group" 2>/dev/null; then
    if echo 20M 2>/dev/null >"$group/memory.limit_in_bytes"; then
        within()
        {
            # shellcheck disable=SC2016 # for the inner shell
            sh -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' sh \
                "$group" "$sluice" "$@" >"$work/out" 2>"$work/err" ||
                grep -q 'too small: the least' "$work/err"
        }
        within generate -q -m "$model" --ram auto -p hi --top-k 1 \
            --out-seq-length 8
        check auto_stays_within_what_a_group_grants
        within bench -m "$model" --ram least --prompt 1 --gen 1 --repeat 1
        check so_does_what_is_measured
        XDG_CACHE_HOME=$work/kept within probe --force "$work"
        check so_does_the_survey_of_a_machine
    fi
    rmdir "$group"
fi

echo "1..$n"
