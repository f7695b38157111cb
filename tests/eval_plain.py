#!/usr/bin/python3
"""eval_plain.py - what 'sluice eval' finds, computed once more and plainly

    eval_plain.py SLUICE MODEL STYLE JOURNAL KIND FILE [KIND FILE...]

For every task (KIND and its only data file) what the journal has is compared
with what comes of 'sluice logits', one sequence at a time: every choice behind
its whole context, every window by itself, answers and beams token by token.
STYLE is how the model is asked: glm130b, chatglm, glm, each with -oneway, or
causal. KIND: mul, mul-gmask, lm, pile, documents, wikitext, cloze, gen,
lambada. The Python standard library alone.
"""
import array
import json
import math
import os
import re
import string
import struct
import subprocess
import sys
import tempfile

SLUICE, MODEL, STYLE, JOURNAL = sys.argv[1:5]
ONE_WAY, GLM = STYLE.endswith("-oneway"), STYLE.startswith("glm") and "130b" not in STYLE
CAUSAL = STYLE in ("causal", "glm130b-oneway", "chatglm-oneway")
TWO_D = GLM or STYLE.startswith("chatglm")
LENGTH, STRIDE = 40, 16          # lm: max_seq_length, generation_length
WINDOW = LENGTH - 1
NEW, BEAMS = 5, 4                # gen, lambada: max_gen_length, num_beams


def run(*args):
    return subprocess.run([SLUICE, *args], check=True, stdout=subprocess.PIPE).stdout.decode()


def decode(ids):
    return run("detokenize", "--hide-special", "-m", MODEL, *map(str, ids)) if ids else ""


def encode(text):
    """Ids, which are kept beside the model: runs of one ask for the same."""
    if text and text not in KNOWN:
        KNOWN[text] = json.loads(run("tokenize", "-m", MODEL, "--plain", "--json", text))["ids"]
    return list(KNOWN[text]) if text else []


def read_npy(path):
    data = open(path, "rb").read()
    n = struct.unpack("<H", data[8:10])[0]
    head = data[10:10 + n].decode()
    cols = int(head[head.index("(") + 1:head.index(")")].split(",")[1])
    return cols, array.array("f", data[10 + n:])


def log_sum(v):
    top = max(v)
    return top + math.log(sum(math.exp(x - top) for x in v))


def rows_of(samples):
    """Logits behind every id of the answers, a row for each."""
    with tempfile.TemporaryDirectory() as d:
        source, out = os.path.join(d, "in.json"), os.path.join(d, "out.npy")
        json.dump(samples, open(source, "w"))
        run("logits", "-q", "-m", MODEL, "--activations", "f32", "-i", source, "-o", out)
        cols, values = read_npy(out)
    at, result = 0, []
    for s in samples:
        rows = []
        for _ in s.get("answer", s.get("ids")):
            rows.append(values[at:at + cols])
            at += cols
        result.append(rows)
    return result


# --- sequences: a context, what is read causally behind it, the ids asked for ---

def sequence(context, mark, said, targets, run_on):
    """said begins with [sop]; its positions stand at the mark, or count on."""
    n, k = len(context), len(said)
    places = list(range(n)) + ([n + i for i in range(k)] if run_on else [mark] * k)
    sample = {"context": context, "answer": said, "positions": places}
    if TWO_D:
        sample["positions"] = [list(range(n)) + [mark] * k, [0] * n + list(range(1, k + 1))]
    return sample, targets


def one_after_another(ids, targets):
    if STYLE == "causal":
        return {"ids": ids}, targets
    return sequence(ids[:1], 0, ids[1:], targets, True)


def lead(text):
    """Before the questions of a model that is asked causally."""
    if CAUSAL and ONE_WAY:
        return [GMASK, SOP]
    return [] if text else PREFIX or STOPS[:1]


def choices(item, mask, run_on):
    result = []
    for choice in item["choices_pretokenized"]:
        text, answer = encode(item["inputs_pretokenized"]), encode(choice)
        if CAUSAL:
            whole = item["inputs_pretokenized"]
            head = encode(re.sub(r"\s+$", "", whole))
            tail = encode(whole + choice)[len(head):]
            result.append(one_after_another(lead(head) + head + tail[:-1], tail))
        elif GLM and ONE_WAY:
            result.append(sequence([CLS, GMASK], 1, [SOP] + text + answer[:-1], answer, False))
        elif GLM:
            context = [CLS] + text + [mask, EOS]
            result.append(sequence(context, len(context) - 2, [SOP] + answer[:-1], answer, False))
        else:
            context = text + [mask]
            result.append(sequence(context, len(context) - 1, [SOP] + answer[:-1], answer,
                                   run_on))
    return result


