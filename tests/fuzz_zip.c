/* libFuzzer over the zip directory, and over torch.save files in a zip. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/ckpt/ckpt.h"
#include "src/ckpt/ckpt_zip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void read_zip(const uint8_t *data, size_t n)
{
    struct sl_error err;
    struct sl_src *src;
    struct sl_zip z;

    if (sl_src_open_memory(&src, data, n, "fuzz", &err) != 0)
        return;
    if (sl_zip_open(&z, src, &err) == 0) {
        for (size_t i = 0; i < z.n_members; i++) {
            const struct sl_zip_member *m = &z.members[i], *found;
            uint64_t off;

            found = sl_zip_find(&z, m->name, m->n_name);
            if (found == NULL || found->n_name != m->n_name ||
                memcmp(found->name, m->name, m->n_name) != 0)
                abort();
            if (sl_zip_data(&z, m, &off, &err) == 0 &&
                (off > n || m->bytes > n - off))
                abort();
        }
        sl_zip_close(&z);
    }
    sl_src_close(src);
}

/* Every tensor's last row, as far as it is small. */
static void read_rows(const struct sl_ckpt_shard *shard, bool damaged)
{
    struct sl_error err;
    uint8_t row[4096];

    for (size_t i = 0; i < shard->n_tensors; i++) {
        const struct sl_ckpt_tensor *t = &shard->tensors[i];
        uint64_t rows = t->n_dims ? t->shape[0] : 1, cols = 1;

        for (uint32_t d = 1; d < t->n_dims; d++)
            cols *= t->shape[d];
        if (rows > 0 && cols <= sizeof row / sl_dtype_bytes(t->dtype) &&
            sl_ckpt_read_rows(t, row, rows - 1, 1, &err) != 0 &&
            err.code != SL_ERR_UNSUPPORTED &&
            !(damaged && err.code == SL_ERR_CORRUPT))
            abort();
    }
}

/* A member whose sum does not fit may be refused; where nobody looks at sums,
 * all that is listed must be there to read. */
static void read_torch(const uint8_t *data, size_t n)
{
    struct sl_ckpt_shard shard;
    struct sl_error err;
    struct sl_src *src;

    if (sl_src_open_memory(&src, data, n, "fuzz", &err) != 0 ||
        sl_torch_open(&shard, src, NULL, &err) != 0)
        return;
    read_rows(&shard, true);
    for (size_t k = 0; k < shard.n_srcs; k++)
        sl_src_set_sums(shard.srcs[k], NULL);
    read_rows(&shard, false);
    sl_ckpt_shard_close(&shard);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    read_zip(data, n);
    read_torch(data, n);
    return 0;
}
