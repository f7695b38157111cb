#include "config.h"

#include "kernels/matmul.h"
#include "src/base/mem.h"

/* The positions are taken in runs, and a thread passes over blocks of rows for
 * one run after the other: a run's inputs stay in its L2 cache, and weights,
 * which lie in order, come past once a run. The other way round, a few blocks
 * for all positions, inputs come from afar in small pieces, which takes two
 * or three times as long as the products (bench/RESULTS.md).
 *
 * Kernels that take many positions unpack weights for PANEL of them at a time,
 * and take blocks in pairs. */
#define PANEL   96u
#define HALF    48u /* a multiple of all that a kernel keeps in registers */
#define TILE    16u
#define MAX_RUN 480u
#define GLU_RUN PANEL
/* Blocks of rows that are passed over at once, where no more take turns with
 * one position. */
#define UNIT_BLOCKS 4u
/* Such units in a call of a thread, where there is more than one run. */
#define MAX_UNITS 8u
/* Calls a thread, so that one that was held up does not keep all waiting. */
#define TURNS 8u
#define LINE  64u
/* Blocks of planes that are joined at once: as many as a kernel takes. */
#define JOIN_BLOCKS 2u

struct job {
    const struct sl_kernels *k;
    const struct sl_matmul *mm;
    const struct sl_acts *acts;
    enum sl_act act;
    float *y;
    size_t y_stride;
    size_t run;         /* positions */
    size_t unit_blocks; /* of rows */
    size_t units;       /* a run */
};

static size_t clamp(size_t n, size_t most)
{
    n = n > most ? most : n;
    return n > 1 ? n : 1;
}

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

/* y += the same rows of an adapter's B x, for n positions, the first of which
 * is p. In slices, so that what is added fits the stack whatever n is. */
static void add_low(const struct job *j, float *y, size_t y_stride,
                    uint32_t segment, uint32_t block, uint32_t n_rows, size_t p,
                    size_t n)
{
    enum { SLICE = 16, ROOM = SLICE * UNIT_BLOCKS * SL_BLOCK_ROWS };
    const size_t stride = j->unit_blocks * SL_BLOCK_ROWS;
    const struct sl_low_rank *l = j->mm->low;
    const uint8_t *w = (const uint8_t *)l->w;
    float more[ROOM];

    w += sl_matrix_block_offset(l->b, segment, block);
    for (size_t i = 0; i < n; i += SLICE) {
        const struct sl_acts a = {
            .n = n - i < SLICE ? n - i : SLICE,
            .cols = l->b->cols,
            .x = l->x + (p + i) * l->x_stride,
            .x_stride = l->x_stride,
        };

        j->k->matmul[SL_FMT_F32][SL_ACT_F32](more, stride, l->b, w, NULL,
                                             n_rows, &a);
        for (size_t k = 0; k < a.n; k++)
            j->k->add(y + (i + k) * y_stride, more + k * stride, n_rows);
    }
}

size_t sl_matmul_joined_bytes(const struct sl_matrix *m)
{
    return (size_t)(JOIN_BLOCKS * sl_matrix_block_bytes(m, 0, 1));
}

/* The high plane's product is INT4's, of weights that are 16 times as large. */
static void high_plane(const struct job *j, float *y, size_t y_stride,
                       const uint8_t *w, const uint16_t *scale, uint32_t n_rows,
                       const struct sl_acts *a)
{
    struct sl_matrix plane = sl_matrix_plane(j->mm->m);

    j->k->matmul[plane.fmt][j->act](y, y_stride, &plane, w, scale, n_rows, a);
    for (size_t i = 0; i < a->n; i++)
        for (uint32_t r = 0; r < n_rows; r++)
            y[i * y_stride + r] *= SL_PLANE_STEP;
}

/* Some blocks at a time are joined to INT8, which stays in the cache. */
static void both_planes(const struct job *j, float *y, size_t y_stride,
                        const uint8_t *high, const uint8_t *low,
                        const uint16_t *scale, uint32_t n_rows,
                        const struct sl_acts *a, unsigned worker)
{
    const struct sl_matrix *m = j->mm->m;
    const struct sl_matmul_planes *p = j->mm->planes;
    uint8_t *joined = p->joined + worker * p->joined_bytes;
    size_t scales = sl_matrix_scale_block_bytes(m, 1) / sizeof *scale;

    for (uint32_t row = 0, n; row < n_rows; row += n) {
        size_t blocks, bytes;

        n = (uint32_t)clamp(n_rows - row, JOIN_BLOCKS * SL_BLOCK_ROWS);
        blocks = sl_div_up(n, SL_BLOCK_ROWS);
        bytes = (size_t)sl_matrix_block_bytes(m, 0, (uint32_t)blocks);
        j->k->join_planes(joined, high, low, bytes);
        j->k->matmul[m->fmt][j->act](y + row, y_stride, m, joined, scale, n, a);
        high += bytes / 2;
        low += bytes / 2;
        scale += blocks * scales;
    }
}

