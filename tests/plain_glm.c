#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/plain_glm.h"
#include "tests/support.h"

struct tensor {
    char name[96];
    double *v; /* (rows, cols) */
    uint32_t rows, cols;
};

struct plain_glm {
    struct sl_hparams hp;
    struct tensor *tensors;
    size_t n;
};

static double *decode_matrix(const struct sl_modelfile *mf,
                             const struct sl_model_matrix *m)
{
    const struct sl_matrix *g = &m->geom;
    uint32_t seg_rows = sl_matrix_segment_rows(g);
    double *out = malloc(8ull * g->rows * g->cols);
    float *row = malloc(4ull * g->cols);
    uint8_t *w = malloc(m->bytes);
    uint8_t *s = malloc(m->scale_bytes + 1);
    struct sl_error err;

    assert_ok(sl_modelfile_read(mf, w, m->off, m->bytes, &err), &err);
    if (m->scale_bytes)
        assert_ok(sl_modelfile_read(mf, s, m->scale_off, m->scale_bytes, &err),
                  &err);
    for (uint32_t r = 0; r < g->rows; r++) {
        uint32_t seg = r / seg_rows, in = r % seg_rows;

        sl_matrix_decode_row(
            row, g, w + sl_matrix_block_offset(g, seg, in / SL_BLOCK_ROWS),
            m->scale_bytes ? (const void *)(s + sl_matrix_scale_offset(
                                                    g, seg, in / SL_BLOCK_ROWS))
                           : NULL,
            in % SL_BLOCK_ROWS);
        for (uint32_t c = 0; c < g->cols; c++)
            out[(size_t)r * g->cols + c] = row[c];
    }
    free(row);
    free(w);
    free(s);
    return out;
}

static double *decode_vector(const struct sl_modelfile *mf,
                             const struct sl_model_vector *v)
{
    double *out = malloc(8ull * v->spec.rows);
    float *f = malloc(v->bytes);
    struct sl_error err;

    assert_ok(sl_modelfile_read(mf, f, v->off, v->bytes, &err), &err);
    for (uint32_t i = 0; i < v->spec.rows; i++)
        out[i] = f[i];
    free(f);
    return out;
}

struct plain_glm *plain_glm_open(const char *path)
{
    struct plain_glm *g = calloc(1, sizeof *g);
    struct sl_modelfile mf;
    struct sl_error err;

    assert_ok(sl_modelfile_open(&mf, path, &err), &err);
    g->hp = mf.hp;
    g->n = mf.n_matrices + mf.n_vectors;
    g->tensors = calloc(g->n, sizeof *g->tensors);
    for (size_t i = 0; i < g->n; i++) {
        bool matrix = i < mf.n_matrices;
        const struct sl_tensor_spec *spec =
            matrix ? &mf.matrices[i].spec : &mf.vectors[i - mf.n_matrices].spec;
        struct tensor *t = &g->tensors[i];

        snprintf(t->name, sizeof t->name, "%s", spec->name);
        t->rows = spec->rows;
        t->cols = spec->cols;
        t->v = matrix ? decode_matrix(&mf, &mf.matrices[i])
                      : decode_vector(&mf, &mf.vectors[i - mf.n_matrices]);
    }
    sl_modelfile_close(&mf);
    return g;
}

void plain_glm_close(struct plain_glm *g)
{
    for (size_t i = 0; i < g->n; i++)
        free(g->tensors[i].v);
    free(g->tensors);
    free(g);
}

const struct sl_hparams *plain_glm_hparams(const struct plain_glm *g)
{
    return &g->hp;
}

static const struct tensor *find(const struct plain_glm *g, int layer,
                                 const char *leaf)
{
    char name[96];

    if (layer < 0)
        snprintf(name, sizeof name, "transformer.%s", leaf);
    else
        snprintf(name, sizeof name, "transformer.layers.%d.%s", layer, leaf);
    for (size_t i = 0; i < g->n; i++) {
        if (strcmp(g->tensors[i].name, name) == 0)
            return &g->tensors[i];
    }
    print_error("no tensor %s\n", name);
    fail();
    return NULL;
}

/* y (n, rows) = x (n, cols) W^T + b */
static void linear(double *y, const double *x, uint32_t n,
                   const struct tensor *w, const struct tensor *b)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t r = 0; r < w->rows; r++) {
            double sum = b ? b->v[r] : 0;

            for (uint32_t c = 0; c < w->cols; c++)
                sum +=
                    x[(size_t)i * w->cols + c] * w->v[(size_t)r * w->cols + c];
            y[(size_t)i * w->rows + r] = sum;
        }
    }
}

static void norm(double *y, const double *x, uint32_t n, uint32_t h, double eps,
                 const struct tensor *w, const struct tensor *b)
{
    for (uint32_t i = 0; i < n; i++, x += h, y += h) {
        double mean = 0, var = 0;

        for (uint32_t c = 0; c < h; c++)
            mean += x[c] / h;
        for (uint32_t c = 0; c < h; c++)
            var += (x[c] - mean) * (x[c] - mean) / h;
        for (uint32_t c = 0; c < h; c++)
            y[c] = (x[c] - mean) / sqrt(var + eps) * w->v[c] + b->v[c];
    }
}

/* Pairs (i, i + dim / 2) of v, turned by position * 10000^(-2i / dim). */
static void turn(double *v, uint32_t dim, int32_t position)
{
    for (uint32_t i = 0; i < dim / 2; i++) {
        double angle = position * pow(10000, -2.0 * i / dim);
        double a = v[i], b = v[i + dim / 2];

        v[i] = a * cos(angle) - b * sin(angle);
        v[i + dim / 2] = b * cos(angle) + a * sin(angle);
    }
}

