#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/cmd/draft_file.h"

/* More than any machine has: all of its weights stay. */
#define ALL_BYTES (UINT64_C(1) << 50)
/* Words that may differ between two vocabularies of one family, in 100. */
#define WORDS_APART 1u

static int open_file(struct sl_draft_file *f, struct sl_error *err)
{
    sl_runtime_close(f->rt);
    f->rt = NULL;
    return sl_runtime_open(&f->rt, &f->config, err);
}

/* Whether an id of one vocabulary and one of another are the same word; an id
 * that is no word at all is in neither. */
static int same_word(struct sl_tokenizer *a, int32_t x, struct sl_tokenizer *b,
                     int32_t y, bool *same, struct sl_error *err)
{
    char *s = NULL, *t = NULL;
    int rc = sl_tokenizer_decode(a, &x, 1, &s, err);

    if (rc == 0)
        rc = sl_tokenizer_decode(b, &y, 1, &t, err);
    *same = rc == 0 && strcmp(s, t) == 0;
    free(s);
    free(t);
    return rc;
}

static int check_words(const struct sl_draft_file *f, struct sl_runtime *target,
                       struct sl_error *err)
{
    struct sl_tokenizer *own = sl_runtime_tokenizer(f->rt);
    struct sl_tokenizer *other = sl_runtime_tokenizer(target);
    const struct sl_vocab_shift *s = &f->model.shift;
    uint32_t n = 0, n_apart = 0;

    if (own == NULL)
        return sl_fail(err, SL_ERR_UNSUPPORTED,
                       "%s: holds no tokenizer, so nobody knows its words",
                       f->path);
    for (uint32_t i = 0; i < s->n_to; i++) {
        bool same;

        if (s->to[i] < 0)
            continue;
        if (same_word(other, (int32_t)i, own, s->to[i], &same, err) != 0)
            return -1;
        n++;
        n_apart += !same;
    }
    if (n > 0 && n_apart <= (uint64_t)n * WORDS_APART / 100)
        return 0;
    return sl_fail(err, SL_ERR_USAGE,
                   "--draft %s: has other words: %u of %u are not those of the "
                   "model it would guess for",
                   f->path, n > 0 ? n_apart : s->n_to, n > 0 ? n : s->n_to);
}

/* As many sequences as there are, and a prompt as long as there is. */
static void set_load(struct sl_draft_file *f, const struct sl_workload *of)
{
    uint32_t texts = of->n_texts > 0 ? of->n_texts : 1;

    f->load = (struct sl_workload){
        .n_sequences = 1,
        .max_tokens = of->max_tokens,
        .pass_positions = of->pass_positions < of->max_tokens
                              ? of->pass_positions
                              : of->max_tokens,
        .pass_logits = 1,
        .n_texts = texts * of->n_sequences,
        .draft_positions = f->width - 1,
        .tree_positions = f->width > 1 ? SL_LM_TREE : 0,
    };
    if (!f->model.hp->causal) /* contexts are read whole */
        f->load.pass_positions = of->max_tokens;
}

/* ahead: while passes run too, of a text that is alone. */
static int plan_self(struct sl_workload *load, struct sl_runtime *target,
                     uint32_t width, bool ahead, struct sl_error *err)
{
    const struct sl_modelfile *mf = sl_runtime_modelfile(target);

    if (!sl_modelfile_has_planes(mf))
        return sl_fail(err, SL_ERR_USAGE,
                       "--draft self: %s is %s, and only files of convert "
                       "--quant int8-planes have a part that guesses",
                       mf->path, mf->quant);
    if (mf->hp.n_experts > 0)
        return sl_fail(err, SL_ERR_USAGE,
                       "--draft self: %s is a mixture, whose experts have no "
                       "planes",
                       mf->path);
    load->draft_keeps = true;
    load->draft_bytes += (uint64_t)width * mf->hp.vocab * sizeof(float);
    if (!ahead || load->n_texts > 1 || load->n_sequences > 1)
        return 0;
    load->draft_ahead = sl_draft_self_span(load->draft_positions);
    load->draft_bytes += mf->hp.vocab * sizeof(float);
    return 0;
}

int sl_draft_file_plan(struct sl_draft_file *f, struct sl_workload *load,
                       struct sl_runtime *target,
                       const struct sl_runtime_config *config,
                       struct sl_error *err)
{
    const struct sl_memory *m;

    if (f->itself && plan_self(load, target, f->width, !f->shared, err) != 0)
        return -1;
    if (f->path == NULL)
        return 0;
    f->config = (struct sl_runtime_config){
        .model = f->path,
        .ram_bytes = ALL_BYTES,
        .threads = config->threads,
        .numa_off = config->numa_off,
        .activations = config->activations,
        .kv_set = config->kv_set,
        .kv = config->kv,
        .io = config->io,
        .device = SL_DEVICE_CPU,
        .verify = config->verify,
        .quiet = true,
        .max_isa_set = config->max_isa_set,
        .max_isa = config->max_isa,
        .reading = config->reading,
        .log = config->log,
    };
    if (open_file(f, err) != 0) {
        sl_error_prefix(err, "--draft: ");
        return -1;
    }
    f->model.hp = &sl_runtime_modelfile(f->rt)->hp;
    if (sl_vocab_shift_make(&f->model.shift, &sl_runtime_modelfile(target)->hp,
                            f->model.hp, err) != 0) {
        sl_error_prefix(err, "--draft %s: ", f->path);
        return -1;
    }
    if (check_words(f, target, err) != 0)
        return -1;
    set_load(f, load);
    if (sl_runtime_plan(f->rt, &f->load, err) != 0)
        return -1;
    m = sl_runtime_memory(f->rt);
    load->draft_bytes += m->total - m->program;
    load->draft_optional = false;
    return 0;
}

static int start_self(struct sl_draft_self *s, struct sl_runtime *target,
                      uint32_t width, struct sl_error *err)
{
    size_t n;

    s->lm = sl_runtime_lm(target);
    s->rows = width;
    if (s->lm->pass_logits > 0 && s->lm->pass_logits < width)
        s->rows = s->lm->pass_logits;
    s->ahead = sl_runtime_draft_ahead(target);
    /* and behind them the row of those ahead */
    if (sl_mul_size(&n, s->rows + (s->ahead > 0), s->lm->vocab))
        s->logits = sl_alloc_array(n, sizeof *s->logits);
    if (s->logits == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "--draft self: no memory");
    s->ahead_row = s->logits + (size_t)s->rows * s->lm->vocab;
    return 0;
}

int sl_draft_file_start(struct sl_draft_file *f, struct sl_runtime *target,
                        struct sl_error *err)
{
    if (f->itself && start_self(&f->self, target, f->width, err) != 0)
        return -1;
    if (f->path == NULL)
        return 0;
    /* a plan is made once; this one counts the same */
    if (open_file(f, err) != 0 || sl_runtime_start(f->rt, &f->load, err) != 0)
        return -1;
    f->model.hp = &sl_runtime_modelfile(f->rt)->hp;
    f->model.lm = sl_runtime_lm(f->rt);
    return 0;
}

void sl_draft_file_close(struct sl_draft_file *f)
{
    free(f->self.logits);
    f->self.logits = NULL;
    sl_vocab_shift_fini(&f->model.shift);
    sl_runtime_close(f->rt);
    f->rt = NULL;
}
