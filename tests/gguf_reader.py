#!/usr/bin/env python3
"""Opens a model file and compares what is listed in it with `sluice inspect
--json`:  gguf_reader.py MODEL.gguf MODEL.json

Reads with PyPI's gguf package where this Python has it, else with the little
reader below, written from ggml-org/ggml docs/gguf.md and nothing of sluice's.
"""
import json
import struct
import sys
from types import SimpleNamespace

try:
    from gguf import GGUFReader
except ImportError:
    GGUFReader = None

# ggml's number of a type: values and bytes of a block (ggml-org/ggml
# src/ggml-common.h).
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24),
    8: (32, 34), 10: (256, 84), 11: (256, 110), 12: (256, 144),
    13: (256, 176), 14: (256, 210), 24: (1, 1), 25: (1, 2), 26: (1, 4),
    27: (1, 8), 28: (1, 8), 30: (1, 2),
}
SCALARS = "BbHhIif?"  # types of values 0 to 7; then string, array, "Qqd"
STRING, ARRAY = 8, 9


class PlainReader:
    def __init__(self, path):
        with open(path, "rb") as f:
            self.file = f
            magic, version, n_tensors, n_keys = self.take("4sIQQ")
            if magic != b"GGUF" or version != 3:
                raise ValueError("%r, version %d" % (magic, version))
            self.fields = {}
            for _ in range(n_keys):
                key = self.text()
                self.fields[key] = self.value(self.take("I")[0])
            self.alignment = self.fields.get("general.alignment", 32)
            self.tensors = [self.tensor() for _ in range(n_tensors)]
            begin = f.tell() + -f.tell() % self.alignment
            end = f.seek(0, 2)
        for t in self.tensors:
            t.data_offset += begin
            if t.data_offset + t.n_bytes > end:
                raise ValueError("%s ends behind the file" % t.name)

    def take(self, form):
        form = "<" + form
        return struct.unpack(form, self.file.read(struct.calcsize(form)))

    def text(self):
        return self.file.read(self.take("Q")[0]).decode()

    def value(self, kind):
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            kind, n = self.take("IQ")
            return [self.value(kind) for _ in range(n)]
        letter = SCALARS[kind] if kind < STRING else "Qqd"[kind - 10]
        return self.take(letter)[0]

    def tensor(self):
        name, n_dims = self.text(), self.take("I")[0]
        shape = self.take("%dQ" % n_dims)
        kind, offset = self.take("IQ")
        per, size = BLOCKS[kind]
        n = size
        for i, length in enumerate(shape):
            if i == 0 and length % per:
                raise ValueError("%s: rows of %d" % (name, length))
            n *= length // per if i == 0 else length
        return SimpleNamespace(name=name, data_offset=offset, n_bytes=n)


def main(model, report):
    with open(report) as f:
        ours = json.load(f)
    reader = (GGUFReader or PlainReader)(model)
    theirs = {t.name: t for t in reader.tensors}
    listed = {t["name"]: t for t in ours["tensors"]}
    if set(theirs) != set(listed):
        return f"tensors differ: {sorted(set(theirs) ^ set(listed))[:10]}"
    for name, t in theirs.items():
        want = listed[name]
        if int(t.data_offset) != want["offset"]:
            return f"{name}: at {t.data_offset}, not {want['offset']}"
        if int(t.n_bytes) != want["bytes"]:
            return f"{name}: {t.n_bytes} bytes, not {want['bytes']}"
        if t.data_offset % reader.alignment:
            return f"{name}: at {t.data_offset}, not aligned"
    print(f"{model}: {len(theirs)} tensors, {len(reader.fields)} fields")
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
