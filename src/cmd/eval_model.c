#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/cmd/eval_model.h"
#include "src/cmd/open_vocab.h"
#include "src/cmd/rates_kept.h"
#include "src/model/model_meta.h"
#include "src/probe/meminfo.h"

/* Positions of a pass where nothing is known of the machine. */
#define POSITIONS_DEFAULT 512u
/* Texts that are generated at a time. */
#define TEXTS_MOST 64u

static int identify(struct sl_eval_model *m, const struct sl_modelfile *mf,
                    struct sl_error *err)
{
    uint64_t sum;

    if (sl_model_meta_sum(mf->gguf, &sum, err) != 0)
        return -1;
    snprintf(m->id, sizeof m->id, "%016" PRIx64, sum);
    snprintf(m->name, sizeof m->name, "%s", mf->name ? mf->name : "");
    return 0;
}

int sl_eval_model_open(struct sl_eval_model *m,
                       const struct sl_runtime_config *config,
                       struct sl_error *err)
{
    const struct sl_modelfile *mf;

    if (sl_interrupt_create(&m->interrupt, err) != 0 ||
        sl_runtime_open(&m->rt, config, err) != 0)
        return -1;
    mf = sl_runtime_modelfile(m->rt);
    m->hp = mf->hp;
    m->is_glm = !mf->hp.causal && mf->arch->prompts == SL_PROMPTS_GLM;
    if (identify(m, mf, err) != 0)
        return -1;
    /* One of its own: the runtime may be opened again. */
    return sl_open_vocab_of(&m->tokenizer, mf, err);
}

void sl_eval_model_close(struct sl_eval_model *m)
{
    if (m->interrupt != NULL)
        sl_interrupt_watch(m->interrupt, NULL);
    sl_runtime_close(m->rt);
    sl_tokenizer_destroy(m->tokenizer);
    sl_interrupt_destroy(m->interrupt);
    *m = (struct sl_eval_model){0};
}

uint64_t sl_eval_logit_bytes(const struct sl_runtime_config *config)
{
    uint64_t known = config->ram_bytes;

    if (known == SL_RAM_LEAST)
        return 0;
    if (known == SL_RAM_AUTO)
        known = config->free_bytes > 0 ? config->free_bytes
                                       : sl_meminfo_available();
    return known / 32; /* the plan counts them twice */
}

/* For another plan. The file was checked; and what the last plan left on the
 * heap, in some places of it or others, is not the program's. */
static int reopen(struct sl_eval_model *m,
                  const struct sl_runtime_config *config, struct sl_error *err)
{
    struct sl_runtime_config again = *config;

    if (m->program_bytes == 0)
        m->program_bytes = sl_runtime_memory(m->rt)->program;
    again.program_bytes = m->program_bytes;
    again.verify = false;
    sl_runtime_close(m->rt);
    m->rt = NULL;
    return sl_runtime_open(&m->rt, &again, err);
}

static bool computing_limits(const struct sl_floor *f)
{
    double bytes = f->disk_s > f->dram_s ? f->disk_s : f->dram_s;
    double compute = 0;

    for (uint32_t i = 0; i < SL_WORKERS; i++)
        compute = f->worker_s[i] > compute ? f->worker_s[i] : compute;
    return compute >= (bytes > f->link_s ? bytes : f->link_s);
}

/* Whether a pass of twice as many positions takes, of each, less by 2.5 %,
 * though computing limits this one: a GPU unpacks weights once a pass, however
 * many positions it has. */
static bool gains(const struct sl_floor *f, uint32_t n, sl_pass_floor_fn *floor,
                  void *opaque)
{
    struct sl_floor wider;
    struct sl_error ignored;

    return floor(&wider, opaque, (struct sl_plan_pass){2 * n, n / 8, 0},
                 &ignored) == 0 &&
           wider.seconds < 1.95 * f->seconds;
}

int sl_eval_positions_by(uint32_t *positions, sl_pass_floor_fn *floor,
                         void *opaque, struct sl_error *err)
{
    /* With what is added at the end the default. */
    uint32_t n = POSITIONS_DEFAULT - POSITIONS_DEFAULT / 5;

    n = *positions > n ? *positions : n;
    while (n < SL_EVAL_POSITIONS_MOST) {
        struct sl_floor f;

        if (floor(&f, opaque, (struct sl_plan_pass){n, n / 16, 0}, err) != 0)
            return -1;
        if (computing_limits(&f) && !gains(&f, n, floor, opaque))
            break;
        n += n / 2;
    }
    n += n / 4;
    *positions = n < SL_EVAL_POSITIONS_MOST ? n : SL_EVAL_POSITIONS_MOST;
    return 0;
}

