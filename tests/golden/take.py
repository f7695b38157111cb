#!/usr/bin/env python3
"""What of the golden data is kept here: take.py GOLDEN FOLDER

Copies from GOLDEN, the whole of the golden data, into FOLDER (tests/golden)
the files of the list below, and leaves out of .npz files the arrays that no
test needs and the rows of tables beyond ROWS. Standard library alone.
"""
import ast
import os
import shutil
import sys
import zipfile

# The models of one architecture each, as their publishers would offer them.
MODELS = ("chatglm3", "glm4_0414", "glm4_9b_hf", "llama", "llama3_rope",
          "qwen2", "qwen3")
TAKEN = (
    ["A_glm130b/g130_a/" + name for name in
     ("cases.json", "cases.npz", "tp1", "tp2", "int8_tp1", "int8_tp2",
      "int4_tp1", "int4_tp2")] +
    ["B_sampling"] +
    ["C_chatglm6b/c6_a/" + name for name in
     ("cases.json", "cases.npz", "hf", "hf_int8", "hf_int4", "hf_int4_qe",
      "hf_ptuning", "hf_ptuning_proj")] +
    ["D_glm/glm_a", "E_pickle_variants"] +
    ["F_rotary_and_layers/rotary_tables.npz", "G_tokenizers"] +
    ["H_family/%s/%s" % (model, name) for model in MODELS for name in
     ("cases.json", "cases.npz", "hf")] +
    ["H_family/%s/%s" % (model, name) for model, file in
     (("glm4_0414", "glm4_0414-Q4_0"), ("llama3_rope", "llama3_rope-F16"))
     for name in ("gguf/%s.gguf" % file, "gguf_cases.npz")] +
    ["H_family/blocks", "H_family/tokenizer", "H_family/smollm2/cases.json"])
# Runs in half precision, variants whose checkpoints stay behind, and what blocks
# were made from.
LEFT_OUT = ("logitsB_f16", "_halfdeq", "_tp4", ".source", "llama_last6",
            "Q8_0.exact")
# Of tables with a row a position; what rounding does shows at 1024 as well as
# at 2048.
ROWS = {"rotary_tables.npz": 1024}


def first_rows(npy, rows):
    """The .npy file of an array's first rows."""
    size = int.from_bytes(npy[8:10], "little")
    head = ast.literal_eval(npy[10:10 + size].decode())
    n, shape = head["shape"][0], head["shape"]
    if len(shape) < 2 or n <= rows:
        return npy
    data = npy[10 + size:]
    text = "{'descr': %r, 'fortran_order': False, 'shape': %r, }" % (
        head["descr"], (rows,) + shape[1:])
    return npy[:10] + text.ljust(size - 1).encode() + b"\n" + \
        data[:len(data) // n * rows]


def take_arrays(source, to):
    rows = ROWS.get(os.path.basename(source))
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(to, "w") as new:
        for info in old.infolist():
            if info.filename[:-len(".npy")].endswith(LEFT_OUT):
                continue
            data = old.read(info)
            if rows:
                data = first_rows(data, rows)
            new.writestr(zipfile.ZipInfo(info.filename), data)


def take(source, to):
    if os.path.isdir(source):
        for name in sorted(os.listdir(source)):
            take(os.path.join(source, name), os.path.join(to, name))
        return
    os.makedirs(os.path.dirname(to), exist_ok=True)
    if source.endswith(".npz"):
        take_arrays(source, to)
    else:
        shutil.copyfile(source, to)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__.split("\n")[0])
    for name in TAKEN:
        take(os.path.join(sys.argv[1], name), os.path.join(sys.argv[2], name))
