#!/bin/sh
# A GPU in 'sluice generate', 'plan' and 'devices', on the demo model and a
# simulated device: the CPU's texts under every budget, and one line for
# whatever can go wrong with a GPU.
source=${SLUICE_SOURCE:-.}
sluice=${SLUICE:-./sluice}
if ! "$sluice" devices 2>/dev/null | grep -q '^cuda:0  cudasim'; then
    echo "1..0 # SKIP this sluice has no simulated GPU (--with-cuda=sim)"
    exit 0
fi
if grep -q '^#define SL_SANITIZED' "$(dirname "$sluice")/config.h" 2>/dev/null
then
    echo "1..0 # SKIP a sanitizer slows each simulated thread; t_gpu goes" \
        "through the same passes"
    exit 0
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-gpu-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
tab=$(printf '\t')
unset NO_COLOR
# shellcheck source=tests/demo_model.sh
. "$source/tests/demo_model.sh"

# A minute is far more than any of them takes; a hang is exit code 124.
generate()
{
    timeout 60 "$sluice" generate -m "$model" --ram 96M "$@" 2>"$work/err"
}

# On the GPU alone; on the CPU with inputs that are not rounded to INT8.
gpu()
{
    generate -q --device cuda --engine gpu --top-k 1 "$@"
}
cpu()
{
    generate -q --device cpu --activations f32 --kv f16 --top-k 1 "$@"
}

# one_line TEXT...: exit code 1 came with one line on standard error that has
# every TEXT in it.
one_line()
{
    [ "$code" = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] || return 1
    for text; do
        grep -qF -- "$text" "$work/err" || return 1
    done
}

# Two texts whose every choice is clear, and two blanks.
same=true
while IFS="$tab" read -r length text; do
    want=$(cpu --out-seq-length "$length" -p "$text")
    [ -n "$want" ] && [ "$(gpu --out-seq-length "$length" -p "$text")" = \
        "$want" ] || same=false
done <<END
13${tab}床前明月光，
14${tab}To every thing there is a season,
24${tab}And God said, Let there be [MASK]: and there was [MASK].
END
$same
check greedy_texts_and_blanks_are_those_of_the_cpu

set -- --sampling-strategy BeamSearchStrategy --num-beams 3 --deterministic \
    --print-all-beams --out-seq-length 12 -p '床前明月光，'
want=$(cpu "$@")
[ "$(printf '%s\n' "$want" | wc -l)" -ge 3 ] && [ "$(gpu "$@")" = "$want" ]
check beams_are_those_of_the_cpu

cat >"$work/queries" <<END
one${tab}To every thing there is a season,
two${tab}红豆生[MASK]，春来发几枝。
three${tab}白日依山尽，
END
for device in cpu gpu; do
    $device --with-id --input-source "$work/queries" --batch 3 \
        --output-path "$work/$device" --out-seq-length 16 >/dev/null || break
done
[ "$(ls "$work/gpu" | wc -l)" = 3 ] && diff -r "$work/cpu" "$work/gpu"
check batches_are_those_of_the_cpu

# With the least memory of a batch its cache waits in RAM.
set -- --with-id --input-source "$work/queries" --batch 3 --output-path \
    "$work/least" --out-seq-length 16
gpu "$@" --vram 1M
vram=$(sed -n 's/.*the least that works here is .*(--vram \([0-9]*\)K).*/\1/p' \
    "$work/err")
generate --device cuda --engine gpu --top-k 1 --stats --vram "${vram}K" "$@" \
    >"$work/out"
[ $? = 0 ] && diff -r "$work/cpu" "$work/least" &&
    grep -q '^GPU .*; the KV cache of [1-9]* of its [1-9]* layers waits in RAM$' \
        "$work/err" &&
    "$sluice" plan -m "$model" --device cuda --engine gpu --vram "${vram}K" \
        --batch 3 --out-seq-length 16 --prompt-length 12 >"$work/out" &&
    grep -q '^  KV cache .*f16; that of [1-9].* layers waits in RAM (' \
        "$work/out"
check a_batch_whose_cache_waits_in_ram_says_the_same

# --- budgets

set -- --out-seq-length 7 -p 'In the'
want=$(gpu "$@")
gpu --vram 1M "$@" >"$work/out"
code=$?
least=$(sed -n 's/.*the least that works here is .*(--vram \([0-9]*\)K).*/\1/p' \
    "$work/err")
