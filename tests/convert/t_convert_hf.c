#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/arch/settings.h"
#include "src/base/half.h"
#include "tests/converting.h"
#include "tests/hf_maker.h"
#include "tests/support.h"

/* Hugging Face folders of small models of every architecture, converted. Each
 * weight is glm_value of the model file's tensor. */

#define SHAPE(layers, positions)                                               \
    "\"num_hidden_layers\": " #layers                                          \
    ", \"max_position_embeddings\": " #positions                               \
    ", \"hidden_size\": 24, \"intermediate_size\": 44, "                       \
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, "                 \
    "\"vocab_size\": 52, \"rms_norm_eps\": 1e-5, \"head_dim\": 8, "            \
    "\"tie_word_embeddings\": false"
#define SIZES       SHAPE(2, 64)
#define NAMED(name) "{\"architectures\": [\"" name "\"], "
#define CHATGLM                                                                \
    "\"num_layers\": 2, \"hidden_size\": 32, \"num_attention_heads\": 4, "     \
    "\"layernorm_epsilon\": 1e-5, "

static const struct model {
    const char *arch, *config;
    bool alias; /* the tensors under their other names, in one piece */
} models[] = {
    {"llama", NAMED("LlamaForCausalLM") SIZES "}", false},
    {"mistral", NAMED("MistralForCausalLM") SIZES ", \"sliding_window\": null}",
     false},
    {"qwen2", NAMED("Qwen2ForCausalLM") SIZES "}", false},
    {"qwen3", NAMED("Qwen3ForCausalLM") SIZES "}", false},
    {"glm4", NAMED("Glm4ForCausalLM") SIZES ", \"attention_bias\": true}",
     false},
    {"glm4moe",
     NAMED("Glm4MoeForCausalLM") SIZES
     ", \"attention_bias\": true, \"use_qk_norm\": true, "
     "\"n_routed_experts\": 5, \"num_experts_per_tok\": 2, "
     "\"n_shared_experts\": 2, \"moe_intermediate_size\": 12, "
     "\"first_k_dense_replace\": 1, \"num_nextn_predict_layers\": 1, "
     "\"routed_scaling_factor\": 1.5}",
     false},
    {"glm4moelite",
     NAMED("Glm4MoeLiteForCausalLM") SIZES
     ", \"q_lora_rank\": 20, \"kv_lora_rank\": 16, "
     "\"qk_nope_head_dim\": 6, \"qk_rope_head_dim\": 4, "
     "\"v_head_dim\": 32, \"n_routed_experts\": 3, "
     "\"num_experts_per_tok\": 2, \"moe_intermediate_size\": 12, "
     "\"first_k_dense_replace\": 1}",
     false},
    {"chatglm", NAMED("GlmForCausalLM") SIZES ", \"attention_bias\": true}",
     false},
    {"chatglm",
     NAMED("ChatGLMModel") CHATGLM
     "\"ffn_hidden_size\": 44, \"kv_channels\": 8, "
     "\"multi_query_attention\": true, \"multi_query_group_num\": "
     "2, \"padded_vocab_size\": 52, \"seq_length\": 64, "
     "\"add_qkv_bias\": true, \"rmsnorm\": true, "
     "\"original_rope\": true}",
     true},
    {"glm",
     NAMED("GLMForConditionalGeneration") CHATGLM
     "\"vocab_size\": 52, \"max_sequence_length\": 64}",
     true},
    {"chatglm6b",
     NAMED("ChatGLMModel") CHATGLM
     "\"inner_hidden_size\": 44, "
     "\"vocab_size\": 52, \"max_sequence_length\": 64, "
     "\"position_encoding_2d\": true, \"bos_token_id\": 50, "
     "\"eos_token_id\": 51, \"mask_token_id\": 48, "
     "\"gmask_token_id\": 49, \"pad_token_id\": 3}",
     false},
};
#define N_MODELS (sizeof models / sizeof *models)

struct folder {
    struct maker_tensor t[256];
    char name[256][SL_TENSOR_SPEC_NAME];
    size_t n;
};

static uint8_t *values(const struct fixture *f, const struct sl_tensor_spec *s,
                       enum sl_dtype dt)
{
    size_t n = (size_t)s->rows * s->cols;
    uint8_t *data = malloc(n * 4);

    assert_non_null(data);
    for (size_t i = 0; i < n; i++) {
        float v = glm_value(&f->g, s, i);
        uint16_t half = sl_float_to_half(v);
        uint32_t bits;

        memcpy(&bits, &v, 4);
        bits >>= 16;
        memcpy(data + i * sl_dtype_bytes(dt),
               dt == SL_DT_F32   ? (void *)&v
               : dt == SL_DT_F16 ? (void *)&half
                                 : (void *)&bits,
               sl_dtype_bytes(dt));
    }
    return data;
}

