#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "tests/tokens.h"

struct sl_tokenizer *test_demo_tokenizer(struct sl_hparams *hp)
{
    struct sl_tokenizer *t = NULL;
    struct sl_error err;
    char path[1024];
    uint8_t *model;
    size_t n;

    *hp = (struct sl_hparams){
        .vocab = 8192,
        .max_positions = 512,
        .text.whitespace = SL_WHITESPACE_TOKENS,
        .text.n_image_tokens = 64,
        .text.max_blank = 80,
        .text.byte_fallback = true,
    };
    assert_non_null(test_source(path, "demo/ice_text.model"));
    model = test_read_file(path, &n);
    assert_ok(sl_tokenizer_describe(&hp->text, model, n, &err), &err);
    assert_ok(sl_tokenizer_create(&t, model, n, &hp->text, hp->vocab, &err),
              &err);
    free(model);
    return t;
}

static bool whole_utf8(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint8_t c = (uint8_t)s[i];
        size_t size = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;

        if (c >= 0x80 && c < 0xc0)
            return false;
        for (size_t k = 1; k < size; k++) {
            if (i + k >= n || ((uint8_t)s[i + k] & 0xc0) != 0x80)
                return false;
        }
        i += size;
    }
    return true;
}

void test_stream_equals(struct sl_tokenizer *t, const int32_t *ids, size_t n,
                        const char *want, size_t n_want)
{
    struct sl_detok *d;
    struct sl_error err;
    const char *part;
    size_t size;

    assert_ok(sl_detok_create(&d, t, &err), &err);
    for (size_t step = 1; step <= 5; step++) {
        size_t done = 0;

        for (size_t i = 0; i <= n; i += step) {
            size_t some = n - i < step ? n - i : step;

            assert_ok(sl_detok_push(d, n > 0 ? ids + i : NULL, some, &part,
                                    &size, &err),
                      &err);
            assert_true(whole_utf8(part, size));
            assert_in_range(done + size, 0, n_want);
            assert_memory_equal(part, want + done, size);
            done += size;
        }
        assert_ok(sl_detok_end(d, &part, &size, &err), &err);
        assert_true(whole_utf8(part, size));
        assert_int_equal(done + size, n_want);
        assert_memory_equal(part, want + done, size);
    }
    sl_detok_destroy(d);
}

void test_json_ids(struct sl_ids *ids, json_t *array)
{
    struct sl_error err;
    json_t *id;
    size_t i;

    json_array_foreach(array, i, id)
        assert_ok(sl_ids_add(ids, (int32_t)json_integer_value(id), &err), &err);
}
