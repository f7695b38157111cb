#include "config.h"

#include <stdio.h>
#include <string.h>

#include "src/model/model_layout.h"
#include "tests/arch_models.h"
#include "tests/support.h"

/* Every architecture of the table keeps the rules of arch.h and layer.h. A new
 * one is in all of this by being in the table; t_arch_logits has what is
 * computed. */

/* Calls a check with every model of every architecture. */
static void each_model(void (*check)(const struct sl_arch *arch,
                                     const struct sl_hparams *hp))
{
    const struct sl_arch *arch;

    for (size_t a = 0; (arch = sl_arch_at(a)) != NULL; a++) {
        for (size_t n = 0; n < ARCH_MODELS; n++) {
            struct sl_hparams hp = arch_hparams(arch, n);

            check(arch, &hp);
        }
    }
}

/* --- tables --------------------------------------------------------------- */

static void names_lead_to_architectures(void **state)
{
    const struct sl_arch *arch;
    size_t n = 0;

    for (; (arch = sl_arch_at(n)) != NULL; n++) {
        assert_ptr_equal(sl_arch_find(arch->name), arch);
        assert_true(strlen(arch->what) > 0);
    }
    assert_true(n >= 8);
    assert_null(sl_arch_at(n + 1));
    assert_null(sl_arch_find("no such"));
}

static uint32_t count_tensors(const struct sl_arch *arch,
                              const struct sl_hparams *hp)
{
    struct sl_tensor_spec spec;
    uint32_t n = 0;

    while (sl_arch_tensor(arch, &spec, hp, n))
        n++;
    return n;
}

/* Vectors, stages, what no stage streams, and experts: 0 to 3. */
static int part_of(const struct sl_tensor_spec *t)
{
    if (t->role == SL_ROLE_VECTOR)
        return 0;
    if (t->role == SL_ROLE_EXPERT)
        return 3;
    return t->stage >= 0 ? 1 : 2;
}

static void assert_in_order(const struct sl_tensor_spec *before,
                            const struct sl_tensor_spec *t)
{
    assert_true(part_of(before) <= part_of(t));
    if (part_of(before) != part_of(t))
        return;
    assert_true(before->layer <= t->layer);
    assert_true(before->stage <= t->stage);
    assert_true(before->layer < t->layer || before->expert <= t->expert);
}

static void check_order(const struct sl_arch *arch, const struct sl_hparams *hp)
{
    uint32_t n = count_tensors(arch, hp), last = sl_arch_n_stages(hp) - 1;
    struct sl_tensor_spec before = {0}, t, other;
    int highest = -1;

    for (uint32_t i = 0; i < n; i++, before = t) {
        assert_true(sl_arch_tensor(arch, &t, hp, i));
        assert_true(strlen(t.name) > 0 && strlen(t.name) < SL_TENSOR_NAME);
        assert_true(t.rows > 0 && t.cols > 0 && t.layer <= hp->n_layers);
        assert_int_equal(t.rows % t.n_segments, 0);
        assert_int_equal(t.cols == 1, t.role == SL_ROLE_VECTOR);
        if (i > 0)
            assert_in_order(&before, &t);
        if (t.stage > highest)
            assert_int_equal(t.stage, ++highest); /* none is left out */
        if (t.stage == (int)last)
            assert_int_equal(t.slot, SL_SLOT_HEAD);
        for (uint32_t j = 0; j < i; j++) {
            assert_true(sl_arch_tensor(arch, &other, hp, j));
            assert_string_not_equal(other.name, t.name);
            assert_false(other.slot == t.slot && other.layer == t.layer &&
                         other.expert == t.expert);
        }
    }
    assert_int_equal(highest, last);
    assert_false(sl_arch_tensor(arch, &t, hp, n + 1));
}

static void tensors_are_listed_in_order_of_use(void **state)
{
    each_model(check_order);
}

