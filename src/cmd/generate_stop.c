#include "config.h"

#include "src/cmd/generate.h"

static int watch_text(struct sl_stop_watch *w, const char *text, size_t n,
                      struct sl_error *err)
{
    sl_str_clear(&w->before);
    if (sl_stopper_push(&w->stopper, &w->before, text, n, false, err) != 0)
        return -1;
    w->rules.enough = w->rules.enough || w->stopper.found != NULL;
    return 0;
}

/* A struct sl_fill_sink's ids: looks at them before the reader does. */
static int watch_ids(void *opaque, const int32_t *ids, size_t n, bool blank,
                     struct sl_error *err)
{
    struct sl_stop_watch *w = opaque;
    const char *text;
    size_t n_text;

    /* Every answer begins anew, with the call without ids. */
    if (blank && n == 0)
        sl_stopper_restart(&w->stopper);
    if (sl_detok_push(w->detok, ids, n, &text, &n_text, err) != 0 ||
        (blank && watch_text(w, text, n_text, err) != 0))
        return -1;
    return w->reader.ids != NULL
               ? w->reader.ids(w->reader.opaque, ids, n, blank, err)
               : 0;
}

int sl_stop_watch_init(struct sl_stop_watch *w, struct sl_generate *g,
                       struct sl_fill_text *text, struct sl_error *err)
{
    if (g->o->text.stops.n == 0 || g->o->fill.n_answers > 1 ||
        g->o->fill.strategy != SL_STRATEGY_BASE)
        return 0;
    if (sl_detok_create_as(&w->detok, g->tokenizer, sl_generate_specials(g),
                           err) != 0)
        return -1;
    sl_rules_init(&w->rules);
    w->stopper.stops = &g->o->text.stops;
    w->sink = (struct sl_fill_sink){watch_ids, w};
    text->rules = &w->rules;
    text->sink = &w->sink;
    return 0;
}

void sl_stop_watch_fini(struct sl_stop_watch *w)
{
    if (w->detok == NULL)
        return;
    sl_detok_destroy(w->detok);
    w->detok = NULL;
    sl_rules_fini(&w->rules);
    sl_stopper_fini(&w->stopper);
    sl_str_fini(&w->before);
}

void sl_stop_watch_read(struct sl_stop_watch *w, struct sl_fill_text *text,
                        const struct sl_fill_sink *reader)
{
    if (w->detok == NULL)
        text->sink = reader;
    else
        w->reader = reader != NULL ? *reader : (struct sl_fill_sink){0};
}
