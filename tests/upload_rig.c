#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/upload_rig.h"

/* xorshift64: the same bytes and slabs on every machine. */
uint64_t upload_random(struct upload_rig *r)
{
    r->seed ^= r->seed << 13;
    r->seed ^= r->seed >> 7;
    r->seed ^= r->seed << 17;
    return r->seed;
}

int upload_setup(void **state)
{
    struct upload_rig *r = calloc(1, sizeof *r);
    FILE *f;

    assert_non_null(r);
    r->seed = 88172645463325252u;
    test_temp_dir(r->dir);
    snprintf(r->path, sizeof r->path, "%s/model", r->dir);
    r->data = malloc(UPLOAD_FILE_BYTES);
    assert_non_null(r->data);
    for (size_t i = 0; i < UPLOAD_FILE_BYTES; i += 8) {
        uint64_t v = upload_random(r);

        memcpy(r->data + i, &v, 8);
    }
    f = fopen(r->path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(r->data, 1, UPLOAD_FILE_BYTES, f),
                     UPLOAD_FILE_BYTES);
    assert_int_equal(fclose(f), 0);
    *state = r;
    return 0;
}

int upload_teardown(void **state)
{
    struct upload_rig *r = *state;

    sl_plan_fini(&r->plan);
    test_remove_tree(r->dir);
    free(r->sink);
    free(r->data);
    free(r);
    return 0;
}

void upload_slabs(struct upload_rig *r, size_t n, uint64_t max_bytes)
{
    assert_true(n <= UPLOAD_MAX_SLABS);
    r->n = n;
    for (size_t i = 0; i < n; i++) {
        struct sl_slab *s = &r->slabs[i];

        s->n_extents = 1 + (uint32_t)(upload_random(r) % SL_SLAB_EXTENTS);
        for (uint32_t e = 0; e < s->n_extents; e++) {
            s->extents[e].bytes = 1 + upload_random(r) % max_bytes;
            s->extents[e].off =
                upload_random(r) % (UPLOAD_FILE_BYTES - s->extents[e].bytes);
        }
        r->sink_at[i + 1] = r->sink_at[i] + sl_slab_load_bytes(s);
    }
    free(r->sink);
    r->sink = calloc(1, r->sink_at[n]);
    assert_non_null(r->sink);
}

static void grow(uint64_t *most, uint64_t bytes)
{
    if (bytes > *most)
        *most = bytes;
}

static void plan_slab(struct sl_plan *p, size_t i, char letter, uint64_t bytes)
{
    p->tier[i] = letter == 'D'   ? SL_TIER_DISK
                 : letter == 'V' ? SL_TIER_VRAM
                                 : SL_TIER_RAM;
    p->worker[SL_PHASE_DECODE][i] =
        letter == 'C' || letter == 'P' ? SL_HOST : SL_DEVICE;
    p->worker[SL_PHASE_PREFILL][i] = letter == 'C' ? SL_HOST : SL_DEVICE;
    if (letter == 'D' || letter == 'V')
        grow(&p->at[SL_HOST].slot_bytes, bytes);
    if (letter == 'D' || letter == 'P' || letter == 'G')
        grow(&p->at[SL_DEVICE].slot_bytes, bytes);
    if (letter == 'D')
        p->streamed_bytes += bytes;
    else if (letter == 'V')
        p->at[SL_DEVICE].resident_bytes += bytes;
    else
        p->at[SL_HOST].resident_bytes += bytes;
}

void upload_plan(struct upload_rig *r, const char *letters, uint32_t n_slots)
{
    struct sl_plan *p = &r->plan;

    assert_int_equal(strlen(letters), r->n);
    sl_plan_fini(p);
    p->n_slabs = r->n;
    p->tier = calloc(r->n, sizeof *p->tier);
    assert_non_null(p->tier);
    for (int i = 0; i < SL_PHASE_COUNT; i++) {
        p->worker[i] = calloc(r->n, sizeof *p->worker[i]);
        assert_non_null(p->worker[i]);
    }
    p->uses_device = true;
    for (size_t i = 0; i < r->n; i++)
        plan_slab(p, i, letters[i], sl_slab_load_bytes(&r->slabs[i]));
    p->at[SL_HOST].n_slots =
        p->at[SL_HOST].slot_bytes > 0 ? SL_RING_MIN_SLOTS : 0;
    p->at[SL_HOST].ring_bytes =
        p->at[SL_HOST].n_slots * p->at[SL_HOST].slot_bytes;
    p->at[SL_DEVICE].n_slots = p->at[SL_DEVICE].slot_bytes > 0 ? n_slots : 0;
    p->at[SL_DEVICE].ring_bytes =
        p->at[SL_DEVICE].n_slots * p->at[SL_DEVICE].slot_bytes;
}

