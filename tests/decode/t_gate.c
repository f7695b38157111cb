#include "config.h"

#include <math.h>
#include <string.h>

#include "src/decode/gate.h"
#include "tests/support.h"

/* --- what passes take ------------------------------------------------------
 */

static void what_was_not_measured_lies_between_what_was(void **state)
{
    struct sl_pass_times t;

    sl_pass_times_init(&t, 0.5);
    assert_true(fabs(sl_pass_times_of(&t, 1) - 1) < 1e-9);
    assert_true(fabs(sl_pass_times_of(&t, 9) - 5) < 1e-9);
    sl_pass_times_note(&t, 4, 10); /* the shape says 2.5 */
    assert_true(fabs(sl_pass_times_of(&t, 1) - 4) < 1e-9);
    assert_true(fabs(sl_pass_times_of(&t, 9) - 20) < 1e-9);
    sl_pass_times_note(&t, 1, 8);
    assert_true(fabs(sl_pass_times_of(&t, 1) - 8) < 1e-9);
    assert_true(fabs(sl_pass_times_of(&t, 2) - (8 + 2.0 / 3)) < 1e-9);
    assert_true(fabs(sl_pass_times_of(&t, 4) - 10) < 1e-9);
    /* beyond, at least as steep as what was seen, 2 in 3 */
    assert_true(sl_pass_times_of(&t, 7) >= 12 - 1e-9);
    assert_true(sl_pass_times_of(&t, 64) < sl_pass_times_of(&t, 100));
}

static void a_disturbed_pass_does_not_count(void **state)
{
    struct sl_pass_times t;

    sl_pass_times_init(&t, 0.1);
    for (int i = 0; i < 20; i++)
        sl_pass_times_note(&t, 2, i % 5 == 3 ? 100 : 3);
    assert_true(sl_pass_times_of(&t, 2) == 3);
    /* what has changed for good does */
    for (int i = 0; i < 3; i++)
        sl_pass_times_note(&t, 2, 7);
    assert_true(sl_pass_times_of(&t, 2) == 7);
    sl_pass_times_note(&t, 2, NAN);
    sl_pass_times_note(&t, 2, 0);
    sl_pass_times_note(&t, 0, 1);
    sl_pass_times_note(&t, SL_PASS_SIZES + 1, 1);
    assert_true(sl_pass_times_of(&t, 2) == 7);
}

/* --- a model of a run ------------------------------------------------------
 */

/* Tokens come in passes that take 1 + more for each draft; the j-th draft is
 * right with the probability p. */
struct world {
    double more, p, noise;
    uint32_t most; /* drafts there are */
    uint64_t random;
};

static double chance(struct world *w)
{
    w->random = w->random * UINT64_C(6364136223846793005) +
                UINT64_C(1442695040888963407);
    return (double)(w->random >> 11) * 0x1p-53;
}

/* Seconds of so many tokens with the gate, which is learning. */
static double live(struct sl_gate *g, struct world *w, uint32_t n_tokens)
{
    double seconds = 0;
    uint32_t n = 0;

    while (n < n_tokens) {
        struct sl_offer o = {.source = 0, .strength = 1, .most = w->most};
        struct sl_verdict verdicts[SL_DRAFT_MOST];
        struct sl_deal dealt;
        uint32_t count, right = 0;
        double s;

        sl_gate_choose(g, &o, 1, 1, SL_PASS_SIZES - 1, &dealt);
        count = dealt.n;
        assert_in_range(count, 0, w->most < g->most ? w->most : g->most);
        while (right < count && chance(w) < w->p)
            right++;
        s = 1 + w->more * count;
        s *= 1 + w->noise * (chance(w) - 0.5);
        for (uint32_t j = 0; j < count && j <= right; j++)
            verdicts[j] = (struct sl_verdict){1, j == right};
        sl_gate_note(g, &o, count, 0, verdicts,
                     right < count ? right + 1 : count);
        sl_gate_pass(g, 1 + count, 1, 1 + right, 0, s);
        seconds += s;
        n += 1 + right;
    }
    return seconds;
}

