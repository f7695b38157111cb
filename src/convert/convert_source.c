#include "config.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/convert/convert_impl.h"
#include "src/text/tokenizer.h"

#define TOKENIZER_FILE "ice_text.model"
/* Names listed in full before the rest is only counted. */
#define NAMES_LISTED 8u

/* The shards of GLM-130B bring no file that says what they are, but their
 * embedding does. */
static bool looks_like_preset(const struct sl_convert *cv,
                              const struct sl_hparams *preset)
{
    const struct sl_ckpt_tensor *t =
        sl_ckpt_find(&cv->ckpt, 0, "transformer.word_embeddings.weight");

    return t != NULL && t->n_dims == 2 && t->shape[1] == preset->hidden &&
           t->shape[0] * cv->ckpt.n_shards == preset->vocab;
}

/* config.json, else SAT's model_config.json; says nothing when neither is
 * there. */
static int read_config(struct sl_config *config, const struct sl_convert *cv,
                       struct sl_error *err)
{
    static const char *const names[] = {"config.json", "model_config.json"};

    sl_config_init(config);
    for (size_t i = 0; i < 2; i++) {
        uint8_t *data;
        size_t n;
        int rc = sl_ckpt_read_file(&cv->ckpt, names[i], &data, &n, err);

        if (rc > 0)
            continue;
        if (rc < 0)
            return -1;
        rc = sl_config_parse(config, (const char *)data, n, names[i], err);
        free(data);
        return rc;
    }
    return 0;
}

static int find_hparams(struct sl_convert *cv, struct sl_error *err)
{
    const struct sl_convert_options *o = cv->o;
    struct sl_config config, preset;

    if (o->preset != NULL) {
        if (sl_config_preset(&config, o->preset, err) != 0)
            return -1;
    } else if (read_config(&config, cv, err) != 0) {
        return -1;
    }
    if (config.given == 0 && sl_config_preset(&preset, "glm-130b", err) == 0 &&
        looks_like_preset(cv, &preset.hp)) {
        config = preset;
        sl_log(o->log, SL_LOG_INFO,
               "there is no config.json; the embedding has GLM-130B's shape: "
               "taking --preset glm-130b");
    }
    sl_config_overlay(&config, &o->flags);
    return sl_config_finish(&cv->hp, cv->arch, &config, err);
}

static int same_id(const char *name, int32_t said, int32_t is, const char *file,
                   struct sl_error *err)
{
    if (said == -1 || said == is)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s puts %s at %d, the model's configuration at %d: they do "
                   "not belong together",
                   file, name, is, said);
}

/* Ids that were said must be those of the tokenizer, which knows them all. */
static int describe_tokenizer(struct sl_convert *cv, const char *file,
                              struct sl_error *err)
{
    const struct sl_special_ids said = cv->hp.text.special;
    struct sl_hparams hp = cv->hp;
    const struct sl_special_ids *is = &hp.text.special;

    if (sl_tokenizer_describe(&hp.text, cv->tokenizer, cv->tokenizer_bytes,
                              err) != 0) {
        sl_error_prefix(err, "%s: ", file);
        return -1;
    }
    if (hp.text.n_tokens > hp.vocab)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s has %u ids (with %u image tokens), but the "
                       "vocabulary is %u: is --num-image-tokens right?",
                       file, hp.text.n_tokens, hp.text.n_image_tokens,
                       hp.vocab);
    if (same_id("[MASK]", said.mask, is->mask, file, err) != 0 ||
        same_id("[gMASK]", said.gmask, is->gmask, file, err) != 0 ||
        same_id("[sMASK]", said.smask, is->smask, file, err) != 0 ||
        same_id("<eod>", said.eod, is->eod, file, err) != 0 ||
        same_id("<sop>", said.sop, is->sop, file, err) != 0 ||
        same_id("<eop>", said.eop, is->eop, file, err) != 0 ||
        same_id("<ENC>", said.enc, is->enc, file, err) != 0 ||
        same_id("<dBLOCK>", said.dblock, is->dblock, file, err) != 0 ||
        same_id("</s>", said.eos, is->eos, file, err) != 0 ||
        same_id("<unk>", said.unk, is->unk, file, err) != 0)
        return -1;
    cv->hp = hp;
    return 0;
}

