#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/half.h"
#include "tests/ckpt_maker.h"
#include "tests/glm_maker.h"
#include "tests/support.h"

void glm_maker_init(struct glm_maker *g)
{
    *g = (struct glm_maker){.shards = 1};
    g->hp = (struct sl_hparams){
        .n_layers = 2,
        .hidden = 24,
        .inner = 44,
        .n_heads = 4,
        .vocab = 52,
        .max_positions = 64,
        .norm_eps = 1e-5f,
        .glu = true,
    };
}

static bool is_quantised(const struct glm_maker *g,
                         const struct sl_tensor_spec *s)
{
    return g->quantised != 0 &&
           (s->role == SL_ROLE_LINEAR ||
            (s->role == SL_ROLE_EMBED && g->quantised_embed));
}

float glm_value(const struct glm_maker *g, const struct sl_tensor_spec *spec,
                uint64_t i)
{
    uint32_t h = 2166136261u;

    if (spec->role != SL_ROLE_VECTOR && i / spec->cols % 5 == 4)
        return 0;
    for (const char *p = spec->name; *p != '\0'; p++)
        h = (h ^ (uint8_t)*p) * 16777619u;
    if (g->changed != NULL && strstr(spec->name, g->changed) != NULL)
        h++;
    h = (h ^ (uint32_t)i) * 2654435761u;
    h = (h ^ h >> 15) * 2246822519u;
    h ^= h >> 13;
    if (is_quantised(g, spec))
        return (float)((int)(h % 15) - 7) / 64;
    return (float)((int)(h % 2001) - 1000) / 4096;
}

/* The index in the merged tensor of element (row, col) of a shard's part. */
static uint64_t place(const struct sl_tensor_spec *s, unsigned n, unsigned rank,
                      uint64_t row, uint64_t col)
{
    uint64_t run = s->rows / (s->split == SL_SPLIT_GLU ? 2 : 3), part;

    switch (s->split) {
    case SL_SPLIT_NONE:
    case SL_SPLIT_HEAD_KEYS: /* no checkpoint in shards has these */
    case SL_SPLIT_HEAD_VALUES:
        break;
    case SL_SPLIT_ROWS:
        row += rank * (uint64_t)(s->rows / n);
        break;
    case SL_SPLIT_COLS:
        col += rank * (uint64_t)(s->cols / n);
        break;
    case SL_SPLIT_GLU: /* [A_rank; B_rank] */
    case SL_SPLIT_QKV: /* [Q_rank; K_rank; V_rank] */
        part = run / n;
        row = row / part * run + rank * part + row % part;
        break;
    }
    return row * s->cols + col;
}

static void put_value(uint8_t *out, enum sl_dtype dt, float v)
{
    double d = (double)v;
    uint32_t bits;

    memcpy(&bits, &v, 4);
    switch (dt) {
    case SL_DT_F16:
        sl_store_u16(out, sl_float_to_half(v));
        break;
    case SL_DT_BF16: /* its tests choose values that fit */
        sl_store_u16(out, (uint16_t)(bits >> 16));
        break;
    case SL_DT_F64:
        memcpy(out, &d, 8);
        break;
    case SL_DT_I8:
        *out = (uint8_t)(int8_t)(v * 64);
        break;
    default:
        memcpy(out, &v, 4);
        break;
    }
}

struct part {
    struct maker_tensor tensors[512];
    char names[512][96];
    size_t n;
};

static void add(struct part *p, const char *name, enum sl_dtype dt,
                uint64_t rows, uint64_t cols, void *data)
{
    struct maker_tensor *t = &p->tensors[p->n];

    assert_true(p->n < 512);
    snprintf(p->names[p->n], sizeof p->names[p->n], "%s", name);
    *t = (struct maker_tensor){
        .name = p->names[p->n],
        .dtype = dt,
        .n_dims = cols > 0 ? 2 : 1,
        .shape = {rows, cols},
        .data = data,
    };
    p->n++;
}