/* --- trees: of brothers the first is right with the probability p, and where
 * those before it were wrong each other one with the probability beside. */

struct grown {
    uint32_t n, depth[SL_PASS_SIZES], place[SL_PASS_SIZES], up[SL_PASS_SIZES];
    double chance[SL_PASS_SIZES];
    uint32_t n_children[SL_PASS_SIZES];
};

static double place_chance(const struct world *w, double beside, uint32_t place)
{
    double p = place == 0 ? w->p : (1 - w->p) * beside;

    for (uint32_t i = 1; i < place; i++)
        p *= 1 - beside;
    return p;
}

/* The n likeliest nodes, as a source that knows would have them. */
static void grow(struct grown *t, const struct world *w, double beside,
                 uint32_t width, uint32_t n)
{
    *t = (struct grown){.n = 1, .chance = {1}};
    while (t->n < 1 + n) {
        uint32_t best = 0;
        double most = -1;

        for (uint32_t i = 0; i < t->n; i++) {
            double c = t->chance[i] * place_chance(w, beside, t->n_children[i]);

            if (t->n_children[i] < width && c > most) {
                most = c;
                best = i;
            }
        }
        t->chance[t->n] = most;
        t->depth[t->n] = t->depth[best] + 1;
        t->place[t->n] = t->n_children[best]++;
        t->up[t->n++] = best;
    }
}

/* Walks it; returns nodes that were right. */
static uint32_t walk(const struct grown *t, struct world *w, double beside,
                     struct sl_verdict *verdicts, uint32_t *n_verdicts)
{
    uint32_t at = 0, right = 0;

    for (*n_verdicts = 0; t->n_children[at] > 0;) {
        struct sl_verdict *v = &verdicts[(*n_verdicts)++];
        uint32_t next = 0;

        v->n = (uint8_t)t->n_children[at];
        for (v->right = 0; v->right < v->n; v->right++) {
            if (chance(w) < (v->right == 0 ? w->p : beside))
                break;
        }
        if (v->right == v->n)
            break;
        for (uint32_t i = 1; i < t->n; i++) {
            if (t->up[i] == at && t->place[i] == v->right)
                next = i;
        }
        at = next;
        right++;
    }
    return right;
}

static double live_in_trees(struct sl_gate *g, struct world *w, double beside,
                            uint32_t width, uint32_t n_tokens)
{
    double seconds = 0;
    uint32_t n = 0;

    while (n < n_tokens) {
        struct sl_offer o = {
            .source = 0, .strength = 1, .most = w->most, .width = width};
        struct sl_verdict verdicts[SL_DRAFT_MOST];
        uint32_t count, right, n_verdicts, beside_n = 0;
        struct sl_deal dealt;
        struct grown t;

        sl_gate_choose(g, &o, 1, 1, SL_PASS_SIZES - 1, &dealt);
        count = dealt.n;
        assert_in_range(dealt.width, 1, width);
        /* who guesses believes that brothers are right now and then */
        grow(&t, w, beside > 0.05 ? beside : 0.05, dealt.width, count);
        right = walk(&t, w, beside, verdicts, &n_verdicts);
        for (uint32_t i = 1; i < t.n; i++)
            beside_n += t.place[i] > 0;
        sl_gate_note(g, &o, count, beside_n, verdicts, n_verdicts);
        sl_gate_pass(g, 1 + count, 1, 1 + right, 0, 1 + w->more * count);
        seconds += 1 + w->more * count;
        n += 1 + right;
    }
    return seconds / n;
}

static void init(struct sl_gate *g, uint32_t most, double more)
{
    static const double prior[SL_DRAFT_CLASSES] = {0.3, 0.5, 0.6, 0.8};

    sl_gate_init(g, most, more);
    sl_gate_add(g, 0, prior);
}

