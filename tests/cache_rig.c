#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cache_rig.h"

struct cache_rig *rig;

uint32_t draw(uint32_t n)
{
    rig->seed = rig->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rig->seed >> 33) % n;
}

struct sl_slab_cache_config config_of(uint32_t n_places)
{
    return (struct sl_slab_cache_config){
        .path = rig->path,
        .records = rig->records,
        .n_records = N_RECORDS,
        .n_places = n_places,
        .place_bytes = MOST * PAGE,
        .direct = true,
        .depth = 4,
        .read_bytes = 2 * PAGE,
    };
}

struct sl_slab_cache *open_cache(const struct sl_slab_cache_config *config)
{
    struct sl_slab_cache *c;
    struct sl_error err;

    assert_ok(sl_slab_cache_open(&c, config, &err), &err);
    return c;
}

void want(struct sl_slab_cache *c, const uint32_t *records, uint32_t n)
{
    struct sl_error err;

    assert_ok(sl_slab_cache_want(c, records, n, &err), &err);
}

int use(struct sl_slab_cache *c, uint32_t record, double uses,
        struct sl_error *err)
{
    const struct sl_extent *e = &rig->records[record];
    uint64_t first = e->bytes / 2 + 1;
    const uint8_t *base;

    if (sl_slab_cache_get_first(c, record, first, &base, err) != 0)
        return -1;
    assert_memory_equal(base, rig->data + e->off, first);
    if (sl_slab_cache_get(c, record, &base, err) != 0)
        return -1;
    assert_true(sl_slab_cache_there(c, record));
    assert_memory_equal(base, rig->data + e->off, e->bytes);
    return sl_slab_cache_put(c, record, uses, err);
}

bool reads(struct sl_slab_cache *c, uint32_t record, double uses)
{
    struct sl_slab_cache_stats before, after;
    struct sl_error err;

    sl_slab_cache_stats(c, &before);
    want(c, &record, 1);
    assert_ok(use(c, record, uses, &err), &err);
    sl_slab_cache_stats(c, &after);
    assert_int_equal(after.demand_bytes - before.demand_bytes +
                         (after.hits - before.hits) *
                             rig->records[record].bytes,
                     rig->records[record].bytes);
    return after.hits == before.hits;
}

void draw_list(uint32_t *list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = 0;

        list[i] = draw(N_RECORDS);
        while (list[j] != list[i])
            j++;
        i -= j < i;
    }
}

int cache_rig_set_up(void **state)
{
    uint64_t at = PAGE;
    FILE *f;

    rig = calloc(1, sizeof *rig);
    assert_non_null(rig);
    test_temp_dir(rig->dir);
    snprintf(rig->path, sizeof rig->path, "%s/records", rig->dir);
    for (uint32_t i = 0; i < N_RECORDS; i++) {
        rig->records[i] =
            (struct sl_extent){at, (1 + (uint64_t)draw(MOST)) * PAGE};
        at += rig->records[i].bytes;
        rig->bytes += rig->records[i].bytes;
    }
    rig->data = malloc(at);
    assert_non_null(rig->data);
    for (uint64_t i = 0; i < at; i++)
        rig->data[i] = (uint8_t)draw(256);
    f = fopen(rig->path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(rig->data, 1, at, f), at);
    assert_int_equal(fclose(f), 0);
    return 0;
}

int cache_rig_tear_down(void **state)
{
    test_remove_tree(rig->dir);
    free(rig->data);
    free(rig);
    return 0;
}
