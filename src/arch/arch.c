#include "config.h"

#include <stdio.h>
#include <string.h>

#include "src/arch/arch.h"
#include "src/arch/settings.h"

static const struct sl_arch *const archs[] = {
#define ENTRY(name) &sl_arch_##name,
    SL_ARCHS(ENTRY)
#undef ENTRY
};

const struct sl_arch *sl_arch_at(size_t n)
{
    return n < sizeof archs / sizeof *archs ? archs[n] : NULL;
}

const struct sl_arch *sl_arch_find(const char *name)
{
    for (size_t i = 0; sl_arch_at(i) != NULL; i++) {
        if (strcmp(archs[i]->name, name) == 0)
            return archs[i];
    }
    return NULL;
}

static bool goes_by(const struct sl_arch *arch, const char *name)
{
    for (size_t i = 0; arch->hf_names != NULL && arch->hf_names[i] != NULL;
         i++) {
        if (strcmp(arch->hf_names[i], name) == 0)
            return true;
    }
    return false;
}

/* "chatglm (ChatGLM2-6B, ...), llama (...)" */
static void list_all(char *text, size_t n)
{
    size_t used = 0;

    for (size_t i = 0; sl_arch_at(i) != NULL && used < n; i++)
        used += (size_t)snprintf(text + used, n - used, "%s%s",
                                 i == 0 ? "" : "; ", archs[i]->what);
}

const char *sl_arch_lacks(const char *name)
{
    static const struct {
        const char *hf[2], *gguf, *lacks;
    } strangers[] = {
        {{"GlmMoeDsaForCausalLM", "glm_moe_dsa"},
         "glm-dsa",
         "GLM-5 attends to keys that an indexer selects"},
        {{"Glm5NextForConditionalGeneration", "glm5_next"},
         "glm5-next",
         "GLM-5.3-Flash has linear attention and several residual streams"},
    };

    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        if (strcmp(name, strangers[i].hf[0]) == 0 ||
            strcmp(name, strangers[i].hf[1]) == 0 ||
            strcmp(name, strangers[i].gguf) == 0)
            return strangers[i].lacks;
    }
    return NULL;
}

int sl_arch_of_settings(const struct sl_arch **arch,
                        const struct sl_settings *s, struct sl_error *err)
{
    const char *names[] = {sl_settings_architecture(s),
                           sl_settings_model_type(s)};
    const char *lacks = NULL;
    char list[200];

    for (size_t n = 0; n < 2; n++) {
        for (size_t i = 0; names[n][0] != '\0' && sl_arch_at(i) != NULL; i++) {
            if (!goes_by(archs[i], names[n]) ||
                (archs[i]->takes != NULL && !archs[i]->takes(s)))
                continue;
            *arch = archs[i];
            return 0;
        }
        if (lacks == NULL)
            lacks = sl_arch_lacks(names[n]);
    }
    list_all(list, sizeof list);
    return sl_fail(err, SL_ERR_UNSUPPORTED,
                   "%s: architecture '%.48s' (model_type '%.24s') is not one "
                   "that sluice runs: %s",
                   sl_settings_file(s), names[0], names[1],
                   lacks != NULL ? lacks : list);
}

void sl_arch_derive(const struct sl_arch *arch, struct sl_hparams *hp)
{
    if (hp->n_kv_heads == 0)
        hp->n_kv_heads = hp->n_heads;
    if (hp->head_dim == 0 && hp->n_heads > 0 && hp->hidden % hp->n_heads == 0)
        hp->head_dim = hp->hidden / hp->n_heads;
    if (hp->rope_base == 0)
        hp->rope_base = 10000;
    arch->derive(hp);
}

/* --- sizes --------------------------------------------------------------- */

