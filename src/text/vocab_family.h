/*
 * vocab_family.h - special tokens that no file of a folder names
 *
 * They stand in the Python code that publishers ship beside the vocabulary:
 * THUDM/GLM data_utils/tokenization.py, ChatGLM2's and 3's
 * tokenization_chatglm.py, GLM-4-9B's.
 */
#ifndef SL_VOCAB_FAMILY_H
#define SL_VOCAB_FAMILY_H

#include "src/text/vocab_build.h"
#include "src/text/vocab_compile.h"

/* THUDM/GLM's command tokens behind the pieces, [CLS] as prefix, eos as
 * suffix, eop and eos as stops. */
int sl_family_add_glm(struct sl_vocab_builder *b,
                      const struct sl_vocab_options *o, struct sl_error *err);
/* [MASK] [gMASK] [sMASK] sop eop and ChatGLM3's roles; [gMASK] sop. */
int sl_family_add_chatglm2(struct sl_vocab_builder *b, struct sl_error *err);
/* <|endoftext|> .. <|end_of_video|>, unless they are there; [gMASK] <sop>. */
int sl_family_add_glm4(struct sl_vocab_builder *b, struct sl_error *err);
/* Controls that are not set are looked for by the names they have in the
 * family. */
void sl_family_find_controls(struct sl_vocab_builder *b);

#endif
