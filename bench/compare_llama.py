#!/usr/bin/env python3
"""Runs llama.cpp once, through llama-cpp-python, and prints what it took as
one line of JSON. Called by compare.py, in a process of its own.

    compare_llama.py MODEL.gguf THREADS PROMPT,... GEN MODE

MODE mmap leaves the weights in the file's pages (what a memory limit below
the file's size needs); repack lets llama.cpp rearrange them in memory of its
own for its fastest products, as it does by default.
"""
import ctypes
import json
import os
import sys
import time

import llama_cpp as lc

BATCH = 512  # positions of a pass, llama.cpp's default


def disk_bytes():
    """Bytes this process had the disk read, page faults included."""
    with open("/proc/self/io") as f:
        for line in f:
            if line.startswith("read_bytes:"):
                return int(line.split()[1])
    return 0


def load(path, mode):
    p = lc.llama_model_default_params()
    p.n_gpu_layers = 0
    p.use_extra_bufts = mode == "repack"
    if hasattr(p, "load_mode"):  # mmap since 2026 is one mode of several
        p.load_mode = lc.LLAMA_LOAD_MODE_MMAP
    else:
        p.use_mmap = True
    model = lc.llama_model_load_from_file(path.encode(), p)
    if not model:
        raise SystemExit(f"compare_llama.py: llama.cpp does not load {path}")
    return model


def open_context(model, n_ctx, threads):
    p = lc.llama_context_default_params()
    p.n_ctx = n_ctx
    p.n_batch = p.n_ubatch = BATCH
    p.n_threads = p.n_threads_batch = threads
    context = lc.llama_init_from_model(model, p)
    if not context:
        raise SystemExit("compare_llama.py: llama.cpp makes no context")
    return context


class Runner:
    def __init__(self, context, vocab):
        self.context, self.vocab, self.next = context, vocab, 1

    def feed(self, n):
        """n positions of any tokens; waits for the logits of the last."""
        ids = (lc.llama_token * n)()
        for i in range(n):
            self.next = (self.next * 1103515245 + 12345) % (1 << 31)
            ids[i] = 259 + (self.next >> 8) % (self.vocab - 259)
        rc = lc.llama_decode(self.context, lc.llama_batch_get_one(ids, n))
        if rc != 0:
            raise SystemExit(f"compare_llama.py: llama_decode: {rc}")
        lc.llama_synchronize(self.context)

    def clear(self):
        lc.llama_memory_clear(lc.llama_get_memory(self.context), False)

    def prefill(self, n):
        for at in range(0, n, BATCH):
            self.feed(min(BATCH, n - at))


def measure(runner, prompts, gen):
    """Prefills of every length, then steps after the last of them."""
    result = {"prefill": {}}
    runner.prefill(min(prompts))
    runner.feed(1)
    for n in prompts:
        runner.clear()
        begin = time.perf_counter()
        runner.prefill(n)
        result["prefill"][str(n)] = n / (time.perf_counter() - begin)
    runner.clear()
    runner.prefill(min(prompts))
    runner.feed(1)
    before, begin = disk_bytes(), time.perf_counter()
    for _ in range(gen):
        runner.feed(1)
    seconds = time.perf_counter() - begin
    result["decode"] = gen / seconds
    result["disk_bytes_per_token"] = (disk_bytes() - before) / gen
    return result


def main(path, threads, prompts, gen, mode):
    quiet = lc.llama_log_callback(lambda level, text, data: None)
    lc.llama_log_set(quiet, ctypes.c_void_p(0))
    prompts = [int(n) for n in prompts.split(",")]
    lc.llama_backend_init()
    begin = time.perf_counter()
    model = load(path, mode)
    n_ctx = max(prompts) + int(gen) + 16
    context = open_context(model, n_ctx, int(threads))
    vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
    seconds = time.perf_counter() - begin
    result = measure(Runner(context, vocab), prompts, int(gen))
    result["load_seconds"] = seconds
    result["system"] = lc.llama_print_system_info().decode().strip()
    result["version"] = lc.__version__
    print(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)  # freeing gigabytes takes time that nobody measures


if __name__ == "__main__":
    if len(sys.argv) != 6 or sys.argv[5] not in ("mmap", "repack"):
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