one_line '--vram 1.0 MiB is too small for cudasim 0' && [ "$least" -gt 1000 ] &&
    [ ! -s "$work/out" ]
check a_budget_too_small_for_the_gpu_is_refused_with_the_least

gpu --vram $((least - 256))K "$@" >"$work/out"
code=$?
one_line "(--vram ${least}K)" && [ -n "$want" ] &&
    [ "$(gpu --vram "${least}K" "$@")" = "$want" ] &&
    [ "$(gpu --vram auto "$@")" = "$want" ] &&
    [ "$(gpu --bminf-memory-limit 1 "$@")" = "$want" ]
check every_budget_from_the_least_on_gives_the_same_text

# What is planned for is all that is taken: a device with no more will do.
[ "$(CUDASIM_MEMORY="${least}K" gpu --vram "${least}K" "$@")" = "$want" ] ||
    [ "$(CUDASIM_MEMORY=$((least + 1024))K gpu --vram "${least}K" "$@")" = \
        "$want" ]
check no_more_than_the_budget_is_taken

[ "$(gpu --ram least "$@")" = "$want" ]
check least_ram_and_a_gpu_go_together

# --- engines and devices

generate --device cuda --engine gpu --top-k 1 --stats "$@" >"$work/out"
[ $? = 0 ] && grep -q '^sluice: .* of its weights stay in VRAM' "$work/err" &&
    grep -q '^GPU  *cudasim 0: .* of a budget of .* weights$' "$work/err" &&
    grep -q '^copies  *[1-9].* to the GPU at .* GB/s' "$work/err" &&
    grep -q '^floor' "$work/err"
check statistics_tell_of_the_gpu

generate --device cuda --engine gpu --top-k 1 -q --json "$@" >"$work/out"
[ $? = 0 ] && grep -q '"bytes_copied":[1-9]' "$work/out" &&
    grep -q '"device":"cudasim 0"' "$work/out"
check json_tells_of_the_gpu

generate --device cuda --top-k 1 -q "$@" >"$work/out" && [ -s "$work/out" ] &&
    generate --engine cpu --activations f32 --kv f16 --top-k 1 -q --json "$@" \
        >"$work/out" &&
    grep -q '"bytes_copied":0' "$work/out" &&
    grep -q '"device":"cpu"' "$work/out"
check the_plan_or_the_user_divides_the_work

generate --top-k 1 "$@" >"$work/out" && ! grep -q 'GPU' "$work/err" &&
    generate --top-k 1 --vram 1G "$@" >"$work/out" &&
    grep -q '^sluice: no GPU is used: .*simulated' "$work/err"
check a_simulated_gpu_is_used_only_when_asked_for

for args in '--device cuda --engine cpu' '--device cpu --engine gpu' \
    '--device gpu' '--device cuda:' '--device cuda:x' '--device cuda:-1' \
    '--vram 0' '--vram x' '--bminf-memory-limit 0' \
    '--bminf-memory-limit 1.5' '--engine cuda'; do
    # shellcheck disable=SC2086
    generate $args "$@" >"$work/out"
    [ $? = 2 ] && [ ! -s "$work/out" ] || break
    args=
done
[ -z "$args" ]
check wrong_usage_exits_with_2

gpu --device cuda:99 "$@" >"$work/out"
code=$?
one_line 'there is no GPU 99'
check a_gpu_that_is_not_there_is_told

# refused ENVIRONMENT TEXT...: as the environment makes the device, no run.
refused()
{
    settings=$1
    shift
    env "$settings" timeout 60 "$sluice" generate -m "$model" --ram 96M -q \
        --device cuda --out-seq-length 14 -p And >"$work/out" 2>"$work/err"
    code=$?
    one_line "$@" && [ ! -s "$work/out" ]
}
refused CUDASIM_DEVICES=0 'no GPU that it may use' &&
    refused CUDASIM_DRIVER=11040 'the NVIDIA driver is too old' &&
    refused CUDASIM_CC=6.1 'compute capability 6.1' 7.5 &&
    refused CUDASIM_MEMORY=256K cudasim
check a_device_that_cannot_be_used_is_one_line

