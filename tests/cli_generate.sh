#!/bin/sh
# 'sluice generate' as people use it, on the demo model: texts against
# demo/golden.json (computed by demo/reference.py), the modes of GLM-130B's
# generate.py, files, bad input, Ctrl-C.
source=${SLUICE_SOURCE:-.}
sluice=${SLUICE:-./sluice}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-generate-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
export CUDA_VISIBLE_DEVICES='' # runs that name no device see no GPU
nl='
'
unset NO_COLOR
if ! "$sluice" convert --help >/dev/null 2>&1; then
    echo "1..0 # SKIP this sluice cannot convert the demo model"
    exit 0
fi
# shellcheck source=tests/demo_model.sh
. "$source/tests/demo_model.sh"

generate()
{
    "$sluice" generate -m "$model" --ram 64M "$@" 2>"$work/err"
}

# The strings of golden.json that are indented by $1 blanks and called $2
# (cases: 3), within the section that begins with "$3"; one a line, as JSON
# has them.
strings()
{
    awk -v section="$3" -v indent="$1" -v name="$2" '
        /^ "/ { inside = index($0, "\"" section "\"") == 2 }
        inside && index($0, sprintf("%*s\"%s\": \"", indent, "", name)) == 1 {
            sub(/^[^:]*: "/, ""); sub(/",?$/, ""); print
        }' "$source/demo/golden.json"
}

# Number of prompt_ids of each case.
lengths()
{
    awk -v section="$1" '
        /^ "/ { inside = index($0, "\"" section "\"") == 2 }
        inside && /^   "prompt_ids": \[/ { counting = 1; n = 0; next }
        counting && /\]/ { counting = 0; print n }
        counting { n++ }' "$source/demo/golden.json"
}

# A JSON string as it is, with an x behind it (or the shell eats newlines).
plain()
{
    printf '%b' "$(printf '%s' "$1" | sed 's/\\"/"/g')x"
}

golden_texts()
{
    strings 3 text greedy >"$work/texts"
    strings 3 answer greedy >"$work/answers"
    lengths greedy >"$work/lengths"
    [ "$(wc -l <"$work/texts")" = 28 ] || return 1
    cases=0
    while IFS= read -r text <&3 && IFS= read -r want <&4 &&
        read -r length <&5; do
        text=$(plain "$text")
        want=$(plain "$want")
        got=$(
            generate -q --top-k 1 --out-seq-length $((length + 33)) \
                -p "${text%x}" </dev/null
            echo "x$?"
        )
        if [ "$got" != "${want%x}${nl}x0" ]; then
            echo "# '${text%x}' gave '$got'"
            return 1
        fi
        cases=$((cases + 1))
    done 3<"$work/texts" 4<"$work/answers" 5<"$work/lengths"
    [ $cases = 28 ]
}
golden_texts
check greedy_texts_are_those_of_the_reference

# All but the case with arguments of its own and the one with two blanks,
# whose second pass had a longer limit.
golden_beams()
{
    strings 3 name beam_search >"$work/names"
    strings 3 text beam_search >"$work/texts"
    lengths beam_search >"$work/lengths"
    cases=0
    while IFS= read -r name <&3 && IFS= read -r text <&4 &&
        read -r length <&5; do
        case $name in zh_two_masks | zh_chunxiao) continue ;; esac
        awk -v name="$name" '
            /^ "beam_search"/ { inside = 1 }
            inside && /^   "name"/ { this = index($0, "\"" name "\"") > 0 }
            inside && this && /^   "answers": \[/ { reading = 1; next }
            reading && /^   \]/ { exit }
            reading { sub(/^ *"/, ""); sub(/",?$/, ""); print }
            ' "$source/demo/golden.json" >"$work/beams"
        want=
        while IFS= read -r line; do
            line=$(plain "$line")
            want=$want${line%x}$nl
        done <"$work/beams"
        text=$(plain "$text")
        got=$(
            generate -q --sampling-strategy BeamSearchStrategy \
                --deterministic --print-all-beams \
                --out-seq-length $((length + 33)) -p "${text%x}" </dev/null
            echo "x$?"
        )
        if [ "$got" != "${want}x0" ]; then
            echo "# '${text%x}' gave '$got'"
            return 1
        fi
        cases=$((cases + 1))
    done 3<"$work/names" 4<"$work/texts" 5<"$work/lengths"
    [ $cases = 5 ]
}
golden_beams
check beams_are_those_of_the_reference