def cloze(item):
    """THUDM/GLM's LAMBADA: the last word behind the text before it."""
    word = item["text"].split()[-1]
    text = encode(item["text"][:item["text"].rfind(word)].strip())
    answer = encode(" " + word)
    first, rest = (text[:1], text[1:]) if ONE_WAY else (text, [])
    context = [CLS] + first + [GMASK, EOS]
    return [sequence(context, len(context) - 2, [SOP] + rest + answer[:-1], answer, False)]


def windows(ids):
    result, at = [], 0
    while ids:
        part = ids[at:at + WINDOW]
        scored = part if at == 0 else part[WINDOW - STRIDE:]
        prompt = part[:len(part) - len(scored)]
        if GLM and at == 0:
            prompt, scored = part[:1], part[1:]
        if CAUSAL:
            first = lead(None if at == 0 else part)
            result.append([one_after_another(first + part[:-1], scored)])
        else:
            said = scored
            if GLM and ONE_WAY:
                prompt, said = part[:1], part[1:]
            context = ([CLS] if GLM else []) + prompt + [GMASK]
            result.append([sequence(context, len(context) - 1, [SOP] + said[:-1], scored, True)])
        if at + WINDOW >= len(ids):
            break
        at += STRIDE
    return result


def between(a, b):
    a, b = re.escape(a), re.escape(b)
    return re.compile(rf"({a})\s*([^{b}]*?)\s*({b})")


# What becomes of WikiText's blanks, in this order.
JOINED = [
    ("s '", "s'"), (re.compile("/' [0-9]/"), "/'[0-9]/"),
    (" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."),
    *[(f" {m} ", f"{m} ") for m in ":;.!?,"],
    *[(between(a, b), r"\1\2\3") for a, b in ("()", "[]", "{}", '""', "''")],
    ("= = = =", "===="), ("= = =", "==="), ("= =", "=="), (" \u00b0 ", "\u00b0"),
    (" \n", "\n"), ("\n ", "\n"), (" N ", " 1 "), (" 's", "'s"),
]


def detokenized(text):
    for a, b in JOINED:
        text = text.replace(a, b) if isinstance(a, str) else a.sub(b, text)
    return text


# --- generated answers ----------------------------------------------------------

def prompt_of(item):
    text = encode(item["inputs_pretokenized"])
    return lead(text) + text if CAUSAL else text + [GMASK]


def generated(context, said):
    if CAUSAL:
        return {"ids": context + said} if STYLE == "causal" else \
            one_after_another(context + said, [])[0]
    return sequence(context, len(context) - 1, [SOP] + said, [], True)[0]


def greedy(item, said):
    """What it says behind what it said: the same."""
    context = prompt_of(item)
    rows = rows_of([generated(context, said)])[0][-len(said) - 1:]
    best = [max((i for i in range(N_TOKENS) if i not in NEVER), key=lambda i: (v[i], -i))
            for v in rows[:NEW]]
    return best[:-1] if best[-1] in ENDS else best


def lambada(item, _):
    """Beams whose tokens are no mark, and which begin with no mark."""
    marks = [encode(c) for c in string.punctuation]
    banned = [m[0] for m in marks if len(m) == 1]
    context = prompt_of(item)
    length = len(context) + (0 if CAUSAL else 1)
    live, done = [(0.0, [])], []

    def penalised(score, n):
        return score / ((5 + n) / 6) ** 1.0

    for step in range(NEW):
        scored = []
        for (score, said), rows in zip(live, rows_of([generated(context, s) for _, s in live])):
            v = list(rows[-1][:N_TOKENS])
            for i in NEVER + banned + [m[-1] for m in marks if m[:-1] == said]:
                v[i] = -65504
            full = context + ([] if CAUSAL else [SOP]) + said
            for k in range(len(full) - len(said), len(full)):  # no trigram twice
                if full[k - 2:k] == full[-2:]:
                    v[full[k]] = -65504
            norm = log_sum(v)
            scored += [(score + x - norm, said, i) for i, x in enumerate(v)]
        scored.sort(key=lambda s: -s[0])
        live = []
        for score, said, i in scored[:(max(1, len(ENDS)) + 1) * BEAMS]:
            if i in ENDS:
                done.append((penalised(score, length + step + 1), said))
                done = sorted(done, key=lambda d: -d[0])[:BEAMS]
            elif len(live) < BEAMS:
                live.append((score, said + [i]))
            else:
                break
        if len(done) == BEAMS and done[-1][0] >= penalised(live[0][0], length + step + 1):
            live = []
            break
    done = sorted(done + [(penalised(s, length + NEW), said) for s, said in live],
                  key=lambda d: -d[0])[:BEAMS]
    texts = [decode(said).strip() for _, said in done]
    for t in texts:
        if t.split(" ")[1:2] and t.split(" ")[1] in string.punctuation:
            return encode(t.split(" ")[0])
    return encode(texts[0].split(" ")[0])


