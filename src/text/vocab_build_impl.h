/*
 * vocab_build_impl.h - the builder: vocab_build.c collects, vocab_finish.c
 * writes the blob
 */
#ifndef SL_VOCAB_BUILD_IMPL_H
#define SL_VOCAB_BUILD_IMPL_H

#include "src/text/vocab_build.h"

/* Longest pattern of a step: far above any tokenizer's. */
#define SL_STEP_MAX 65536u

struct sl_built_piece {
    uint32_t off, n; /* in the text, as the source spells it */
    float score;
    uint8_t type; /* as in the blob; 0: a hole */
    bool added;   /* cut out of the text: spelt as it is in the text */
};

struct sl_built_name {
    uint32_t off, n; /* in the text */
    uint32_t id;
};

struct sl_built_added {
    uint32_t id, flags;
    uint32_t off, n; /* its name, in the text */
};

struct sl_vocab_builder {
    const struct sl_vocab_kind *kind;
    struct sl_built_piece *pieces; /* (room) */
    size_t room;
    uint32_t n_tokens;
    struct sl_str text;
    /* Pieces and added tokens by their names: slots are (n_slots, a power of
     * two) index + 1 of names, 0: free; there is room for half as many names.
     */
    struct sl_built_name *names;
    uint32_t *slots;
    uint32_t n_names;
    size_t n_slots;
    struct sl_built_added *added; /* (added_room) */
    size_t n_added, added_room;
    struct sl_str part[SL_VOCAB_N_TAGS]; /* sections as written */
    uint32_t count[SL_VOCAB_N_TAGS];
    int32_t controls[SL_N_CONTROLS];
    uint32_t numbers[SL_N_NUMBERS];
};

/* vocab_proto.c: a serialised sentencepiece model out of pieces with scores. */
int sl_vocab_make_model(struct sl_vocab_builder *b, struct sl_error *err);

#endif
