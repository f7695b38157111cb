#include "config.h"

#include <stdio.h>
#include <string.h>

#include "src/convert/convert_impl.h"

/* What the shapes of a checkpoint's tensors say of a model that has no
 * config.json: everything but how its width is divided into heads. */

/* The row of a slot, in a list. */
static const struct sl_tensor_row *row_of(const struct sl_tensor_row *rows,
                                          size_t n, enum sl_slot slot)
{
    for (size_t i = 0; i < n; i++) {
        if (rows[i].slot == slot)
            return &rows[i];
    }
    return NULL;
}

/* The tensor of shard 0 that the row names for a layer, by whatever name. */
static const struct sl_ckpt_tensor *find_row(const struct sl_ckpt *c,
                                             const struct sl_tensor_row *row,
                                             uint32_t layer)
{
    const char *names[] = {row->name, row->alias[0], row->alias[1]};
    const struct sl_ckpt_tensor *t = NULL;
    char name[SL_TENSOR_SPEC_NAME];

    for (size_t i = 0; t == NULL && i < 3 && names[i] != NULL; i++) {
        sl_arch_source_name(name, names[i], layer);
        t = sl_ckpt_find(c, 0, name);
    }
    return t;
}

static uint32_t fits(uint64_t v)
{
    return v <= INT32_MAX ? (uint32_t)v : 0;
}

static void set(struct sl_config *c, enum sl_config_field f, uint32_t *at,
                uint64_t v)
{
    if (sl_config_has(c, f) || fits(v) == 0)
        return;
    *at = fits(v);
    sl_config_mark(c, f);
}

static uint32_t count_layers(const struct sl_arch *arch,
                             const struct sl_ckpt *ckpt)
{
    uint32_t n = 0;

    while (find_row(ckpt, &arch->layer_rows[0], n) != NULL)
        n++;
    return n;
}

/* The MLP's two matrices; a gate makes the first twice as high as the second
 * is wide. Row-wise INT4 holds two columns a byte. */
static void take_mlp(struct sl_config *c, const struct sl_arch *arch,
                     const struct sl_ckpt *ckpt)
{
    const struct sl_tensor_row *in =
        row_of(arch->layer_rows, arch->n_layer_rows, SL_SLOT_MLP_IN);
    const struct sl_tensor_row *bias =
        row_of(arch->layer_rows, arch->n_layer_rows, SL_SLOT_MLP_IN_BIAS);
    const struct sl_tensor_row *out =
        row_of(arch->layer_rows, arch->n_layer_rows, SL_SLOT_MLP_OUT);
    const struct sl_ckpt_tensor *a = NULL, *b = NULL;
    uint64_t inner;

    if (in != NULL && out != NULL) {
        a = find_row(ckpt, bias != NULL ? bias : in, 0);
        b = find_row(ckpt, out, 0);
    }
    if (a == NULL || b == NULL || b->n_dims != 2)
        return;
    inner = b->shape[1] * ckpt->n_shards;
    if (b->dtype == SL_DT_I8 && a->shape[0] * ckpt->n_shards >= 2 * inner)
        inner *= 2;
    set(c, SL_CONFIG_INNER, &c->hp.inner, inner);
    if (sl_config_has(c, SL_CONFIG_GLU))
        return;
    c->hp.glu = a->shape[0] * ckpt->n_shards == 2 * (uint64_t)c->hp.inner;
    sl_config_mark(c, SL_CONFIG_GLU);
}

void sl_convert_take_shapes(struct sl_config *c, const struct sl_arch *arch,
                            const struct sl_ckpt *ckpt)
{
    const struct sl_tensor_row *embed =
        row_of(arch->model_rows, arch->n_model_rows, SL_SLOT_EMBED);
    const struct sl_tensor_row *positions =
        row_of(arch->model_rows, arch->n_model_rows, SL_SLOT_EMBED_POSITIONS);
    const struct sl_ckpt_tensor *t;

    if (embed == NULL)
        embed = row_of(arch->model_rows, arch->n_model_rows, SL_SLOT_HEAD);
    t = find_row(ckpt, embed, 0);
    if (t != NULL && t->n_dims == 2) {
        set(c, SL_CONFIG_VOCAB, &c->hp.vocab, t->shape[0] * ckpt->n_shards);
        set(c, SL_CONFIG_HIDDEN, &c->hp.hidden, t->shape[1]);
    }
    set(c, SL_CONFIG_LAYERS, &c->hp.n_layers, count_layers(arch, ckpt));
    take_mlp(c, arch, ckpt);
    t = positions != NULL ? find_row(ckpt, positions, 0) : NULL;
    if (t != NULL && t->shape[0] > 1)
        set(c, SL_CONFIG_POSITIONS, &c->hp.max_positions, t->shape[0] - 1);
    if (arch->default_head_dim != 0)
        set(c, SL_CONFIG_HEADS, &c->hp.n_heads,
            c->hp.hidden / arch->default_head_dim);
    if (arch->default_positions != 0)
        set(c, SL_CONFIG_POSITIONS, &c->hp.max_positions,
            arch->default_positions);
}
