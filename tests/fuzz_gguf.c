/* libFuzzer over the reader of GGUF headers and of a model's metadata. */
#include "config.h"

#include <stdlib.h>

#include "src/model/model_meta.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void look(const struct sl_gguf *g, const uint8_t *data, size_t n)
{
    const struct sl_arch *arch;
    struct sl_layout layout;
    struct sl_error err;
    uint64_t end = sl_gguf_data_off(g);

    for (size_t i = 0; i < sl_gguf_n_tensors(g); i++) {
        const struct sl_gguf_tensor *t = sl_gguf_tensor_at(g, i);

        if (sl_gguf_find(g, t->name) != t || t->off < end ||
            t->off % sl_gguf_alignment(g) != 0)
            abort();
        end = t->off + t->bytes;
    }
    if (end > sl_gguf_end(g))
        abort();
    if (sl_gguf_data_off(g) <= n)
        (void)!sl_model_meta_check_sum(g, data, (size_t)sl_gguf_data_off(g),
                                       &err);
    if (sl_model_meta_check(g, &arch, &err) == 0 &&
        sl_model_meta_read(&layout, g, arch, &err) == 0)
        sl_layout_fini(&layout);
}

static void parse(const uint8_t *data, size_t n, uint64_t file_bytes)
{
    struct sl_gguf *g;
    struct sl_error err;
    size_t need = 0;
    int rc = sl_gguf_parse(&g, data, n, file_bytes, &need, &err);

    if (rc == 1 && (need <= n || need > file_bytes))
        abort();
    if (rc != 0)
        return;
    look(g, data, n);
    sl_gguf_destroy(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    parse(data, n, n);
    parse(data, n, UINT64_C(1) << 40); /* tensors' data is not looked at */
    parse(data, n / 2, n);
    return 0;
}
