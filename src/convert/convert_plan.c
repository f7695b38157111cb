#include "config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/convert/convert_impl.h"
#include "src/model/quant_kind.h"
#include "src/probe/meminfo.h"

/* Slots: one is read into, one packed, one written, one spare. */
#define SLOTS      4u
#define SLOT_BYTES (32ull << 20)
/* Thread stacks, allocator slack, what libraries touch on the way. */
#define MARGIN_BYTES (12ull << 20)

/* The first matrix that comes quantised with scales of its own; NULL: none
 * does. */
static const struct sl_merge *quantised(const struct sl_convert *cv)
{
    for (size_t i = 0; i < cv->n_matrices; i++) {
        if (sl_fmt_has_scales(cv->matrices[i].merge.fmt))
            return &cv->matrices[i].merge;
    }
    return NULL;
}

/* A checkpoint that is quantised already is taken as it is. */
static int check_quantised(struct sl_quant *q, const struct sl_convert *cv,
                           const struct sl_merge *m, struct sl_error *err)
{
    const char *asked = cv->o->quant;
    unsigned tp = cv->o->quant_tp;

    if (asked != NULL && !q->keep && strcmp(asked, sl_fmt_name(m->fmt)) != 0)
        return sl_fail(err, SL_ERR_USAGE,
                       "%s: the checkpoint is quantised already (tensor %s is "
                       "%s); it can only be kept as it is, not made %s: give "
                       "--quant keep, or the FP16 checkpoint",
                       cv->o->source, m->spec.name, sl_fmt_name(m->fmt), asked);
    if (tp != 0 && tp != cv->ckpt.n_shards)
        return sl_fail(err, SL_ERR_USAGE,
                       "%s: the checkpoint was quantised in %zu parts, which "
                       "--quant-tp %u cannot change",
                       cv->o->source, cv->ckpt.n_shards, tp);
    return sl_quant_find(q, "keep", err);
}

static int matrix_format(struct sl_layout_matrix *l, struct sl_convert *cv,
                         const struct sl_quant *q, size_t i,
                         struct sl_error *err)
{
    struct sl_convert_matrix *cm = &cv->matrices[i];
    struct sl_merge *m = &cm->merge;
    struct sl_matrix *g = &l->geom;

    g->rows = m->spec.rows;
    g->cols = m->spec.cols;
    g->n_segments = m->spec.n_segments;
    cm->rule = SL_SCALE_MSE;
    g->fmt = cm->source_fmt;
    if (sl_fmt_has_scales(m->fmt)) {
        if (m->spec.role == SL_ROLE_EMBED && cv->o->head != NULL)
            return sl_fail(err, SL_ERR_USAGE,
                           "%s: tensor %s is quantised already (%s) and kept "
                           "as it is: leave out --head",
                           cv->o->source, m->spec.name, sl_fmt_name(m->fmt));
        g->group_cols = g->cols / m->n_groups;
        l->scale_resident = true;
        return 0;
    }
    if (m->spec.role == SL_ROLE_EMBED) {
        sl_quant_head(l, q, m->fmt, cv->o->head);
        if (g->fmt != m->fmt)
            sl_merge_decode(m);
        return 0;
    }
    if (q->keep && m->spec.role != SL_ROLE_ROUTER)
        return 0;
    sl_merge_decode(m);
    if (q->planes)
        cm->rule = SL_SCALE_PLANES;
    else if (sl_fmt_has_scales(q->fmt) && q->group == 0)
        cm->rule = SL_SCALE_ABSMAX;
    if (sl_quant_linear(l, q, &m->spec, cv->o->quant_tp, err) != 0)
        return -1;
    l->planes = l->planes && !cv->o->no_planes;
    cv->planes = cv->planes || l->planes;
    return 0;
}

/* --no-planes is a file to compare with; a compressed stage is had one at a
 * time, and planes are had in pairs. */
static int check_planes(const struct sl_convert_options *o,
                        const struct sl_quant *q, const char *name,
                        struct sl_error *err)
{
    if (o->no_planes && !q->planes)
        return sl_fail(
            err, SL_ERR_USAGE,
            "--no-planes belongs to --quant int8-planes; %s has none", name);
    if (q->planes && !o->no_planes && o->compress != SL_COMPRESS_NONE)
        return sl_fail(err, SL_ERR_USAGE,
                       "--compress: the planes of --quant %s are not "
                       "compressed; leave out one of the two",
                       name);
    return 0;
}

