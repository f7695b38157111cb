#include "config.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/base/problems.h"
#include "src/convert/fit.h"
#include "src/convert/merge.h"

#define NAME_ROOM 128

/* Endings of names. Rotary frequencies are computed, and the originals pass
 * over stored ones too (SAT, THUDM/GLM-130B initialize.py); GPT-like code kept
 * its causal mask as a buffer of every layer. */
static const char *const ignored_tails[] = {
    ".inv_freq",       ".masked_bias",         ".attn.bias",
    ".attention.bias", ".attn.attention.bias", ".position_ids",
};
/* What a name may hold anywhere: P-Tuning's prefix is an input of a run. */
static const char *const ignored_parts[] = {"prefix_encoder."};

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);

    return n >= m && strcmp(s + n - m, tail) == 0;
}

bool sl_fit_ignores(const char *name)
{
    for (size_t i = 0; i < sizeof ignored_tails / sizeof *ignored_tails; i++)
        if (ends_with(name, ignored_tails[i]))
            return true;
    for (size_t i = 0; i < sizeof ignored_parts / sizeof *ignored_parts; i++)
        if (strstr(name, ignored_parts[i]) != NULL)
            return true;
    return false;
}

static int add(struct sl_fit_list *list, const char *text, struct sl_error *err)
{
    char **grown = realloc(list->text, (list->n + 1) * sizeof *grown);

    if (grown != NULL)
        list->text = grown;
    if (grown == NULL || (grown[list->n] = strdup(text)) == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a list of names");
    list->n++;
    return 0;
}

static void list_fini(struct sl_fit_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->text[i]);
    free(list->text);
}

