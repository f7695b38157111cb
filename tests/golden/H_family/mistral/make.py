#!/usr/bin/env python3
"""make.py FOLDER: a small Mistral as a Hugging Face folder (FOLDER/hf), and what
transformers computes with it (FOLDER/cases.npz, cases.json).

Needs torch and transformers; 2.15.0 and 5.24.0 made what is here. Heads are
wider than hidden / heads, as in Mistral-Nemo; weights are exact in BF16, F16
and F32, two channels of the embedding and of a norm are outliers."""
import io
import json
import os
import sys
import zipfile

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

SEED = 1283
IDS = {"a": 5, "b": 20, "c": 48}
NEW = 16


def weights(model, rng):
    for name, p in model.state_dict().items():
        shape = tuple(p.shape)
        if len(shape) == 1:
            w = 1 + 0.2 * rng.standard_normal(shape)
            if "input_layernorm" in name:
                w[[3, 11]] *= 4
        else:
            w = rng.standard_normal(shape) / np.sqrt(shape[1])
            if "embed_tokens" in name:
                w *= np.sqrt(shape[1])
                w[:, [5, 17]] *= 4
            elif "lm_head" in name:
                w *= 3
        yield name, torch.tensor(w, dtype=torch.float32).bfloat16()


def npy(a):
    out = io.BytesIO()
    np.save(out, a)
    return out.getvalue()


def greedy(model, ids):
    for _ in range(NEW):
        logits = model(torch.tensor([ids])).logits[0, -1]
        ids = ids + [int(logits.argmax())]
    return ids[-NEW:]


def main(folder):
    hf = os.path.join(folder, "hf")
    os.makedirs(hf, exist_ok=True)
    config = transformers.MistralConfig(
        vocab_size=256, hidden_size=48, intermediate_size=80,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, max_position_embeddings=4096, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        sliding_window=None, tie_word_embeddings=False)
    config._attn_implementation = "eager"
    model = transformers.MistralForCausalLM(config).eval()
    w = dict(weights(model, np.random.default_rng(SEED)))
    model.load_state_dict({k: v.float() for k, v in w.items()})
    save_file(w, os.path.join(hf, "model.safetensors"),
              metadata={"format": "pt"})
    config.architectures = ["MistralForCausalLM"]
    config.dtype = "bfloat16"
    config.save_pretrained(hf)
    rng = np.random.default_rng(SEED + 1)
    cases, arrays = {}, {}
    for name, n in IDS.items():
        ids = [1] + rng.integers(3, 256, n - 1).tolist()
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].numpy()
            cases[name] = {"ids": ids, "greedy": greedy(model, ids)}
        arrays[name + ".ids"] = np.array(ids, dtype=np.int32)
        arrays[name + ".logits"] = logits
    with zipfile.ZipFile(os.path.join(folder, "cases.npz"), "w") as z:
        for name, a in arrays.items():
            z.writestr(zipfile.ZipInfo(name + ".npy"), npy(a))
    with open(os.path.join(folder, "cases.json"), "w") as out:
        json.dump({"model": "mistral", "seed": SEED,
                   "reference": "transformers %s, torch %s, CPU, float32, "
                                "eager attention" %
                                (transformers.__version__, torch.__version__),
                   "cases": cases}, out)
        out.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