# A gigabyte that another program has is not the driver's own.
[ "$(CUDASIM_MEMORY=2G CUDASIM_OTHERS=1G gpu --vram 512M "$@")" = "$want" ]
check memory_that_others_have_is_not_counted

# What the context has is known to the next run of a process, one after the other
# and both at once; and where there are two devices each has one.
CUDASIM_MEMORY=2G CUDASIM_OTHERS=1G timeout 60 "$sluice" bench -m "$model" \
    --ram 96M --device cuda --engine gpu --vram 256M,257M --prompt 1 --gen 1 \
    --repeat 1 --json >"$work/out" 2>"$work/err" &&
    [ "$(grep -c '"vram_bytes"' "$work/out")" = 4 ]
check bench_counts_what_the_driver_has_in_every_run

printf 'In the beginning' >"$work/text"
set -- perplexity -m "$model" --ram 192M --against "$model" --json "$work/text"
against()
{
    timeout 60 "$sluice" "$@" --device cuda --engine gpu --vram 512M \
        >"$work/out" 2>"$work/err" && grep -q '"same_top": 1' "$work/out"
}
CUDASIM_MEMORY=2G CUDASIM_OTHERS=1G against "$@" && cp "$work/out" "$work/one" &&
    CUDASIM_DEVICES=2 against "$@" && cmp "$work/out" "$work/one"
check two_models_share_a_device_or_have_one_each
set -- --out-seq-length 7 -p 'In the'

echo kept >"$work/report"
for device in bogus cuda: cuda:1x; do
    sh "$source/bench/gpu-check" --device $device --build "$work/build" \
        --report "$work/report" 2>"$work/err"
    [ $? = 2 ] && grep -q "$device" "$work/err" && [ ! -e "$work/build" ] &&
        [ "$(cat "$work/report")" = kept ] || break
    device=
done
[ -z "$device" ]
check gpu_check_refuses_a_device_before_it_writes

# It ends with its page where nothing can be done, and names what was not. (Nothing
# is built for that.)
mkdir -p "$work/built" && printf 'all:\n%%:\n\t@:\n' >"$work/built/Makefile" &&
    cp "$sluice" "$work/built/sluice" &&
    CUDASIM_DEVICES=0 sh "$source/bench/gpu-check" --sim --build "$work/built" \
        --report "$work/report" >"$work/out" 2>&1
[ $? = 1 ] && cmp "$work/out" "$work/report" &&
    grep -q '^  FAILED: devices: no GPU: ' "$work/report" &&
    grep -q '^  not run: kernel tests, .* golden tests' "$work/report" &&
    grep -q '^    .* a mixture$' "$work/report" &&
    [ "$(sed -n '$s/; the report is .*//p' "$work/report")" = \
        'gpu-check: 1 passed, 1 failed' ]
check gpu_check_ends_with_its_page_whatever_fails

# What gpu-check ends with, of its programs' own output; weights are the largest of
# what lies on the device.
page="$source/bench/gpu-page"
if [ -x "$(dirname "$sluice")/bench_cuda" ]; then
    "$(dirname "$sluice")/bench_cuda" 0 2064 128 1 "$work/lines" >"$work/out"
else
    printf 'its memory, read and written\t32\t29\tGB/s\n' >"$work/lines"
fi
printf '%s\t%s\t%s\t%s\n' 'int4 128, 1 positions' 900 720 GB/s \
    'int4 128, 256 positions' 64 16 TFLOP/s \
    'int4 128, 256 positions in runs' 64 48 TFLOP/s >>"$work/lines"
echo '{"step": "one step"}' >"$work/bench"
"$sluice" bench -m "$model" --device cpu --prompt 1 --gen 1 --repeat 1 --json \
    >>"$work/bench" 2>"$work/err" &&
    sh "$page" table "$work/lines" "$work/bench" yes >"$work/out" &&
    grep -Eq '^its memory, read and written +32 +[0-9.]+ +[0-9]+ %  GB/s$' \
        "$work/out" &&
    grep -A 2 '^one step: demo f16: tok/s and share of the floor$' \
        "$work/out" >"$work/err" &&
    grep -Eq '^ {22} +prompt 1 +tokens$' "$work/err" &&
    grep -Eq '^CPU alone +[0-9.]+ +[0-9]+% +[0-9.]+ +[0-9]+%$' "$work/err" &&
    { [ ! -x "$(dirname "$sluice")/bench_cuda" ] ||
        grep -Eq '^a launch, on the device +- +[0-9.]+ +-  us$' "$work/out"; } &&
    grep -Eq '^int4 128 .* 720 80%  .* 16 25%\*$' "$work/out" &&
    grep -Eq '^int4 128, runs +48 75%\*$' "$work/out" &&
    [ "$(wc -L <"$work/out")" -le 80 ] &&
    grep -q "^text equal to the CPU's  *yes$" "$work/out" &&
    ! sh "$page" table "$work/none" "$work/bench" 2>"$work/err" &&
    grep -q none "$work/err"
