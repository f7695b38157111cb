#!/bin/sh
# shellcheck disable=SC2086 # lists of words are taken apart on purpose
#
# What 'sluice eval' scores and says is what comes of plain logits, one sequence
# at a time (eval_plain.py): every type of task, of the demo model, of one of
# ChatGLM-6B's kind, of a causal one and of THUDM/GLM's, each both ways.
# SLUICE_FAMILY=all: every small model of
# the golden data that has a vocabulary.
source=$(cd "${SLUICE_SOURCE:-.}" && pwd)
sluice=${SLUICE:-./sluice}
case $sluice in
/*) ;;
*) sluice=$PWD/$sluice ;;
esac
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-eval-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
export CUDA_VISIBLE_DEVICES='' # runs that name no device see no GPU
# shellcheck source=tests/demo_model.sh
. "$source/tests/demo_model.sh"
# shellcheck source=tests/golden.sh
. "$source/tests/golden.sh"
models=qwen3
[ "${SLUICE_FAMILY:-}" != all ] || for folder in "$(golden H_family)"/*/hf; do
    [ ! -e "$folder/tokenizer.json" ] || case $folder in
    */qwen3/hf | */glm5_dsa/hf) ;; # the other is not one that sluice runs
    *)
        folder=${folder%/hf}
        models="$models ${folder##*/}"
        ;;
    esac
done
set -- $models
echo "1..$((7 + $#))"
golden_folder=$(golden H_family) || exit 99
glm=$(golden D_glm/glm_a/tp1) || exit 99
cd "$work" || exit 99

# --- data and tasks ---------------------------------------------------------

mkdir -p data/c data/e data/b data/s data/t data/p data/g data/l data/d data/w
cat >data/c/x.jsonl <<'END'
{"inputs_pretokenized": "In the beginning God created the heaven and the", "choices_pretokenized": ["earth", "sea and all that is", "moon"], "label": 0}
{"inputs_pretokenized": "And there was ", "choices_pretokenized": ["light", "darkness upon the face"], "label": 0}

END
# These begin alike, which causal models read once.
python3 - >data/e/x.jsonl <<'END'
import json
for end in ("heaven", "light"):
    print(json.dumps({"inputs_pretokenized": "And God saw the light, it was good. " * 5 + end,
                      "choices_pretokenized": [" day", " night and day"], "label": 0}))
END
cat >data/b/x.jsonl <<'END'
{"inputs_pretokenized": "", "choices_pretokenized": ["the heaven and the earth"], "label": 0, "pair_ID": 0, "sent_ID": 0, "bias_type": "age"}
{"inputs_pretokenized": "", "choices_pretokenized": ["there was light"], "label": 0, "pair_ID": 0, "sent_ID": 1, "bias_type": "age"}
END
cat >data/s/x.jsonl <<'END'
{"inputs_pretokenized": "And God said,", "choices_pretokenized": ["let there be light", "good", "it was so"], "label": 0, "ID": "1", "bias_type": "age", "goal_label": ["unrelated", "stereotype", "anti-stereotype"]}
END
cat >data/t/x.txt <<'END'
And God saw the light, that it was good: and God divided the light from
the darkness. And God called the light Day, and the darkness he called Night.
END
cat >data/p/x.jsonl <<'END'
{"text_pretokenized": "And the earth was without form, and void.", "meta": {"pile_set_name": "A"}}
{"text_pretokenized": "And the spirit of God moved upon the face of the waters, and God said, Let there be light: and there was light upon the face of the deep, and it was good.", "meta": {"pile_set_name": "B"}}
END
cat >data/g/x.jsonl <<'END'
{"inputs_pretokenized": "In the beginning God created the heaven and the", "targets_pretokenized": ["earth"]}
END
cat >data/l/x.jsonl <<'END'
{"text": "In the beginning God created the heaven and the earth"}
{"text": "And the spirit moved upon the face of the waters."}
END
printf '%s\n' 'the spirit of God moved upon the face of the waters' '' \
    '  and God saw the light that it was good and God said let there be light and there was light and it was good and the evening and the morning were the first day and God said let there be a face upon the waters  ' \
    >data/d/x.txt
