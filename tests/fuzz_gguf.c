/* libFuzzer over the reader of GGUF headers, of a model's metadata, and of
 * published files: what convert does before it reads a weight. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/ckpt/ckpt.h"
#include "src/convert/convert.h"
#include "src/convert/fit.h"
#include "src/model/model_meta.h"
#include "src/text/vocab_gguf.h"

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

/* Tensors, sizes and vocabulary of a published file. */
static void describe(const struct sl_ckpt *c, const char *path)
{
    struct sl_vocab_made made;
    struct sl_convert_options o;
    const struct sl_arch *arch;
    struct sl_hparams hp;
    struct sl_error err;
    struct sl_fit fit;

    if (sl_vocab_compile_gguf(&made, sl_ckpt_gguf(c), 0, &err) == 0)
        sl_vocab_made_fini(&made);
    sl_convert_options_init(&o);
    o.source = path;
    if (sl_convert_describe(&arch, &hp, c, &o, &err) != 0 || hp.n_layers > 64 ||
        sl_fit_check(&fit, c, arch, &hp, &err) != 0)
        return;
    sl_fit_fini(&fit);
}

static void open_published(const uint8_t *data, size_t n)
{
    int fd = memfd_create("x.gguf", MFD_CLOEXEC);
    struct sl_error err;
    struct sl_ckpt c;
    char path[64];

    if (fd < 0)
        return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (write(fd, data, n) == (ssize_t)n && n >= 4 &&
        sl_ckpt_open(&c, path, NULL, &err) == 0) {
        if (sl_ckpt_gguf(&c) != NULL)
            describe(&c, path);
        sl_ckpt_close(&c);
    }
    close(fd);
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
    open_published(data, n);
    return 0;
}
