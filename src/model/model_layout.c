#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/mem.h"
#include "src/model/model_layout.h"
#include "src/model/model_meta.h"

#define TOKENIZER_TENSOR  "tokenizer.model"
#define TOKENIZER_SECTION "tokenizer"

/* Vectors come before matrices in every architecture's list: what follows
 * counts on it where it finds one by its number. */
static int count_tensors(struct sl_layout *l, struct sl_error *err)
{
    struct sl_tensor_spec spec;

    for (uint32_t i = 0; sl_arch_tensor(l->arch, &spec, &l->hp, i); i++) {
        if (spec.role != SL_ROLE_VECTOR)
            l->n_matrices++;
        else if (l->n_matrices == 0)
            l->n_small++;
        else
            return sl_fail(err, SL_ERR_INTERNAL,
                           "architecture %s lists vector %s after a matrix",
                           l->arch->name, spec.name);
    }
    return 0;
}

/* The most there can be: every vector, every matrix with scales and a low
 * plane of its own and its stage's table, the tokenizer; a section for each. */
static int allocate(struct sl_layout *l, struct sl_error *err)
{
    size_t most = l->n_small + 4 * l->n_matrices + 1;

    l->small = sl_zalloc_array(l->n_small, sizeof *l->small);
    l->matrices = sl_zalloc_array(l->n_matrices, sizeof *l->matrices);
    l->tensors = sl_zalloc_array(most, sizeof *l->tensors);
    l->sections = sl_zalloc_array(most, sizeof *l->sections);
    l->section_names = sl_zalloc_array(most, sizeof *l->section_names);
    if (l->small == NULL || l->matrices == NULL || l->tensors == NULL ||
        l->sections == NULL || l->section_names == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory to lay out %zu tensors",
                       most);
    return 0;
}

/* What a checkpoint has, or a file's own columns say, against what the
 * architecture makes of the sizes. */
static int check_matrix(const struct sl_tensor_spec *spec,
                        const struct sl_layout_matrix *in, struct sl_error *err)
{
    const struct sl_matrix *m = &in->geom;

    if (m->rows != spec->rows || m->cols != spec->cols ||
        m->n_segments != spec->n_segments)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tensor %s is %u x %u in %u segments; the model needs "
                       "%u x %u in %u",
                       spec->name, m->rows, m->cols, m->n_segments, spec->rows,
                       spec->cols, spec->n_segments);
    if (sl_matrix_check(m, err) != 0) {
        sl_error_prefix(err, "tensor %s: ", spec->name);
        return -1;
    }
    if (in->planes &&
        (m->fmt != SL_FMT_INT8 || spec->stage < 0 ||
         spec->slot == SL_SLOT_HEAD || spec->slot == SL_SLOT_ROUTER))
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tensor %s cannot lie in two planes: only int8 matrices "
                       "of the layers can",
                       spec->name);
    return 0;
}

/* Of a matrix in two planes each has half the bytes: four bits of eight. */
static int take_specs(struct sl_layout *l, const struct sl_layout_config *c,
                      struct sl_error *err)
{
    for (size_t i = 0; i < l->n_small; i++)
        sl_arch_tensor(l->arch, &l->small[i].spec, &l->hp, (uint32_t)i);
    for (size_t i = 0; i < l->n_matrices; i++) {
        struct sl_model_matrix *m = &l->matrices[i];

        sl_arch_tensor(l->arch, &m->spec, &l->hp, (uint32_t)(l->n_small + i));
        if (check_matrix(&m->spec, &c->matrices[i], err) != 0)
            return -1;
        if (c->tables && c->matrices[i].planes)
            return sl_fail(err, SL_ERR_CORRUPT,
                           "tensor %s lies in two planes, which no compressed "
                           "file can have",
                           m->spec.name);
        m->geom = c->matrices[i].geom;
        m->bytes = sl_matrix_bytes(&m->geom);
        if (c->matrices[i].planes)
            m->low_bytes = m->bytes /= 2;
        m->scale_bytes = sl_matrix_scale_bytes(&m->geom);
        m->scale_resident = m->scale_bytes > 0 && c->matrices[i].scale_resident;
    }
    return 0;
}

