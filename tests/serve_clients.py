"""Real clients against 'sluice serve': serve_clients.py URL MODEL-FILE SLUICE.

Prints TAP. A client that is not installed is skipped with a reason; .ci/long
installs them from PyPI.
"""
import importlib
import json
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from serve_server import chances

url, model, sluice = sys.argv[1:4]
verse = "In the beginning God created the heaven and the"
number = 0


def case(name, needs):
    def run(function):
        global number
        number += 1
        try:
            importlib.import_module(needs)
        except ImportError as why:
            print(f"ok {number} - {name} # SKIP {why}")
            return function
        try:
            function()
            print(f"ok {number} - {name}")
        except Exception as why:  # every failure is one line of TAP
            print(f"not ok {number} - {name}")
            print("# " + f"{type(why).__name__}: {why}".replace("\n", "\n# "))
        sys.stdout.flush()
        return function
    return run


def generate(prompt, n):
    """The greedy text behind a prompt, from the command."""
    out = subprocess.run(
        [sluice, "generate", "-q", "-m", model, "--top-k", "1",
         "--out-seq-length", str(n), "-p", prompt],
        check=True, capture_output=True, text=True).stdout
    return out[len(prompt):].rstrip("\n")


def openai_client():
    import openai
    return openai.OpenAI(base_url=url + "/v1", api_key="none")


@case("openai_completes_as_generate_does", "openai")
def _():
    c = openai_client()
    assert c.models.list().data[0].id
    got = c.completions.create(model="x", prompt=verse, max_tokens=53,
                               temperature=0)
    wanted = generate(verse, 64)
    assert got.choices[0].text == wanted, (got.choices[0].text, wanted)
    assert got.usage.completion_tokens > 10


@case("openai_streams_a_completion", "openai")
def _():
    text, usage = "", None
    for chunk in openai_client().completions.create(
            model="x", prompt=verse, max_tokens=20, temperature=0, stream=True,
            logprobs=2, stream_options={"include_usage": True}):
        if chunk.choices:
            text += chunk.choices[0].text
        usage = chunk.usage or usage
    assert generate(verse, 64).startswith(text) and len(text) > 20, text
    assert usage.completion_tokens == 20, usage


@case("openai_chats_and_streams_a_chat", "openai")
def _():
    c = openai_client()
    ask = dict(model="x", messages=[{"role": "user", "content": "你好"}],
               max_tokens=12, seed=7)
    got = c.chat.completions.create(**ask, logprobs=True, top_logprobs=3)
    whole = got.choices[0]
    assert whole.message.role == "assistant"
    assert len(whole.logprobs.content[0].top_logprobs) == 3
    text = "".join(k.choices[0].delta.content or ""
                   for k in c.chat.completions.create(**ask, stream=True))
    assert text == whole.message.content, (text, whole.message.content)


@case("openai_hears_what_is_wrong", "openai")
def _():
    import openai
    try:
        openai_client().completions.create(model="x", prompt="a",
                                           max_tokens=-1)
    except openai.BadRequestError as why:
        assert why.param == "max_tokens", why
    else:
        raise AssertionError("nothing was refused")


@case("openai_has_responses_in_the_background", "openai")
def _():
    c = openai_client()
    r = c.responses.create(model="x", input="你好", max_output_tokens=30,
                           background=True)
    assert r.status in ("queued", "in_progress"), r.status
    until = time.time() + 60
    while r.status in ("queued", "in_progress") and time.time() < until:
        time.sleep(0.2)
        r = c.responses.retrieve(r.id)
    assert r.status in ("completed", "incomplete"), r.status
    assert r.output_text
    r = c.responses.create(model="x", input="你好", max_output_tokens=400,
                           background=True)
    assert c.responses.cancel(r.id).status in ("cancelled", "completed")


@case("openai_streams_a_response", "openai")
def _():
    text, kinds = "", []
    for event in openai_client().responses.create(
            model="x", input="你好", max_output_tokens=8, stream=True):
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
        if event.type in ("response.completed", "response.incomplete"):
            assert event.response.output_text == text
    assert kinds[0] == "response.created" and text, kinds


