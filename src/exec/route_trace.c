#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/newfile.h"
#include "src/exec/route_trace.h"

#define MAGIC        "SLROUTE1"
#define SECTOR_BYTES 512u
#define BUFFER_BYTES (64u << 10)

enum { HEAD_BYTES = 24, STEP_BYTES = 6, EXPERT_BYTES = 4 };

struct sl_route_trace {
    struct sl_newfile to;
    char *buffer; /* of its stream */
    uint32_t n_experts;
};

uint64_t sl_route_trace_bytes(void)
{
    return sizeof(struct sl_route_trace) + BUFFER_BYTES;
}

int sl_route_trace_open(struct sl_route_trace **out, const char *path,
                        const struct sl_route_shape *shape,
                        struct sl_error *err)
{
    struct sl_route_trace *t = calloc(1, sizeof *t);
    uint8_t head[HEAD_BYTES] = MAGIC;

    if (t != NULL)
        t->buffer = malloc(BUFFER_BYTES);
    if (t == NULL || t->buffer == NULL) {
        free(t);
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory for a trace", path);
    }
    t->n_experts = shape->n_experts;
    if (sl_newfile_open(&t->to, path, err) != 0) {
        sl_route_trace_drop(t);
        sl_error_prefix(err, "the trace of experts ");
        return -1;
    }
    setvbuf(t->to.file, t->buffer, _IOFBF, BUFFER_BYTES);
    sl_store_u32(head + 8, shape->n_layers);
    sl_store_u32(head + 12, shape->n_experts);
    sl_store_u32(head + 16, shape->n_used);
    sl_store_u32(head + 20, (uint32_t)(shape->record_bytes / SECTOR_BYTES));
    fwrite(head, 1, sizeof head, t->to.file);
    *out = t;
    return 0;
}

static void put_u16(FILE *f, uint32_t v)
{
    uint8_t b[2];

    sl_store_u16(b, (uint16_t)(v < UINT16_MAX ? v : UINT16_MAX));
    fwrite(b, 1, sizeof b, f);
}

void sl_route_trace_add(struct sl_route_trace *t, uint32_t layer, uint32_t n,
                        const uint32_t *first)
{
    uint32_t used = 0;

    if (t == NULL)
        return;
    for (uint32_t e = 0; e < t->n_experts; e++)
        used += first[e] < first[e + 1];
    put_u16(t->to.file, layer);
    put_u16(t->to.file, n);
    put_u16(t->to.file, used);
    for (uint32_t e = 0; e < t->n_experts; e++) {
        if (first[e] == first[e + 1])
            continue;
        put_u16(t->to.file, e);
        put_u16(t->to.file, first[e + 1] - first[e]);
    }
}

int sl_route_trace_close(struct sl_route_trace *t, struct sl_error *err)
{
    int rc;

    if (t == NULL)
        return 0;
    rc = sl_newfile_close(&t->to, err);
    if (rc != 0)
        sl_error_prefix(err, "the trace of experts ");
    free(t->buffer);
    free(t);
    return rc;
}

void sl_route_trace_drop(struct sl_route_trace *t)
{
    if (t == NULL)
        return;
    sl_newfile_drop(&t->to);
    free(t->buffer);
    free(t);
}

/* --- reading -------------------------------------------------------------- */

int sl_route_read_head(FILE *f, const char *path, struct sl_route_shape *shape,
                       struct sl_error *err)
{
    uint8_t head[HEAD_BYTES];

    if (fread(head, 1, sizeof head, f) != sizeof head ||
        memcmp(head, MAGIC, 8) != 0)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%s is no trace of experts: make one with sluice bench "
                       "--route-trace",
                       path);
    shape->n_layers = sl_load_u32(head + 8);
    shape->n_experts = sl_load_u32(head + 12);
    shape->n_used = sl_load_u32(head + 16);
    shape->record_bytes = sl_load_u32(head + 20) * (uint64_t)SECTOR_BYTES;
    if (shape->n_layers - 1 >= UINT16_MAX || shape->n_experts - 1 >= UINT16_MAX)
        return sl_fail(err, SL_ERR_CORRUPT, "%s: %u layers of %u experts", path,
                       shape->n_layers, shape->n_experts);
    return 0;
}

int sl_route_read_step(FILE *f, const char *path,
                       const struct sl_route_shape *shape,
                       struct sl_route_step *step, uint16_t *experts,
                       uint16_t *uses, bool *end, struct sl_error *err)
{
    uint8_t b[STEP_BYTES];
    size_t got = fread(b, 1, sizeof b, f);
    uint32_t next = 0; /* that an expert may be */

    *end = got == 0 && !ferror(f);
    if (*end)
        return 0;
    *step = (struct sl_route_step){sl_load_u16(b), sl_load_u16(b + 2),
                                   sl_load_u16(b + 4)};
    if (got != sizeof b || step->layer >= shape->n_layers ||
        step->n > shape->n_experts)
        return sl_fail(err, SL_ERR_CORRUPT, "%s: a step that is none", path);
    for (uint32_t i = 0; i < step->n; i++) {
        if (fread(b, 1, EXPERT_BYTES, f) != EXPERT_BYTES)
            return sl_fail(err, SL_ERR_CORRUPT, "%s is cut short", path);
        experts[i] = sl_load_u16(b);
        uses[i] = sl_load_u16(b + 2);
        if (experts[i] < next || experts[i] >= shape->n_experts)
            return sl_fail(err, SL_ERR_CORRUPT, "%s: expert %u behind %u", path,
                           experts[i], next);
        next = experts[i] + 1u;
    }
    return 0;
}