out=$(generate -q --top_k 1 --top_p 0.5 --out-seq-length 30 -p 'In the')
[ -n "$out" ] && [ "$out" = "$(generate -q --top-k 1 --top-p 0.5 \
    --out-seq-length 30 -p 'In the')" ]
check both_spellings_of_an_option_are_taken

a=$(generate -q --out-seq-length 40 --seed 7 -p 'In the')
b=$(generate -q --out-seq-length 40 --seed 7 --threads 1 -p 'In the')
c=$(generate -q --out-seq-length 40 --seed 8 -p 'In the')
[ "$a" = "$b" ] && [ "$a" != "$c" ]
check the_same_seed_draws_the_same_text

printf 'In the beginning God created the heaven and the\n' |
    generate -q --top-k 1 --out-seq-length 20 -p - >"$work/out"
[ "$(cat "$work/out")" = "$(generate -q --top-k 1 --out-seq-length 20 \
    -p 'In the beginning God created the heaven and the')" ]
check a_prompt_is_read_from_standard_input

# Another locale's decimal comma must change nothing.
comma=$(locale -a 2>/dev/null | grep -m 1 -E '^(de|fr|it)_')
LC_ALL=${comma:-C} generate --stats --temperature 0.5 --top-k 1 \
    --out-seq-length 20 -p 'In the' >/dev/null &&
    grep -qE 'after [0-9]+\.[0-9]+ s' "$work/err"
check numbers_have_a_point_in_every_locale

generate --top-k 1 --out-seq-length 20 --stats -p 'In the' >"$work/out" &&
    [ "$(wc -l <"$work/out")" = 1 ] &&
    grep -q 'KV cache' "$work/err" && grep -q 'efficiency' "$work/err" &&
    grep -q '^first token' "$work/err" && grep -q '^memory' "$work/err"
check statistics_and_the_plan_are_told_on_standard_error

# The demo model and its ring fit many a cache.
cache=$(getconf LEVEL3_CACHE_SIZE 2>/dev/null)
if [ "${cache:-0}" -gt 67108864 ] 2>/dev/null; then
    grep -q 'memory [0-9.]* GB/s (in cache), ' "$work/err"
else
    grep -q 'memory [0-9.]* GB/s' "$work/err"
fi
check a_rate_of_a_cache_is_called_one

generate -q --top-k 1 --out-seq-length 20 -p 'In the' >"$work/out" &&
    [ ! -s "$work/err" ]
check quiet_is_quiet