@case("anthropic_has_messages_streams_and_counts", "anthropic")
def _():
    import anthropic
    c = anthropic.Anthropic(base_url=url, api_key="none")
    ask = dict(model="x", max_tokens=12,
               messages=[{"role": "user", "content": "你好"}])
    got = c.messages.create(**ask)
    assert got.content[0].text and got.usage.output_tokens > 0
    with c.messages.stream(**ask) as stream:
        text = "".join(stream.text_stream)
        assert stream.get_final_message().content[0].text == text
    assert c.messages.count_tokens(
        model="x", messages=ask["messages"]).input_tokens == \
        got.usage.input_tokens
    try:
        c.messages.create(model="x", max_tokens=3, messages=[])
    except anthropic.BadRequestError:
        return
    raise AssertionError("nothing was refused")


@case("langchain_invokes_and_streams", "langchain_openai")
def _():
    from langchain_openai import ChatOpenAI
    chat = ChatOpenAI(base_url=url + "/v1", api_key="none", model="x",
                      max_tokens=10, temperature=0)
    whole = chat.invoke("你好").content
    assert whole
    assert "".join(k.content for k in chat.stream("你好")) == whole


def post(path, body):
    import urllib.request
    with urllib.request.urlopen(urllib.request.Request(
            url + path, json.dumps(body).encode(),
            {"Content-Type": "application/json"})) as f:
        return json.load(f)


def reference_chance(context, rest):
    """log P of rest behind context by 'sluice logits': unidirectional."""
    whole = post("/tokenize", {"prompt": context + rest})["tokens"]
    n = len(post("/tokenize", {"prompt": context})["tokens"])
    mark = post("/tokenize", {"text": "a"})["start_ids"][0][-1]
    sop = post("/tokenize", {"prompt": "<sop>"})["tokens"][-1]
    request = {"context": [mark], "answer": [sop] + whole[:-1],
               "positions": list(range(len(whole) + 1))}
    return sum(chances(sluice, model, request, whole)[n:])


def lm_eval_model():
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    return LocalCompletionsAPI(
        model="x", base_url=url + "/v1/completions",
        tokenizer_backend="remote", num_concurrent=1, batch_size=4,
        max_length=500)


def evaluated_chances(pairs):
    """The same by 'sluice eval', a question each."""
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/in.json", "w") as f:
            json.dump([{"context": c, "choices": [r], "answer": 0}
                       for c, r in pairs], f)
        subprocess.run([sluice, "eval", "-q", "-m", model, "--tasks-json",
                        folder + "/in.json", "--unidirectional", "--output",
                        folder + "/out"], check=True, capture_output=True)
        with open(folder + "/out/journal.jsonl") as f:
            units = [json.loads(line) for line in f][1:]
    return {u["unit"]: sum(u["logp"]) for u in units}


@case("lm_eval_has_the_chances_of_logits_and_eval", "lm_eval")
def _():
    from lm_eval.api.instance import Instance
    pairs = [(verse, " earth"), (verse, " sea"), ("春眠不觉晓，", "处处闻啼鸟")]
    lm = lm_eval_model()
    got = lm.loglikelihood([
        Instance("loglikelihood", {}, p, i) for i, p in enumerate(pairs)])
    again = evaluated_chances(pairs)
    for i, ((context, rest), (chance, greedy)) in enumerate(zip(pairs, got)):
        wanted = reference_chance(context, rest)
        near = 1e-5 * len(post("/tokenize", {"prompt": rest})["tokens"])
        assert abs(chance - wanted) < near, (context, rest, chance, wanted)
        assert abs(again[i] - wanted) < near, (context, rest, again[i], wanted)
    assert got[0][0] > got[1][0]


@case("lm_eval_answers_a_multiple_choice_task", "lm_eval")
def _():
    import lm_eval
    from lm_eval.tasks import TaskManager
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/data.jsonl", "w") as f:
            for right, wrong in (("earth", "fish"), ("earth", "king")):
                f.write(json.dumps({"q": verse, "choices": [right, wrong],
                                    "answer": 0}) + "\n")
        with open(folder + "/verses.yaml", "w") as f:
            f.write(f"""task: verses
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/data.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: q
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
""")
        got = lm_eval.simple_evaluate(
            model=lm_eval_model(), tasks=["verses"],
            task_manager=TaskManager(include_path=folder,
                                     include_defaults=False))
    assert got["results"]["verses"]["acc,none"] == 1.0, got["results"]


print(f"1..{number}")
