#!/usr/bin/env python3
"""Runs sluice and llama.cpp in turns on this machine, on random weights of
the same shapes, all in memory and within the same memory limit, and prints
both with their ratios. With --moe it is a mixture of experts, some layers of
GLM-4.5-Air, whose prompts are measured within the limit, too. Called by the
script `compare` beside it."""
import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

import random_gguf

HERE = os.path.dirname(os.path.abspath(__file__))
SHAPES = {  # layers, hidden, inner, heads, vocabulary: presets of sluice synth
    "7b": (32, 4096, 11008, 32, 32000),
    "tiny": (8, 256, 704, 8, 8192),
}
MOE = "glm-4.5-air"  # another preset, of as many layers as --layers says
MIB = 1 << 20


def say(text):
    print(text, file=sys.stderr, flush=True)


# --- memory limits ----------------------------------------------------------


class Group:
    """A control group with a memory limit, where one can be made."""

    def __init__(self, limit):
        self.path = self.why = None
        makers = {
            "v1": ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            "v2": (self.own_v2(), "memory.max"),
        }
        for parent, knob in makers.values():
            if parent is None or not os.path.exists(parent + "/cgroup.procs"):
                continue
            path = f"{parent}/sluice-compare-{os.getpid()}"
            try:
                os.mkdir(path)
                self.path = path
                with open(f"{path}/{knob}", "w") as f:
                    f.write(str(limit))
                self.no_swap()
                return
            except OSError as e:
                self.why = f"{path}: {e.strerror}"
                self.close()
        self.why = self.why or "no memory controller of control groups here"

    @staticmethod
    def own_v2():
        """This process's own group, where groups are of the second kind."""
        if not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
            return None
        with open("/proc/self/cgroup") as f:
            for line in f:
                if line.startswith("0::"):
                    return "/sys/fs/cgroup" + line[3:].strip().rstrip("/")
        return None

    def no_swap(self):
        try:
            with open(self.path + "/memory.swap.max", "w") as f:
                f.write("0")
        except OSError:
            pass  # kernels without swap accounting have no such file

    def enter(self):
        """For the child, between fork and exec."""
        with open(self.path + "/cgroup.procs", "w") as f:
            f.write(str(os.getpid()))

    def close(self):
        if self.path is not None:
            try:
                os.rmdir(self.path)
            except OSError:
                pass
        self.path = None


def forget(path):
    """Drops a file's pages from the page cache: a limited run must not find
    what an unlimited one left there."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def beside_budget():
    """What sluice bench takes beside --ram to measure memory with."""
    got = subprocess.run(["getconf", "LEVEL3_CACHE_SIZE"],
                         stdout=subprocess.PIPE).stdout.strip()
    cache = int(got) if got.isdigit() else 0
    return min(max(2 * cache, 64 * MIB), 512 * MIB) + 16 * MIB


# --- runs -------------------------------------------------------------------


def run(command, group=None):
    enter = group.enter if group else None
    done = subprocess.run(command, preexec_fn=enter, stdout=subprocess.PIPE)
    if done.returncode != 0:
        raise SystemExit(f"compare: status {done.returncode} from "
                         f"{' '.join(command)}")
    return done.stdout.decode()


def run_sluice(o, prompts, gen, ram, group=None):
    """Figures of one turn, as run_llama has them."""
    command = [o.sluice, "bench", "-m", o.model, "--json", "--repeat", "1",
               "--threads", str(o.threads), "--ram", ram, "--gen", str(gen),
               "--prompt", ",".join(str(n) for n in prompts)]
    if o.isa:
        command += ["--isa", o.isa]
    r = {"prefill": {}}
    for line in run(command, group).splitlines():
        v = json.loads(line)
        if v["phase"] == "prefill":
            r["prefill"][str(v["prompt"])] = v["tokens_per_s"]
        elif v["prompt"] == min(prompts):
            r["decode"] = v["tokens_per_s"]
            r["disk_bytes_per_token"] = v["disk_bytes_per_pass"]
            r["efficiency"] = v["efficiency"]
            r["dram_bytes_per_token"] = v["dram_bytes_per_pass"]
    return r


def run_llama(o, prompts, gen, mode, group=None):
    command = [sys.executable, HERE + "/compare_llama.py", o.gguf,
               str(o.threads), ",".join(str(n) for n in prompts), str(gen),
               mode]
    return json.loads(run(command, group))


def tell(rows):
    """A round's figures, for those who watch."""
    for name, ours, theirs, _ in rows:
        say(f"  {name}: sluice {ours:.4g}, llama.cpp {theirs:.4g} tokens/s, "
            f"ratio {ours / theirs:.2f}")


