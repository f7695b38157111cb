#!/bin/sh
# 'sluice chat' as people use it, on the demo model: one answer, conversations
# from a pipe and on a terminal, files, bad input, Ctrl-C and Ctrl-D.
# shellcheck disable=SC2154 # what demo_model.sh has set
source=${SLUICE_SOURCE:-.}
sluice=${SLUICE:-./sluice}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-chat-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
export CUDA_VISIBLE_DEVICES='' # runs that name no device see no GPU
export XDG_STATE_HOME="$work/state"
export TERM=xterm
unset NO_COLOR
# shellcheck source=tests/demo_model.sh
. "$source/tests/demo_model.sh"
escape=$(printf '\033')

chat()
{
    "$sluice" chat -m "$model" --ram 64M -n 12 "$@" 2>"$work/err"
}

# Contents of a conversation's messages of a role, one a line.
said()
{
    awk -v role="\"$1\"" '/"role":/ { wanted = index($0, role) }
        wanted && /"content":/ {
            sub(/^[^:]*: "/, ""); sub(/",?$/, ""); print }' "$2"
}

# --- one answer --------------------------------------------------------------

chat -p 'In the beginning' >"$work/first" && [ -s "$work/first" ] &&
    [ "$(wc -l <"$work/first")" -ge 1 ] && ! grep -q "$escape" "$work/first" &&
    [ "$(grep -c 'was not trained to chat' "$work/err")" = 1 ] &&
    ! grep -q '问' "$work/first"
check an_answer_is_all_that_standard_output_has

printf 'In the beginning\n' | chat -q -p - >"$work/out" &&
    cmp "$work/first" "$work/out" && [ "$(wc -l <"$work/err")" = 1 ]
check a_question_can_come_from_standard_input

chat -q -p 'In the beginning' --seed 77 >"$work/out" &&
    ! cmp -s "$work/first" "$work/out" &&
    chat -q -p 'In the beginning' --seed 77 >"$work/again" &&
    cmp "$work/out" "$work/again"
check a_seed_is_an_answer

chat -q --stats -p 'In the beginning' >"$work/out" &&
    grep -q '^sluice: [0-9]* tokens, .* prompt of [0-9]* tokens, all read' \
        "$work/err" && grep -q '^floor ' "$work/err"
check stats_say_that_all_is_read_again

(chat -q -p 'In the beginning' -n 200; echo $? >"$work/rc") | head -c 1 >/dev/null
[ "$(cat "$work/rc")" = 141 ] && ! grep -q 'cannot write' "$work/err"
check a_reader_that_leaves_ends_it_quietly

# --- conversations from a pipe -----------------------------------------------

