#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/ckpt/ckpt_shard.h"

/* What `git clone` leaves in place of a large file when LFS is not set up
 * (git-lfs/git-lfs, its specification, "The Pointer"). */
static int refuse_lfs_pointer(struct sl_src *src, struct sl_error *err)
{
    static const char mark[] = "version https://git-lfs";
    char text[sizeof mark - 1];

    if (sl_src_bytes(src) < sizeof text)
        return 0;
    if (sl_src_read(src, text, 0, sizeof text, err) != 0)
        return -1;
    if (memcmp(text, mark, sizeof text) != 0)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT,
                   "%s: a Git LFS pointer, not the weights: get them with "
                   "`git lfs pull`",
                   sl_src_name(src));
}

int sl_shard_init(struct sl_ckpt_shard *shard, struct sl_src *src,
                  struct sl_error *err)
{
    struct sl_src **srcs = NULL;

    if (refuse_lfs_pointer(src, err) != 0)
        goto fail;
    srcs = sl_alloc_array(1, sizeof *srcs);
    if (srcs == NULL) {
        sl_fail(err, SL_ERR_NOMEM, "%s: no memory to open it",
                sl_src_name(src));
        goto fail;
    }
    srcs[0] = src;
    *shard = (struct sl_ckpt_shard){
        .file = sl_src_name(src),
        .srcs = srcs,
        .n_srcs = 1,
    };
    return 0;
fail:
    sl_src_close(src);
    return -1;
}

void sl_ckpt_shard_close(struct sl_ckpt_shard *shard)
{
    for (size_t i = 0; i < shard->n_tensors; i++)
        free(shard->tensors[i].name);
    free(shard->tensors);
    for (size_t i = 0; i < shard->n_srcs; i++)
        sl_src_close(shard->srcs[i]);
    free(shard->srcs);
    memset(shard, 0, sizeof *shard);
}

int sl_shard_name(char **out, const char *text, size_t n, const char *file,
                  struct sl_error *err)
{
    bool ok = n > 0 && n < SL_TENSOR_NAME_BYTES;

    for (size_t i = 0; ok && i < n; i++)
        ok = (uint8_t)text[i] >= ' ' && text[i] != 0x7f;
    if (!ok)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: a tensor's name of %zu bytes is empty, too long "
                       "or not printable",
                       file, n);
    *out = strndup(text, n);
    if (*out == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory for its tensors",
                       file);
    return 0;
}

static int compare_tensors(const void *va, const void *vb)
{
    const struct sl_ckpt_tensor *a = va, *b = vb;

    return strcmp(a->name, b->name);
}

int sl_shard_sort(struct sl_ckpt_shard *shard, struct sl_error *err)
{
    if (shard->n_tensors == 0)
        return sl_fail(err, SL_ERR_CORRUPT, "%s: holds no tensors",
                       shard->file);
    qsort(shard->tensors, shard->n_tensors, sizeof *shard->tensors,
          compare_tensors);
    for (size_t i = 1; i < shard->n_tensors; i++) {
        const struct sl_ckpt_tensor *a = &shard->tensors[i - 1], *b = a + 1;

        if (strcmp(a->name, b->name) != 0)
            continue;
        if (a->src == b->src)
            return sl_fail(err, SL_ERR_CORRUPT, "%s: holds tensor %s twice",
                           sl_src_name(a->src), a->name);
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s: holds tensor %s, which %s holds too",
                       sl_src_name(a->src), a->name, sl_src_name(b->src));
    }
    return 0;
}

int sl_shard_append(struct sl_ckpt_shard *to, struct sl_ckpt_shard *from,
                    struct sl_error *err)
{
    size_t n_tensors = to->n_tensors + from->n_tensors;
    size_t n_srcs = to->n_srcs + from->n_srcs;
    struct sl_ckpt_tensor *tensors =
        realloc(to->tensors, (n_tensors + 1) * sizeof *tensors);
    struct sl_src **srcs;

    if (tensors != NULL)
        to->tensors = tensors;
    srcs = realloc(to->srcs, (n_srcs + 1) * sizeof *srcs);
    if (srcs != NULL)
        to->srcs = srcs;
    if (tensors == NULL || srcs == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory for its tensors",
                       from->file);
    if (from->n_tensors > 0)
        memcpy(tensors + to->n_tensors, from->tensors,
               from->n_tensors * sizeof *tensors);
    if (from->n_srcs > 0)
        memcpy(srcs + to->n_srcs, from->srcs, from->n_srcs * sizeof *srcs);
    to->n_tensors = n_tensors;
    to->n_srcs = n_srcs;
    free(from->tensors);
    free(from->srcs);
    memset(from, 0, sizeof *from);
    return 0;
}
