/*
 * bytes.h - little-endian loads and stores, sizes as people write them
 */
#ifndef SL_BASE_BYTES_H
#define SL_BASE_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "src/base/error.h"

static inline uint16_t sl_load_u16(const void *p)
{
    const uint8_t *b = p;

    return (uint16_t)(b[0] | b[1] << 8);
}

static inline uint32_t sl_load_u32(const void *p)
{
    const uint8_t *b = p;

    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 |
           (uint32_t)b[3] << 24;
}

static inline uint64_t sl_load_u64(const void *p)
{
    const uint8_t *b = p;

    return sl_load_u32(b) | (uint64_t)sl_load_u32(b + 4) << 32;
}

static inline void sl_store_u16(void *p, uint16_t v)
{
    uint8_t *b = p;

    b[0] = (uint8_t)v;
    b[1] = (uint8_t)(v >> 8);
}

static inline void sl_store_u32(void *p, uint32_t v)
{
    sl_store_u16(p, (uint16_t)v);
    sl_store_u16((uint8_t *)p + 2, (uint16_t)(v >> 16));
}

static inline void sl_store_u64(void *p, uint64_t v)
{
    sl_store_u32(p, (uint32_t)v);
    sl_store_u32((uint8_t *)p + 4, (uint32_t)(v >> 32));
}

/* Reads "16GiB", "16G", "512M", "1.5g", "8GB", "4096": K/M/G/T and KiB... are
 * powers of 1024, KB/MB/GB/TB powers of 1000, case ignored, an optional space
 * before the unit. Errors: SL_ERR_USAGE naming text and the accepted forms. */
int sl_size_parse(uint64_t *bytes, const char *text, struct sl_error *err);

/* Prints bytes as people read them, in powers of 1024: "512 B", "17.1 MiB",
 * "62.4 GiB". Returns buf. A buffer of SL_SIZE_TEXT is always enough. */
#define SL_SIZE_TEXT 24
char *sl_size_format(char buf[SL_SIZE_TEXT], uint64_t bytes);

#endif