check gpu_check_sums_up_on_a_page

"$sluice" plan -m "$model" --device cuda --json >"$work/plan" 2>"$work/err" &&
    "$sluice" devices --json >"$work/devices" &&
    sh "$page" machine "$work/plan" "$work/devices" >"$work/machine" &&
    grep -q '"gpu_stage_s": 0*4.3' "$work/machine" &&
    grep -q '"pcie_latency_s": ' "$work/machine" &&
    "$sluice" plan --machine "$work/machine" --preset glm-10b >"$work/out" &&
    grep -q 'on cudasim 0 with .* of RAM and 1008 MiB of VRAM' "$work/out" &&
    ! sh "$page" machine "$work/bench" "$work/devices" >"$work/out"
check gpu_check_writes_a_machine_to_plan_for

# --- plan and devices

plan()
{
    "$sluice" plan -m "$model" --ram 96M --engine gpu "$@" 2>"$work/err"
}
plan --vram 64M >"$work/out" && grep -q '^Memory of the GPU (cudasim 0)' \
    "$work/out" && grep -q 'V in VRAM' "$work/out" &&
    grep -q '^  least for all on the GPU' "$work/out" &&
    plan --vram 64M --json >"$work/out" && grep -q '"vram": {' "$work/out" &&
    grep -q '"prefill_from"' "$work/out" && grep -q '"vram",*$' "$work/out"
check the_plan_shows_the_memory_of_the_gpu

plan --vram 64M >"$work/out" && grep -q '(PCIe) .*/s' "$work/out" &&
    grep -q '^  VRAM, .*/s' "$work/out" &&
    grep -q ' TOP/s  by its kind$' "$work/out" &&
    grep -q '^  launches of a stage .* 43.0 us  by its kind$' "$work/out" &&
    grep -q '^  a hand-over .* 10.0 us  by its kind$' "$work/out" &&
    [ "$(grep -c '^    expected ' "$work/out")" = 2 ] &&
    plan --vram 64M --json >"$work/out" &&
    grep -q '"gpu_operations_per_s": [1-9]' "$work/out" &&
    grep -q '"pcie_latency_s": ' "$work/out" &&
    [ "$(grep -c '"expected_seconds": .*[1-9]' "$work/out")" = 2 ]
check the_plan_shows_the_rates_of_the_gpu_and_what_is_expected

"$sluice" devices >"$work/out" && grep -q 'memory .* free$' "$work/out" &&
    grep -q 'compute capability *8.6' "$work/out" &&
    "$sluice" devices --json >"$work/out" &&
    grep -q '"device": "cuda:0"' "$work/out" &&
    grep -q '"usable": true' "$work/out" &&
    CUDASIM_DEVICES=2 "$sluice" devices | grep -q '^cuda:1  cudasim 1$' &&
    [ "$(CUDASIM_DEVICES=0 "$sluice" devices | grep -c '^no GPU: ')" = 1 ]
check devices_are_listed

# --- the prompt kept

gpu --prompt-cache "$work/kept" "$@" >"$work/out" &&
    [ "$(cat "$work/out")" = "$want" ] && [ "$(wc -c <"$work/kept")" -gt 1000 ] &&
    generate --device cuda --engine gpu --top-k 1 --stats \
        --vram "$((least + 1024))K" --prompt-cache "$work/kept" "$@" \
        >"$work/out" &&
    [ "$(cat "$work/out")" = "$want" ] &&
    grep -q 'positions from the prompt cache' "$work/err"
check a_prompt_whose_keys_are_on_the_gpu_is_kept

generate --device cpu --prompt-cache "$work/kept" "$@" >"$work/out" &&
    grep -q 'it is replaced' "$work/err"
