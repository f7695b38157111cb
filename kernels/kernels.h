/*
 * kernels.h - the arithmetic, behind one table of function pointers
 *
 * sl_kernels_init fills the table with the plain C reference (ref.c, the
 * meaning of each kernel) and lets each instruction set the CPU has overwrite
 * what it does better. Kernels return nothing, allocate nothing and know no
 * threads: kernels/matmul.c and the executor split the work, by blocks of
 * output rows and by heads. Every result element is summed in an order that
 * depends on neither the number of positions nor the split, so one table
 * gives the same bits for any batch, thread count and cut of the weights.
 *
 * Arrays are row-major; shapes are written in order, then the type.
 */
#ifndef SL_KERNELS_KERNELS_H
#define SL_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant/matrix.h"

#define SL_Q8_GROUP       32u         /* activations that share a scale */
#define SL_ATTEND_QUERIES 4u          /* whose scores a kernel needs room for */
#define SL_ATTEND_FLOATS  (32u << 10) /* of keys at once: half of a small L2 */

/* The inputs of a matrix product: n positions of cols values. All forms lie
 * at fixed strides, so that any part can be handed on. */
enum sl_act {
    SL_ACT_F32,  /* x as it is */
    SL_ACT_INT8, /* x quantised in groups of 32; cols % 32 == 0 */
    SL_ACT_BF16, /* x, and weights that are floats, rounded to BF16 (nearest
                  * even); their products summed in FP32. cols % 32 == 0 */
    SL_ACT_COUNT,
};

const char *sl_act_name(enum sl_act act); /* "f32", "int8", "bf16" */

/* The stride at which q's rows should lie: an odd number of cache lines, so
 * that the rows of a tile do not meet in one set of the cache. */
static inline size_t sl_q8_stride(uint32_t cols)
{
    return (((size_t)cols + 63) / 64 | 1) * 64;
}

/* How weights that come from memory are asked for by products of one position.
 * A core that goes through one place waits for it again and again, as it works
 * ahead of what is missing by less than memory takes. So blocks of 16 rows,
 * which lie in several places, take turns. What is best is the processor's
 * business (its own prefetchers, how many lines it can wait for): it is
 * measured (src/probe). Every choice gives the same bits. */
#define SL_PLACES_MOST 8u
struct sl_reading {
    uint32_t places; /* that take turns; 1 to SL_PLACES_MOST */
    uint32_t ahead;  /* bytes that each is asked for before they are used */
};

struct sl_acts {
    size_t n; /* positions */
    uint32_t cols;
    const float *x; /* (n, x_stride) f32; the first cols of each are used */
    size_t x_stride;
    /* SL_ACT_INT8, else NULL: x[c] ~ q[c] * q_scale[c / 32] */
    const int8_t *q; /* (n, q_stride) */
    size_t q_stride;
    const float *q_scale; /* (cols / 32, group_stride): group, position */
    const int32_t *q_sum; /* (cols / 16, group_stride): sum of 16 q */
    size_t group_stride;
    const void *bf16;   /* SL_ACT_BF16, else NULL: (n) rows of round_bf16 */
    size_t bf16_stride; /* bytes */
    /* Not an input: NULL, which is as sl_reading_default has it, but where
     * sl_matmul_run hands over its kernels'. */
    const struct sl_reading *reading;
};

/* One call computes n_blocks consecutive blocks of one segment for all
 * positions:   y[p * y_stride + 16 * b + r] = sum over c W[16b + r][c] x[p][c]
 * for b < n_blocks, r < 16 (only n_rows rows in all are written). w and scale
 * point to the first byte of the first block. Overwrites y; no bias. */
typedef void sl_matmul_fn(float *y, size_t y_stride, const struct sl_matrix *m,
                          const void *w, const uint16_t *scale, uint32_t n_rows,
                          const struct sl_acts *acts);

/* How keys and values are kept: a row of d values for each position of a
 * page. INT8 has behind all rows of a page a scale and an offset for each:
 *   [q: page_len * d][scale, offset: page_len * 2 f32]
 *   value = q * scale + offset
 * The offset pays: few of a head's values are as far below 0 as above it. */
enum sl_kv_kind { SL_KV_F32, SL_KV_F16, SL_KV_INT8 };

struct sl_kv_scale {
    float scale, offset;
};

/* Attention of n_q positions over one head of keys and values. The first
 * n_paged of these lie in pages of page_len positions, the others, new in this
 * pass, are rows as they were computed:
 *   s_j = (q . k_j) * scale,  j < n_keys[i];  out = softmax(s) . v
 * A query sees a prefix of the keys: in GLM the context is visible to all and
 * the rest is causal, so row i sees max(i + 1, context) keys.
 *
 * Where several heads of queries share the keys (Ainslie and others, arXiv
 * 2305.13245), a position has `group` queries, one at q, the next at q +
 * q_head, and outputs likewise; position i's see n_keys[i] keys each. With
 * room for the scores of all queries of a position the keys and values are
 * read from memory once for all of them; with room for floats too, what is
 * kept as anything else is converted once for them. A query's bits depend
 * neither on those that are handed over with it nor on that room. */
struct sl_attend_args {
    float *out; /* (n_q, out_stride): (group, out_head), d values in each */
    size_t out_stride;
    const float *q; /* (n_q, q_stride): (group, q_head), d values in each */
    size_t q_stride;
    size_t n_q;
    size_t q_head, out_head;
    uint32_t group;             /* 0 as 1 */
    const uint32_t *n_keys;     /* (n_q), each > 0 */
    const void *const *k_pages; /* each (page_len, d) as kv_kind says */
    const void *const *v_pages;
    uint32_t page_len;
    uint32_t d;     /* values a head */
    uint32_t out_d; /* that are wanted of an output, the first; 0: all */
    enum sl_kv_kind kv_kind;
    uint32_t n_paged;
    const float *k_new, *v_new; /* (keys less n_paged, new_stride) */
    size_t new_stride;
    float scale;
    float *scores;       /* scratch, (score_rows, largest n_keys) */
    uint32_t score_rows; /* 0 as SL_ATTEND_QUERIES, at least so many */
    float *floats;       /* scratch, (n_floats): keys of some pages */
    size_t n_floats;     /* 0: there is none */
};

