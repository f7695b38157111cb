#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "src/base/mem.h"

#define HUGE_BYTES     (2u << 20)
#define HUGE_MIN_BYTES (4u << 20)

void *sl_alloc_array(size_t n, size_t size)
{
    size_t bytes;

    if (!sl_mul_size(&bytes, n, size))
        return NULL;
    return malloc(bytes ? bytes : 1);
}

void *sl_zalloc_array(size_t n, size_t size)
{
    return calloc(n ? n : 1, size ? size : 1);
}

bool sl_grow(void **v, size_t *room, size_t n, size_t size)
{
    size_t more, bytes;
    void *grown;

    if (n < *room)
        return true;
    if (!sl_mul_size(&more, *room > 0 ? *room : 8, 2) ||
        !sl_mul_size(&bytes, more, size))
        return false;
    grown = realloc(*v, bytes);
    if (grown == NULL)
        return false;
    *v = grown;
    *room = more;
    return true;
}

int sl_region_init(struct sl_region *r, size_t bytes, const char *what,
                   struct sl_error *err)
{
    size_t extra = bytes >= HUGE_MIN_BYTES ? HUGE_BYTES : 0;
    size_t map_bytes;
    uintptr_t base;
    void *map;

    if (!sl_add_size(&map_bytes, bytes ? bytes : 1, extra))
        return sl_fail(err, SL_ERR_NOMEM, "%s: size overflows", what);
    map = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return sl_fail_os(err, errno, "%s: no room for %zu bytes", what, bytes);
    base = (uintptr_t)map;
    if (extra) {
        base = sl_round_up(base, HUGE_BYTES);
        /* Only whole huge pages inside the region: the tail stays on small
           pages, so that the resident size never exceeds what was planned. */
        madvise((void *)base, sl_round_down(bytes, HUGE_BYTES), MADV_HUGEPAGE);
        madvise((void *)(base + sl_round_down(bytes, HUGE_BYTES)),
                sl_round_up(bytes % HUGE_BYTES, SL_PAGE_BYTES),
                MADV_NOHUGEPAGE);
    } else {
        madvise(map, map_bytes, MADV_NOHUGEPAGE);
    }
    *r = (struct sl_region){
        .base = (uint8_t *)base,
        .bytes = bytes,
        .map = map,
        .map_bytes = map_bytes,
    };
    return 0;
}

void sl_region_fini(struct sl_region *r)
{
    if (r->map != NULL)
        munmap(r->map, r->map_bytes);
    memset(r, 0, sizeof *r);
}