static struct maker_tensor *add(struct folder *to, const char *name,
                                const struct sl_tensor_spec *spec,
                                enum sl_dtype dt, uint64_t rows, uint64_t cols,
                                bool vector)
{
    struct maker_tensor *t = &to->t[to->n];

    assert_true(to->n < 256);
    sl_arch_spec_name(to->name[to->n], name, spec);
    *t = (struct maker_tensor){.name = to->name[to->n],
                               .dtype = dt,
                               .n_dims = vector ? 1 : 2,
                               .shape = {rows, cols}};
    to->n++;
    return t;
}

/* A head's keys on their side, or its values, to where they are in the tensor
 * that a checkpoint has of both. all: as the model has them. */
static void add_heads(struct folder *to, const struct sl_tensor_spec *s,
                      enum sl_dtype dt, const uint8_t *all)
{
    bool keys = s->split == SL_SPLIT_HEAD_KEYS;
    uint32_t nope = s->part_rows[0], v = s->part_rows[1], c = s->part_rows[2];
    uint32_t each = keys ? c : v, heads = s->rows / each;
    size_t n = sl_dtype_bytes(dt);
    uint8_t *both;

    if (keys) {
        struct maker_tensor *t = add(to, s->row->alias[0], s, dt,
                                     (uint64_t)heads * (nope + v), c, false);

        t->data = calloc((size_t)heads * (nope + v) * c, n);
        assert_non_null(t->data);
    }
    both = (uint8_t *)to->t[to->n - 1].data; /* values follow keys */
    for (uint32_t r = 0; r < s->rows; r++) {
        for (uint32_t i = 0; i < s->cols; i++) {
            size_t row = (size_t)(r / each) * (nope + v);
            size_t at = keys ? (row + i) * c + r % each
                             : (row + nope + r % each) * c + i;

            memcpy(both + at * n, all + ((size_t)r * s->cols + i) * n, n);
        }
    }
}

/* The tensors of a model, in parts where its checkpoints have parts, each of
 * these with data of its own. Beside matrices in BF16, which loses a little,
 * vectors are F32. */
static void make(struct folder *to, const struct fixture *f,
                 const struct sl_arch *arch, const struct sl_hparams *hp,
                 enum sl_dtype type, bool alias)
{
    struct sl_tensor_spec s;

    to->n = 0;
    for (uint32_t i = 0; sl_arch_tensor(arch, &s, hp, i); i++) {
        enum sl_dtype dt =
            type == SL_DT_BF16 && s.role == SL_ROLE_VECTOR ? SL_DT_F32 : type;
        uint8_t *all = values(f, &s, dt), *at = all;
        size_t row = (size_t)s.cols * sl_dtype_bytes(dt);
        const char *other = alias ? s.row->alias[0] : NULL;
        bool cut = s.row->parts[0] != NULL && other == NULL;

        for (unsigned p = 0; cut && p < SL_SOURCES && s.row->parts[p] != NULL;
             p++) {
            struct maker_tensor *t =
                add(to, s.row->parts[p], &s, dt, s.part_rows[p], s.cols,
                    s.role == SL_ROLE_VECTOR);
            size_t bytes = s.part_rows[p] * row;
            uint8_t *copy = malloc(bytes);

            assert_non_null(copy);
            memcpy(copy, at, bytes);
            t->data = copy;
            at += bytes;
        }
        if (s.split == SL_SPLIT_HEAD_KEYS || s.split == SL_SPLIT_HEAD_VALUES) {
            add_heads(to, &s, dt, all);
            cut = true;
        }
        if (cut) {
            free(all);
            continue;
        }
        add(to, other != NULL ? other : s.row->name, &s, dt, s.rows, s.cols,
            s.role == SL_ROLE_VECTOR)
            ->data = all;
    }
}

static void drop(struct folder *to)
{
    for (size_t i = 0; i < to->n; i++)
        free((void *)to->t[i].data);
}

