/*
 * model_maker.h - model files of random weights, for tests
 *
 * Any size and format; weights and norms are scaled such that activations
 * stay of the order of one and logits differ. The same seed gives the same
 * file. Failures fail the running test.
 */
#ifndef SL_TESTS_MODEL_MAKER_H
#define SL_TESTS_MODEL_MAKER_H

#include "src/arch/hparams.h"
#include "src/model/model_layout.h"

struct test_model {
    const struct sl_arch *arch;
    struct sl_hparams hp; /* what is 0 is derived */
    enum sl_fmt fmt;      /* of the layers' matrices */
    uint32_t group_cols;  /* packed: 0 row-wise, else group-wise */
    uint32_t tp;          /* row-wise: scales a row of column-split matrices
                             (--quant-tp); 0 and 1 mean one */
    /* INT8: of integers that have two planes, in one piece or in two */
    enum { TEST_NO_PLANES, TEST_ONE_PIECE, TEST_PLANES } planes;
    enum sl_fmt head_fmt;  /* of head, embeddings, position tables */
    uint32_t head_group;   /* packed head: columns a scale */
    const void *tokenizer; /* NULL: none */
    size_t tokenizer_bytes;
    uint64_t seed;
};

/* GLM-130B: 2 layers, hidden 64, inner 88, 4 heads, 160 tokens, FP16, no
 * tokenizer. */
void test_model_init(struct test_model *m);
/* The layout of the file that m describes; free with sl_layout_fini. */
void test_model_layout(struct sl_layout *layout, const struct test_model *m);
/* The whole file, free it. */
uint8_t *test_model_image(const struct test_model *m, size_t *bytes);
void test_model_write(const char *path, const struct test_model *m);
/* Hashes the sections and writes the header again, after a change. */
void test_model_seal(struct sl_layout *layout, uint8_t *image);
void test_write_file(const char *path, const void *data, size_t bytes);

#endif
