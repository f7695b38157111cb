#include "config.h"

#include "src/text/textnorm.h"
#include "src/text/wordpipe.h"

int sl_wordpipe_init(struct sl_wordpipe *w, const struct sl_vocab *v,
                     struct sl_error *err)
{
    w->v = v;
    if (sl_textnorm_check(&v->part[SL_VOCAB_NORMS], err) != 0 ||
        sl_added_init(&w->added, v, true, err) != 0)
        return -1;
    return sl_pretok_create(&w->pretok, &v->part[SL_VOCAB_SPLITS], err);
}

void sl_wordpipe_fini(struct sl_wordpipe *w)
{
    sl_added_fini(&w->added);
    sl_pretok_destroy(w->pretok);
    sl_str_fini(&w->text);
    sl_str_fini(&w->spare);
    *w = (struct sl_wordpipe){0};
}

static int run_words(struct sl_wordpipe *w, struct sl_ids *ids, const char *s,
                     size_t n, bool first, sl_word_fn *word, void *opaque,
                     struct sl_error *err)
{
    struct sl_pretok_words words;

    if (sl_pretok_run(w->pretok, &words, s, n, first, err) != 0)
        return -1;
    for (size_t i = 0; i < words.n; i++) {
        if (word(opaque, ids, words.text + words.v[i].off, words.v[i].n, err) !=
            0)
            return -1;
    }
    return 0;
}

int sl_wordpipe_run(struct sl_wordpipe *w, struct sl_ids *ids, const char *s,
                    size_t n, struct sl_section at, sl_word_fn *word,
                    void *opaque, struct sl_error *err)
{
    struct sl_added_hit hit;
    size_t from = 0;

    if (w->v->part[SL_VOCAB_NORMS].count > 0) {
        if (sl_textnorm_run(&w->v->part[SL_VOCAB_NORMS], &w->text, &w->spare, s,
                            n, err) != 0)
            return -1;
        s = w->text.s;
        n = w->text.n;
    }
    while (from < n) {
        bool found = sl_added_find(&w->added, &hit, s, n, from, at.special);
        size_t end = found ? hit.begin : n;

        if (end > from &&
            run_words(w, ids, s + from, end - from, at.first && from == 0, word,
                      opaque, err) != 0)
            return -1;
        if (found && sl_ids_add(ids, (int32_t)hit.id, err) != 0)
            return -1;
        from = found ? hit.end : n;
    }
    return 0;
}