static int choose_quant(struct sl_quant *q, struct sl_quant *experts,
                        struct sl_convert *cv, struct sl_error *err)
{
    const struct sl_convert_options *o = cv->o;
    const struct sl_merge *already = quantised(cv);
    const char *name = o->quant != NULL                  ? o->quant
                       : sl_ckpt_gguf(&cv->ckpt) != NULL ? "keep"
                                                         : "int4-g64";

    if (sl_quant_find(q, name, err) != 0 ||
        sl_quant_check_head(o->head, err) != 0 ||
        check_planes(o, q, name, err) != 0)
        return -1;
    if (already != NULL) {
        if (check_quantised(q, cv, already, err) != 0)
            return -1;
        name = sl_fmt_name(already->fmt);
    } else if (sl_quant_check_tp(q, name, o->quant_tp, err) != 0) {
        return -1;
    }
    snprintf(cv->quant, sizeof cv->quant, "%s", name);
    if (already != NULL ? cv->ckpt.n_shards > 1 : o->quant_tp > 1)
        snprintf(cv->quant, sizeof cv->quant, "%s-tp%zu", name,
                 already != NULL ? cv->ckpt.n_shards : (size_t)o->quant_tp);
    if (o->no_planes)
        snprintf(cv->quant, sizeof cv->quant, "%s-no-planes", name);
    return sl_quant_find_experts(experts, cv->quant, q, o->quant_experts,
                                 &cv->hp, err);
}

/* The blocks that most weights of the layers come in; NULL: none. */
static const char *usual_blocks(const struct sl_convert *cv)
{
    uint64_t n[SL_FMT_COUNT] = {0};
    int most = -1;

    for (size_t i = 0; i < cv->n_matrices; i++) {
        const struct sl_convert_matrix *cm = &cv->matrices[i];
        const struct sl_tensor_spec *s = &cm->merge.spec;

        if (sl_fmt_has_blocks(cm->source_fmt) && s->role == SL_ROLE_LINEAR)
            n[cm->source_fmt] += (uint64_t)s->rows * s->cols;
    }
    for (int f = 0; f < SL_FMT_COUNT; f++) {
        if (n[f] > 0 && (most < 0 || n[f] > n[most]))
            most = f;
    }
    return most < 0 ? NULL : sl_fmt_name((enum sl_fmt)most);
}

/* One matrix out of parts of different blocks, as gate and up: FP32 holds both
 * exactly, at a price. */
static void tell_mixed(const struct sl_convert *cv)
{
    size_t n = 0, first = 0;

    for (size_t i = cv->n_matrices; i-- > 0;) {
        if (!cv->matrices[i].merge.mixed_blocks)
            continue;
        first = i;
        n++;
    }
    if (n > 0)
        sl_log(cv->o->log, SL_LOG_WARN,
               "%zu matrices, %s the first, have parts in different blocks: "
               "they are kept as f32, which holds all exactly and is larger; "
               "another --quant makes them smaller",
               n, cv->matrices[first].merge.spec.name);
}

/* What is kept is named by what it is; what is quantised anew is said. */
static void name_blocks(struct sl_convert *cv, const struct sl_quant *q)
{
    const char *blocks = usual_blocks(cv);

    if (blocks == NULL)
        return;
    if (q->keep)
        snprintf(cv->quant, sizeof cv->quant, "%s", blocks);
    else
        sl_log(cv->o->log, SL_LOG_INFO,
               "the file is quantised already (%s): its weights are decoded "
               "and made %s anew; --quant keep would keep them exactly",
               blocks, cv->quant);
}