void upload_random_plan(struct upload_rig *r, size_t n, uint32_t n_slots)
{
    static const char *const mixes[] = {"DVCPG", "DDDV", "PPPD", "VVP",
                                        "D",     "V",    "CP",   "GD"};
    const char *mix = mixes[upload_random(r) % 8];
    char letters[UPLOAD_MAX_SLABS + 1] = "";

    for (size_t i = 0; i < n; i++)
        letters[i] = mix[upload_random(r) % strlen(mix)];
    upload_slabs(r, n, 20000);
    upload_plan(r, letters, n_slots);
}

/* --- running -------------------------------------------------------------- */

static int take_device(struct upload_rig *r, struct sl_error *err)
{
    struct sl_device *dev = r->dev;

    if (dev->ops->attach(dev, err) != 0 ||
        dev->ops->event_create(dev, &r->end, false, err) != 0)
        return -1;
    if (r->plan.at[SL_DEVICE].ring_bytes > 0 &&
        dev->ops->alloc(dev, &r->ring, r->plan.at[SL_DEVICE].ring_bytes, err) !=
            0)
        return -1;
    if (r->plan.at[SL_DEVICE].resident_bytes > 0 &&
        dev->ops->alloc(dev, &r->residents,
                        r->plan.at[SL_DEVICE].resident_bytes, err) != 0)
        return -1;
    return 0;
}

int upload_open(struct upload_rig *r, struct sl_error *err)
{
    r->stream_config.path = r->path;
    r->stream_config.slabs = r->slabs;
    r->stream_config.plan = &r->plan;
    r->stream_config.direct = true;
    r->stream_config.device = r->dev;
    if (take_device(r, err) == 0 &&
        sl_stream_open(&r->stream, &r->stream_config, err) == 0) {
        r->upload_config.dev = r->dev;
        r->upload_config.stream = r->stream;
        r->upload_config.slabs = r->slabs;
        r->upload_config.plan = &r->plan;
        r->upload_config.worker = SL_DEVICE;
        r->upload_config.ring = r->ring;
        r->upload_config.residents = r->residents;
        if (sl_upload_open(&r->upload, &r->upload_config, err) == 0)
            return 0;
    }
    upload_close(r);
    return -1;
}

void upload_close(struct upload_rig *r)
{
    sl_upload_close(r->upload);
    sl_stream_close(r->stream);
    /* what was put on the queue still reads the memory that goes */
    if (r->end != NULL) {
        struct sl_error later;

        if (r->dev->ops->record(r->dev, SL_QUEUE_COMPUTE, r->end, &later) == 0)
            r->dev->ops->sync(r->dev, r->end, &later);
        r->dev->ops->event_destroy(r->dev, r->end);
    }
    r->dev->ops->free(r->dev, r->ring);
    r->dev->ops->free(r->dev, r->residents);
    r->upload = NULL;
    r->stream = NULL;
    r->end = NULL;
    r->ring = r->residents = NULL;
}

/* Whether every extent of the slab lies where it should. */
static void check_slab(const struct upload_rig *r, size_t slab,
                       const uint8_t *base)
{
    const struct sl_slab *s = &r->slabs[slab];

    for (uint32_t e = 0; e < s->n_extents; e++)
        assert_memory_equal(base + sl_slab_extent_at(s, e),
                            r->data + s->extents[e].off, s->extents[e].bytes);
}

static bool on_gpu(const struct upload_rig *r, enum sl_phase phase, size_t slab)
{
    return r->plan.worker[phase][slab] == SL_DEVICE;
}

static int use_on_gpu(struct upload_rig *r, size_t slab, bool keep,
                      struct sl_error *err)
{
    const void *base;

    if (sl_upload_get(r->upload, slab, &base, err) != 0 ||
        r->dev->ops->copy_down(
            r->dev, SL_QUEUE_COMPUTE, r->sink + r->sink_at[slab], base,
            r->sink_at[slab + 1] - r->sink_at[slab], err) != 0)
        return -1;
    return keep ? 0 : sl_upload_put(r->upload, slab, err);
}

static int use_on_cpu(struct upload_rig *r, size_t slab, struct sl_error *err)
{
    const uint8_t *base;

    if (sl_stream_get(r->stream, slab, &base, err) != 0)
        return -1;
    check_slab(r, slab, base);
    sl_stream_put(r->stream, slab);
    return 0;
}

size_t upload_pass(struct upload_rig *r, enum sl_phase phase, size_t until,
                   bool held, struct sl_error *err)
{
    size_t i;
    int rc = 0;

    memset(r->sink, 0x55, r->sink_at[r->n]);
    sl_upload_begin(r->upload, phase);
    for (i = 0; i < r->n && i < until + held && rc == 0; i++)
        rc = on_gpu(r, phase, i) ? use_on_gpu(r, i, i == until, err)
                                 : use_on_cpu(r, i, err);
    if (rc != 0)
        return i - 1;
    if (r->dev->ops->record(r->dev, SL_QUEUE_COMPUTE, r->end, err) != 0 ||
        r->dev->ops->sync(r->dev, r->end, err) != 0)
        return 0;
    for (size_t j = 0; j < i; j++)
        if (on_gpu(r, phase, j))
            check_slab(r, j, r->sink + r->sink_at[j]);
    return i;
}
