/*
 * hf_maker.h - small Hugging Face folders made to order
 *
 * Whatever goes wrong fails the test.
 */
#ifndef SL_TESTS_HF_MAKER_H
#define SL_TESTS_HF_MAKER_H

#include "tests/ckpt_maker.h"

/* Appends a safetensors file of dense tensors (shares, offset and stride are
 * not looked at), in the order given, with __metadata__ and a header padded
 * with blanks to a multiple of 8, as the original writes it. */
void maker_safetensors(struct maker_buf *b, const struct maker_tensor *tensors,
                       size_t n_tensors);

/* Appends a safetensors file with this text as its header and data behind. */
void maker_safetensors_raw(struct maker_buf *b, const char *header,
                           const void *data, size_t n);

enum maker_weights { MAKER_SAFETENSORS, MAKER_TORCH };

/* DIR/model.safetensors or DIR/pytorch_model.bin; with n_files above 1 as many
 * shards and their index, tensors dealt out in turn. */
void maker_hf(const char *dir, const struct maker_tensor *tensors,
              size_t n_tensors, enum maker_weights kind, unsigned n_files);

/* The name of shard `file`, or of the one file. Returns name. */
char *maker_hf_name(char name[64], enum maker_weights kind, unsigned file,
                    unsigned n_files);

#endif
