/*
 * make_model FILE FORMAT [header]: writes a small model file of random
 * weights in FORMAT (f32 f16 bf16 int8 int4, int8-gN, int4-gN), or its header
 * alone, without the padding, as a seed for fuzz_gguf.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model_maker.h"

static int choose_format(struct test_model *m, const char *name)
{
    size_t n = strcspn(name, "-");

    for (int f = 0; f < SL_FMT_COUNT; f++) {
        const char *have = sl_fmt_name((enum sl_fmt)f);

        if (strlen(have) != n || memcmp(have, name, n) != 0)
            continue;
        m->fmt = (enum sl_fmt)f;
        if (name[n] == '\0')
            return 0;
        if (!sl_fmt_has_scales(m->fmt) ||
            sscanf(name + n, "-g%u", &m->group_cols) != 1)
            return -1;
        m->head_fmt = SL_FMT_INT8;
        m->head_group = 64;
        return 0;
    }
    return -1;
}

int main(int argc, char **argv)
{
    struct sl_layout layout;
    struct test_model m;
    uint8_t *image;
    size_t bytes;

    test_model_init(&m);
    if (argc < 3 || choose_format(&m, argv[2]) != 0) {
        fputs("usage: make_model FILE FORMAT [header]\n", stderr);
        return 2;
    }
    m.tokenizer = "no tokenizer";
    m.tokenizer_bytes = strlen(m.tokenizer);
    if (argc > 3)
        m.hp.n_layers = 1;
    image = test_model_image(&m, &bytes);
    if (argc > 3) {
        test_model_layout(&layout, &m);
        bytes = layout.header_bytes;
        while (image[bytes - 1] == 0)
            bytes--;
        sl_layout_fini(&layout);
    }
    test_write_file(argv[1], image, bytes);
    free(image);
    return 0;
}
