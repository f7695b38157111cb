#include "config.h"

#include "src/decode/blank.h"

/* A text of n ids, its mark among them, that a causal model goes on with. */
static int check_open(size_t n, const struct sl_fill_config *config,
                      struct sl_error *err)
{
    if (n <= 1)
        return sl_fail(err, SL_ERR_USAGE,
                       "an empty text: this model goes on from what it reads");
    if (config->out_seq_length >= n)
        return 0;
    return sl_fail(err, SL_ERR_USAGE,
                   "text too long: %zu tokens leave no room for an answer "
                   "within --out-seq-length %u; shorten the text or raise it "
                   "to at least %zu",
                   n - 1, config->out_seq_length, n);
}

int sl_fill_check_length(size_t n, const struct sl_hparams *hp,
                         const struct sl_fill_config *config,
                         struct sl_error *err)
{
    if (hp->causal)
        return check_open(n, config, err);
    if (n > hp->max_positions)
        return sl_fail(err, SL_ERR_USAGE,
                       "text too long: %zu tokens, the model's longest "
                       "sequence is %u",
                       n, hp->max_positions);
    if (config->out_seq_length <= n + 1)
        return sl_fail(err, SL_ERR_USAGE,
                       "text too long: %zu tokens with [sop] leave no room "
                       "for an answer within --out-seq-length %u; shorten "
                       "the text or raise it to at least %zu",
                       n + 1, config->out_seq_length, n + 2);
    return 0;
}

static uint32_t largest(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* A batch beyond this is beyond every memory too, and refused for that. */
static uint32_t sum(uint32_t a, uint32_t b)
{
    return a > UINT32_MAX - b ? UINT32_MAX : a + b;
}

/* Of a text with a blank of known length less than what settings leave. */
static uint32_t longest(const struct sl_prompt *prompt, size_t n_marks,
                        const struct sl_fill_config *config, uint32_t fed)
{
    if (prompt == NULL || prompt->max_new == 0 || n_marks != 1 ||
        prompt->max_new > config->out_seq_length - fed)
        return config->out_seq_length;
    return fed + prompt->max_new;
}

/* What one text needs. */
static int measure(struct sl_workload *one, const struct sl_prompt *prompt,
                   const struct sl_hparams *hp,
                   const struct sl_fill_config *config, struct sl_error *err)
{
    uint32_t beams = sl_strategy_of(config)->room(config), first, shared = 2;
    size_t n_marks = 0;

    for (size_t i = 0; prompt != NULL && i < prompt->ids.n; i++)
        n_marks += sl_prompt_fills(prompt, prompt->ids.v[i]);
    if (prompt != NULL && n_marks == 0) {
        /* nothing to generate: the least there can be */
        *one = (struct sl_workload){.n_sequences = 1,
                                    .max_tokens = 2,
                                    .pass_positions = 1,
                                    .pass_logits = 1,
                                    .n_texts = 1};
        return 0;
    }
    /* The longest context: one token less than a pass may hold. With several
     * blanks the text grows from pass to pass, up to that at most; a blank
     * that stays empty makes it shorter by its mark. */
    first = largest(config->out_seq_length, 2) - 1;
    if (first > hp->max_positions)
        first = hp->max_positions + 1;
    if (prompt != NULL) {
        if (sl_fill_check_length(prompt->ids.n, hp, config, err) != 0)
            return -1;
        shared = (uint32_t)(prompt->ids.n + 1 - (n_marks - 1));
        if (hp->causal)
            shared = (uint32_t)prompt->ids.n - 1;
        if (n_marks == 1)
            first = hp->causal ? shared : (uint32_t)prompt->ids.n + 1;
    }
    *one = (struct sl_workload){
        .n_sequences = beams,
        .max_tokens = longest(prompt, n_marks, config, shared),
        .shared_tokens = shared,
        .pass_positions = largest(first, beams),
        .pass_logits = beams,
        .n_texts = 1,
    };
    if (config->strategy == SL_STRATEGY_BASE)
        sl_drafts_workload(config->drafts, one);
    return 0;
}

/* What holds for each text; 0 shared tokens: none is filled. */
static void cover_text(struct sl_workload *load, const struct sl_workload *w)
{
    load->n_sequences = largest(load->n_sequences, w->n_sequences);
    load->max_tokens = largest(load->max_tokens, w->max_tokens);
    if (load->shared_tokens == 0 ||
        (w->shared_tokens != 0 && w->shared_tokens < load->shared_tokens))
        load->shared_tokens = w->shared_tokens;
}

void sl_fill_workload_cover(struct sl_workload *load,
                            const struct sl_workload *w)
{
    cover_text(load, w);
    load->pass_positions = largest(load->pass_positions, w->pass_positions);
    load->pass_logits = largest(load->pass_logits, w->pass_logits);
    load->n_texts = largest(load->n_texts, w->n_texts);
    load->draft_positions = largest(load->draft_positions, w->draft_positions);
    if (load->draft_bytes < w->draft_bytes)
        load->draft_bytes = w->draft_bytes;
    load->draft_optional = w->draft_optional;
}

int sl_fill_workload(struct sl_workload *load, const struct sl_prompt *prompt,
                     const struct sl_hparams *hp,
                     const struct sl_fill_config *config, struct sl_error *err)
{
    struct sl_workload one;

    if (measure(&one, prompt, hp, config, err) != 0)
        return -1;
    sl_fill_workload_cover(load, &one);
    return 0;
}

int sl_fill_workload_beside(struct sl_workload *load,
                            const struct sl_prompt *prompt,
                            const struct sl_hparams *hp,
                            const struct sl_fill_config *config,
                            struct sl_error *err)
{
    struct sl_workload one;

    if (measure(&one, prompt, hp, config, err) != 0)
        return -1;
    cover_text(load, &one);
    load->pass_positions = sum(load->pass_positions, one.pass_positions);
    load->pass_logits = sum(load->pass_logits, one.pass_logits);
    load->n_texts = sum(load->n_texts, one.n_texts);
    load->draft_positions += one.draft_positions;
    if (load->draft_positions >= SL_PASS_SIZES)
        load->draft_positions = SL_PASS_SIZES - 1;
    load->draft_bytes += one.draft_bytes;
    load->draft_optional = one.draft_optional;
    return 0;
}
