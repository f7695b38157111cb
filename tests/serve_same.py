"""Long prompts of a causal model: serve_same.py SLUICE MODEL-FILE.

Whatever else a server does, and whatever it knows already of a prompt, it says
of it what one says that reads all of it alone, to the last bit of the chances,
and what 'sluice generate' says. A server that is started again reads nothing
that the one before has read, whichever way that came to have it. What it keeps
has a bound. The model has tokens for thinking, which is told from the answer.
"""
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
from serve_server import Server, ask, chances

sluice, model = sys.argv[1:]
rng = random.Random(3)
WORDS = "Hello there who was this and again what light stone river god".split()


def words(n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def say(s, prompt, seed):
    """What is said, and how sure of it. A seed of its own makes a request that
    no kept answer is for."""
    status, o = ask(s.connect(600), 20, prompt=prompt, temperature=0,
                    logprobs=2, seed=seed)
    assert status == 200, o
    c = o["choices"][0]
    return c["text"], c["logprobs"]["token_logprobs"], o["usage"]


def others(s, n):
    """n requests that go on meanwhile."""
    threads = [threading.Thread(target=say, args=(
        s, words(rng.choice((3, 90, 300))), i)) for i in range(n)]
    for t in threads:
        t.start()
    return threads


def post(s, path, body):
    c = s.connect()
    c.request("POST", path, json.dumps(body))
    r = c.getresponse()
    return r.status, json.loads(r.read())


def echo_is_that_of_logits(s):
    """Of a causal model the first token has no chance; the others have those
    of 'sluice logits'."""
    ids = post(s, "/tokenize", {"prompt": words(30)})[1]["tokens"]
    wanted = chances(sluice, model, {"ids": ids}, ids[1:] + [0])[:-1]
    for tokens in 0, 1:
        status, o = ask(s.connect(), tokens, prompt=ids, echo=True, logprobs=1)
        assert status == 200, o
        got = o["choices"][0]["logprobs"]
        assert got["token_logprobs"][0] is None, got
        assert got["top_logprobs"][0] is None, got
        assert len(got["token_logprobs"]) == len(ids) + tokens, got
        assert all(abs(a - b) < 1e-5 for a, b in
                   zip(got["token_logprobs"][1:], wanted)), got
        text = o["choices"][0]["text"]
        for at, token in zip(got["text_offset"], got["tokens"]):
            assert "\ufffd" in token or text[at:].lstrip().startswith(
                token.strip()), (at, token, text)


def tools_of_some_kinds_are_left_out(s):
    """Agents offer all that they know: functions are shown to the model."""
    f = {"type": "function", "name": "sum", "parameters": {"type": "object"}}
    talk = {"input": "Hello", "max_output_tokens": 2}
    read = []
    for tools in [], [f], [{"type": "web_search"}, f, {"type": "local_shell"}]:
        status, o = post(s, "/v1/responses", {**talk, "tools": tools})
        assert status == 200, o
        assert o["tools"] == [f][:len(tools)], o["tools"]
        read.append(o["usage"]["input_tokens"])
    assert read[0] < read[1] == read[2], read
    status, o = post(s, "/v1/responses",
                     {**talk, "tools": [{"type": "web_search"}]})
    assert status == 400 and "web_search" in o["error"]["message"], o


def parts_of_characters_have_no_bytes(s):
    """None rather than those of U+FFFD, which stands for them."""
    ids = post(s, "/tokenize", {"prompt": "\u4f60\u597da"})[1]["tokens"]
    status, o = post(s, "/v1/chat/completions", {
        "messages": [{"role": "user", "content": "Hello"}], "seed": 1,
        "max_tokens": 60, "logprobs": True, "top_logprobs": 1,
        "logit_bias": {i: 100 for i in ids}})
    assert status == 200 and len(ids) > 3, (o, ids)
    tokens = o["choices"][0]["logprobs"]["content"]
    tokens += [t["top_logprobs"][0] for t in tokens]
    assert {"a", "\ufffd"} <= {t["token"] for t in tokens}, tokens
    for t in tokens:
        assert t["bytes"] == (None if "\ufffd" in t["token"] else
                              list(t["token"].encode())), t


def thinking_is_told_apart(s):
    """The template opens the thinking; the model says two letters, and now and
    then the token that ends it, of which only the first does."""
    def id_of(text):
        ids = post(s, "/tokenize", {"prompt": text})[1]["tokens"]
        assert len(ids) == 1, (text, ids)
        return ids[0]

    talk = {"messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 30, "logprobs": True, "logit_bias": {
                id_of("a"): 100, id_of("x"): 100, id_of("</think>"): 98}}
    for seed in range(100):
        talk["seed"] = seed
        status, o = post(s, "/v1/chat/completions", talk)
        assert status == 200, o
        c = o["choices"][0]
        said = "".join(v["token"] for v in c["logprobs"]["content"])
        thought, mark, answer = said.partition("</think>")
        assert c["message"].get("reasoning_content", "") == thought, c
        assert c["message"]["content"] == answer, c
        if thought and answer:
            break
    assert thought and answer and set(thought) <= set("ax"), said
    c = s.connect()
    c.request("POST", "/v1/chat/completions",
              json.dumps({**talk, "stream": True}))
    parts = []
    for line in c.getresponse().read().decode().splitlines():
        if line.startswith("data: {"):
            d = json.loads(line[6:])["choices"][0]["delta"]
            parts += [(k, d[k]) for k in ("reasoning_content", "content")
                      if d.get(k)]
    kinds = [k for k, _ in parts]
    n = kinds.count("reasoning_content")
    assert "content" not in kinds[:n], parts
    assert "".join(v for _, v in parts[:n]) == thought, parts
    assert "".join(v for _, v in parts[n:]) == answer, parts
    status, o = post(s, "/v1/chat/completions", {
        **talk, "chat_template_kwargs": {"enable_thinking": False}})
    assert status == 200, o
    c = o["choices"][0]
    assert "reasoning_content" not in c["message"], c
    assert c["message"]["content"] == "".join(
        v["token"] for v in c["logprobs"]["content"]), c


