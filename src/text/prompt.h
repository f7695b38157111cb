/*
 * prompt.h - from a query to the ids a model fills blanks in
 *
 * THUDM/GLM-130B generate.py: mask marks split the text, every piece between
 * them is tokenised on its own; a text without a mark gets [gMASK] at its end,
 * and
 * </s> where it does not end with a mark.
 */
#ifndef SL_PROMPT_H
#define SL_PROMPT_H

#include <stdbool.h>

#include "src/arch/text_params.h"
#include "src/base/ids.h"
#include "src/text/tokenizer.h"

/* The mark of a text that goes on: its end, and no token. */
#define SL_PROMPT_END INT32_MIN

struct sl_prompt {
    char *text; /* as shown: with the mark that was appended; owned */
    size_t n_text;
    struct sl_ids ids; /* without [sop] */
    int32_t mask; /* the kind of mark that is filled, or the first of them */
    int32_t masks[3]; /* (n_masks) all kinds that are filled */
    uint32_t n_masks;
    bool gmask;       /* positions run on behind the text */
    bool english;     /* text is ASCII */
    uint32_t max_new; /* most ids of a blank; 0: what settings leave */
};

/* Errors: SL_ERR_NOMEM; those of sl_tokenizer_encode. */
int sl_prompt_make(struct sl_prompt *p, struct sl_tokenizer *t,
                   const struct sl_text_params *tp, const char *text, size_t n,
                   struct sl_error *err);
/* For the original GLM (110M to 10B): command tokens count wherever they are
 * written, blanks before a mark go where its vocabulary says so, [CLS] comes
 * first, and marks of every kind are filled from left to right. A text without
 * a mark gets [gMASK], or [MASK] where the model knows no other. Which texts
 * have <|endoftext|> behind them is the style's: THUDM/GLM's
 * generate_samples.py leaves it out behind [gMASK] alone, GLM-130B's manner
 * (SAT's inference_glm.py) behind every mark. Errors as above. */
enum sl_prompt_style { SL_STYLE_GLM, SL_STYLE_GLM_130B };
int sl_prompt_make_glm(struct sl_prompt *p, struct sl_tokenizer *t,
                       const struct sl_text_params *tp,
                       enum sl_prompt_style style, const char *text, size_t n,
                       struct sl_error *err);
/* For ChatGLM-6B, as its tokenizer has it since April 2023
 * (tokenization_chatglm.py, build_inputs_with_special_tokens): [gMASK] behind
 * the text, whether it has a [MASK] or not, and no end token. Special tokens
 * count where they are written; a [gMASK] of the text's own is the one that is
 * filled. Errors as above. */
int sl_prompt_make_chatglm(struct sl_prompt *p, struct sl_tokenizer *t,
                           const struct sl_text_params *tp, const char *text,
                           size_t n, struct sl_error *err);
/* For a causal model: the text goes on behind its last token. prefix: what
 * stands before every text, or NULL. */
int sl_prompt_open(struct sl_prompt *p, struct sl_tokenizer *t,
                   const struct sl_ids *prefix, const char *text, size_t n,
                   struct sl_error *err);
void sl_prompt_fini(struct sl_prompt *p); /* a zeroed one is fine */

/* Is it one of the marks that are filled? */
bool sl_prompt_fills(const struct sl_prompt *p, int32_t id);
/* Does any mark remain to be filled? */
bool sl_prompt_has_blank(const struct sl_prompt *p);

#endif