uint32_t sl_dim_size(const struct sl_hparams *hp, enum sl_dim dim)
{
    switch (dim) {
    case SL_DIM_HIDDEN:
        return hp->hidden;
    case SL_DIM_QKV:
        return (hp->n_heads + 2 * hp->n_kv_heads) * hp->head_dim;
    case SL_DIM_ATT:
        return hp->n_heads * hp->head_dim;
    case SL_DIM_KV:
        return hp->n_kv_heads * hp->head_dim;
    case SL_DIM_PAIRS:
        return hp->rope_dims / 2;
    case SL_DIM_HEAD:
        return hp->head_dim;
    case SL_DIM_INNER:
        return hp->inner;
    case SL_DIM_MLP_IN:
        return hp->glu ? 2 * hp->inner : hp->inner;
    case SL_DIM_ATT_OUT:
        return hp->n_heads * (hp->kv_lora > 0 ? hp->value_dims : hp->head_dim);
    case SL_DIM_Q_LORA:
        return hp->q_lora;
    case SL_DIM_KV_LORA:
        return hp->kv_lora;
    case SL_DIM_LATENT:
        return hp->kv_lora + hp->rope_dims;
    case SL_DIM_NOPE:
        return hp->nope_dims;
    case SL_DIM_Q_HEADS:
        return hp->n_heads * (hp->nope_dims + hp->rope_dims);
    case SL_DIM_K_HEADS:
        return hp->n_heads * hp->kv_lora;
    case SL_DIM_V_HEADS:
        return hp->n_heads * hp->value_dims;
    case SL_DIM_EXPERTS:
        return hp->n_experts;
    case SL_DIM_EXPERT_INNER:
        return hp->expert_inner;
    case SL_DIM_EXPERT_IN:
        return 2 * hp->expert_inner;
    case SL_DIM_SHARED_INNER:
        return hp->shared_inner;
    case SL_DIM_SHARED_IN:
        return 2 * hp->shared_inner;
    case SL_DIM_VOCAB:
        return hp->vocab;
    case SL_DIM_POSITIONS:
        return hp->max_positions + 1;
    default:
        return 1;
    }
}

struct sl_qkv_row sl_arch_qkv_row(const struct sl_hparams *hp)
{
    uint32_t d = hp->head_dim;

    if (hp->kv_lora > 0) /* values are the keys' first */
        return (struct sl_qkv_row){d, hp->n_heads * d, hp->n_heads * d, d};
    if (hp->qkv == SL_QKV_BY_HEAD)
        return (struct sl_qkv_row){3 * d, d, 2 * d, 3 * d};
    return (struct sl_qkv_row){
        .q_step = d,
        .k_at = hp->n_heads * d,
        .v_at = (hp->n_heads + hp->n_kv_heads) * d,
        .kv_step = d,
    };
}

uint32_t sl_arch_out_at(const struct sl_hparams *hp, enum sl_slot matrix)
{
    struct sl_qkv_row row = sl_arch_qkv_row(hp);

    return matrix == SL_SLOT_K ? row.k_at : matrix == SL_SLOT_V ? row.v_at : 0;
}

/* --- stages -------------------------------------------------------------- */

uint32_t sl_arch_n_stages(const struct sl_hparams *hp)
{
    return 2 * hp->n_layers + 1;
}

void sl_arch_stage_name(char name[SL_STAGE_NAME], const struct sl_hparams *hp,
                        uint32_t stage)
{
    if (stage == 2 * hp->n_layers)
        snprintf(name, SL_STAGE_NAME, "head");
    else
        snprintf(name, SL_STAGE_NAME, "layer %u %s", stage / 2,
                 stage % 2 ? "mlp" : "attention");
}

const struct sl_stage_ops *sl_arch_stage(const struct sl_arch *arch,
                                         const struct sl_hparams *hp,
                                         uint32_t stage)
{
    const struct sl_layer_table *t = arch->layers(hp);

    if (stage == 2 * hp->n_layers)
        return &t->head;
    if (stage % 2 && sl_arch_is_mixture(hp, stage / 2))
        return arch->mixture;
    return stage % 2 ? &t->mlp : &t->attention;
}

int sl_arch_stage_of(const struct sl_hparams *hp, enum sl_slot slot,
                     uint32_t layer)
{
    switch (slot) {
    case SL_SLOT_QKV:
    case SL_SLOT_Q:
    case SL_SLOT_K:
    case SL_SLOT_V:
    case SL_SLOT_KV_A:
    case SL_SLOT_Q_A:
    case SL_SLOT_Q_B:
    case SL_SLOT_K_B:
    case SL_SLOT_V_B:
    case SL_SLOT_ATTN_OUT:
        return (int)(2 * layer);
    case SL_SLOT_MLP_IN:
    case SL_SLOT_MLP_OUT:
    case SL_SLOT_ROUTER:
    case SL_SLOT_SHARED_IN:
    case SL_SLOT_SHARED_OUT:
        return (int)(2 * layer + 1);
    case SL_SLOT_HEAD:
        return (int)(2 * hp->n_layers);
    default:
        return -1;
    }
}

