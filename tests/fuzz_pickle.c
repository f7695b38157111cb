/* libFuzzer over the pickle machine, and over legacy torch.save files, which
 * are pickles one after another. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/ckpt/ckpt_torch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Every node must be safe to look at. */
static void look(const struct sl_pickle *p)
{
    struct sl_torch_storage s;
    char label[SL_PK_LABEL];
    struct sl_error err;
    uint32_t at = 0, items[4];

    for (uint32_t i = 0; i < p->nodes.n; i++) {
        const struct sl_pk_node *v = sl_pk_at(p, i);

        if (strlen(sl_pk_label(label, p, i)) >= SL_PK_LABEL)
            abort();
        if (v->kind == SL_PK_TUPLE || v->kind == SL_PK_LIST ||
            v->kind == SL_PK_SET || v->kind == SL_PK_DICT)
            (void)sl_pk_items(p, v, items, 4);
        if (v->kind == SL_PK_STORAGE)
            (void)!sl_torch_storage_parse(&s, p, i, &err);
    }
    if (sl_pk_at(p, p->root)->kind == SL_PK_DICT)
        (void)sl_pk_get(p, sl_pk_at(p, p->root), "module");
    while (sl_pk_next_suspect(p, &at))
        at++;
}

static void read_pickle(const uint8_t *data, size_t n)
{
    struct sl_pickle p;
    struct sl_error err;
    struct sl_src *src;

    if (sl_src_open_memory(&src, data, n, "fuzz", &err) != 0)
        return;
    if (sl_pickle_read(&p, src, 0, &err) == 0) {
        if (p.end > n)
            abort();
        look(&p);
        sl_pickle_fini(&p);
    }
    sl_src_close(src);
}

/* The last element of each tensor must lie in the file. */
static void read_torch(const uint8_t *data, size_t n)
{
    struct sl_ckpt_shard shard;
    struct sl_error err;
    struct sl_src *src;

    if (sl_src_open_memory(&src, data, n, "fuzz", &err) != 0 ||
        sl_torch_open(&shard, src, NULL, &err) != 0)
        return;
    for (size_t i = 0; i < shard.n_tensors; i++) {
        const struct sl_ckpt_tensor *t = &shard.tensors[i];
        uint64_t rows = t->n_dims ? t->shape[0] : 1, cols = 1;
        uint8_t element[8];

        for (uint32_t d = 1; d < t->n_dims; d++)
            cols *= t->shape[d];
        if (rows > 0 && cols > 0 &&
            sl_ckpt_read_block(t, element, rows - 1, 1, cols - 1, 1, &err) !=
                0 &&
            err.code != SL_ERR_UNSUPPORTED)
            abort();
    }
    sl_ckpt_shard_close(&shard);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    read_pickle(data, n);
    read_torch(data, n);
    return 0;
}
