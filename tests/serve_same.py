"""Long prompts of a causal model: serve_same.py SLUICE MODEL-FILE.

Whatever else a server does, and whatever it knows already of a prompt, it says
of it what one says that reads all of it alone, to the last bit of the chances,
and what 'sluice generate' says. A server that is started again reads nothing
that the one before has read, whichever way that came to have it.
"""
import json
import random
import subprocess
import sys
import tempfile
import threading

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


with tempfile.TemporaryDirectory() as folder:
    keeping = ["--ctx", "2048", "--parallel", "8", "--keep-prompts", folder]
    first = words(450)
    with Server(sluice, model, *keeping) as s:
        echo_is_that_of_logits(s)
        tools_of_some_kinds_are_left_out(s)
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