def in_memory(o):
    rows = []
    for i in range(o.rounds):
        say(f"all in memory: round {i + 1} of {o.rounds}")
        ours = run_sluice(o, o.prompts, o.gen, "auto")
        theirs = run_llama(o, o.prompts, o.gen, "repack")
        new = [(f"prefill {n}", ours["prefill"][str(n)],
                theirs["prefill"][str(n)], {}) for n in o.prompts]
        read = ours["dram_bytes_per_token"] if o.moe else o.token_bytes
        new.append(("decode", ours["decode"], theirs["decode"], {
            "sluice_bytes_per_s": ours["decode"] * read,
            "llama_bytes_per_s": theirs["decode"] * o.gguf_bytes,
        }))
        tell(new)
        rows += new
    return rows


def limited(o):
    limit = int(o.model_bytes * o.limit / 100)
    ram = limit - beside_budget()
    rows, gen, prompts = [], max(2, o.gen // 4), [min(o.prompts)]
    if o.moe:  # which experts are there takes some tokens to tell
        gen, prompts = o.gen, o.prompts
    if ram < 32 * MIB:
        say(f"skipped: a limit of {limit >> 20} MiB leaves no budget beside "
            f"the {beside_budget() >> 20} MiB that measuring takes")
        return rows
    for i in range(o.rounds):
        say(f"limit of {limit >> 20} MiB: round {i + 1} of {o.rounds}")
        group = Group(limit)
        if group.path is None:
            say(f"skipped: no group with a memory limit ({group.why})")
            return rows
        forget(o.model)
        forget(o.gguf)
        try:
            ours = run_sluice(o, prompts, gen, str(ram), group)
            theirs = run_llama(o, prompts, gen, "mmap", group)
        finally:
            group.close()
        within = f", {o.limit:g} % of memory"
        new = [(f"prefill {n}{within}", ours["prefill"][str(n)],
                theirs["prefill"][str(n)], {}) for n in prompts if o.moe]
        new.append((f"decode{within}", ours["decode"], theirs["decode"], {
            "sluice_disk_bytes_per_token": ours["disk_bytes_per_token"],
            "llama_disk_bytes_per_token": theirs["disk_bytes_per_token"],
            "sluice_efficiency": ours["efficiency"],
        }))
        tell(new)
        rows += new
    forget(o.gguf)
    return rows


# --- results ----------------------------------------------------------------


def summarise(rows):
    """What belongs to one name becomes one line, medians over the rounds."""
    lines = []
    for name in dict.fromkeys(row[0] for row in rows):
        mine = [row for row in rows if row[0] == name]
        ours, theirs = [r[1] for r in mine], [r[2] for r in mine]
        ratios = [a / b for a, b in zip(ours, theirs)]
        line = {"what": name, "rounds": len(mine)}
        for key, v in (("sluice", ours), ("llama", theirs), ("ratio", ratios)):
            line[key] = statistics.median(v)
            line[key + "_least"], line[key + "_most"] = min(v), max(v)
        for key in mine[0][3]:
            line[key] = statistics.median(row[3][key] for row in mine)
        lines.append(line)
    return lines


def print_table(o, lines):
    what = f"{MOE}, {o.layers} layers" if o.moe else o.preset
    ours, theirs, of = o.token_bytes, o.gguf_bytes, " a token"
    if o.moe:
        ours, theirs, of = o.model_bytes, os.path.getsize(o.gguf), ""
    print(f"\n{what}, {o.threads} threads: sluice {o.quant}, head {o.head} "
          f"({ours / 1e9:.2f} GB{of}) and llama.cpp {o.type} "
          f"({theirs / 1e9:.2f} GB); "
          f"tokens/s, medians of {o.rounds} rounds\n")
    print(f"{'':28} {'sluice':>8} {'least .. most':>17} {'llama.cpp':>9} "
          f"{'least .. most':>17} {'ratio':>6} {'least .. most':>15}")
    for v in lines:
        spread = {k: f"{v[k + '_least']:.4g} .. {v[k + '_most']:.4g}"
                  for k in ("sluice", "llama", "ratio")}
        print(f"{v['what']:28} {v['sluice']:8.4g} {spread['sluice']:>17} "
              f"{v['llama']:9.4g} {spread['llama']:>17} {v['ratio']:6.2f} "
              f"{spread['ratio']:>15}")
        for unit in ("bytes_per_s", "disk_bytes_per_token"):
            if "sluice_" + unit in v:
                what = {"bytes_per_s": "GB/s of weights",
                        "disk_bytes_per_token": "GB from disk a token"}[unit]
                a, b = v["sluice_" + unit], v["llama_" + unit]
                ratio = f"{a / b:6.2f}" if b else f"{'':6}"
                print(f"  {what:26} {a * 1e-9:8.3g} {'':17} {b * 1e-9:9.3g} "
                      f"{'':17} {ratio}")


def print_json(o, lines):
    for v in lines:
        v.update(preset=o.preset, layers=o.layers if o.moe else None,
                 threads=o.threads, quant=o.quant, head=o.head, isa=o.isa,
                 llama_type=o.type, sluice_bytes=o.model_bytes,
                 llama_bytes=o.gguf_bytes, command=" ".join(sys.argv))
        print(json.dumps(v))


# --- command ----------------------------------------------------------------


def parse():
    p = argparse.ArgumentParser(prog="bench/compare", description=__doc__)
    p.add_argument("--sluice", default="./sluice", help="the program to run")
    p.add_argument("--dir", help="folder for the two model files, which are "
                   "kept and used again (default: a temporary one here)")
    p.add_argument("--file", help="a GGUF file, or a part of one, that both run "
                   "in place of random weights: sluice what it converts to; "
                   "whole files count as what a token reads")
    p.add_argument("--preset", choices=SHAPES, default="7b")
    p.add_argument("--moe", action="store_true", help=f"in place of a preset: "
                   f"layers of {MOE}, whose experts are chosen evenly; INT4 "
                   "in groups of 64 unless --quant says otherwise, and prompts "
                   "of every length within the limit, too")
    p.add_argument("--layers", type=int, default=4, help="of --moe, the first "
                   "without experts (default: 4; 5 GB in either file, another "
                   "1.3 for every layer)")
    p.add_argument("--quant", help="int4, the default, int4-g64, int8 ..., "
                   "or keep: what llama.cpp's file converts to")
    p.add_argument("--head", default="int8-g64", help="f16 or int8-g64")
    p.add_argument("--type", choices=random_gguf.FILE_TYPE,
                   help="llama.cpp's (default: q4_0 for int4 and keep, else "
                   "q8_0)")
    p.add_argument("--isa", help="sluice's kernels, as for sluice bench "
                   "(default: the best there is)")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--prompts", default="128,512", help="positions of prompts")
    p.add_argument("--gen", type=int, default=16, help="tokens decoded")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--limit", type=float, metavar="PERCENT",
                   help="memory limit, of sluice's file; 0: leave that part "
                   "out (default: 40, of --moe 35)")
    p.add_argument("--only-limit", action="store_true",
                   help="leave out the part that is all in memory")
    p.add_argument("--json", action="store_true",
                   help="a line of JSON for each result")
    o = p.parse_args()
    o.prompts = [int(n) for n in o.prompts.split(",")]
    if o.moe and o.file is not None:
        p.error("--moe and --file are two kinds of models")
    if o.layers < 2:
        p.error("--moe has a layer without experts: --layers 2 at least")
    o.quant = o.quant or ("int4-g64" if o.moe else "int4")
    if o.limit is None:
        o.limit = 35 if o.moe else 40
    if o.moe:
        o.preset, o.shape = MOE, random_gguf.Glm45Air(o.layers)
    else:
        o.shape = random_gguf.Llama(*SHAPES[o.preset])
    small = o.quant.startswith("int4") or o.quant == "keep"
    o.type = o.type or ("q4_0" if small else "q8_0")
    if o.file is not None:
        o.preset, o.quant = os.path.basename(o.file), "keep"
        o.type = "the same"
        if not os.path.exists(o.file):
            p.error(f"no file {o.file}")
    if o.quant == "keep":
        o.head = "as it is"
    if shutil.which(o.sluice) is None:
        p.error(f"no program {o.sluice}; give one with --sluice")
    return o


