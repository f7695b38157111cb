/*
 * cache_rig.h - a file of records of 1 to MOST pages, and a slab cache
 * over it whose bytes are checked
 */
#ifndef SL_TESTS_CACHE_RIG_H
#define SL_TESTS_CACHE_RIG_H

#include "offload/slab_cache.h"
#include "tests/support.h"

#define PAGE      4096u
#define N_RECORDS 24u
#define MOST      5u /* pages of a record */

extern struct cache_rig {
    char dir[1024], path[1100];
    uint8_t *data;
    struct sl_extent records[N_RECORDS];
    uint64_t bytes, seed;
} * rig;

/* cmocka's set-up and tear-down of a group. */
int cache_rig_set_up(void **state);
int cache_rig_tear_down(void **state);

uint32_t draw(uint32_t n);
/* n different records. */
void draw_list(uint32_t *list, uint32_t n);
struct sl_slab_cache_config config_of(uint32_t n_places);
struct sl_slab_cache *open_cache(const struct sl_slab_cache_config *config);
void want(struct sl_slab_cache *c, const uint32_t *records, uint32_t n);
/* Gets, checks and puts; -1 with an error. */
int use(struct sl_slab_cache *c, uint32_t record, double uses,
        struct sl_error *err);
/* One record as a want of its own; whether it was read for that. */
bool reads(struct sl_slab_cache *c, uint32_t record, double uses);

#endif
