/*
 * script.h - a scripted language model
 *
 * What comes next depends on all ids before it and on the last one's place,
 * so a beam that continues the wrong sequence says something else.
 */
#ifndef SL_TESTS_SCRIPT_H
#define SL_TESTS_SCRIPT_H

#include "src/exec/lm.h"
#include "tests/support.h"

enum { V = 64, MAX_SEQS = 16, MAX_LEN = 64 };
enum { MASK = 50, GMASK, SMASK, EOD, SOP, EOP, ENC, DBLOCK, EOS = 12 };
enum { N_IMAGE = 10, N_TOKENS = 60 };

struct seq {
    bool alive;
    int32_t ids[MAX_LEN], positions[MAX_LEN], blocks[MAX_LEN];
    size_t n;
};

struct script {
    struct sl_lm lm;
    struct seq seqs[MAX_SEQS];
    struct seq last; /* the sequence of the last forward's first item */
    size_t n_alive, most_alive;
    int calls, fail_at; /* forward and fork count; -1: never */
    int forwards;
    enum sl_code fail_code;
    int32_t favourite; /* an id the model likes best, or -1 */
    int end_at;        /* position at which it wants to end, or -1 */
    bool nan;
    bool scores; /* rows are wanted of what is read, too */
    size_t pass_positions;
};

void test_script_init(struct script *s);
/* The logits (V) behind a sequence. */
void test_script_speak(const struct script *s, const struct seq *q,
                       float *logits);

#endif
