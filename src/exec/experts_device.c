#include "config.h"

#include <stdlib.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/exec/exec_experts.h"
#include "src/exec/expert_floor.h"
#include "src/exec/experts.h"

/* Which experts lie in a device's memory, how they come there, and from how
 * many positions on others are lent to it. */

/* So many are read at a time. */
#define LOAD_AHEAD 8u

struct used {
    float part;
    uint32_t record;
};

static int by_use(const void *a, const void *b)
{
    const struct used *x = a, *y = b;

    if (x->part != y->part)
        return (x->part < y->part) - (x->part > y->part);
    return (x->record > y->record) - (x->record < y->record);
}

/* Places for the n that were used most; false: it is not known which. */
static bool place_used(struct sl_experts *e, uint32_t n)
{
    struct used *list =
        e->usage != NULL ? sl_alloc_array(e->n_records, sizeof *list) : NULL;

    if (list == NULL)
        return false;
    for (uint32_t r = 0; r < e->n_records; r++)
        list[r] = (struct used){e->usage[r], r};
    qsort(list, e->n_records, sizeof *list, by_use);
    for (uint32_t i = 0; i < n; i++)
        e->device_place[list[i].record] = i;
    free(list);
    return true;
}

static void place_alike(struct sl_experts *e, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        e->device_place[i % e->n_layers * e->n_experts + i / e->n_layers] = i;
}

uint32_t sl_experts_shared_within(const struct sl_experts *e, uint64_t bytes)
{
    uint64_t n = 0;

    if (e->shared_bytes > 0 && !sl_modelfile_has_planes(e->mf))
        n = bytes / e->shared_bytes;
    return n < e->n_layers ? (uint32_t)n : e->n_layers;
}

uint64_t sl_experts_place_on_device(struct sl_experts *e, uint64_t bytes)
{
    uint64_t shared = sl_experts_shared_bytes(e), n = 0;

    if (e->n_records > 0 && bytes > shared)
        n = (bytes - shared) / e->largest;
    e->n_device = (uint32_t)(n < e->n_records ? n : e->n_records);
    for (uint32_t r = 0; r < e->n_records; r++)
        e->device_place[r] = SL_NO_PLACE;
    if (!place_used(e, e->n_device))
        place_alike(e, e->n_device);
    return shared + e->n_device * e->largest;
}

uint64_t sl_experts_device_at(const struct sl_experts *e, uint32_t layer,
                              uint32_t expert)
{
    if (expert == e->n_experts)
        return (layer - e->first_layer) * e->shared_bytes;
    return sl_experts_shared_bytes(e) +
           e->device_place[sl_experts_record(e, layer, expert)] * e->largest;
}

/* From memory that has nothing else until it is there. */
static int send(struct sl_device *dev, struct sl_event *sent, uint8_t *to,
                const uint8_t *from, uint64_t bytes, struct sl_error *err)
{
    if (dev->ops->copy_up(dev, SL_QUEUE_COMPUTE, to, from, bytes, err) != 0 ||
        dev->ops->record(dev, SL_QUEUE_COMPUTE, sent, err) != 0)
        return -1;
    return dev->ops->sync(dev, sent, err);
}

/* By way of the cache's places, in which nothing lies yet. */
static int load_shared(struct sl_experts *e, struct sl_device *dev,
                       struct sl_event *sent, uint8_t *to, struct sl_error *err)
{
    uint64_t room;
    uint8_t *place = sl_slab_cache_memory(e->cache, &room);

    for (uint32_t i = 0; i < e->n_shared; i++) {
        uint32_t layer = e->first_layer + i;
        struct sl_extent x = sl_experts_shared_extent(e, layer);
        uint8_t *at = to + sl_experts_device_at(e, layer, e->n_experts);

        for (uint64_t done = 0, n; done < x.bytes; done += n) {
            n = x.bytes - done < room ? x.bytes - done : room;
            if (sl_modelfile_read(e->mf, place, x.off + done, n, err) != 0 ||
                send(dev, sent, at + done, place, n, err) != 0)
                return -1;
        }
    }
    return 0;
}