static struct maker_tensor *find(struct folder *in, const char *name)
{
    for (size_t i = 0; i < in->n; i++)
        if (strcmp(in->t[i].name, name) == 0)
            return &in->t[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

static void configure(const struct sl_arch **arch, struct sl_hparams *hp,
                      const struct model *m)
{
    struct sl_settings *s = NULL;
    struct sl_error err;

    *hp = (struct sl_hparams){0};
    assert_ok(sl_settings_parse(&s, m->config, strlen(m->config), "config.json",
                                &err),
              &err);
    assert_ok(sl_arch_of_settings(arch, s, &err), &err);
    assert_string_equal((*arch)->name, m->arch);
    assert_ok((*arch)->configure(hp, s, &err), &err);
    sl_arch_derive(*arch, hp);
    sl_settings_close(s);
}

static void write_config(const struct fixture *f, const char *text)
{
    char path[1200];

    snprintf(path, sizeof path, "%s/config.json", f->source);
    maker_file(path, text, strlen(text));
}

static void make_model(struct folder *to, const struct fixture *f,
                       const struct model *m, enum sl_dtype dt)
{
    const struct sl_arch *arch;
    struct sl_hparams hp;

    configure(&arch, &hp, m);
    write_config(f, m->config);
    make(to, f, arch, &hp, dt, m->alias);
}

/* The converted file has every weight, in FP32. */
static void check(struct fixture *f, const struct model *m, enum sl_dtype dt)
{
    struct sl_modelfile mf;

    convert(f, "f32");
    if (dt != SL_DT_BF16)
        assert_weights(f, 0);
    else
        assert_weights(f, 1.0 / 128);
    open_checked(&mf, f->out);
    assert_string_equal(mf.arch->name, m->arch);
    sl_modelfile_close(&mf);
    assert_null(strstr(f->said, "left out"));
}

static void folders_of_every_architecture_convert(void **state)
{
    static const enum sl_dtype types[] = {SL_DT_F32, SL_DT_F16, SL_DT_BF16};
    struct fixture *f = *state;
    struct folder *to = malloc(sizeof *to);
    const struct sl_arch *arch;

    assert_non_null(to);
    for (size_t i = 0; i < N_MODELS; i++) {
        enum sl_dtype dt = types[i % 3];

        for (unsigned kind = 0; kind < 2; kind++) {
            make_model(to, f, &models[i], dt);
            maker_hf(f->source, to->t, to->n, (enum maker_weights)kind,
                     kind == i % 2 ? 1 : 3);
            check(f, &models[i], dt);
            drop(to);
            test_remove_tree(f->source);
        }
    }
    free(to);
    for (size_t a = 0; (arch = sl_arch_at(a)) != NULL; a++) {
        bool tried = arch->hf_names == NULL;

        for (size_t i = 0; i < N_MODELS; i++)
            tried = tried || strcmp(models[i].arch, arch->name) == 0;
        if (!tried)
            fail_msg("%s has no folder here", arch->name);
    }
}

static void what_is_missing_or_misshapen_is_told_at_once(void **state)
{
    struct fixture *f = *state;
    struct folder *to = malloc(sizeof *to);
    struct maker_tensor *t;

    assert_non_null(to);
    make_model(to, f, &models[0], SL_DT_F16);
    t = find(to, "model.layers.1.self_attn.k_proj.weight");
    t->name = "model.layers.1.self_attn.other.weight";
    maker_hf(f->source, to->t, to->n, MAKER_SAFETENSORS, 1);
    REFUSE(f, SL_ERR_CORRUPT, "model.safetensors",
           "model.layers.1.self_attn.k_proj.weight is missing");
    assert_non_null(strstr(f->said, "self_attn.other.weight is no part"));

    t->name = "model.layers.1.self_attn.k_proj.weight";
    t->shape[0] = 8;
    maker_hf(f->source, to->t, to->n, MAKER_SAFETENSORS, 1);
    REFUSE(f, SL_ERR_CORRUPT, "k_proj.weight is 8 x 24", "16 x 24");

    t->shape[0] = 16;
    t->dtype = SL_DT_I16;
    maker_hf(f->source, to->t, to->n, MAKER_SAFETENSORS, 1);
    REFUSE(f, SL_ERR_UNSUPPORTED, "k_proj.weight is of type int16", "bf16");
    t->dtype = SL_DT_F16;

    /* A model of four layers by its config.json: 18 tensors are missing. */
    write_config(f, NAMED("LlamaForCausalLM") SHAPE(4, 64) "}");
    maker_hf(f->source, to->t, to->n, MAKER_SAFETENSORS, 1);
    f->said[0] = '\0';
    REFUSE(f, SL_ERR_CORRUPT, " problems; the first: ", "model.layers.2.");
    assert_non_null(strstr(f->said, "and more"));
    /* Of one: the second is too much. */
    write_config(f, NAMED("LlamaForCausalLM") SHAPE(1, 64) "}");
    REFUSE(f, SL_ERR_CORRUPT, "model.layers.1.", "1 layers (0 to 0)");
    assert_false(file_exists(f->out, ""));
    assert_false(file_exists(f->out, ".partial"));
    drop(to);
    free(to);
}

static void foreign_folders_are_refused_by_name(void **state)
{
    static const struct {
        const char *config;
        enum sl_code code;
        const char *says;
    } bad[] = {
        {"{\"architectures\": [\"MambaForCausalLM\"]}", SL_ERR_UNSUPPORTED,
         "MambaForCausalLM"},
        {NAMED("LlamaForCausalLM") SIZES ", \"quantization_config\": "
                                         "{\"quant_method\": \"gptq\"}}",
         SL_ERR_UNSUPPORTED, "gptq"},
        {NAMED("LlamaForCausalLM") "\"hidden_size\": \"x\"}", SL_ERR_CORRUPT,
         "config.json: "},
        {NAMED("LlamaForCausalLM") "\"hidden_size\": 24}", SL_ERR_CORRUPT,
         "does not say"},
        {NAMED("MistralForCausalLM") SIZES ", \"sliding_window\": 32}",
         SL_ERR_UNSUPPORTED, "sliding_window is 32"},
        {NAMED("MistralForCausalLM") SHAPE(2, 8192) "}", SL_ERR_UNSUPPORTED,
         "does not say sliding_window"},
        {"{\"architectures\": [\"GlmMoeDsaForCausalLM\"]}", SL_ERR_UNSUPPORTED,
         "keys that an indexer selects"},
        {"{\"model_type\": \"glm5_next\"}", SL_ERR_UNSUPPORTED,
         "linear attention"},
        {NAMED("Glm4MoeForCausalLM") SIZES ", \"scoring_func\": \"softmax\"}",
         SL_ERR_UNSUPPORTED, "sluice has 'sigmoid'"},
        {NAMED("Glm4MoeForCausalLM") SIZES ", \"topk_method\": \"greedy\"}",
         SL_ERR_UNSUPPORTED, "topk_method is 'greedy'"},
        {"{\"architectures\": ", SL_ERR_CORRUPT, "not JSON"},
        {"[]", SL_ERR_CORRUPT, "an object is expected"},
    };
    struct fixture *f = *state;
    struct folder *to = malloc(sizeof *to);

    assert_non_null(to);
    make_model(to, f, &models[0], SL_DT_F16);
    maker_hf(f->source, to->t, to->n, MAKER_SAFETENSORS, 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_config(f, bad[i].config);
        REFUSE(f, bad[i].code, bad[i].says);
        assert_false(file_exists(f->out, ""));
        assert_false(file_exists(f->out, ".partial"));
    }
    drop(to);
    free(to);
}

static void routers_that_choose_nothing_are_refused(void **state)
{
    static const char *const names[] = {
        "model.layers.1.mlp.gate.weight",
        "model.layers.1.mlp.gate.e_score_correction_bias"};
    static const uint32_t odd[] = {0x7fc00000, 0xff800000}; /* NaN, -inf */
    struct fixture *f = *state;
    struct folder *to = malloc(sizeof *to);

    assert_non_null(to);
    for (size_t i = 0; i < 4; i++) {
        make_model(to, f, &models[5], SL_DT_F32);
        assert_string_equal(models[5].arch, "glm4moe");
        memcpy((uint8_t *)find(to, names[i % 2])->data + 8, &odd[i / 2], 4);
        maker_hf(f->source, to->t, to->n, MAKER_SAFETENSORS, 1);
        REFUSE(f, SL_ERR_CORRUPT, names[i % 2], "no experts can be chosen");
        assert_false(file_exists(f->out, ""));
        drop(to);
        test_remove_tree(f->source);
    }
    free(to);
}

/* Named after the model, not after the revision it is of or the blob that its
 * file is a link to. */
static void a_model_is_named_after_what_people_call_it(void **state)
{
    static const struct {
        const char *folder, *file, *name;
    } named[] = {
        {"models--Acme--Wise-1B/snapshots/0123abcd", "", "Wise-1B"},
        {"models--Acme--Wise-1B/snapshots/0123abcd", "/model.safetensors",
         "Wise-1B"},
        {"plain", "", "plain"},
        {"plain", "/model.safetensors", "plain"},
    };
    struct fixture *f = *state;
    struct folder *to = malloc(sizeof *to);
    char path[1300];

    assert_non_null(to);
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        struct sl_modelfile mf;

        snprintf(f->source, sizeof f->source, "%.900s/%.100s", f->dir,
                 named[i].folder);
        make_model(to, f, &models[0], SL_DT_F16);
        maker_hf(f->source, to->t, to->n, MAKER_SAFETENSORS, 1);
        snprintf(path, sizeof path, "%s%s", f->source, named[i].file);
        f->o.source = path;
        convert(f, "f16");
        open_checked(&mf, f->out);
        assert_string_equal(mf.name, named[i].name);
        sl_modelfile_close(&mf);
        drop(to);
    }
    free(to);
}

int main(void)
{
#define CASE(name)                                                             \
    cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    static const struct CMUnitTest tests[] = {
        CASE(folders_of_every_architecture_convert),
        CASE(what_is_missing_or_misshapen_is_told_at_once),
        CASE(foreign_folders_are_refused_by_name),
        CASE(routers_that_choose_nothing_are_refused),
        CASE(a_model_is_named_after_what_people_call_it),
    };
#undef CASE

    return cmocka_run_group_tests(tests, NULL, NULL);
}
