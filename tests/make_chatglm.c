/*
 * make_chatglm DIR ICE_TEXT: a small ChatGLM-6B of random weights in DIR/hf,
 * with ICE_TEXT as its vocabulary, a P-Tuning v2 prefix for it in DIR/prefix,
 * and two LoRA adapters in DIR/lora and DIR/other, the second for a wider
 * model.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/base/half.h"
#include "tests/lora_maker.h"
#include "tests/support.h"
#include "tests/vocabs.h"

enum {
    LAYERS = 2,
    HIDDEN = 32,
    INNER = 64,
    PIECES = 7808, /* of demo/ice_text.model */
    VOCAB = PIECES + 352,
    PREFIX = 6,
    RANK = 2,
    MOST = 48,
};

static struct maker_tensor tensors[MOST];
static char names[MOST][96];
static size_t n_tensors;
static uint64_t state = 88172645463325252u;

/* Between -1 and 1. */
static float number(void)
{
    return (float)(test_random(&state) >> 40) / (1 << 23) - 1;
}

/* F16 numbers around middle; cols 0: a vector. */
static void add(const char *name, uint64_t rows, uint64_t cols, float middle,
                float by)
{
    size_t n = rows * (cols > 0 ? cols : 1);
    uint16_t *v = malloc(n * sizeof *v);

    if (v == NULL || n_tensors == MOST)
        abort();
    for (size_t i = 0; i < n; i++)
        v[i] = sl_float_to_half(middle + by * number());
    snprintf(names[n_tensors], sizeof names[0], "%s", name);
    tensors[n_tensors] = (struct maker_tensor){
        .name = names[n_tensors],
        .dtype = SL_DT_F16,
        .n_dims = cols > 0 ? 2 : 1,
        .shape = {rows, cols},
        .data = (uint8_t *)v,
    };
    n_tensors++;
}

static void drop(void)
{
    while (n_tensors > 0)
        free((void *)tensors[--n_tensors].data);
}

static void add_layer(unsigned layer)
{
    static const struct {
        const char *name;
        uint32_t rows, cols;
    } parts[] = {
        {"attention.query_key_value", 3 * HIDDEN, HIDDEN},
        {"attention.dense", HIDDEN, HIDDEN},
        {"mlp.dense_h_to_4h", INNER, HIDDEN},
        {"mlp.dense_4h_to_h", HIDDEN, INNER},
        {"input_layernorm", HIDDEN, 0},
        {"post_attention_layernorm", HIDDEN, 0},
    };
    char name[96];

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        bool norm = parts[i].cols == 0;

        snprintf(name, sizeof name, "transformer.layers.%u.%s.weight", layer,
                 parts[i].name);
        add(name, parts[i].rows, parts[i].cols, norm ? 1 : 0, 0.3f);
        snprintf(name, sizeof name, "transformer.layers.%u.%s.bias", layer,
                 parts[i].name);
        add(name, parts[i].rows, 0, 0, 0.1f);
    }
}

static void write_text(const char *dir, const char *name, const char *text)
{
    char path[1200];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    maker_file(path, text, strlen(text));
}

static void make_model(const char *dir)
{
    char config[600];

    add("transformer.word_embeddings.weight", VOCAB, HIDDEN, 0, 1);
    add("lm_head.weight", VOCAB, HIDDEN, 0, 0.4f);
    for (unsigned i = 0; i < LAYERS; i++)
        add_layer(i);
    add("transformer.final_layernorm.weight", HIDDEN, 0, 1, 0.3f);
    add("transformer.final_layernorm.bias", HIDDEN, 0, 0, 0.1f);
    maker_hf(dir, tensors, n_tensors, MAKER_TORCH, 2);
    drop();
    snprintf(config, sizeof config,
             "{\"architectures\": [\"ChatGLMModel\"], \"num_layers\": %d, "
             "\"hidden_size\": %d, \"inner_hidden_size\": %d, "
             "\"num_attention_heads\": 2, \"vocab_size\": %d, "
             "\"max_sequence_length\": 256, \"layernorm_epsilon\": 1e-5, "
             "\"position_encoding_2d\": true, \"mask_token_id\": %d, "
             "\"gmask_token_id\": %d, \"bos_token_id\": %d, "
             "\"eos_token_id\": %d, \"pad_token_id\": 3}",
             LAYERS, HIDDEN, INNER, VOCAB, PIECES, PIECES + 1, PIECES + 4,
             PIECES + 5);
    write_text(dir, "config.json", config);
}

static void make_prefix(const char *dir)
{
    char config[80];

    add("transformer.prefix_encoder.embedding.weight", PREFIX,
        LAYERS * 2 * HIDDEN, 0, 2);
    maker_hf(dir, tensors, n_tensors, MAKER_TORCH, 1);
    drop();
    snprintf(config, sizeof config, "{\"pre_seq_len\": %d}", PREFIX);
    write_text(dir, "config.json", config);
}

static void make_adapter(const char *dir, uint32_t hidden)
{
    static const char module[] =
        "base_model.model.transformer.layers.%u.attention.query_key_value.%s";
    char name[96];

    for (unsigned i = 0; i < LAYERS; i++) {
        snprintf(name, sizeof name, module, i, "lora_A.weight");
        add(name, RANK, hidden, 0, 0.4f);
        snprintf(name, sizeof name, module, i, "lora_B.weight");
        add(name, 3 * hidden, RANK, 0, 0.4f);
    }
    maker_adapter_files(
        dir,
        "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 4, "
        "\"target_modules\": [\"query_key_value\"]}",
        tensors, n_tensors, false);
    drop();
}

int main(int argc, char **argv)
{
    static const char *const folders[] = {"hf", "prefix", "lora", "other"};
    char dir[4][1024];
    uint8_t *ice;
    size_t n;

    if (argc != 3) {
        fprintf(stderr, "usage: make_chatglm DIR ICE_TEXT\n");
        return 2;
    }
    for (size_t i = 0; i < 4; i++) {
        snprintf(dir[i], sizeof dir[i], "%s/%s", argv[1], folders[i]);
        mkdir(dir[i], 0777);
    }
    ice = test_read_file(argv[2], &n);
    make_model(dir[0]);
    snprintf(dir[0] + strlen(dir[0]), 32, "/ice_text.model");
    maker_file(dir[0], ice, n);
    free(ice);
    make_prefix(dir[1]);
    make_adapter(dir[2], HIDDEN);
    make_adapter(dir[3], 2 * HIDDEN);
    return 0;
}
