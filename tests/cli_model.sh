#!/bin/sh
# `sluice inspect` and `sluice verify` as a person uses them: what they print
# where, and their exit codes.
make_model=${SLUICE%/*}/tests/make_model
if [ ! -x "$make_model" ]; then
    echo "1..0 # SKIP built without cmocka"
    exit 0
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-model-XXXXXX") || exit 99
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 99
"$make_model" m.gguf int4-g32 || exit 99

n=0
# run EXIT ARGUMENT...: output in out and err; wrong lists what is not so.
run()
{
    want=$1
    shift
    "$SLUICE" "$@" >out 2>err </dev/null
    rc=$?
    wrong=''
    [ $rc = "$want" ] || wrong="exit code $rc, not $want"
}

# has FILE TEXT: FILE holds the line or part of a line.
has()
{
    grep -qF -- "$2" "$1" || wrong="$wrong
$1 lacks: $2"
}

# One clear line, without which nobody knows what to do.
one_line()
{
    [ "$(wc -l <err)" = 1 ] || wrong="$wrong
not one line on standard error"
}

verdict()
{
    n=$((n + 1))
    if [ -z "$wrong" ]; then
        echo "ok $n - $1"
    else
        echo "not ok $n - $1"
        { echo "$wrong"; cat err; } | sed 's/^/# /'
    fi
}

# flip OFFSET: the byte there becomes another one.
flip()
{
    byte=$(od -An -tu1 -j "$1" -N 1 bad.gguf)
    # shellcheck disable=SC2059 # an octal escape
    printf "\\$(printf %o $((byte ^ 16)))" |
        dd of=bad.gguf bs=1 seek="$1" conv=notrunc 2>/dev/null
}

mkfifo pipe # nobody writes to it: opening it would wait for ever
timeout -k 5 20 "$SLUICE" inspect pipe >out 2>err
[ $? = 1 ] && wrong='' || wrong='exit code'
has err 'pipe: a pipe, not a model file'
verdict 'a pipe is refused before it is opened'

run 0 inspect m.gguf
has out 'random (m.gguf, '
has out 'glm130b: 2 layers, hidden 64, 4 heads of 16'
has out 'int4-g32'
has out 'int8-g64'
has out 'KV cache'
verdict 'inspect prints a summary'

run 0 inspect --tensors m.gguf
has out 'transformer.layers.1.mlp.dense_4h_to_h.scale'
has out 'tokenizer.model'
verdict 'inspect --tensors lists every tensor'

run 0 inspect --json m.gguf
has out '"architecture": "glm130b"'
has out '"name": "layer 1 mlp"'
has out '"format": "int4-g32"'
has out '"norm_eps": '
if command -v python3 >/dev/null; then
    python3 -m json.tool out >/dev/null 2>err || wrong="$wrong
not JSON"
fi
verdict 'inspect --json prints JSON'

# shape PRESET TEXT...: what is said of a model of that shape, one layer of it.
shape()
{
    name=$1
    shift
    run 0 synth "$name" -Q --force -o shape.gguf --num-layers 1 \
        --hidden-size 256 --inner-hidden-size 64 --vocab-size 64 --quant int4
    failed=$wrong
    run 0 inspect shape.gguf
    wrong=$failed$wrong
    for text in "$@"; do
        has out "$text"
    done
    verdict "inspect says what a layer of $name is made of"
}

shape tiny 'heads of 32' 'GEGLU, inner 64' \
    '512, 1-D rotary, halves, base 10000, table exact' \
    'layer norm, epsilon 1e-05' 'the head is the embedding' \
    '1.0 KiB a position in FP16'
shape chatglm-6b 'GELU, inner 64' '2048, 2-D rotary, halves, base 10000' \
    'layer norm' 'the head is a matrix of its own'
shape glm-10b 'GELU, inner 64' '1024, learned embeddings of two' \
    'the head is the embedding'
shape glm-4-32b '48 heads of 128, 2 of keys and values' 'SwiGLU, inner 64' \
    '64 values of a head, neighbours' 'RMS norm, epsilon 1e-05' \
    'also of what is added' '1.0 KiB a position in FP16'
shape glm-4.5-air '96 heads of 128, 8 of keys and values' \
    'inner 64 in the first layer' \
    '128 experts a layer, inner 1408, 8 of them for a position; one of'
shape llama-70b '64 heads of 128, 8 of keys and values' 'SwiGLU, inner 64' \
    'halves, base 500000, table exact, llama3 scaling by 8 beyond 8192' \
    'RMS norm' '4.0 KiB a position in FP16'
run 0 inspect --json shape.gguf
for text in '"n_heads": 64' '"n_kv_heads": 8' '"head_dim": 128' \
    '"norm": "rms"' '"activation": "swiglu"' '"pairs": "half"' \
    '"base": 500000' '"type": "llama3"' '"original_positions": 8192' \
    '"causal": true' '"untied": true' '"kv_bytes_per_position_f16": 4096'; do
    has out "$text"
done
verdict 'inspect --json says the same'

# One layer is dense, the other has experts; all of it is told apart.
run 0 synth glm-4.7-flash -Q --force -o mixture.gguf --num-layers 2 \
    --hidden-size 256 --inner-hidden-size 64 --vocab-size 64 --quant int4-g64
run 0 inspect mixture.gguf
for text in '64 experts a layer, inner 1536, 4 of them for a position' \
    '512 values and 64 rotated ones a position' \
    'experts        75.5 million weights of int4-g64, 4.25 bits each' \
    'records        64 experts, the largest 612.0 KiB' \
    'KV cache       2.2 KiB a position in FP16'; do
    has out "$text"
done
grep -q '^  experts *38.2 MiB' out || wrong="$wrong
no part of experts"
run 0 inspect --json mixture.gguf
for text in '"n_experts": 64' '"n_used": 4' '"kv_lora": 512' \
    '"expert_bits_per_weight": 4.25' '"experts": 40108032' \
    '"kv_bytes_per_position_f16": 2304'; do
    has out "$text"
done
verdict 'inspect tells experts from the rest'

run 0 verify m.gguf
has out 'every checksum is right'
verdict 'verify says that a file is whole'

run 0 verify --quiet m.gguf
[ ! -s out ] && [ ! -s err ] || wrong="$wrong
it said something"
verdict 'verify --quiet says nothing'

cp m.gguf bad.gguf
size=$(wc -c <m.gguf)
flip $((size - 5000))
run 1 verify -q bad.gguf
has err "bad.gguf: section 'head' ("
one_line
verdict 'verify names the section that is damaged'

run 1 verify -q --json bad.gguf
has out '"ok": false'
verdict 'verify --json says so too'

cp m.gguf bad.gguf
flip 100
run 1 inspect bad.gguf
has err 'bad.gguf: '
one_line
verdict 'a damaged header is refused'

head -c $((size - 1)) m.gguf >bad.gguf
run 1 verify bad.gguf
has err "bad.gguf: the file ends at $((size - 1)) and needs $size"
one_line
verdict 'a file that was cut short is refused with both lengths'

run 1 inspect none.gguf
has err 'none.gguf: cannot open the model file: No such file'
one_line
verdict 'a file that is not there is named'

run 2 inspect
has err 'no model file'
verdict 'inspect without a file is wrong usage'

run 2 verify m.gguf bad.gguf
has err 'one model file at a time'
verdict 'two files are wrong usage'

for args in --no-such-option '--json=yes m.gguf' 'm.gguf m.gguf'; do
    # shellcheck disable=SC2086 # words on purpose
    run 2 verify $args
    has err 'sluice verify: '
    one_line
    verdict "verify $args is one line"
done

run 0 generate --help
has out 'Usage: sluice generate'
has out '--usage'
[ ! -s err ] || wrong="$wrong
it said something"
verdict 'a command shows its options'

for command in inspect 'inspect --json' 'verify -q --json' 'generate --help' \
    'plan --usage'; do
    if [ ! -w /dev/full ]; then
        break
    fi
    case $command in
    *--help | *--usage) file= ;;
    *) file=m.gguf ;;
    esac
    # shellcheck disable=SC2086 # words on purpose
    "$SLUICE" $command $file >/dev/full 2>err
    rc=$?
    wrong=''
    [ $rc = 1 ] || wrong="exit code $rc, not 1"
    has err 'No space left on device'
    verdict "$command says that its output is full"
done

echo "1..$n"
