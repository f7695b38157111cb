/* libFuzzer over the index of tar archives. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/ckpt/ckpt_tar.h"

#define BLOCK 512

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void read_tar(const uint8_t *data, size_t n)
{
    struct sl_error err;
    struct sl_src *src, *part;
    struct sl_tar tar;

    if (sl_src_open_memory(&src, data, n, "fuzz", &err) != 0)
        return;
    if (sl_tar_open(&tar, src, &err) == 0) {
        for (size_t i = 0; i < tar.n_members; i++) {
            const struct sl_tar_member *m = &tar.members[i];

            if (sl_tar_find(&tar, m->name) == NULL ||
                sl_src_slice(&part, src, m->off, m->bytes, m->name, &err) != 0)
                abort();
            sl_src_close(part);
        }
        sl_tar_close(&tar);
    }
    sl_src_close(src);
}

/* Makes the checksums right wherever a header may be: no chance change gets
 * past them otherwise. */
static void repair(uint8_t *data, size_t n)
{
    for (uint8_t *h = data; n - (size_t)(h - data) >= BLOCK; h += BLOCK) {
        unsigned sum = 0;
        char text[8];

        if (memcmp(h + 257, "ustar", 5) != 0)
            continue;
        memset(h + 148, ' ', 8);
        for (size_t i = 0; i < BLOCK; i++)
            sum += h[i];
        snprintf(text, sizeof text, "%06o", sum);
        memcpy(h + 148, text, sizeof text);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n + 1);

    read_tar(data, n);
    if (copy == NULL)
        return 0;
    if (n > 0)
        memcpy(copy, data, n);
    repair(copy, n);
    read_tar(copy, n);
    free(copy);
    return 0;
}
