#!/usr/bin/env python3
"""Requests for tests/fuzz_serve.c: make_serve.py FOLDER."""
import json
import os
import re
import sys

folder = sys.argv[1]
top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
with open(os.path.join(top, "src/serve/route.c"), encoding="utf-8") as f:
    routes = re.findall(r'\{"(GET|POST)",\s*"([^"]+)"', f.read())
user = {"role": "user", "content": "Hi"}
tool = {"type": "function", "function": {"name": "f", "parameters": {
    "type": "object", "properties": {"a": {"type": "string"}}}}}
bodies = {
    "/v1/completions": [
        {"prompt": "In the", "max_tokens": 3, "temperature": 0, "n": 2,
         "best_of": 3, "stop": ["a", "b"], "logprobs": 2, "echo": True},
        {"prompt": [[1, 2], [3]], "logit_bias": {"5": -1.5}, "seed": 7,
         "stream": True, "stream_options": {"include_usage": True}},
        {"prompt": "a [MASK] b", "suffix": "c", "min_tokens": 1}],
    "/v1/chat/completions": [
        {"messages": [{"role": "system", "content": "s"}, user],
         "max_completion_tokens": 4, "top_k": 3, "tools": [tool],
         "logprobs": True, "top_logprobs": 2},
        {"messages": [user], "response_format": {
            "type": "json_schema", "json_schema": {"name": "n", "schema": {
                "type": "object", "properties": {
                    "a": {"enum": ["x", 1]}, "b": {"type": "array", "items": {
                        "type": "integer"}}},
                "required": ["a"], "additionalProperties": False}}}}],
    "/v1/responses": [
        {"input": "Hi", "instructions": "i", "max_output_tokens": 3,
         "background": True},
        {"input": [{"role": "user", "content": [
            {"type": "input_text", "text": "a"}]}],
         "text": {"format": {"type": "json_object"}}}],
    "/v1/messages": [
        {"max_tokens": 3, "system": "s", "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "1", "name": "f", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "1",
                 "content": "b"}]}],
         "tools": [{"name": "f", "input_schema": {"type": "object"}}],
         "stop_sequences": ["x"], "thinking": {"type": "disabled"}}],
    "/v1/messages/count_tokens": [{"messages": [user]}],
    "/tokenize": [{"prompt": "a <|user|>", "with_pieces": True},
                  {"text": "a [MASK]\nb"}],
    "/detokenize": [{"tokens": [1, 2, 300]}],
    "/": [{"prompt": "a", "history": [["b", "c"]], "max_length": 40,
           "top_p": 0.7}],
    "/generate": [{"text": "a\nb", "topk": 1, "seed": 3,
                   "out_seq_length": 4}],
}
os.makedirs(folder, exist_ok=True)
for i, (method, path) in enumerate(routes):
    name = path.strip("/").replace("/", "-") or "root"
    for k, body in enumerate(bodies.get(path, []) if method == "POST" else []):
        for kind in 0, 1:
            with open(os.path.join(folder, f"{name}-{k}-{kind}"), "wb") as f:
                f.write(bytes([2 * i + kind]) + json.dumps(body).encode())
for k, path in enumerate(["/v1/responses/a/cancel", "/v1/models/b"]):
    with open(os.path.join(folder, f"path-{k}"), "wb") as f:
        f.write(b"\xff" + path.encode())