/* --- tensors ------------------------------------------------------------- */

/* Whether a model has the tensor, in this layer: what `when` of the rows
 * means. */
static bool has_row(const struct sl_hparams *hp, const struct sl_tensor_row *r,
                    uint32_t layer)
{
    switch (r->when) {
    case SL_WHEN_QKV_WHOLE:
        return !hp->split_qkv && hp->kv_lora == 0;
    case SL_WHEN_QKV_SPLIT:
        return hp->split_qkv && hp->kv_lora == 0;
    case SL_WHEN_LATENT:
        return hp->kv_lora > 0;
    case SL_WHEN_ROPE_FACTORS:
        return hp->rope_factors;
    case SL_WHEN_QKV_BIAS:
        return !hp->no_qkv_bias && hp->kv_lora == 0;
    case SL_WHEN_ATTN_OUT_BIAS:
        return hp->attn_out_bias;
    case SL_WHEN_MLP_BIAS:
        return hp->mlp_bias;
    case SL_WHEN_QK_NORM:
        return hp->qk_norm;
    case SL_WHEN_POST_NORMS:
        return hp->post_norms;
    case SL_WHEN_UNTIED:
        return hp->untied;
    case SL_WHEN_DENSE:
        return !sl_arch_is_mixture(hp, layer);
    case SL_WHEN_MIXTURE:
        return sl_arch_is_mixture(hp, layer);
    default:
        return true;
    }
}

static bool is_matrix(const struct sl_tensor_row *r)
{
    return r->cols != SL_DIM_ONE;
}

/* The head and all slots behind it are kept as --head says and not as
 * --quant: they are looked up, or decide between tens of thousands of ids. */
static enum sl_role role_of(const struct sl_tensor_row *r)
{
    if (!is_matrix(r))
        return SL_ROLE_VECTOR;
    if (r->slot == SL_SLOT_ROUTER)
        return SL_ROLE_ROUTER;
    if (r->slot == SL_SLOT_EXPERT_IN || r->slot == SL_SLOT_EXPERT_OUT)
        return SL_ROLE_EXPERT;
    return r->slot >= SL_SLOT_HEAD ? SL_ROLE_EMBED : SL_ROLE_LINEAR;
}

static uint32_t count_rows(const struct sl_hparams *hp,
                           const struct sl_tensor_row *rows, size_t n,
                           bool matrices, uint32_t layer)
{
    uint32_t count = 0;

    for (size_t i = 0; i < n; i++)
        count +=
            is_matrix(&rows[i]) == matrices && has_row(hp, &rows[i], layer);
    return count;
}

/* The i-th of those that are counted. */
static const struct sl_tensor_row *row_at(const struct sl_hparams *hp,
                                          const struct sl_tensor_row *rows,
                                          bool matrices, uint32_t layer,
                                          uint32_t i)
{
    for (;; rows++) {
        if (is_matrix(rows) != matrices || !has_row(hp, rows, layer))
            continue;
        if (i-- == 0)
            return rows;
    }
}

/* A matrix with a gate: rows of one of its halves, else 0. */
static uint32_t gate_rows(const struct sl_hparams *hp, enum sl_dim rows)
{
    switch (rows) {
    case SL_DIM_MLP_IN:
        return hp->glu ? hp->inner : 0;
    case SL_DIM_EXPERT_IN:
        return hp->expert_inner;
    case SL_DIM_SHARED_IN:
        return hp->shared_inner;
    default:
        return 0;
    }
}

/* q, k and v; gate and up. */
static void fill_parts(struct sl_tensor_spec *s, const struct sl_hparams *hp,
                       enum sl_dim rows)
{
    if (rows == SL_DIM_QKV) {
        s->part_rows[0] = sl_dim_size(hp, SL_DIM_ATT);
        s->part_rows[1] = s->part_rows[2] = sl_dim_size(hp, SL_DIM_KV);
        return;
    }
    s->part_rows[0] = s->part_rows[1] = s->rows / 2;
}