# on_terminal OPTION...: the last line on a terminal, where the text is not
on_terminal()
{
    script -qec "'$sluice' generate -m '$model' --ram 64M --top-k 1 \
        --out-seq-length 20 -p 'In the' $* >'$work/out'" /dev/null \
        </dev/null 2>&1 | tr -d '\r' | tail -n 1
}
export XDG_CACHE_HOME="$work/cache"
speed='sluice: [0-9]* tokens, [0-9.]* \(tokens/s\|s a token\)'
if script -qec true /dev/null >/dev/null 2>&1; then
    on_terminal | grep -qx "$speed" &&
        generate --top-k 1 --out-seq-length 20 -p 'In the' >"$work/out" &&
        ! grep -q 'tokens/s' "$work/err" && [ -z "$(on_terminal -q)" ]
    check a_run_on_a_terminal_ends_with_its_speed

    generate -q --json --top-k 1 --out-seq-length 20 -p 'In the' >"$work/before"
    "$sluice" probe "$model" >"$work/probed" 2>"$work/err" &&
        on_terminal | grep -qx "$speed, [0-9.]* of the floor ([a-z]*)" &&
        on_terminal --stats | grep -q '^floor .* efficiency [0-9.]*$' &&
        generate -q --json --top-k 1 --out-seq-length 20 -p 'In the' \
            >"$work/out" &&
        grep -q '"floor_seconds":[0-9.e-]*,"efficiency":[0-9]' "$work/out" &&
        ! grep -q '"floor_seconds"' "$work/before"
    check and_with_the_share_of_the_floor_where_rates_are_known

    # How weights are read is what probe has kept, and changes no bit.
    kept=$XDG_CACHE_HOME/sluice/probe.json
    set -- -m "$work/int4.gguf" --ram 64M --device cpu
    "$sluice" convert -q --quant int4-g64 -o "$work/int4.gguf" \
        "$source/demo" 2>"$work/err"
    for reading in '1 1024' '3 4096'; do
        sed "s/\(\"places\": \)[0-9]*/\1${reading% *}/
            s/\(\"ahead_bytes\": \)[0-9]*/\1${reading#* }/" "$kept" \
            >"$work/probe.json" && cp "$work/probe.json" "$kept" || break
        "$sluice" bench "$@" --prompt 1 --gen 1 --repeat 1 --json \
            2>"$work/err" | grep -cF \
            "\"places\":${reading% *},\"ahead_bytes\":${reading#* }," \
            >"$work/out"
        [ "$(cat "$work/out")" = 2 ] && "$sluice" generate "$@" -q --top-k 1 \
            --out-seq-length 20 -p 'In the' >"$work/by ${reading% *}" || break
        reading=
    done
    [ -z "$reading" ] && [ -s "$work/by 1" ] && cmp "$work/by 1" "$work/by 3"
    check weights_are_read_as_probe_has_kept_it

    # in its folder, whose disk was looked at
    program=$(cd "$(dirname "$sluice")" && pwd)/$(basename "$sluice")
    sed -n 2p "$work/probed" | grep -q 'GB/s from disk and .* from memory' &&
        (cd "$(dirname "$model")" && "$program" plan --preset 7b --ram 3G) \
            >"$work/out" 2>"$work/err" &&
        sed -n 3p "$work/out" | grep -q '^A token takes ' && [ ! -s "$work/err" ]
    check and_a_model_that_is_not_there_is_planned_for_this_machine
fi
unset XDG_CACHE_HOME

generate -q --json --top-k 1 --out-seq-length 20 -p 'In the' >"$work/out" &&
    [ "$(wc -l <"$work/out")" = 1 ] &&
    grep -q '^{"schema":1,"prompt":"In the","text":"In the ' "$work/out" &&
    grep -q '"answers":\[{"text":' "$work/out" &&
    grep -q '"first_token_seconds":' "$work/out"
check json_is_one_object_a_query

mkdir "$work/kept"
printf '  In the \n\nAnd God said, Let there be [MASK].\n 天下 \nstop\nnever\n' |
    generate -q --top-k 1 --out-seq-length 20 --output-path "$work/kept" \
        >"$work/out"
[ $? = 0 ] && ! grep -q never "$work/out" &&
    [ "$(grep -c '^Please Input Query (stop to exit) >>> ' "$work/out")" = 5 ] &&
    grep -q '>>> Query should not be empty!$' "$work/out" &&
    grep -q '^Input: In the \[gMASK\]$' "$work/out" &&
    grep -q '^Input: And God said, Let there be \[MASK\].$' "$work/out" &&
    grep -q '^Output: In the [a-z]' "$work/out" &&
    [ "$(grep -c '^Taken time [0-9]*\.[0-9][0-9]$' "$work/out")" = 3 ] &&
    ! grep -q "$(printf '\033')" "$work/out"
check interactive_mode_speaks_as_the_reference
ls "$work/kept" >"$work/names"
[ "$(wc -l <"$work/names")" = 3 ] &&
    grep -qE '^In the-[0-9]{2}(-[0-9]{2}){4}\.txt$' "$work/names" &&
    grep -qE '^And God said, Let th-' "$work/names" &&
    grep -q '^天下-' "$work/names"
check answers_are_kept_under_the_query_s_name

printf 'In the' | generate -q --top-k 1 --out-seq-length 12 \
    --output-path "$work/kept" >"$work/out"
check the_end_of_the_input_ends_it_well

text=$(printf 'x%.0s' $(seq 400))
printf '%s\nIn the\nstop\n' "$text" | generate -q --top-k 1 \
    --out-seq-length 20 --output-path "$work/kept" >"$work/out"
[ $? = 0 ] && grep -q '^sluice: text too long: [0-9]* tokens' "$work/err" &&
    grep -q '^Output: In the' "$work/out"
check a_bad_query_does_not_end_interactive_mode

tab=$(printf '\t')
cat >"$work/queries" <<END
one${tab}In the

../two${tab}In the
no id
 three${tab}春眠不觉晓，${tab}extra
four${tab}红豆生[MASK]，春来发几枝。
five${tab}$text
END
generate -q --top-k 1 --out-seq-length 20 --with-id \
    --input-source "$work/queries" --output-path "$work/ids/deep" >"$work/out"
[ $? = 1 ] &&
    [ "$(ls "$work/ids/deep" | tr '\n' ' ')" = 'four.txt one.txt ' ] &&
    [ "$(grep -c '^Working on No. [0-6] on model group 0\.\.\. $' \
        "$work/out")" = 7 ] &&
    [ "$(wc -l <"$work/err")" = 4 ] &&
    grep -q "line 3: id '../two'" "$work/err" &&
    grep -q 'line 4: no tab' "$work/err" &&
    grep -q 'line 5: more than one tab' "$work/err" &&
    grep -q 'line 7: text too long' "$work/err" &&
    grep -q '^红豆生' "$work/ids/deep/four.txt"
check file_mode_goes_on_after_bad_lines_and_fails_at_the_end

umask 027
generate -q --top-k 1 --out-seq-length 20 --output-path "$work/mode" \
    -p 'a/b ../c' >"$work/out" &&
    ls -l "$work/mode" | grep -q '^-rw-r-----.* ab \.\.c-[-0-9]*\.txt$'
check files_have_safe_names_and_plain_modes
umask 022

cat >"$work/same" <<END
In the
In the
In the
END
generate -q --top-k 1 --out-seq-length 8 --input-source "$work/same" \
    --output-path "$work/many" >/dev/null &&
    [ "$(ls "$work/many" | wc -l)" = 3 ] &&
    ! ls "$work/many" | grep -v 'txt$'
check files_of_one_second_do_not_replace_each_other

generate -q --top-k 1 --out-seq-length 20 --input-source "$work/same" \
    --output-path "$work/queries" >"$work/out"
[ $? = 1 ] && [ "$(wc -l <"$work/err")" = 1 ]
check a_folder_that_cannot_be_is_one_line_and_exit_1

generate -q --input-source "$work/none" --output-path "$work/kept" >"$work/out"
[ $? = 1 ] && grep -q "$work/none: " "$work/err"
check a_missing_file_of_queries_is_named

generate --ram 3M -p 'In the' >"$work/out"
[ $? = 1 ] && [ ! -s "$work/out" ] && grep -q 'the least that works' "$work/err"
check a_budget_that_cannot_work_is_refused

least=$("$sluice" generate -m "$model" --ram least --top-k 1 -q \
    --out-seq-length 20 -p 'In the' 2>"$work/err")
[ -n "$least" ] && [ "$least" = "$(generate -q --top-k 1 \
    --out-seq-length 20 -p 'In the')" ]
check the_least_budget_gives_the_same_text

# kv_of KIND: what the plan counts for keys and values.
kv_of()
{
    "$sluice" plan -m "$model" --ram 64M --json --kv "$1" 2>"$work/err" |
        sed -n 's/^  "kv": \([0-9]*\),*$/\1/p'
}
f32=$(kv_of f32) f16=$(kv_of f16) int8=$(kv_of int8)
[ "$f32" -gt $((f16 * 19 / 10)) ] && [ "$f16" -gt $((int8 * 15 / 10)) ] &&
    [ "$int8" -gt 1000000 ]
check the_plan_counts_keys_and_values_as_they_are_kept

for kind in f32 f16 int8; do
    a=$("$sluice" generate -m "$model" --ram least --kv $kind --top-k 1 -q \
        --threads 1 -p 'In the beginning God created' 2>"$work/err")
    b=$(generate -q --kv $kind --top-k 1 -p 'In the beginning God created')
    [ -n "$a" ] && [ "$a" = "$b" ] || break
    kind=all
done
[ $kind = all ]
check each_kind_of_keys_and_values_runs_in_any_budget

# words of other programs
say='In the beginning God'
generate -q --temp 0 -n 30 -p "$say" >"$work/out" &&
    generate -q --top-k 1 -n 30 -p "$say" | cmp - "$work/out"
check a_temperature_of_0_takes_the_likeliest
generate -q --json --temp 0 -n 7 -p "$say" | grep -q '"generated":7}'
check n_counts_what_is_new
echo "$say" >"$work/say"
generate -q --temp 0 -n 30 -f "$work/say" | cmp - "$work/out" &&
    generate -q --temp 0 -n 30 --no-display-prompt -f "$work/say" >"$work/new" &&
    [ "$say$(cat "$work/new")" = "$(cat "$work/out")" ]
check a_text_may_come_from_a_file_and_stay_there

# The stop begins and ends within tokens.
all=$(cat "$work/out")
middle=${all#"$say"???}
stop=$(printf '%.9s' "${middle#?????}")
generate -q --temp 0 -n 30 --stop zzz --stop "$stop" -p "$say" >"$work/cut" &&
    [ "$(cat "$work/cut")" = "${all%%"$stop"*}" ] &&
    [ "${all%%"$stop"*}" != "$all" ]
check a_stop_cuts_before_it
generate -q --temp 0 -n 30 --json --stop "$stop" -p "$say" >"$work/json" &&
    grep -qF "\"text\":\"$(cat "$work/cut")\"" "$work/json" &&
    ! grep -q '"generated":30}' "$work/json"
check and_ends_the_work
printf '%s\nIn the\n' "$say" >"$work/say"
generate -q --temp 0 -n 30 --stop "$stop" --input-source "$work/say" \
    --batch 2 --output-path "$work/stops" >"$work/out" &&
    [ "$(cat "$work/stops/$say"*)" = "$(cat "$work/cut")" ]
check of_each_text_of_a_batch

generate --mode inference --load x --fp16 --model-parallel-size 8 -n 2 \
    -p 'In the' >"$work/out" && grep -q 'mode, --load, --fp16, --model' "$work/err"
check a_launcher_s_options_are_taken_and_told

for args in '--num-beams 0' '--temperature -1' '--top-p 1,5' '--top-k -1' \
    '--seed 0' '--sampling-strategy Other' '--out-seq-length x' 'extra' \
    '--kv f64' '--with-id' '--input-source interactive' '--no-such-option'; do
    # shellcheck disable=SC2086
    generate -p x $args >"$work/out"
    [ $? = 2 ] && [ ! -s "$work/out" ] || break
    args=
done
[ -z "$args" ]
check wrong_usage_exits_with_2

"$sluice" generate -p x >"$work/out" 2>"$work/err"
[ $? = 2 ]
check a_run_without_a_model_is_wrong_usage

head -c 100000 "$model" >"$work/cut.gguf"
"$sluice" generate -m "$work/cut.gguf" -p x >"$work/out" 2>"$work/err"
[ $? = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] && [ ! -s "$work/out" ]
check a_damaged_model_is_one_line_and_exit_1

{
    generate -q --out-seq-length 200 -p 'In the'
    echo $? >"$work/rc"
} | head -c 5 >"$work/out"
[ "$(cat "$work/rc")" = 141 ] && [ ! -s "$work/err" ]
check a_reader_that_leaves_ends_it_quietly

if [ -c /dev/full ]; then
    generate -q --top-k 1 --out-seq-length 20 -p 'In the' >/dev/full
    [ $? = 1 ] && grep -q 'cannot write' "$work/err"
    check a_full_disk_is_told
fi

# Ctrl-C in the midst of a long text. The shell ignores SIGINT for what it
# runs in the background, so that must be undone first.
if env --default-signal=INT true 2>/dev/null; then
    env --default-signal=INT "$sluice" generate -m "$model" --ram 128M -q \
        --min-gen-length 4000 --out-seq-length 4096 --threads 1 \
        -p 'In the' >"$work/out" 2>"$work/err" &
    pid=$!
    i=0
    until [ "$(wc -c <"$work/out")" -gt 20 ] || [ $i = 100 ]; do
        sleep 0.1
        i=$((i + 1))
    done
    kill -INT $pid
    wait $pid
    [ $? = 130 ] && [ ! -s "$work/err" ] && [ "$(wc -c <"$work/out")" -gt 20 ] &&
        [ -z "$(tail -c 1 "$work/out")" ]
    check ctrl_c_keeps_the_text_and_exits_with_130

    mkfifo "$work/keyboard"
    env --default-signal=INT "$sluice" generate -m "$model" --ram 64M -q \
        --output-path "$work/kept" <"$work/keyboard" \
        >"$work/out" 2>"$work/err" &
    pid=$!
    exec 6>"$work/keyboard"
    i=0
    until grep -q 'Please' "$work/out" || [ $i = 100 ]; do
        sleep 0.1
        i=$((i + 1))
    done
    kill -INT $pid
    wait $pid
    [ $? = 130 ] && [ ! -s "$work/err" ]
    check ctrl_c_at_the_prompt_ends_it
    exec 6>&-
fi

# A flipped bit is found before a word is said, and only when asked for: the
# file is not read twice otherwise.
cp "$model" "$work/flipped.gguf"
printf 'X' | dd of="$work/flipped.gguf" bs=1 seek=9000000 conv=notrunc \
    2>/dev/null
"$sluice" generate -m "$work/flipped.gguf" -p And --verify -q \
    >"$work/out" 2>"$work/err"
[ $? = 1 ] && [ ! -s "$work/out" ] && [ "$(wc -l <"$work/err")" = 1 ] &&
    grep -q "section 'layer 5 mlp'.* is damaged" "$work/err"
check verify_finds_a_flipped_bit_before_it_generates
[ "$(generate -p 春眠不觉晓， --top-k 1 --verify -q)" = \
    "$(generate -p 春眠不觉晓， --top-k 1 -q)" ]
check verify_lets_a_whole_file_through

# Texts as editors and other programs leave them.
printf '\357\273\277In the\n' >"$work/bom"
printf 'In the\n' >"$work/plain"
[ "$(generate -q -p - --top-k 1 --out-seq-length 20 <"$work/bom")" = \
    "$(generate -q -p - --top-k 1 --out-seq-length 20 <"$work/plain")" ] &&
    generate -q --json --top-k 1 --out-seq-length 20 --output-path "$work/b" \
        --input-source "$work/bom" >"$work/out" &&
    grep -q '"line":1,"prompt":"In the"' "$work/out"
check a_byte_order_mark_is_no_text_and_lines_count_from_1

printf 'In\000the' | generate -q -p - >"$work/out"
[ $? = 1 ] && grep -q 'a zero byte at byte 3' "$work/err" &&
    [ ! -s "$work/out" ]
check a_zero_byte_does_not_end_a_text

printf 'a\377b\tIn the [gMASK]\n' >"$work/odd"
generate -q --json --with-id --top-k 1 --out-seq-length 20 \
    --output-path "$work/b" --input-source "$work/odd" >"$work/out" &&
    grep -q '"id":null' "$work/out" && [ "$(wc -l <"$work/out")" = 1 ]
check json_has_null_for_what_is_no_utf8

esc=$(printf '\033]0;x\007\302\233A\342\200\256B\377\n.gguf')
generate -m "$work/$esc" -p a >"$work/out"
[ $? = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] &&
    ! LC_ALL=C grep -q "$(printf '[\033\007\302\233\377]')" "$work/err" &&
    grep -q 'A?*B' "$work/err"
check names_do_not_drive_the_terminal

# tame COMMAND...: nothing that it prints, wherever, drives a terminal.
tame()
{
    timeout 60 "$sluice" "$@" >"$work/out" 2>&1 </dev/null
    if [ $? -gt 2 ] || [ ! -s "$work/out" ] ||
        LC_ALL=C grep -q "$(printf '[\033\007\302\233]')" "$work/out"; then
        bad="$bad; $*"
    fi
}
bad=
cp "$model" "$work/$esc" && mkdir "$work/evil" &&
    printf '{"architectures": ["a\\u001b[1mb"], "model_type": "\\u009bx"}' \
        >"$work/evil/config.json" &&
    cp "$model" "$work/evil/model.safetensors"
tame verify "$work/$esc"
tame inspect "$work/$esc"
tame inspect "$work/evil"
tame plan -m "$work/$esc" --ram 64M
tame bench -m "$work/$esc" --ram 64M --prompt 2 --gen 1 --repeat 1
tame convert --force -o "$work/out$esc" "$source/demo"
tame synth --hidden-size 64 --num-layers 1 --vocab-size 128 -o "$work/s$esc"
tame perplexity -m "$work/$esc" "$work/odd"
tame generate -m "$model" "--$esc"
tame generate "$esc" -m "$model"
tame "$esc"
rm -f "$work/out$esc" "$work/s$esc" "$work/$esc"
echo "$bad" >"$work/err"
[ -z "$bad" ]
check whatever_prints_them

usual()
{
    "$sluice" generate -h >"$work/1" && "$sluice" generate --help >"$work/2" &&
        "$sluice" help generate >"$work/3" && cmp "$work/1" "$work/2" &&
        cmp "$work/2" "$work/3" && "$sluice" -h | grep -q '^Commands:' &&
        "$sluice" -V >"$work/1" && "$sluice" chat --version >"$work/2" &&
        "$sluice" convert -V >"$work/3" && cmp "$work/1" "$work/2" &&
        cmp "$work/2" "$work/3" && grep -q '^sluice [0-9.]* (.*)' "$work/1"
}
usual
check help_and_version_are_where_fingers_look

hinted()
{
    "$sluice" genrate 2>"$work/err"
    [ $? = 2 ] && grep -q "did you mean 'generate'?" "$work/err" &&
        ! "$sluice" generate --out-seq-lenght=3 2>"$work/err" &&
        grep -q 'did you mean --out-seq-length?' "$work/err" &&
        ! "$sluice" generate -p --promt --promt 2>"$work/err" &&
        [ "$(grep -c 'did you mean --prompt?' "$work/err")" = 1 ] &&
        ! "$sluice" generate --qwertyuiop 2>"$work/err" &&
        ! grep -q 'did you mean' "$work/err" &&
        ! "$sluice" generate --p x 2>"$work/err" &&
        ! grep -q 'program-name' "$work/err"
}
hinted
check what_is_nearly_a_name_is_hinted_at

generate -n 1 -p 'In the' >"$work/out" && ! grep -q GPU "$work/err" &&
    generate -n 1 --vram 1G -p 'In the' >"$work/out" &&
    [ "$(grep -c 'no GPU is used' "$work/err")" = 1 ]
check no_gpu_is_told_to_those_who_asked_for_one

printf 'In the\n' | generate -q --top-k 1 -n 3 --color=always \
    --output-path "$work/colored" | grep -q "$(printf '\033')\[4m" &&
    printf 'In the\n' | NO_COLOR=1 generate -q --top-k 1 -n 3 \
        --color=always --output-path "$work/colored" |
    grep -q "$(printf '\033')\[4m"
check colors_come_when_they_are_asked_for

environment()
{
    [ "$(SLUICE_MODEL=$model SLUICE_RAM=64M "$sluice" generate -p 'In the' \
        -c 20 -t 2 --top-k 1 2>"$work/err")" = \
        "$(generate -q -p 'In the' --out-seq-length 20 --top-k 1)" ] &&
        SLUICE_MODEL=$model SLUICE_RAM=64M "$sluice" generate -p 'In the' \
            -c 20 2>&1 >"$work/out" | grep -q 'a budget of 64.0 MiB' &&
        ! SLUICE_RAM=nonsense "$sluice" generate -m "$model" -p a 2>"$work/err" &&
        grep -q "SLUICE_RAM.*'nonsense'" "$work/err" &&
        SLUICE_RAM=nonsense generate -q -p a -n 1 >"$work/out" 2>"$work/err"
}
environment
check the_environment_says_what_options_do_not

# 16.9 MiB three times.
"$sluice" generate -m "$model" --ram 300% -p 'In the' -c 20 >"$work/out" \
    2>"$work/err" && grep -q 'a budget of 50.[0-9] MiB' "$work/err"
check a_budget_may_be_a_part_of_the_file
"$sluice" generate -q -m "$model" --ram 64M -t 300 -p a -c 8 >"$work/out" \
    2>"$work/err" && grep -q 'warning: --threads 300 on ' "$work/err"
check more_threads_than_cpus_are_told

echo "1..$n"
