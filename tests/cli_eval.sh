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
echo 1..3

# --- task files -----------------------------------------------------------

shared=${SLUICE_SHARED:-$source/../shared}/data/glm130b-tasks/tasks
if [ -d "$shared" ]; then
    "$sluice" eval --dry-run --task "$shared" --data-path none >out 2>err &&
        [ "$(grep -c '^    Task .* loaded from config .*\.yaml$' out)" = 37 ] &&
        [ "$(head -n 1 out)" = '> Loading task configs' ] &&
        [ "$(tail -n 1 out)" = '> Successfully load 37 tasks' ] && [ ! -s err ]
    check all_of_glm130bs_task_files_are_read
else
    check all_of_glm130bs_task_files_are_read # SKIP: not here
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
refuses 'unidirectional needs use_task_mask' 'name: A' 'type: gen' 'path: d' \
    'unidirectional: true'
"$sluice" eval --dry-run --task nowhere >out 2>err
[ $? = 1 ] && grep -q '^sluice: nowhere: cannot open it: No such' err || wrong=1
"$sluice" eval --task t/below/a.yaml -m x >out 2>err
[ $? = 2 ] || wrong=1
[ $wrong = 0 ]
check what_is_wrong_with_a_task_file_is_said_with_line_and_column
