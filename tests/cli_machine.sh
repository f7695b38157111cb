#!/bin/sh
# sluice plan --machine: what GLM-130B does on machines that are not there.
# Virtual time is exact, so it can be asserted.
sluice=${SLUICE:-./sluice}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-machine-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
n=0

# check NAME: whether what was run before it succeeded; else shows $work/log.
check()
{
    rc=$?
    n=$((n + 1))
    if [ $rc = 0 ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        sed 's/^/# /' "$work/log"
    fi
}

# number FILE ROW KEY: a number of one row of the JSON.
number()
{
    awk -v row="\"$2\":" -v key="\"$3\":" '
        $1 == row { inside = 1 }
        inside && $1 == key { sub(/,$/, "", $2); print $2; exit }' "$1"
}

# holds NUMBER OP LIMIT
holds()
{
    echo "$1 $2 $3" >>"$work/log"
    awk -v a="$1" -v b="$3" -v op="$2" 'BEGIN {
        exit !(a != "" && (op == ">=" ? a >= b : a <= b)) }'
}

has_tracks()
{
    for track in 'disk reads' stages 'copies to GPU' 'GPU kernels'; do
        grep -q "\"name\":\"$track\"" "$1" || return
    done
}

# The plan promises what the run then takes, within a tenth.
promised()
{
    for row in decode prefill_1024 batch_32; do
        s=$(number "$1" $row seconds_per_pass)
        e=$(number "$1" $row expected_seconds)
        holds "$e" '>=' "$(awk -v s="$s" 'BEGIN { print s * 0.9 }')" &&
            holds "$e" '<=' "$(awk -v s="$s" 'BEGIN { print s * 1.1 }')" ||
            return 1
    done
}

echo 1..33
: >"$work/log"
"$sluice" plan --machine rtx3090-ddr5 --vram 22G --ram 58G \
    --preset glm-130b --quant int4-g128 --json >"$work/b.json" 2>"$work/log"
check glm_130b_is_rehearsed_on_a_3090
holds "$(number "$work/b.json" decode efficiency)" '>=' 0.97 &&
    holds "$(number "$work/b.json" decode efficiency)" '<=' 1
check a_steady_decode_is_within_3_percent_of_the_floor
holds "$(number "$work/b.json" decode tokens_per_s)" '>=' 1.3
check it_decodes_1_3_tokens_a_second
holds "$(number "$work/b.json" prefill_1024 efficiency)" '>=' 0.97 &&
    holds "$(number "$work/b.json" prefill_1024 efficiency)" '<=' 1 &&
    holds "$(number "$work/b.json" prefill_1024 seconds_per_pass)" '<=' 6
check a_prompt_of_1024_takes_less_than_6_seconds
holds "$(number "$work/b.json" batch_32 tokens_per_s)" '>=' 15
check a_batch_of_32_gives_15_tokens_a_second
promised "$work/b.json"
check the_plan_promises_what_the_run_takes

# Prompts and steady decoding on the other machines. What limits a prefill on a
# 4090 is the GPU, behind the embedding, the last copies and its own launches.
n_met=0
for machine in rtx3090-ddr4 rtx3090-ddr5 rtx4090-ddr5 rtx3060-ddr4-nvme; do
    "$sluice" plan --machine $machine --preset glm-130b --json \
        >"$work/$machine.json" 2>"$work/log" &&
        holds "$(number "$work/$machine.json" decode efficiency)" '>=' 0.97 &&
        holds "$(number "$work/$machine.json" prefill_1024 efficiency)" \
            '>=' 0.97 &&
        promised "$work/$machine.json" || break
    n_met=$((n_met + 1))
done
[ $n_met = 4 ]
check all_four_machines_are_within_3_percent_of_the_floor
holds "$(number "$work/rtx3060-ddr4-nvme.json" decode tokens_per_s)" '>=' 0.2
check a_3060_with_32_gb_decodes_a_token_in_5_seconds