static void check_stage_names(const struct sl_arch *arch,
                              const struct sl_hparams *hp)
{
    char name[SL_STAGE_NAME], want[SL_STAGE_NAME];

    assert_int_equal(sl_arch_n_stages(hp), 2 * hp->n_layers + 1);
    for (uint32_t s = 0; s < sl_arch_n_stages(hp); s++) {
        snprintf(want, sizeof want, "layer %u %s", s / 2,
                 s % 2 ? "mlp" : "attention");
        if (s == 2 * hp->n_layers)
            snprintf(want, sizeof want, "head");
        sl_arch_stage_name(name, hp, s);
        assert_string_equal(name, want);
    }
}

static void stages_have_names(void **state)
{
    each_model(check_stage_names);
}

/* --- operations ----------------------------------------------------------- */

/* The tensor in a slot of a stage's layer, or of the model; false: none. */
static bool find_tensor(const struct sl_arch *arch, const struct sl_hparams *hp,
                        uint32_t stage, enum sl_slot slot,
                        struct sl_tensor_spec *t)
{
    for (uint32_t i = 0; sl_arch_tensor(arch, t, hp, i); i++) {
        if (t->slot == slot && t->layer == stage / 2)
            return true;
    }
    return false;
}

/* Whether some model of the architecture has that tensor. */
static bool can_have(const struct sl_arch *arch, enum sl_slot slot)
{
    for (size_t i = 0; i < arch->n_layer_rows; i++) {
        if (arch->layer_rows[i].slot == slot)
            return true;
    }
    for (size_t i = 0; i < arch->n_model_rows; i++) {
        if (arch->model_rows[i].slot == slot)
            return true;
    }
    return false;
}

/* What lies in the buffers as a stage goes on: values a position, 0: nothing
 * that may be read. */
struct flow {
    const struct sl_arch *arch;
    const struct sl_hparams *hp;
    uint32_t stage;
    const struct sl_layer_op *op;
    uint32_t holds[SL_BUF_COUNT];
};

static void assert_reads(const struct flow *f, enum sl_buf buf, uint32_t width)
{
    if (f->holds[buf] != width)
        print_error("%s, stage %u: buffer %d holds %u values, not %u\n",
                    f->arch->name, f->stage, (int)buf, f->holds[buf], width);
    assert_int_equal(f->holds[buf], width);
    assert_true(sl_arch_buf_width(f->arch, f->hp, buf) >= width);
}

static void writes(struct flow *f, enum sl_buf buf, uint32_t width)
{
    assert_true(sl_arch_buf_width(f->arch, f->hp, buf) >= width);
    f->holds[buf] = width;
}

/* The vector in a slot is of that many values, where there is one. */
static bool check_vector(const struct flow *f, enum sl_slot slot, uint32_t n)
{
    struct sl_tensor_spec t;

    if (slot == SL_SLOT_NONE)
        return false;
    assert_true(can_have(f->arch, slot));
    if (!find_tensor(f->arch, f->hp, f->stage, slot, &t))
        return false;
    assert_int_equal(t.role, SL_ROLE_VECTOR);
    assert_int_equal(t.rows, n);
    return true;
}

static void flow_norm(struct flow *f)
{
    uint32_t h = f->hp->hidden;

    assert_reads(f, f->op->in, h);
    assert_true(check_vector(f, f->op->weight, h));
    assert_int_equal(check_vector(f, f->op->bias, h),
                     f->hp->norm == SL_NORM_LAYER);
    if (f->op->residual != SL_BUF_NONE)
        assert_reads(f, f->op->residual, h);
    writes(f, f->op->out, h);
}

/* Each head's rows of a matrix take its values of what is read. */
static void flow_heads(struct flow *f)
{
    const struct sl_hparams *hp = f->hp;
    struct sl_tensor_spec w;

    assert_true(find_tensor(f->arch, hp, f->stage, f->op->weight, &w));
    assert_int_equal(w.stage, f->stage);
    assert_int_equal(w.rows % (16 * hp->n_heads), 0);
    assert_true(f->holds[f->op->in] >= hp->n_heads * w.cols);
    assert_true(sl_arch_widest_input(f->arch, hp) >= w.cols);
    writes(f, f->op->out, w.rows);
}

