/*
 * prompt_file.h - the file of a prompt cache: one context's keys and values
 *
 *   key     what the values depend on: program, model, kernels, the kind of
 *           cache, ids, positions; XXH3-64 of it
 *   blocks  the logits of the context's last id, then for each page (but those
 *           that all sequences share) and layer its keys, then its values: each
 * block with its lengths and the XXH3-64 of its bytes, LZ4 where that makes it
 * smaller
 *
 * A reader makes the key it would write and compares: nothing that a file says
 * is believed but the length of a block, which has a limit. The file appears
 * whole under its name or not at all.
 */
#ifndef SL_PROMPT_FILE_H
#define SL_PROMPT_FILE_H

#include "src/exec/kvcache.h"
#include "src/exec/lm.h"

struct sl_prompt_file_config { /* all borrowed */
    const char *path;
    struct sl_kv *kv;
    const struct sl_kv_config *kv_config;
    uint64_t model_sum;   /* of the model file's header, which has all others */
    uint64_t model_bytes; /* its length */
    const char *isa;      /* of the kernels */
    uint32_t vocab;
    enum sl_act act;
    /* Differs where engines compute other stages; 0: the CPU does all. */
    uint64_t engines;
    /* Of what is added to the model: what all sequences begin with (prefix.h),
     * adapters; 0: nothing. */
    uint64_t more_sum;
};

struct sl_prompt_file;

/* Bytes that one takes. */
uint64_t sl_prompt_file_bytes(const struct sl_kv_config *kv);
/* Errors: SL_ERR_NOMEM. */
int sl_prompt_file_create(struct sl_prompt_file **f,
                          const struct sl_prompt_file_config *config,
                          struct sl_error *err);
void sl_prompt_file_destroy(struct sl_prompt_file *f); /* NULL is fine */

/* The items to come do not begin their sequences: n ids, of that checksum, are
 * before them, which fill pages with what all sequences begin with. */
void sl_prompt_file_after(struct sl_prompt_file *f, uint32_t n, uint64_t sum);
/* A checksum of all that the values of an item depend on: what its file can be
 * called. */
uint64_t sl_prompt_file_sum(struct sl_prompt_file *f,
                            const struct sl_lm_item *item);

enum sl_prompt_found {
    SL_PROMPT_NONE,    /* there is no file */
    SL_PROMPT_SAME,    /* it holds this item's context */
    SL_PROMPT_OTHER,   /* another one's, or another model's */
    SL_PROMPT_FOREIGN, /* it is something else, not to be touched */
};

/* Looks at what the path holds for an item that begins a sequence. *why: what
 * a SL_PROMPT_FOREIGN is, or why that cannot be told. */
enum sl_prompt_found sl_prompt_file_find(struct sl_prompt_file *f,
                                         const struct sl_lm_item *item,
                                         struct sl_error *why);
/* Fills the item's empty sequence and its rows of logits from the file that
 * was found to be the same; *bytes is the file's length. After an error the
 * sequence is empty again. Errors: SL_ERR_CORRUPT naming the place,
 * SL_ERR_IO, SL_ERR_BUDGET. */
int sl_prompt_file_load(struct sl_prompt_file *f, const struct sl_lm_item *item,
                        float *logits, uint64_t *bytes, struct sl_error *err);
/* Writes the item, which its sequence holds behind what was said to be before
 * it, and its logits.
 * Errors: SL_ERR_IO, SL_ERR_NOSPACE; what was there stays then. */
int sl_prompt_file_save(struct sl_prompt_file *f, const struct sl_lm_item *item,
                        const float *logits, uint64_t *bytes,
                        struct sl_error *err);

#endif
