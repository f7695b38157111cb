#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/plain_kinds.h"
#include "tests/plain_lm.h"
#include "tests/support.h"

struct tensor {
    char name[96];
    double *v; /* (rows, cols) */
    uint32_t rows, cols;
    bool read;
};

struct plain_lm {
    struct sl_hparams hp;
    const struct plain_kind *kind;
    struct tensor *tensors;
    size_t n;
};

/* A pass: (n, hidden) goes through all layers. */
struct pass {
    struct plain_lm *m;
    const int32_t *positions, *blocks;
    uint32_t n, n_context;
};

/* --- the file ------------------------------------------------------------- */

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
                             const struct sl_model_small *v)
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

static void read_tensors(struct plain_lm *m, const struct sl_modelfile *mf)
{
    for (size_t i = 0; i < m->n; i++) {
        bool matrix = i < mf->n_matrices;
        const struct sl_tensor_spec *spec =
            matrix ? &mf->matrices[i].spec
                   : &mf->small[i - mf->n_matrices].spec;
        struct tensor *t = &m->tensors[i];

        snprintf(t->name, sizeof t->name, "%s", spec->name);
        t->rows = spec->rows;
        t->cols = spec->cols;
        t->v = matrix ? decode_matrix(mf, &mf->matrices[i])
                      : decode_vector(mf, &mf->small[i - mf->n_matrices]);
    }
}

struct plain_lm *plain_lm_open(const char *path)
{
    struct plain_lm *m = calloc(1, sizeof *m);
    struct sl_modelfile mf;
    struct sl_error err;

    assert_non_null(m);
    assert_ok(sl_modelfile_open(&mf, path, &err), &err);
    m->hp = mf.hp;
    m->kind = plain_kind_find(mf.arch->name);
    m->n = mf.n_matrices + mf.n_small;
    m->tensors = calloc(m->n, sizeof *m->tensors);
    assert_non_null(m->tensors);
    read_tensors(m, &mf);
    sl_modelfile_close(&mf);
    return m;
}

void plain_lm_close(struct plain_lm *m)
{
    for (size_t i = 0; i < m->n; i++)
        free(m->tensors[i].v);
    free(m->tensors);
    free(m);
}

const char *plain_lm_unread(const struct plain_lm *m)
{
    for (size_t i = 0; i < m->n; i++) {
        if (!m->tensors[i].read)
            return m->tensors[i].name;
    }
    return NULL;
}

bool plain_lm_causal(const struct plain_lm *m)
{
    return m->kind->causal;
}

/* Of the model with layer < 0. */
static const struct tensor *find(struct plain_lm *m, int layer,
                                 const char *leaf, const char *what)
{
    char name[96];

    if (layer < 0)
        snprintf(name, sizeof name, "%s.%s", leaf, what);
    else
        snprintf(name, sizeof name, "%s%d.%s.%s", m->kind->names->layer, layer,
                 leaf, what);
    for (size_t i = 0; i < m->n; i++) {
        if (strcmp(m->tensors[i].name, name) != 0)
            continue;
        m->tensors[i].read = true;
        return &m->tensors[i];
    }
    print_error("no tensor %s\n", name);
    fail();
    return NULL;
}

/* --- a pass --------------------------------------------------------------- */

/* y (n, rows) = x (n, cols) W^T + b, free it. */
static double *linear(const struct pass *p, const double *x, int layer,
                      const char *leaf, bool biased)
{
    const struct tensor *w = find(p->m, layer, leaf, "weight");
    const struct tensor *b = biased ? find(p->m, layer, leaf, "bias") : NULL;
    double *y = malloc(8ull * p->n * w->rows);

    for (uint32_t i = 0; i < p->n; i++) {
        for (uint32_t r = 0; r < w->rows; r++) {
            double sum = b ? b->v[r] : 0;

            for (uint32_t c = 0; c < w->cols; c++)
                sum +=
                    x[(size_t)i * w->cols + c] * w->v[(size_t)r * w->cols + c];
            y[(size_t)i * w->rows + r] = sum;
        }
    }
    return y;
}

