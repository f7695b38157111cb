#include "config.h"

#include "src/text/sp_proto.h"
#include "src/text/vocab_build_impl.h"

/* A GGUF keeps a sentencepiece model as pieces, scores and types; the library
 * wants it whole again. Holes keep their ids as pieces that nothing matches. */
int sl_vocab_make_model(struct sl_vocab_builder *b, struct sl_error *err)
{
    struct sl_str model = {0};
    bool bytes = false;
    uint32_t n = 0;
    int rc = 0;

    while (n < b->n_tokens &&
           (b->pieces[n].type == 0 || b->pieces[n].type & SL_PIECE_MODEL))
        n++;
    for (uint32_t id = 0; rc == 0 && id < n; id++) {
        const struct sl_built_piece *p = &b->pieces[id];
        int type = p->type & SL_PIECE_TYPE;

        if (p->type == 0)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "the vocabulary has no token %u", id);
        bytes = bytes || type == SL_PIECE_BYTE;
        rc = sl_sp_add_piece(&model, b->text.s + p->off, p->n, p->score, type,
                             err);
    }
    if (rc == 0)
        rc = sl_sp_add_specs(&model, bytes,
                             b->numbers[SL_VOCAB_STRIP_BLANK] != 0, err);
    if (rc == 0)
        rc = sl_vocab_set_model(b, model.s, model.n, err);
    b->numbers[SL_VOCAB_N_MODEL] = n;
    sl_str_fini(&model);
    return rc;
}
