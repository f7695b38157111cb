#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/decode/rules.h"

int sl_rules_room_init(struct sl_rules_room *room, uint32_t vocab,
                       struct sl_error *err)
{
    *room = (struct sl_rules_room){.vocab = vocab};
    room->row = sl_alloc_array(vocab, sizeof *room->row);
    room->seen = malloc(vocab / 8 + 1);
    if (room->row != NULL && room->seen != NULL)
        return 0;
    sl_rules_room_fini(room);
    return sl_fail(err, SL_ERR_NOMEM, "out of memory for %u logits", vocab);
}

void sl_rules_room_fini(struct sl_rules_room *room)
{
    free(room->row);
    free(room->seen);
    *room = (struct sl_rules_room){0};
}

void sl_rules_init(struct sl_rules *r)
{
    *r = (struct sl_rules){.n_top = -1};
}

void sl_rules_fini(struct sl_rules *r)
{
    sl_ids_fini(&r->said);
}

/* The n largest of a row, by insertion: n is small, and most ids are less
 * likely than all of them. */
static unsigned find_top(struct sl_top *top, unsigned n, const float *row,
                         uint32_t vocab)
{
    unsigned have = 0;

    for (uint32_t i = 0; i < vocab && n > 0; i++) {
        unsigned at = have;

        if (have == n && row[i] <= top[n - 1].logprob)
            continue;
        if (have < n)
            have++;
        else
            at--;
        for (; at > 0 && row[i] > top[at - 1].logprob; at--)
            top[at] = top[at - 1];
        top[at] = (struct sl_top){(int32_t)i, row[i]};
    }
    return have;
}

void sl_rules_look(struct sl_rules *r, struct sl_rules_room *room,
                   const float *row)
{
    double most;

    if (r->n_top < 0)
        return;
    memcpy(room->row, row, room->vocab * sizeof *row);
    room->sum = sl_row_log_sum(row, room->vocab, &most);
    r->chance.top = r->top;
    r->chance.n_top = find_top(r->top, (unsigned)r->n_top, row, room->vocab);
    for (unsigned i = 0; i < r->chance.n_top; i++)
        r->top[i].logprob = (float)((double)r->top[i].logprob - room->sum);
}

void sl_rules_tell(struct sl_rules *r, const struct sl_rules_room *room,
                   int32_t id)
{
    r->chance.id = id;
    r->chance.logprob =
        r->n_top >= 0 ? (float)((double)room->row[id] - room->sum) : 0;
}

static bool is_new(struct sl_rules_room *room, int32_t id)
{
    uint8_t bit = (uint8_t)(1u << id % 8);
    bool is = (room->seen[id / 8] & bit) == 0;

    room->seen[id / 8] |= bit;
    return is;
}

static void repeat_less(float *row, struct sl_rules_room *room,
                        const int32_t *ids, size_t n, float penalty)
{
    for (size_t i = 0; i < n; i++) {
        float *l = &row[ids[i]];

        if (is_new(room, ids[i]))
            *l = *l > 0 ? *l / penalty : *l * penalty;
    }
}

static void say_less(const struct sl_rules *r, float *row,
                     struct sl_rules_room *room)
{
    for (size_t i = 0; i < r->said.n; i++) {
        int32_t id = r->said.v[i];

        row[id] -= (float)r->frequency;
        if (is_new(room, id))
            row[id] -= (float)r->presence;
    }
}

void sl_rules_shape(const struct sl_rules *r, struct sl_rules_room *room,
                    float *row, const int32_t *prompt, size_t n)
{
    size_t n_seen = room->vocab / 8 + 1;

    if (r->repetition > 0 && r->repetition != 1) {
        memset(room->seen, 0, n_seen);
        repeat_less(row, room, prompt, n, (float)r->repetition);
        repeat_less(row, room, r->said.v, r->said.n, (float)r->repetition);
    }
    if (r->presence != 0 || r->frequency != 0) {
        memset(room->seen, 0, n_seen);
        say_less(r, row, room);
    }
    for (size_t i = 0; i < r->n_bias; i++)
        row[r->bias[i].id] += r->bias[i].add;
    if (r->rule != NULL)
        r->rule->limit(r->rule->opaque, row, room->vocab);
}

int sl_rules_said(struct sl_rules *r, int32_t id, struct sl_error *err)
{
    const struct sl_rule *rule = r->rule;

    if (sl_ids_add(&r->said, id, err) != 0)
        return -1;
    if (rule == NULL)
        return 0;
    if (rule->accept(rule->opaque, id, err) != 0)
        return -1;
    r->enough = r->enough || rule->over(rule->opaque);
    return 0;
}