/* What a row of the table says of one layer and expert, in numbers. */
static void fill(struct sl_tensor_spec *s, const struct sl_hparams *hp,
                 const struct sl_tensor_row *row, uint32_t layer,
                 uint32_t expert)
{
    bool gated = gate_rows(hp, row->rows) > 0;

    *s = (struct sl_tensor_spec){
        .slot = row->slot,
        .role = role_of(row),
        .split =
            row->split == SL_SPLIT_GLU && !gated ? SL_SPLIT_ROWS : row->split,
        .rows = sl_dim_size(hp, row->rows),
        .cols = sl_dim_size(hp, row->cols),
        .n_segments = gated ? 2 : 1,
        .stage = is_matrix(row) ? sl_arch_stage_of(hp, row->slot, layer) : -1,
        .layer = layer,
        .expert = expert,
        .row = row,
    };
    if (row->split == SL_SPLIT_HEAD_KEYS || row->split == SL_SPLIT_HEAD_VALUES)
        memcpy(s->part_rows,
               (uint32_t[]){hp->nope_dims, hp->value_dims, hp->kv_lora},
               sizeof s->part_rows);
    else if (row->parts[0] != NULL)
        fill_parts(s, hp, row->rows);
    sl_arch_spec_name(s->name, row->name, s);
}

/* The first %u of a name becomes a number. */
static void put_number(char name[SL_TENSOR_SPEC_NAME], const char *of,
                       uint32_t number)
{
    const char *mark = strstr(of, "%u");

    if (mark == NULL)
        snprintf(name, SL_TENSOR_SPEC_NAME, "%s", of);
    else
        snprintf(name, SL_TENSOR_SPEC_NAME, "%.*s%u%s", (int)(mark - of), of,
                 number, mark + 2);
}

void sl_arch_source_name(char name[SL_TENSOR_SPEC_NAME], const char *of,
                         uint32_t layer)
{
    put_number(name, of, layer);
}

void sl_arch_spec_name(char name[SL_TENSOR_SPEC_NAME], const char *of,
                       const struct sl_tensor_spec *spec)
{
    char of_layer[SL_TENSOR_SPEC_NAME];

    put_number(of_layer, of, spec->layer);
    put_number(name, of_layer, spec->expert);
}

/* The i-th vector, or matrix, of the layers, or *i less those that were
 * passed. Dense layers come before those of experts, and within a kind all
 * have the same rows: so it is found by dividing. */
static bool layer_tensor(const struct sl_arch *arch,
                         struct sl_tensor_spec *spec,
                         const struct sl_hparams *hp, bool matrices,
                         uint32_t *i)
{
    uint32_t first = 0, end[2] = {hp->n_layers, hp->n_layers};

    if (hp->n_experts > 0)
        end[0] = hp->n_dense_layers;
    for (int kind = 0; kind < 2; first = end[kind++]) {
        uint32_t n, here = end[kind] - first;

        if (here == 0)
            continue;
        n = count_rows(hp, arch->layer_rows, arch->n_layer_rows, matrices,
                       first);
        if (*i < n * here) {
            uint32_t layer = first + *i / n;

            fill(spec, hp,
                 row_at(hp, arch->layer_rows, matrices, layer, *i % n), layer,
                 0);
            return true;
        }
        *i -= n * here;
    }
    return false;
}

uint32_t sl_arch_n_expert_matrices(const struct sl_arch *arch,
                                   const struct sl_hparams *hp)
{
    if (hp->n_experts == 0)
        return 0;
    return (hp->n_layers - hp->n_dense_layers) * hp->n_experts *
           (uint32_t)arch->n_expert_rows;
}

bool sl_arch_tensor(const struct sl_arch *arch, struct sl_tensor_spec *spec,
                    const struct sl_hparams *hp, uint32_t i)
{
    for (int matrices = 0; matrices < 2; matrices++) {
        uint32_t of_model = count_rows(hp, arch->model_rows, arch->n_model_rows,
                                       matrices, hp->n_layers);

        if (layer_tensor(arch, spec, hp, matrices, &i))
            return true;
        if (i < of_model) {
            fill(spec, hp,
                 row_at(hp, arch->model_rows, matrices, hp->n_layers, i),
                 hp->n_layers, 0);
            return true;
        }
        i -= of_model;
    }
    if (i < sl_arch_n_expert_matrices(arch, hp)) {
        uint32_t n = (uint32_t)arch->n_expert_rows, expert = i / n;

        fill(spec, hp, &arch->expert_rows[i % n],
             hp->n_dense_layers + expert / hp->n_experts,
             expert % hp->n_experts);
        return true;
    }
    return false;
}

