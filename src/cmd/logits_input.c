#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "src/base/mem.h"
#include "src/cmd/logits_input.h"

#define MOST_IDS (1u << 20) /* of a sample */

static int bad(struct sl_error *err, const char *path, size_t i,
               const char *what)
{
    return sl_fail(err, SL_ERR_CORRUPT, "%s: object %zu: %s", path, i, what);
}

static int copy_ints(int32_t *to, const json_t *list)
{
    size_t i;
    json_t *v;

    json_array_foreach(list, i, v)
    {
        json_int_t n = json_integer_value(v);

        if (!json_is_integer(v) || n < 0 || n > INT32_MAX)
            return -1;
        to[i] = (int32_t)n;
    }
    return 0;
}

/* "positions": one number per id, or two such lists of a 2-D model. */
static int read_positions(struct sl_logits_sample *s, const json_t *positions)
{
    const json_t *rows[2] = {positions, NULL};

    if (json_is_array(json_array_get(positions, 0))) {
        if (json_array_size(positions) != 2)
            return -1;
        rows[0] = json_array_get(positions, 0);
        rows[1] = json_array_get(positions, 1);
    }
    if (!json_is_array(rows[0]) || json_array_size(rows[0]) != s->n ||
        copy_ints(s->positions, rows[0]) != 0)
        return -1;
    if (rows[1] == NULL) {
        free(s->blocks);
        s->blocks = NULL;
        return 0;
    }
    return json_is_array(rows[1]) && json_array_size(rows[1]) == s->n
               ? copy_ints(s->blocks, rows[1])
               : -1;
}

/* The context counts on; the answer does too for a [gMASK] (null), else stays
 * at the mask's index (THUDM/GLM-130B generate.py). */
static int derive_positions(struct sl_logits_sample *s, const json_t *mask)
{
    json_int_t at = json_integer_value(mask);

    if (mask == NULL || (!json_is_null(mask) && !json_is_integer(mask)))
        return -1;
    if (json_is_integer(mask) && (at < 0 || at >= (json_int_t)s->n_context))
        return -1;
    for (uint32_t i = 0; i < s->n; i++)
        s->positions[i] =
            i < s->n_context || json_is_null(mask) ? (int32_t)i : (int32_t)at;
    free(s->blocks);
    s->blocks = NULL;
    return 0;
}

/* {"ids": [...]}: a row of logits for each, every id seen by those behind it
 * alone. */