struct sl_kernels {
    const char
        *isa; /* "ref", "avx2", "avxvnni", "avx512", "amx": the best allowed */
    size_t l2_bytes;           /* of the cache that a core has for itself */
    struct sl_reading reading; /* as sl_kernels_init has it the default */

    /* [format][activations]; never NULL but for float formats with
     * SL_ACT_INT8. */
    sl_matmul_fn *matmul[SL_FMT_COUNT][SL_ACT_COUNT];
    /* cols % 32 == 0 values rounded to BF16, in the form that the products of
     * this table take: bf16_bytes each. */
    void (*round_bf16)(void *to, const float *x, uint32_t cols);
    uint32_t bf16_bytes;

    /* y = (x - mean) / sqrt(var + eps) * w + b over h values; y may be x. */
    void (*layer_norm)(float *y, const float *x, const float *w, const float *b,
                       uint32_t h, float eps);
    /* y = x / sqrt(mean(x^2) + eps) * w over h values; y may be x. (Zhang and
     * Sennrich, arXiv 1910.07467, equation 4; eps inside of the root, as
     * transformers' LlamaRMSNorm and ChatGLM2's RMSNorm have it) */
    void (*rms_norm)(float *y, const float *x, const float *w, uint32_t h,
                     float eps);
    /* Groups of 32: scale = max|x| / 127 (0 for an all-zero group),
     * q = round-half-even(x / scale), sum = sums of 16 q. cols % 32 == 0. Group
     * g has scale[g * stride], sum[2 g * stride] and sum[(2 g + 1) * stride].
     */
    void (*quantize_q8)(int8_t *q, float *scale, int32_t *sum, size_t stride,
                        const float *x, uint32_t cols);
    /* A row of n > 0 values from its least (q = -128) to its largest (127):
     * scale = (max - min) / 255, offset = min + 128 * scale,
     * q = round-half-even((x - offset) / scale), 0 where all are equal. */
    void (*quantize_row)(int8_t *q, struct sl_kv_scale *scale, const float *x,
                         size_t n);
    /* Rotates pairs (i, i + half): x[i] = x[i] cos[i] - x[i+half] sin[i],
     * x[i+half] = x[i+half] cos[i] + x[i] sin[i], i < half. In place. */
    void (*rope)(float *x, const float *cos, const float *sin, uint32_t half);
    /* The same for pairs (2i, 2i + 1), i < half: the first 2 * half values are
     * rotated. (ChatGLM2 and later; modeling_chatglm.py, apply_rotary_pos_emb)
     */
    void (*rope_inter)(float *x, const float *cos, const float *sin,
                       uint32_t half);
    void (*attend)(const struct sl_attend_args *args);
    /* y[i] = a[i] * gelu_erf(b[i]); y may be a or b. (GLM-130B: the second
     * half is activated; SAT model/official/glm130b_model.py) */
    void (*geglu)(float *y, const float *a, const float *b, size_t n);
    /* y[i] = silu(a[i]) * b[i], silu(z) = z / (1 + exp(-z)); y may be a or b.
     * (The first half is activated: arXiv 2002.05202, equation 6, without
     * biases; ChatGLM2, Llama) */
    void (*swiglu)(float *y, const float *a, const float *b, size_t n);
    /* y[i] = gelu_tanh(x[i]); y may be x. (SAT --no-glu) */
    void (*gelu_tanh)(float *y, const float *x, size_t n);
    /* Both planes of so many bytes of INT8 weights, whole blocks, joined to
     * these (quant/planes.h): to is INT8 as quant/matrix.h draws it. */
    void (*join_planes)(uint8_t *to, const uint8_t *high, const uint8_t *low,
                        size_t bytes);
    /* y[i] += b[i] */
    void (*add)(float *y, const float *b, size_t n);
    /* y[i] = alpha * x[i] + y[i]; with alpha 1 exactly x[i] + y[i] */
    void (*scale_add)(float *y, float alpha, const float *x, size_t n);
    /* Conversions, round to nearest even. */
    void (*f16_to_f32)(float *y, const uint16_t *x, size_t n);
    void (*f32_to_f16)(uint16_t *y, const float *x, size_t n);
};

/* What a CPU can do, as a caller may restrict it. */
enum sl_isa {
    SL_ISA_REF,
    SL_ISA_AVX2,    /* AVX2, FMA, F16C */
    SL_ISA_AVXVNNI, /* these, and VPDPBUSD of 256 bits encoded with VEX */
    SL_ISA_AVX512,  /* AVX-512 F, BW, DQ, VL, VNNI; with AVX-VNNI or without */
    SL_ISA_AMX,     /* these, and AMX INT8 for many positions */
};

/* Good on the processors that were at hand (bench/RESULTS.md). */
extern const struct sl_reading sl_reading_default;

/* A core's L2 cache; where the system does not tell, 1 MiB. */
size_t sl_cpu_l2_bytes(void);
/* Asks the system for the tile registers of AMX, for the whole process. */
enum sl_isa sl_cpu_best_isa(void);
/* Fills the table with the best kernels up to `isa` that this CPU has. */
void sl_kernels_init(struct sl_kernels *k, enum sl_isa isa);

#endif
