/* libFuzzer over vocabularies: what begins with SLVOCAB1 is a compiled one,
 * what begins with { a tokenizer.json, anything else base64 ranks or BERT's
 * vocab.txt. What opens must encode and decode.
 *
 * Sentencepiece models go to the library as they are and are not tried here:
 * of blobs that hold one the parts alone are looked at. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/text/sp_proto.h"
#include "src/text/tokenizer.h"
#include "src/text/vocab.h"
#include "src/text/vocab_compile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct input {
    const uint8_t *data;
    size_t n;
    const char *name;
};

static int read_input(void *opaque, const char *name, uint8_t **data, size_t *n,
                      struct sl_error *err)
{
    const struct input *in = opaque;

    if (strcmp(name, in->name) != 0)
        return 1;
    *data = malloc(in->n > 0 ? in->n : 1);
    if (*data == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory");
    if (in->n > 0)
        memcpy(*data, in->data, in->n);
    *n = in->n;
    return 0;
}

/* Text goes in and comes out; all at once is what comes bit by bit. */
static void use(struct sl_tokenizer *t)
{
    static const char text[] =
        "The 12 'll e\u0301 \xff<s>\n\n 你好 [MASK]  <|user|> \u1680x";
    struct sl_ids ids = {0};
    struct sl_detok *d;
    struct sl_error err;
    const char *part;
    size_t n, done = 0, size;
    char *whole;

    if (sl_tokenizer_encode_special(t, &ids, text, sizeof text - 1, &err) !=
        0) {
        sl_ids_fini(&ids);
        return;
    }
    for (size_t i = 0; i < ids.n; i++) {
        if (ids.v[i] < 0 || (uint32_t)ids.v[i] >= sl_tokenizer_n_tokens(t))
            abort();
    }
    if (sl_tokenizer_decode_as(t, SL_SPECIALS_SHOWN, ids.v, ids.n, &whole, &n,
                               &err) != 0 ||
        sl_detok_create(&d, t, &err) != 0)
        abort();
    for (size_t i = 0; i <= ids.n; i++) {
        if ((i < ids.n ? sl_detok_push(d, &ids.v[i], 1, &part, &size, &err)
                       : sl_detok_end(d, &part, &size, &err)) != 0 ||
            size > n - done || memcmp(whole + done, part, size) != 0)
            abort();
        done += size;
    }
    if (done != n)
        abort();
    sl_detok_destroy(d);
    free(whole);
    sl_ids_fini(&ids);
}

static void try_blob(const uint8_t *data, size_t n)
{
    struct sl_text_params tp = {0};
    struct sl_tokenizer *t;
    struct sl_error err;
    struct sl_vocab v;

    if (sl_vocab_parse(&v, data, n, &err) != 0 ||
        v.part[SL_VOCAB_MODEL].bytes > 0 ||
        sl_tokenizer_describe(&tp, data, n, &err) != 0)
        return;
    if (sl_tokenizer_create(&t, data, n, &tp, tp.n_tokens, &err) != 0)
        abort();
    use(t);
    sl_tokenizer_destroy(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer.model",
                                        "vocab.txt"};

    if (sl_vocab_is_blob(data, n)) {
        try_blob(data, n);
        return 0;
    }
    for (size_t i = 0; i < 3; i++) {
        struct input in = {data, n, names[i]};
        struct sl_vocab_source source = {read_input, &in};
        struct sl_vocab_options o = {.family = SL_FAMILY_AUTO};
        struct sl_vocab_made made;
        struct sl_error err;

        if (i == 1 && sl_sp_is_model(data, n))
            continue;
        if (sl_vocab_compile(&made, &source, &o, &err) != 0)
            continue;
        try_blob(made.blob, made.n);
        sl_vocab_made_fini(&made);
    }
    return 0;
}