/* What the best number of drafts for ever gives, in seconds a token. */
static double best_fixed(const struct world *w, uint32_t most)
{
    double best = 1;

    for (uint32_t n = 1; n <= most; n++) {
        double tokens = 1, p = 1;

        for (uint32_t j = 0; j < n; j++)
            tokens += p *= w->p;
        if ((1 + n * w->more) / tokens < best)
            best = (1 + n * w->more) / tokens;
    }
    return best;
}

static void what_never_pays_costs_next_to_nothing(void **state)
{
    static const double mores[] = {0.005, 0.02, 0.1, 0.3, 0.5, 1};

    for (size_t i = 0; i < sizeof mores / sizeof *mores; i++) {
        struct world w = {mores[i], 0, 0.1, 8, i};
        struct sl_gate g;

        init(&g, 31, 0.2);
        assert_in_range(live(&g, &w, 2000) * 1000, 0, 1.02 * 2000 * 1000);
        assert_int_equal(g.counts.accepted[0], 0);
        assert_in_range(g.counts.tokens, 2000, 2000);
    }
}

static void what_pays_is_found_whatever_was_believed(void **state)
{
    static const double ps[] = {0.3, 0.6, 0.8, 0.95, 1};
    static const double mores[] = {0, 0.02, 0.1, 0.4, 0.8};
    static const double believed[] = {0, 0.2, 1};

    for (size_t i = 0; i < 5 * 5 * 3; i++) {
        struct world w = {mores[i / 5 % 5], ps[i % 5], 0.05, 40, i};
        struct sl_gate g;
        double s;

        init(&g, 31, believed[i / 25]);
        live(&g, &w, 200);
        s = live(&g, &w, 6000) / 6000;
        if (s > 1.12 * best_fixed(&w, 31))
            print_error("p %.2f, more %.2f, believed %.1f: %.3f s a token "
                        "where %.3f would do\n",
                        w.p, w.more, believed[i / 25], s, best_fixed(&w, 31));
        assert_true(s <= 1.12 * best_fixed(&w, 31));
    }
}

/* Brothers are taken where they pay, and where they do not the gate has the
 * chain that it would have without. */
static void brothers_are_taken_where_they_pay(void **state)
{
    static const double ps[] = {0.3, 0.5, 0.8, 0.95};
    static const double besides[] = {0, 0.1, 0.5, 0.9};
    static const double mores[] = {0.01, 0.05, 0.2, 0.6};

    for (size_t i = 0; i < 4 * 4 * 4; i++) {
        double beside = besides[i / 4 % 4];
        struct world w = {mores[i / 16], ps[i % 4], 0, 40, i}, v = w;
        struct sl_gate chain, tree;
        double one, many;

        init(&chain, 31, 0.2);
        init(&tree, 31, 0.2);
        live_in_trees(&chain, &w, beside, 1, 1500);
        live_in_trees(&tree, &v, beside, 4, 1500);
        one = live_in_trees(&chain, &w, beside, 1, 6000);
        many = live_in_trees(&tree, &v, beside, 4, 6000);
        assert_int_equal(chain.counts.beside[0], 0);
        if (many > 1.05 * one)
            print_error("p %.2f, beside %.2f, more %.2f: %.3f s a token, %.3f "
                        "as a chain\n",
                        ps[i % 4], beside, mores[i / 16], many, one);
        assert_true(many <= 1.05 * one);
        if (beside >= 0.5 && ps[i % 4] <= 0.5 && mores[i / 16] <= 0.05)
            assert_true(many < 0.9 * one);
    }
}

