#include "config.h"

#include "src/exec/prompt_store.h"
#include "src/serve/http.h"
#include "src/serve/room.h"
#include "src/serve/sizes.h"
#include "src/text/tokenizer.h"

enum {
    USUAL_CTX = 4096, /* tokens, where the model allows and its cache is */
    LEAST_CTX = 512,  /* not larger than */
    USUAL_KV_MIB = 1024,
    ROWS_MIB = 64, /* of logits, of texts that are scored */
    LEAST_ROWS = 16,
    LARGE_BODIES = 4,
    SMALL_BODY = 64 << 10,
    SPLIT_MEMORY = 16 << 20, /* at least */
    TLS_BYTES = 16 << 10,    /* of a connection; 13 KiB were seen */
};

static uint64_t kv_bytes(const struct sl_hparams *hp)
{
    return 4ull * hp->n_layers * hp->n_kv_heads * hp->head_dim;
}

static uint32_t usual_ctx(const struct sl_hparams *hp)
{
    uint64_t n = ((uint64_t)USUAL_KV_MIB << 20) / kv_bytes(hp);

    if (n > USUAL_CTX)
        n = USUAL_CTX;
    if (n < LEAST_CTX)
        n = LEAST_CTX;
    return n < hp->max_positions ? (uint32_t)n : hp->max_positions;
}

/* So many texts as have room in twice what one may usually take. */
static uint32_t usual_parallel(const struct sl_hparams *hp, uint32_t ctx)
{
    uint64_t n = ((uint64_t)USUAL_KV_MIB << 21) / (kv_bytes(hp) * ctx);

    return n < 1                         ? 1
           : n < SL_SERVE_USUAL_PARALLEL ? (uint32_t)n
                                         : SL_SERVE_USUAL_PARALLEL;
}

/* What follows from ctx. */
static void set_parts(struct sl_sizes *z, const struct sl_hparams *hp)
{
    uint64_t rows = ((uint64_t)ROWS_MIB << 20) / (4ull * hp->vocab);

    z->part_positions = z->ctx;
    if (hp->causal && z->ctx > SL_PROMPT_PART)
        z->part_positions = SL_PROMPT_PART;
    if (rows < LEAST_ROWS)
        rows = LEAST_ROWS;
    if (rows > z->ctx)
        rows = z->ctx;
    if (z->score_rows == 0 || rows < z->score_rows)
        z->score_rows = (uint32_t)rows;
}

int sl_sizes_choose(struct sl_sizes *z, const struct sl_serve_config *c,
                    const struct sl_hparams *hp, struct sl_error *err)
{
    *z = (struct sl_sizes){.ctx = c->ctx > 0 ? c->ctx : usual_ctx(hp)};
    if (z->ctx > hp->max_positions && !hp->causal)
        return sl_fail(err, SL_ERR_USAGE,
                       "--ctx %u: the model's longest sequence is %u", z->ctx,
                       hp->max_positions);
    z->parallel = c->parallel > 0 ? c->parallel : usual_parallel(hp, z->ctx);
    set_parts(z, hp);
    return 0;
}

bool sl_sizes_shrink(struct sl_sizes *z, const struct sl_serve_config *c,
                     const struct sl_hparams *hp)
{
    if (z->score_rows / 2 >= LEAST_ROWS)
        z->score_rows /= 2;
    else if (c->parallel == 0 && z->parallel > 1)
        z->parallel /= 2;
    else if (c->ctx == 0 && z->ctx / 2 >= LEAST_CTX)
        z->ctx /= 2;
    else
        return false;
    set_parts(z, hp);
    return true;
}

uint64_t sl_sizes_bodies(const struct sl_serve_config *c)
{
    uint64_t large = LARGE_BODIES * c->body_bytes;
    uint64_t small = (uint64_t)c->connections * SMALL_BODY;

    return large > small ? large : small;
}

size_t sl_sizes_split(uint32_t ctx, uint32_t text_cost)
{
    size_t n = sl_text_most_bytes(ctx), more = SPLIT_MEMORY / text_cost;

    return n > more ? n : more;
}

uint64_t sl_sizes_beside(const struct sl_serve_config *c, uint32_t ctx,
                         uint32_t text_cost)
{
    uint64_t split = sl_sizes_split(ctx, text_cost);
    uint64_t connection = c->header_bytes + SL_PIECE_BYTES;

    if (split > c->body_bytes)
        split = c->body_bytes;
    if (c->tls_cert != NULL)
        connection += TLS_BYTES;
    return sl_room_bytes(c) + sl_sizes_bodies(c) + split * text_cost +
           c->connections * connection;
}