# An equal second disk.
"$sluice" plan --machine rtx3060-ddr4-nvme --preset glm-130b \
    --mirror-rate 6600MB --json >"$work/two.json" 2>"$work/log" &&
    holds "$(number "$work/two.json" decode tokens_per_s)" '>=' \
        "$(number "$work/rtx3060-ddr4-nvme.json" decode tokens_per_s |
            awk '{ print 1.9 * $1 }')" &&
    holds "$(number "$work/two.json" decode efficiency)" '>=' 0.97 &&
    promised "$work/two.json"
check a_second_disk_gives_nearly_twice_the_tokens

"$sluice" plan --machine rtx3060-ddr4-nvme --preset glm-130b --accept 0.6 \
    --draft-max 5 --json >"$work/guess.json" 2>"$work/log" &&
    holds "$(number "$work/guess.json" guessed tokens_per_s)" '>=' 0.45 &&
    holds "$(number "$work/guess.json" guessed tokens_per_pass)" '<=' 2.5 &&
    holds "$(number "$work/guess.json" guessed expected_seconds)" '>=' \
        "$(number "$work/guess.json" decode seconds_per_pass)"
check guesses_that_are_right_in_3_of_5_double_that

# Questions share what is read of the disk.
"$sluice" plan --machine rtx3060-ddr4-nvme --preset glm-130b --eval 8000000 \
    --prompt-length 80 --json >"$work/eval.json" 2>"$work/log" &&
    holds "$(number "$work/eval.json" eval_pass efficiency)" '>=' 0.95 &&
    holds "$(number "$work/eval.json" evaluation one_by_one_seconds)" '>=' \
        "$(number "$work/eval.json" evaluation seconds | awk '{ print 4 * $1 }')"
check questions_of_80_tokens_take_a_quarter_of_what_they_take_one_by_one

# 14 thousand questions of 600 tokens.
"$sluice" plan --machine rtx3090-ddr5 --preset glm-130b --eval 8400000 \
    --prompt-length 600 --json >"$work/eval.json" 2>"$work/log" &&
    holds "$(number "$work/eval.json" evaluation seconds)" '<=' 39600
check mmlu_takes_11_hours_on_a_3090

# A pass that waits for four guesses of the high planes, which take some time.
"$sluice" plan --machine rtx3090-ddr5 --preset 7b --quant int8-planes \
    --vram 1G --ram 4G --accept 0.95 --draft-max 4 --json \
    --trace "$work/planes.trace" >"$work/planes.json" 2>"$work/log" &&
    one=$(number "$work/planes.json" decode seconds_per_pass) &&
    guess=$(number "$work/planes.json" guessed guess_seconds) &&
    holds "$guess" '>=' 0.001 && holds "$guess" '<=' "$one" &&
    holds "$(number "$work/planes.json" guessed seconds_per_pass)" '>=' \
        "$(echo "$one $guess" | awk '{ print 0.99 * $1 + 4 * $2 }')" &&
    holds "$(number "$work/planes.json" guessed tokens_per_s)" '>=' \
        "$(number "$work/planes.json" decode tokens_per_s)"
check two_planes_guess_for_themselves_in_time_of_their_own

# Those of the next pass, and the word before them, while this one waits.
track=$(sed -n 's/.*"tid":\([0-9]*\),"args":{"name":"guesses ahead"}.*/\1/p' \
    "$work/planes.trace")
holds "$(number "$work/planes.json" guessed_ahead tokens_per_s)" '>=' \
    "$(number "$work/planes.json" guessed tokens_per_s)" &&
    holds "$(number "$work/planes.json" guessed_ahead ahead)" '>=' 2 &&
    holds "$(number "$work/planes.json" guessed_ahead ahead)" '<=' 5 &&
    holds "$(number "$work/planes.json" guessed_ahead discarded)" '>=' 0.1 &&
    [ "$(grep -c "\"ph\":\"X\",\"pid\":1,\"tid\":$track," \
        "$work/planes.trace")" -gt 64 ]
