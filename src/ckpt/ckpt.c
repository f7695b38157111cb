#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/base/mem.h"
#include "src/ckpt/ckpt_kind.h"
#include "src/ckpt/ckpt_place.h"
#include "src/ckpt/ckpt_sums.h"

/* The first that finds what it looks for takes it: a Hugging Face folder
 * written by a training run may hold a `latest` as well. */
static const struct sl_ckpt_kind *const kinds[] = {
    &sl_ckpt_hf,
    &sl_ckpt_sat,
    &sl_ckpt_gguf_kind,
    &sl_ckpt_file,
};

const struct sl_ckpt_kind *sl_ckpt_kind_at(size_t n)
{
    return n < sizeof kinds / sizeof *kinds ? kinds[n] : NULL;
}

/* The first kind that knows the path has it. Where none does, each says what
 * it looked for and what it found: a wrong folder is the usual mistake. */
static int find_kind(const struct sl_ckpt_kind **kind, const char *path,
                     struct sl_error *err)
{
    char why[SL_CKPT_WHY], list[sizeof err->msg];
    size_t n = 0;
    struct stat st;

    if (stat(path, &st) != 0)
        return sl_fail_os(err, errno, "%s: cannot open the checkpoint", path);
    for (size_t i = 0; (*kind = sl_ckpt_kind_at(i)) != NULL; i++) {
        why[0] = '\0';
        if ((*kind)->look(why, path))
            return 0;
        if (n < sizeof list)
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s: %s (%s)",
                                  i > 0 ? "; " : "", (*kind)->name,
                                  (*kind)->looks_for, why);
    }
    return sl_fail(err, SL_ERR_USAGE, "%s: not a checkpoint. There are %s",
                   path, list);
}

/* Zeros in the place of checksums: said once, of all files together. */
static void tell_unsummed(const struct sl_ckpt *c, const struct sl_log *log)
{
    const struct sl_sums *sums;
    size_t n = 0;

    for (size_t i = 0; i < c->n_shards; i++) {
        for (size_t k = 0; k < c->shards[i].n_srcs; k++) {
            sums = sl_src_sums(c->shards[i].srcs[k]);
            n += sums != NULL ? sl_sums_absent(sums) : 0;
        }
    }
    if (n > 0)
        sl_log(log, SL_LOG_INFO,
               "%s: %zu members of its zip files have no CRC-32: damage to "
               "them will not be seen",
               c->shards[0].file, n);
}

int sl_ckpt_open(struct sl_ckpt *c, const char *path, const struct sl_log *log,
                 struct sl_error *err)
{
    struct sl_ckpt made = {0};

    if (find_kind(&made.kind, path, err) != 0)
        return -1;
    made.impl = sl_zalloc_array(1, sizeof *made.impl);
    if (made.impl == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to open the checkpoint");
    if (made.kind->open(&made, path, log, err) != 0) {
        sl_ckpt_close(&made);
        return -1;
    }
    tell_unsummed(&made, log);
    *c = made;
    return 0;
}

void sl_ckpt_close(struct sl_ckpt *c)
{
    for (size_t i = 0; i < c->n_shards; i++)
        sl_ckpt_shard_close(&c->shards[i]);
    free(c->shards);
    if (c->impl != NULL) {
        sl_tar_close(&c->impl->tar);
        sl_src_close(c->impl->archive);
        sl_gguf_destroy(c->impl->gguf);
        free(c->impl->base);
        free(c->impl->folder);
        free(c->impl->label);
    }
    free(c->impl);
    memset(c, 0, sizeof *c);
}

bool sl_ckpt_is(const struct sl_ckpt *c, const struct stat *st)
{
    for (size_t i = 0; i < c->n_shards; i++) {
        for (size_t k = 0; k < c->shards[i].n_srcs; k++)
            if (sl_src_is(c->shards[i].srcs[k], st))
                return true;
    }
    return c->impl->archive != NULL && sl_src_is(c->impl->archive, st);
}

void sl_ckpt_trust(struct sl_ckpt *c)
{
    for (size_t i = 0; i < c->n_shards; i++)
        for (size_t k = 0; k < c->shards[i].n_srcs; k++)
            sl_src_set_sums(c->shards[i].srcs[k], NULL);
}

int sl_ckpt_check_rest(struct sl_ckpt *c, struct sl_error *err)
{
    for (size_t i = 0; i < c->n_shards; i++)
        for (size_t k = 0; k < c->shards[i].n_srcs; k++)
            if (sl_src_read_gaps(c->shards[i].srcs[k], err) != 0)
                return -1;
    return 0;
}

static int compare_name(const void *name, const void *t)
{
    return strcmp(name, ((const struct sl_ckpt_tensor *)t)->name);
}

const struct sl_ckpt_tensor *sl_ckpt_find(const struct sl_ckpt *c, size_t shard,
                                          const char *name)
{
    const struct sl_ckpt_shard *s = &c->shards[shard];

    return bsearch(name, s->tensors, s->n_tensors, sizeof *s->tensors,
                   compare_name);
}

int sl_ckpt_read_file(const struct sl_ckpt *c, const char *name, uint8_t **data,
                      size_t *n, struct sl_error *err)
{
    const struct sl_ckpt_impl beside = {.folder = c->impl->folder};
    struct sl_ckpt_impl root = *c->impl;
    const struct {
        const struct sl_ckpt_impl *in;
        const char *folder;
    } places[] = {
        {c->impl, ""},
        {c->impl, c->iteration},
        {&root, ""},
        {&beside, ""},
    };
    struct sl_src *src;
    int rc = 1;

    if (c->kind->read_file != NULL)
        return c->kind->read_file(c, name, data, n, err);
    root.base = "";
    for (size_t i = 0; rc > 0 && i < sizeof places / sizeof *places; i++)
        rc = sl_place_open(&src, places[i].in, places[i].folder, name, err);
    if (rc != 0)
        return rc;
    rc = sl_place_read_all(data, n, src, err);
    sl_src_close(src);
    return rc;
}
