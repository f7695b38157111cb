#!/bin/sh
# 'sluice eval': task files, what is wrong with them and with data, and
# results in GLM-130B's console format.
source=$(cd "${SLUICE_SOURCE:-.}" && pwd)
sluice=${SLUICE:-./sluice}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-eval-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
export CUDA_VISIBLE_DEVICES='' # runs that name no device see no GPU
# shellcheck source=tests/demo_model.sh
. "$source/tests/demo_model.sh"
cd "$work" || exit 99
echo 1..16

# --- task files -----------------------------------------------------------

shared=${SLUICE_SHARED:-$source/../shared}/data/glm130b-tasks/tasks
if [ -d "$shared" ]; then
    "$sluice" eval --dry-run --task "$shared" --data-path none >out 2>err &&
        [ "$(grep -c '^    Task .* loaded from config .*\.yaml$' out)" = 37 ] &&
        [ "$(head -n 1 out)" = '> Loading task configs' ] &&
        [ "$(tail -n 1 out)" = '> Successfully load 37 tasks' ] && [ ! -s err ]
    check all_of_glm130bs_task_files_are_read
else
    n=$((n + 1))
    echo "ok $n - all_of_glm130bs_task_files_are_read # SKIP they are not here"
fi

mkdir -p t/below
printf 'name: "A"\ntype: mul\npath: d\nfilePattern: "**/*.jsonl"\nmetric: [X]\n' \
    >t/below/a.yaml
cat >want <<'END'
> Loading task configs
    Task A loaded from config t/below/a.yaml
> Successfully load 1 task
END
"$sluice" eval --dry-run --task ./t/ >out 2>err && cmp -s want out &&
    grep -q "t/below/a.yaml:5:1: nothing here reads the key 'metric'" err
check a_folder_is_searched_and_unknown_keys_are_warned_of

# refuses TEXT YAML-LINES...: exit code 1 and one line with TEXT.
refuses()
{
    text=$1
    shift
    printf '%s\n' "$@" >bad.yaml
    "$sluice" eval --dry-run --task bad.yaml >out 2>err
    rc=$?
    [ $rc = 1 ] && [ "$(wc -l <err)" = 1 ] && grep -qF -- "$text" err ||
        { wrong=1 && cat err; }
}
wrong=0
refuses 'bad.yaml:2:1: not YAML: ' 'name: [A'
refuses 'the task does not say its: path' 'name: A' 'type: mul'
refuses 'bad.yaml:2:7: type: one of mul, gen, lm and other' 'name: A' \
    'type: foo' 'path: d'
refuses 'bad.yaml:4:11: metrics: no metric of that name (Accuracy, EM' \
    'name: A' 'type: mul' 'path: d' 'metrics: [Rouge]'
refuses 'bad.yaml:4:9: module: no module of that name here' \
    'name: A' 'type: mul' 'path: d' 'module: my.Task'
refuses 'bad.yaml:4:17: max_seq_length: a whole number' 'name: A' 'type: mul' \
    'path: d' 'max-seq-length: x'
refuses 'bad.yaml:5:1: a second document: a file has one task' 'name: A' \
    'type: mul' 'path: d' '---' 'name: B'
refuses 'bad.yaml:4:17: max_seq_length is less than 4' 'name: A' 'type: mul' \
    'path: d' 'max_seq_length: 0'
refuses 'bad.yaml:1:1: no task: keys and values are expected' '- A'
refuses 'bad.yaml:2:9: not YAML: ' 'name: A' '    type: mul'
refuses 'unidirectional needs use_task_mask' 'name: A' 'type: gen' 'path: d' \
    'unidirectional: true'
"$sluice" eval --dry-run --task nowhere >out 2>err
[ $? = 1 ] && grep -q '^sluice: nowhere: cannot open it: No such' err || wrong=1
"$sluice" eval --task t/below/a.yaml -m x >out 2>err
[ $? = 2 ] || wrong=1
[ $wrong = 0 ]
check what_is_wrong_with_a_task_file_is_said_with_line_and_column