cat >data/w/wiki.tokens <<'END'
 
 = The Spirit = 
 
 = = = = Waters = = = = 
 In the beginning ( it was good ) God said : " let there be light " , 1 @,@ 000 @.@ 5 @-@ day and God 's day ' first ' ; N was good . 
 [ a { the ] face } of the deep 90 ° east ? it was ! 
END

# task NUMBER LINE...: a task file; windows and answers are as eval_plain.py has
# them.
task()
{
    number=$1
    shift
    printf '%s\n' "name: t$number" "$@" >"tasks/$number.yaml"
}
window='max_seq_length: 40
generation_length: 16
file_pattern: {test: "*"}'
made='max_gen_length: 5
use_task_mask: true'
lambada='sampling_strategy: BeamSearchStrategy
num_beams: 4
module: tasks.lambada.task.LAMBADA'

# same MODEL STYLE OPTIONS KIND FILE...: evaluates tasks and holds them against
# plain logits.
same()
{
    evaluated=$1
    style=$2
    options=$3
    shift 3
    "$sluice" eval -q -m "$evaluated" --data-path data --output out --force \
        --activations f32 --task tasks $options >log 2>err &&
        python3 "$source/tests/eval_plain.py" "$sluice" "$evaluated" "$style" \
            out/journal.jsonl "$@" >>err 2>&1
}

# --- models of GLM-130B's kind, and causal ones ---------------------------

mkdir tasks
task 1 'type: mul' 'path: c'
task 2 'type: mul' 'path: c' 'use_task_mask: true' \
    'module: tasks.mmlu.task.MMLU'
task 3 'type: mul' 'path: b' \
    'module: tasks.ethnic.crows-pair.tasks.CrowsPairTask'
task 4 'type: mul' 'path: s' 'use_task_mask: true' \
    'module: tasks.ethnic.stereoset.tasks.StereoSetTask'
task 5 'type: lm' 'path: t' 'use_task_mask: true' "$window"
task 6 'type: lm' 'path: p' 'use_task_mask: true' "$window" \
    'module: tasks.language-modeling.pile.Pile'
task 7 'type: mul' 'path: e'
task 8 'type: gen' 'path: g' "$made"
task 9 'type: gen' 'path: g' "$made" "$lambada"
all='mul data/c/x.jsonl mul-gmask data/c/x.jsonl mul data/b/x.jsonl
    mul-gmask data/s/x.jsonl lm data/t/x.txt pile data/p/x.jsonl
    mul data/e/x.jsonl gen data/g/x.jsonl lambada data/g/x.jsonl'
same demo.gguf glm130b '' $all
check every_task_of_the_demo_model_is_what_plain_logits_say
if [ "${SLUICE_FAMILY:-}" != all ]; then # a second each
    rm tasks/9.yaml
    all=${all% lambada *}
fi
same demo.gguf glm130b-oneway --unidirectional $all
check so_it_is_where_it_is_asked_causally

"$sluice" synth -Q chatglm-6b --num-layers 3 --hidden-size 96 \
    --num-attention-heads 4 --inner-hidden-size 256 --vocab-size 7808 \
    --num-image-tokens 0 --tokenizer "$source/demo/ice_text.model" -q f32 \
    -o chatglm.gguf 2>err &&
    same chatglm.gguf chatglm '' $all
check so_it_is_of_chatglm_6bs_kind_with_its_two_positions
same chatglm.gguf chatglm-oneway --unidirectional $all
check whose_positions_stay_at_the_mark_where_it_is_asked_causally

for name in $models; do
    rm -f family.gguf.ids
    "$sluice" convert -q --force --quant f32 -o family.gguf \
        "$golden_folder/$name/hf" 2>err &&
        same family.gguf causal '' $all
    check "so_it_is_of_$name"
done

# --- THUDM/GLM's ------------------------------------------------------------

