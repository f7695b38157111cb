/*
 * synth.h - model files of any shape with pseudo-random weights
 *
 * For benchmarks without the real weights: every byte lies where a converted
 * model would have it, integers are uniform, and the scales give each matrix
 * outputs as large as its inputs, so that activations stay finite and
 * kernels meet values of every size. What is written follows from shape,
 * format and seed alone.
 */
#ifndef SL_SYNTH_H
#define SL_SYNTH_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/log.h"
#include "src/model/config_json.h"
#include "src/model/model_layout.h"
#include "src/model/modelfile.h"
#include "src/model/quant_kind.h"

struct sl_synth_options { /* all pointers borrowed */
    const struct sl_arch *arch;
    struct sl_hparams hp;
    const char *name;          /* general.name */
    const char *output;        /* NULL: ./NAME-QUANT.gguf */
    const char *quant;         /* as convert has it, but keep; NULL: int4-g64 */
    const char *quant_experts; /* NULL: as quant */
    unsigned quant_tp;         /* 0: not said */
    const char *head;          /* NULL: as quant has it */
    uint64_t seed;
    const char *tokenizer; /* (tokenizer_bytes) as sl_tokenizer_create has it;
                            * NULL: the file knows no text */
    size_t tokenizer_bytes;
    /* How unlike experts are chosen: the one of rank r as often as r to the
     * power of -router_skew; 0: alike, but for chance. */
    double router_skew;
    unsigned threads; /* 0: SL_SYNTH_THREADS */
    bool force;       /* replace a file that is there */
    bool quiet;       /* no progress */
    /* Asked a few times a second; true stops with SL_ERR_INTERRUPTED. May be
     * NULL. */
    bool (*interrupted)(void *opaque);
    void *opaque;
};

/* Some fill buffers while others wait for the disk. */
#define SL_SYNTH_THREADS 4u

#define SL_SYNTH_QUANT SL_QUANT_NAME

struct sl_synth_result {
    char *output; /* owned */
    char quant[SL_SYNTH_QUANT];
    uint64_t file_bytes;
    uint64_t ns;
};

/* Their names, for people. */
#define SL_SYNTH_PRESETS                                                       \
    "glm-130b, glm-10b, chatglm-6b, glm-4-9b, glm-4-32b, glm-4.5-air, "        \
    "glm-4.6, glm-4.7-flash, llama-70b, 7b or tiny"

/* A published model's shape, without a tokenizer: "glm-130b", "glm-10b",
 * "chatglm-6b", "glm-4-9b", "glm-4-32b", "glm-4.5-air", "glm-4.6",
 * "glm-4.7-flash", "llama-70b"; "7b", "tiny". Errors:
 * SL_ERR_USAGE naming the presets there are. */
int sl_synth_preset(struct sl_config *c, const struct sl_arch **arch,
                    const char *name, struct sl_error *err);

/* Where everything would lie in the file. quant: what the format is called.
 * Errors: SL_ERR_USAGE, SL_ERR_NOMEM. */
int sl_synth_layout(struct sl_layout *layout, char quant[SL_SYNTH_QUANT],
                    const struct sl_synth_options *o, struct sl_error *err);

/* A model file that is nowhere, of a preset's shape. quant as in the options.
 * Errors: those of the two above. */
int sl_synth_imagine(struct sl_modelfile *mf, const char *preset,
                     const char *quant, struct sl_error *err);

/* The file is written as OUT.partial, which is removed when that fails.
 * Errors: SL_ERR_USAGE, SL_ERR_NOSPACE (before anything is written), SL_ERR_IO,
 * SL_ERR_NOMEM, SL_ERR_INTERRUPTED. */
int sl_synth(struct sl_synth_result *r, const struct sl_synth_options *o,
             struct sl_error *err);
void sl_synth_result_fini(struct sl_synth_result *r);

#endif
