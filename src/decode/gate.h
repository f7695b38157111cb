/*
 * gate.h - how many drafts are worth a place in a pass
 *
 * Drafts are tokens that a text may go on with (draft.h). A pass takes them
 * along and tells which are right; each right one saves a pass, and each costs
 * a position. The gate knows from the passes so far what n positions take,
 * T(n), and how often the j-th draft of a source was right where those before
 * it were, a_j. It takes as many as give most tokens a second:
 *
 *   (1 + a_1 + a_1 a_2 + ...) / (T(1 + n) + seconds of drafting)
 *
 * and none where none pays. Guesses may stand beside others for the same place
 * (tree.h): b_r tells how often the r-th of brothers was right where those
 * before it were wrong. Each node that is dealt is the one that is likeliest to
 * be come by, so that guesses are a chain as long as the next in depth is
 * likelier than any brother. Now and then it takes one more, to learn whether
 * that would pay by now, and now and then none, so that T(1) stays known. A
 * decision depends on what was noted before and on no clock.
 */
#ifndef SL_GATE_H
#define SL_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/decode/pass_times.h"

#define SL_DRAFT_MOST    63u /* drafts of a text in a pass: 64 positions */
#define SL_DRAFT_CLASSES 4u  /* of a source, weak to strong */
#define SL_DRAFT_SOURCES 8u
#define SL_DRAFT_BESIDE  3u /* guesses beside the first, at most */

/* What the gate knows of a source's drafts of a class. */
struct sl_acceptance {
    double prior; /* of the first, before any was tried */
    /* by place, from 0; each counts less the longer ago it was */
    double tried[SL_DRAFT_MOST], right[SL_DRAFT_MOST];
    /* of those beside the first, by their place among brothers, less 1 */
    double beside_tried[SL_DRAFT_BESIDE], beside_right[SL_DRAFT_BESIDE];
};

struct sl_gate_source {
    struct sl_acceptance of[SL_DRAFT_CLASSES];
    double seconds; /* of making drafts of a depth; 0: nothing */
};

/* What came of it. */
struct sl_gate_counts {
    uint64_t drafted[SL_DRAFT_SOURCES], accepted[SL_DRAFT_SOURCES];
    /* of these such as stood beside a likelier one */
    uint64_t beside[SL_DRAFT_SOURCES], beside_accepted[SL_DRAFT_SOURCES];
    /* made while passes ran, and of these such as were of no use */
    uint64_t ahead[SL_DRAFT_SOURCES], discarded[SL_DRAFT_SOURCES];
    uint64_t passes, tokens; /* that decoded, and what they gave */
    double draft_s;          /* of guessing, beside the passes */
    double saved_s; /* that drafts saved, or cost where it is less than 0 */
};

struct sl_gate {
    struct sl_pass_times times;
    struct sl_gate_source sources[SL_DRAFT_SOURCES];
    uint32_t most; /* drafts of a text in a pass */
    uint32_t since_plain, until_probe, interval;
    bool probing; /* the pass that was chosen last has one more */
    bool beside;  /* and the last one that had looked for brothers */
    struct sl_gate_counts counts;
};

/* What a text could do in a pass. */
struct sl_offer {
    uint32_t source, strength;
    uint32_t most;  /* drafts there are; 0: none */
    uint32_t width; /* brothers among them, at most; 0 as 1 */
    uint32_t ready; /* that are made already, and cost nothing */
};

/* What it takes along. */
struct sl_deal {
    uint32_t n;     /* drafts */
    uint32_t width; /* brothers among them, at most; 1: a chain */
};

/* What came of the guesses for one place of a text. */
struct sl_verdict {
    uint8_t n;     /* brothers */
    uint8_t right; /* which was; n: none */
};

void sl_gate_init(struct sl_gate *g, uint32_t most, double more);
/* Priors of a source, by class. */
void sl_gate_add(struct sl_gate *g, uint32_t source,
                 const double prior[SL_DRAFT_CLASSES]);
/* The probability that the j-th draft (from 0) is right where those before it
 * are. */
double sl_gate_right(const struct sl_gate *g, uint32_t source,
                     uint32_t strength, uint32_t j);
/* What of each offer a pass takes, whose other positions are base and which
 * has room for so many more. Returns the sum of drafts. */
uint32_t sl_gate_choose(struct sl_gate *g, const struct sl_offer *offers,
                        size_t n, uint32_t base, uint32_t room,
                        struct sl_deal *deals);
/* Of n drafts of a text, `beside` of them beside others: what came of those
 * whose ancestors were right, by depth, (n_verdicts). */
void sl_gate_note(struct sl_gate *g, const struct sl_offer *offer, uint32_t n,
                  uint32_t beside, const struct sl_verdict *verdicts,
                  uint32_t n_verdicts);
/* A pass of so many positions that only decoded and took pass_s, after draft_s
 * of guessing, base of them no drafts, and
 * the tokens of it. */
void sl_gate_pass(struct sl_gate *g, uint32_t positions, uint32_t base,
                  uint32_t tokens, double draft_s, double pass_s);

#endif