check guesses_go_on_while_a_pass_waits_and_the_trace_shows_it

"$sluice" plan --machine rtx3090-ddr5 --ram 58G --vram 22G --preset glm-130b \
    --kv int8 --json >"$work/int8.json" 2>"$work/log" &&
    holds "$(number "$work/int8.json" batch_32 tokens_per_s)" '>=' 20
check a_batch_of_32_with_int8_keys_gives_20_tokens_a_second

# The mix beats what either engine does alone.
"$sluice" plan --machine rtx3090-ddr4 --preset glm-130b --json \
    --engine cpu >"$work/cpu.json" 2>"$work/log"
holds "$(number "$work/rtx3090-ddr4.json" decode tokens_per_s)" '>=' \
    "$(number "$work/cpu.json" decode tokens_per_s)" &&
    promised "$work/cpu.json"
check both_engines_are_faster_than_the_cpu_alone

cat >"$work/box.json" <<'END'
{"name": "box", "disk_bytes_per_s": 2e9, "disk_latency_s": 1e-4,
 "dram_bytes_per_s": 20e9, "cpu_operations_per_s": 2e11,
 "ram_bytes": 16e9}
END
"$sluice" plan --machine "$work/box.json" --preset 7b --ram 3G \
    --trace "$work/trace.json" >"$work/out" 2>"$work/log" &&
    grep -q "on box with 3.0 GiB" "$work/out" &&
    grep -q traceEvents "$work/trace.json"
check a_machine_without_a_gpu_comes_from_a_file

# Where arithmetic is the limit, a second guess costs what a token does.
"$sluice" plan --machine "$work/box.json" --preset 7b --accept 0.3 --json \
    >"$work/out" 2>"$work/log" &&
    holds "$(number "$work/out" guessed guesses)" '<=' 1
check guesses_are_few_where_arithmetic_is_the_limit

cat >"$work/gpu.json" <<'END'
{"name": "gpu box", "disk_bytes_per_s": 3.3e9, "disk_latency_s": 1e-4,
 "dram_bytes_per_s": 43e9, "cpu_dram_bytes_per_s": 40e9,
 "cpu_operations_per_s": 6e11, "ram_bytes": 32e9, "pcie_bytes_per_s": 12.5e9,
 "pcie_latency_s": 1e-5, "vram_bytes": 8e9, "vram_bytes_per_s": 224e9,
 "gpu_operations_per_s": 15e12, "gpu_stage_s": 43e-6}
END
"$sluice" plan --machine "$work/gpu.json" --preset glm-10b --quant int8 --json \
    --trace "$work/trace.json" >"$work/gpu.out" 2>"$work/log"
promised "$work/gpu.out" &&
    has_tracks "$work/trace.json"
check a_machine_with_a_gpu_comes_from_a_file

cat >"$work/probe.json" <<'END'
{"version": 4, "machine": {"cpu": "A box", "cpus": 8, "ram_bytes": 34359738368},
 "dram": [{"threads": 1, "bytes_per_s": 12e9}, {"threads": 8, "bytes_per_s": 40e9}],
 "operations": [{"format": "int4", "group": 64, "activations": "int8",
                 "isa": "avx2", "threads": 8, "operations_per_s": 6e11}],
 "gpu": {"devices": [{"device": "cuda:0", "why_not": "too old"},
                     {"device": "cuda:1", "why_not": null,
                      "vram_bytes": 12884901888, "copy_up_bytes_per_s": 25e9,
                      "vram_bytes_per_s": 300e9}]},
 "disks": {"8:1": {"bytes_per_s": 5e8}, "259:0": {"bytes_per_s": 3e9}}}