int sl_convert_plan_layout(struct sl_convert *cv, struct sl_error *err)
{
    struct sl_layout_config config = {
        .arch = cv->arch,
        .hp = &cv->hp,
        .name = cv->name,
        .quant = cv->quant,
        .chat = cv->chat,
        .no_text = cv->no_text[0] != '\0' ? cv->no_text : NULL,
        .n_matrices = cv->n_matrices,
        .tokenizer_bytes = cv->tokenizer_bytes,
        .tables = cv->o->compress != SL_COMPRESS_NONE,
    };
    struct sl_layout_matrix *matrices;
    struct sl_quant q = {0}, experts = {0};
    int rc = -1;

    if (choose_quant(&q, &experts, cv, err) != 0)
        return -1;
    name_blocks(cv, &q);
    if (q.keep)
        tell_mixed(cv);
    matrices = sl_zalloc_array(cv->n_matrices, sizeof *matrices);
    if (matrices == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to plan %zu matrices",
                       cv->n_matrices);
    for (size_t i = 0; i < cv->n_matrices; i++) {
        bool expert = cv->matrices[i].merge.spec.role == SL_ROLE_EXPERT;

        if (matrix_format(&matrices[i], cv, expert ? &experts : &q, i, err) !=
            0)
            goto out;
    }
    config.matrices = matrices;
    rc = sl_layout_init(&cv->layout, &config, err);
out:
    free(matrices);
    return rc;
}

void sl_convert_chunk_room(struct sl_chunk_room *room,
                           const struct sl_convert *cv, uint32_t matrix,
                           uint64_t n_rows)
{
    const struct sl_merge *m = &cv->matrices[matrix].merge;
    const struct sl_matrix *g = &cv->layout.matrices[matrix].geom;
    uint32_t n_blocks = (uint32_t)sl_div_up(n_rows, SL_BLOCK_ROWS);
    uint64_t w = sl_fmt_row_bytes(g->fmt, g->cols);

    w *= sl_fmt_is_float(g->fmt) ? n_rows : (uint64_t)n_blocks * SL_BLOCK_ROWS;
    /* Areas begin at multiples of 64. Nothing here comes near 2^63: sides of
     * matrices are checked, rows a chunk are few. */
    *room = (struct sl_chunk_room){0};
    room->rows = (size_t)sl_round_up(n_rows * sl_merge_row_bytes(m), 64);
    room->scratch = (size_t)sl_round_up(sl_merge_scratch_bytes(m, n_rows), 64);
    room->q_scale = (size_t)sl_round_up(n_rows * m->n_groups * 2, 64);
    room->w = (size_t)sl_round_up(w, 64);
    room->scale =
        (size_t)sl_round_up(sl_matrix_scale_block_bytes(g, n_blocks), 64);
    if (cv->layout.matrices[matrix].low_bytes > 0)
        room->planes = room->w;
    room->total = room->rows + room->scratch + room->q_scale + room->w +
                  room->scale + room->planes;
}

static size_t most_scales(const struct sl_convert *cv)
{
    size_t sum = 0, most = 0;

    for (size_t i = 0; i < cv->n_matrices; i++) {
        const struct sl_model_matrix *m = &cv->layout.matrices[i];

        if (i == 0 || m->section != m[-1].section)
            sum = 0;
        sum += (size_t)m->scale_bytes;
        most = sum > most ? sum : most;
    }
    return most;
}

static size_t most_chunks(const struct sl_convert *cv)
{
    size_t most = 0;

    for (size_t i = 0; i < cv->layout.n_sections; i++) {
        size_t n = (size_t)cv->layout.sections[i].table_bytes / 4;

        most = n > most ? n : most;
    }
    return most;
}

/* Memory: what is resident now, the slots, as much page cache as one slot's
 * reading causes, and what the writer holds. The slots get what is left. */
int sl_convert_plan_memory(struct sl_convert *cv, struct sl_error *err)
{
    uint64_t fixed = sl_meminfo_resident() + sl_out_memory() + MARGIN_BYTES;
    uint64_t least = 0, slot, need;
    char text[2][SL_SIZE_TEXT];

    cv->scale_bytes = most_scales(cv);
    cv->most_chunks = most_chunks(cv);
    fixed += cv->scale_bytes + sl_stage_out_bytes(cv->most_chunks);
    if (cv->planes)
        fixed += sl_out_memory();
    if (cv->lora != NULL)
        fixed += cv->adapter_bytes + SL_LORA_READ_BYTES;
    for (uint32_t i = 0; i < cv->n_matrices; i++) {
        struct sl_chunk_room room;

        sl_convert_chunk_room(&room, cv, i, SL_BLOCK_ROWS);
        least = room.total > least ? room.total : least;
    }
    least = sl_round_up(least, SL_PAGE_BYTES);
    cv->n_slots = SLOTS;
    need = fixed + (SLOTS + 2) * least;
    if (need < sl_meminfo_peak()) /* loading the tokenizer may take more */
        need = sl_meminfo_peak();
    if (cv->o->ram_bytes < need) {
        /* What is resident differs a little from run to run; what is named
         * must work in the next one. */
        need = sl_round_up(need + (1u << 19), 1u << 20);
        return sl_fail(err, SL_ERR_BUDGET,
                       "--ram %s is too little: this conversion needs at least "
                       "%s (--ram %lluK): %u runs of 16 rows of the widest "
                       "matrix, the writer's buffers, the program itself",
                       sl_size_format(text[0], cv->o->ram_bytes),
                       sl_size_format(text[1], need),
                       (unsigned long long)need / 1024, SLOTS);
    }
    slot = (cv->o->ram_bytes - fixed) / (SLOTS + 2);
    slot = slot > SLOT_BYTES ? SLOT_BYTES : slot;
    slot = slot < least ? least : slot;
    cv->slot_bytes = (size_t)sl_round_down(slot, SL_PAGE_BYTES);
    return 0;
}

