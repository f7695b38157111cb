#!/usr/bin/env python3
"""Seeds of the fuzzers of checkpoints: make_ckpt.py FOLDER SHARED

SHARED is the folder with golden/; what torch wrote is taken
from there, the rest is made with the standard library alone.
"""
import argparse
import collections
import io
import json
import os
import pickle
import struct
import sys
import tarfile
import zipfile

OUT, SHARED = sys.argv[1:]
GOLDEN = os.path.join(SHARED, "golden", "E_pickle_variants")


def write(kind, name, data):
    os.makedirs(os.path.join(OUT, kind), exist_ok=True)
    with open(os.path.join(OUT, kind, name), "wb") as f:
        f.write(data)


def values():
    ordered = collections.OrderedDict(a=1, b=[1.5, -2, 2**40, 2**100])
    ring = [ordered]
    ring.append(ring)
    return {
        "text": ["plain", "\u00e9\n\\", b"bytes", bytearray(b"array")],
        "sets": [{1, 2}, frozenset([3])],
        "foreign": argparse.Namespace(x=(1, (2, (3, True, None)))),
        "ring": ring,
        7: complex(1, 2),
    }


def tar(form):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as t:
        for name in ("top/latest", "top/" + 150 * "x" + "/data"):
            info = tarfile.TarInfo(name)
            info.size = 5
            t.addfile(info, io.BytesIO(b"49300"))
    return out.getvalue()[:6144]


for protocol in range(6):
    write("pickle", "values-%d" % protocol, pickle.dumps(values(), protocol))
for name in ("legacy_module", "legacy_shared_flat"):
    with open(os.path.join(GOLDEN, name + ".pt"), "rb") as f:
        write("pickle", name, f.read())
for name in ("zip_strided", "zip64_all"):
    path = os.path.join(GOLDEN, name + ".pt")
    with open(path, "rb") as f:
        write("zip", name, f.read())
    with zipfile.ZipFile(path) as z:
        pkl = [n for n in z.namelist() if n.endswith("/data.pkl")]
        write("pickle", name, z.read(pkl[0]))
write("tar", "ustar", tar(tarfile.USTAR_FORMAT))
write("tar", "gnu", tar(tarfile.GNU_FORMAT))
write("tar", "pax", tar(tarfile.PAX_FORMAT))


def safetensors(tensors):
    sizes = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I64": 8, "I8": 1}
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape in tensors:
        end = at + sizes[dtype]
        for n in shape:
            end = at + (end - at) * n
        header[name] = {"dtype": dtype, "shape": shape,
                        "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(i % 251
                                                       for i in range(at))


write("safetensors", "types", safetensors([
    ("model.embed_tokens.weight", "BF16", [5, 4]),
    ("a", "F16", [3]), ("b", "F32", [2, 2]), ("c", "I8", [1, 1, 3, 1]),
    ("d", "F64", []), ("e", "I64", [0, 9])]))
write("safetensors", "one", safetensors([("w", "I8", [1])]))
for folder in ("C_chatglm6b/c6_a/hf_int4_qe", "H_family/chatglm3/hf",
               "H_family/llama3_rope/hf", "A_glm130b/g130_a/tp1"):
    path = os.path.join(SHARED, "golden", folder, "config.json")
    if os.path.exists(path):
        with open(path, "rb") as f:
            write("config", folder.replace("/", "-"), f.read())
with open(os.path.join(SHARED, "golden", "C_chatglm6b", "c6_a", "hf_sharded",
                       "pytorch_model.bin.index.json"), "rb") as f:
    write("config", "index", f.read())
