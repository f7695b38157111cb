#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/cmd/npy.h"

#define HEADER_BYTES 128u
#define HEADER_ROOM  320u /* of eight dimensions of twenty digits */

static int write_all(struct sl_npy *npy, const void *data, size_t n,
                     struct sl_error *err)
{
    if (fwrite(data, 1, n, npy->to.file) != n)
        return sl_fail_os(err, errno, "%s: cannot write", npy->to.path);
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
    if (sl_newfile_open(&npy->to, path, err) != 0)
        return sl_fail_os(err, err->os_errno, "cannot write %s", path);
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
    return sl_newfile_close(&npy->to, err);
}

void sl_npy_abort(struct sl_npy *npy)
{
    sl_newfile_drop(&npy->to);
    *npy = (struct sl_npy){0};
}