def take_file(o, folder):
    """The file itself for llama.cpp, which wants the first of its parts."""
    part = re.fullmatch(r"(.*)-(\d{5})-of-(\d{5})\.gguf", o.file)
    o.gguf = o.file
    parts = [o.file]
    if part:
        parts = [f"{part[1]}-{i + 1:05}-of-{part[3]}.gguf"
                 for i in range(int(part[3]))]
        o.gguf = parts[0]
    o.model = f"{folder}/{os.path.basename(o.gguf)[:-len('.gguf')]}-sluice.gguf"
    if not os.path.exists(o.model):
        say(f"converting {o.file}")
        run([o.sluice, "convert", "-q", o.file, "-o", o.model])
    o.model_bytes = o.token_bytes = os.path.getsize(o.model)
    o.gguf_bytes = sum(os.path.getsize(p) for p in parts)


def make_files(o, folder):
    if o.file is not None:
        take_file(o, folder)
        return
    name, layers = f"{folder}/{o.preset}", []
    if o.moe:
        name, layers = f"{name}-{o.layers}", ["--num-layers", str(o.layers)]
    o.model = f"{name}-{o.quant}-{o.head}.gguf"
    o.gguf = f"{name}-llama-{o.type}.gguf"
    if o.quant == "keep":
        o.model = f"{name}-llama-{o.type}-sluice.gguf"
    elif not os.path.exists(o.model):
        say(f"writing {o.model}")
        run([o.sluice, "synth", o.preset, "--quant", o.quant, "--head", o.head,
             "-o", o.model, "--quiet"] + layers)
    if not os.path.exists(o.gguf):
        say(f"writing {o.gguf}")
        random_gguf.write(o.gguf + ".partial", o.type, o.shape)
        os.rename(o.gguf + ".partial", o.gguf)
    if not os.path.exists(o.model):
        say(f"converting {o.gguf}")
        run([o.sluice, "convert", "-q", o.gguf, "-o", o.model])
    o.model_bytes = os.path.getsize(o.model)
    o.gguf_bytes = random_gguf.token_bytes(o.type, o.shape)
    # what is kept is read as it was, but not the rows of a table
    o.token_bytes = o.gguf_bytes if o.quant == "keep" else o.model_bytes


def main():
    o = parse()
    with tempfile.TemporaryDirectory(dir=".", prefix="compare-") as made:
        if o.dir is not None:
            os.makedirs(o.dir, exist_ok=True)
        make_files(o, o.dir or made)
        rows = [] if o.only_limit else in_memory(o)
        if 0 < o.limit < 100:
            rows += limited(o)
        lines = summarise(rows)
        print_json(o, lines) if o.json else print_table(o, lines)


if __name__ == "__main__":
    main()