/* (n, hidden), free it. */
static double *normed(const struct pass *p, const double *x, int layer,
                      const char *leaf)
{
    const struct plain_kind *k = p->m->kind;
    uint32_t h = p->m->hp.hidden;
    const struct tensor *w = find(p->m, layer, leaf, "weight");
    const struct tensor *b = k->biased ? find(p->m, layer, leaf, "bias") : NULL;
    double *y = malloc(8ull * p->n * h);

    assert_int_equal(w->rows, h);
    for (uint32_t i = 0; i < p->n; i++)
        k->norm(y + (size_t)i * h, x + (size_t)i * h, h, p->m->hp.norm_eps,
                w->v, b ? b->v : NULL);
    return y;
}

/* Norms and turns the heads of q (part 0) or k in rows of query_key_value. */
static void turn_heads(const struct pass *p, int layer, double *qkv,
                       uint32_t width, unsigned part)
{
    const struct sl_hparams *hp = &p->m->hp;
    const struct plain_kind *k = p->m->kind;
    const struct tensor *w = NULL;

    if (k->head_norms || (k->may_head_norms && hp->qk_norm))
        w = find(p->m, layer, part ? "self_attn.k_norm" : "self_attn.q_norm",
                 "weight");
    for (uint32_t i = 0; i < p->n; i++) {
        for (uint32_t h = 0; h < (part ? hp->n_kv_heads : hp->n_heads); h++) {
            double *v = qkv + (size_t)i * width + k->at(hp, part, h);

            if (w)
                plain_rms_norm(v, v, hp->head_dim, hp->norm_eps, w->v, NULL);
            if (k->turn)
                k->turn(v, hp, p->positions[i], p->blocks ? p->blocks[i] : 0);
        }
    }
}

/* out (head_dim) of a query and a head. w: room for n weights. */
static void attend(const struct pass *p, double *out, double *w,
                   const double *qkv, uint32_t width, uint32_t i, uint32_t head)
{
    const struct sl_hparams *hp = &p->m->hp;
    const struct plain_kind *k = p->m->kind;
    uint32_t group = head / (hp->n_heads / hp->n_kv_heads);
    const double *q = qkv + (size_t)i * width + k->at(hp, 0, head);
    double most = -INFINITY, sum = 0;

    for (uint32_t j = 0; j < p->n; j++) {
        const double *key = qkv + (size_t)j * width + k->at(hp, 1, group);

        w[j] = j <= i || j < p->n_context ? 0 : -INFINITY;
        for (uint32_t c = 0; c < hp->head_dim; c++)
            w[j] += q[c] * key[c] / sqrt(hp->head_dim);
        most = fmax(most, w[j]);
    }
    for (uint32_t j = 0; j < p->n; j++)
        sum += w[j] = exp(w[j] - most);
    for (uint32_t c = 0; c < hp->head_dim; c++) {
        out[c] = 0;
        for (uint32_t j = 0; j < p->n; j++)
            out[c] +=
                w[j] / sum * qkv[(size_t)j * width + k->at(hp, 2, group) + c];
    }
}

/* Norms and turns n values of each row, width apart, by a vector. */
static void norm_part(const struct pass *p, double *rows, uint32_t width,
                      int layer, const char *leaf)
{
    const struct tensor *w = find(p->m, layer, leaf, "weight");

    for (uint32_t i = 0; i < p->n; i++)
        plain_rms_norm(rows + (size_t)i * width, rows + (size_t)i * width,
                       w->rows, p->m->hp.latent_eps, w->v, NULL);
}

/* Keys and values are made of the latents of all positions and attended to as
 * any others: q: (n, heads, nope + rope), z: (n, kv_lora + rope). */