/* --- buffers ------------------------------------------------------------- */

/* Values that an operation writes a position, columns that it reads. */
static uint32_t op_rows(const struct sl_hparams *hp, enum sl_slot matrix)
{
    switch (matrix) {
    case SL_SLOT_QKV:
    case SL_SLOT_Q:
    case SL_SLOT_K:
    case SL_SLOT_V: /* side by side */
        return sl_dim_size(hp, SL_DIM_QKV);
    case SL_SLOT_KV_A:
        return sl_dim_size(hp, SL_DIM_LATENT);
    case SL_SLOT_Q_A:
        return hp->q_lora;
    case SL_SLOT_Q_B:
        return sl_dim_size(hp, SL_DIM_Q_HEADS);
    case SL_SLOT_K_B: /* beside what is rotated, and the keys */
        return (hp->n_heads + 1) * hp->head_dim;
    case SL_SLOT_V_B:
        return sl_dim_size(hp, SL_DIM_V_HEADS);
    case SL_SLOT_MLP_IN: /* a gate's halves become one */
        return hp->inner;
    case SL_SLOT_SHARED_IN:
        return hp->shared_inner;
    case SL_SLOT_ROUTER:
        return hp->n_experts;
    case SL_SLOT_HEAD:
        return hp->vocab;
    default:
        return hp->hidden;
    }
}

/* As wide as the input of a product is. */
static uint32_t op_cols(const struct sl_hparams *hp, enum sl_slot matrix)
{
    switch (matrix) {
    case SL_SLOT_ATTN_OUT:
        return sl_dim_size(hp, SL_DIM_ATT_OUT);
    case SL_SLOT_Q_B:
        return hp->q_lora;
    case SL_SLOT_K_B:
        return hp->nope_dims;
    case SL_SLOT_V_B:
        return hp->kv_lora;
    case SL_SLOT_MLP_OUT:
        return hp->inner;
    case SL_SLOT_SHARED_OUT:
        return hp->shared_inner;
    default:
        return hp->hidden;
    }
}

static uint32_t op_width(const struct sl_hparams *hp,
                         const struct sl_layer_op *op)
{
    if (op->what == SL_DO_MATMUL)
        return op_rows(hp, op->weight);
    if (op->what == SL_DO_ROUTE)
        return hp->n_experts;
    return op->what == SL_DO_ATTEND ? sl_dim_size(hp, SL_DIM_ATT) : hp->hidden;
}

/* Experts keep their inner values in wide whatever their `out` is; norms of
 * heads and latents, and joins, work within what a product before them has
 * made. */
static uint32_t widest(const struct sl_arch *arch, const struct sl_hparams *hp,
                       enum sl_buf buf, bool inputs)
{
    const struct sl_layer_table *t = arch->layers(hp);
    const struct sl_stage_ops *stages[] = {&t->attention, &t->mlp, &t->head,
                                           arch->mixture};
    uint32_t most = 0;

    for (size_t s = 0; s < (hp->n_experts > 0 ? 4u : 3u); s++) {
        for (uint32_t i = 0; i < stages[s]->n; i++) {
            const struct sl_layer_op *op = &stages[s]->ops[i];
            uint32_t width = 0;

            if (inputs && op->what == SL_DO_MATMUL)
                width = op_cols(hp, op->weight);
            else if (op->what == SL_DO_EXPERTS &&
                     (inputs || buf == SL_BUF_WIDE))
                width = hp->expert_inner; /* which waits in wide */
            else if (!inputs && op->out == buf && op->what != SL_DO_HEAD_NORM &&
                     op->what != SL_DO_LATENT_NORM && op->what != SL_DO_JOIN)
                width = op_width(hp, op);
            most = width > most ? width : most;
        }
    }
    return most;
}

uint32_t sl_arch_buf_width(const struct sl_arch *arch,
                           const struct sl_hparams *hp, enum sl_buf buf)
{
    return widest(arch, hp, buf, false);
}

uint32_t sl_arch_widest_input(const struct sl_arch *arch,
                              const struct sl_hparams *hp)
{
    return widest(arch, hp, SL_BUF_NONE, true);
}
