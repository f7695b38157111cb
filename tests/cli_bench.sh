#!/bin/sh
# 'sluice bench' on a small model: what was asked for is run, every result is
# a line of JSON with what a script needs, on the CPU and on a simulated GPU.
sluice=${SLUICE:-./sluice}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-bench-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
n=0
check()
{
    if [ $? = 0 ]; then result=ok; else result='not ok'; fi
    n=$((n + 1))
    echo "$result $n - $1"
}
bench()
{
    timeout 300 "$sluice" bench -m "$work/m.gguf" --threads 1 --gen 2 \
        --repeat 1 "$@" 2>"$work/err"
}
# has KEY...: every line of the output has every KEY.
has()
{
    for key; do
        [ "$(grep -cF "\"$key\":" "$work/out")" = "$(wc -l <"$work/out")" ] ||
            return 1
    done
}

"$sluice" synth --num-layers 2 --hidden-size 256 --num-attention-heads 4 \
    --inner-hidden-size 512 --vocab-size 512 --max-sequence-length 64 -q int4-g64 -o "$work/m.gguf" \
    --quiet || exit 99

bench --device cpu --prompt 1,8 --batch 2 --ram least,auto --json \
    >"$work/out"
[ $? = 0 ] && [ "$(wc -l <"$work/out")" = 8 ] &&
    [ "$(grep -c '"phase":"decode"' "$work/out")" = 4 ] &&
    has prompt batch threads ram_bytes tokens_per_s seconds_per_pass \
        floor_seconds limit efficiency machine commit vram_bytes \
        measured_dram_in_cache
check every_combination_is_two_lines_of_json

bench --device cpu --prompt 4 >"$work/out" &&
    grep -q '^decode  *4  *1  *1 ' "$work/out" &&
    ! grep -q 'GPU' "$work/out"
check a_table_is_for_people

# A model of random weights soon says the same again.
bench --device cpu --prompt 4 --gen 40 --batch 2 --draft lookup --json \
    >"$work/out" && [ "$(wc -l <"$work/out")" = 2 ] &&
    grep '"phase":"decode"' "$work/out" |
    grep -q '"source":"lookup","drafted":[1-9][0-9]*,"accepted":[1-9]' &&
    ! grep '"phase":"prefill"' "$work/out" | grep -q drafts &&
    bench --device cpu --prompt 4 --draft off --json >"$work/out" &&
    ! grep -q drafts "$work/out"
check guesses_are_made_where_they_are_asked_for

bench --device cpu --prompt 4 --draft lookup --positions 1,2 >"$work/out"
[ $? = 2 ] && grep -q -- '--draft' "$work/err"
check passes_of_given_sizes_make_no_guesses

bench --device cpu --prompt 1,2 --trace "$work/trace" >"$work/out"
[ $? = 2 ] && grep -q -- '--trace is for one run, not 2' "$work/err"
check a_trace_is_of_one_run

bench --device cpu --prompt 4 --ram 1K >"$work/out"
[ $? = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] &&
    grep -q 'least.*; a smaller --prompt, --gen or --batch needs less$' \
        "$work/err" && [ ! -s "$work/out" ]
check a_budget_that_is_too_small_names_the_least

bench --device cpu --prompt 4 --plot "$work/none/x.svg" >"$work/out"
[ $? = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] &&
    grep -q 'none/x.svg' "$work/err" && [ ! -s "$work/out" ] &&
    { bench --device cpu --prompt 4 --plot "$work" >"$work/out"
      [ $? = 1 ]; } && [ "$(wc -l <"$work/err")" = 1 ] &&
    grep -q "$work: cannot create: " "$work/err" && [ ! -s "$work/out" ]
check a_plot_that_cannot_be_made_is_seen_first

bench --device cpu --prompt 4 --ram auto,1K --plot "$work/p.svg" >"$work/out"
[ $? = 1 ] && grep -q 'least' "$work/err" &&
    grep -q '^decode ' "$work/out" && grep -q '</svg>' "$work/p.svg"
check what_was_measured_before_a_failure_is_drawn

"$sluice" synth --num-layers 64 --hidden-size 1024 --num-attention-heads 8 \
    --inner-hidden-size 64 --vocab-size 64 --num-image-tokens 0 \
    --max-sequence-length 4000 -q int4 -o "$work/deep.gguf" --quiet &&
    ! timeout 60 "$sluice" bench -m "$work/deep.gguf" --device cpu --kv f32 \
        --ram 900T --batch 1024 --prompt 2000 --gen 1 2>"$work/err" >&2 &&
    grep -q 'TiB of memory would be taken, but this machine has' "$work/err"
check more_than_the_machine_has_is_refused
rm -f "$work/deep.gguf"

bench --positions 1,2,5 --prompt 8 --gen 4 --repeat 2 --ram 64M --json \
    --plot "$work/sizes.svg" >"$work/out"
[ $? = 0 ] && [ "$(grep -o '"positions":[125],"seconds":' "$work/out" |
    wc -l)" = 3 ] && grep -q '</svg>' "$work/sizes.svg" &&
    bench --positions 1,2 --prompt 8 --gen 1 --repeat 1 >"$work/out" &&
    [ "$(grep -c '^ *[12] .* 1\.00\|^ *2 ' "$work/out")" = 2 ] &&
    ! bench --positions 65 >"$work/out" && ! bench --positions 2 --batch 2
check passes_are_measured_by_their_positions

# Once with nothing learned and nothing kept, then as other commands do.
"$sluice" synth glm-4.5-air -Q -o "$work/mixture.gguf" --num-layers 2 \
    --hidden-size 64 --inner-hidden-size 64 --vocab-size 64 -q int4-g64
mixture()
{
    "$sluice" bench -m "$work/mixture.gguf" --ram least --prompt 4 --gen 8 \
        --repeat 1 "$@" >"$work/out" 2>"$work/err"
}
mixture && [ ! -e "$work/mixture.gguf.usage" ] && mixture --learned &&
    cp "$work/mixture.gguf.usage" "$work/usage" && mixture --learned &&
    ! cmp -s "$work/usage" "$work/mixture.gguf.usage"
check what_was_learned_of_experts_is_used_where_asked_for
rm -f "$work/mixture.gguf" "$work/usage"

bench --device cuda:99 --prompt 4 >"$work/out"
[ $? -gt 0 ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -qE "GPU|CUDA" "$work/err"
check a_gpu_that_is_not_there_is_one_line

if "$sluice" devices 2>/dev/null | grep -q '^cuda:0  cudasim'; then
    bench --device cuda --engine gpu --prompt 4 --vram 100M,200M --json \
        >"$work/out"
    [ $? = 0 ] && [ "$(wc -l <"$work/out")" = 4 ] &&
        has floor_pcie_seconds floor_gpu_seconds measured_copy_bytes_per_s &&
        [ "$(grep -c '"device":"cudasim 0"' "$work/out")" = 4 ] &&
        [ "$(grep -c '"vram_bytes":104857600,' "$work/out")" = 2 ] &&
        [ "$(grep -c '"limit":"gpu"' "$work/out")" = 4 ]
    check budgets_of_a_gpu_are_runs

    bench --device cuda --engine gpu --prompt 4 --vram 1M >"$work/out"
    [ $? = 1 ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q 'least' "$work/err"
    check too_little_of_a_gpu_names_the_least
fi
echo "1..$n"