static void flow_matmul(struct flow *f)
{
    const struct sl_layer_op *op = f->op;
    bool gated = op->epilogue == SL_FN_GEGLU || op->epilogue == SL_FN_SWIGLU;
    struct sl_tensor_spec w;

    assert_true(find_tensor(f->arch, f->hp, f->stage, op->weight, &w));
    assert_int_equal(w.stage, f->stage);
    assert_int_equal(w.n_segments, gated ? 2 : 1);
    assert_reads(f, op->in, w.cols);
    assert_true(sl_arch_widest_input(f->arch, f->hp) >= w.cols);
    assert_int_not_equal(op->in, op->out);
    check_vector(f, op->bias, w.rows);
    if (op->residual != SL_BUF_NONE)
        assert_reads(f, op->residual, w.rows / w.n_segments);
    if (op->residual == op->out) { /* the product waits in norm */
        assert_int_not_equal(op->in, SL_BUF_NORM);
        writes(f, SL_BUF_NORM, w.rows / w.n_segments);
        f->holds[SL_BUF_NORM] = 0;
    }
    writes(f, op->out, w.rows / w.n_segments);
}

static void flow_experts(struct flow *f)
{
    const struct sl_hparams *hp = f->hp;
    const struct sl_layer_op *op = f->op;

    assert_reads(f, op->in, hp->hidden);
    assert_reads(f, op->out, hp->hidden); /* is added to */
    assert_reads(f, SL_BUF_ROUTE, hp->n_experts);
    assert_int_not_equal(op->in, op->out);
    assert_int_equal(op->residual, SL_BUF_X);
    assert_true(sl_arch_widest_input(f->arch, hp) >= hp->expert_inner);
    writes(f, SL_BUF_WIDE, hp->expert_inner);
}

static void flow_op(struct flow *f)
{
    const struct sl_layer_op *op = f->op;
    struct sl_qkv_row row = sl_arch_qkv_row(f->hp);
    uint32_t d = f->hp->head_dim, kv = f->hp->n_kv_heads;
    uint32_t planes = f->hp->kv_lora > 0 ? 1 : 2; /* values are keys */
    uint32_t qkv = (f->hp->n_heads + planes * kv) * d;

    assert_true(!op->scaled || op->residual != SL_BUF_NONE);
    switch (op->what) {
    case SL_DO_NORM:
        flow_norm(f);
        return;
    case SL_DO_MATMUL:
        if (op->by_head)
            flow_heads(f);
        else
            flow_matmul(f);
        return;
    case SL_DO_HEAD_NORM:
        assert_reads(f, op->in, qkv);
        assert_int_equal(op->out, op->in);
        assert_int_equal(check_vector(f, op->weight, d), f->hp->qk_norm);
        assert_int_equal(check_vector(f, op->bias, d), f->hp->qk_norm);
        return;
    case SL_DO_ATTEND:
        assert_reads(f, op->in, qkv);
        assert_true((f->hp->n_heads - 1) * row.q_step + d <= qkv);
        assert_true(row.v_at + (kv - 1) * row.kv_step + d <= qkv);
        assert_true(row.k_at + (kv - 1) * row.kv_step + d <= qkv);
        writes(f, op->out, f->hp->n_heads * d);
        return;
    case SL_DO_LATENT_NORM:
        assert_reads(f, op->in, op->in == SL_BUF_LATENT ? d : f->hp->q_lora);
        assert_int_equal(op->out, op->in);
        assert_true(check_vector(f, op->weight,
                                 op->in == SL_BUF_LATENT ? f->hp->kv_lora
                                                         : f->hp->q_lora));
        return;
    case SL_DO_JOIN:
        assert_reads(f, SL_BUF_LATENT, d);
        assert_reads(f, op->in,
                     f->hp->n_heads * (f->hp->nope_dims + f->hp->rope_dims));
        assert_reads(f, op->out, f->hp->n_heads * f->hp->kv_lora);
        writes(f, op->out, qkv);
        return;
    case SL_DO_ROUTE:
        assert_reads(f, op->in, f->hp->n_experts);
        assert_int_equal(op->out, op->in);
        assert_true(check_vector(f, op->bias, f->hp->n_experts));
        return;
    case SL_DO_EXPERTS:
        flow_experts(f);
    }
}

