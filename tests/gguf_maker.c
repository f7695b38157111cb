#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/model/gguf.h"
#include "tests/gguf_maker.h"
#include "tests/support.h"

static void put_u32(struct maker_buf *b, uint32_t v)
{
    maker_put(b, &v, sizeof v); /* tests run on little-endian machines */
}

static void put_u64(struct maker_buf *b, uint64_t v)
{
    maker_put(b, &v, sizeof v);
}

static void put_text(struct maker_buf *b, const char *s)
{
    put_u64(b, strlen(s));
    maker_put(b, s, strlen(s));
}

static void put_key(struct gguf_maker *m, const char *key, uint32_t type)
{
    put_text(&m->keys, key);
    put_u32(&m->keys, type);
    m->n_keys++;
}

void gguf_u32(struct gguf_maker *m, const char *key, uint32_t v)
{
    put_key(m, key, 4);
    put_u32(&m->keys, v);
}

void gguf_f32(struct gguf_maker *m, const char *key, float v)
{
    put_key(m, key, 6);
    maker_put(&m->keys, &v, sizeof v);
}

void gguf_bool(struct gguf_maker *m, const char *key, bool v)
{
    uint8_t byte = v;

    put_key(m, key, 7);
    maker_put(&m->keys, &byte, 1);
}

void gguf_string(struct gguf_maker *m, const char *key, const char *v)
{
    put_key(m, key, 8);
    put_text(&m->keys, v);
}

static void put_array(struct gguf_maker *m, const char *key, uint32_t type,
                      size_t n)
{
    put_key(m, key, 9);
    put_u32(&m->keys, type);
    put_u64(&m->keys, n);
}

void gguf_strings(struct gguf_maker *m, const char *key, const char *const *v,
                  size_t n)
{
    put_array(m, key, 8, n);
    for (size_t i = 0; i < n; i++)
        put_text(&m->keys, v[i]);
}

void gguf_i32s(struct gguf_maker *m, const char *key, const int32_t *v,
               size_t n)
{
    put_array(m, key, 5, n);
    maker_put(&m->keys, v, n * sizeof *v);
}

void gguf_f32s(struct gguf_maker *m, const char *key, const float *v, size_t n)
{
    put_array(m, key, 6, n);
    maker_put(&m->keys, v, n * sizeof *v);
}

void gguf_tensor(struct gguf_maker *m, const char *name, uint32_t type,
                 uint64_t rows, uint64_t cols, const void *data, size_t bytes)
{
    static const uint8_t zeros[32];

    put_text(&m->infos, name);
    put_u32(&m->infos, rows > 0 ? 2 : 1);
    put_u64(&m->infos, cols);
    if (rows > 0)
        put_u64(&m->infos, rows);
    put_u32(&m->infos, type);
    put_u64(&m->infos, m->data.n);
    maker_put(&m->data, data, bytes);
    maker_put(&m->data, zeros, (32 - bytes % 32) % 32);
    m->n_tensors++;
}

uint8_t *gguf_finish(struct gguf_maker *m, size_t *n)
{
    static const uint8_t zeros[32];
    struct maker_buf b = {0};

    maker_put(&b, "GGUF\3\0\0\0", 8);
    put_u64(&b, m->n_tensors);
    put_u64(&b, m->n_keys);
    maker_put(&b, m->keys.at, m->keys.n);
    maker_put(&b, m->infos.at, m->infos.n);
    maker_put(&b, zeros, (32 - b.n % 32) % 32);
    maker_put(&b, m->data.at, m->data.n);
    maker_fini(&m->keys);
    maker_fini(&m->infos);
    maker_fini(&m->data);
    *m = (struct gguf_maker){0};
    *n = b.n;
    return b.at;
}

size_t gguf_header_bytes(const uint8_t *data, size_t n)
{
    struct sl_error err;
    struct sl_gguf *g;
    size_t need;

    assert_ok(sl_gguf_parse(&g, data, n, n, &need, &err), &err);
    need = (size_t)sl_gguf_data_off(g);
    sl_gguf_destroy(g);
    return need;
}