/* Two columns a byte, the even one in the high four bits. */
static void squeeze(uint8_t *data, uint64_t n)
{
    for (uint64_t i = 0; i < n / 2; i++)
        data[i] = (uint8_t)(data[2 * i] << 4 | (data[2 * i + 1] & 15));
}

static void add_tensor(struct part *p, const struct glm_maker *g, unsigned rank,
                       const struct sl_tensor_spec *s)
{
    bool quantised = is_quantised(g, s);
    enum sl_dtype dt = quantised          ? SL_DT_I8
                       : g->dtype != NULL ? g->dtype(s)
                                          : SL_DT_F16;
    bool cut = s->split != SL_SPLIT_NONE, by_cols = s->split == SL_SPLIT_COLS;
    uint64_t rows = s->rows / (cut && !by_cols ? g->shards : 1);
    uint64_t cols = s->cols / (by_cols ? g->shards : 1);
    uint8_t *data = malloc(rows * cols * 8);
    char name[96];

    assert_non_null(data);
    for (uint64_t r = 0; r < rows; r++) {
        for (uint64_t c = 0; c < cols; c++)
            put_value(data + (r * cols + c) * sl_dtype_bytes(dt), dt,
                      glm_value(g, s, place(s, g->shards, rank, r, c)));
    }
    if (quantised && g->quantised == 4) {
        squeeze(data, rows * cols);
        cols /= 2;
    }
    add(p, s->name, dt, rows, s->role == SL_ROLE_VECTOR ? 0 : cols, data);
    if (!quantised)
        return;
    data = malloc(rows * 2);
    assert_non_null(data);
    for (uint64_t r = 0; r < rows; r++)
        put_value(data + 2 * r, SL_DT_F16, 1.0f / 64);
    if (g->bad_scale != 0)
        sl_store_u16(data + 2, g->bad_scale);
    snprintf(name, sizeof name, "%s_scale", s->name);
    add(p, name, SL_DT_F16, rows, 0, data);
}

static void write_config(const struct glm_maker *g, const char *dir)
{
    const struct sl_hparams *hp = &g->hp;
    char path[1100], text[512];
    int n = snprintf(text, sizeof text,
                     "{\"num_layers\": %u, \"hidden_size\": %u, "
                     "\"inner_hidden_size\": %u, \"num_attention_heads\": %u, "
                     "\"vocab_size\": %u, \"max_sequence_length\": %u, "
                     "\"layernorm_order\": \"post\", \"no_glu\": %s}",
                     hp->n_layers, hp->hidden, hp->inner, hp->n_heads,
                     hp->vocab, hp->max_positions, hp->glu ? "false" : "true");

    snprintf(path, sizeof path, "%s/config.json", dir);
    maker_file(path, text, (size_t)n);
}

void glm_maker_write(const struct glm_maker *g, const char *dir)
{
    static const char freq[] = "transformer.layers.0.attention.rotary_emb."
                               "inv_freq";
    struct part *p = malloc(sizeof *p);
    struct sl_hparams hp = g->hp;
    struct sl_tensor_spec s;

    assert_non_null(p);
    sl_arch_derive(&sl_arch_glm130b, &hp);
    for (unsigned rank = 0; rank < g->shards; rank++) {
        p->n = 0;
        for (uint32_t i = 0; sl_arch_tensor(&sl_arch_glm130b, &s, &hp, i);
             i++) {
            if (g->without == NULL || rank + 1 < g->shards ||
                strcmp(s.name, g->without) != 0)
                add_tensor(p, g, rank, &s);
        }
        add(p, freq, SL_DT_F16, 3, 0, calloc(3, 2));
        if (g->extra != NULL)
            add(p, g->extra, SL_DT_F32, 2, 0, calloc(2, 4));
        maker_shard(dir, "7", rank, p->tensors, p->n, NULL);
        for (size_t i = 0; i < p->n; i++)
            free((void *)p->tensors[i].data);
    }
    free(p);
    write_config(g, dir);
}
