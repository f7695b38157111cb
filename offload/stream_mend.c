/* A compressed slab that came damaged, of a file that has a copy: what one of
   them has whole is what both are meant to have. */
#include "config.h"

#include <unistd.h>

#include "offload/mirror.h"
#include "offload/stream_impl.h"

/* The whole slab into its place, from one of the files. */
static int read_slab(const struct sl_stream *st, const struct sl_slab *s,
                     uint8_t *to, const char *path, struct sl_error *err)
{
    bool direct;
    int fd, rc = 0;

    if (sl_io_open_file(&fd, &direct, path, st->config.direct, err) != 0)
        return -1;
    for (uint32_t i = 0; i < s->n_extents && rc == 0; i++) {
        struct sl_extent e = sl_slab_read_extent(s, i);

        rc = sl_io_read_full(fd, path, to, e.off, (size_t)e.bytes, err);
        to += e.bytes;
    }
    close(fd);
    return rc;
}

/* Whether a file has the slab whole, which is decompressed to *to then. */
static bool comes_from(struct sl_stream *st, struct sl_place *p, unsigned file,
                       uint8_t **to, struct sl_error *why)
{
    const struct sl_slab *s = &st->config.slabs[p->slab];
    const char *path = sl_mirror_path(st->config.mirror, file);

    if (read_slab(st, s, p->base, path, why) != 0)
        return false;
    if (sl_decompress_run(st->decompress, s, p->base, to, why) == 0)
        return true;
    sl_error_prefix(why, "%s: slab %zu: ", path, p->slab);
    return false;
}

bool sl_stream_mend(struct sl_stream *st, struct sl_place *p, uint8_t **to)
{
    struct sl_mirror *m = st->config.mirror;
    struct sl_error why[SL_IO_FILES];
    bool whole[SL_IO_FILES] = {false};

    if (m == NULL)
        return false;
    for (unsigned i = 0; i < SL_IO_FILES; i++)
        whole[i] = !sl_mirror_is_out(m, i) && comes_from(st, p, i, to, &why[i]);
    if (!whole[0] && !whole[1])
        return false;
    for (unsigned i = 0; i < SL_IO_FILES; i++)
        if (!whole[i] && !sl_mirror_is_out(m, i))
            sl_mirror_leave_out(m, i, why[i].msg);
    return whole[1] || comes_from(st, p, 0, to, &why[0]);
}
