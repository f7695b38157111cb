#include "config.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/exec/partition.h"

struct builder {
    struct sl_partition *partition;
    const struct sl_modelfile *mf;
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

static uint64_t matrix_end(const struct sl_model_matrix *m)
{
    return m->scale_bytes && !m->scale_resident ? m->scale_off + m->scale_bytes
                                                : m->off + m->bytes;
}

/* Matrices [first, first + n), which lie one after another, as one slab of
 * one extent. */
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
        .bytes = matrix_end(&m[n - 1]) - m->off,
    };
    for (size_t i = 0; i < n; i++) {
        const struct sl_matrix *g = &m[i].geom;
        struct sl_part part = {
            .matrix = (uint32_t)(first + i),
            .n_blocks = sl_matrix_segment_blocks(g),
        };

        for (uint32_t s = 0; s < g->n_segments; s++) {
            part.weight_at[s] =
                m[i].off - base + sl_matrix_block_offset(g, s, 0);
            part.scale_at[s] =
                m[i].scale_off - base + sl_matrix_scale_offset(g, s, 0);
        }
        if (add_part(b, &part) != 0)
            return -1;
    }
    return 0;
}

/* The extents of some blocks of a matrix: weights of each segment, then
 * scales of each segment where they are streamed. */
static void piece_slab(struct sl_slab *slab, const struct sl_model_matrix *m,
                       uint32_t first, uint32_t n)
{
    const struct sl_matrix *g = &m->geom;

    slab->n_extents = 0;
    for (uint32_t s = 0; s < g->n_segments; s++)
        slab->extents[slab->n_extents++] = (struct sl_extent){
            .off = m->off + sl_matrix_block_offset(g, s, first),
            .bytes = sl_matrix_block_bytes(g, first, n),
        };
    for (uint32_t s = 0; s < g->n_segments; s++) {
        if (m->scale_resident || m->scale_bytes == 0)
            break;
        slab->extents[slab->n_extents++] = (struct sl_extent){
            .off = m->scale_off + sl_matrix_scale_offset(g, s, first),
            .bytes = sl_matrix_scale_block_bytes(g, n),
        };
    }
}

static int cut_piece(struct builder *b, size_t matrix, uint32_t first,
                     uint32_t n)
{
    const struct sl_model_matrix *m = &b->mf->matrices[matrix];
    struct sl_slab *slab = add_slab(b, matrix);
    uint32_t n_seg = m->geom.n_segments;
    struct sl_part part = {
        .matrix = (uint32_t)matrix,
        .first_block = first,
        .n_blocks = n,
    };

    if (slab == NULL)
        return -1;
    piece_slab(slab, m, first, n);
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
    struct sl_slab slab;
    uint64_t one, slack;
    uint32_t blocks = sl_matrix_segment_blocks(&m->geom);

    piece_slab(&slab, m, 0, 1);
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

    if (matrix_end(m) - m->off + 2ull * SL_PAGE_BYTES <= cap)
        return cut_whole(b, matrix, 1);
    for (uint32_t i = 0; i < n_pieces; i++) {
        /* evenly: sizes differ by at most one block */
        uint32_t n = (blocks - first) / (n_pieces - i);

        if (cut_piece(b, matrix, first, n) != 0)
            return -1;
        first += n;
    }
    assert(first == blocks);
    return 0;
}

static int cut_stages(struct builder *b, uint64_t cap)
{
    const struct sl_modelfile *mf = b->mf;
    size_t n;

    for (size_t i = 0; i < mf->n_matrices; i += n) {
        const struct sl_model_matrix *m = &mf->matrices[i];

        if (m->spec.stage < 0)
            break; /* embeddings follow */
        for (n = 1; i + n < mf->n_matrices; n++) {
            if (m[n].spec.stage != m->spec.stage)
                break;
        }
        if (matrix_end(&m[n - 1]) - m->off + 2ull * SL_PAGE_BYTES <= cap) {
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
                      struct sl_error *err)
{
    struct builder b = {.partition = partition, .mf = mf};

    *partition = (struct sl_partition){0};
    if (cap > SL_SLAB_MAX_BYTES)
        cap = SL_SLAB_MAX_BYTES;
    if (cut_stages(&b, cap) != 0) {
        sl_partition_fini(partition);
        return sl_fail(err, SL_ERR_NOMEM, "no memory for the list of slabs");
    }
    partition->first_part[partition->n_slabs] = (uint32_t)partition->n_parts;
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