static void turn_all(double *v, uint32_t d, int32_t position,
                     const int32_t *block)
{
    if (block == NULL) {
        turn(v, d, position);
        return;
    }
    turn(v, d / 2, position);
    turn(v + d / 2, d / 2, *block);
}

/* out (n, h) from qkv (n, 3h): per head q, k, v. */
static void attention(double *out, double *qkv, uint32_t n, uint32_t n_context,
                      uint32_t heads, uint32_t d)
{
    uint32_t h = heads * d;
    double *p = malloc(8ull * n);

    for (uint32_t head = 0; head < heads; head++) {
        for (uint32_t i = 0; i < n; i++) {
            const double *q = qkv + (size_t)i * 3 * h + head * 3 * d;
            double most = -INFINITY, sum = 0;

            for (uint32_t j = 0; j < n; j++) {
                const double *k = qkv + (size_t)j * 3 * h + head * 3 * d + d;

                p[j] = j <= i || j < n_context ? 0 : -INFINITY;
                for (uint32_t c = 0; c < d; c++)
                    p[j] += q[c] * k[c] / sqrt(d);
                most = fmax(most, p[j]);
            }
            for (uint32_t j = 0; j < n; j++)
                sum += p[j] = exp(p[j] - most);
            for (uint32_t c = 0; c < d; c++) {
                double v = 0;

                for (uint32_t j = 0; j < n; j++)
                    v += p[j] / sum *
                         qkv[(size_t)j * 3 * h + head * 3 * d + 2 * d + c];
                out[(size_t)i * h + head * d + c] = v;
            }
        }
    }
    free(p);
}

static double gelu_erf(double x)
{
    return 0.5 * x * (1 + erf(x / sqrt(2)));
}

static double gelu_tanh(double x)
{
    return 0.5 * x *
           (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
}

static void mlp(const struct plain_glm *g, int layer, double *out,
                const double *x, uint32_t n)
{
    const struct tensor *in = find(g, layer, "mlp.dense_h_to_4h.weight");
    uint32_t inner = g->hp.inner;
    double *u = malloc(8ull * n * in->rows);
    double *v = malloc(8ull * n * inner);

    linear(u, x, n, in, find(g, layer, "mlp.dense_h_to_4h.bias"));
    for (uint32_t i = 0; i < n; i++) {
        const double *row = u + (size_t)i * in->rows;

        for (uint32_t c = 0; c < inner; c++)
            v[(size_t)i * inner + c] = g->hp.glu
                                           ? row[c] * gelu_erf(row[inner + c])
                                           : gelu_tanh(row[c]);
    }
    linear(out, v, n, find(g, layer, "mlp.dense_4h_to_h.weight"),
           find(g, layer, "mlp.dense_4h_to_h.bias"));
    free(u);
    free(v);
}

static void layer_pass(const struct plain_glm *g, int l, double *x,
                       const int32_t *positions, const int32_t *blocks,
                       uint32_t n, uint32_t n_context)
{
    uint32_t h = g->hp.hidden, d = h / g->hp.n_heads;
    double alpha = sqrt(2.0 * g->hp.n_layers);
    double *a = malloc(8ull * n * h), *att = malloc(8ull * n * h);
    double *qkv = malloc(8ull * n * 3 * h);

    norm(a, x, n, h, g->hp.norm_eps, find(g, l, "input_layernorm.weight"),
         find(g, l, "input_layernorm.bias"));
    linear(qkv, a, n, find(g, l, "attention.query_key_value.weight"),
           find(g, l, "attention.query_key_value.bias"));
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t head = 0; head < g->hp.n_heads; head++) {
            double *q = qkv + (size_t)i * 3 * h + head * 3 * d;

            turn_all(q, d, positions[i], blocks ? &blocks[i] : NULL);
            turn_all(q + d, d, positions[i], blocks ? &blocks[i] : NULL);
        }
    }
    attention(att, qkv, n, n_context, g->hp.n_heads, d);
    linear(x, att, n, find(g, l, "attention.dense.weight"),
           find(g, l, "attention.dense.bias"));
    for (size_t i = 0; i < (size_t)n * h; i++)
        x[i] += alpha * a[i];
    norm(a, x, n, h, g->hp.norm_eps,
         find(g, l, "post_attention_layernorm.weight"),
         find(g, l, "post_attention_layernorm.bias"));
    mlp(g, l, x, a, n);
    for (size_t i = 0; i < (size_t)n * h; i++)
        x[i] += alpha * a[i];
    free(a);
    free(att);
    free(qkv);
}

void plain_glm_forward(const struct plain_glm *g, double *logits,
                       const int32_t *ids, const int32_t *positions,
                       const int32_t *blocks, uint32_t n, uint32_t n_context)
{
    const struct tensor *e = find(g, -1, "word_embeddings.weight");
    uint32_t h = g->hp.hidden;
    double *x = malloc(8ull * n * h), *y = malloc(8ull * n * h);

    for (uint32_t i = 0; i < n; i++)
        memcpy(x + (size_t)i * h, e->v + (size_t)ids[i] * h, 8ull * h);
    for (uint32_t l = 0; l < g->hp.n_layers; l++)
        layer_pass(g, (int)l, x, positions, blocks, n, n_context);
    norm(y, x, n, h, g->hp.norm_eps, find(g, -1, "final_layernorm.weight"),
         find(g, -1, "final_layernorm.bias"));
    linear(logits, y, n, e, NULL);
    free(x);
    free(y);
}