/* Where a stage's last operation leaves what it is for. */
static enum sl_buf result_of(const struct sl_layer_op *op)
{
    return op->what == SL_DO_EXPERTS ? op->residual : op->out;
}

/* Between stages nothing lives but x. */
static void check_flow(const struct sl_arch *arch, const struct sl_hparams *hp)
{
    uint32_t last = sl_arch_n_stages(hp) - 1;

    for (uint32_t s = 0; s <= last; s++) {
        const struct sl_stage_ops *ops = sl_arch_stage(arch, hp, s);
        struct flow f = {
            .arch = arch,
            .hp = hp,
            .stage = s,
            .holds[SL_BUF_X] = hp->hidden,
        };

        assert_int_equal(ops->wanted_rows, s == last);
        for (uint32_t i = 0; i < ops->n; i++) {
            f.op = &ops->ops[i];
            flow_op(&f);
        }
        assert_int_equal(result_of(f.op), s == last ? SL_BUF_LOGITS : SL_BUF_X);
        assert_reads(&f, result_of(f.op), s == last ? hp->vocab : hp->hidden);
    }
}

static void operations_read_what_was_written_and_it_fits(void **state)
{
    each_model(check_flow);
}

static unsigned uses(const struct sl_stage_ops *ops, enum sl_slot slot)
{
    unsigned n = 0;

    for (uint32_t i = 0; i < ops->n; i++)
        n += (ops->ops[i].weight == slot) + (ops->ops[i].bias == slot);
    return n;
}

/* Of embeddings, and of what the operations of its layer name. */
static void check_uses(const struct sl_arch *arch, const struct sl_hparams *hp)
{
    struct sl_tensor_spec t;

    for (uint32_t i = 0; sl_arch_tensor(arch, &t, hp, i); i++) {
        unsigned n = 0;

        if (t.role == SL_ROLE_EXPERT)
            continue; /* EXPERTS names them all */
        for (uint32_t s = 0; s < sl_arch_n_stages(hp); s++) {
            unsigned here =
                s / 2 == t.layer ? uses(sl_arch_stage(arch, hp, s), t.slot) : 0;

            if (here > 0 && t.role != SL_ROLE_VECTOR)
                assert_int_equal(s, t.stage);
            n += here;
        }
        if (n != (t.slot <= SL_SLOT_HEAD))
            print_error("%s: %s is used %u times\n", arch->name, t.name, n);
        assert_int_equal(n, t.slot <= SL_SLOT_HEAD);
    }
}

static void every_tensor_is_used_once(void **state)
{
    each_model(check_uses);
}

/* --- model files ---------------------------------------------------------- */

static void assert_same_scale(const struct sl_rope_scale *a,
                              const struct sl_rope_scale *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_true(a->factor == b->factor && a->low == b->low &&
                a->high == b->high && a->attention == b->attention);
    assert_int_equal(a->original_positions, b->original_positions);
}

static void assert_same_sizes(const struct sl_hparams *a,
                              const struct sl_hparams *b)
{
    assert_int_equal(a->n_layers, b->n_layers);
    assert_int_equal(a->hidden, b->hidden);
    assert_int_equal(a->inner, b->inner);
    assert_int_equal(a->n_heads, b->n_heads);
    assert_int_equal(a->vocab, b->vocab);
    assert_int_equal(a->max_positions, b->max_positions);
    assert_int_equal(a->n_kv_heads, b->n_kv_heads);
    assert_int_equal(a->head_dim, b->head_dim);
    assert_int_equal(a->rope_dims, b->rope_dims);
    assert_true(a->norm_eps == b->norm_eps && a->rope_base == b->rope_base &&
                a->residual_scale == b->residual_scale);
}