def prompts_that_are_kept_have_a_bound(folder):
    """Of three there is room for two, and that of no use for longest goes."""
    def kept():
        return {n for n in os.listdir(folder) if n.endswith(".prompt")}

    def date(name, hours):
        then = time.time() - 3600 * hours
        os.utime(os.path.join(folder, name), (then, then))

    prompts = [words(100) for _ in range(3)]
    keeping = ["--keep-prompts", folder, "--parallel", "1"]
    with Server(sluice, model, *keeping) as s:
        say(s, prompts[0], 1)
    first, = kept()
    size = os.path.getsize(os.path.join(folder, first))
    bound = size * 5 // 2
    with Server(sluice, model, *keeping, "--keep-prompts-bytes",
                str(bound)) as s:
        say(s, prompts[1], 2)
        s.wait_for(lambda: len(kept()) == 2, 60)
        second, = kept() - {first}
        date(first, 2)
        date(second, 1)
        n = say(s, prompts[0], 3)[2]["prompt_tokens"]
        s.wait_for(lambda: s.metric("prompt_tokens_restored_total") == n, 60)
        say(s, prompts[2], 4)
    assert len(kept()) == 2 and first in kept() and second not in kept(), \
        (first, second, kept())
    assert sum(os.path.getsize(os.path.join(folder, n)) for n in kept()) \
        <= bound


with tempfile.TemporaryDirectory() as folder:
    prompts_that_are_kept_have_a_bound(folder)
with Server(sluice, model, "--template", "glm-4.7") as s:
    thinking_is_told_apart(s)
with tempfile.TemporaryDirectory() as folder:
    keeping = ["--ctx", "2048", "--parallel", "8", "--keep-prompts", folder]
    first = words(450)
    with Server(sluice, model, *keeping) as s:
        echo_is_that_of_logits(s)
        tools_of_some_kinds_are_left_out(s)
        parts_of_characters_have_no_bytes(s)
        text, _, usage = say(s, first, 1)
        second = first + text + " and " + words(60)
        want = say(s, second, 2)
        busy = others(s, 32)
        assert say(s, second, 7)[:2] == want[:2]
        for t in busy:
            t.join()
        assert want[2]["prompt_tokens_details"]["cached_tokens"] \
            >= 1024, (usage, want[2])
        third = second + want[0] + " " + words(20)
        last = say(s, third, 3)
    with Server(sluice, model, "--ctx", "2048", "--parallel", "1") as s:
        assert say(s, second, 4)[:2] == want[:2]
        assert say(s, third, 5)[:2] == last[:2]
    with Server(sluice, model, *keeping) as s:
        again = say(s, third, 6)
        assert again[:2] == last[:2]
        n = again[2]["prompt_tokens"]
        assert n > 1024
        s.wait_for(lambda: s.metric("prompt_tokens_restored_total") == n, 60)
n = want[2]["prompt_tokens"] + want[2]["completion_tokens"]
output = subprocess.run(
    [sluice, "generate", "-m", model, "--ram", "256M", "-q", "--top-k", "1",
     "--out-seq-length", str(n), "-p", "-"], input=second.encode(),
    capture_output=True, check=True).stdout.decode()
assert output.strip() == (second + want[0]).strip(), output[-80:]
