#!/usr/bin/python3
"""eval_plain.py - what 'sluice eval' scores, computed once more and plainly

    eval_plain.py SLUICE MODEL JOURNAL KIND FILE [KIND FILE...]

For every task (KIND and its only data file) all log-probabilities of the
journal are compared with those made of 'sluice logits', one sequence at a
time: every choice behind its whole context, every window by itself. KIND is
mul, mul-gmask, mul-causal, lm, lm-causal; the Python standard library alone.
"""
import array
import json
import math
import os
import re
import struct
import subprocess
import sys
import tempfile

SLUICE, MODEL = sys.argv[1:3]
WINDOW, STRIDE = 63, 16          # lm: max_seq_length 64, generation_length 16


def run(*args):
    return subprocess.run([SLUICE, *args], check=True, stdout=subprocess.PIPE).stdout.decode()


def encode(text):
    if not text:
        return []
    return json.loads(run("tokenize", "-m", MODEL, "--plain", "--json", text))["ids"]


def special(name):
    return json.loads(run("tokenize", "-m", MODEL, "--json", name))["ids"][-1]


def read_npy(path):
    data = open(path, "rb").read()
    n = struct.unpack("<H", data[8:10])[0]
    head = data[10:10 + n].decode()
    rows, cols = [int(x) for x in head[head.index("(") + 1:head.index(")")].split(",")]
    return cols, array.array("f", data[10 + n:])


def logp(samples):
    """samples: (object for 'logits', targets of its last rows) -> log-probabilities"""
    with tempfile.TemporaryDirectory() as d:
        source, out = os.path.join(d, "in.json"), os.path.join(d, "out.npy")
        json.dump([s for s, _ in samples], open(source, "w"))
        run("logits", "-q", "-m", MODEL, "--activations", "f32", "-i", source, "-o", out)
        cols, values = read_npy(out)
    row, result = 0, []
    for s, targets in samples:
        rows = len(s["answer"])
        for k, target in enumerate(targets):
            at = (row + rows - len(targets) + k) * cols
            v = values[at:at + cols]
            top = max(v)
            result.append(v[target] - top - math.log(sum(math.exp(x - top) for x in v)))
        row += rows
    return result


def choices(item, mask, run_on):
    samples = []
    for choice in item["choices_pretokenized"]:
        ids, answer = encode(item["inputs_pretokenized"]), encode(choice)
        context = ids + [mask]
        n = len(context)
        places = [n + i if run_on else n - 1 for i in range(len(answer))]
        samples.append(({"context": context, "answer": [SOP] + answer[:-1],
                         "positions": list(range(n)) + places}, answer))
    return logp(samples)


def choices_causal(item):
    samples = []
    for choice in item["choices_pretokenized"]:
        text = item["inputs_pretokenized"]
        head = encode(re.sub(r"\s+$", "", text))
        tail = encode(text + choice)[len(head):]
        ids = [GMASK, SOP] + head + tail[:-1]
        samples.append(({"context": ids[:1], "answer": ids[1:],
                         "positions": list(range(len(ids)))}, tail))
    return logp(samples)


def windows(text, causal):
    ids, at, result = encode(text), 0, []
    while True:
        part = ids[at:at + WINDOW]
        scored = part if at == 0 else part[WINDOW - STRIDE:]
        prompt = part[:len(part) - len(scored)]
        if causal:
            seq = [GMASK, SOP] + part[:-1]
            sample = {"context": seq[:1], "answer": seq[1:], "positions": list(range(len(seq)))}
        else:
            context, answer = prompt + [GMASK], [SOP] + scored[:-1]
            sample = {"context": context, "answer": answer,
                      "positions": list(range(len(context) + len(answer)))}
        result.append(logp([(sample, scored)]))
        if at + WINDOW >= len(ids):
            return result
        at += STRIDE


GMASK, MASK, SOP = special("[gMASK]"), special("[MASK]"), special("<sop>")
entries = [json.loads(line) for line in open(sys.argv[3])][1:]
worst, count = 0.0, 0
for task, (kind, file) in enumerate(zip(sys.argv[4::2], sys.argv[5::2])):
    if kind.startswith("lm"):
        wanted = windows(open(file).read(), kind == "lm-causal")
    else:
        items = [json.loads(line) for line in open(file) if line.strip()]
        wanted = [choices_causal(i) if kind == "mul-causal" else
                  choices(i, MASK if kind == "mul" else GMASK, kind == "mul-gmask") for i in items]
    mine = {e["unit"]: e["logp"] for e in entries if e["task"] == task}
    if sorted(mine) != list(range(len(wanted))):
        sys.exit(f"task {task}: units {sorted(mine)}, wanted {len(wanted)}")
    for unit, values in enumerate(wanted):
        if len(values) != len(mine[unit]):
            sys.exit(f"task {task}, unit {unit}: {len(mine[unit])} values, wanted {len(values)}")
        for a, b in zip(mine[unit], values):
            worst, count = max(worst, abs(a - b)), count + 1
print(f"{count} log-probabilities differ by {worst:.2g} at most")
sys.exit(worst > 1e-5 or count == 0)