printf 'In the beginning\nAnd then\n' |
    chat -q --history "$work/talk.json" >"$work/out" &&
    [ "$(said user "$work/talk.json")" = "In the beginning
And then" ] && [ "$(said assistant "$work/talk.json" | wc -l)" = 2 ] &&
    ! grep -q '^> ' "$work/out" && ! grep -q "$escape" "$work/out"
check a_conversation_is_kept_turn_by_turn

chat -q --history "$work/talk.json" --system 'Be kind.' -p 'And God said' \
    >"$work/out" && [ "$(said user "$work/talk.json" | wc -l)" = 3 ] &&
    [ "$(said system "$work/talk.json")" = 'Be kind.' ] &&
    [ "$(head -n 1 "$work/talk.json")" = '[' ]
check and_goes_on_where_it_was

printf '%s\n' 'one \' 'two' '"""three' 'four\' '"""' '""" five """' ' /help' |
    chat -q --history "$work/lines.json" >"$work/out" &&
    [ "$(said user "$work/lines.json")" = 'one \ntwo
three\nfour\\
 five 
 /help' ]
check texts_have_several_lines

printf '%s\n' 'hello' '/stats' '/system Be brief.' '/system' '/clear' \
    "/save $work/saved.json" "/load $work/talk.json" '/nonsense' '/help' \
    '/usr/bin is a path' '/system ""' '/stop' 'never' |
    chat -q --history "$work/commands.json" >"$work/out" &&
    grep -q '; prompt of ' "$work/err" &&
    grep -q '^sluice: Be brief\.$' "$work/err" &&
    grep -q 'the conversation begins anew' "$work/err" &&
    [ "$(said system "$work/saved.json")" = 'Be brief.' ] &&
    grep -q '^sluice: 7 messages$' "$work/err" &&
    grep -q 'no command /nonsense' "$work/err" &&
    grep -q '^  /clear ' "$work/err" &&
    said user "$work/commands.json" | grep -q '/usr/bin' &&
    ! grep -q never "$work/commands.json" &&
    [ -z "$(said system "$work/commands.json")" ]
check commands_do_what_they_say

printf '%s\n' 'hello' ' clear ' 'again' 'stop' 'never' |
    chat -q --template chatglm-6b --history "$work/words.json" >"$work/out" &&
    [ "$(said user "$work/words.json")" = again ]
check chatglm_6b_takes_stop_and_clear_as_words

printf '%s\n' 'stop' |
    chat -q --history "$work/words.json" --template plain >"$work/out" &&
    said user "$work/words.json" | grep -qx stop
check and_nobody_else_does

i=0
while [ $i -lt 30 ]; do
    echo "Say something long about number $i."
    i=$((i + 1))
done | chat -q -c 128 --history "$work/long.json" >"$work/out" &&
    grep -q 'context of 128 tokens is full: the oldest' "$work/err" &&
    [ "$(said user "$work/long.json" | wc -l)" = 30 ]
check the_oldest_turns_go_and_are_kept_in_the_file

# --- a causal model ----------------------------------------------------------

# The second answer is what somebody says who reads all of it for the first
# time, and yet little was read for it.
causal=$work/causal.gguf
greedy()
{
    chat -m "$causal" -q -n 8 --top-k 1 "$@"
}
"$sluice" convert "$source/tests/golden/H_family/glm4_9b_hf/hf" --quant f16 \
    -o "$causal" >"$work/convert.log" 2>&1 &&
    greedy --history "$work/a.json" -p 'Hello there' >"$work/out" &&
    cp "$work/a.json" "$work/b.json" &&
    greedy --history "$work/b.json" -p 'And again' >"$work/again" &&
    printf '%s\n' 'Hello there' 'And again' |
    greedy --stats --history "$work/both.json" >"$work/out" &&
    cmp "$work/b.json" "$work/both.json" &&
    grep -q 'prompt of [0-9]* tokens, [1-9][0-9]* known and [1-9]' "$work/err" &&
    [ "$(said assistant "$work/both.json" | wc -l)" = 2 ]
check a_causal_model_reads_what_is_new_and_says_the_same

greedy --repetition-penalty 1.5 -p 'Hello there' --no-think >"$work/out" &&
    [ "$(greedy --template glm-4-0414 -p 'Hello there')" != \
        "$(greedy --template glm-z1 -p 'Hello there')" ]
check a_causal_model_takes_its_options

printf '%s\n' 'Hello there' 'What was that' >"$work/queries"
"$sluice" generate -m "$causal" --ram 64M -q --top-k 1 --out-seq-length 24 \
    -p 'Hello there' >"$work/out" 2>"$work/err" &&
    grep -q '^Hello there' "$work/out" && ! grep -q 'gMASK' "$work/out" &&
    "$sluice" generate -m "$causal" --ram 64M -q --top-k 1 --batch 2 \
        --out-seq-length 24 --input-source "$work/queries" --json \
        --output-path "$work/kept" >"$work/batch" 2>"$work/err" &&
    "$sluice" generate -m "$causal" --ram 64M -q --top-k 1 \
        --out-seq-length 24 --input-source "$work/queries" --json \
        --output-path "$work/kept" >"$work/single" 2>"$work/err" &&
    [ "$(grep -o '"text":"[^"]*' "$work/batch")" = \
        "$(grep -o '"text":"[^"]*' "$work/single")" ]
check generate_goes_on_with_a_causal_models_text

# --- what is wrong is one line -----------------------------------------------

# fails CODE TEXT OPTION...: ends with CODE, says TEXT, prints nothing
fails()
{
    code=$1 text=$2
    shift 2
    chat -q "$@" >"$work/out" </dev/null
    [ $? = "$code" ] && [ ! -s "$work/out" ] &&
        grep -q -e "$text" "$work/err" && ! grep -q '^$' "$work/err"
}

echo 'no JSON' >"$work/bad.json"
cp "$model" "$work/copy.gguf"
fails 2 'is no JSON: line 1' --history "$work/bad.json" -p a &&
    [ "$(cat "$work/bad.json")" = 'no JSON' ] &&
    fails 2 'would replace what -m reads' --history "$model" -p a &&
    fails 2 'is no JSON' --history "$work/copy.gguf" -p a &&
    cmp "$model" "$work/copy.gguf" &&
    echo "/save $model" | chat -q >"$work/out" &&
    grep -q 'it is left as it is' "$work/err" && cmp "$model" "$work/copy.gguf"
check a_file_that_is_no_conversation_stays_as_it_is

fails 2 'there is no x; there are chatglm-6b,' --template x -p a &&
    fails 2 'text too long: [0-9]* tokens' -c 20 -p 'In the beginning God created
the heaven and the earth and all that was therein' &&
    fails 2 'longest sequence is' -c 100000 -p a &&
    fails 2 'causal models' --repetition-penalty 1.1 -p a &&
    fails 1 'cannot open: No such file' --tools "$work/none" -p a &&
    fails 1 'cannot read: Is a directory' --tools "$work" -p a &&
    fails 2 'unexpected argument' hello &&
    fails 1 "no token '<|im_start|>'" --template chatml -p a &&
    fails 1 'cannot open' -m "$work/none.gguf" -p a
check wrong_use_is_told_with_its_reason

# Told before the model answers, not when there is an answer to be kept.
fails 1 'none/talk.json: cannot create: No such file' -p hello \
    --history "$work/none/talk.json" &&
    fails 2 'null: a pipe or device, where a file' -p hello \
        --history /dev/null &&
    fails 2 "$work: a folder, where a file" -p hello --history "$work"
check a_history_that_cannot_be_written_is_told_before

printf 'hello\n/save %s/none/talk.json\nhello\n' "$work" |
    chat -q >"$work/out"
[ $? = 0 ] && [ "$(wc -l <"$work/out")" = 2 ] && grep -q 'none/talk.json' "$work/err"
check what_cannot_be_kept_is_told_and_the_talk_goes_on

fails 2 'more than [0-9]* bytes do not fit' -f /dev/zero &&
    head -c 100000 /dev/zero | tr '\0' ' ' | chat -q >"$work/out" &&
    grep -q 'more than [0-9]* bytes do not fit' "$work/err"
check a_text_without_an_end_ends

# --- on a terminal -----------------------------------------------------------

pty=$(dirname "$sluice")/tests/pty
if [ ! -x "$pty" ]; then
    echo "1..$n"
    exit 0
fi

# Lines are edited here if the program was linked with what does it.
edits=false
ready='> '
if ldd "$sluice" 2>/dev/null | grep -q libedit; then
    edits=true
    ready='\\033[?2004h> '
fi

# terminal OPTION...: plays the script of standard input, in which "prompt"
# waits for the next text to be asked for; $work/screen is what is seen.
terminal()
{
    sed "s/^prompt\$/expect $ready/" >"$work/played"
    "$pty" "$sluice" chat -m "$model" --ram 64M -q -n 12 "$@" \
        <"$work/played" >"$work/screen" 2>"$work/err"
}

terminal --history "$work/pty.json" <<'END'
prompt
send In the beginning\r
prompt
send \004
END
[ $? = 0 ] && [ "$(said user "$work/pty.json")" = 'In the beginning' ]
check ctrl_d_leaves

terminal --history "$work/pty.json" <<'END'
prompt
send given up
sleep 300
send \003
prompt
send And then\r
prompt
send \003
expect Ctrl-C again
prompt
send \003
END
[ $? = 130 ] && [ "$(said user "$work/pty.json" | tail -n 1)" = 'And then' ]
check ctrl_c_gives_a_line_up_and_twice_leaves

terminal -n 0 -c 512 --temperature 3 --top-p 0 --history "$work/cut.json" <<'END'
prompt
send In the beginning God created the heaven and the earth, and\r
expect \n
bytes 40
send \003
prompt
send Again, in the beginning God created the heaven\r
expect \n
bytes 40
send \003
prompt
send \004
END
[ $? = 0 ] && [ "$(said assistant "$work/cut.json" | wc -l)" = 2 ] &&
    [ -n "$(said assistant "$work/cut.json" | head -n 1)" ]
check ctrl_c_stops_an_answer_and_keeps_it

mkfifo "$work/pipe" # nobody writes to it
terminal -f "$work/pipe" <<'END'
expect not trained
sleep 300
send \003
END
[ $? = 130 ]
check ctrl_c_ends_the_wait_for_a_text

"$pty" "$sluice" chat -m "$model" --ram 64M -q -p 'In the beginning' \
    -n 12 </dev/null >"$work/screen" 2>"$work/err" &&
    tr -d '\r' <"$work/screen" | sed 1,2d >"$work/out" &&
    cmp "$work/first" "$work/out"
check an_answer_on_a_terminal_is_the_same

rm -f "$work/pty.json"
if $edits; then
    rm -rf "$work/state"
    terminal --history "$work/edit.json" <<'END'
prompt
send wurld\033[D\033[D\033[D\b\0177hello wo\033[C\033[C\033[C!\r
prompt
send \033[A\r
prompt
send 天下太平\b\b大乱\r
prompt
send one \\\r
expect ... 
send two\r
prompt
send \004
END
    [ $? = 0 ]
    check lines_are_edited_in_the_terminal
    said user "$work/edit.json" >"$work/out"
    [ "$(sed -n 2p "$work/out")" = "$(sed -n 1p "$work/out")" ] &&
        [ "$(sed -n 3p "$work/out")" = 天下大乱 ] &&
        [ "$(sed -n 4p "$work/out")" = 'one \ntwo' ] &&
        [ "$(wc -l <"$work/state/sluice/history")" = 3 ] &&
        [ "$(stat -c %a "$work/state/sluice/history")" = 600 ]
    check what_was_typed_is_what_is_asked_and_kept

    LC_ALL=C terminal --history "$work/c.json" <<'END'
prompt
send \033[A\033[A\033[A\033[B\r
prompt
send 天下\r
prompt
send \004
END
    [ $? = 0 ] && [ "$(said user "$work/c.json")" = '天下大乱
天下' ] || { cat -v "$work/screen" >>"$work/err" && false; }
    check every_locale_speaks_utf_8_and_remembers

    # 9000 characters are three times what a terminal takes as a line.
    paste=$(printf 'ab %.0s' $(seq 3000))
    cat >"$work/script" <<END
prompt
send \\033[200~x\\ny $paste.\\033[201~
sleep 500
send \\r
expect too long
prompt
send z $paste!\\r
expect too long
prompt
send short\\r
prompt
send \\004
END
    terminal --history "$work/paste.json" <"$work/script"
    [ $? = 0 ] && [ "$(said user "$work/paste.json")" = short ] &&
        [ "$(tail -n 3 "$work/state/sluice/history" | head -n 1)" = \
            "x\\ny $paste." ] &&
        [ "$(tail -n 2 "$work/state/sluice/history" | head -n 1)" = \
            "z $paste!" ]
    check what_is_pasted_is_not_cut_and_may_have_lines
fi

ready="> "
TERM=dumb terminal --history "$work/dumb.json" <<'END'
prompt
send In the beginning\r
prompt
send \004
END
[ $? = 0 ] && ! grep -q "$escape" "$work/screen" &&
    [ "$(said user "$work/dumb.json")" = 'In the beginning' ]
check a_dumb_terminal_gets_no_escapes

echo "1..$n"
