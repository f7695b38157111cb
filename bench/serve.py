"""Tokens a second of 'sluice serve' beside 'sluice generate --batch':
bench/serve.py SLUICE MODEL-FILE [TOKENS [TIMES [CLIENTS [OPTION...]]]].

CLIENTS (8) ask at once for TOKENS (150) each, greedily, whole answers and then
streams; generate goes on with the same lines. In turns, TIMES (3), and the
median of the ratios is told. Both sides are timed alike, from the first
pass, which reads the prompts, to the last token, by their own clocks: what
passes took, and what a client saw. OPTIONs go to both.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "tests"))
from serve_server import Server

sluice, model = sys.argv[1:3]
n_tokens = int(sys.argv[3]) if len(sys.argv) > 3 else 150
times = int(sys.argv[4]) if len(sys.argv) > 4 else 3
n_clients = int(sys.argv[5]) if len(sys.argv) > 5 else 8
options = sys.argv[6:] or ["--draft", "off"]
PROMPTS = [f"In the year {1990 + i} there was" for i in range(n_clients)]


def read(c, prompt, stream, seed):
    """Tokens, seconds to the first byte of a text and to the end."""
    body = {"prompt": prompt, "max_tokens": n_tokens, "min_tokens": n_tokens,
            "temperature": 0, "stream": stream, "seed": seed}
    if stream:
        body["stream_options"] = {"include_usage": True}
    begin = time.monotonic()
    c.request("POST", "/v1/completions", json.dumps(body))
    r = c.getresponse()
    if not stream:
        return json.loads(r.read())["usage"], None, time.monotonic() - begin
    first, usage = None, None
    for line in r:
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            usage = event.get("usage") or usage
            if first is None and any(k.get("text") for k in event["choices"]):
                first = time.monotonic() - begin
    return usage, first, time.monotonic() - begin


def clients(s, stream, seed):
    """Tokens a second of all, and the part of the time that passes took."""
    connections = [s.connect(600) for _ in PROMPTS]
    for c in connections:
        c.connect()
    got = [None] * n_clients
    passed = s.metric("pass_seconds_total")
    together = threading.Barrier(n_clients + 1)

    def run(i):
        together.wait()
        got[i] = read(connections[i], PROMPTS[i], stream, seed + i)

    threads = [threading.Thread(target=run, args=(i,))
               for i in range(n_clients)]
    for t in threads:
        t.start()
    together.wait()
    begin = time.monotonic()
    for t in threads:
        t.join()
    took = time.monotonic() - begin
    total = sum(usage["completion_tokens"] for usage, _, _ in got)
    assert total == n_tokens * n_clients, total
    return total / took, (s.metric("pass_seconds_total") - passed) / took


def generate(lines):
    """The same from the command: its passes alone, prompts' pass included."""
    out = subprocess.run(
        [sluice, "generate", "-q", "-m", model, "--batch", str(n_clients),
         "--top-k", "1", "--min-gen-length", str(n_tokens), "--json",
         "--out-seq-length", str(longest + n_tokens + 2), "--threads", "2",
         "--input-source", lines.name, *options],
        check=True, capture_output=True, text=True).stdout
    answers = [json.loads(line) for line in out.splitlines()]
    total = sum(a["tokens"]["generated"] for a in answers)
    return total / max(a["timing"]["seconds"] for a in answers)


with Server(sluice, model, "--parallel", str(n_clients), *options,
            ram="auto") as s:
    longest = max(read(s.connect(), p, False, 1)[0]["prompt_tokens"]
                  for p in PROMPTS)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as lines:
        lines.write("".join(p + "\n" for p in PROMPTS))
        lines.flush()
        ratios = {False: [], True: []}
        for turn in range(times):
            command = generate(lines)
            for stream in False, True:
                rate, part = clients(s, stream, 1000 * (2 * turn + stream + 1))
                ratios[stream].append(rate / command)
                print(f"{'streams' if stream else 'answers'} {rate:.1f} "
                      f"tokens/s, {100 * part:.1f} % in passes; generate "
                      f"{command:.1f} tokens/s; ratio {rate / command:.3f}",
                      flush=True)
    c = s.connect()
    c.connect()
    alone = []
    for turn in range(times):
        passed = s.metric("pass_seconds_total"), s.metric("passes_total")
        # a seed that nobody had: a request of before has its answer kept
        _, first, took = read(c, PROMPTS[0], True, 1000 * (2 * times + turn + 1))
        seconds = s.metric("pass_seconds_total") - passed[0]
        passes = s.metric("passes_total") - passed[1]
        alone.append((took - seconds) / passes)
        print(f"one stream: {1000 * alone[-1]:.2f} ms a token beside passes "
              f"of {1000 * seconds / passes:.1f} ms; first text after "
              f"{1000 * first:.1f} ms", flush=True)
    health = []
    for _ in range(50):
        begin = time.monotonic()
        assert s.health() == 200
        health.append(time.monotonic() - begin)
for stream in False, True:
    print(f"median ratio of {'streams' if stream else 'answers'} "
          f"{statistics.median(ratios[stream]):.3f}")
print(f"{100 * statistics.median(alone) / 0.2:.2f} % of a pass of 0.2 s")
print(f"connect to first byte of /health: "
      f"{1000 * statistics.median(health):.2f} ms")
