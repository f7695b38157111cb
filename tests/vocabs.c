#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/vocabs.h"

int test_files_read(void *opaque, const char *name, uint8_t **data, size_t *n,
                    struct sl_error *err)
{
    for (const struct test_file *f = opaque; f->name != NULL; f++) {
        if (strcmp(f->name, name) != 0)
            continue;
        if (f->path != NULL) {
            *data = test_read_file(f->path, n);
        } else {
            *n = strlen(f->text);
            *data = (uint8_t *)strdup(f->text);
            assert_non_null(*data);
        }
        return 0;
    }
    return 1;
}

struct sl_tokenizer *test_vocab_open(struct sl_vocab_made *made)
{
    struct sl_tokenizer *t = NULL;
    struct sl_error err;

    assert_ok(sl_tokenizer_create(&t, made->blob, made->n, &made->text,
                                  made->text.n_tokens, &err),
              &err);
    sl_vocab_made_fini(made);
    return t;
}

struct sl_tokenizer *test_vocab_files(const struct test_file *files,
                                      const struct sl_vocab_options *o)
{
    struct sl_vocab_source source = {test_files_read, (void *)files};
    struct sl_vocab_made made;
    struct sl_error err;

    assert_ok(sl_vocab_compile(&made, &source, o, &err), &err);
    return test_vocab_open(&made);
}

struct sl_tokenizer *test_vocab_dir(const char *dir,
                                    const struct sl_vocab_options *o)
{
    struct sl_vocab_source source = {sl_vocab_read_dir, (void *)dir};
    struct sl_vocab_made made;
    struct sl_error err;

    assert_ok(sl_vocab_compile(&made, &source, o, &err), &err);
    return test_vocab_open(&made);
}

void test_encode(struct sl_tokenizer *t, struct sl_ids *ids, const char *text,
                 size_t n, bool special)
{
    struct sl_error err;

    ids->n = 0;
    assert_ok((special ? sl_tokenizer_encode_special
                       : sl_tokenizer_encode)(t, ids, text, n, &err),
              &err);
}

void test_same_ids(const struct sl_ids *ids, const json_t *want,
                   const char *text)
{
    bool same = json_array_size(want) == ids->n;

    for (size_t i = 0; same && i < ids->n; i++)
        same = json_integer_value(json_array_get(want, i)) == ids->v[i];
    if (same)
        return;
    print_error("text: %s\n", text);
    for (size_t i = 0; i < ids->n || i < json_array_size(want); i++)
        print_error("%3zu %8d, to be %8d\n", i, i < ids->n ? ids->v[i] : -1,
                    i < json_array_size(want)
                        ? (int)json_integer_value(json_array_get(want, i))
                        : -1);
    fail();
}

uint64_t test_random(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * UINT64_C(0x2545f4914f6cdd1d);
}

size_t test_random_text(uint64_t *state, char *buf, size_t room, bool bytes)
{
    static const char *const parts[] = {
        "a",        "e",       "the",    "Th",     "ing",      "'s",
        "'LL",      " ",       " ",      "  ",     "\n",       "\r\n",
        "\t",       "1",       "2024",   "7",      ".",        ",",
        "!?",       "--",      "(",      "\"",     "é",        "e\u0301",
        "ß",        "Å",       "İ",      "ж",      "Ш",        "中",
        "文字",     "的",      "，",     "。",     "あ",       "한국",
        "\u3000",   "\u00a0",  "\u200b", "\u2028", "👋",        "👨\u200d👩",
        "½",        "Ⅳ",       "ﬁ",      "ſ",      "<|user|>", "[MASK]",
        "<sop>",    "[gMASK]", "<unk>",  "<0x41>", "▁",        "Ġ",
        "\xc2\x85", "\x01",
    };
    size_t n = 0, pieces = test_random(state) % 24;

    for (size_t i = 0; i < pieces; i++) {
        char other[2] = {(char)(0x80 | test_random(state) >> 57), '\0'};
        const char *part =
            bytes && test_random(state) % 6 == 0
                ? other
                : parts[test_random(state) % (sizeof parts / sizeof *parts)];
        size_t size = strlen(part);

        if (size > room - n)
            break;
        memcpy(buf + n, part, size);
        n += size;
    }
    return n;
}
