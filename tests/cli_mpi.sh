#!/bin/sh
# 'sluice eval' as several ranks of MPI: the same results as one process has,
# also when one of them is killed.
source=$(cd "${SLUICE_SOURCE:-.}" && pwd)
sluice=${SLUICE:-./sluice}
case $sluice in
/*) ;;
*) sluice=$PWD/$sluice ;;
esac
file=$(dirname "$sluice")/sluice-mpi.so
if [ ! -e "$file" ]; then
    echo '1..0 # SKIP this sluice was built without MPI'
    exit 0
fi
# The launcher of the same MPI.
if ldd "$file" | grep -q libmpich; then
    launcher=$(command -v mpiexec.mpich || command -v mpiexec)
    # As if each rank had a host of its own, whose end is no other's.
    options='-launcher fork -disable-auto-cleanup
        -hosts 127.0.0.1:1,127.0.0.2:1,127.0.0.3:1,127.0.0.4:1'
else
    launcher=$(command -v mpirun.openmpi || command -v mpirun)
    # Root, on fewer cores than ranks.
    options='--allow-run-as-root --oversubscribe'
fi
if [ -z "$launcher" ]; then
    echo '1..0 # SKIP there is no mpirun here'
    exit 0
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-mpi-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
export CUDA_VISIBLE_DEVICES='' # runs that name no device see no GPU
# shellcheck source=tests/demo_model.sh
. "$source/tests/demo_model.sh"
cd "$work" || exit 99
echo 1..7

mkdir -p data/c data/g tasks
python3 - <<'END'
import json
words = """In the beginning God created the heaven and the earth And the earth was without form and
void and darkness was upon the face of the deep""".split()
def text(at, n):
    return " ".join(words[(at + k * (at % 5 + 1)) % len(words)] for k in range(n))
for name, n in (("a", 40), ("b", 24)):
    with open(f"data/c/{name}.jsonl", "w") as f:
        for i in range(n):
            print(json.dumps({"inputs_pretokenized": text(i, 4 + i % 9), "label": i % 3,
                              "choices_pretokenized": [text(i + k, 1 + (i + k) % 3)
                                                       for k in range(3)]}), file=f)
with open("data/g/g.jsonl", "w") as f:
    for i in range(6):
        print(json.dumps({"inputs_pretokenized": text(i, 6),
                          "targets_pretokenized": [text(i, 2)]}), file=f)
END
printf 'name: a\ntype: mul\npath: c\n' >tasks/1.yaml
printf '%s\n' 'name: g' 'type: gen' 'path: g' 'use_task_mask: true' \
    'max_gen_length: 4' >tasks/2.yaml

# evaluate N OPTION...: as N ranks; 0: no launcher.
evaluate()
{
    ranks=$1
    shift
    set -- eval -q -m demo.gguf --data-path data --task tasks --ram 100M "$@"
    if [ "$ranks" = 0 ]; then
        "$sluice" "$@"
    else
        # shellcheck disable=SC2086 # words on purpose
        "$launcher" $options -np "$ranks" "$sluice" "$@"
    fi
}
timeless()
{
    sed 's/ in [0-9.]*s/ in Xs/' "$1"
}

evaluate 0 --output alone >alone.log 2>err &&
    evaluate 4 --output four >four.log 2>>err &&
    cmp alone/results.json four/results.json 2>>err &&
    timeless alone.log >want && timeless four.log | diff want - >>err &&
    [ "$(wc -l <four/journal.jsonl)" = "$(wc -l <alone/journal.jsonl)" ]
check four_ranks_find_what_one_process_finds

# Lines of a journal that may not be there yet.
lines()
{
    { [ ! -e "$1" ] || cat "$1"; } | wc -l
}

# A rank that is killed as soon as there are some answers.
for rank in 1 0; do
    rm -rf killed
    evaluate 3 --output killed --pass-positions 64 >killed.log 2>err &
    job=$!
    while kill -0 $job 2>/dev/null; do
        [ "$(lines killed/journal.jsonl)" -lt 5 ] || break
        sleep 0.02
    done
    for pid in $(pgrep -f "^$sluice eval .*--output killed "); do
        if tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null |
            grep -qE "^(OMPI_COMM_WORLD_RANK|PMI_RANK)=$rank$"; then
            kill -9 "$pid"
        fi
    done
    wait $job
    echo "# rank $rank was killed: exit status $?," \
        "$(lines killed/journal.jsonl) lines of journal"
    [ -e killed/results.json ] ||
        evaluate 3 --output killed --resume >killed.log 2>err
    cmp alone/results.json killed/results.json 2>>err &&
        [ "$(tail -n +2 killed/journal.jsonl | cut -d, -f1-3 | sort -u |
            wc -l)" = 70 ]
    check "a_job_whose_rank_${rank}_was_killed_finds_the_same"
done

evaluate 2 --dry-run >out 2>err && [ "$(wc -l <out)" = 4 ]
check one_rank_alone_prints

# Other commands, and a process that no launcher started, bring no MPI.
! ldd "$sluice" | grep -q libmpi
check the_program_itself_brings_no_mpi

# Nor do those that were started by another MPI's launcher, or by Slurm's without
# one: each would do all of the work.
for name in SLURM_STEP_NUM_TASKS OMPI_COMM_WORLD_SIZE; do
    if env $name=2 "$sluice" eval -q -m demo.gguf --data-path data --task tasks \
        --output strange >out 2>err || [ -e strange ] || [ "$(wc -l <err)" != 1 ]; then
        break
    fi
    grep -q '^sluice: 2 processes were started here that do not know' err || break
    echo "$name" >>refused
done
[ "$(wc -l <refused)" = 2 ]
check processes_that_do_not_know_of_each_other_are_refused

mkdir apart && cp "$sluice" apart && head -c 3000 "$file" >apart/sluice-mpi.so
sluice=$work/apart/sluice
! evaluate 1 --output apart/out >out 2>err && grep -q 'is cut off' err &&
    rm apart/sluice-mpi.so &&
    ! evaluate 1 --output apart/out >out 2>err &&
    grep -q 'sluice-mpi.so.* is neither' err
check a_file_that_is_not_whole_or_not_there_is_told_of
