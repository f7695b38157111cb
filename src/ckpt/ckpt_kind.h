/*
 * ckpt_kind.h - kinds of checkpoints: one file each, ending in a const table
 *
 *   sat   ckpt_sat.c   what SwissArmyTransformer and GLM's own code write
 *   hf    ckpt_hf.c    a Hugging Face folder
 *   gguf  ckpt_gguf.c  a GGUF file as llama.cpp and its relatives write it
 *   file  ckpt_file.c  one file of tensors on its own
 *
 * A kind knows by looking at a path whether it is one of its own, and then
 * makes lists of tensors of it. ckpt.c holds the list of kinds; what cannot
 * be told is refused with what each of them looks for.
 */
#ifndef SL_CKPT_KIND_H
#define SL_CKPT_KIND_H

#include "src/ckpt/ckpt.h"

#define SL_CKPT_WHY 80

struct sl_ckpt_kind {
    const char *name;
    const char *what;      /* for people: "a Hugging Face folder" */
    const char *looks_for; /* "a folder with ..." */
    /* Whether path, which exists, is such a checkpoint as far as names tell;
     * else why says what speaks against it. Opens no file, but the GGUF kind
     * its first bytes. */
    bool (*look)(char why[SL_CKPT_WHY], const char *path);
    /* c is zeroed but for kind and impl, which is zeroed too. What was made
     * so far is closed by the caller when the call fails. */
    int (*open)(struct sl_ckpt *c, const char *path, const struct sl_log *log,
                struct sl_error *err);
    /* What a file beside the checkpoint would say, as sl_ckpt_read_file has
     * it, where the checkpoint itself holds all; NULL: files are read. */
    int (*read_file)(const struct sl_ckpt *c, const char *name, uint8_t **data,
                     size_t *n, struct sl_error *err);
};

extern const struct sl_ckpt_kind sl_ckpt_sat, sl_ckpt_hf, sl_ckpt_gguf_kind,
    sl_ckpt_file;

/* The n-th kind, NULL beyond the last. */
const struct sl_ckpt_kind *sl_ckpt_kind_at(size_t n);

#endif