static void begin_section(struct sl_layout *l, const char *name)
{
    size_t i = l->n_sections++;

    /* A name that does not fit is refused with its tensor. */
    memcpy(l->section_names[i], name, strnlen(name, SL_TENSOR_NAME - 1));
    l->sections[i].name = l->section_names[i];
    l->sections[i].off = l->file_bytes;
}

/* Places a tensor at the file's end so far; the section that was begun last
 * grows with it. */
static int add_tensor(struct sl_layout *l, const char *name,
                      enum sl_ggml_type type, uint64_t ne0, uint64_t ne1,
                      uint64_t *off, struct sl_error *err)
{
    struct sl_layout_tensor *t = &l->tensors[l->n_tensors++];
    struct sl_model_section *s = &l->sections[l->n_sections - 1];
    uint64_t bytes = sl_ggml_type_bytes(type);

    if (strlen(name) >= SL_TENSOR_NAME)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tensor name %s is longer than %u bytes", name,
                       SL_TENSOR_NAME - 1);
    if (__builtin_mul_overflow(bytes, ne0, &bytes) ||
        __builtin_mul_overflow(bytes, ne1, &bytes) || bytes > INT64_MAX ||
        l->file_bytes > INT64_MAX - bytes - SL_MODEL_ALIGNMENT)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "tensor %s ends beyond what a file can hold", name);
    memcpy(t->name, name, strlen(name));
    t->type = type;
    t->n_dims = ne1 > 1 ? 2 : 1;
    t->ne[0] = ne0;
    t->ne[1] = ne1;
    t->off = l->file_bytes;
    t->bytes = bytes;
    *off = t->off;
    l->file_bytes += sl_round_up(bytes, SL_MODEL_ALIGNMENT);
    s->bytes = l->file_bytes - s->off;
    return 0;
}

/* Into the section that was begun last. */
static int add_weight(struct sl_layout *l, struct sl_model_matrix *m,
                      struct sl_error *err)
{
    const struct sl_matrix *g = &m->geom;
    uint64_t block;

    m->section = l->n_sections - 1;
    if (sl_fmt_is_float(g->fmt))
        return add_tensor(l, m->spec.name,
                          (enum sl_ggml_type)sl_fmt_of(g->fmt)->ggml_type,
                          g->cols, g->rows, &m->off, err);
    /* Our own bytes: a block of 16 rows, times the number of blocks. */
    block = sl_matrix_block_bytes(g, 0, 1);
    if (m->low_bytes > 0)
        block /= 2;
    return add_tensor(l, m->spec.name, SL_GGML_I8, block, m->bytes / block,
                      &m->off, err);
}

static int add_scale(struct sl_layout *l, struct sl_model_matrix *m,
                     struct sl_error *err)
{
    char name[sizeof m->spec.name + 8];
    uint64_t groups = sl_matrix_groups(&m->geom);

    sl_layout_name_of(name, sizeof name, m->spec.name, "scale");
    if (m->scale_resident)
        begin_section(l, name);
    return add_tensor(l, name, SL_GGML_F16, groups, m->scale_bytes / 2 / groups,
                      &m->scale_off, err);
}

void sl_layout_name_of(char *name, size_t n, const char *weight,
                       const char *what)
{
    static const char tail[] = ".weight";
    size_t length = strlen(weight);

    if (length > strlen(tail) &&
        strcmp(weight + length - strlen(tail), tail) == 0)
        length -= strlen(tail);
    snprintf(name, n, "%.*s.%s", (int)length, weight, what);
}

/* What is always in RAM lies together before anything that streams. */
static int place_resident(struct sl_layout *l, struct sl_error *err)
{
    for (size_t i = 0; i < l->n_small; i++) {
        struct sl_model_small *v = &l->small[i];

        begin_section(l, v->spec.name);
        if (add_tensor(l, v->spec.name, SL_GGML_F32, v->spec.rows, 1, &v->off,
                       err) != 0)
            return -1;
        v->bytes = (uint64_t)v->spec.rows * 4;
    }
    for (size_t i = 0; i < l->n_matrices; i++) {
        struct sl_model_matrix *m = &l->matrices[i];

        if (m->scale_resident && add_scale(l, m, err) != 0)
            return -1;
    }
    return 0;
}

