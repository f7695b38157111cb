#include "config.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "quant/planes.h"
#include "src/base/mem.h"
#include "src/exec/partition.h"

struct builder {
    struct sl_partition *partition;
    const struct sl_modelfile *mf;
    uint32_t n_shared;
    size_t slab_room, first_room, part_room;
};

/* A slab of the stage that the matrix belongs to. */
static struct sl_slab *add_slab(struct builder *b, size_t matrix)
{
    const struct sl_modelfile *mf = b->mf;
    struct sl_partition *c = b->partition;

    /* first_part has one entry more than there are slabs */
    if (!sl_grow((void **)&c->slabs, &b->slab_room, c->n_slabs,
                 sizeof *c->slabs) ||
        !sl_grow((void **)&c->first_part, &b->first_room, c->n_slabs + 1,
                 sizeof *c->first_part))
        return NULL;
    c->first_part[c->n_slabs] = (uint32_t)c->n_parts;
    c->slabs[c->n_slabs] = (struct sl_slab){0};
    if (mf->compressed != NULL) {
        const struct sl_compressed *p =
            &mf->compressed[mf->first_stage +
                            (size_t)mf->matrices[matrix].spec.stage];

        c->slabs[c->n_slabs].compressed = p->n_chunks > 0 ? p : NULL;
    }
    return &c->slabs[c->n_slabs++];
}

static int add_part(struct builder *b, const struct sl_part *part)
{
    struct sl_partition *c = b->partition;

    if (!sl_grow((void **)&c->parts, &b->part_room, c->n_parts,
                 sizeof *c->parts))
        return -1;
    c->parts[c->n_parts++] = *part;
    return 0;
}

struct sl_matrix sl_part_geom(const struct sl_part *part,
                              const struct sl_model_matrix *m)
{
    return part->of == SL_PART_ALL ? m->geom : sl_matrix_plane(&m->geom);
}

enum sl_part_of sl_partition_of(const struct sl_partition *partition,
                                size_t slab)
{
    uint32_t end = partition->first_part[slab + 1];

    for (uint32_t p = partition->first_part[slab]; p < end; p++) {
        if (partition->parts[p].of != SL_PART_ALL)
            return partition->parts[p].of;
    }
    return SL_PART_ALL;
}

static enum sl_part_of high_or_all(const struct sl_model_matrix *m)
{
    return m->low_bytes > 0 ? SL_PART_HIGH : SL_PART_ALL;
}

/* The low planes of matrices [first, first + n), which lie one after another,
 * as one slab of one extent; nothing where there are none. */
static int cut_low(struct builder *b, size_t first, size_t n)
{
    const struct sl_model_matrix *matrices = b->mf->matrices;
    struct sl_slab *slab = NULL;

    for (size_t i = first; i < first + n; i++) {
        const struct sl_model_matrix *m = &matrices[i];
        struct sl_matrix g = sl_matrix_plane(&m->geom);
        struct sl_part part = {
            .matrix = (uint32_t)i,
            .of = SL_PART_LOW,
            .n_blocks = sl_matrix_segment_blocks(&g),
        };
        struct sl_extent *e;

        if (m->low_bytes == 0)
            continue;
        if (slab == NULL) {
            slab = add_slab(b, i);
            if (slab == NULL)
                return -1;
            slab->n_extents = 1;
            slab->extents[0].off = m->low_off;
        }
        e = &slab->extents[0];
        e->bytes = m->low_off + m->low_bytes - e->off;
        for (uint32_t s = 0; s < g.n_segments; s++)
            part.weight_at[s] = m->low_off - sl_extent_load_off(e) +
                                sl_matrix_block_offset(&g, s, 0);
        if (add_part(b, &part) != 0)
            return -1;
    }
    return 0;
}

/* Matrices [first, first + n), which lie one after another, as one slab of
 * one extent, and one more for their low planes. */
