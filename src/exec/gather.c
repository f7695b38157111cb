#include "config.h"

#include "src/exec/gather.h"

/* Beyond, disks gain nothing more. */
#define DEPTH 32u

uint64_t sl_gather_place_bytes(uint64_t bytes)
{
    return sl_round_up(bytes, SL_PAGE_BYTES) + SL_PAGE_BYTES;
}

void sl_gather_carve(struct sl_gather *g, struct sl_carver *c, uint32_t n,
                     uint64_t piece_bytes)
{
    /* Carvers align to less than a page. */
    uint8_t *at = sl_carve(c, n * piece_bytes + SL_PAGE_BYTES, 1);

    g->n = n;
    g->pieces = sl_carve(c, n, sizeof *g->pieces);
    if (c->base == NULL)
        return;
    at += (SL_PAGE_BYTES - (uintptr_t)at % SL_PAGE_BYTES) % SL_PAGE_BYTES;
    for (uint32_t i = 0; i < n; i++)
        g->pieces[i] = (struct sl_gather_piece){.at = at + i * piece_bytes};
}

void sl_gather_open(struct sl_gather *g, const char *path,
                    struct sl_mirror *mirror, enum sl_io_kind kind)
{
    struct sl_io_config config = {
        .path = path,
        .mirror = mirror,
        .kind = kind,
        .depth = DEPTH,
        .direct = true,
    };
    struct sl_error ignored;

    if (sl_io_start(&g->io, &config, NULL, &ignored) != 0)
        g->io = NULL;
    else if (!g->io->direct) /* more would lie in the page cache than is planned
                              */
        sl_gather_close(g);
}

void sl_gather_close(struct sl_gather *g)
{
    if (g->io != NULL)
        g->io->ops->close(g->io);
    g->io = NULL;
}

void sl_gather_want(struct sl_gather *g, uint32_t i, uint64_t off,
                    uint64_t bytes)
{
    struct sl_gather_piece *p = &g->pieces[i];
    uint64_t from = sl_round_down(off, SL_PAGE_BYTES);

    p->there = false;
    p->off = from;
    p->skip = (uint32_t)(off - from);
    p->bytes = bytes == 0
                   ? 0
                   : (uint32_t)(sl_round_up(off + bytes, SL_PAGE_BYTES) - from);
}

/* Submits the next pieces as far as there may be reads in flight. */
static int submit(struct sl_gather *g, uint32_t n, uint32_t *next,
                  unsigned *in_flight)
{
    struct sl_error ignored;

    for (; *next < n && *in_flight < DEPTH; ++*next) {
        struct sl_gather_piece *p = &g->pieces[*next];
        struct sl_io_read r = {
            .buf = p->at, .off = p->off, .bytes = p->bytes, .tag = *next};

        if (p->bytes == 0)
            continue;
        if (g->io->ops->submit(g->io, &r, &ignored) != 0)
            return -1;
        ++*in_flight;
    }
    return 0;
}

void sl_gather_run(struct sl_gather *g, uint32_t n)
{
    struct sl_io_done done[DEPTH];
    struct sl_error ignored;
    unsigned in_flight = 0;
    uint32_t next = 0;
    int got = 0;

    while (g->io != NULL) {
        if (submit(g, n, &next, &in_flight) != 0)
            next = n; /* what is in flight is waited for */
        if (in_flight == 0)
            return;
        got = g->io->ops->wait(g->io, done, DEPTH, &ignored);
        if (got < 0) { /* closing waits: no read ends later */
            sl_gather_close(g);
            return;
        }
        for (int i = 0; i < got; i++) {
            struct sl_gather_piece *p = &g->pieces[done[i].tag];

            p->there = done[i].result == (int)p->bytes;
        }
        in_flight -= (unsigned)got;
    }
}

const uint8_t *sl_gather_get(const struct sl_gather *g, uint32_t i)
{
    return g->pieces[i].there ? g->pieces[i].at + g->pieces[i].skip : NULL;
}