/* --- a model -------------------------------------------------------------- */

enum { HIDDEN = 32, INNER = 64, VOCAB = 48, LAYERS = 2, KV = 16 };

static const struct {
    const char *name;
    uint32_t rows, cols; /* rows 0: a norm */
    bool of_model;
} rows[] = {
    {"token_embd.weight", VOCAB, HIDDEN, true},
    {"output_norm.weight", 0, HIDDEN, true},
    {"output.weight", VOCAB, HIDDEN, true},
    {"blk.%u.attn_norm.weight", 0, HIDDEN, false},
    {"blk.%u.attn_q.weight", HIDDEN, HIDDEN, false},
    {"blk.%u.attn_k.weight", KV, HIDDEN, false},
    {"blk.%u.attn_v.weight", KV, HIDDEN, false},
    {"blk.%u.attn_output.weight", HIDDEN, HIDDEN, false},
    {"blk.%u.ffn_norm.weight", 0, HIDDEN, false},
    {"blk.%u.ffn_gate.weight", INNER, HIDDEN, false},
    {"blk.%u.ffn_up.weight", INNER, HIDDEN, false},
    {"blk.%u.ffn_down.weight", HIDDEN, INNER, false},
};

/* Numbers that look random and are exact in FP16: eighths from -2 to 2. */
static double value(size_t tensor, size_t i)
{
    uint32_t x = (uint32_t)(tensor * 7919 + i) * 2654435761u;

    return ((double)((x >> 13) % 33) - 16) / 8;
}

static uint16_t half_of(double v)
{
    /* v is 0 or an eighth up to 2 */
    uint16_t sign = v < 0 ? 0x8000 : 0;
    int e = 0;
    double f = frexp(fabs(v), &e); /* f in [0.5, 1) */

    if (v == 0)
        return 0;
    return (uint16_t)(sign | (uint16_t)((e + 14) << 10) |
                      (uint16_t)((f * 2 - 1) * 1024));
}

/* Factor of all sizes but the vocabulary's, so that rows are whole blocks. */
static uint32_t wide(uint32_t type)
{
    const struct sl_ggml_info *info = sl_ggml_type_of(type);

    return info != NULL && info->block_values > HIDDEN
               ? info->block_values / HIDDEN
               : 1;
}

static uint32_t widened(uint32_t size, uint32_t type)
{
    return size == VOCAB ? size : size * wide(type);
}

/* n values in a type; *bytes of at. */
static uint8_t *values(uint32_t type, size_t tensor, size_t n, size_t *bytes)
{
    const struct sl_ggml_info *info = sl_ggml_type_of(type);
    struct maker_buf b = {0};

    if (type > 1 && type != 8 && info != NULL) {
        /* Any half without its two highest bits is finite. */
        for (size_t i = 0; i < n / info->block_values * info->block_bytes;
             i++) {
            uint8_t byte = (uint8_t)((i * 2654435761u + tensor) >> 11) & 0x3f;

            maker_put(&b, &byte, 1);
        }
        *bytes = b.n;
        return b.at;
    }

    for (size_t i = 0; i < n; i++) {
        double v = value(tensor, i);
        float f = (float)v;
        uint16_t h = half_of(v), d = half_of(0.125);
        int8_t q = (int8_t)(v * 8);

        if (type == 8 && i % 32 == 0)
            maker_put(&b, &d, 2);
        if (type == 0)
            maker_put(&b, &f, 4);
        else if (type == 1)
            maker_put(&b, &h, 2);
        else
            maker_put(&b, &q, 1);
    }
    *bytes = b.n;
    return b.at;
}

