#!/usr/bin/env python3
"""Writes a GGUF file with random weights that llama.cpp runs (architecture
"llama", a made-up vocabulary), with nothing but the standard library.

    random_gguf.py OUT.gguf TYPE LAYERS HIDDEN INNER HEADS VOCAB

TYPE is q4_0, q8_0, q4_k_m or q6_k. Format: ggml-org/ggml docs/gguf.md; blocks:
ggml/src/ggml-common.h. Types are mixed as llama-quantize does (llama.cpp
src/llama-quant.cpp): the head of a Q4_0 file is Q6_K where rows are made of
whole blocks of 256; of a Q4_K_M file too, and in about half of its layers v
and down.
"""
import os
import struct
import sys

ALIGNMENT = 32
U32, F32, STRING, ARRAY, I32 = 4, 6, 8, 9, 5
TYPES = {  # number, values and bytes of a block
    "f32": (0, 1, 4),
    "q4_0": (2, 32, 18),
    "q8_0": (8, 32, 34),
    "q4_k": (12, 256, 144),
    "q6_k": (14, 256, 210),
}
FILE_TYPE = {"q4_0": 2, "q8_0": 7, "q4_k_m": 15, "q6_k": 18}
CHUNK_BLOCKS = 1 << 17


def text(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def pair(key, kind, value):
    head = text(key) + struct.pack("<I", kind)
    if kind == STRING:
        return head + text(value)
    return head + struct.pack({U32: "<I", F32: "<f"}[kind], value)


def array(key, kind, items):
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


def metadata(quant, layers, hidden, inner, heads, vocab):
    tokens, kinds = vocabulary(vocab)
    return [
        pair("general.architecture", STRING, "llama"),
        pair("general.name", STRING, "random weights"),
        pair("general.alignment", U32, ALIGNMENT),
        pair("general.file_type", U32, FILE_TYPE[quant]),
        pair("llama.block_count", U32, layers),
        pair("llama.context_length", U32, 2048),
        pair("llama.embedding_length", U32, hidden),
        pair("llama.feed_forward_length", U32, inner),
        pair("llama.attention.head_count", U32, heads),
        pair("llama.attention.head_count_kv", U32, heads),
        pair("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        pair("llama.rope.dimension_count", U32, hidden // heads),
        pair("llama.vocab_size", U32, vocab),
        pair("tokenizer.ggml.model", STRING, "llama"),
        array("tokenizer.ggml.tokens", STRING, tokens),
        array("tokenizer.ggml.scores", F32, [-float(i) for i in range(vocab)]),
        array("tokenizer.ggml.token_type", I32, kinds),
        pair("tokenizer.ggml.unknown_token_id", U32, 0),
        pair("tokenizer.ggml.bos_token_id", U32, 1),
        pair("tokenizer.ggml.eos_token_id", U32, 2),
    ]


def more_bits(i, layers):
    """Layers that Q4_K_M gives more bits (llama-quant.cpp, use_more_bits)."""
    eighth = layers // 8
    return i < eighth or i >= 7 * layers // 8 or (i - eighth) % 3 == 2


def tensors(quant, layers, hidden, inner, vocab):
    """Name, type, rows, columns (rows 0: a vector)."""
    mixed = quant == "q4_k_m"
    head = "q6_k" if quant == "q4_0" and hidden % 256 == 0 or mixed else quant
    quant = "q4_k" if mixed else quant
    yield "token_embd.weight", quant, vocab, hidden
    yield "output_norm.weight", "f32", 0, hidden
    yield "output.weight", head, vocab, hidden
    for i in range(layers):
        b = f"blk.{i}."
        more = "q6_k" if mixed and more_bits(i, layers) else quant
        yield b + "attn_norm.weight", "f32", 0, hidden
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            kind = more if name == "attn_v" else quant
            yield f"{b}{name}.weight", kind, hidden, hidden
        yield b + "ffn_norm.weight", "f32", 0, hidden
        yield b + "ffn_gate.weight", quant, inner, hidden
        yield b + "ffn_up.weight", quant, inner, hidden
        yield b + "ffn_down.weight", more, hidden, inner


def n_bytes(kind, rows, cols):
    _, values, size = TYPES[kind]
    if cols % values:
        raise SystemExit(f"random_gguf.py: rows of {cols} values are not made "
                         f"of {kind} blocks of {values}")
    return max(rows, 1) * cols // values * size


def half(x):
    return struct.pack("<e", x)


def random_blocks(kind, n, cols):
    """n blocks with a variance of about 1 / cols, so that sums stay small."""
    size = TYPES[kind][2]
    b = bytearray(os.urandom(n * size))
    if kind == "q6_k":  # ql 128, qh 64, 16 scales, d; q is of variance 341
        for i in range(192, 208):
            b[i::size] = bytes([5]) * n
        at, d = 208, half((341 * 25 * cols) ** -0.5)
    elif kind == "q4_k":  # d, dmin, scales and minima of 32, then q in 0..15
        at, size_of_d = 0, (21.25 * 32 * 32 * cols) ** -0.5
        d = half(size_of_d) + half(7.5 * size_of_d)
        d += bytes([0xa0] * 8 + [0] * 4)
    else:  # d, then values of variance 21 (4 bits) or 5461 (8 bits)
        at, d = 0, half(((21 if kind == "q4_0" else 5461) * cols) ** -0.5)
    for i, value in enumerate(d):
        b[at + i::size] = bytes([value]) * n
    return b


def write_data(f, kind, rows, cols):
    left = n_bytes(kind, rows, cols) // TYPES[kind][2]
    if kind == "f32":
        f.write(struct.pack("<f", 1.0) * left)
        return
    while left > 0:
        n = min(left, CHUNK_BLOCKS)
        f.write(random_blocks(kind, n, cols))
        left -= n


def pad(f):
    f.write(bytes(-f.tell() % ALIGNMENT))


def token_bytes(quant, layers, hidden, inner, heads, vocab):
    """What one token reads: all but the embedding."""
    return sum(n_bytes(kind, rows, cols) for name, kind, rows, cols
               in tensors(quant, layers, hidden, inner, vocab)
               if name != "token_embd.weight")


def write(path, quant, layers, hidden, inner, heads, vocab):
    pairs = metadata(quant, layers, hidden, inner, heads, vocab)
    listed = list(tensors(quant, layers, hidden, inner, vocab))
    off = 0
    with open(path, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, len(listed), len(pairs)))
        f.write(b"".join(pairs))
        for name, kind, rows, cols in listed:
            dims = [cols, rows] if rows else [cols]
            f.write(text(name))
            f.write(struct.pack(f"<I{len(dims)}Q", len(dims), *dims))
            f.write(struct.pack("<IQ", TYPES[kind][0], off))
            size = n_bytes(kind, rows, cols)
            off += size + -size % ALIGNMENT
        for _, kind, rows, cols in listed:
            pad(f)
            write_data(f, kind, rows, cols)
        pad(f)


def main(argv):
    if len(argv) != 8 or argv[2] not in FILE_TYPE:
        raise SystemExit(__doc__)
    write(argv[1], argv[2], *(int(v) for v in argv[3:]))


if __name__ == "__main__":
    main(sys.argv)
