#!/usr/bin/env python3
"""What guessing ahead is worth: texts with and without it, in turns.

    bench/drafts.py SLUICE MODEL [TURNS] [-- options of generate]

Each turn runs each text without and with '--draft lookup', one right after
the other, in the budget that the latter needs at least (or that of a --ram
among the options); so a machine that others use too slows both. Texts are
greedy. Printed are medians over the turns of tokens a second without and
with, and of the ratio of a turn.
"""
import json
import re
import statistics
import subprocess
import sys

VERSE = "Though I speak with the tongues of men and of angels,"
SEASON = ("To every thing there is a season, and a time to every purpose under "
          "the heaven:")


def ask(sluice, model, text, options):
    return subprocess.run(
        [sluice, "generate", "-m", model, "-q", "--json", "--top-k", "1",
         "-p", text + "[gMASK]", *options], capture_output=True, text=True)


def run(sluice, model, text, options):
    done = ask(sluice, model, text, options)
    if done.returncode != 0:
        sys.exit(done.stderr.strip())
    return json.loads(done.stdout)


def least(sluice, model, text, options):
    """As --ram takes it; what is too little is refused with that number."""
    said = ask(sluice, model, text, ["--ram", "1K", *options]).stderr
    found = re.search(r"the least that works here is .*?\(--ram (\w+)\)", said)
    return found.group(1) if found else sys.exit(said.strip())


def texts(sluice, model):
    """A verse that the prompt has already, and one that it has not."""
    whole = ["--ram", "1G", "--out-seq-length", "256", "--draft", "off"]
    for name, start in (("verse", VERSE), ("season", SEASON)):
        verse = run(sluice, model, start, whole)["text"]
        yield name + " again", verse + "\n\n" + start
        yield name, start
    yield "never right", "And Moses"


def main():
    args = sys.argv[1:]
    more = []
    if "--" in args:
        at = args.index("--")
        args, more = args[:at], args[at + 1:]
    if len(args) < 2:
        sys.exit(__doc__)
    sluice, model = args[:2]
    turns = int(args[2]) if len(args) > 2 else 7
    print("| text | tokens | off, tok/s | lookup, tok/s | ratio | "
          "right of guessed | tokens a pass |")
    print("|---|---|---|---|---|---|---|")
    for name, text in texts(sluice, model):
        options = ["--out-seq-length", "384", *more]
        if "--ram" not in more:
            options += ["--ram", least(sluice, model, text,
                                       options + ["--draft", "lookup"])]
        got = {"off": [], "lookup": []}
        last = {}
        for turn in range(turns):
            order = ("off", "lookup") if turn % 2 else ("lookup", "off")
            for draft in order:
                o = run(sluice, model, text, options + ["--draft", draft])
                got[draft].append(o["timing"]["decode_tokens_per_second"])
                last[draft] = o
        if last["off"]["text"] != last["lookup"]["text"]:
            sys.exit(name + ": the texts differ")
        ratio = statistics.median(b / a for a, b in
                                  zip(got["off"], got["lookup"]))
        stats = last["lookup"]["stats"]
        drafts = stats["drafts"][0]
        print("| %s | %d | %.1f | %.1f | %.2f | %d of %d | %.2f |" % (
            name, last["off"]["tokens"]["generated"],
            statistics.median(got["off"]), statistics.median(got["lookup"]),
            ratio, drafts["accepted"], drafts["drafted"],
            stats["tokens_per_pass"]), flush=True)


main()