/* The same, of whichever planes are wanted; block: from mm->first_block on. */
static void planes_product(const struct job *j, float *y, size_t y_stride,
                           uint32_t segment, uint32_t block, uint32_t n_rows,
                           const struct sl_acts *a, unsigned worker)
{
    const struct sl_matmul *mm = j->mm;
    const uint8_t *high = mm->w[segment], *low = mm->planes->low[segment];
    const uint16_t *scale = mm->scale[segment];
    size_t at = (size_t)sl_matrix_block_bytes(mm->m, 0, block) / 2;

    scale += sl_matrix_scale_block_bytes(mm->m, block) / sizeof *scale;
    if (mm->planes->high_only)
        high_plane(j, y, y_stride, high + at, scale, n_rows, a);
    else
        both_planes(j, y, y_stride, high + at, low + at, scale, n_rows, a,
                    worker);
}

/* Some positions: the first of them, and who computes them. */
struct turn {
    const struct sl_acts *a;
    size_t p;
    unsigned worker;
};

/* y (n, stride) = n_rows rows of one segment, from the block-th of the given
 * blocks on, with what an adapter adds and their bias. */
static void product(const struct job *j, float *y, size_t y_stride,
                    uint32_t segment, uint32_t block, uint32_t n_rows,
                    const struct turn *t)
{
    const struct sl_matmul *mm = j->mm;
    const struct sl_matrix *m = mm->m;
    uint32_t first = mm->first_block + block;
    const uint8_t *w = mm->w[segment];
    const uint16_t *scale = mm->scale[segment];
    const struct sl_acts *a = t->a;
    size_t p = t->p;

    w += sl_matrix_block_bytes(m, mm->first_block, block);
    if (mm->planes == NULL && sl_fmt_has_scales(m->fmt))
        scale += sl_matrix_scale_block_bytes(m, block) / sizeof *scale;
    if (mm->planes != NULL)
        planes_product(j, y, y_stride, segment, block, n_rows, a, t->worker);
    else
        j->k->matmul[m->fmt][j->act](y, y_stride, m, w, scale, n_rows, a);
    if (mm->low != NULL)
        add_low(j, y, y_stride, segment, first, n_rows, p, a->n);
    if (mm->bias == NULL)
        return;
    for (size_t i = 0; i < a->n; i++)
        j->k->add(y + i * y_stride,
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

/* Blocks [begin, end) for one run of positions. */
static void plain_blocks(const struct job *j, const struct turn *t,
                         size_t begin, size_t end)
{
    size_t segment_rows = sl_matrix_segment_rows(j->mm->m);
    const struct sl_matmul_heads *h = j->mm->heads;
    uint32_t n_rows = rows_in(j, begin, end);
    size_t row = (j->mm->first_block + begin) * SL_BLOCK_ROWS;

    if (h != NULL)
        row = row / (h->blocks * SL_BLOCK_ROWS) * h->y_step +
              row % (h->blocks * SL_BLOCK_ROWS);
    for (uint32_t s = 0; s < j->mm->m->n_segments; s++)
        product(j, j->y + t->p * j->y_stride + s * segment_rows + row,
                j->y_stride, s, (uint32_t)begin, n_rows, t);
}

/* Both halves of the same rows, then their product: no array of both halves
 * for all rows is ever needed. */
static void glu_blocks(const struct job *j, const struct turn *t, size_t begin,
                       size_t end)
{
    const size_t stride = j->unit_blocks * SL_BLOCK_ROWS;
    uint32_t n_rows = rows_in(j, begin, end);
    float half[2][GLU_RUN * UNIT_BLOCKS * SL_BLOCK_ROWS];
    void (*glu)(float *, const float *, const float *, size_t) =
        j->mm->epilogue == SL_EPI_SWIGLU ? j->k->swiglu : j->k->geglu;

    for (uint32_t s = 0; s < 2; s++)
        product(j, half[s], stride, s, (uint32_t)begin, n_rows, t);
    for (size_t i = 0; i < t->a->n; i++)
        glu(j->y + (t->p + i) * j->y_stride +
                (j->mm->first_block + begin) * SL_BLOCK_ROWS,
            half[0] + i * stride, half[1] + i * stride, n_rows);
}

/* Bytes of one position's input in the form that is multiplied. */
static size_t input_bytes(const struct sl_kernels *k, const struct sl_acts *a,
                          enum sl_act act)
{
    const size_t value_bytes[] = {
        [SL_ACT_F32] = sizeof(float),
        [SL_ACT_INT8] = 1,
        [SL_ACT_BF16] = k->bf16_bytes,
    };

    return a->cols * value_bytes[act];
}

/* Asks for a run's inputs, in the order in which they lie: the kernels go over
 * them in columns, 512 bytes here and there. */
static void fetch(const struct job *j, const struct sl_acts *a)
{
    const uint8_t *at = (const uint8_t *)a->x;
    size_t stride = a->x_stride * sizeof(float);
    size_t n = input_bytes(j->k, a, j->act);

    if (j->act == SL_ACT_INT8) {
        at = (const uint8_t *)a->q;
        stride = a->q_stride;
    } else if (j->act == SL_ACT_BF16) {
        at = a->bf16;
        stride = a->bf16_stride;
    }
    for (size_t p = 0; p < a->n; p++, at += stride) {
        for (size_t i = 0; i < n; i += LINE)
            __builtin_prefetch(at + i, 0, 2);
    }
}

/* Inputs of positions from p on, of a head where blocks have their own. */
static struct sl_acts inputs_of(const struct job *j, size_t p, size_t n,
                                size_t head)
{
    const struct sl_matmul_heads *h = j->mm->heads;
    struct sl_acts a = slice(j->acts, head * j->acts->n + p, n);

    if (h != NULL && a.x != NULL)
        a.x = j->acts->x + p * a.x_stride + head * h->x_step;
    a.reading = &j->k->reading;
    return a;
}

/* Units [begin, end) of all: those of the first run, of the second ... */
static void units(void *arg, size_t begin, size_t end, unsigned worker)
{
    const struct job *j = arg;
    const struct sl_matmul *mm = j->mm;
    bool glu = mm->epilogue != SL_EPI_NONE;
    size_t run = SIZE_MAX, of = SIZE_MAX;
    struct sl_acts a;
    struct turn t = {.a = &a, .worker = worker};

    for (size_t i = begin; i < end; i++) {
        size_t p = i / j->units * j->run, left = j->acts->n - p;
        size_t first = i % j->units * j->unit_blocks, head = 0;
        size_t last = first + j->unit_blocks;

        if (last > mm->n_blocks)
            last = mm->n_blocks;
        if (mm->heads != NULL)
            head = (mm->first_block + first) / mm->heads->blocks;
        if (i / j->units != run || head != of) {
            run = i / j->units;
            of = head;
            a = inputs_of(j, p, left < j->run ? left : j->run, head);
            if (a.n < j->acts->n)
                fetch(j, &a);
        }
        t.p = p;
        (glu ? glu_blocks : plain_blocks)(j, &t, first, last);
    }
}

/* Positions of a run: as many as leave a quarter of the cache to the weights;
 * runs of about the same length where there are several. */
static size_t run_of(size_t n, size_t most, size_t input_bytes,
                     size_t cache_bytes)
{
    size_t fit = cache_bytes / 4 * 3 / input_bytes;
    size_t step = fit >= PANEL ? PANEL : fit >= HALF ? HALF : TILE;

    fit = fit / step * step;
    fit = fit > most ? most : fit < TILE ? TILE : fit;
    return sl_round_up(sl_div_up(n, sl_div_up(n, fit)), TILE);
}

void sl_matmul_run(const struct sl_kernels *k, struct sl_pool *pool, float *y,
                   size_t y_stride, const struct sl_matmul *mm,
                   const struct sl_acts *acts, enum sl_act act)
{
    size_t turns = (size_t)sl_pool_threads(pool) * TURNS, most;
    struct job j = {.k = k,
                    .mm = mm,
                    .acts = acts,
                    .act = act,
                    .y = y,
                    .y_stride = y_stride};

    if (acts->n == 0)
        return;
    j.run = run_of(acts->n, mm->epilogue != SL_EPI_NONE ? GLU_RUN : MAX_RUN,
                   input_bytes(k, acts, act), k->l2_bytes);
    most = acts->n == 1 && k->reading.places > UNIT_BLOCKS ? k->reading.places
                                                           : UNIT_BLOCKS;
    j.unit_blocks = clamp(mm->n_blocks / turns, most);
    if (acts->n > 1)
        j.unit_blocks += j.unit_blocks & 1;
    while (mm->heads != NULL && (mm->heads->blocks % j.unit_blocks != 0 ||
                                 mm->first_block % j.unit_blocks != 0))
        j.unit_blocks--; /* a unit lies within a head */
    j.units = sl_div_up(mm->n_blocks, j.unit_blocks);
    if (acts->n <= j.run)
        sl_pool_for(pool, j.units, 1, units, &j);
    else
        sl_pool_for(pool, j.units * sl_div_up(acts->n, j.run),
                    clamp(j.units / TURNS, MAX_UNITS), units, &j);
}

bool sl_matmul_takes(const struct sl_kernels *k, const struct sl_matrix *m,
                     enum sl_act act)
{
    bool groups = !sl_fmt_has_scales(m->fmt) ||
                  m->group_cols % SL_Q8_GROUP == 0 || m->group_cols >= m->cols;

    return k->matmul[m->fmt][act] != NULL &&
           (act == SL_ACT_F32 || (m->cols % SL_Q8_GROUP == 0 && groups));
}