static int read_whole(uint8_t **data, size_t *n, const char *path,
                      struct sl_error *err)
{
    struct sl_src *src;
    int rc = -1;

    if (sl_src_open(&src, &path, 1, err) != 0)
        return -1;
    *n = (size_t)sl_src_bytes(src);
    *data = sl_alloc_array(*n + 1, 1);
    if (*data == NULL)
        sl_fail(err, SL_ERR_NOMEM, "%s: no memory for its %zu bytes", path, *n);
    else
        rc = sl_src_read(src, *data, 0, *n, err);
    sl_src_close(src);
    return rc;
}

static int find_tokenizer(struct sl_convert *cv, struct sl_error *err)
{
    const char *file = cv->o->tokenizer;
    int rc;

    if (file != NULL) {
        rc = read_whole(&cv->tokenizer, &cv->tokenizer_bytes, file, err);
    } else {
        file = TOKENIZER_FILE;
        rc = sl_ckpt_read_file(&cv->ckpt, file, &cv->tokenizer,
                               &cv->tokenizer_bytes, err);
    }
    if (rc < 0)
        return -1;
    if (rc == 0 && cv->tokenizer_bytes == 0)
        return sl_fail(err, SL_ERR_CORRUPT, "%s: is empty", file);
    if (rc == 0)
        return describe_tokenizer(cv, file, err);
    sl_log(cv->o->log, SL_LOG_WARN,
           "there is no " TOKENIZER_FILE " beside the checkpoint: the model "
           "file will serve logits and benchmarks, but not generate text; "
           "--tokenizer FILE names one");
    return 0;
}

/* Every tensor of the architecture, put together from the shards. */
static int find_tensors(struct sl_convert *cv, struct sl_error *err)
{
    struct sl_tensor_spec spec;
    uint32_t n = 0;

    while (sl_arch_tensor(cv->arch, &spec, &cv->hp, n)) {
        n++;
        if (spec.role == SL_ROLE_VECTOR)
            cv->n_vectors++;
        else
            cv->n_matrices++;
    }
    cv->vectors = sl_zalloc_array(cv->n_vectors, sizeof *cv->vectors);
    cv->matrices = sl_zalloc_array(cv->n_matrices, sizeof *cv->matrices);
    if (cv->vectors == NULL || cv->matrices == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a list of %u tensors",
                       n);
    /* The architecture lists vectors before matrices. */
    for (uint32_t i = 0; i < n; i++) {
        struct sl_merge *m = i < cv->n_vectors
                                 ? &cv->vectors[i]
                                 : &cv->matrices[i - cv->n_vectors].merge;

        sl_arch_tensor(cv->arch, &spec, &cv->hp, i);
        if (sl_merge_init(m, &cv->ckpt, &spec, err) != 0)
            return -1;
    }
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names that are used, sorted; a quantised matrix's scales too (the room for
 * their names is in scales). */
static const char **used_names(const struct sl_convert *cv, char (*scales)[96],
                               size_t *n)
{
    const char **names =
        sl_alloc_array(cv->n_vectors + 2 * cv->n_matrices, sizeof *names);

    *n = 0;
    if (names == NULL)
        return NULL;
    for (size_t i = 0; i < cv->n_vectors; i++)
        names[(*n)++] = cv->vectors[i].spec.name;
    for (size_t i = 0; i < cv->n_matrices; i++) {
        const struct sl_merge *m = &cv->matrices[i].merge;

        names[(*n)++] = m->spec.name;
        if (m->kind < SL_MERGE_INT8)
            continue;
        snprintf(scales[i], sizeof scales[i], "%s_scale", m->spec.name);
        names[(*n)++] = scales[i];
    }
    qsort(names, *n, sizeof *names, compare_names);
    return names;
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);

    return n >= m && strcmp(s + n - m, tail) == 0;
}