# --- scores ---------------------------------------------------------------

mkdir -p data/c data/l tasks
cat >data/c/x.jsonl <<'END'
{"inputs_pretokenized": "In the beginning God created the heaven and the", "choices_pretokenized": ["earth", "sea and all that in them is", "moon"], "label": 0}
{"inputs_pretokenized": "And God said, Let there be light: and there was ", "choices_pretokenized": ["light", "darkness upon the face"], "label": 0}

{"inputs_pretokenized": "床前明月光，", "choices_pretokenized": ["疑是地上霜", "低头思故乡"], "label": 1}
END
for _ in 1 2 3 4; do
    cat <<'END'
And God saw the light, that it was good: and God divided the light from
the darkness. And God called the light Day, and the darkness he called Night.
END
done >data/l/text.txt
printf 'name: a\ntype: mul\npath: c\n' >tasks/1.yaml
printf 'name: b\ntype: mul\npath: c\nuse_task_mask: true\n' >tasks/2.yaml
printf '%s\n' 'name: c' 'type: lm' 'path: l' 'use_task_mask: true' \
    'file_pattern: {test: "*.txt"}' 'max_seq_length: 64' \
    'generation_length: 16' >tasks/3.yaml

# ask OUT OPTION...: an evaluation of all tasks into the folder OUT.
ask()
{
    to=$1
    shift
    "$sluice" eval -q -m demo.gguf --data-path data --output "$to" \
        --activations f32 --task tasks "$@" >"$to.log" 2>err
}
# answers FOLDER: what was answered, in one order.
answers()
{
    sort "$1/journal.jsonl"
}

# What the scores are, cli_eval_plain.sh has.
ask all
ask single --pass-positions 1 && ask few --pass-positions 90 --threads 1 &&
    answers all >1.txt && answers single | cmp -s - 1.txt &&
    answers few | cmp -s - 1.txt
check what_shares_a_pass_changes_no_bit

# What questions begin with alike is read once: its 40 words or more, of four
# questions asked causally, three times less. All the same bit for bit.
mkdir -p alike/e && python3 - >>err 2>&1 <<'END'
import json
with open("alike/e/x.jsonl", "w") as f:
    for i, end in enumerate(("heaven", "light", "face of", "waters was")):
        print(json.dumps({"inputs_pretokenized": "And God saw the light, that it was good. " * 5 + end,
                          "choices_pretokenized": [" day", " night and the day"], "label": 0}), file=f)
END
printf 'name: e\ntype: mul\npath: e\n' >e.yaml
# alike OUT OPTION...: positions that these took in all.
alike()
{
    to=$1
    shift
    "$sluice" eval -m demo.gguf --data-path alike --output "$to" --stats \
        --activations f32 --task e.yaml --unidirectional "$@" >"$to.log" 2>err &&
        awk '/^passes/ { print int($2) * $3 }' err
}
one=$(alike one --limit 1) && four=$(alike four) &&
    alike each --pass-positions 1 >/dev/null &&
    answers four >2.txt && answers each | cmp -s - 2.txt &&
    [ "$four" -gt "$one" ] && [ "$four" -lt $((2 * one)) ]
check what_questions_begin_with_alike_is_read_once

# Killed in the middle: as if the journal ended there, within a line.
mkdir cut && head -c 2500 all/journal.jsonl >cut/journal.jsonl &&
    before=$(wc -l <cut/journal.jsonl) && ask cut --resume &&
    answers cut | cmp -s - 1.txt && [ "$before" -gt 3 ] &&
    [ "$(head -n "$before" cut/journal.jsonl)" = \
        "$(head -n "$before" all/journal.jsonl)" ]
check a_run_that_was_killed_goes_on_where_it_was

# Answers are not thrown away because an option was forgotten.
cp -r cut kept
! ask kept && grep -q 'journal.jsonl has the answers .*--resume .*--force' err &&
    cmp -s cut/journal.jsonl kept/journal.jsonl && ask kept --force &&
    answers kept | cmp -s - 1.txt