struct planned {
    const struct sl_runtime *rt;
    const struct sl_rates *rates;
};

static int planned_floor(struct sl_floor *floor, void *opaque,
                         struct sl_plan_pass pass, struct sl_error *err)
{
    const struct planned *p = opaque;

    (void)err; /* none comes of a plan that was made */
    *floor = sl_runtime_floor_at(p->rt, p->rates, pass);
    return 0;
}

uint32_t sl_eval_positions(const struct sl_runtime *rt,
                           const struct sl_rates *rates)
{
    struct planned planned = {rt, rates};
    struct sl_error ignored;
    uint32_t n = 0;

    sl_eval_positions_by(&n, planned_floor, &planned, &ignored);
    return n;
}

/* Where all is in memory, any number does that is not small. */
static int choose_positions(struct sl_eval_model *m, uint32_t *positions,
                            const struct sl_runtime_config *config,
                            const struct sl_workload *load,
                            struct sl_error *err)
{
    struct sl_rates rates;
    struct sl_floor ignored;
    double age;

    *positions = POSITIONS_DEFAULT;
    if (sl_runtime_plan(m->rt, load, err) != 0) {
        if (err->code != SL_ERR_BUDGET)
            return -1;
        return reopen(m, config, err); /* starting says what is missing */
    }
    if (sl_runtime_plan_made(m->rt)->streamed_bytes > 0) {
        if (!sl_rates_kept(&rates, &age, m->rt) &&
            sl_runtime_floor(m->rt, (struct sl_plan_pass){1, 1, 0}, &ignored,
                             &rates, err) != 0)
            return -1;
        *positions = sl_eval_positions(m->rt, &rates);
    }
    return reopen(m, config, err);
}

/* What is tried to be planned, and less of it. */
struct attempt {
    uint32_t positions;
    uint64_t logit_bytes;
    bool fixed; /* positions are */
};

/* Less needs less, down to the longest piece of a question, its rows and one
 * text; false: this was that. */
static bool try_less(struct attempt *a, struct sl_eval_run *run)
{
    const struct sl_pack_needs *n = &run->ev->needs;
    bool asks = n->n_questions > 0; /* else nothing but texts is planned */
    bool fewer = asks && !a->fixed && run->positions > n->positions;
    bool rows = asks && run->rows > n->rows && a->logit_bytes > 0;

    if (!fewer && !rows && run->texts < 2)
        return false;
    run->texts = (run->texts + 1) / 2;
    if (fewer)
        a->positions =
            (run->positions < a->positions ? run->positions : a->positions) / 2;
    else
        a->logit_bytes = 0;
    return true;
}

int sl_eval_model_start(struct sl_eval_model *m,
                        const struct sl_runtime_config *config,
                        struct sl_eval_run *run, uint32_t positions,
                        struct sl_error *err)
{
    const struct sl_workload nothing = {
        .n_sequences = 1,
        .max_tokens = 2,
        .pass_positions = 1,
        .pass_logits = 1,
        .n_texts = 2,
    };
    struct attempt a = {
        .positions = positions > 0 ? positions : POSITIONS_DEFAULT,
        .logit_bytes = sl_eval_logit_bytes(config),
        .fixed = positions > 0,
    };
    struct sl_workload load = nothing;

    run->texts = TEXTS_MOST;
    if (config->ram_bytes == SL_RAM_LEAST) {
        run->texts = 1;
        a.positions = a.fixed ? positions : 1;
    } else if (!a.fixed) {
        sl_eval_plan(run, &load, a.positions, a.logit_bytes, m->hp.vocab);
        if (choose_positions(m, &a.positions, config, &load, err) != 0)
            return -1;
    }
    for (;;) {
        load = nothing;
        sl_eval_plan(run, &load, a.positions, a.logit_bytes, m->hp.vocab);
        sl_eval_plan_texts(run, &load);
        if (sl_runtime_start(m->rt, &load, err) == 0)
            break;
        if (err->code != SL_ERR_BUDGET || !try_less(&a, run) ||
            reopen(m, config, err) != 0)
            return -1;
    }
    m->load = load;
    run->lm = sl_runtime_lm(m->rt);
    run->pool = sl_runtime_pool(m->rt);
    sl_interrupt_watch(m->interrupt, m->rt);
    return 0;
}
