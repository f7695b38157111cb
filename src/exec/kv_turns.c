#include "config.h"

#include <assert.h>

#include "src/exec/kv_turns.h"

/* A buffer that holds more than one sequence is no larger: copies of this size
 * run at the link's rate, and so many keys keep a device busy. Nor does it take
 * more than a small part of what weights could have. */
#define BUFFER_BYTES (32ull << 20)
#define BUFFER_PART  64u

static uint64_t pages_of(const struct sl_kv_config *c)
{
    return sl_div_up(c->max_tokens, SL_KV_PAGE_LEN);
}

/* Of a layer, keys and values. */
static uint64_t page_bytes(const struct sl_kv_config *c)
{
    return 2 * sl_kv_plane_bytes(c, SL_KV_F16);
}

uint64_t sl_kv_turn_most(uint64_t spare_bytes)
{
    uint64_t part = spare_bytes / BUFFER_PART;

    return part < BUFFER_BYTES ? part : BUFFER_BYTES;
}

uint32_t sl_kv_turn_room(const struct sl_kv_config *c, uint32_t items,
                         uint64_t most_bytes)
{
    uint64_t most = most_bytes / page_bytes(c), all = pages_of(c) * items;

    if (all > most)
        all = most;
    return (uint32_t)(all > pages_of(c) ? all : pages_of(c));
}

uint64_t sl_kv_turn_bytes(const struct sl_kv_config *c, uint32_t items,
                          uint64_t most_bytes)
{
    return SL_KV_TURN_BUFFERS * sl_kv_turn_room(c, items, most_bytes) *
           page_bytes(c);
}

void sl_kv_turns_carve(struct sl_kv_turns *t, struct sl_carver *carver,
                       const struct sl_kv_config *c, uint32_t items)
{
    t->turn = sl_carve(carver, items, sizeof *t->turn);
    t->pages = sl_carve(carver, pages_of(c) * items, sizeof *t->pages);
    t->seen = sl_carve(carver, c->n_pages, sizeof *t->seen);
    t->place = sl_carve(carver, c->n_pages, sizeof *t->place);
}

/* Pages that an item would bring to the turn of that number. */
static uint32_t new_pages(const struct sl_kv_turns *t, const uint32_t *pages,
                          uint32_t n)
{
    uint32_t fresh = 0;

    for (uint32_t i = 0; i < n; i++)
        fresh += t->seen[pages[i]] != t->count;
    return fresh;
}

/* Page i of an item's sequence joins the turn, if it is not there. */
static uint32_t join(struct sl_kv_turns *t, struct sl_kv_turn *turn,
                     const struct sl_pass_item *item, uint32_t i, uint32_t page)
{
    struct sl_kv_turn_page *p;

    if (t->seen[page] != t->count) {
        t->seen[page] = t->count;
        t->place[page] = turn->n_pages++;
        t->pages[turn->first_page + t->place[page]] =
            (struct sl_kv_turn_page){.page = page};
    }
    p = &t->pages[turn->first_page + t->place[page]];
    p->held |= i * SL_KV_PAGE_LEN < item->base;
    p->written |= (i + 1) * SL_KV_PAGE_LEN > item->base;
    return t->place[page];
}

static struct sl_kv_turn *begin_turn(struct sl_kv_turns *t, size_t item,
                                     uint32_t first_page)
{
    struct sl_kv_turn *turn = &t->turn[t->n_turns++];

    *turn = (struct sl_kv_turn){.first_item = item, .first_page = first_page};
    t->count++;
    return turn;
}

void sl_kv_turns_make(struct sl_kv_turns *t, const struct sl_kv *kv,
                      const struct sl_pass *pass, uint32_t *table,
                      uint32_t *lists)
{
    struct sl_kv_turn *turn = NULL;
    uint32_t at = 0;

    t->n_turns = 0;
    for (size_t i = 0; i < pass->n_items; i++) {
        uint32_t n;
        const uint32_t *pages = sl_kv_pages(kv, pass->run[i].seq, &n);

        if (turn == NULL || turn->n_pages + new_pages(t, pages, n) > t->room)
            turn =
                begin_turn(t, i, turn ? turn->first_page + turn->n_pages : 0);
        assert(n <= t->room);
        table[i] = at;
        for (uint32_t p = 0; p < n; p++)
            lists[at++] = join(t, turn, &pass->run[i], p, pages[p]);
        turn->n_items++;
    }
}