static int cut_whole(struct builder *b, size_t first, size_t n)
{
    const struct sl_model_matrix *m = &b->mf->matrices[first];
    struct sl_slab *slab = add_slab(b, first);
    uint64_t base = m->off - m->off % SL_PAGE_BYTES;

    if (slab == NULL)
        return -1;
    slab->n_extents = 1;
    slab->extents[0] = (struct sl_extent){
        .off = m->off,
        .bytes = sl_model_matrix_end(&m[n - 1]) - m->off,
    };
    for (size_t i = 0; i < n; i++) {
        struct sl_part part = {
            .matrix = (uint32_t)(first + i),
            .of = high_or_all(&m[i]),
            .n_blocks = sl_matrix_segment_blocks(&m[i].geom),
        };
        struct sl_matrix g = sl_part_geom(&part, &m[i]);

        for (uint32_t s = 0; s < g.n_segments; s++) {
            part.weight_at[s] =
                m[i].off - base + sl_matrix_block_offset(&g, s, 0);
            part.scale_at[s] =
                m[i].scale_off - base + sl_matrix_scale_offset(&g, s, 0);
        }
        if (add_part(b, &part) != 0)
            return -1;
    }
    return cut_low(b, first, n);
}

/* The extents of a part, some blocks of a matrix: weights of each segment, then
 * scales of each segment where they are streamed. */
static void piece_slab(struct sl_slab *slab, const struct sl_model_matrix *m,
                       const struct sl_part *part)
{
    struct sl_matrix g = sl_part_geom(part, m);
    uint64_t off = part->of == SL_PART_LOW ? m->low_off : m->off;

    slab->n_extents = 0;
    for (uint32_t s = 0; s < g.n_segments; s++)
        slab->extents[slab->n_extents++] = (struct sl_extent){
            .off = off + sl_matrix_block_offset(&g, s, part->first_block),
            .bytes =
                sl_matrix_block_bytes(&g, part->first_block, part->n_blocks),
        };
    for (uint32_t s = 0; s < g.n_segments; s++) {
        if (m->scale_resident || m->scale_bytes == 0 || part->of == SL_PART_LOW)
            break;
        slab->extents[slab->n_extents++] = (struct sl_extent){
            .off =
                m->scale_off + sl_matrix_scale_offset(&g, s, part->first_block),
            .bytes = sl_matrix_scale_block_bytes(&g, part->n_blocks),
        };
    }
}

static int cut_piece(struct builder *b, size_t matrix, enum sl_part_of of,
                     uint32_t first, uint32_t n)
{
    const struct sl_model_matrix *m = &b->mf->matrices[matrix];
    struct sl_slab *slab = add_slab(b, matrix);
    uint32_t n_seg = m->geom.n_segments;
    struct sl_part part = {
        .matrix = (uint32_t)matrix,
        .of = of,
        .first_block = first,
        .n_blocks = n,
    };

    if (slab == NULL)
        return -1;
    piece_slab(slab, m, &part);
    for (uint32_t s = 0; s < n_seg; s++) {
        part.weight_at[s] = sl_slab_extent_at(slab, s);
        if (slab->n_extents > n_seg)
            part.scale_at[s] = sl_slab_extent_at(slab, n_seg + s);
    }
    return add_part(b, &part);
}

/* Most blocks a piece may have to stay within the cap; at least one. */
static uint32_t blocks_within(const struct sl_model_matrix *m, uint64_t cap)
{
    const struct sl_part first = {.of = high_or_all(m), .n_blocks = 1};
    struct sl_slab slab;
    uint64_t one, slack;
    uint32_t blocks = sl_matrix_segment_blocks(&m->geom);

    piece_slab(&slab, m, &first);
    one = 0;
    for (uint32_t i = 0; i < slab.n_extents; i++)
        one += slab.extents[i].bytes;
    /* each extent may touch a page more at both of its ends */
    slack = 2ull * SL_PAGE_BYTES * slab.n_extents;
    if (cap <= slack + one)
        return 1;
    return (uint32_t)((cap - slack) / one < blocks ? (cap - slack) / one
                                                   : blocks);
}