static void put_tensor(struct gguf_maker *m, const struct tiny_llama *t,
                       size_t row, unsigned layer)
{
    uint32_t type = rows[row].rows == 0 ? 0 : t->type;
    bool up = layer == 0 && strcmp(rows[row].name, "blk.%u.ffn_up.weight") == 0;
    uint32_t n_rows = widened(rows[row].rows, t->type);
    uint32_t cols = widened(rows[row].cols, t->type);
    size_t n = (size_t)(n_rows ? n_rows : 1) * cols;
    bool last = layer + 1 == LAYERS && row + 1 == sizeof rows / sizeof *rows;
    char name[64];
    size_t bytes;
    uint8_t *data;

    if (up && t->up_type != 0)
        type = t->up_type;
    data = values(type, row + 100 * layer, n, &bytes);

    snprintf(name, sizeof name, rows[row].name, layer);
    if (last && t->nan_scale)
        memcpy(data + 34 * 3, "\0\176", 2);
    if (last && t->other_type != 0)
        type = t->other_type;
    gguf_tensor(m, name, type, n_rows, cols, data, bytes);
    free(data);
}

static void put_numbers(struct gguf_maker *m, const char *arch, uint32_t type)
{
    uint32_t w = wide(type);
    const struct {
        const char *key;
        uint32_t v;
    } numbers[] = {
        {"block_count", LAYERS},          {"context_length", 64},
        {"embedding_length", HIDDEN * w}, {"feed_forward_length", INNER * w},
        {"attention.head_count", 2},      {"attention.head_count_kv", 1},
        {"rope.dimension_count", 16 * w},
    };
    char key[96];

    gguf_string(m, "general.architecture", arch);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, numbers[i].key);
        gguf_u32(m, key, numbers[i].v);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    gguf_f32(m, key, 1e-5f);
}

/* Letters, and behind them "ab" and the two that are special. */
static void put_vocab(struct gguf_maker *m, const struct tiny_llama *t)
{
    static const char *const merges[] = {"a b"};
    uint32_t n = t->n_tokens != 0 ? t->n_tokens : VOCAB;
    const char **tokens = malloc(n * sizeof *tokens);
    char(*text)[16] = malloc(n * sizeof *text);
    int32_t *types = malloc(n * sizeof *types);

    for (uint32_t i = 0; i < n; i++) {
        snprintf(text[i], sizeof *text, "%c", (int)('a' + i % 26));
        if (i >= 26)
            snprintf(text[i], sizeof *text, "t%u", i);
        types[i] = 1;
        tokens[i] = text[i];
    }
    tokens[26] = "ab";
    tokens[27] = "<s>";
    tokens[28] = "</s>";
    types[27] = types[28] = 3;
    gguf_string(m, "tokenizer.ggml.model", "gpt2");
    gguf_string(m, "tokenizer.ggml.pre", t->pre != NULL ? t->pre : "gpt-2");
    gguf_strings(m, "tokenizer.ggml.tokens", tokens, n);
    gguf_i32s(m, "tokenizer.ggml.token_type", types, n);
    gguf_strings(m, "tokenizer.ggml.merges", merges, 1);
    gguf_u32(m, "tokenizer.ggml.bos_token_id", 27);
    gguf_u32(m, "tokenizer.ggml.eos_token_id", 28);
    free(tokens);
    free(text);
    free(types);
}

uint8_t *tiny_llama_file(const struct tiny_llama *t, size_t *n)
{
    struct gguf_maker m = {0};
    unsigned at = 0, parts = t->n_parts > 1 ? t->n_parts : 1;
    size_t n_rows = sizeof rows / sizeof *rows;

    if (t->part == 0) {
        put_numbers(&m, t->arch != NULL ? t->arch : "llama", t->type);
        put_vocab(&m, t);
    }
    if (parts > 1) {
        gguf_u32(&m, "split.no", t->part);
        gguf_u32(&m, "split.count", parts);
        gguf_u32(&m, "split.tensors.count", t->total != 0 ? t->total : 21);
    }
    for (size_t i = 0; i < n_rows; i++) {
        for (unsigned l = 0; l < (rows[i].of_model ? 1u : LAYERS); l++) {
            if (at++ % parts == t->part)
                put_tensor(&m, t, i, l);
        }
    }
    return gguf_finish(&m, n);
}