END
"$sluice" plan --machine "$work/probe.json" --preset glm-130b --device cpu \
    >"$work/cpu.out" 2>"$work/log" &&
    grep -q ' on A box with 26.9 GiB of RAM and 0 B of VRAM$' "$work/cpu.out" &&
    sed -n 3p "$work/cpu.out" | grep -q '^A token takes 1[0-9]\.[0-9] s (0.0' &&
    sed -n 4p "$work/cpu.out" | grep -q 'each GiB more of RAM saves 0.36 s' &&
    "$sluice" plan --machine "$work/probe.json" --preset glm-130b \
        >"$work/gpu.out" 2>"$work/log" &&
    grep -q '^  VRAM  *[1-9]' "$work/gpu.out"
check what_probe_wrote_is_a_machine

# 1/54 of the experts saves 1/54 of the 3.1 GiB that a token wants of them.
"$sluice" plan --machine rtx3060-ddr4-nvme --preset glm-4.5-air \
    --quant int4-g64 --ram 28G --vram 11G >"$work/air.out" 2>"$work/log" &&
    sed -n 4p "$work/air.out" | grep -q 'each GiB more of RAM saves 0.01 s'
check a_gib_of_experts_saves_what_is_chosen_of_them

# The slower one beside the faster one; and in a file of rates.
sed 's/^{/{"mirror": "8:1", /' "$work/probe.json" >"$work/two.json"
"$sluice" plan --machine "$work/two.json" --preset 7b --device cpu --ram 3G \
    >"$work/out" 2>"$work/log" &&
    grep -q ' and disks of 3.00 and 0.50 GB/s$' "$work/out" &&
    sed 's/"ram_bytes"/"mirror_bytes_per_s": 1e9, &/' "$work/box.json" \
        >"$work/two.json" &&
    "$sluice" plan --machine "$work/two.json" --preset 7b --ram 3G --json \
        --trace "$work/trace.json" >"$work/two.out" 2>"$work/log" &&
    "$sluice" plan --machine "$work/box.json" --preset 7b --ram 3G --json \
        >"$work/one.out" 2>"$work/log" &&
    holds "$(number "$work/two.out" decode tokens_per_s)" '>=' \
        "$(number "$work/one.out" decode tokens_per_s |
            awk '{ print 1.45 * $1 }')" &&
    grep -q '"ph":"b".*"tid":6,' "$work/trace.json" &&
    ! "$sluice" plan -m "$work/none" --mirror-rate 1G >"$work/log" 2>&1 &&
    grep -q 'goes with --machine' "$work/log"
check machines_have_second_disks

sed 's/"259:0".*//; s/"8:1".*/}}/' "$work/probe.json" >"$work/bad.json"
"$sluice" plan --machine "$work/bad.json" --preset 7b >"$work/log" 2>&1
[ $? = 2 ] && grep -q 'lacks a rate of the disk' "$work/log"
check what_a_probe_lacks_is_named

echo '{"ram_bytes": 1e9, "disk_speed": 3}' >"$work/bad.json"
"$sluice" plan --machine "$work/bad.json" --preset 7b >"$work/log" 2>&1
[ $? = 2 ] && grep -q 'disk_speed' "$work/log" &&
    { "$sluice" plan --machine nowhere --preset 7b >"$work/log" 2>&1
      [ $? = 2 ]; } && grep -q 'rtx3090-ddr5' "$work/log"
check a_machine_that_nobody_knows_is_wrong_usage

"$sluice" plan --preset 7b --batch 2 >"$work/log" 2>&1
[ $? = 2 ] &&
    { "$sluice" plan --machine rtx3090-ddr4 --preset 7b --ram 100G \
        >"$work/log" 2>&1; [ $? = 2 ]; }
check what_does_not_go_together_is_wrong_usage

for option in '--prompt-length 8' '--threads 2' '--activations f32' \
    '--numa off' '--io pread' '--isa ref' '--device cuda:1' \
    --measure '--draft lookup' '--draft x --accept 0.5'; do
    # shellcheck disable=SC2086
    "$sluice" plan --machine rtx3090-ddr4 --preset 7b $option >"$work/log" 2>&1
    [ $? = 2 ] && grep -q -- "${option%% *}" "$work/log" || break
    option=