/* Small enough to be spread over threads and not to be read for a few pages,
 * large enough for LZ4, which looks back 64 KiB, and for short tables. */
static uint32_t chunk_bytes(uint64_t stage_bytes)
{
    return stage_bytes < 64u << 20 ? 64u << 10 : 256u << 10;
}

/* Room behind a stage for its table. The head has none: its rows are looked
 * up one by one. */
static int end_stage(struct sl_layout *l, const struct sl_tensor_spec *last,
                     struct sl_error *err)
{
    struct sl_model_section *s = &l->sections[l->n_sections - 1];
    char name[SL_TENSOR_NAME];
    uint64_t chunks;

    if (!l->tables || last->slot == SL_SLOT_HEAD)
        return 0;
    snprintf(name, sizeof name, "sluice.stage.%d.chunks", last->stage);
    s->chunk_bytes = chunk_bytes(s->bytes);
    chunks = sl_compressed_chunks(s->bytes, s->chunk_bytes);
    s->table_bytes = sl_round_up(4 * chunks, SL_MODEL_ALIGNMENT);
    return add_tensor(l, name, SL_GGML_I8, s->table_bytes, 1, &s->table_off,
                      err);
}

/* Stages in order of use, a section each: a pass reads the file from front
 * to back. */
static int place_stages(struct sl_layout *l, struct sl_error *err)
{
    char name[SL_STAGE_NAME];
    int stage = -1;

    l->first_stage = l->n_sections;
    for (size_t i = 0; i < l->n_matrices; i++) {
        struct sl_model_matrix *m = &l->matrices[i];

        if (m->spec.stage < 0)
            break; /* embeddings follow */
        if (m->spec.stage != stage) {
            if (m->spec.stage != stage + 1)
                return sl_fail(err, SL_ERR_INTERNAL,
                               "architecture %s: stage %d of %s follows %d",
                               l->arch->name, m->spec.stage, m->spec.name,
                               stage);
            stage = m->spec.stage;
            sl_arch_stage_name(name, &l->hp, (uint32_t)stage);
            begin_section(l, name);
        }
        if (add_weight(l, m, err) != 0)
            return -1;
        if (m->scale_bytes > 0 && !m->scale_resident &&
            add_scale(l, m, err) != 0)
            return -1;
        if ((i + 1 == l->n_matrices || m[1].spec.stage != stage) &&
            end_stage(l, &m->spec, err) != 0)
            return -1;
    }
    return 0;
}

/* The low planes of a stage, behind all stages: with the high ones in memory
 * they are what a pass reads, front to back. */
static int place_low_planes(struct sl_layout *l, struct sl_error *err)
{
    char name[SL_TENSOR_NAME], stage[SL_STAGE_NAME];
    int last = -1;

    for (size_t i = 0; i < l->n_matrices; i++) {
        struct sl_model_matrix *m = &l->matrices[i];
        uint64_t block = sl_matrix_block_bytes(&m->geom, 0, 1) / 2;

        if (m->low_bytes == 0)
            continue;
        if (m->spec.stage != last) {
            last = m->spec.stage;
            sl_arch_stage_name(stage, &l->hp, (uint32_t)last);
            snprintf(name, sizeof name, "%s low", stage);
            begin_section(l, name);
        }
        m->low_section = l->n_sections - 1;
        sl_layout_name_of(name, sizeof name, m->spec.name, "low");
        if (add_tensor(l, name, SL_GGML_I8, block, m->low_bytes / block,
                       &m->low_off, err) != 0)
            return -1;
    }
    return 0;
}

/* The record of an expert: all its matrices and scales, a section. */
static void begin_expert(struct sl_layout *l, const struct sl_tensor_spec *s)
{
    char name[SL_STAGE_NAME];

    snprintf(name, sizeof name, "layer %u expert %u", s->layer, s->expert);
    begin_section(l, name);
}

/* Embeddings of their own, whose rows are looked up, and experts: no pass
 * streams them all. */
