#!/usr/bin/env python3
"""Writes scaled.txt: the frequencies that transformers gives.

    python3 make.py MODELING_ROPE_UTILS.py > scaled.txt

The argument is huggingface/transformers src/transformers/modeling_rope_utils.py
(5.2.0 was used: `pip download transformers==5.2.0 --no-deps`, then unzip); it
is run as it is, under torch (1.13, Debian's python3-torch), which is all that it
needs. A case is a line `case KIND FACTOR ORIGINAL LOW HIGH ATTENTION BASE DIM
POSITION` (0: not said in the config), then `factor` with what cos and sin are
multiplied by, then a line `frequency` for each pair of a head.
"""
import sys
import types

import torch

CASES = [
    # what                kind       factor original  low high attention base  dim at
    ("Qwen2.5 at 128k", "yarn", 4, 32768, 0, 0, 0, 1e6, 128, 0),
    ("GLM-4-0414 at 128k", "yarn", 4, 32768, 0, 0, 0, 1e4, 64, 0),
    ("betas and a factor", "yarn", 8, 4096, 2, 48, 1.25, 5e5, 96, 0),
    ("Llama 3.1", "llama3", 8, 8192, 1, 4, 0, 5e5, 128, 0),
    ("Llama 3.2", "llama3", 32, 8192, 1, 4, 0, 5e5, 64, 0),
    ("within", "dynamic", 2, 2048, 0, 0, 0, 1e4, 64, 2047),
    ("beyond", "dynamic", 2, 2048, 0, 0, 0, 1e4, 64, 4999),
    ("far beyond", "dynamic", 8, 4096, 0, 0, 0, 1e4, 128, 32767),
    ("linear", "linear", 4, 2048, 0, 0, 0, 1e4, 64, 0),
]


def load(path):
    """The module of one file; what it takes of its package stands in here."""
    package = types.ModuleType("rope")
    package.__path__ = []
    utils = types.ModuleType("rope.utils")
    utils.is_torch_available = lambda: True
    logger = types.SimpleNamespace(warning=print, warning_once=print)
    utils.logging = types.SimpleNamespace(get_logger=lambda _: logger)
    module = types.ModuleType("rope.modeling")
    module.__package__ = "rope"
    sys.modules.update({"rope": package, "rope.utils": utils,
                        "rope.modeling": module})
    exec(compile(open(path).read(), path, "exec"), module.__dict__)
    return module


def config(kind, factor, original, low, high, attention, base, dim):
    rope = {"rope_type": kind, "rope_theta": base, "factor": float(factor)}
    if kind in ("yarn", "llama3"):
        rope["original_max_position_embeddings"] = original
    names = {"yarn": ("beta_slow", "beta_fast"),
             "llama3": ("low_freq_factor", "high_freq_factor")}.get(kind)
    if names and low:
        rope.update(zip(names, (low, high)))
    if attention:
        rope["attention_factor"] = attention
    return types.SimpleNamespace(
        rope_parameters=rope, standardize_rope_params=lambda: None,
        head_dim=dim, hidden_size=dim, num_attention_heads=1,
        max_position_embeddings=original)


def main():
    functions = load(sys.argv[1]).ROPE_INIT_FUNCTIONS
    for name, kind, *rest, at in CASES:
        c = config(kind, *rest)
        f, factor = functions[kind](c, "cpu", seq_len=at + 1)
        print("case", kind, *("%.9g" % v for v in (*rest, at)))
        print("factor %.9g" % factor)
        for v in f.tolist():
            print("frequency %.9g" % v)


main()
