/*
 * ckpt_torch.h - inside the reader of torch.save files
 *
 * Shared by ckpt_torch.c and ckpt_legacy.c alone. Both containers hold the
 * same kind of pickle; they differ in where a storage's bytes lie.
 */
#ifndef SL_CKPT_TORCH_H
#define SL_CKPT_TORCH_H

#include "src/ckpt/ckpt.h"
#include "src/ckpt/ckpt_pickle.h"
#include "src/ckpt/ckpt_zip.h"

/* What a storage's persistent id says. */
struct sl_torch_storage {
    const char *key; /* not zero-terminated; lies in the pickle */
    size_t n_key;
    uint32_t elem_bytes;
    int dtype;         /* enum sl_dtype, or -1: one no tensor here can have */
    uint64_t n;        /* elements of the whole storage */
    uint64_t view_off; /* the part this id means, in elements */
    uint64_t view_n;
};

/* A storage in a legacy file. */
struct sl_legacy_entry {
    const char *key; /* lies in the file's object pickle */
    size_t n_key;
    uint32_t elem_bytes;
    uint64_t n;
    uint64_t off; /* of its data; 0 until it was found */
};

struct sl_legacy {
    struct sl_legacy_entry *entries; /* sorted by key */
    size_t n_entries;
};

/* node must be an SL_PK_STORAGE. Errors: SL_ERR_CORRUPT,
 * SL_ERR_UNSUPPORTED (an unknown type of storage), naming the type. */
int sl_torch_storage_parse(struct sl_torch_storage *s,
                           const struct sl_pickle *p, uint32_t node,
                           struct sl_error *err);

/* Reads the pickles of a legacy file, object being the one of interest, and
 * finds its storages. */
int sl_legacy_open(struct sl_legacy *l, struct sl_pickle *object,
                   struct sl_src *src, struct sl_error *err);
void sl_legacy_close(struct sl_legacy *l);
/* *off = where the storage's data begins in the file. */
int sl_legacy_find(const struct sl_legacy *l, const struct sl_torch_storage *s,
                   uint64_t *off, struct sl_error *err);

#endif