static int place_lookups(struct sl_layout *l, struct sl_error *err)
{
    for (size_t i = 0; i < l->n_matrices; i++) {
        struct sl_model_matrix *m = &l->matrices[i];

        if (m->spec.stage >= 0)
            continue;
        if (m->spec.role != SL_ROLE_EXPERT)
            begin_section(l, m->spec.name);
        else if (m->spec.expert != m[-1].spec.expert ||
                 m->spec.layer != m[-1].spec.layer ||
                 m[-1].spec.role != SL_ROLE_EXPERT)
            begin_expert(l, &m->spec);
        if (add_weight(l, m, err) != 0)
            return -1;
        if (m->scale_bytes > 0 && !m->scale_resident &&
            add_scale(l, m, err) != 0)
            return -1;
    }
    return 0;
}

static int place(struct sl_layout *l, struct sl_error *err)
{
    l->file_bytes = l->header_bytes;
    l->n_tensors = l->n_sections = 0;
    if (place_resident(l, err) != 0 || place_stages(l, err) != 0 ||
        place_low_planes(l, err) != 0 || place_lookups(l, err) != 0)
        return -1;
    if (l->tokenizer_bytes == 0)
        return 0;
    begin_section(l, TOKENIZER_SECTION);
    return add_tensor(l, TOKENIZER_TENSOR, SL_GGML_I8, l->tokenizer_bytes, 1,
                      &l->tokenizer_off, err);
}

static int fill(struct sl_layout *l, const struct sl_layout_config *c,
                struct sl_error *err)
{
    uint8_t *data;
    size_t bytes;

    l->arch = c->arch;
    l->hp = *c->hp;
    sl_arch_derive(l->arch, &l->hp);
    l->tokenizer_bytes = c->tokenizer_bytes;
    l->header_bytes = c->header_bytes;
    l->tables = c->tables;
    l->name = strdup(c->name);
    l->quant = strdup(c->quant);
    l->chat = c->chat != NULL ? strdup(c->chat) : NULL;
    l->no_text = c->no_text != NULL ? strdup(c->no_text) : NULL;
    if (l->name == NULL || l->quant == NULL ||
        (c->chat != NULL && l->chat == NULL) ||
        (c->no_text != NULL && l->no_text == NULL))
        return sl_fail(err, SL_ERR_NOMEM, "no memory for the model's name");
    if (sl_hparams_check(&l->hp, err) != 0 || count_tensors(l, err) != 0)
        return -1;
    if (c->n_matrices != l->n_matrices)
        return sl_fail(err, SL_ERR_CORRUPT,
                       "%zu matrices are described; %u layers of %s have %zu",
                       c->n_matrices, l->hp.n_layers, l->arch->name,
                       l->n_matrices);
    if (allocate(l, err) != 0 || take_specs(l, c, err) != 0 ||
        place(l, err) != 0)
        return -1;
    if (l->header_bytes != 0)
        return 0;
    /* Offsets and checksums have a fixed size: with them all zero the header
       is as long as it will be. */
    if (sl_model_meta_write(l, &data, &bytes, err) != 0)
        return -1;
    free(data);
    l->header_bytes = bytes;
    return place(l, err);
}

int sl_layout_init(struct sl_layout *layout,
                   const struct sl_layout_config *config, struct sl_error *err)
{
    struct sl_layout l = {0};

    if (fill(&l, config, err) != 0) {
        sl_layout_fini(&l);
        return -1;
    }
    *layout = l;
    return 0;
}

void sl_layout_fini(struct sl_layout *layout)
{
    free(layout->name);
    free(layout->quant);
    free(layout->chat);
    free(layout->no_text);
    free(layout->tensors);
    free(layout->small);
    free(layout->matrices);
    free(layout->sections);
    free(layout->section_names);
    memset(layout, 0, sizeof *layout);
}

size_t sl_layout_section_at(const struct sl_layout *layout, uint64_t off)
{
    size_t lo = 0, hi = layout->n_sections;

    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;

        if (layout->sections[mid].off <= off)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

int sl_layout_header(const struct sl_layout *layout, uint8_t **data,
                     struct sl_error *err)
{
    size_t bytes;

    if (sl_model_meta_write(layout, data, &bytes, err) != 0)
        return -1;
    if (bytes == layout->header_bytes)
        return 0;
    free(*data);
    return sl_fail(err, SL_ERR_INTERNAL,
                   "the header came out %zu bytes long, not %llu", bytes,
                   (unsigned long long)layout->header_bytes);
}
