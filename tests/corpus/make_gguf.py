#!/usr/bin/env python3
"""Writes tests/corpus/gguf/values: a GGUF header with one key of every type,
arrays in arrays, and two tensors, for fuzz_gguf to begin with."""
import struct
import sys

SCALARS = "BbHhIif?"  # types 0 to 7; 10 to 12 are Q, q, d


def string(s):
    return struct.pack("<Q", len(s)) + s.encode()


def key(name, kind, value):
    return string(name) + struct.pack("<I", kind) + value


def array(kind, *items):
    return struct.pack("<IQ", kind, len(items)) + b"".join(items)


keys = [key("general.alignment", 4, struct.pack("<I", 64))]
for kind, code in list(enumerate(SCALARS)) + [(10, "Q"), (11, "q"), (12, "d")]:
    one = struct.pack("<" + code, 1)
    keys.append(key(f"scalar.{kind}", kind, one))
    keys.append(key(f"array.{kind}", 9, array(kind, one, one)))
keys.append(key("string", 8, string("GLM-130B")))
keys.append(key("strings", 9, array(8, string("a"), string(""))))
keys.append(key("arrays", 9, array(9, array(8, string("x")), array(0))))
tensors = [
    string("a") + struct.pack("<IQQIQ", 2, 3, 5, 0, 0),
    string("b") + struct.pack("<IQIQ", 1, 7, 24, 64),
]
with open(sys.argv[1], "wb") as f:
    f.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)))
    f.write(b"".join(keys + tensors))
