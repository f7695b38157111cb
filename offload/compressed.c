#include "config.h"

#include <string.h>

#include "offload/compressed.h"
#include "src/base/lz.h"

/* A whole chunk. */
static bool decode(const struct sl_compressed *p, size_t i, uint8_t *to,
                   const uint8_t *kept, uint8_t *scratch)
{
    size_t bytes = sl_compressed_chunk_bytes(p, i);
    size_t kept_bytes = (size_t)(p->at[i + 1] - p->at[i]);

    if (kept_bytes < bytes)
        return sl_lz_decode(to, bytes, kept, kept_bytes, p->planes, scratch);
    memcpy(to, kept, bytes);
    return true;
}

bool sl_compressed_decode(const struct sl_compressed *p, size_t i,
                          uint64_t begin, uint64_t end, uint8_t *to,
                          const uint8_t *kept, uint8_t *scratch)
{
    uint64_t first = p->off + (uint64_t)i * p->chunk_bytes;
    uint64_t last = first + sl_compressed_chunk_bytes(p, i);
    uint8_t *whole = scratch + p->chunk_bytes;

    if (first >= begin && last <= end)
        return decode(p, i, to + (first - begin), kept, scratch);
    if (!decode(p, i, whole, kept, scratch))
        return false;
    if (end > last)
        end = last;
    if (begin > first)
        memcpy(to, whole + (begin - first), (size_t)(end - begin));
    else
        memcpy(to + (first - begin), whole, (size_t)(end - first));
    return true;
}