static void attend_to_latents(const struct pass *p, int layer, double *out,
                              const double *q, const double *z)
{
    const struct sl_hparams *hp = &p->m->hp;
    const double *kb = find(p->m, layer, "self_attn.k_b_proj", "weight")->v;
    const double *vb = find(p->m, layer, "self_attn.v_b_proj", "weight")->v;
    uint32_t c = hp->kv_lora, r = hp->rope_dims, dn = hp->nope_dims;
    uint32_t dv = hp->value_dims, dq = dn + r;
    double *key = malloc(8ull * p->n * dq), *value = malloc(8ull * p->n * dv);
    double *w = malloc(8ull * p->n);

    for (uint32_t h = 0; h < hp->n_heads; h++) {
        for (uint32_t j = 0; j < p->n; j++) {
            const double *latent = z + (size_t)j * (c + r);

            for (uint32_t a = 0; a < dq; a++) {
                double sum = a < dn ? 0 : latent[c + a - dn];

                for (uint32_t b = 0; a < dn && b < c; b++)
                    sum += kb[((size_t)h * c + b) * dn + a] * latent[b];
                key[j * dq + a] = sum;
            }
            for (uint32_t a = 0; a < dv; a++) {
                value[j * dv + a] = 0;
                for (uint32_t b = 0; b < c; b++)
                    value[j * dv + a] +=
                        vb[((size_t)h * dv + a) * c + b] * latent[b];
            }
        }
        for (uint32_t i = 0; i < p->n; i++) {
            double *to = out + ((size_t)i * hp->n_heads + h) * dv, sum = 0;

            for (uint32_t j = 0; j <= i; j++) {
                w[j] = 0;
                for (uint32_t a = 0; a < dq; a++)
                    w[j] += q[((size_t)i * hp->n_heads + h) * dq + a] *
                            key[j * dq + a] / sqrt(dq);
                sum += w[j] = exp(w[j]);
            }
            for (uint32_t a = 0; a < dv; a++) {
                to[a] = 0;
                for (uint32_t j = 0; j <= i; j++)
                    to[a] += w[j] / sum * value[j * dv + a];
            }
        }
    }
    free(key);
    free(value);
    free(w);
}

static double *latent_attention(const struct pass *p, int layer,
                                const double *x)
{
    const struct sl_hparams *hp = &p->m->hp;
    uint32_t dq = hp->nope_dims + hp->rope_dims;
    uint32_t dz = hp->kv_lora + hp->rope_dims;
    double *z = linear(p, x, layer, "self_attn.kv_a_proj_with_mqa", false);
    double *a = linear(p, x, layer, "self_attn.q_a_proj", false), *q, *y;
    double *out = malloc(8ull * p->n * hp->n_heads * hp->value_dims);

    norm_part(p, z, dz, layer, "self_attn.kv_a_layernorm");
    norm_part(p, a, hp->q_lora, layer, "self_attn.q_a_layernorm");
    q = linear(p, a, layer, "self_attn.q_b_proj", false);
    for (uint32_t i = 0; i < p->n; i++) {
        p->m->kind->turn(z + (size_t)i * dz + hp->kv_lora, hp, p->positions[i],
                         0);
        for (uint32_t h = 0; h < hp->n_heads; h++)
            p->m->kind->turn(q + ((size_t)i * hp->n_heads + h) * dq +
                                 hp->nope_dims,
                             hp, p->positions[i], 0);
    }
    attend_to_latents(p, layer, out, q, z);
    y = linear(p, out, layer, p->m->kind->names->attn_out, false);
    free(z);
    free(a);
    free(q);
    free(out);
    return y;
}

