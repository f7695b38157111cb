/*
 * vocab_compile.h - from a publisher's folder to the blob of a model file
 *
 * Looks which files are there, takes the first of
 *
 *     tokenizer.json, vocab.json + merges.txt, tokenizer.model (sentencepiece
 *     or tiktoken's base64 ranks), ice_text.model, cog-pretrain.model,
 *     vocab.txt
 *
 * and what tokenizer_config.json, special_tokens_map.json, added_tokens.json,
 * generation_config.json and config.json say beside it: special tokens, where
 * an answer ends, what stands before a text.
 */
#ifndef SL_VOCAB_COMPILE_H
#define SL_VOCAB_COMPILE_H

#include "src/arch/text_params.h"
#include "src/base/error.h"

/* How a file of the folder is read: 0 and its bytes (free), 1 where there is
 * none, -1. */
struct sl_vocab_source {
    int (*read)(void *opaque, const char *name, uint8_t **data, size_t *n,
                struct sl_error *err);
    void *opaque;
};

/* A folder on disk; opaque is its path. Files above 1 GiB are refused. */
int sl_vocab_read_dir(void *dir, const char *name, uint8_t **data, size_t *n,
                      struct sl_error *err);

/* Whose rules hold where the files do not say. */
enum sl_vocab_family {
    SL_FAMILY_AUTO,     /* as tokenizer_config.json and config.json have it */
    SL_FAMILY_PLAIN,    /* nobody's: Llama, Qwen, GLM-4-0414, ... */
    SL_FAMILY_GLM,      /* THUDM/GLM: command tokens behind the vocabulary */
    SL_FAMILY_GLM_130B, /* icetk by the options' numbers */
    SL_FAMILY_CHATGLM,  /* ChatGLM-6B: icetk, 80 blanks, bytes */
    SL_FAMILY_CHATGLM2, /* ChatGLM2 and 3 */
    SL_FAMILY_GLM4,     /* GLM-4-9B's tokenizer.model of ranks */
};

struct sl_vocab_options { /* zeroed: all by itself */
    enum sl_vocab_family family;
    const char *file; /* take this one, whatever it holds; NULL: look */
    uint32_t rows;    /* of the embedding: more ids are refused; 0: unknown */
    /* icetk's numbers for SL_FAMILY_GLM_130B (special and n_tokens are not
     * looked at). */
    struct sl_text_params icetk;
    /* GLM: [gMASK] and [sMASK] in a BERT or RoBERTa vocabulary too, and
     * GLM-10B-Chinese's numbering, where [gMASK] is <|endofpiece|>. */
    bool glm_task_mask, glm_gmask_is_eop;
};

struct sl_vocab_made {
    uint8_t *blob; /* owned: sl_vocab_made_fini */
    size_t n;
    struct sl_text_params text; /* as sl_tokenizer_describe says */
    enum sl_vocab_family family;
    char took[200]; /* "tokenizer.json: byte-bpe, 151343 tokens; ..." */
};

/* 0; 1 when there is no vocabulary in the folder; -1. Errors: SL_ERR_CORRUPT
 * naming the file, SL_ERR_UNSUPPORTED naming what is not supported. */
int sl_vocab_compile(struct sl_vocab_made *made,
                     const struct sl_vocab_source *source,
                     const struct sl_vocab_options *options,
                     struct sl_error *err);
/* What was compiled must open, and fit an embedding of so many rows (0: they
 * are not known); fills text and ends took. stops_from: a file, or NULL. */
int sl_vocab_made_check(struct sl_vocab_made *made, uint32_t rows,
                        const char *stops_from, struct sl_error *err);
void sl_vocab_made_fini(struct sl_vocab_made *made);

#endif
