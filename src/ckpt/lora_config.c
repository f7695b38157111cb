#include "config.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/ckpt/lora_config.h"

#define RANK_MOST 65536

static int refuse(struct sl_error *err, const char *file, const char *key,
                  const json_t *v, const char *why)
{
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    int rc = sl_fail(err, SL_ERR_UNSUPPORTED, "%s: %s is %.60s: %s", file, key,
                     text != NULL ? text : "?", why);

    free(text);
    return rc;
}

/* null, false and nothing in it count as not said. */
static bool is_said(const json_t *v)
{
    return v != NULL && !json_is_null(v) && !json_is_false(v) &&
           !(json_is_array(v) && json_array_size(v) == 0) &&
           !(json_is_object(v) && json_object_size(v) == 0);
}

/* Settings of PEFT's LoraConfig that make more of it than W + s B A. */
static const struct {
    const char *key, *why;
} unsupported[] = {
    {"use_dora", "sluice adds B A alone, no DoRA"},
    {"use_qalora", "sluice has no QALoRA"},
    {"lora_bias", "sluice takes no biases of adapters"},
    {"modules_to_save", "sluice takes no whole weights from an adapter"},
    {"trainable_token_indices", "sluice takes no rows of embeddings"},
    {"target_parameters", "sluice adapts modules alone"},
    {"layer_replication", "sluice does not repeat layers"},
    {"alora_invocation_tokens", "sluice adapts all tokens alike"},
    {"megatron_config", "sluice reads no adapters of Megatron"},
};

/* These change the base model's weights too. */
static const char *const changing[] = {"pissa", "olora", "loftq", "corda"};

static int check_init(const json_t *root, const char *file,
                      struct sl_error *err)
{
    const json_t *v = json_object_get(root, "init_lora_weights");
    const char *name = json_string_value(v);

    for (size_t i = 0; name && i < sizeof changing / sizeof *changing; i++) {
        if (strncmp(name, changing[i], strlen(changing[i])) == 0)
            return refuse(err, file, "init_lora_weights", v,
                          "it changes the weights below too; save it as plain "
                          "LoRA first (PEFT: path_initial_model_for_weight_"
                          "conversion)");
    }
    return 0;
}

static int check_kind(const json_t *root, const char *file,
                      struct sl_error *err)
{
    const json_t *type = json_object_get(root, "peft_type");
    const json_t *bias = json_object_get(root, "bias");

    if (!json_is_string(type) || strcmp(json_string_value(type), "LORA") != 0)
        return refuse(err, file, "peft_type", type,
                      "sluice takes LORA here, and P-Tuning v2 of ChatGLM-6B "
                      "as --prefix");
    if (is_said(bias) &&
        (!json_is_string(bias) || strcmp(json_string_value(bias), "none") != 0))
        return refuse(err, file, "bias", bias,
                      "sluice takes no biases of adapters");
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++) {
        const json_t *v = json_object_get(root, unsupported[i].key);

        if (is_said(v))
            return refuse(err, file, unsupported[i].key, v, unsupported[i].why);
    }
    return check_init(root, file, err);
}

/* PEFT takes keys for regular expressions that a module's name ends in; names
 * and parts of names are what everybody writes. */
static int check_pattern(const json_t **to, const json_t *root, const char *key,
                         bool whole, const char *file, struct sl_error *err)
{
    json_t *map = json_object_get(root, key), *v;
    const char *name;
    char path[128];

    if (!is_said(map))
        return 0;
    if (!json_is_object(map))
        return sl_json_bad_value(err, file, key, map, "an object");
    json_object_foreach(map, name, v)
    {
        snprintf(path, sizeof path, "%s.%.90s", key, name);
        for (const char *c = name; *c != '\0'; c++) {
            if (!isalnum((unsigned char)*c) && *c != '_' && *c != '.')
                return refuse(err, file, path, v,
                              "names of modules are read there, no regular "
                              "expressions");
        }
        if (whole ? !(json_integer_value(v) > 0 &&
                      json_integer_value(v) <= RANK_MOST)
                  : !json_is_number(v))
            return sl_json_bad_value(err, file, path, v, "a number above 0");
    }
    *to = map;
    return 0;
}

static int take(struct sl_lora_config *c, const char *file,
                struct sl_error *err)
{
    const json_t *r = json_object_get(c->root, "r");
    const json_t *alpha = json_object_get(c->root, "lora_alpha");
    const json_t *rs = json_object_get(c->root, "use_rslora");

    if (!json_is_integer(r) || json_integer_value(r) <= 0 ||
        json_integer_value(r) > RANK_MOST)
        return sl_json_bad_value(err, file, "r", r, "a rank from 1 to 65536");
    if (!json_is_number(alpha) || !isfinite(json_number_value(alpha)))
        return sl_json_bad_value(err, file, "lora_alpha", alpha, "a number");
    if (rs != NULL && !json_is_null(rs) && !json_is_boolean(rs))
        return sl_json_bad_value(err, file, "use_rslora", rs, "true or false");
    c->r = (uint32_t)json_integer_value(r);
    c->alpha = json_number_value(alpha);
    c->rslora = json_is_true(rs);
    if (check_pattern(&c->ranks, c->root, "rank_pattern", true, file, err) != 0)
        return -1;
    return check_pattern(&c->alphas, c->root, "alpha_pattern", false, file,
                         err);
}

int sl_lora_config_parse(struct sl_lora_config *c, const char *text, size_t n,
                         const char *file, struct sl_error *err)
{
    struct sl_lora_config made = {0};

    if (sl_json_parse(&made.root, text, n, file, err) != 0)
        return -1;
    if (!json_is_object(made.root)) {
        sl_fail(err, SL_ERR_CORRUPT, "%s: is %s, not an object", file,
                sl_json_kind(made.root));
    } else if (check_kind(made.root, file, err) == 0 &&
               take(&made, file, err) == 0) {
        *c = made;
        return 0;
    }
    sl_lora_config_fini(&made);
    return -1;
}

void sl_lora_config_fini(struct sl_lora_config *c)
{
    json_decref(c->root);
    c->root = NULL;
}

/* The first key that is the module's name or its end from a dot on, as PEFT's
 * get_pattern_key has it. */
static const json_t *pattern(const json_t *map, const char *module)
{
    const char *name;
    json_t *v;

    json_object_foreach((json_t *)map, name, v)
    {
        size_t n = strlen(name), m = strlen(module);

        if (n <= m && strcmp(module + m - n, name) == 0 &&
            (n == m || module[m - n - 1] == '.'))
            return v;
    }
    return NULL;
}

double sl_lora_config_scale(const struct sl_lora_config *c, const char *module,
                            uint32_t *r)
{
    const json_t *rank = pattern(c->ranks, module);
    const json_t *own = pattern(c->alphas, module);
    double alpha = own != NULL ? json_number_value(own) : c->alpha;

    *r = rank != NULL ? (uint32_t)json_integer_value(rank) : c->r;
    return alpha / (c->rslora ? sqrt(*r) : *r);
}