static int cut_matrix(struct builder *b, size_t matrix, uint64_t cap)
{
    const struct sl_model_matrix *m = &b->mf->matrices[matrix];
    uint32_t blocks = sl_matrix_segment_blocks(&m->geom);
    uint32_t n_pieces = (uint32_t)sl_div_up(blocks, blocks_within(m, cap));
    uint32_t first = 0;

    if (sl_model_matrix_end(m) - m->off + 2ull * SL_PAGE_BYTES <= cap)
        return cut_whole(b, matrix, 1);
    for (uint32_t i = 0; i < n_pieces; i++) {
        /* evenly: sizes differ by at most one block */
        uint32_t n = (blocks - first) / (n_pieces - i);

        if (cut_piece(b, matrix, high_or_all(m), first, n) != 0 ||
            (m->low_bytes > 0 &&
             cut_piece(b, matrix, SL_PART_LOW, first, n) != 0))
            return -1;
        first += n;
    }
    assert(first == blocks);
    return 0;
}

/* Whether a device has it, which lies at the end of its stage then. */
static bool is_elsewhere(const struct builder *b,
                         const struct sl_tensor_spec *s)
{
    return (s->slot == SL_SLOT_SHARED_IN || s->slot == SL_SLOT_SHARED_OUT) &&
           s->layer < b->mf->hp.n_dense_layers + b->n_shared;
}

static int cut_stages(struct builder *b, uint64_t cap)
{
    const struct sl_modelfile *mf = b->mf;
    size_t n, of_stage;

    for (size_t i = 0; i < mf->n_matrices; i += of_stage) {
        const struct sl_model_matrix *m = &mf->matrices[i];

        if (m->spec.stage < 0)
            break; /* embeddings follow */
        for (n = 1; i + n < mf->n_matrices; n++) {
            if (m[n].spec.stage != m->spec.stage)
                break;
        }
        of_stage = n;
        while (is_elsewhere(b, &m[n - 1].spec))
            n--;
        if (sl_model_matrix_end(&m[n - 1]) - m->off + 2ull * SL_PAGE_BYTES <=
            cap) {
            if (cut_whole(b, i, n) != 0)
                return -1;
            continue;
        }
        for (size_t j = 0; j < n; j++) {
            if (cut_matrix(b, i + j, cap) != 0)
                return -1;
        }
    }
    return 0;
}

int sl_partition_make(struct sl_partition *partition,
                      const struct sl_modelfile *mf, uint64_t cap,
                      uint32_t n_shared, struct sl_error *err)
{
    struct builder b = {
        .partition = partition,
        .mf = mf,
        .n_shared = n_shared,
    };

    *partition = (struct sl_partition){0};
    if (cap > SL_SLAB_MAX_BYTES)
        cap = SL_SLAB_MAX_BYTES;
    if (cut_stages(&b, cap) != 0) {
        sl_partition_fini(partition);
        return sl_fail(err, SL_ERR_NOMEM, "no memory for the list of slabs");
    }
    partition->first_part[partition->n_slabs] = (uint32_t)partition->n_parts;
    for (size_t i = 0; i < partition->n_slabs; i++)
        partition->slabs[i].keep = sl_partition_of(partition, i) != SL_PART_LOW;
    return 0;
}

void sl_partition_fini(struct sl_partition *partition)
{
    free(partition->slabs);
    free(partition->parts);
    free(partition->first_part);
    *partition = (struct sl_partition){0};
}

uint64_t sl_partition_bytes(const struct sl_partition *partition)
{
    return partition->n_slabs *
               (sizeof *partition->slabs + sizeof *partition->first_part) +
           partition->n_parts * sizeof *partition->parts;
}

uint64_t sl_partition_largest(const struct sl_partition *partition)
{
    return sl_slabs_largest(partition->slabs, partition->n_slabs);
}
