#include "config.h"

#include "quant/planes.h"
#include "src/exec/exec_gpu_impl.h"

/* Some blocks at a time are joined to INT8: so many bytes of both segments. */
#define JOINED_BYTES (32ull << 20)

/* Of INT8. */
static uint64_t block_bytes(const struct sl_matrix *m)
{
    return sl_matrix_block_bytes(m, 0, 1);
}

uint64_t sl_gpu_joined_bytes(const struct sl_modelfile *mf)
{
    uint64_t most = 0;

    for (size_t i = 0; i < mf->n_matrices; i++) {
        const struct sl_model_matrix *m = &mf->matrices[i];
        uint64_t least = m->geom.n_segments * block_bytes(&m->geom);
        uint64_t all = least * sl_matrix_segment_blocks(&m->geom);

        if (m->low_bytes == 0)
            continue;
        if (all > JOINED_BYTES)
            all = least > JOINED_BYTES ? least : JOINED_BYTES;
        most = all > most ? all : most;
    }
    return sl_round_up(most, 256);
}

/* Blocks of a part from `done` on. */
struct piece {
    uint32_t done, n;
    struct sl_matrix geom; /* as it is multiplied */
};

/* The piece as INT8, with both planes. */
static int join(struct sl_gpu *g, struct sl_cuda_matmul *mm,
                const struct sl_gpu_planes *p, const struct piece *piece,
                struct sl_error *err)
{
    uint64_t at = piece->done * block_bytes(p->m) / 2;
    uint64_t bytes = piece->n * block_bytes(p->m);

    for (uint32_t s = 0; s < p->m->n_segments; s++) {
        uint8_t *to = g->joined + s * bytes;

        if (sl_cuda_join_planes(g->c.cuda, to, p->high[s] + at, p->low[s] + at,
                                bytes, err) != 0)
            return -1;
        mm->w[s] = to;
        mm->scale[s] += sl_matrix_scale_block_bytes(p->m, piece->done) / 2;
    }
    return 0;
}

/* The piece as INT4, with the high one. */
static int take_high(struct sl_gpu *g, struct sl_cuda_matmul *mm,
                     const struct sl_gpu_planes *p, const struct piece *piece,
                     struct sl_error *err)
{
    uint64_t n = sl_matrix_scale_block_bytes(p->m, piece->n) / 2;

    for (uint32_t s = 0; s < p->m->n_segments; s++) {
        uint16_t *to = (uint16_t *)(void *)g->joined + s * sl_round_up(n, 8);

        if (sl_cuda_scale_plane(
                g->c.cuda, to,
                mm->scale[s] +
                    sl_matrix_scale_block_bytes(p->m, piece->done) / 2,
                n, err) != 0)
            return -1;
        mm->w[s] = p->high[s] + piece->done * block_bytes(p->m) / 2;
        mm->scale[s] = to;
    }
    return 0;
}

/* Scales take less than the weights that they belong to, so that there is room
 * for those of as many blocks. */
int sl_gpu_multiply_planes(struct sl_gpu *g, const struct sl_gpu_planes *p,
                           const struct sl_cuda_matmul *mm,
                           const struct sl_gpu_product *to,
                           struct sl_error *err)
{
    uint64_t room = g->joined_bytes / (p->m->n_segments * block_bytes(p->m));
    bool both = p->low[0] != NULL;
    struct piece piece = {
        .geom = both ? *p->m : sl_matrix_plane(p->m),
    };

    for (; piece.done < mm->n_blocks; piece.done += piece.n) {
        struct sl_cuda_matmul part = *mm;

        piece.n = mm->n_blocks - piece.done;
        if (piece.n > room)
            piece.n = (uint32_t)room;
        part.m = &piece.geom;
        part.first_block = mm->first_block + piece.done;
        part.n_blocks = piece.n;
        if ((both ? join : take_high)(g, &part, p, &piece, err) != 0 ||
            sl_gpu_multiply(g, &part, to, err) != 0)
            return -1;
    }
    return 0;
}
