#include "config.h"

#include "kernels/matmul.h"

/* A chunk of work is some blocks of rows for all positions. The positions are
 * taken in runs whose activations stay in the L2 cache while the blocks of
 * the chunk pass over them; runs are multiples of TILE, which all numbers of
 * positions that a kernel keeps in registers divide. Kernels that take many
 * positions take blocks in pairs. */
#define CACHE_BYTES  (1u << 20)
#define TILE         48u
#define MAX_RUN      512u
#define MAX_BLOCKS   4u
#define GEGLU_BLOCKS 4u
#define GEGLU_RUN    96u
/* Chunks a thread, so that one that was held up does not keep all waiting. */
#define TURNS 8u
/* Of one position: enough to get memory going, little enough to wait for. */
#define CHUNK_BYTES (128u << 10)

struct job {
    const struct sl_kernels *k;
    const struct sl_matmul *mm;
    const struct sl_acts *acts;
    enum sl_act act;
    float *y;
    size_t y_stride;
    size_t run; /* positions */
};

static struct sl_acts slice(const struct sl_acts *a, size_t first, size_t n)
{
    struct sl_acts s = *a;

    s.n = n;
    if (a->x != NULL)
        s.x += first * a->x_stride;
    if (a->q != NULL) {
        s.q += first * a->q_stride;
        s.q_scale += first;
        s.q_sum += first;
    }
    if (a->bf16 != NULL)
        s.bf16 = (const uint8_t *)a->bf16 + first * a->bf16_stride;
    return s;
}

/* y (n, stride) = n_rows rows of one segment, from the block-th of the given
 * blocks on, with their bias. */
static void product(const struct job *j, float *y, size_t y_stride,
                    uint32_t segment, uint32_t block, uint32_t n_rows,
                    const struct sl_acts *a)
{
    const struct sl_matmul *mm = j->mm;
    const struct sl_matrix *m = mm->m;
    uint32_t first = mm->first_block + block;
    const uint8_t *w = mm->w[segment];
    const uint16_t *scale = mm->scale[segment];

    w += sl_matrix_block_bytes(m, mm->first_block, block);
    if (sl_fmt_packed(m->fmt))
        scale += sl_matrix_scale_block_bytes(m, block) / sizeof *scale;
    j->k->matmul[m->fmt][j->act](y, y_stride, m, w, scale, n_rows, a);
    if (mm->bias == NULL)
        return;
    for (size_t p = 0; p < a->n; p++)
        j->k->add(y + p * y_stride,
                  mm->bias + (size_t)segment * sl_matrix_segment_rows(m) +
                      (size_t)first * SL_BLOCK_ROWS,
                  n_rows);
}

static uint32_t rows_in(const struct job *j, size_t begin, size_t end)
{
    size_t all = sl_matrix_segment_rows(j->mm->m);
    size_t first = (j->mm->first_block + begin) * SL_BLOCK_ROWS;
    size_t n = (end - begin) * SL_BLOCK_ROWS;

    return (uint32_t)(all - first < n ? all - first : n);
}

static void plain_chunk(void *arg, size_t begin, size_t end, unsigned worker)
{
    const struct job *j = arg;
    size_t segment_rows = sl_matrix_segment_rows(j->mm->m);
    uint32_t n_rows = rows_in(j, begin, end);

    for (size_t p = 0; p < j->acts->n; p += j->run) {
        size_t left = j->acts->n - p;
        struct sl_acts a = slice(j->acts, p, left < j->run ? left : j->run);

        for (uint32_t s = 0; s < j->mm->m->n_segments; s++)
            product(j,
                    j->y + p * j->y_stride + s * segment_rows +
                        (j->mm->first_block + begin) * SL_BLOCK_ROWS,
                    j->y_stride, s, (uint32_t)begin, n_rows, &a);
    }
}

/* Both halves of the same rows, then their product: no array of both halves
 * for all rows is ever needed. */
static void geglu_chunk(void *arg, size_t begin, size_t end, unsigned worker)
{
    enum { STRIDE = GEGLU_BLOCKS * SL_BLOCK_ROWS };
    const struct job *j = arg;
    uint32_t n_rows = rows_in(j, begin, end);
    float half[2][GEGLU_RUN * STRIDE];

    for (size_t p = 0; p < j->acts->n; p += j->run) {
        size_t left = j->acts->n - p;
        struct sl_acts a = slice(j->acts, p, left < j->run ? left : j->run);

        for (uint32_t s = 0; s < 2; s++)
            product(j, half[s], STRIDE, s, (uint32_t)begin, n_rows, &a);
        for (size_t i = 0; i < a.n; i++)
            j->k->geglu(j->y + (p + i) * j->y_stride +
                            (j->mm->first_block + begin) * SL_BLOCK_ROWS,
                        half[0] + i * STRIDE, half[1] + i * STRIDE, n_rows);
    }
}

void sl_matmul_run(const struct sl_kernels *k, struct sl_pool *pool, float *y,
                   size_t y_stride, const struct sl_matmul *mm,
                   const struct sl_acts *acts, enum sl_act act)
{
    bool geglu = mm->epilogue == SL_EPI_GEGLU;
    size_t most = geglu ? GEGLU_BLOCKS : MAX_BLOCKS;
    size_t grain = mm->n_blocks / (sl_pool_threads(pool) * TURNS);
    const size_t value_bytes[] = {
        [SL_ACT_F32] = sizeof(float),
        [SL_ACT_INT8] = 1,
        [SL_ACT_BF16] = k->bf16_bytes,
    };
    size_t run = CACHE_BYTES / (acts->cols * value_bytes[act]) / TILE * TILE;
    struct job j = {k, mm, acts, act, y, y_stride, 0};

    j.run = geglu ? GEGLU_RUN : MAX_RUN;
    if (run < j.run)
        j.run = run < TILE ? TILE : run;
    if (acts->n > 1)
        grain += grain & 1;
    else if (most > CHUNK_BYTES / sl_matrix_block_bytes(mm->m, 0, 1))
        most = CHUNK_BYTES / sl_matrix_block_bytes(mm->m, 0, 1);
    grain = grain > most ? most : grain;
    grain = grain < 1 ? 1 : grain;
    sl_pool_for(pool, mm->n_blocks, grain, geglu ? geglu_chunk : plain_chunk,
                &j);
}

bool sl_matmul_takes(const struct sl_kernels *k, const struct sl_matrix *m,
                     enum sl_act act)
{
    bool groups = !sl_fmt_packed(m->fmt) || m->group_cols % SL_Q8_GROUP == 0 ||
                  m->group_cols >= m->cols;

    return k->matmul[m->fmt][act] != NULL &&
           (act == SL_ACT_F32 || (m->cols % SL_Q8_GROUP == 0 && groups));
}
