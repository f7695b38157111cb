#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/bytes.h"
#include "src/base/newfile.h"
#include "src/cmd/npy.h"

#define HEADER_BYTES 128u
#define HEADER_ROOM  320u /* of eight dimensions of twenty digits */

/* A pipe or a device is written in place: renaming over /dev/stdout would
 * replace it. */
static int name_temp(struct sl_npy *npy)
{
    if (sl_newfile_in_place(npy->path))
        return 0;
    if (asprintf(&npy->temp, "%s.partial", npy->path) >= 0)
        return 0;
    npy->temp = NULL;
    return -1;
}

static const char *written_path(const struct sl_npy *npy)
{
    return npy->temp ? npy->temp : npy->path;
}

static int write_all(struct sl_npy *npy, const void *data, size_t n,
                     struct sl_error *err)
{
    if (fwrite(data, 1, n, npy->file) != n)
        return sl_fail_os(err, errno, "cannot write %s", written_path(npy));
    return 0;
}

/* "(2, 3)", "(2,)", "()" */
static size_t print_shape(char *to, size_t room, const uint64_t *shape,
                          unsigned n_dims)
{
    size_t n = (size_t)snprintf(to, room, "(");

    for (unsigned i = 0; i < n_dims; i++)
        n += (size_t)snprintf(to + n, room - n, "%s%llu", i > 0 ? ", " : "",
                              (unsigned long long)shape[i]);
    return n + (size_t)snprintf(to + n, room - n, n_dims == 1 ? ",)" : ")");
}

/* The header's length is a multiple of 64, so that the values are aligned. */
static int write_header(struct sl_npy *npy, const uint64_t *shape,
                        unsigned n_dims, struct sl_error *err)
{
    char head[HEADER_ROOM];
    size_t n, bytes;

    memset(head, ' ', sizeof head);
    memcpy(head, "\x93NUMPY\x01\x00", 8);
    n = 10 + (size_t)snprintf(head + 10, sizeof head - 10,
                              "{'descr': '<f4', 'fortran_order': False, "
                              "'shape': ");
    n += print_shape(head + n, sizeof head - n, shape, n_dims);
    n += (size_t)snprintf(head + n, sizeof head - n, ", }");
    head[n] = ' ';
    bytes = n + 1 <= HEADER_BYTES ? HEADER_BYTES : HEADER_ROOM;
    head[bytes - 1] = '\n';
    sl_store_u16(head + 8, (uint16_t)(bytes - 10));
    return write_all(npy, head, bytes, err);
}

int sl_npy_open(struct sl_npy *npy, const char *path, const uint64_t *shape,
                unsigned n_dims, struct sl_error *err)
{
    *npy = (struct sl_npy){.total_bytes = sizeof(float)};
    for (unsigned i = 0; i < n_dims; i++)
        npy->total_bytes *= shape[i];
    npy->path = strdup(path);
    if (npy->path == NULL || name_temp(npy) != 0) {
        sl_npy_abort(npy);
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory", path);
    }
    npy->file = fopen(written_path(npy), "wbe");
    if (npy->file == NULL) {
        sl_fail_os(err, errno, "cannot write %s", written_path(npy));
        sl_npy_abort(npy);
        return -1;
    }
    return write_header(npy, shape, n_dims, err);
}

int sl_npy_write(struct sl_npy *npy, const float *values, size_t n,
                 struct sl_error *err)
{
    if (write_all(npy, values, n * sizeof *values, err) != 0)
        return -1;
    npy->written_bytes += n * sizeof *values;
    return 0;
}

int sl_npy_close(struct sl_npy *npy, struct sl_error *err)
{
    FILE *f = npy->file;

    if (fflush(f) != 0 || (npy->temp != NULL && fsync(fileno(f)) != 0)) {
        sl_fail_os(err, errno, "cannot write %s", written_path(npy));
        sl_npy_abort(npy);
        return -1;
    }
    npy->file = NULL;
    fclose(f);
    if (npy->temp != NULL && rename(npy->temp, npy->path) != 0) {
        sl_fail_os(err, errno, "cannot rename %s to %s", npy->temp, npy->path);
        sl_npy_abort(npy);
        return -1;
    }
    free(npy->temp);
    npy->temp = NULL;
    sl_npy_abort(npy);
    return 0;
}

void sl_npy_abort(struct sl_npy *npy)
{
    if (npy->file != NULL)
        fclose(npy->file);
    if (npy->temp != NULL)
        unlink(npy->temp);
    free(npy->temp);
    free(npy->path);
    *npy = (struct sl_npy){0};
}
