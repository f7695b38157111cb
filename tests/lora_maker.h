/*
 * lora_maker.h - LoRA adapters made to order, and weights with them merged in
 *
 * A checkpoint is held in memory as floats; what an adapter adds is added to
 * it in double precision. Whatever goes wrong fails the test.
 */
#ifndef SL_TESTS_LORA_MAKER_H
#define SL_TESTS_LORA_MAKER_H

#include "tests/hf_maker.h"

#define MAKER_MODULES 8
#define MAKER_TENSORS 128

/* A module of every layer; %u is its number. */
struct maker_module {
    const char *name;
    uint32_t in, out;
};

struct maker_adapter {
    const char *config;
    double scale; /* what B A must count, without the user's */
    uint32_t r;
    enum sl_dtype dtype;
    bool torch;        /* adapter_model.bin */
    const char *other; /* the one module with another rank and scale */
    uint32_t other_r;
    double other_scale;
    struct maker_module modules[MAKER_MODULES];
};

/* A checkpoint in memory, as floats. */
struct maker_model {
    struct sl_ckpt ckpt;
    size_t n;
    float *of[MAKER_TENSORS];
};

void maker_model_load(struct maker_model *w, const char *folder);
void maker_model_fini(struct maker_model *w);
/* Writes the folder `to`, FP32, with the config.json of `from`. */
void maker_model_save(const struct maker_model *w, const char *from,
                      const char *to);

/* Writes an adapter of a model's layers, and adds it, times scale, to w. */
void maker_adapter(const char *folder, const struct maker_adapter *ad,
                   uint32_t n_layers, struct maker_model *w, double scale);
/* Writes an adapter's two files; config may be NULL: none. */
void maker_adapter_files(const char *folder, const char *config,
                         const struct maker_tensor *t, size_t n, bool torch);

#endif