static void assert_same_experts(const struct sl_hparams *a,
                                const struct sl_hparams *b)
{
    assert_int_equal(a->n_experts, b->n_experts);
    assert_int_equal(a->n_experts_used, b->n_experts_used);
    assert_int_equal(a->n_expert_groups, b->n_expert_groups);
    assert_int_equal(a->n_expert_groups_used, b->n_expert_groups_used);
    assert_int_equal(a->expert_inner, b->expert_inner);
    assert_int_equal(a->shared_inner, b->shared_inner);
    assert_int_equal(a->n_dense_layers, b->n_dense_layers);
    assert_int_equal(a->expert_norm, b->expert_norm);
    assert_true(a->expert_scale == b->expert_scale);
    assert_int_equal(a->q_lora, b->q_lora);
    assert_int_equal(a->kv_lora, b->kv_lora);
    assert_int_equal(a->nope_dims, b->nope_dims);
    assert_int_equal(a->value_dims, b->value_dims);
    assert_true(a->latent_eps == b->latent_eps);
}

static void assert_same_texts(const struct sl_text_params *a,
                              const struct sl_text_params *b)
{
    assert_int_equal(a->whitespace, b->whitespace);
    assert_int_equal(a->n_image_tokens, b->n_image_tokens);
    assert_int_equal(a->max_blank, b->max_blank);
    assert_int_equal(a->byte_fallback, b->byte_fallback);
    assert_int_equal(a->n_tokens, b->n_tokens);
    assert_memory_equal(&a->special, &b->special, sizeof a->special);
}

static void assert_same_kind(const struct sl_hparams *a,
                             const struct sl_hparams *b)
{
    assert_int_equal(a->norm, b->norm);
    assert_int_equal(a->qkv, b->qkv);
    assert_int_equal(a->rope, b->rope);
    assert_int_equal(a->rotary, b->rotary);
    assert_int_equal(a->causal, b->causal);
    assert_int_equal(a->untied, b->untied);
    assert_int_equal(a->no_qkv_bias, b->no_qkv_bias);
    assert_int_equal(a->attn_out_bias, b->attn_out_bias);
    assert_int_equal(a->mlp_bias, b->mlp_bias);
    assert_int_equal(a->post_norms, b->post_norms);
    assert_int_equal(a->qk_norm, b->qk_norm);
    assert_int_equal(a->position_2d, b->position_2d);
    assert_int_equal(a->glu, b->glu);
}

static void hyperparameters_survive_the_model_file(void **state)
{
    const struct sl_arch *arch;

    for (size_t i = 0; (arch = sl_arch_at(i / ARCH_MODELS)) != NULL; i++) {
        struct test_model m = arch_model(arch, i % ARCH_MODELS);
        struct sl_hparams want;
        char path[ARCH_PATH];
        struct sl_modelfile mf;
        struct sl_error err;

        m.hp.rotary = (enum sl_rotary)(i % 3);
        m.hp.text.special.eos = 7;
        if (i % 2)
            m.hp.rope_scale = (struct sl_rope_scale){
                (enum sl_rope_scaling)(1 + i / 2 % 4), 4, 96, 1, 32, 0.75f};
        want = m.hp;
        sl_arch_derive(arch, &want);
        assert_ok(
            sl_modelfile_open(&mf, arch_model_write(path, test_dir, &m), &err),
            &err);
        assert_ptr_equal(mf.arch, arch);
        assert_same_sizes(&mf.hp, &want);
        assert_same_kind(&mf.hp, &want);
        assert_same_experts(&mf.hp, &want);
        assert_same_texts(&mf.hp.text, &want.text);
        assert_same_scale(&mf.hp.rope_scale, &want.rope_scale);
        assert_int_equal(mf.n_matrices + mf.n_small,
                         count_tensors(arch, &want));
        sl_modelfile_close(&mf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_lead_to_architectures),
        cmocka_unit_test(tensors_are_listed_in_order_of_use),
        cmocka_unit_test(stages_have_names),
        cmocka_unit_test(operations_read_what_was_written_and_it_fits),
        cmocka_unit_test(every_tensor_is_used_once),
        cmocka_unit_test(hyperparameters_survive_the_model_file),
    };

    return cmocka_run_group_tests(tests, test_dir_set_up, test_dir_tear_down);
}
