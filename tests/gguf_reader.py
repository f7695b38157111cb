#!/usr/bin/env python3
"""Opens a model file with PyPI's gguf package and compares what it lists with
`sluice inspect --json`:  gguf_reader.py MODEL.gguf MODEL.json"""
import json
import sys

from gguf import GGUFReader


def main(model, report):
    with open(report) as f:
        ours = json.load(f)
    reader = GGUFReader(model)
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