static uint32_t blocks_a_chunk(const struct sl_convert *cv, uint32_t matrix)
{
    uint32_t blocks =
        sl_matrix_segment_blocks(&cv->layout.matrices[matrix].geom);
    struct sl_chunk_room room;
    uint64_t n;

    sl_convert_chunk_room(&room, cv, matrix, SL_BLOCK_ROWS);
    n = cv->slot_bytes / room.total;
    return n < blocks ? (uint32_t)n : blocks;
}

/* Appends a matrix's chunks; only counts them where chunks is NULL. */
static void add_chunks(struct sl_chunk *chunks, size_t *n,
                       const struct sl_convert *cv, uint32_t matrix)
{
    const struct sl_matrix *g = &cv->layout.matrices[matrix].geom;
    uint32_t blocks = sl_matrix_segment_blocks(g);
    uint32_t rows = sl_matrix_segment_rows(g);
    uint32_t step = cv->matrices[matrix].blocks_a_chunk;

    for (uint32_t segment = 0; segment < g->n_segments; segment++) {
        for (uint32_t first = 0; first < blocks; first += step) {
            uint32_t left = rows - first * SL_BLOCK_ROWS;

            if (chunks != NULL)
                chunks[*n] = (struct sl_chunk){
                    .matrix = matrix,
                    .segment = segment,
                    .first_block = first,
                    .n_rows = left / SL_BLOCK_ROWS < step
                                  ? left
                                  : step * SL_BLOCK_ROWS,
                };
            ++*n;
        }
    }
}

/* Weights count as done with the sections of their resident scales and low
 * planes, those of all matrices of their section, which stand side by side. */
static bool weights_done(const struct sl_convert *cv, size_t matrix)
{
    const struct sl_layout *l = &cv->layout;
    size_t section = l->matrices[matrix].section;

    while (matrix > 0 && l->matrices[matrix - 1].section == section)
        matrix--;
    if (!cv->section_done[section])
        return false;
    for (size_t i = matrix; i < l->n_matrices; i++) {
        const struct sl_model_matrix *m = &l->matrices[i];

        if (m->section != section)
            break;
        if (m->scale_resident &&
            !cv->section_done[sl_layout_section_at(l, m->scale_off)])
            return false;
        if (m->low_bytes > 0 && !cv->section_done[m->low_section])
            return false;
    }
    return true;
}

int sl_convert_plan_chunks(struct sl_convert *cv, struct sl_error *err)
{
    bool *done;
    size_t n = 0;

    done = sl_zalloc_array(cv->n_matrices, sizeof *done);
    if (done == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to plan %zu matrices",
                       cv->n_matrices);
    for (uint32_t i = 0; i < cv->n_matrices; i++) {
        cv->matrices[i].blocks_a_chunk = blocks_a_chunk(cv, i);
        done[i] = weights_done(cv, i);
        cv->result->tensors[i].done = !done[i];
        if (!done[i])
            add_chunks(NULL, &n, cv, i);
    }
    cv->chunks = sl_alloc_array(n + 1, sizeof *cv->chunks);
    for (uint32_t i = 0; i < cv->n_matrices && cv->chunks != NULL; i++) {
        if (!done[i])
            add_chunks(cv->chunks, &cv->n_chunks, cv, i);
    }
    free(done);
    if (cv->chunks == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to plan %zu chunks", n);
    return 0;
}