static double *plain_attention(const struct pass *p, int layer, const double *x)
{
    const struct sl_hparams *hp = &p->m->hp;
    const struct plain_kind *k = p->m->kind;
    uint32_t d = hp->head_dim, all = hp->n_heads * d;
    uint32_t width = all + 2 * hp->n_kv_heads * d;
    double *qkv =
        linear(p, x, layer, k->names->qkv, k->biased || !hp->no_qkv_bias);
    double *att = malloc(8ull * p->n * all), *w = malloc(8ull * p->n), *y;

    turn_heads(p, layer, qkv, width, 0);
    turn_heads(p, layer, qkv, width, 1);
    for (uint32_t i = 0; i < p->n; i++) {
        for (uint32_t h = 0; h < hp->n_heads; h++)
            attend(p, att + (size_t)i * all + h * d, w, qkv, width, i, h);
    }
    y = linear(p, att, layer, k->names->attn_out,
               k->biased || hp->attn_out_bias);
    free(qkv);
    free(att);
    free(w);
    return y;
}

static double *attention(const struct pass *p, int layer, const double *x)
{
    return p->m->hp.kv_lora > 0 ? latent_attention(p, layer, x)
                                : plain_attention(p, layer, x);
}

/* W_out act(W_in x) of an MLP with those leaves. */
static double *mlp(const struct pass *p, int layer, const char *in,
                   const char *out, const double *x)
{
    const struct sl_hparams *hp = &p->m->hp;
    const struct plain_kind *k = p->m->kind;
    bool biased = k->biased || hp->mlp_bias;
    uint32_t inner = find(p->m, layer, out, "weight")->cols;
    uint32_t width = hp->glu ? 2 * inner : inner;
    double *u = linear(p, x, layer, in, biased);
    double *v = malloc(8ull * p->n * inner), *y;

    for (uint32_t i = 0; i < p->n; i++) {
        const double *row = u + (size_t)i * width;

        for (uint32_t c = 0; c < inner; c++)
            v[(size_t)i * inner + c] =
                k->act(hp, row[c], hp->glu ? row[inner + c] : 0);
    }
    y = linear(p, v, layer, out, biased);
    free(u);
    free(v);
    return y;
}

/* The weights (n, experts) of all experts, 0 of those not chosen: of the
 * largest sigmoid + bias, in the groups whose two largest give most. */
static double *route(const struct pass *p, int layer, const double *x)
{
    const struct sl_hparams *hp = &p->m->hp;
    uint32_t n = hp->n_experts, each = n / hp->n_expert_groups;
    double *w = linear(p, x, layer, "mlp.gate", false);
    const double *bias =
        find(p->m, layer, "mlp.gate", "e_score_correction_bias")->v;

    for (uint32_t i = 0; i < p->n; i++) {
        double *s = w + (size_t)i * n, sum = 0;
        bool *chosen = calloc(n, sizeof *chosen);
        bool *open = calloc(hp->n_expert_groups, sizeof *open);

        for (uint32_t e = 0; e < n; e++)
            s[e] = 1 / (1 + exp(-s[e]));
        for (uint32_t k = 0; k < hp->n_expert_groups_used; k++) {
            double most = -INFINITY;
            uint32_t best = 0;

            for (uint32_t g = 0; g < hp->n_expert_groups; g++) {
                double two = hp->n_expert_groups > 1 ? -INFINITY : 0;

                for (uint32_t a = g * each; a < (g + 1) * each; a++) {
                    for (uint32_t b = g * each; b < a; b++)
                        two = fmax(two, s[a] + bias[a] + s[b] + bias[b]);
                }
                if (!open[g] && two > most) {
                    most = two;
                    best = g;
                }
            }
            open[best] = true;
        }
        for (uint32_t k = 0; k < hp->n_experts_used; k++) {
            int best = -1;

            for (uint32_t e = 0; e < n; e++) {
                if (open[e / each] && !chosen[e] &&
                    (best < 0 || s[e] + bias[e] > s[best] + bias[best]))
                    best = (int)e;
            }
            chosen[best] = true;
            sum += s[best];
        }
        for (uint32_t e = 0; e < n; e++)
            s[e] = chosen[e]
                       ? s[e] / (hp->expert_norm ? sum : 1) * hp->expert_scale
                       : 0;
        free(chosen);
        free(open);
    }
    return w;
}

