/*
 * ckpt_maker.h - small checkpoints made to order
 *
 * Writes torch.save files byte by byte: the zip container of torch >= 1.6
 * (with or without zip64 records) and the legacy one, around pickles of
 * protocol 2 as torch writes them. Whatever goes wrong fails the test.
 */
#ifndef SL_TESTS_CKPT_MAKER_H
#define SL_TESTS_CKPT_MAKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/ckpt/ckpt.h"

/* A growing run of bytes; begin with a zeroed one. */
struct maker_buf {
    uint8_t *at;
    size_t n;
    size_t cap;
};

void maker_put(struct maker_buf *b, const void *data, size_t n);
void maker_fini(struct maker_buf *b);

struct maker_tensor {
    const char *name;
    enum sl_dtype dtype;
    uint32_t n_dims;
    uint64_t shape[4];
    const void *data;    /* its storage; borrowed */
    uint64_t n_elements; /* of the storage; 0: just what shape needs */
    /* For views: 1 + the index of an earlier tensor whose storage this one
     * shares (0: its own), its offset, and strides (all 0: dense, unless
     * expanded is set). */
    size_t shares;
    uint64_t offset;
    uint64_t stride[4];
    bool expanded;
    /* What torch has yet to do with its elements, "neg"; NULL: nothing; "":
     * something that is told in another form. */
    const char *view;
    /* The function that takes the tensor and three things more,
     * "MODULE\nNAME\n"; NULL: none. */
    const char *made_by;
};

struct maker_options {
    bool legacy;        /* the container before torch 1.6 */
    bool zip64;         /* zip64 records although nothing is large */
    bool unsummed;      /* no member has a CRC-32, as newer torch can write */
    bool bare;          /* the state dict itself, not under "module" */
    bool parameters;    /* each tensor an nn.Parameter */
    const char *prefix; /* of the zip's members; NULL: "archive" */
    /* Opcodes that leave one value on the stack, stored under "extra"
     * beside "module" (not with bare). */
    const void *extra;
    size_t n_extra;
};

/* Appends a torch.save file. options may be NULL: all zero. */
void maker_torch(struct maker_buf *b, const struct maker_tensor *tensors,
                 size_t n_tensors, const struct maker_options *options);

/* Appends a zip container with just this data.pkl. */
void maker_zip_pickle(struct maker_buf *b, const void *pickle, size_t n);

/* Writes a file; folders on the way to it are made. */
void maker_file(const char *path, const void *data, size_t n);

/* DIR/latest and DIR/ITERATION/mp_rank_RR_model_states.pt of one rank: call it
 * for each. */
void maker_shard(const char *dir, const char *iteration, unsigned rank,
                 const struct maker_tensor *tensors, size_t n_tensors,
                 const struct maker_options *options);

/* Appends a tar member (ustar; a GNU 'L' header for a name beyond 100 bytes,
 * or a pax header when pax is set). */
void maker_tar_member(struct maker_buf *b, const char *name, const void *data,
                      size_t n, bool pax);
/* The two zero blocks at a tar's end. */
void maker_tar_end(struct maker_buf *b);

#endif
