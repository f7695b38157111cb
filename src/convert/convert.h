/*
 * convert.h - from a published checkpoint to a model file
 *
 *     checkpoint --read--> rows --pack--> blocks --write--> model file
 *
 * The three run at the same time over chunks of rows, within a memory budget
 * that does not depend on the model's size. What is written goes to
 * OUT.partial, whose header comes last, and is renamed when all of it is on
 * the disk; OUT.partial.journal names the sections that are finished, so that
 * a conversion that was killed can go on.
 */
#ifndef SL_CONVERT_H
#define SL_CONVERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/pack.h"
#include "src/arch/arch.h"
#include "src/base/log.h"
#include "src/ckpt/ckpt.h"
#include "src/ckpt/lora.h"
#include "src/convert/stage_out.h"
#include "src/model/config_json.h"
#include "src/model/quant_kind.h"

#define SL_CONVERT_RAM (2ull << 30)

struct sl_convert_options { /* all pointers borrowed */
    const char *source;
    const char *output;        /* NULL: ./NAME-QUANT.gguf */
    const char *quant;         /* NULL: int4-g64, or keep what is quantised */
    const char *quant_experts; /* NULL: as quant */
    unsigned quant_tp;         /* 0: not said */
    bool no_planes;            /* of int8-planes: in one piece */
    const char *head;          /* "f16", "int8-g64"; NULL: as quant has it */
    const char *preset;        /* NULL: none */
    struct sl_config flags;    /* what was said on the command line */
    const char *tokenizer;     /* file or folder; NULL: what the source has */
    struct sl_lora_arg lora[SL_LORA_MOST]; /* adapters to merge */
    size_t n_lora;
    const char *name;          /* NULL: the source's last path component */
    enum sl_compress compress; /* of stages but the head */
    double disk_bps;           /* for SL_COMPRESS_AUTO: of the disk it is read
                                * from later */
    uint64_t ram_bytes;        /* SL_CONVERT_RAM by default */
    unsigned threads;          /* 0: one per CPU */
    bool report;               /* keep the error of every tensor */
    bool trust_source; /* hold nothing against the checkpoint's checksums */
    bool resume;
    bool force;
    bool quiet; /* no progress */
    const struct sl_log *log;
    /* Asked a few times a second from the calling thread; true stops the
     * conversion with SL_ERR_INTERRUPTED. May be NULL. */
    bool (*interrupted)(void *opaque);
    void *opaque;
};

struct sl_convert_tensor {
    char name[80];
    struct sl_matrix geom;
    bool done; /* in this run; false: finished by the one that it resumed */
    struct sl_pack_error error;
};

struct sl_convert_result {
    char *output;
    char quant[SL_QUANT_NAME];
    uint64_t file_bytes;
    uint64_t resumed_bytes; /* of it written by an earlier run */
    uint64_t ns;
    bool tokenizer;                    /* there is one inside */
    struct sl_stage_out_stats stages;  /* of this run; 0 stages without
                                        * compression */
    struct sl_convert_tensor *tensors; /* the matrices, in order of use */
    size_t n_tensors;
};

void sl_convert_options_init(struct sl_convert_options *o);

/* Which model an open checkpoint would become: the architecture and its sizes,
 * from config.json, from the tensors or from what o says (of which source,
 * preset, flags and log are looked at). Errors: SL_ERR_UNSUPPORTED naming an
 * architecture or a quantisation that is not read, SL_ERR_USAGE naming the
 * sizes that nobody said, SL_ERR_CORRUPT naming file, key and value. */
int sl_convert_describe(const struct sl_arch **arch, struct sl_hparams *hp,
                        const struct sl_ckpt *c,
                        const struct sl_convert_options *o,
                        struct sl_error *err);

/* Errors: what is wrong with the source, the options or the disk, naming
 * file, tensor and numbers; SL_ERR_BUDGET with the least --ram that works. */
int sl_convert(struct sl_convert_result *r, const struct sl_convert_options *o,
               struct sl_error *err);
void sl_convert_result_fini(struct sl_convert_result *r);

#endif
