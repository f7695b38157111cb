/* libFuzzer over safetensors files. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/ckpt/ckpt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* All of a tensor's elements must lie in the file, and the tensors' bytes
 * must be all that is behind the header. */
static void read_all(const struct sl_ckpt_shard *shard, size_t n)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < shard->n_tensors; i++) {
        const struct sl_ckpt_tensor *t = &shard->tensors[i];
        uint64_t rows = t->n_dims > 0 ? t->shape[0] : 1, cols = 1;
        struct sl_error err;
        uint8_t element[8];

        for (uint32_t d = 1; d < t->n_dims; d++)
            cols *= t->shape[d];
        sum += rows * cols * sl_dtype_bytes(t->dtype);
        if (i > 0 && strcmp(t[-1].name, t->name) >= 0)
            abort();
        if (rows > 0 && cols > 0 &&
            sl_ckpt_read_block(t, element, rows - 1, 1, cols - 1, 1, &err) != 0)
            abort();
    }
    if (sum > n - 8)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct sl_ckpt_shard shard;
    struct sl_error err;
    struct sl_src *src;

    if (sl_src_open_memory(&src, data, n, "fuzz", &err) != 0 ||
        sl_safetensors_open(&shard, src, &err) != 0)
        return 0;
    read_all(&shard, n);
    sl_ckpt_shard_close(&shard);
    return 0;
}