# --- comparing ------------------------------------------------------------------

KNOWN = json.load(open(MODEL + ".ids")) if os.path.exists(MODEL + ".ids") else {}

vocabulary = json.loads(run("inspect", "--json", MODEL))["tokenizer"]
N_TOKENS, ids = vocabulary["n_tokens"], vocabulary["special_ids"]
MASK, SOP, CLS, EOS = ids["mask"], ids["sop"], ids["enc"], ids["eos"]
GMASK = ids["gmask"] if ids["gmask"] >= 0 else MASK
NEVER = [ids[name] for name in ("mask", "gmask", "smask", "eod", "sop", "enc", "dblock")
         if ids[name] >= 0]
STOPS = [int(i) for line in run("inspect", MODEL).split("\n") if line.split()[:1] == ["ends"]
         for i in re.findall(r"(\d+) \(", line)]
ENDS = [ids[name] for name in ("eop", "eos") if ids[name] >= 0] + STOPS
PREFIX = []
if STYLE == "causal":
    whole = json.loads(run("tokenize", "-m", MODEL, "--whole", "--json", "a"))["ids"]
    PREFIX = whole[:whole.index(encode("a")[0])]
entries = [json.loads(line) for line in open(JOURNAL)][1:]
mine = {(e["task"], e["unit"]): e for e in entries}
wanted, said = [], []
for task, (kind, file) in enumerate(zip(sys.argv[5::2], sys.argv[6::2])):
    whole = open(file, newline="").read()
    lines = [line for line in whole.split("\n") if line.strip()]
    units = []
    if kind == "lm":
        units = windows(encode(whole))
    elif kind == "wikitext":
        units = windows(encode(detokenized(whole)))
    elif kind == "documents":
        units = [w for line in lines for w in windows(encode(line.strip()))]
    elif kind == "pile":
        units = [w for line in lines
                 for w in windows(encode(json.loads(line)["text_pretokenized"]))]
    elif kind == "cloze":
        units = [cloze(json.loads(line)) for line in lines]
    elif kind in ("gen", "lambada"):
        answer = greedy if kind == "gen" else lambada
        said += [(task, i, answer(json.loads(line), mine[task, i]["said"]))
                 for i, line in enumerate(lines)]
    else:
        units = [choices(json.loads(line), MASK if kind == "mul" else GMASK, kind != "mul")
                 for line in lines]
    wanted += [(task, i, unit) for i, unit in enumerate(units)]
if sorted(mine) != sorted([w[:2] for w in wanted + said]):
    sys.exit(f"units {sorted(mine)}, wanted {[w[:2] for w in wanted + said]}")
json.dump(KNOWN, open(MODEL + ".ids", "w"))
answers = iter(rows_of([s for _, _, unit in wanted for s, _ in unit]) if wanted else [])
worst, count = 0.0, 0
for task, i, unit in wanted:
    values = []
    for _, targets in unit:
        rows = next(answers)
        values += [v[t] - log_sum(v) for v, t in zip(rows[len(rows) - len(targets):], targets)]
    got = mine[task, i]["logp"]
    if len(values) != len(got):
        sys.exit(f"task {task}, unit {i}: {len(got)} values, wanted {len(values)}")
    off = max([abs(a - b) for a, b in zip(got, values)], default=0)
    if off > 1e-5:
        print(f"task {task}, unit {i}: differs by {off:.2g}")
    worst, count = max(worst, off), count + len(values)
for task, i, ids in said:
    if mine[task, i]["said"] != ids:
        sys.exit(f"task {task}, unit {i}: {mine[task, i]['said']}, wanted {ids}")
print(f"{count} log-probabilities differ by {worst:.2g} at most, {len(said)} answers by nothing")
sys.exit(worst > 1e-5 or count + len(said) == 0)
