#!/bin/sh
# `sluice tokenize` and `sluice detokenize` as a person uses them: over model
# files, publishers' folders and single files, and what they say of bad ones.
source=${SLUICE_SOURCE:-.}
sluice=${SLUICE:-./sluice}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-tokenize-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
. "$source/tests/demo_model.sh"
. "$source/tests/golden.sh"
small=$source/tests/golden/tokenizers
glm=$(golden H_family/glm4_0414/hf) || exit 99
out=$work/out
err=$work/err

# says EXIT TEXT...: the last run ended so, and said all of it in one line.
says()
{
    [ "$code" = "$1" ] && [ "$(wc -l <"$err")" = 1 ] || return 1
    shift
    for text in "$@"; do
        grep -qF -- "$text" "$err" || return 1
    done
}

run()
{
    "$sluice" "$@" >"$out" 2>"$err"
    code=$?
}

text='In the beginning God created the heaven and the earth.'
"$sluice" tokenize -m "$model" "$text" >"$out" 2>"$err" &&
    [ "$("$sluice" detokenize -m "$model" <"$out")" = "$text" ]
check a_text_comes_back_from_its_ids

printf '%s' "$text" | "$sluice" tokenize -m "$model" 2>"$err" | cmp -s - "$out"
check standard_input_is_the_text_where_none_is_given

[ "$("$sluice" detokenize -m "$model" '[7809, 7812]' 2>"$err")" = \
    '[[gMASK]][sop]' ]
check special_ids_are_shown_by_their_names

run tokenize -m "$glm" --whole 'Hello<|user|>'
[ "$(cat "$out")" = '422 424 39 68 305 78 427' ]
check a_folder_serves_as_well_and_names_become_ids

run tokenize -m "$glm/tokenizer.json" --plain --json 'H<|user|>'
grep -qF '"kind": "byte-bpe"' "$out" && ! grep -qw 427 "$out" &&
    grep -qF '"pieces": ["H", "<"' "$out"
check plain_text_has_no_special_tokens

run convert -q --quant f16 -o "$work/glm.gguf" "$glm" &&
    [ "$("$sluice" tokenize -m "$work/glm.gguf" --whole 'Hello<|user|>')" = \
        '422 424 39 68 305 78 427' ]
check a_converted_model_has_the_same_vocabulary

[ "$("$sluice" detokenize -m "$glm" --hide-special \
    422 424 39 68 305 78 427 2>"$err")" = Hello ]
check special_ids_can_be_hidden

run tokenize -m "$small/ranks.model" --pieces 'the <sop>'
[ "$code" = 0 ] && [ "$(tail -n 1 "$out" | cut -f 2)" = '<sop>' ]
check a_file_of_another_name_is_known_by_what_it_holds

run tokenize -m "$work/none" x
says 1 "$work/none" 'No such file'
check a_file_that_is_not_there_is_named

mkdir "$work/empty"
run tokenize -m "$work/empty" x
says 2 "$work/empty" tokenizer.json vocab.txt
check a_folder_without_a_vocabulary_is_told_what_was_looked_for

mkdir "$work/bad"
sed 's/"type":"BPE"/"type":"Unigram"/' "$small/qwen.json" \
    >"$work/bad/tokenizer.json"
run tokenize -m "$work/bad" x
says 1 tokenizer.json Unigram
check a_part_that_is_not_supported_is_named

head -c 5000 "$small/qwen.json" >"$work/bad/tokenizer.json"
run tokenize -m "$work/bad" x
says 1 tokenizer.json 'not JSON'
check a_file_cut_off_is_named

run detokenize -m "$glm" 1 x7
says 2 x7
check what_is_no_id_is_named

run detokenize -m "$glm" 434
says 2 434
check an_id_that_there_is_not_is_named

run tokenize x
[ "$code" = 2 ] && grep -qF -- '-m FILE' "$err"
check a_model_is_needed
echo "1..$n"
