#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/base/mem.h"
#include "src/ckpt/ckpt_place.h"

#define MAX_FILE_BYTES (256u << 20) /* of a file beside the checkpoint */

int sl_place_path(char out[SL_CKPT_PATH], const char *folder, const char *name,
                  struct sl_error *err)
{
    int n =
        snprintf(out, SL_CKPT_PATH, "%s%s%s", folder, *folder ? "/" : "", name);

    if (n < 0 || n >= SL_CKPT_PATH)
        return sl_fail(err, SL_ERR_USAGE, "%.100s...: the path is too long",
                       folder);
    return 0;
}

/* A name in the archive: base, an optional folder, and name. */
static const struct sl_tar_member *
in_archive(const struct sl_ckpt_impl *im, const char *folder, const char *name)
{
    char path[SL_CKPT_PATH];
    int n = snprintf(path, sizeof path, "%s%s%s%s", im->base, folder,
                     *folder ? "/" : "", name);

    return n < 0 || n >= SL_CKPT_PATH ? NULL : sl_tar_find(&im->tar, path);
}

int sl_place_open(struct sl_src **src, const struct sl_ckpt_impl *im,
                  const char *folder, const char *name, struct sl_error *err)
{
    char path[SL_CKPT_PATH], below[SL_CKPT_PATH];
    const struct sl_tar_member *m;
    const char *paths[] = {path};
    struct stat st;

    if (im->archive != NULL) {
        m = in_archive(im, folder, name);
        if (m == NULL)
            return 1;
        snprintf(path, sizeof path, "%.1000s: %.2000s",
                 sl_src_name(im->archive), m->name);
        return sl_src_slice(src, im->archive, m->off, m->bytes, path, err);
    }
    if (sl_place_path(below, im->folder, folder, err) != 0 ||
        sl_place_path(path, *folder ? below : im->folder, name, err) != 0)
        return -1;
    if (stat(path, &st) != 0 && (errno == ENOENT || errno == ENOTDIR))
        return 1;
    return sl_src_open(src, paths, 1, err);
}

int sl_place_read_all(uint8_t **data, size_t *n, struct sl_src *src,
                      struct sl_error *err)
{
    uint64_t bytes = sl_src_bytes(src);
    uint8_t *made;

    if (bytes > MAX_FILE_BYTES)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: %" PRIu64 " bytes; at most %u are read",
                       sl_src_name(src), bytes, MAX_FILE_BYTES);
    made = sl_alloc_array((size_t)bytes + 1, 1);
    if (made == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory for %" PRIu64 " bytes",
                       sl_src_name(src), bytes);
    if (sl_src_read(src, made, 0, (size_t)bytes, err) != 0) {
        free(made);
        return -1;
    }
    made[bytes] = '\0';
    *data = made;
    *n = (size_t)bytes;
    return 0;
}