/* A text that becomes a copy of what was said is noticed, and so is its end. */
static void the_gate_follows_the_text(void **state)
{
    struct world w = {0.05, 0, 0.05, 16, 1};
    struct sl_gate g;
    double slow, fast;

    init(&g, 31, 0.2);
    live(&g, &w, 1000);
    w.p = 0.95;
    live(&g, &w, 400); /* at most every 256th pass looks */
    fast = live(&g, &w, 600) / 600;
    assert_true(fast < 0.4);
    w.p = 0;
    live(&g, &w, 60);
    slow = live(&g, &w, 600) / 600;
    assert_true(slow < 1.03);
}

static void a_plain_pass_is_taken_now_and_then(void **state)
{
    struct world w = {0.01, 1, 0, 8, 1};
    struct sl_gate g;
    uint32_t plain;

    init(&g, 8, 0.2);
    live(&g, &w, 3000);
    plain = g.times.of[1].n;
    assert_in_range(plain, 3000 / 9 / 65, 3000 / 9 / 60 + 1);
    assert_true(g.counts.saved_s > 0);
    /* 9 tokens a pass of 1.08 s */
    assert_in_range(g.counts.saved_s, 0.85 * 3000, 0.9 * 3000);
}

/* Of guesses that cost more than a pass saves, only those that are there. */
static void guesses_that_are_there_cost_nothing(void **state)
{
    for (uint32_t ready = 0; ready < 6; ready += 2) {
        struct sl_offer offer = {.most = 8, .width = 1, .ready = ready};
        const double prior[SL_DRAFT_CLASSES] = {0.9, 0.9, 0.9, 0.9};
        struct sl_deal dealt;
        struct sl_gate g;

        sl_gate_init(&g, 8, 0);
        sl_gate_add(&g, 0, prior);
        g.sources[0].seconds = 3;
        for (uint32_t n = 1; n <= 9; n++)
            sl_gate_pass(&g, n, n, n, 0, 1);
        assert_int_equal(sl_gate_choose(&g, &offer, 1, 1, 8, &dealt), ready);
    }
}

static void drafts_go_where_they_are_likeliest_to_be_right(void **state)
{
    struct sl_offer offers[3] = {
        {0, 0, 8, 1, 0}, {0, 3, 8, 1, 0}, {0, 1, 0, 1, 0}};
    struct sl_deal dealt[3];
    struct sl_gate g;
    uint32_t n;

    init(&g, 8, 0.05);
    for (uint32_t room = 0; room < 20; room++) {
        struct sl_gate fresh = g;

        n = sl_gate_choose(&fresh, offers, 3, 3, room, dealt);
        assert_in_range(n, 0, room);
        assert_int_equal(dealt[0].n + dealt[1].n + dealt[2].n, n);
        assert_int_equal(dealt[2].n, 0);
        assert_true(dealt[1].n >= dealt[0].n);
    }
    /* more texts than a pass is timed for take none */
    assert_int_equal(sl_gate_choose(&g, offers, 3, SL_PASS_SIZES, 8, dealt), 0);
}

static void decisions_repeat(void **state)
{
    struct world w = {0.1, 0.7, 0.3, 12, 5}, v = w;
    struct sl_gate a, b;

    init(&a, 31, 0.2);
    init(&b, 31, 0.2);
    assert_true(live(&a, &w, 500) == live(&b, &v, 500));
    assert_memory_equal(&a.counts, &b.counts, sizeof a.counts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_not_measured_lies_between_what_was),
        cmocka_unit_test(a_disturbed_pass_does_not_count),
        cmocka_unit_test(what_never_pays_costs_next_to_nothing),
        cmocka_unit_test(what_pays_is_found_whatever_was_believed),
        cmocka_unit_test(brothers_are_taken_where_they_pay),
        cmocka_unit_test(the_gate_follows_the_text),
        cmocka_unit_test(a_plain_pass_is_taken_now_and_then),
        cmocka_unit_test(guesses_that_are_there_cost_nothing),
        cmocka_unit_test(drafts_go_where_they_are_likeliest_to_be_right),
        cmocka_unit_test(decisions_repeat),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
