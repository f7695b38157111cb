#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/base/clock.h"
#include "src/base/newfile.h"
#include "src/convert/convert_impl.h"
#include "src/probe/probe.h"

void sl_convert_options_init(struct sl_convert_options *o)
{
    memset(o, 0, sizeof *o);
    sl_config_init(&o->flags);
    o->ram_bytes = SL_CONVERT_RAM;
}

static char *join(const char *a, const char *b, const char *c, const char *d)
{
    size_t n = strlen(a) + strlen(b) + strlen(c) + strlen(d) + 1;
    char *s = sl_alloc_array(n, 1);

    if (s != NULL)
        snprintf(s, n, "%s%s%s%s", a, b, c, d);
    return s;
}

static int name_output(struct sl_convert *cv, struct sl_error *err)
{
    if (cv->o->output == NULL)
        cv->output = join(cv->name, "-", cv->quant, ".gguf");
    else if (sl_newfile_name(&cv->output, cv->o->output, err) != 0)
        return -1;
    if (cv->output != NULL)
        cv->partial = join(cv->output, ".partial", "", "");
    if (cv->partial != NULL)
        cv->journal = join(cv->partial, ".journal", "", "");
    if (cv->journal != NULL)
        return 0;
    return sl_fail(err, SL_ERR_NOMEM, "no memory for a path");
}

static int init_result(struct sl_convert *cv, struct sl_error *err)
{
    struct sl_convert_result *r = cv->result;

    r->n_tensors = cv->n_matrices;
    r->tensors = sl_zalloc_array(r->n_tensors, sizeof *r->tensors);
    cv->section_done =
        sl_zalloc_array(cv->layout.n_sections, sizeof *cv->section_done);
    cv->stamps = sl_zalloc_array(cv->layout.n_sections, sizeof *cv->stamps);
    if (r->tensors == NULL || cv->section_done == NULL || cv->stamps == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "no memory for %zu matrices",
                       r->n_tensors);
    for (size_t i = 0; i < r->n_tensors; i++) {
        const struct sl_model_matrix *m = &cv->layout.matrices[i];

        memcpy(r->tensors[i].name, m->spec.name, sizeof m->spec.name);
        r->tensors[i].geom = m->geom;
    }
    snprintf(r->quant, sizeof r->quant, "%s", cv->quant);
    r->file_bytes = cv->layout.file_bytes;
    r->tokenizer = cv->tokenizer_bytes > 0;
    return 0;
}

static int write_section(struct sl_convert *cv, struct sl_out *out,
                         uint64_t off, const void *data, size_t n,
                         struct sl_error *err)
{
    struct sl_model_section *s =
        &cv->layout.sections[sl_layout_section_at(&cv->layout, off)];

    sl_out_begin(out, off);
    if (sl_out_append(out, data, n, err) != 0)
        return -1;
    return sl_out_end(out, s->off + s->bytes, &s->xxh3, err);
}

/* n numbers of fmt, which is no wider, in the beginning of v to floats. */
static void widen(float *v, enum sl_fmt fmt, uint32_t n)
{
    const struct sl_fmt_info *f = sl_fmt_of(fmt);
    float x;

    /* From the back, where nothing is overwritten that is still needed. */
    for (uint32_t i = n; i-- > 0 && fmt != SL_FMT_F32;) {
        f->load(&x, v, i, 1);
        v[i] = x;
    }
}

static void warn_of_numbers(const struct sl_convert *cv, const char *tensor,
                            uint64_t n_odd, uint64_t n)
{
    if (n_odd > 0)
        sl_log(
            cv->o->log, SL_LOG_WARN,
            "tensor %s: %llu of %llu values are infinite, no numbers, or too "
            "large for FP16",
            tensor, (unsigned long long)n_odd, (unsigned long long)n);
}

/* What is no number chooses no expert. */
static int check_router(const char *tensor, uint64_t n_odd, uint64_t n,
                        struct sl_error *err)
{
    if (n_odd == 0)
        return 0;
    return sl_fail(err, SL_ERR_CORRUPT,
                   "tensor %s: %llu of %llu values are infinite or no numbers, "
                   "by which no experts can be chosen",
                   tensor, (unsigned long long)n_odd, (unsigned long long)n);
}

static int check_routers(const struct sl_convert *cv, struct sl_error *err)
{
    for (size_t i = 0; i < cv->n_matrices; i++) {
        const struct sl_merge *m = &cv->matrices[i].merge;
        const struct sl_pack_error *e = &cv->result->tensors[i].error;

        if (m->spec.role == SL_ROLE_ROUTER &&
            check_router(m->spec.name, e->n_not_finite, e->n, err) != 0)
            return -1;
    }
    return 0;
}

/* Norms and biases: FP32, a section each. */
static int write_vector(struct sl_convert *cv, struct sl_out *out, size_t i,
                        struct sl_error *err)
{
    const struct sl_merge *m = &cv->small[i];
    uint32_t n = m->spec.rows;
    float *v = sl_alloc_array(n, sizeof *v);
    void *scratch = sl_alloc_array(sl_merge_scratch_bytes(m, n), 1);
    uint64_t n_odd;
    int rc;

    if (v == NULL || scratch == NULL)
        rc = sl_fail(err, SL_ERR_NOMEM, "no memory for the %u values of %s", n,
                     m->spec.name);
    else
        rc = sl_merge_read(m, v, NULL, 0, n, scratch, err);
    if (rc == 0) {
        widen(v, m->fmt, n);
        n_odd = sl_pack_not_finite(v, SL_FMT_F32, n, cv->pool);
        if (m->spec.slot == SL_SLOT_ROUTER_BIAS)
            rc = check_router(m->spec.name, n_odd, n, err);
        else
            warn_of_numbers(cv, m->spec.name, n_odd, n);
        if (rc == 0)
            rc = write_section(cv, out, cv->layout.small[i].off, v,
                               n * sizeof *v, err);
    }
    free(v);
    free(scratch);
    return rc;
}