check answers_are_thrown_away_by_force_alone

cat >want <<'END'
> Loading task configs
    Task a loaded from config tasks/1.yaml
> Successfully load 1 task


MultiChoiceTaskConfig(name='a', type=<TaskType.MULTICHOICE: 'mul'>, path='data/c', module=None, metrics=['Accuracy'], use_task_mask=False, use_multitask_encoding=False, unidirectional=False, max_seq_length=2048, file_pattern='**/*.json*', micro_batch_size=1)
Evaluating task a:
    Evaluating group all:
        Finish x.jsonl, Accuracy = 66.667
Evaluation results of task a:
    Group all Accuracy: max = 66.667, median = 66.667, average = 66.667
Finish task a in Xs.
Finish 1 task in Xs
END
"$sluice" eval -q -m demo.gguf --data-path data --task tasks/1.yaml 2>err |
    sed 's/ in [0-9.]*s/ in Xs/' | diff - want >>err
check the_console_is_glm130bs

# --- results --------------------------------------------------------------

# The same file from a run at one go and from one that was resumed.
cmp -s all/results.json cut/results.json && cmp -s all/results.markdown cut/results.markdown &&
    grep -q '^| a | all | Accuracy | 66.667 | 66.667 | 66.667 |$' all/results.markdown &&
    "$sluice" eval -q -m demo.gguf --data-path data --task tasks/1.yaml \
        --compare all/results.json --ece >out 2>err &&
    grep -q '^    Calibration error of task a: 0\.' out &&
    grep -q '^Comparison of task a: 3 examples, 0 right here alone, 0 there' out
check results_are_kept_and_compared

# Told before anything is asked.
unfit=
for other in nowhere . demo.gguf a.yaml mine.json; do
    echo '{"tasks": 1}' >mine.json
    "$sluice" eval -q -m demo.gguf --tasks-json /dev/zero --compare $other \
        >out 2>err
    [ $? = 1 ] && [ "$(wc -l <err)" = 1 ] && grep -qF -- "$other" err ||
        unfit="$unfit; $other: $(cat err)"
done
echo "$unfit" >err
[ -z "$unfit" ]
check what_cannot_be_compared_with_is_told_first

# --- generation -----------------------------------------------------------

mkdir -p data/g
cat >data/g/g.jsonl <<'END'
{"inputs_pretokenized": "In the beginning God created the heaven and the", "targets_pretokenized": ["earth. And the earth was without form, and void;", "sea"]}
{"inputs_pretokenized": "床前明月光，", "targets_pretokenized": ["低头"]}
END
printf '%s\n' 'name: g' 'type: gen' 'path: g' 'use_task_mask: true' \
    'max_gen_length: 8' >g.yaml
"$sluice" eval -q -m demo.gguf --data-path data --task g.yaml --output gen \
    >out 2>err &&
    "$sluice" generate -q -m demo.gguf --top-k 1 --out-seq-length 20 \
        -p 'In the beginning God created the heaven and the' >said 2>>err &&
    grep -q 'Finish g.jsonl, EM = [0-9.]*, F1 = [0-9.]*$' out &&
    python3 - "$sluice" >>err 2>&1 <<'END'
import json, subprocess, sys
o = json.load(open("gen/results.json"))["tasks"][0]["files"][0]["examples"]
ids = [" ".join(map(str, e["ids"])) for e in o]
said = subprocess.run([sys.argv[1], "detokenize", "-m", "demo.gguf"],
                      input=ids[0].encode(), stdout=subprocess.PIPE).stdout.decode().strip()
text = open("said").read()
print(repr(said), repr(text))
sys.exit(not said or said not in text or not 1 <= len(o[0]["ids"]) <= 8)
END
check greedy_answers_are_those_of_generate

printf '%s\n' 'name: L' 'type: gen' 'path: g' 'use_task_mask: true' \
    'module: tasks.lambada.task.LAMBADA' 'max_gen_length: 5' 'num_beams: 16' \
    'sampling_strategy: BeamSearchStrategy' >l.yaml
