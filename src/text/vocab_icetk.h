/*
 * vocab_icetk.h - the pieces that icetk appends to a sentencepiece model
 *
 * Behind the n pieces of ice_text.model, in this order (icetk;
 * SwissArmyTransformer tokenization/icetk_glm_130B; ChatGLM-6B
 * tokenization_chatglm.py):
 *
 *     +0 .. +7    [MASK] [gMASK] [sMASK] <eod> <sop> <eop> <ENC> <dBLOCK>
 *     +8          <|tab|>                      if there are whitespace tokens
 *     +9 ..       <|blank_2|> .. <|blank_N|>
 *     then        <0x00> .. <0xFF>             if there is a byte fallback
 *
 * Ids: all of this moved up by n_image_tokens, 20000 in GLM-130B and in
 * ChatGLM-6B's first release (150528 rows), 0 in its later ones (130528).
 */
#ifndef SL_VOCAB_ICETK_H
#define SL_VOCAB_ICETK_H

#include "src/arch/text_params.h"
#include "src/text/vocab.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { SL_ICETK_NAME = 24, SL_ICETK_MAX_BLANK = 4096, SL_ICETK_SPECIALS = 8 };

struct sl_icetk_piece {
    char name[SL_ICETK_NAME];
    int type; /* enum sl_piece_type */
};

uint32_t sl_icetk_n_extra(uint32_t max_blank, bool byte_fallback);
void sl_icetk_extra(struct sl_icetk_piece *piece, uint32_t i,
                    uint32_t max_blank);
/* What SAT's detokenize calls it, in buf or a constant; NULL: it is text. */
const char *sl_icetk_label(char buf[SL_ICETK_NAME], uint32_t i,
                           uint32_t max_blank);

/* Compiles ice_text.model by the numbers of tp (whitespace, n_image_tokens,
 * max_blank, byte_fallback). chatglm: as ChatGLM-6B has it. *blob is moved to
 * the caller. Errors: SL_ERR_CORRUPT when it is no sentencepiece model. */
int sl_icetk_compile(uint8_t **blob, size_t *n_blob, const void *model,
                     size_t n, const struct sl_text_params *tp, bool chatglm,
                     struct sl_error *err);

#ifdef __cplusplus
}
#endif

#endif
