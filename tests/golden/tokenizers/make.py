#!/usr/bin/env python3
"""make.py FOLDER: small tokenizers of the forms that publishers use, trained on
the texts of ../G_tokenizers, and what tokenizers and tiktoken make of texts.

Needs the packages tokenizers (0.23) and tiktoken (0.14). Writes NAME.json (a
tokenizer.json), ranks.model (base64 ranks) and cases.json."""
import base64
import json
import os
import random
import sys

import tiktoken
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models,
                        normalizers, pre_tokenizers, processors, trainers)

HERE = os.path.dirname(os.path.abspath(__file__))
TEXTS = json.load(open(os.path.join(HERE, "..", "G_tokenizers",
                                    "cases.json")))["texts"]
CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
PARTS = ["a", "e", "the", "Th", "ing", "'s", "'LL", " ", " ", "  ", "\n",
         "\r\n", "\t", "1", "2024", "7", ".", ",", "!?", "--", "(", '"', "é",
         "e\u0301", "ß", "Å", "İ", "ж", "Ш", "中", "文字", "的", "，", "。",
         "あ", "한국", "\u3000", "\u00a0", "\u200b", "\u2028", "👋",
         "👨\u200d👩", "½", "Ⅳ", "ﬁ", "ſ", "<mask>", "<r>", "<w>", "<think>",
         "<|im_start|>", "[MASK]", "<s>", "</s>", "<0x41>", "▁", "Ġ",
         "\u0085", "\x01", "\u180e"]


def train(pre, size, norm=None, alphabet=True, special=(), **model):
    t = Tokenizer(models.BPE(**model))
    t.pre_tokenizer = pre
    if norm is not None:
        t.normalizer = norm
    alphabet = pre_tokenizers.ByteLevel.alphabet() if alphabet else []
    t.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=sorted(alphabet),
        special_tokens=list(special), show_progress=False))
    return t


def cut(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def qwen():
    t = train(cut(CL100K % ""), 500, normalizers.NFC())
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    t.add_tokens([AddedToken("<think>", normalized=False)])
    return t


def llama3():
    t = train(cut(CL100K % "{1,3}"), 500)
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens(["<|begin_of_text|>", "<|eot_id|>"])
    t.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A",
        special_tokens=[("<|begin_of_text|>",
                         t.token_to_id("<|begin_of_text|>"))])
    j = json.loads(t.to_str())
    j["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(j))


def smollm():
    t = train(pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)]), 500)
    t.decoder = decoders.ByteLevel()
    return t


def flags():
    t = train(pre_tokenizers.ByteLevel(add_prefix_space=True), 400)
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken("<mask>", lstrip=True),
                          AddedToken("<r>", rstrip=True),
                          AddedToken("<w>", single_word=True)])
    return t


def llama2():
    """A sentencepiece model's BPE as Llama 2's tokenizer.json has it."""
    special = ["<unk>", "<s>", "</s>"]
    t = train(pre_tokenizers.Metaspace(), 700, alphabet=False,
              special=special + ["<0x%02X>" % i for i in range(256)],
              unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    j = json.loads(t.to_str())
    j["pre_tokenizer"] = None
    j["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    j["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    j["added_tokens"] = [dict(a, normalized=False) for a in j["added_tokens"]
                         if a["content"] in special]
    return Tokenizer.from_str(json.dumps(j))


def metaspace():
    """The same as newer versions write it, and characters that are unknown."""
    j = json.loads(llama2().to_str())
    j["normalizer"] = None
    j["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁",
                          "prepend_scheme": "first", "split": False}
    j["model"]["byte_fallback"] = False
    return Tokenizer.from_str(json.dumps(j))


def bert():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece(cleanup=False)
    t.train_from_iterator(TEXTS, trainers.WordPieceTrainer(
        vocab_size=400, show_progress=False,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    return t


def some_texts(seed, n):
    draw = random.Random(seed)
    return ["".join(draw.choice(PARTS) for _ in range(draw.randrange(24)))
            for _ in range(n)] + TEXTS[:12]


def ranks(folder):
    t = train(cut(CL100K % "{1,3}"), 500)
    chars = list(range(33, 127)) + list(range(161, 173)) + \
        list(range(174, 256))
    of = {chr(c): c for c in chars}
    for i, b in enumerate(b for b in range(256) if b not in chars):
        of[chr(256 + i)] = b
    ranked = {bytes(of[c] for c in k): v for k, v in t.get_vocab().items()}
    with open(os.path.join(folder, "ranks.model"), "wb") as f:
        for token, rank in sorted(ranked.items(), key=lambda x: x[1]):
            f.write(base64.b64encode(token) + b" %d\n" % rank)
    names = ["<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>",
             "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
    return tiktoken.Encoding("ranks", pat_str=CL100K % "{1,3}",
                             mergeable_ranks=ranked, special_tokens={
                                 k: len(ranked) + i
                                 for i, k in enumerate(names)})


def main(folder):
    cases = {}
    makers = [qwen, llama3, smollm, flags, llama2, metaspace, bert]
    for seed, make in enumerate(makers):
        t = make()
        name = make.__name__
        with open(os.path.join(folder, name + ".json"), "w") as f:
            json.dump(json.loads(t.to_str()), f, ensure_ascii=False,
                      separators=(",", ":"))
        cases[name] = [
            {"text": x, "ids": ids, "decode": t.decode(ids, False),
             "decode_plain": t.decode(ids, True)}
            for x in some_texts(seed, 60)
            for ids in [t.encode(x, add_special_tokens=False).ids]]
    enc = ranks(folder)
    cases["ranks"] = [{"text": x, "ids": enc.encode(x, allowed_special="all"),
                       "decode": x} for x in some_texts(99, 60)]
    with open(os.path.join(folder, "cases.json"), "w") as f:
        json.dump(cases, f, ensure_ascii=False, separators=(",", ":"))


main(sys.argv[1])