check the_cpu_does_not_take_the_prompt_of_the_gpu

# --- trace

# spans N: how many spans track N of the trace has.
spans()
{
    grep -cE "\"ph\":\"[bX]\",\"pid\":1,\"tid\":$1," "$work/trace.json"
}
# track NAME: its number.
track()
{
    sed -n "s/.*\"tid\":\([0-9]*\),\"args\":{\"name\":\"$1\"}.*/\1/p" \
        "$work/trace.json"
}
gpu --vram "$((least + 1024))K" --trace "$work/trace.json" "$@" >"$work/out" &&
    [ "$(spans "$(track 'disk reads')")" -gt 5 ] &&
    [ "$(spans "$(track 'copies to GPU')")" -gt 20 ] &&
    [ "$(spans "$(track 'GPU kernels')")" -gt 20 ]
check disk_copies_and_kernels_have_their_own_tracks

# --- what goes wrong on the way

# A little more than what is needed, of which less is given. (The first two
# allocations measure copies.)
CUDASIM_FAIL=cudaMalloc:3:2 generate --device cuda --engine gpu --top-k 1 \
    --vram 128M "$@" >"$work/out"
[ $? = 0 ] && [ "$(cat "$work/out")" = "$want" ] &&
    grep -q 'does not give the .* that were planned for' "$work/err"
check a_device_that_gives_less_is_planned_with_anew
! grep -q 'does not give the 128.0 MiB' "$work/err"
check it_is_told_what_was_planned_and_not_granted

# A kernel cannot be put on a device that is gone, or its grid is refused.
CUDASIM_FAIL=cudaLaunchKernel:9:719 gpu "$@" >"$work/out"
code=$?
one_line 'the device is lost (CUDA error 719)' && ! grep -q grid "$work/err" &&
    { CUDASIM_FAIL=cudaLaunchKernel:9:9 gpu "$@" >"$work/out"
      code=$?; } && one_line 'refused a grid of'
check a_launch_that_fails_tells_why

CUDASIM_PIN=0 generate --device cuda --engine gpu --top-k 1 "$@" >"$work/out"
[ $? = 0 ] && [ "$(cat "$work/out")" = "$want" ] &&
    [ "$(grep -c ' pin ' "$work/err")" = 1 ] &&
    grep -q 'ulimit -l' "$work/err" && ! grep -q -- '--vram' "$work/err"
check memory_that_cannot_be_pinned_is_told_and_used

# Whatever call fails, out of memory or the device lost: the text or one line,
# never a hang.
for call in 2:2 7:719 15:2 28:719 50:2 90:719 160:2 300:719 500:719; do
    CUDASIM_FAIL=any:$call gpu --out-seq-length 6 -p And >"$work/out"
    code=$?
    [ $code = 0 ] || one_line '' || break
    call=
done
[ -z "$call" ] || { echo "# call $call: exit code $code"; false; }
check any_call_may_fail

# In the midst of a text: what there is of it ends its line before the error.
set -- -m "$model" --ram 96M -q --device cuda --engine gpu --top-k 1 \
    --out-seq-length 12 -p 'In the'
CUDASIM_FAIL=cudaLaunchKernel:250:719 timeout 60 "$sluice" generate "$@" \
    >"$work/out" 2>&1
[ $? = 1 ] && [ "$(wc -l <"$work/out")" = 2 ] &&
    sed -n 1p "$work/out" | grep -q '^In the' &&
    sed -n 2p "$work/out" | grep -q '^sluice: '
check a_text_that_is_cut_ends_its_line_before_the_error

# And its colour, on a terminal.
if script -qec true /dev/null >/dev/null 2>&1; then
    CUDASIM_FAIL=cudaLaunchKernel:250:719 script -qec "echo 'In the [gMASK]' |
        '$sluice' generate -m '$model' --ram 96M -q --device cuda \
        --engine gpu --top-k 1 --out-seq-length 12" /dev/null </dev/null |
        tr -d '\r' >"$work/terminal"
    grep -q "$(printf '^Output: In the \033\\[4m.*\033\\[0m')" \
        "$work/terminal" && tr '\n' ' ' <"$work/terminal" |
        grep -q ' sluice: .*is lost'
    check and_its_colour
fi

echo "1..$n"