static int write_small(struct sl_convert *cv, struct sl_out *out,
                       struct sl_error *err)
{
    for (size_t i = 0; i < cv->n_small; i++) {
        if (write_vector(cv, out, i, err) != 0)
            return -1;
    }
    if (cv->tokenizer_bytes == 0)
        return 0;
    return write_section(cv, out, cv->layout.tokenizer_off, cv->tokenizer,
                         cv->tokenizer_bytes, err);
}

static int open_stages(struct sl_stage_out **stages, struct sl_convert *cv,
                       struct sl_out *out, struct sl_error *err)
{
    struct sl_stage_out_config config = {
        .out = out,
        .compress = cv->o->compress,
        .disk_bps = cv->o->disk_bps,
        .threads = sl_pool_threads(cv->pool),
        .most_chunks = cv->most_chunks,
    };
    struct sl_probe_dram_config dram = {
        .pool = cv->pool,
        .most_bytes = cv->slot_bytes,
    };
    struct sl_dram_rate rate;

    if (config.compress == SL_COMPRESS_AUTO) {
        if (sl_probe_dram(&rate, &dram, err) != 0)
            return -1;
        config.dram_bps = rate.bps;
    }
    return sl_stage_out_create(stages, &config, err);
}

static int write_file(struct sl_convert *cv, struct sl_error *err)
{
    struct sl_stage_out *stages = NULL;
    struct sl_partial partial;
    struct sl_out *out = NULL, *low = NULL;
    struct sl_error why;
    int rc = -1;

    if (sl_partial_open(&partial, cv, err) == 0 &&
        sl_out_open(&out, cv->partial, err) == 0 &&
        (!cv->planes || sl_out_open(&low, cv->partial, err) == 0) &&
        open_stages(&stages, cv, out, err) == 0 &&
        sl_convert_plan_chunks(cv, err) == 0 &&
        sl_convert_check_replicas(cv, err) == 0 &&
        write_small(cv, out, err) == 0 &&
        sl_convert_run(cv, &partial, out, low, stages, err) == 0 &&
        check_routers(cv, err) == 0 &&
        sl_ckpt_check_rest(&cv->ckpt, err) == 0 &&
        sl_partial_commit(&partial, out, err) == 0)
        rc = 0;
    if (stages != NULL && cv->o->compress != SL_COMPRESS_NONE)
        sl_stage_out_stats(stages, &cv->result->stages);
    sl_stage_out_destroy(stages);
    sl_out_close(low);
    sl_out_close(out);
    cv->result->resumed_bytes = partial.done_bytes;
    sl_partial_close(&partial, rc != 0,
                     rc != 0 && err->code == SL_ERR_INTERRUPTED);
    if (rc == 0)
        return 0;
    why = *err;
    if (why.code == SL_ERR_INTERRUPTED)
        sl_fail(err, why.code,
                "stopped; %s holds what is done: the same command with "
                "--resume goes on",
                cv->partial);
    else if (partial.worthwhile && partial.begun)
        sl_log(cv->o->log, SL_LOG_INFO,
               "%s is kept: %sthe same command with --resume goes on with it",
               cv->partial,
               why.code == SL_ERR_CORRUPT ? "once the file is mended, " : "");
    return -1;
}

static void fini(struct sl_convert *cv)
{
    sl_pool_destroy(cv->pool);
    sl_layout_fini(&cv->layout);
    sl_lora_close(cv->lora);
    sl_region_fini(&cv->adapters);
    free(cv->small);
    free(cv->matrices);
    free(cv->tokenizer);
    free(cv->name);
    free(cv->output);
    free(cv->partial);
    free(cv->journal);
    free(cv->section_done);
    free(cv->stamps);
    free(cv->sums);
    free(cv->chunks);
    sl_ckpt_close(&cv->ckpt);
}

int sl_convert(struct sl_convert_result *r, const struct sl_convert_options *o,
               struct sl_error *err)
{
    struct sl_convert cv = {.o = o, .result = r};
    uint64_t began = sl_clock_ns();
    int rc = -1;

    memset(r, 0, sizeof *r);
    if (sl_convert_source_open(&cv, err) == 0 &&
        sl_convert_plan_layout(&cv, err) == 0 && name_output(&cv, err) == 0 &&
        sl_convert_check_paths(&cv, err) == 0 && init_result(&cv, err) == 0 &&
        sl_pool_create(&cv.pool, o->threads, err) == 0 &&
        sl_convert_plan_memory(&cv, err) == 0 &&
        sl_convert_read_adapters(&cv, err) == 0)
        rc = write_file(&cv, err);
    if (rc == 0) {
        for (size_t i = 0; i < r->n_tensors; i++)
            warn_of_numbers(&cv, r->tensors[i].name,
                            r->tensors[i].error.n_not_finite,
                            r->tensors[i].error.n);
        r->output = cv.output;
        cv.output = NULL;
        r->ns = sl_clock_ns() - began;
    } else {
        sl_convert_result_fini(r);
    }
    fini(&cv);
    return rc;
}

void sl_convert_result_fini(struct sl_convert_result *r)
{
    free(r->output);
    free(r->tensors);
    memset(r, 0, sizeof *r);
}