static int load_record(struct sl_experts *e, struct sl_device *dev,
                       struct sl_event *sent, uint32_t record, uint8_t *to,
                       struct sl_error *err)
{
    uint32_t layer = e->first_layer + record / e->n_experts;
    const uint8_t *base;
    int rc;

    if (sl_slab_cache_get(e->cache, record, &base, err) != 0)
        return -1;
    rc = send(dev, sent,
              to + sl_experts_device_at(e, layer, record % e->n_experts), base,
              e->records[record].bytes, err);
    if (sl_slab_cache_put(e->cache, record, 0, err) != 0)
        return -1;
    return rc;
}

static int load_records(struct sl_experts *e, struct sl_device *dev,
                        struct sl_event *sent, uint8_t *to,
                        struct sl_error *err)
{
    uint32_t list[LOAD_AHEAD], n = 0;

    for (uint32_t r = 0; r < e->n_records; r++) {
        if (e->device_place[r] != SL_NO_PLACE)
            list[n++] = r;
        if (n == 0 || (n < LOAD_AHEAD && r + 1 < e->n_records &&
                       (r + 1) % e->n_experts != 0))
            continue;
        if (sl_slab_cache_want(e->cache, list, n, err) != 0)
            return -1;
        for (uint32_t i = 0; i < n; i++) {
            if (load_record(e, dev, sent, list[i], to, err) != 0)
                return -1;
        }
        n = 0;
    }
    return 0;
}

int sl_experts_load(struct sl_experts *e, struct sl_device *dev, void *to,
                    struct sl_error *err)
{
    struct sl_event *sent;
    int rc;

    if (e->n_device + e->n_shared == 0)
        return 0;
    if (dev->ops->event_create(dev, &sent, false, err) != 0)
        return -1;
    rc = load_shared(e, dev, sent, to, err);
    if (rc == 0)
        rc = load_records(e, dev, sent, to, err);
    dev->ops->event_destroy(dev, sent);
    sl_slab_cache_count_anew(e->cache); /* no pass wanted these */
    return rc;
}

/* --- lending -------------------------------------------------------------- */

/* bytes / link + (a row's crossing and arithmetic there) rows = (its arithmetic
 * here) rows. */
uint32_t sl_experts_lend_rows(const struct sl_experts *e,
                              const struct sl_rates *rates)
{
    const struct sl_worker *host = &rates->worker[SL_HOST];
    const struct sl_worker *device = &rates->worker[SL_DEVICE];
    double ops = sl_expert_ops(e), copy, gain;

    if (host->ops_per_s <= 0 || device->ops_per_s <= 0 || device->link_bps <= 0)
        return 0;
    copy = (double)e->largest / device->link_bps + device->stage_s +
           device->link_latency_s;
    gain = ops / host->ops_per_s - ops / device->ops_per_s -
           SL_LENT_ROW_BYTES * e->mf->hp.hidden / device->link_bps;
    return gain > 0 && copy / gain < UINT32_MAX / 2
               ? 1 + (uint32_t)(copy / gain)
               : 0;
}

void sl_experts_lend(struct sl_experts *e, struct sl_device *dev,
                     const struct sl_rates *rates, const struct sl_log *log)
{
    struct sl_error refused;
    char size[SL_SIZE_TEXT];
    uint64_t bytes;
    void *base;

    e->lend_rows = sl_experts_lend_rows(e, rates);
    if (e->lend_rows == 0 || e->n_device == e->n_records)
        return;
    base = sl_slab_cache_memory(e->cache, &bytes);
    if (dev->ops->pin(dev, base, bytes, &refused) == 0)
        e->pinned_for = dev;
    else
        sl_log(log, SL_LOG_WARN,
               "%s: %s of experts are not pinned, copies of them to the GPU "
               "are slower",
               refused.msg, sl_size_format(size, bytes));
}
