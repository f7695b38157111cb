#!/usr/bin/env python3
"""Writes a GGUF file with random weights and a made-up vocabulary that
llama.cpp runs, with nothing but the standard library: a Llama, or some layers
of GLM-4.5-Air, a mixture of experts (architecture "glm4moe").

    random_gguf.py OUT.gguf TYPE LAYERS HIDDEN INNER HEADS VOCAB
    random_gguf.py OUT.gguf TYPE glm-4.5-air LAYERS

TYPE is q4_0, q8_0, q4_k_m or q6_k. Format: ggml-org/ggml docs/gguf.md; blocks:
ggml/src/ggml-common.h. Types are mixed as llama-quantize does (llama.cpp
src/llama-quant.cpp): the head of a Q4_0 file is Q6_K where rows are made of
whole blocks of 256; of a Q4_K_M file too, and in about half of its layers v
and down. Rows that no blocks of 256 make up, such as the 1408 columns of an
expert's way down, are Q5_0 in place of Q4_K and Q8_0 in place of Q6_K.
"""
import array
import collections
import os
import random
import struct
import sys

ALIGNMENT = 32
U32, F32, STRING, ARRAY, I32, BOOL = 4, 6, 8, 9, 5, 7
TYPES = {  # number, values and bytes of a block
    "f32": (0, 1, 4),
    "q4_0": (2, 32, 18),
    "q5_0": (6, 32, 22),
    "q8_0": (8, 32, 34),
    "q4_k": (12, 256, 144),
    "q6_k": (14, 256, 210),
}
FILE_TYPE = {"q4_0": 2, "q8_0": 7, "q4_k_m": 15, "q6_k": 18}
SHORT_ROWS = {"q4_k": "q5_0", "q6_k": "q8_0"}
CHUNK_BLOCKS = 1 << 17

# dims: columns, rows, matrices. value: of all elements of a vector; None:
# random, of variance by^2 / columns
Tensor = collections.namedtuple("Tensor", "name kind dims value by",
                                defaults=(None, 1.0))