{
    printf '%s\n' '[PAD]' '[UNK]' '[CLS]' '[SEP]' '[MASK]'
    for letter in a b c d e f g h i j k l m n o p q r s t u v w x y z; do
        printf '%s\n' $letter "##$letter"
    done
    tr -cs 'A-Za-z.,:;!?"()' '\n' <data/t/x.txt | tr A-Z a-z |
        awk 'length > 1 && !seen[$0]++'
    printf '%s\n' the spirit face of waters '.' ',' ':' '"' '(' ')' '=' '-' 1 0
} | awk '!seen[$0]++' >vocab.txt
rm tasks/*
task 1 'type: mul' 'path: c'
task 2 'type: gen' 'path: l' "$lambada"
task 3 'type: lm' 'path: d' "$window"
task 4 'type: lm' 'path: w' "$window"
all='mul data/c/x.jsonl cloze data/l/x.jsonl documents data/d/x.txt
    wikitext data/w/wiki.tokens'
"$sluice" convert -q --quant f32 --num-attention-heads 4 \
    --tokenizer vocab.txt -o glm.gguf "$glm" 2>err &&
    same glm.gguf glm '--style glm' $all
check glms_tasks_are_what_plain_logits_say

# Words are those of the file as it is, the first one left out; and what GLM's
# own evaluation prints of that.
mkdir -p many/c many/tasks
cp data/c/x.jsonl many/c/a.b.jsonl && head -n 1 data/c/x.jsonl >many/c/c.jsonl
printf '%s\n' 'name: many' 'type: mul' 'path: c' >many/tasks/m.yaml
"$sluice" eval -q -m glm.gguf --data-path many --activations f32 --style glm \
    --task many/tasks >many/log 2>err
python3 - >>err 2>&1 <<'END'
import json, math, re, sys
log = open("log").read()
said = [float(x) for x in re.findall("PPL = (.*)", log)]
entries = [json.loads(line) for line in list(open("out/journal.jsonl"))[1:]]
wanted, lines = [], []

def framed(text):
    return "-" * (len(text) + 1) + "\n" + text + "\n" + "-" * (len(text) + 1)

for task, path in ((2, "data/d/x.txt"), (3, "data/w/wiki.tokens")):
    scores = [x for e in entries if e["task"] == task for x in e["logp"]]
    text = open(path).read()
    texts = text.split("\n")[:-1] if task == 2 else [text]
    words = sum(len(t.strip().split(" ")) for t in texts)
    ids = len(scores) + sum(t != "" for t in texts)  # no text's first one is scored
    loss = -sum(scores) / (ids - 1)
    ratio = (ids - 1) / (words - 1)
    wanted.append(math.exp(min(20, loss * ratio)))
    lines.append(framed("avg loss: {:.4E} | ppl: {:.4E} | adjusted ppl: {:.4E} | "
                        "token ratio: {} |".format(loss, math.exp(min(20, loss)),
                                                   wanted[-1], ratio)))
right, n = float(re.findall("x.jsonl, Accuracy = (.*)", log)[1]) / 100, 2
lines.append(framed(f"number correct: {right * n} | total examples: {n} | "
                    f"avg accuracy: {right * 100:.2f}"))
many = open("many/log").read()
a, c = (float(x) for x in re.findall("Finish .*, Accuracy = (.*)", many))
times = re.findall(r"elapsed time \(sec\): (\d+\.\d{3})$", many, re.M)
for name, total, value, time in zip(("a", "c"), (2, 1), (a, c), times):
    lines.append(f" > |epoch: -1| metrics for multichoice-{name}: total {total} accuracy = "
                 f"{value:.4f} % elapsed time (sec): {time}")
lines.append(f" >> |epoch: -1| overall: total = 3 accuracy = {(2 * a + c) / 3:.4f}")
missing = [x for x in lines if f"\n{x}\n" not in log + many]
print(said, wanted, missing, log, many)
sys.exit(len(times) != 2 or len(said) != 2 or missing != []
         or any(abs(a / b - 1) > 1e-3 for a, b in zip(said, wanted)))
END
check its_own_lines_tell_of_them_as_well

same glm.gguf glm-oneway '--style glm --unidirectional' $all
check so_they_are_one_way
