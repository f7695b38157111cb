#include "config.h"

#include <sys/stat.h>

#include <xxhash.h>

#include "src/base/bytes.h"
#include "src/convert/convert_impl.h"

struct print {
    XXH3_state_t *state;
};

static int begin(struct print *p, struct sl_error *err)
{
    p->state = XXH3_createState();
    if (p->state == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for a checksum");
    XXH3_64bits_reset(p->state);
    return 0;
}

static uint64_t end(struct print *p)
{
    uint64_t sum = XXH3_64bits_digest(p->state);

    XXH3_freeState(p->state);
    return sum;
}

static void add(struct print *p, const void *data, size_t n)
{
    XXH3_64bits_update(p->state, data, n);
}

static void add_u64(struct print *p, uint64_t v)
{
    uint8_t bytes[8];

    sl_store_u64(bytes, v);
    add(p, bytes, sizeof bytes);
}

static void add_string(struct print *p, const char *s)
{
    add(p, s, strlen(s) + 1);
}

static void add_shape(struct print *p, const struct sl_ckpt_tensor *t)
{
    add_string(p, t->name);
    add_u64(p, (uint64_t)t->dtype);
    for (uint32_t i = 0; i < t->n_dims; i++)
        add_u64(p, t->shape[i]);
}

/* The files that bytes [off, off + n) of a source lie in: names, sizes, times,
 * and where in them. */
static void add_files(struct print *p, const struct sl_src *src, uint64_t off,
                      uint64_t n)
{
    uint64_t last = off + n;

    do {
        struct sl_src_place at = sl_src_where(src, off);
        struct stat st;

        add_string(p, at.file);
        add_u64(p, at.off);
        add_u64(p, at.bytes);
        if (stat(at.file, &st) == 0) {
            add_u64(p, (uint64_t)st.st_mtim.tv_sec);
            add_u64(p, (uint64_t)st.st_mtim.tv_nsec);
        }
        if (at.bytes <= at.off) /* its end, or memory's */
            break;
        off += at.bytes - at.off;
    } while (off < last);
}

static void add_hparams(struct print *p, const struct sl_hparams *hp)
{
    const struct sl_special_ids *s = &hp->text.special;
    const uint32_t numbers[] = {
        hp->n_layers,
        hp->hidden,
        hp->inner,
        hp->n_heads,
        hp->vocab,
        hp->max_positions,
        hp->position_2d,
        hp->glu,
        (uint32_t)hp->rotary,
        (uint32_t)hp->text.whitespace,
        hp->text.n_image_tokens,
        hp->text.max_blank,
        hp->text.byte_fallback,
        hp->text.n_tokens,
    };
    const int32_t ids[] = {s->mask, s->gmask, s->smask,  s->eod, s->sop,
                           s->eop,  s->enc,   s->dblock, s->eos, s->unk};

    add(p, numbers, sizeof numbers);
    add(p, ids, sizeof ids);
    add(p, &hp->norm_eps, sizeof hp->norm_eps);
}

int sl_convert_stamp(uint64_t *stamp, const struct sl_convert *cv,
                     struct sl_error *err)
{
    struct print p;

    if (begin(&p, err) != 0)
        return -1;
    add_string(&p, PACKAGE_VERSION);
    add_string(&p, cv->name);
    add_string(&p, cv->quant);
    add_hparams(&p, &cv->hp);
    add_u64(&p, (uint64_t)cv->o->compress);
    add_u64(&p, cv->adapter_sum);
    add_u64(&p, cv->tokenizer_bytes);
    add(&p, cv->tokenizer, cv->tokenizer_bytes);
    for (size_t i = 0; i < cv->n_matrices; i++) {
        const struct sl_model_matrix *m = &cv->layout.matrices[i];

        add_u64(&p, (uint64_t)m->geom.fmt);
        add_u64(&p, m->geom.group_cols);
        add_u64(&p, m->off);
        add_u64(&p, (uint64_t)cv->matrices[i].rule);
    }
    for (size_t shard = 0; shard < cv->ckpt.n_shards; shard++) {
        for (size_t i = 0; i < cv->ckpt.shards[shard].n_tensors; i++)
            add_shape(&p, &cv->ckpt.shards[shard].tensors[i]);
    }
    *stamp = end(&p);
    return 0;
}

int sl_convert_stamp_src(uint64_t *stamp, const struct sl_src *src,
                         struct sl_error *err)
{
    struct print p;

    if (begin(&p, err) != 0)
        return -1;
    add_files(&p, src, 0, sl_src_bytes(src));
    *stamp = end(&p);
    return 0;
}

static void add_bytes(struct print *p, const struct sl_ckpt_tensor *t)
{
    struct sl_sums *sums = sl_src_sums(t->src);
    struct sl_sums_piece run;

    if (sums == NULL || !sl_sums_find(sums, t->off, &run) || run.crc == 0) {
        add_files(p, t->src, t->off, sl_ckpt_extent(t));
        return;
    }
    add_u64(p, run.crc);
    add_u64(p, run.bytes);
    add_u64(p, t->off - run.off);
    for (uint32_t i = 0; i < t->n_dims; i++)
        add_u64(p, t->stride[i]);
}

static int stamp_matrix(struct sl_convert_stamp *s, const struct sl_merge *m,
                        struct sl_error *err)
{
    struct print times, bytes;
    size_t shard;

    if (begin(&times, err) != 0)
        return -1;
    if (begin(&bytes, err) != 0) {
        end(&times);
        return -1;
    }
    for (size_t i = 0; i < sl_merge_n_parts(m); i++) {
        const struct sl_ckpt_tensor *t = sl_merge_part(m, i, &shard);

        add_shape(&times, t);
        add_files(&times, t->src, t->off, sl_ckpt_extent(t));
        add_shape(&bytes, t);
        add_bytes(&bytes, t);
    }
    s->times = end(&times);
    s->bytes = end(&bytes);
    return 0;
}

unsigned sl_convert_sections_of(size_t section[3], const struct sl_convert *cv,
                                size_t matrix)
{
    const struct sl_layout *l = &cv->layout;
    const struct sl_model_matrix *m = &l->matrices[matrix];
    unsigned n = 0;

    section[n++] = m->section;
    if (m->low_bytes > 0)
        section[n++] = m->low_section;
    if (m->scale_resident)
        section[n++] = sl_layout_section_at(l, m->scale_off);
    return n;
}

int sl_convert_stamp_sections(struct sl_convert *cv, struct sl_error *err)
{
    size_t section[3];

    for (size_t i = 0; i < cv->n_matrices; i++) {
        unsigned n = sl_convert_sections_of(section, cv, i);
        struct sl_convert_stamp s;

        if (stamp_matrix(&s, &cv->matrices[i].merge, err) != 0)
            return -1;
        for (unsigned k = 0; k < n; k++) {
            struct sl_convert_stamp *to = &cv->stamps[section[k]];

            to->times =
                XXH3_64bits_withSeed(&s.times, sizeof s.times, to->times);
            to->bytes =
                XXH3_64bits_withSeed(&s.bytes, sizeof s.bytes, to->bytes);
        }
    }
    return 0;
}
