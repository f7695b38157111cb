#include "config.h"

#include "src/eval/pack.h"

/* A list of questions, as sl_pack_ask takes them. */
struct list {
    const struct sl_pack_config *config;
    struct sl_question *const *v;
    size_t n, at;
};

static int list_next(void *opaque, struct sl_question **q, bool wait,
                     struct sl_error *err)
{
    struct list *l = opaque;

    (void)wait;
    (void)err;
    while (l->at < l->n && l->v[l->at]->done)
        l->at++;
    *q = l->at < l->n ? l->v[l->at++] : NULL;
    return 0;
}

static int list_done(void *opaque, struct sl_question *q, struct sl_error *err)
{
    const struct sl_pack_config *c = ((struct list *)opaque)->config;

    return c->done(c->opaque, q, err);
}

static int list_passed(void *opaque, uint32_t positions, uint32_t rows,
                       struct sl_error *err)
{
    const struct sl_pack_config *c = ((struct list *)opaque)->config;

    return c->passed != NULL ? c->passed(c->opaque, positions, rows, err) : 0;
}

int sl_pack_run(const struct sl_pack_config *config,
                struct sl_question *const *questions, size_t n,
                struct sl_error *err)
{
    struct list list = {.config = config, .v = questions, .n = n};
    struct sl_pack_config c = *config;

    c.next = list_next;
    c.done = list_done;
    c.passed = list_passed;
    c.opaque = &list;
    return sl_pack_ask(&c, err);
}