static int read_ids(struct sl_logits_sample *s, const json_t *ids, size_t i,
                    const char *path, struct sl_error *err)
{
    if (!json_is_array(ids) || json_array_size(ids) == 0 ||
        json_array_size(ids) > MOST_IDS)
        return bad(err, path, i,
                   "\"ids\" must be a list of token ids, 1048576 at most");
    s->n = (uint32_t)json_array_size(ids);
    s->ids = sl_alloc_array(s->n, sizeof *s->ids);
    s->positions = sl_alloc_array(s->n, sizeof *s->positions);
    if (s->ids == NULL || s->positions == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory", path);
    if (copy_ints(s->ids, ids) != 0)
        return bad(err, path, i, "a token id is not a whole number");
    for (uint32_t j = 0; j < s->n; j++)
        s->positions[j] = (int32_t)j;
    s->causal = true;
    return 0;
}

static int read_sample(struct sl_logits_sample *s, const json_t *o, size_t i,
                       const char *path, struct sl_error *err)
{
    const json_t *context = json_object_get(o, "context");
    const json_t *answer = json_object_get(o, "answer");
    const json_t *positions = json_object_get(o, "positions");

    if (json_object_get(o, "ids") != NULL)
        return read_ids(s, json_object_get(o, "ids"), i, path, err);
    if (!json_is_array(context) || !json_is_array(answer) ||
        json_array_size(answer) == 0)
        return bad(err, path, i,
                   "needs \"context\" and \"answer\", lists of token ids (the "
                   "answer begins with the id of [sop]), or for a causal model "
                   "\"ids\", one list");
    if (json_array_size(context) + json_array_size(answer) > MOST_IDS)
        return bad(err, path, i, "has more than 1048576 ids");
    s->n_context = (uint32_t)json_array_size(context);
    s->n = s->n_context + (uint32_t)json_array_size(answer);
    s->ids = sl_alloc_array(s->n, sizeof *s->ids);
    s->positions = sl_alloc_array(s->n, sizeof *s->positions);
    s->blocks = sl_alloc_array(s->n, sizeof *s->blocks);
    if (s->ids == NULL || s->positions == NULL || s->blocks == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory", path);
    if (copy_ints(s->ids, context) != 0 ||
        copy_ints(s->ids + s->n_context, answer) != 0)
        return bad(err, path, i, "a token id is not a whole number");
    if (positions != NULL) {
        if (json_object_get(o, "mask_position") != NULL)
            return bad(err, path, i,
                       "has \"positions\" and \"mask_position\", which "
                       "replaces them: give one of the two");
        if (read_positions(s, positions) != 0)
            return bad(err, path, i,
                       "\"positions\" must hold one whole number for each id "
                       "of context and answer, or two such lists");
        return 0;
    }
    if (derive_positions(s, json_object_get(o, "mask_position")) != 0)
        return bad(err, path, i,
                   "needs \"positions\", or \"mask_position\": an index into "
                   "the context, or null for [gMASK]");
    return 0;
}

void sl_logits_input_fini(struct sl_logits_input *in)
{
    for (size_t i = 0; i < in->n; i++) {
        free(in->samples[i].ids);
        free(in->samples[i].positions);
        free(in->samples[i].blocks);
    }
    free(in->samples);
}

/* NULL with err set when there is none. */
static json_t *load_json(const char *path, struct sl_error *err)
{
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    json_error_t je;
    json_t *root;

    if (f == NULL) {
        sl_fail_os(err, errno, "%s: cannot open the input", path);
        return NULL;
    }
    errno = 0;
    root = json_loadf(f, 0, &je);
    if (root == NULL && ferror(f))
        sl_fail_os(err, errno, "%s: cannot read the input", path);
    else if (root == NULL)
        sl_fail(err, SL_ERR_CORRUPT, "%s: line %d: not JSON: %s", path, je.line,
                je.text);
    if (f != stdin)
        fclose(f);
    return root;
}

int sl_logits_input_read(struct sl_logits_input *in, const char *path,
                         struct sl_error *err)
{
    json_t *root = load_json(path, err);
    int rc = 0;

    if (root == NULL)
        return -1;
    in->n = json_is_array(root) ? json_array_size(root) : 1;
    in->samples = sl_zalloc_array(in->n, sizeof *in->samples);
    if (in->samples == NULL) {
        in->n = 0;
        rc = sl_fail(err, SL_ERR_NOMEM, "%s: no memory", path);
    } else if (in->n == 0) {
        rc = sl_fail(err, SL_ERR_CORRUPT, "%s: an empty list", path);
    }
    for (size_t i = 0; rc == 0 && i < in->n; i++) {
        const json_t *o = json_is_array(root) ? json_array_get(root, i) : root;

        rc = read_sample(&in->samples[i], o, i, path, err);
    }
    json_decref(root);
    return rc;
}

/* That the model knows these ids, and positions of that kind. */
int sl_logits_input_check(const struct sl_logits_input *in,
                          const struct sl_hparams *hp, const char *path,
                          struct sl_error *err)
{
    for (size_t i = 0; i < in->n; i++) {
        const struct sl_logits_sample *s = &in->samples[i];

        if (hp->causal && !s->causal)
            return bad(err, path, i,
                       "has a context that sees all of itself, which this "
                       "model, a causal one, does not: give \"ids\"");
        if ((s->blocks != NULL) != hp->position_2d)
            return bad(err, path, i,
                       hp->position_2d
                           ? "has 1-D positions, but the model's have two "
                             "dimensions: \"positions\": [[...], [...]]"
                           : "has 2-D positions, but the model's have one "
                             "dimension");
        for (uint32_t j = 0; j < s->n; j++) {
            if ((uint32_t)s->ids[j] >= hp->vocab)
                return sl_fail(err, SL_ERR_CORRUPT,
                               "%s: object %zu: id %d at place %u is outside "
                               "the vocabulary of %u",
                               path, i, (int)s->ids[j], j, hp->vocab);
        }
    }
    return 0;
}