void sl_fit_fini(struct sl_fit *fit)
{
    list_fini(&fit->problems);
    list_fini(&fit->unknown);
    list_fini(&fit->ignored);
    memset(fit, 0, sizeof *fit);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool has(const struct sl_fit_list *sorted, const char *name)
{
    return sorted->n > 0 &&
           bsearch(&name, sorted->text, sorted->n, sizeof *sorted->text,
                   compare_names) != NULL;
}

static int want_name(struct sl_fit_list *wanted, const char *name, bool scale,
                     struct sl_error *err)
{
    char with[NAME_ROOM];

    snprintf(with, sizeof with, "%s_scale", name);
    if (scale && add(wanted, with, err) != 0)
        return -1;
    return add(wanted, name, err);
}

/* The names under which a checkpoint has the tensor, m, or, where it does not
 * fit (NULL), might have it. */
static int want(struct sl_fit_list *wanted, const struct sl_merge *m,
                const struct sl_tensor_spec *spec, struct sl_error *err)
{
    const struct sl_tensor_row *row = spec->row;
    const char *const names[] = {
        row->name,          row->alias[0],      row->alias[1],
        row->parts[0],      row->parts[1],      row->parts[2],
        row->gguf[0],       row->gguf[1],       row->gguf_parts[0],
        row->gguf_parts[1], row->gguf_parts[2],
    };
    char name[SL_TENSOR_SPEC_NAME];

    for (unsigned i = 0; m != NULL && i < m->n_sources; i++) {
        if (want_name(wanted, m->source[i].name, sl_fmt_has_scales(m->fmt),
                      err) != 0)
            return -1;
    }
    for (size_t i = 0; m == NULL && i < sizeof names / sizeof *names; i++) {
        if (names[i] == NULL)
            continue;
        sl_arch_spec_name(name, names[i], spec);
        if (want_name(wanted, name, true, err) != 0)
            return -1;
    }
    return 0;
}

/* Fills problems, and wanted with the names of all tensors that are used or
 * would be. */
static int check_wanted(struct sl_fit *fit, struct sl_fit_list *wanted,
                        const struct sl_ckpt *c, const struct sl_arch *arch,
                        const struct sl_hparams *hp, struct sl_error *err)
{
    struct sl_tensor_spec spec;

    for (uint32_t i = 0; sl_arch_tensor(arch, &spec, hp, i); i++) {
        struct sl_merge m;
        struct sl_error one;
        bool fits = sl_merge_init(&m, c, &spec, &one) == 0;

        if (!fits && one.code == SL_ERR_NOMEM) {
            if (err != NULL)
                *err = one;
            return -1;
        }
        if (!fits && fit->problems.n == 0)
            fit->code = one.code;
        if ((!fits && add(&fit->problems, one.msg, err) != 0) ||
            want(wanted, fits ? &m : NULL, &spec, err) != 0)
            return -1;
    }
    if (wanted->n > 0)
        qsort(wanted->text, wanted->n, sizeof *wanted->text, compare_names);
    return 0;
}

/* The number of the layer that a name has, and the name with 0 in its place. */
static bool of_layer_0(char to[NAME_ROOM], uint32_t *layer, const char *name)
{
    const char *dot = name;

    while ((dot = strchr(dot, '.')) != NULL) {
        size_t digits = strspn(++dot, "0123456789");

        if (digits == 0 || digits > 9 || dot[digits] != '.')
            continue;
        *layer = (uint32_t)strtoul(dot, NULL, 10);
        return snprintf(to, NAME_ROOM, "%.*s0%s", (int)(dot - name), name,
                        dot + digits) < NAME_ROOM;
    }
    return false;
}

/* A layer behind the model's last, left out, would give a model that runs and
 * talks nonsense. */
static int check_layer(struct sl_fit *fit, const struct sl_ckpt_shard *shard,
                       const char *name, const struct sl_fit_list *wanted,
                       const struct sl_hparams *hp, struct sl_error *err)
{
    uint32_t layer;
    char same[NAME_ROOM];
    struct sl_error one;

    if (!of_layer_0(same, &layer, name))
        return add(&fit->unknown, name, err);
    if (layer >= hp->n_layers && layer - hp->n_layers < hp->n_layers_left_out)
        return add(&fit->ignored, name, err);
    if (!has(wanted, same))
        return add(&fit->unknown, name, err);
    sl_fail(&one, SL_ERR_CORRUPT,
            "%s: tensor %s: the model is said to have %u layers "
            "(0 to %u); is --num-layers right?",
            shard->file, name, hp->n_layers, hp->n_layers - 1);
    if (fit->problems.n == 0)
        fit->code = one.code;
    return add(&fit->problems, one.msg, err);
}

static bool in_earlier_shard(const struct sl_ckpt *c, size_t shard,
                             const char *name)
{
    while (shard-- > 0) {
        if (sl_ckpt_find(c, shard, name) != NULL)
            return true;
    }
    return false;
}

static int check_extra(struct sl_fit *fit, const struct sl_fit_list *wanted,
                       const struct sl_ckpt *c, const struct sl_hparams *hp,
                       struct sl_error *err)
{
    for (size_t k = 0; k < c->n_shards; k++) {
        const struct sl_ckpt_shard *shard = &c->shards[k];

        for (size_t i = 0; i < shard->n_tensors; i++) {
            const char *name = shard->tensors[i].name;

            if (has(wanted, name) || in_earlier_shard(c, k, name))
                continue;
            if ((sl_fit_ignores(name)
                     ? add(&fit->ignored, name, err)
                     : check_layer(fit, shard, name, wanted, hp, err)) != 0)
                return -1;
        }
    }
    return 0;
}

int sl_fit_check(struct sl_fit *fit, const struct sl_ckpt *c,
                 const struct sl_arch *arch, const struct sl_hparams *hp,
                 struct sl_error *err)
{
    struct sl_fit_list wanted = {0};
    struct sl_fit made = {0};
    int rc = check_wanted(&made, &wanted, c, arch, hp, err);

    if (rc == 0)
        rc = check_extra(&made, &wanted, c, hp, err);
    list_fini(&wanted);
    if (rc != 0) {
        sl_fit_fini(&made);
        return -1;
    }
    *fit = made;
    return 0;
}

int sl_fit_report(const struct sl_fit *fit, const char *what,
                  const struct sl_log *log, struct sl_error *err)
{
    struct sl_problems problems = {.log = log};
    struct sl_error one;

    for (size_t i = 0; i < fit->problems.n; i++) {
        sl_fail(&one, fit->code, "%s", fit->problems.text[i]);
        sl_problem(&problems, &one);
    }
    for (size_t i = 0; i < fit->unknown.n && i < SL_PROBLEMS_NAMED; i++)
        sl_log(log, SL_LOG_WARN,
               "%s: tensor %s is no part of the model and left out", what,
               fit->unknown.text[i]);
    if (fit->unknown.n > SL_PROBLEMS_NAMED)
        sl_log(log, SL_LOG_WARN,
               "%zu more tensors are no part of the model and left out",
               fit->unknown.n - SL_PROBLEMS_NAMED);
    return sl_problems_end(&problems, what, err);
}
