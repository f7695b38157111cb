#!/bin/sh
# --mirror: the same text from one file and from two; what is no copy of the
# file is refused in a line; verify compares; stats and trace tell the disks
# apart.
source=${SLUICE_SOURCE:-.}
sluice=${SLUICE:-./sluice}
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-mirror-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
export CUDA_VISIBLE_DEVICES=''
if ! "$sluice" convert --help >/dev/null 2>&1; then
    echo "1..0 # SKIP this sluice cannot convert the demo model"
    exit 0
fi
# shellcheck source=tests/demo_model.sh
. "$source/tests/demo_model.sh"
cp "$model" "$work/copy.gguf" || exit 99

say()
{
    "$sluice" generate -m "$model" --top-k 1 --out-seq-length 24 \
        -p 'In the beginning [gMASK]' "$@" 2>"$work/err"
}

say --quiet >"$work/one"
same=true
for ram in least auto; do
    for io in auto pread; do
        say --quiet --ram $ram --io $io --mirror "$work/copy.gguf" >"$work/two"
        cmp "$work/one" "$work/two" >"$work/err" 2>&1 || same=false
    done
done
[ -s "$work/one" ] && $same
check the_text_is_the_same_whatever_the_disks

say --ram least --stats --trace "$work/trace" --mirror "$work/copy.gguf" \
    >/dev/null
grep -q "^ .* of $model at" "$work/err" &&
    grep -q "^ .* of $work/copy.gguf at" "$work/err" &&
    grep -q '"args":{"name":"mirror' "$work/trace" &&
    grep -q '"ph":"b".*"tid":6,' "$work/trace"
check stats_and_trace_tell_the_disks_apart

say --ram least --json --quiet --mirror "$work/copy.gguf" >"$work/json"
sed 's/.*"disks"//' "$work/json" >"$work/err"
grep -q "copy.gguf" "$work/err" &&
    [ "$(grep -o '"bytes_read": *[1-9]' "$work/err" | wc -l)" = 2 ] &&
    grep -q '"failed": *false' "$work/err"
check json_has_the_bytes_of_each_disk

# Of so few reads one disk may have had all.
bench()
{
    "$sluice" bench -m "$model" --ram least --prompt 4 --gen 2 --repeat 1 --json \
        "$@" >"$work/json" 2>"$work/err" || return 1
    cat "$work/json" >"$work/err"
}
bytes='"file_bytes_per_pass": *\[\([0-9.e+]*\), *\([0-9.e+]*\)\].*'
bench --mirror "$work/copy.gguf" &&
    sed -n "s/.*$bytes/\1 \2/p" "$work/json" | awk 'NF == 2 && $1 + $2 > 0 { n++ }
        END { exit n == 0 || n != NR }' &&
    bench && ! grep -q file_bytes_per_pass "$work/json"
check and_so_has_bench

# refused FILE CODE WORDS: by generate, in one line that names the file.
bad=
refused()
{
    say --mirror "$1" >/dev/null
    code=$?
    [ $code = "$2" ] && grep -qF -- "$3" "$work/err" &&
        grep -qF -- "$1" "$work/err" && [ "$(wc -l <"$work/err")" = 1 ] ||
        bad="$bad; $1: exit $code: $(cat "$work/err")"
}
ln -s "$model" "$work/soft"
head -c 100000 "$model" >"$work/short"
cp "$model" "$work/long" && echo x >>"$work/long"
"$sluice" convert --quant int8 -o "$work/other.gguf" "$source/demo" >/dev/null 2>&1
refused "$work/missing" 1 'cannot open'
refused "$work/soft" 2 'the model file itself'
refused "$work/short" 1 'copy it again'
refused "$work/long" 1 'copy it again'
refused "$work/other.gguf" 1 'copy it again'
refused "$work" 2 'is no file'
echo "$bad" >"$work/err"
[ -z "$bad" ]
check what_is_no_copy_is_refused_in_a_line

"$sluice" probe "$work" --mirror "$work/copy.gguf" >"$work/err" 2>&1
[ $? = 2 ] && grep -q 'on one disk' "$work/err" &&
    "$sluice" plan -m "$model" --mirror "$work/copy.gguf" --ram least --measure \
        --json >"$work/err" 2>/dev/null &&
    grep -q '"mirror_bytes_per_s": [1-9]' "$work/err"
check probe_and_plan_know_both_disks

"$sluice" verify -q "$model" --mirror "$work/copy.gguf" >"$work/err" 2>&1 &&
    [ ! -s "$work/err" ] &&
    "$sluice" verify --json "$model" --mirror "$work/copy.gguf" \
        >"$work/err" 2>&1 && grep -q '"ok": *true' "$work/err" &&
    grep -q '"mirror"' "$work/err"
check verify_compares_both

printf x | dd of="$work/copy.gguf" bs=1 seek=60000 conv=notrunc 2>/dev/null
"$sluice" verify -q "$model" --mirror "$work/copy.gguf" >"$work/err" 2>&1
[ $? = 1 ] && grep -q copy.gguf "$work/err"
check verify_finds_what_differs

echo "1..$n"