def text(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def pair(key, kind, value):
    head = text(key) + struct.pack("<I", kind)
    if kind == STRING:
        return head + text(value)
    return head + struct.pack({U32: "<I", F32: "<f", BOOL: "<?"}[kind], value)


def listed(key, kind, items):
    head = text(key) + struct.pack("<IIQ", ARRAY, kind, len(items))
    if kind == STRING:
        return head + b"".join(text(s) for s in items)
    letter = {F32: "f", I32: "i"}[kind]
    return head + struct.pack(f"<{len(items)}{letter}", *items)


def vocabulary(n):
    """Unknown, begin, end, the 256 bytes, then words that mean nothing."""
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    kinds = [2, 3, 3] + [6] * 256  # unknown, control, byte
    tokens += [f"word{i}" for i in range(n - len(tokens))]
    kinds += [1] * (n - len(kinds))
    return tokens[:n], kinds[:n]


def common(arch, quant, layers, hidden, inner, vocab, max_positions):
    """Metadata of any architecture, without its attention."""
    tokens, kinds = vocabulary(vocab)
    return [
        pair("general.architecture", STRING, arch),
        pair("general.name", STRING, "random weights"),
        pair("general.alignment", U32, ALIGNMENT),
        pair("general.file_type", U32, FILE_TYPE[quant]),
        pair(arch + ".block_count", U32, layers),
        pair(arch + ".context_length", U32, max_positions),
        pair(arch + ".embedding_length", U32, hidden),
        pair(arch + ".feed_forward_length", U32, inner),
        pair(arch + ".attention.layer_norm_rms_epsilon", F32, 1e-5),
        pair(arch + ".vocab_size", U32, vocab),
        pair("tokenizer.ggml.model", STRING, "llama"),
        listed("tokenizer.ggml.tokens", STRING, tokens),
        listed("tokenizer.ggml.scores", F32, [-i for i in range(vocab)]),
        listed("tokenizer.ggml.token_type", I32, kinds),
        pair("tokenizer.ggml.unknown_token_id", U32, 0),
        pair("tokenizer.ggml.bos_token_id", U32, 1),
        pair("tokenizer.ggml.eos_token_id", U32, 2),
    ]


def more_bits(i, layers):
    """Layers that Q4_K_M gives more bits (llama-quant.cpp, use_more_bits)."""
    eighth = layers // 8
    return i < eighth or i >= 7 * layers // 8 or (i - eighth) % 3 == 2


def matrix(name, kind, rows, cols, n=1, by=1.0):
    if cols % TYPES[kind][1] and kind in SHORT_ROWS:
        kind = SHORT_ROWS[kind]
    dims = (cols, rows, n) if n > 1 else (cols, rows)
    return Tensor(name + ".weight", kind, dims, by=by)


def vector(name, n, value):
    return Tensor(name, "f32", (n,), value)


def kinds_of(quant, hidden):
    """The types of most matrices, of the head, and of those with more bits."""
    mixed = quant == "q4_k_m"
    head = "q6_k" if quant == "q4_0" and hidden % 256 == 0 or mixed else quant
    return "q4_k" if mixed else quant, head, "q6_k" if mixed else quant


class Llama:
    used_share = 1.0

    def __init__(self, layers, hidden, inner, heads, vocab):
        self.layers, self.hidden, self.inner = layers, hidden, inner
        self.heads, self.vocab = heads, vocab

    def metadata(self, quant):
        return common("llama", quant, self.layers, self.hidden, self.inner,
                      self.vocab, 2048) + [
            pair("llama.attention.head_count", U32, self.heads),
            pair("llama.attention.head_count_kv", U32, self.heads),
            pair("llama.rope.dimension_count", U32, self.hidden // self.heads),
        ]

    def tensors(self, quant):
        hidden, inner = self.hidden, self.inner
        quant, head, more = kinds_of(quant, hidden)
        yield matrix("token_embd", quant, self.vocab, hidden)
        yield vector("output_norm.weight", hidden, 1.0)
        yield matrix("output", head, self.vocab, hidden)
        for i in range(self.layers):
            b = f"blk.{i}."
            best = more if more_bits(i, self.layers) else quant
            yield vector(b + "attn_norm.weight", hidden, 1.0)
            for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
                kind = best if name == "attn_v" else quant
                yield matrix(b + name, kind, hidden, hidden)
            yield vector(b + "ffn_norm.weight", hidden, 1.0)
            yield matrix(b + "ffn_gate", quant, inner, hidden)
            yield matrix(b + "ffn_up", quant, inner, hidden)
            yield matrix(b + "ffn_down", best, hidden, inner)


class Glm45Air:
    """Layers of GLM-4.5-Air (zai-org/GLM-4.5-Air config.json), the first of
    them dense as there; none of those that predict more than one token. As in
    `sluice synth`, embeddings are larger and what attention adds is smaller
    than elsewhere: positions have to differ where routers look at them."""

    hidden, inner, vocab = 4096, 10944, 151552
    heads, kv_heads, head = 96, 8, 128
    experts, used, expert_inner, dense = 128, 8, 1408, 1
    used_share = used / experts

    def __init__(self, layers):
        self.layers = layers

    def metadata(self, quant):
        a = "glm4moe."
        return common("glm4moe", quant, self.layers, self.hidden, self.inner,
                      self.vocab, 131072) + [
            pair(a + "attention.head_count", U32, self.heads),
            pair(a + "attention.head_count_kv", U32, self.kv_heads),
            pair(a + "attention.key_length", U32, self.head),
            pair(a + "attention.value_length", U32, self.head),
            pair(a + "rope.dimension_count", U32, self.head // 2),
            pair(a + "rope.freq_base", F32, 1e6),
            pair(a + "expert_count", U32, self.experts),
            pair(a + "expert_used_count", U32, self.used),
            pair(a + "expert_group_count", U32, 1),
            pair(a + "expert_group_used_count", U32, 1),
            pair(a + "expert_feed_forward_length", U32, self.expert_inner),
            pair(a + "expert_shared_count", U32, 1),
            pair(a + "leading_dense_block_count", U32, self.dense),
            pair(a + "expert_gating_func", U32, 2),  # sigmoid
            pair(a + "expert_weights_scale", F32, 1.0),
            pair(a + "expert_weights_norm", BOOL, True),
            pair(a + "nextn_predict_layers", U32, 0),
        ]

    def attention(self, b, quant, best):
        q, kv = self.heads * self.head, self.kv_heads * self.head
        yield vector(b + "attn_norm.weight", self.hidden, 1.0)
        for name, kind, rows in (("attn_q", quant, q), ("attn_k", quant, kv),
                                 ("attn_v", best, kv)):
            yield matrix(b + name, kind, rows, self.hidden)
            yield vector(f"{b}{name}.bias", rows, 0.0)
        yield matrix(b + "attn_output", quant, self.hidden, q, by=0.25)
        yield vector(b + "post_attention_norm.weight", self.hidden, 1.0)

    def mlp(self, b, end, quant, best, inner, n=1):
        yield matrix(f"{b}ffn_gate{end}", quant, inner, self.hidden, n)
        yield matrix(f"{b}ffn_up{end}", quant, inner, self.hidden, n)
        yield matrix(f"{b}ffn_down{end}", best, self.hidden, inner, n)

    def tensors(self, quant):
        quant, head, more = kinds_of(quant, self.hidden)
        yield matrix("token_embd", quant, self.vocab, self.hidden,
                     by=self.hidden ** 0.5)
        yield vector("output_norm.weight", self.hidden, 1.0)
        yield matrix("output", head, self.vocab, self.hidden)
        for i in range(self.layers):
            b = f"blk.{i}."
            best = more if more_bits(i, self.layers) else quant
            yield from self.attention(b, quant, best)
            if i < self.dense:
                yield from self.mlp(b, "", quant, best, self.inner)
                continue
            yield matrix(b + "ffn_gate_inp", "f32", self.experts, self.hidden)
            yield vector(b + "exp_probs_b.bias", self.experts, 0.0)
            yield from self.mlp(b, "_exps", quant, best, self.expert_inner,
                                self.experts)
            yield from self.mlp(b, "_shexp", quant, best, self.expert_inner)


def n_bytes(t):
    _, values, size = TYPES[t.kind]
    n = 1
    for d in t.dims:
        n *= d
    if t.dims[0] % values:
        raise SystemExit(f"random_gguf.py: rows of {t.dims[0]} values are not "
                         f"made of {t.kind} blocks of {values}")
    return n // values * size


def half(x):
    return struct.pack("<e", x)


def random_blocks(t, n):
    """n blocks with a variance of about by^2 / columns, so that sums stay
    small. Where 0 is not in the middle of a block's values, scales of both
    signs put the mean there: what all rows have in common grows with every
    product, and routers would see little else."""
    size, cols = TYPES[t.kind][2], t.dims[0]
    b = bytearray(os.urandom(n * size))
    if t.kind == "q6_k":  # ql 128, qh 64, 16 scales, d; q is of variance 341
        for i in range(192, 208):
            b[i::size] = bytes([5]) * n
        at, d = 208, half(t.by * (341 * 25 * cols) ** -0.5)
    elif t.kind == "q4_k":  # d, dmin, scales and minima of 32, then q in 0..15
        at, size_of_d = 0, t.by * (21.25 * 32 * 32 * cols) ** -0.5
        d = half(size_of_d) + half(7.5 * size_of_d)
        d += bytes([0xa0] * 8 + [0] * 4)
    else:  # d, then values of such a variance
        variance = {"q4_0": 21, "q5_0": 85, "q8_0": 5461}[t.kind]
        at, d = 0, half(t.by * (variance * cols) ** -0.5)
    for i, value in enumerate(d):
        b[at + i::size] = bytes([value]) * n
    if t.kind in ("q4_0", "q5_0"):
        signs = bytes(d[1] | (x & 0x80) for x in range(256))
        b[1::size] = os.urandom(n).translate(signs)
    return b


def write_numbers(f, t):
    left = n_bytes(t) // 4
    if t.value is not None:
        f.write(struct.pack("<f", t.value) * left)
        return
    by = t.by * t.dims[0] ** -0.5
    numbers = array.array("f", (random.gauss(0, by) for _ in range(left)))
    if sys.byteorder == "big":
        numbers.byteswap()
    f.write(numbers.tobytes())


def write_data(f, t):
    if t.kind == "f32":
        write_numbers(f, t)
        return
    left = n_bytes(t) // TYPES[t.kind][2]
    while left > 0:
        n = min(left, CHUNK_BLOCKS)
        f.write(random_blocks(t, n))
        left -= n


def pad(f):
    f.write(bytes(-f.tell() % ALIGNMENT))


def token_bytes(quant, model):
    """What one token reads: all but the embedding, and of a layer's experts
    those that are used."""
    return sum(int(n_bytes(t) * (model.used_share if "_exps." in t.name else 1))
               for t in model.tensors(quant) if t.name != "token_embd.weight")


def write(path, quant, model):
    pairs, tensors = model.metadata(quant), list(model.tensors(quant))
    off = 0
    with open(path, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)))
        f.write(b"".join(pairs))
        for t in tensors:
            f.write(text(t.name))
            f.write(struct.pack(f"<I{len(t.dims)}Q", len(t.dims), *t.dims))
            f.write(struct.pack("<IQ", TYPES[t.kind][0], off))
            size = n_bytes(t)
            off += size + -size % ALIGNMENT
        for t in tensors:
            pad(f)
            write_data(f, t)
        pad(f)


def main(argv):
    if len(argv) < 5 or argv[2] not in FILE_TYPE:
        raise SystemExit(__doc__)
    if argv[3] == "glm-4.5-air" and len(argv) == 5:
        model = Glm45Air(int(argv[4]))
    elif len(argv) == 8:
        model = Llama(*(int(v) for v in argv[3:]))
    else:
        raise SystemExit(__doc__)
    write(argv[1], argv[2], model)


if __name__ == "__main__":
    main(sys.argv)