done
[ -z "$option" ]
check what_a_rehearsal_would_ignore_is_wrong_usage

# Mixtures, by what a cache of GLM-5.2's experts was seen to serve; of Air 72 %
# are resident then, and 14 % of what a token wants is read.
echo '[[0.05, 0.24], [0.07, 0.4], [0.09, 0.44], [0.12, 0.51], [0.18, 0.6]]' \
    >"$work/curve.json"
"$sluice" plan --machine rtx3060-ddr4-nvme --preset glm-4.5-air --ram 28G \
    --vram 11G --hit-curve "$work/curve.json" --json >"$work/mix.json" \
    2>"$work/log" &&
    read=$(number "$work/mix.json" experts read_bytes_per_pass) &&
    wanted=$(number "$work/mix.json" experts wanted_bytes_per_pass) &&
    holds "$read" '<=' "$(echo "$wanted" | awk '{ print 0.16 * $1 }')" &&
    holds "$read" '>=' "$(echo "$wanted" | awk '{ print 0.12 * $1 }')" &&
    holds "$(number "$work/mix.json" decode tokens_per_s)" '>=' 7 &&
    promised "$work/mix.json"
check glm_4_5_air_decodes_7_tokens_a_second_on_a_3060_with_28_gib
[ "$(number "$work/mix.json" experts vram_shared)" = 45 ] &&
    holds "$(number "$work/mix.json" experts vram_shared_bytes)" '>=' 4e8
check the_expert_that_all_positions_use_lies_in_vram
# By the cores it would take 21 s.
holds "$(number "$work/mix.json" prefill_1024 seconds_per_pass)" '<=' 3.5
check a_prompt_of_1024_has_its_experts_copied_to_the_gpu
"$sluice" plan --machine rtx3090-ddr5 --preset glm-4.6 \
    --hit-curve "$work/curve.json" --json >"$work/mix.json" 2>"$work/log" &&
    holds "$(number "$work/mix.json" decode tokens_per_s)" '>=' 2.2 &&
    promised "$work/mix.json"
check glm_4_6_decodes_2_2_tokens_a_second_on_a_3090
"$sluice" plan --machine rtx3060-ddr4-nvme --preset glm-4.7-flash \
    --quant int4-g64 --json >"$work/mix.json" 2>"$work/log" &&
    holds "$(number "$work/mix.json" decode tokens_per_s)" '>=' 38 &&
    promised "$work/mix.json"
check glm_4_7_flash_decodes_38_tokens_a_second_on_a_3060

# refused OPTION VALUE...: with the least that works as OPTION's value, which
# is said, and does; a mebibyte less is refused too.
refused()
{
    option=$1
    shift
    "$sluice" plan --machine rtx3090-ddr5 --preset glm-130b "$option" "$@" \
        >"$work/log" 2>&1
    [ $? = 1 ] || return 1
    least=$(sed -n "s/.*($option \([0-9]*\)M).*/\1/p" "$work/log")
    shift
    "$sluice" plan --machine rtx3090-ddr5 --preset glm-130b "$@" \
        "$option" "${least}M" >"$work/log" 2>&1 &&
        ! "$sluice" plan --machine rtx3090-ddr5 --preset glm-130b "$@" \
            "$option" "$((least - 1))M" >>"$work/log" 2>&1
}
refused --vram 1M && refused --vram 1M --engine gpu && refused --ram 100M &&
    refused --ram 100M --device cpu
check a_budget_too_small_is_refused_with_the_least

"$sluice" plan --machine rtx3090-ddr5 --preset 7b >"$work/log" 2>&1 &&
    ! grep -q 'leaves 0 B' "$work/log" && grep -q ' ms ' "$work/log" &&
    ! grep -q ' 0\.000 s' "$work/log"
check what_is_nothing_is_left_out_and_short_times_have_digits