/* The rotary frequencies are computed; the original ignores stored ones too
 * (SAT, THUDM/GLM-130B initialize.py). */
static bool is_known(const char *name, const char **names, size_t n)
{
    return ends_with(name, ".inv_freq") ||
           bsearch(&name, names, n, sizeof *names, compare_names) != NULL;
}

static bool in_earlier_shard(const struct sl_convert *cv, size_t shard,
                             const char *name)
{
    while (shard-- > 0) {
        if (sl_ckpt_find(&cv->ckpt, shard, name) != NULL)
            return true;
    }
    return false;
}

/* A layer behind the model's last, left out, would give a model that runs and
 * talks nonsense. All ranks have all layers. */
static int check_layers(const struct sl_convert *cv, struct sl_error *err)
{
    const struct sl_ckpt_shard *shard = &cv->ckpt.shards[0];
    uint32_t n_layers = cv->hp.n_layers;

    for (size_t i = 0; i < shard->n_tensors; i++) {
        const char *name = shard->tensors[i].name;
        unsigned layer;

        if (sscanf(name, "transformer.layers.%u.", &layer) == 1 &&
            layer >= n_layers)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "%s: tensor %s: the model is said to have %u layers "
                           "(0 to %u); is --num-layers right?",
                           shard->file, name, n_layers, n_layers - 1);
    }
    return 0;
}

static void warn_of_unknown(const struct sl_convert *cv, const char **names,
                            size_t n_names)
{
    size_t n = 0;

    for (size_t k = 0; k < cv->ckpt.n_shards; k++) {
        const struct sl_ckpt_shard *shard = &cv->ckpt.shards[k];

        for (size_t i = 0; i < shard->n_tensors; i++) {
            const char *name = shard->tensors[i].name;

            if (is_known(name, names, n_names) ||
                in_earlier_shard(cv, k, name) || n++ >= NAMES_LISTED)
                continue;
            sl_log(cv->o->log, SL_LOG_WARN,
                   "%s: tensor %s is no part of the model and left out",
                   shard->file, name);
        }
    }
    if (n > NAMES_LISTED)
        sl_log(cv->o->log, SL_LOG_WARN,
               "%zu more tensors are no part of the model and left out",
               n - NAMES_LISTED);
}

static int check_names(const struct sl_convert *cv, struct sl_error *err)
{
    char(*scales)[96] = sl_alloc_array(cv->n_matrices, sizeof *scales);
    const char **names = NULL;
    size_t n;

    if (scales != NULL)
        names = used_names(cv, scales, &n);
    if (names != NULL)
        warn_of_unknown(cv, names, n);
    free(scales);
    free(names);
    if (names == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a list of names");
    return 0;
}

/* The source's last path component, as a person would name it. */
static int find_name(struct sl_convert *cv, struct sl_error *err)
{
    char *path = realpath(cv->o->source, NULL), *base;

    if (path == NULL)
        return sl_fail_os(err, errno, "%s: cannot open the checkpoint",
                          cv->o->source);
    base = strrchr(path, '/');
    base = base != NULL ? base + 1 : path;
    /* of an archive the part before ".tar" */
    for (char *p = base; (p = strstr(p, ".tar")) != NULL && p > base;) {
        *p = '\0';
        break;
    }
    if (cv->o->name != NULL)
        cv->name = strdup(cv->o->name);
    else
        cv->name = strdup(*base != '\0' ? base : "model");
    free(path);
    if (cv->name == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a name");
    return 0;
}

int sl_convert_source_open(struct sl_convert *cv, struct sl_error *err)
{
    cv->arch = &sl_arch_glm130b;
    if (find_name(cv, err) != 0)
        return -1;
    if (sl_ckpt_open(&cv->ckpt, cv->o->source, cv->o->log, err) != 0)
        return -1;
    if (find_hparams(cv, err) != 0 || find_tensors(cv, err) != 0 ||
        check_layers(cv, err) != 0 || check_names(cv, err) != 0)
        return -1;
    return find_tokenizer(cv, err);
}