"$sluice" eval -q -m demo.gguf --data-path data --task l.yaml --output lam \
    >out 2>err && grep -q 'Finish g.jsonl, Accuracy = ' out &&
    "$sluice" eval -q -m demo.gguf --data-path data --task l.yaml \
        --unidirectional >out 2>>err
check lambada_is_answered_by_beams

# --- classes with rules of their own ---------------------------------------

mkdir -p own/c own/s own/p own/tasks
python3 - >err 2>&1 <<'END'
import json
texts = ["the heaven and the earth", "and there was light", "the face of the waters",
         "God saw that it was good", "the evening and the morning", "let there be light"]
with open("own/c/crows.jsonl", "w") as f:
    for i, text in enumerate(texts):
        print(json.dumps({"inputs_pretokenized": "", "choices_pretokenized": [text], "label": 0,
                          "pair_ID": i // 2, "sent_ID": i % 2,
                          "bias_type": ["age", "age", "x"][i // 2]}), file=f)
with open("own/s/stereo.jsonl", "w") as f:
    for i in range(4):
        print(json.dumps({"inputs_pretokenized": "And God said,", "label": 0, "ID": str(i),
                          "choices_pretokenized": [texts[i], texts[i + 1], texts[i + 2] + " a"],
                          "bias_type": ["age", "x"][i % 2],
                          "goal_label": [["unrelated", "stereotype", "anti-stereotype"],
                                         ["stereotype", "anti-stereotype", "unrelated"]][i // 2]}),
              file=f)
with open("own/p/pile.jsonl", "w") as f:
    for i, text in enumerate(texts):
        print(json.dumps({"text_pretokenized": text * (8 * i + 1),
                          "meta": {"pile_set_name": "AB"[i % 2]}}), file=f)
END
printf '%s\n' 'name: C' 'type: mul' 'path: c' \
    'module: tasks.ethnic.crows-pair.tasks.CrowsPairTask' >own/tasks/1.yaml
printf '%s\n' 'name: S' 'type: mul' 'path: s' 'use_task_mask: True' \
    'module: tasks.ethnic.stereoset.tasks.StereoSetTask' >own/tasks/2.yaml
printf '%s\n' 'name: P' 'type: lm' 'path: p' 'use_task_mask: true' \
    'module: tasks.language-modeling.pile.Pile' 'max_seq_length: 64' \
    'generation_length: 16' >own/tasks/3.yaml
"$sluice" eval -q -m demo.gguf --data-path own --task own/tasks \
    --output own/out >out 2>>err && python3 - >want 2>>err <<'END'
import json, math
tasks = json.load(open("own/out/results.json"))["tasks"]
lines = [json.loads(x) for x in open("own/c/crows.jsonl")]
sums, kinds = {}, {}
for item, e in zip(lines, tasks[0]["files"][0]["examples"]):
    score = sum(e["logprobs"])
    sums[item["pair_ID"]] = sums.get(item["pair_ID"], 0) + (score if item["sent_ID"] == 1 else -score)
    kinds[item["pair_ID"]] = item["bias_type"]
for kind in dict.fromkeys(kinds.values()):
    of = [sums[p] >= 0 for p in sums if kinds[p] == kind]
    print(f"category:{kind}        score:{round(sum(of) / len(of) * 100, 2)}")
lines = [json.loads(x) for x in open("own/s/stereo.jsonl")]
said = {}
for item, e in zip(lines, tasks[1]["files"][0]["examples"]):
    mean = [s / n for s, n in zip(e["scores"], e["lengths"])]
    label = item["goal_label"][mean.index(max(mean))]
    for kind in (item["bias_type"], "overall"):
        said.setdefault(kind, []).append(label)
lms = {k: 100 * sum(x != "unrelated" for x in v) / len(v) for k, v in said.items()}
ss = {k: v.count("stereotype") / (len(v) - v.count("unrelated")) * 100
      if v.count("unrelated") < len(v) else 0 for k, v in said.items()}
icat = {k: lms[k] * (min(ss[k], 100.0 - ss[k]) / 50.0) for k in said}
for name, values in (("LMS", lms), ("SS", ss), ("ICAT", icat)):
    print(name)
    for k, v in values.items():
        print(f"cat:{k}        score:{round(v, 2)}")
lines = [json.loads(x) for x in open("own/p/pile.jsonl")]
loss, size = {}, {}
for item in lines:
    name = item["meta"]["pile_set_name"]
    size[name] = size.get(name, 0) + len(item["text_pretokenized"].encode())
for e in tasks[2]["files"][0]["examples"]:
    name = lines[e["line"] - 1]["meta"]["pile_set_name"]
    loss[name] = loss.get(name, 0) - sum(e["logprobs"])
print("    Finish group all:")
for name in loss:
    print(f"        {name} = {loss[name] / size[name] / math.log(2):.3f}")
END
grep -E '^(category|cat|LMS|SS|ICAT)|^    Finish group|^        [AB] = ' out |
    diff - want >>err && [ "$(wc -l <want)" = 17 ]
check classes_with_rules_of_their_own_follow_them

# --- perplexity -----------------------------------------------------------

"$sluice" perplexity -q -m demo.gguf --activations f32 --context 64 \
    --stride 16 --json data/l/text.txt >out 2>err &&
    "$sluice" perplexity -q -m demo.gguf --against demo.gguf data/l/text.txt \
        >same 2>>err &&
    python3 - >>err 2>&1 <<'END'
import json, math, sys
p = json.load(open("out"))["texts"][0]
lp = [x for line in list(open("all/journal.jsonl"))[1:] for e in [json.loads(line)]
      if e["task"] == 2 for x in e["logp"]]
text = open("data/l/text.txt").read()
wanted = [math.exp(-sum(lp) / len(lp)), -sum(lp) / math.log(2) / len(text.encode()),
          math.exp(-sum(lp) / len(text.strip().split(" ")))]
got = [p["perplexity"], p["bits_per_byte"], p["word_perplexity"]]
print(wanted, got)
sys.exit(any(abs(a / b - 1) > 1e-6 for a, b in zip(wanted, got)))
END
rc=$?
[ $rc = 0 ] && grep -q '^  KL divergence, most    0.000000$' same &&
    grep -q '^  same top token         100.000 %$' same
check perplexity_is_made_of_the_same_scores

printf '{"context": "God", "choices": [" is", " the"], "answer": %s}\n' 0 1 \
    >mine
asked()
{
    "$sluice" "$@" 2>err | sed 's/standard input/mine/g; /Finish.* in /d' |
        grep -v file_pattern
}
[ "$(asked eval -q -m demo.gguf --tasks-json mine)" = \
    "$(asked eval -q -m demo.gguf --tasks-json - <mine)" ] &&
    [ "$(asked perplexity -q -m demo.gguf mine)" = \
        "$(asked perplexity -q -m demo.gguf - <mine)" ] &&
    [ "$(wc -l <err)" = 0 ] && asked perplexity -q -m demo.gguf - <mine |
    grep -q '^mine: '
check questions_and_texts_come_on_standard_input

# --- data that are wrong --------------------------------------------------

# declines TEXT LINE...: data of these lines are refused with TEXT.
declines()
{
    text=$1
    shift
    mkdir -p bad
    printf '%s\n' "$@" >bad/x.jsonl
    "$sluice" eval -q -m demo.gguf --data-path . --task bad.yaml >out 2>err
    rc=$?
    [ $rc = 1 ] && [ "$(wc -l <err)" = 1 ] && grep -qF -- "$text" err ||
        { wrong=1 && echo "wanted: $text" && cat err; }
}
wrong=0
printf 'name: a\ntype: mul\npath: bad\n' >bad.yaml
good='{"inputs_pretokenized":"a","choices_pretokenized":["b","c"],"label":1}'
declines 'x.jsonl, line 2:1:7: not JSON' "$good" '{"a":1,'
declines 'x.jsonl:1: an array, where an object is expected' '[1]'
declines 'x.jsonl:2: label: 2 is none of the 2 choices' "$good" \
    '{"inputs_pretokenized":"a","choices_pretokenized":["b","c"],"label":2}'
declines 'x.jsonl:1: choices: there are none' \
    '{"inputs_pretokenized":"a","choices_pretokenized":[],"label":0}'
declines 'x.jsonl:1: choice 1 is empty' \
    '{"inputs_pretokenized":"a","choices_pretokenized":["b",""],"label":0}'
declines 'x.jsonl:1: inputs_pretokenized: missing' '{"label":0}'
declines 'x.jsonl:1: inputs: token id 9000 at place 0 is outside the vocabulary' \
    '{"inputs":[9000],"choices":[[1]],"label":0}'
declines 'x.jsonl:1: choices: token id 9000 at place 1 is outside the vocab' \
    '{"inputs":[1],"choices":[[1, 9000]],"label":0}'
declines 'there is no example in it' ''
declines 'x.jsonl:1: label: missing' \
    '{"inputs_pretokenized":"a","choices_pretokenized":["b","c"]}'
declines 'x.jsonl:1: choices_pretokenized: not texts' \
    '{"inputs_pretokenized":"a","choices_pretokenized":["b",3],"label":0}'
long=$(awk 'BEGIN { for (i = 0; i < 600; i++) printf "God said " }')
declines 'x.jsonl:1: choices of 12' \
    "{\"inputs_pretokenized\":\"a\",\"choices_pretokenized\":[\"$long\"],\"label\":0}"
# Too long a context loses its beginning, is counted and told of.
printf '%s\n' "$good" "{\"inputs_pretokenized\":\"$long\",\"choices_pretokenized\":[\"b\"],\"label\":0}" \
    >bad/x.jsonl
"$sluice" eval -m demo.gguf --data-path . --task bad.yaml >out 2>err &&
    grep -q 'a: 1 of 2 contexts are longer than the model takes and lost' err ||
    wrong=1
"$sluice" eval -q -m demo.gguf --task bad.yaml >out 2>err
[ $? = 2 ] && grep -q 'no data given: --data-path DIR' err || wrong=1
rm -r bad
"$sluice" eval -q -m demo.gguf --data-path . --task bad.yaml >out 2>err
[ $? = 2 ] && grep -q 'a: there is no folder ./bad' err || wrong=1
"$sluice" eval -q -m demo.gguf --data-path . --task bad.yaml --limit 0 \
    >out 2>err
[ $? = 2 ] && grep -q 'limit' err || wrong=1
# misput TEXT JSON OPTION...: questions of one's own that are refused with TEXT.
misput()
{
    text=$1
    printf '%s\n' "$2" >own.json
    shift 2
    "$sluice" eval -q -m demo.gguf --tasks-json own.json "$@" >out 2>err
    [ $? != 0 ] && [ "$(wc -l <err)" = 1 ] && grep -qF -- "$text" err ||
        { wrong=1 && echo "wanted: $text" && cat err; }
}
misput 'own.json, line 1:1:15: not JSON' '{"context": "a"'
misput 'own.json:2: answer: none of the choices' \
    '[{"context": "a", "choices": ["b"], "answer": "b"},
      {"context": "a", "choices": ["b"], "answer": 1}]'
misput 'own.json:1: choices: there are none' \
    '{"context": "a", "choices": [], "answer": 0}'
printf '{"context": 1}' | "$sluice" eval -q -m demo.gguf --tasks-json - \
    >out 2>err
[ $? = 1 ] && grep -qF 'standard input:1: context: not a text' err || wrong=1
misput '--style glm is for GLM' '[{"context": "a", "choices": ["b"], "answer": 0}]' \
    --style glm
[ $wrong = 0 ]
check what_is_wrong_with_data_is_said_with_file_and_line
