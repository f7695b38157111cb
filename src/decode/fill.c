#include "config.h"

#include "src/decode/batch.h"

/* opaque is a const struct sl_fill_batch; nothing writes to it. */
static int text_ended(void *opaque, struct sl_fill_text *text,
                      struct sl_error *err)
{
    const struct sl_fill_batch *b = opaque;

    return b->ended != NULL
               ? b->ended(b->opaque, (size_t)(text - b->texts), err)
               : 0;
}

int sl_fill_all(const struct sl_fill_batch *batch, struct sl_error *err)
{
    bool rules = batch->n_texts > 0 && batch->texts[0].rules != NULL;
    struct sl_batch_config config = {
        .lm = batch->lm,
        .hp = batch->hp,
        .config = batch->config,
        .stops = batch->stops,
        .most = batch->n_texts,
        .rules = rules,
        .ended = text_ended,
        .opaque = (void *)batch,
    };
    struct sl_batch *b = NULL;
    bool more = true;
    int rc;

    for (size_t i = 0; i < batch->n_texts; i++)
        batch->texts[i].ended = batch->texts[i].failed = false;
    rc = sl_batch_create(&b, &config, err);
    for (size_t i = 0; i < batch->n_texts && rc == 0; i++)
        rc = sl_batch_admit(b, &batch->texts[i], err);
    while (rc == 0 && more)
        rc = sl_batch_step(b, &more, err);
    sl_batch_close(b);
    return rc;
}

int sl_fill(struct sl_fill_result *result, struct sl_lm *lm,
            const struct sl_prompt *prompt, const struct sl_hparams *hp,
            const struct sl_fill_config *config, struct sl_rng *rng,
            const struct sl_fill_sink *sink, struct sl_error *err)
{
    struct sl_fill_text text = {.prompt = prompt, .rng = rng, .sink = sink};
    struct sl_fill_batch batch = {
        .lm = lm,
        .hp = hp,
        .config = config,
        .texts = &text,
        .n_texts = 1,
    };

    if (sl_fill_all(&batch, err) != 0)
        return -1;
    if (text.failed) {
        *err = text.err;
        return -1;
    }
    *result = text.result;
    return 0;
}