static double *mixture(const struct pass *p, int layer, const double *x)
{
    const struct sl_hparams *hp = &p->m->hp;
    double *w = route(p, layer, x);
    double *y = mlp(p, layer, "mlp.shared_experts.gate_up_proj",
                    "mlp.shared_experts.down_proj", x);

    for (uint32_t e = 0; e < hp->n_experts; e++) {
        char in[64], out[64];
        double *one;

        snprintf(in, sizeof in, "mlp.experts.%u.gate_up_proj", e);
        snprintf(out, sizeof out, "mlp.experts.%u.down_proj", e);
        one = mlp(p, layer, in, out, x);
        for (size_t i = 0; i < (size_t)p->n * hp->hidden; i++)
            y[i] += w[i / hp->hidden * hp->n_experts + e] * one[i];
        free(one);
    }
    free(w);
    return y;
}

static double *second_half(const struct pass *p, int layer, const double *x)
{
    const struct plain_names *s = p->m->kind->names;

    if (p->m->hp.n_experts > 0 && layer >= (int)p->m->hp.n_dense_layers)
        return mixture(p, layer, x);
    return mlp(p, layer, s->mlp_in, s->mlp_out, x);
}

/* x becomes what it is behind a layer's attention or MLP. */
static void sublayer(const struct pass *p, double *x, int layer, bool second)
{
    const struct plain_kind *k = p->m->kind;
    const struct plain_names *s = k->names;
    size_t n = (size_t)p->n * p->m->hp.hidden;
    double *in = normed(p, x, layer, second ? s->mlp_norm : s->attn_norm);
    double *out = second ? second_half(p, layer, in) : attention(p, layer, in);

    if (k->residual == PLAIN_NORMED_AND_ADDED) {
        double *post = normed(p, out, layer,
                              second ? s->mlp_post_norm : s->attn_post_norm);

        free(out);
        out = post;
    }
    for (size_t i = 0; i < n; i++)
        x[i] = out[i] +
               (k->residual == PLAIN_DEEP ? k->alpha(&p->m->hp) * in[i] : x[i]);
    free(in);
    free(out);
}

static void look_up(const struct pass *p, double *x, const char *leaf,
                    const int32_t *rows)
{
    const struct tensor *e = find(p->m, -1, leaf, "weight");
    uint32_t h = p->m->hp.hidden;

    for (uint32_t i = 0; i < p->n; i++) {
        assert_in_range(rows[i], 0, e->rows - 1);
        for (uint32_t c = 0; c < h; c++)
            x[(size_t)i * h + c] += e->v[(size_t)rows[i] * h + c];
    }
}

void plain_lm_forward(struct plain_lm *m, double *logits, const int32_t *ids,
                      const int32_t *positions, const int32_t *blocks,
                      uint32_t n, uint32_t n_context)
{
    struct pass p = {m, positions, blocks, n, n_context};
    const struct plain_names *s = m->kind->names;
    double *x = calloc((size_t)n * m->hp.hidden, sizeof *x), *y, *all;

    assert_non_null(x);
    look_up(&p, x, s->embed && m->hp.untied ? s->embed : s->head, ids);
    if (m->kind->tables) {
        look_up(&p, x, "transformer.position_embeddings", positions);
        look_up(&p, x, "transformer.block_position_embeddings", blocks);
    }
    for (uint32_t l = 0; l < m->hp.n_layers; l++) {
        sublayer(&p, x, (int)l, false);
        sublayer(&p, x, (int)l, true);
    }
    y = normed(&p, x, -1, s->final_norm);
    all = linear(&p, y, -1, s->head, false);
    memcpy(logits, all, 8ull * n * m->hp.vocab);
    free(x);
    free(y);
    free(all);
}
