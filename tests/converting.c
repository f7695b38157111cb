#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/converting.h"
#include "tests/support.h"

static void remember(void *opaque, enum sl_log_level level, const char *line)
{
    struct fixture *f = opaque;
    size_t n = strlen(f->said);

    snprintf(f->said + n, sizeof f->said - n, "%s\n", line);
}

int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    test_temp_dir(f->dir);
    snprintf(f->source, sizeof f->source, "%s/source", f->dir);
    snprintf(f->out, sizeof f->out, "%s/model.gguf", f->dir);
    glm_maker_init(&f->g);
    f->log = (struct sl_log){remember, f, SL_LOG_INFO};
    sl_convert_options_init(&f->o);
    f->o.source = f->source;
    f->o.output = f->out;
    f->o.threads = 2;
    f->o.quiet = true;
    f->o.force = true;
    f->o.log = &f->log;
    *state = f;
    return 0;
}

int fixture_teardown(void **state)
{
    struct fixture *f = *state;

    test_remove_tree(f->dir);
    free(f);
    return 0;
}

void convert(struct fixture *f, const char *quant)
{
    struct sl_convert_result r;
    struct sl_error err;

    f->o.quant = quant;
    assert_ok(sl_convert(&r, &f->o, &err), &err);
    sl_convert_result_fini(&r);
}

void refuse(struct fixture *f, enum sl_code code, const char *const *words)
{
    struct sl_convert_result r;
    struct sl_error err;

    assert_int_equal(sl_convert(&r, &f->o, &err), -1);
    if (err.code != code)
        fail_msg("'%s' has code %d", err.msg, err.code);
    for (; *words != NULL; words++) {
        if (strstr(err.msg, *words) == NULL)
            fail_msg("'%s' says nothing of '%s'", err.msg, *words);
    }
}
bool file_exists(const char *path, const char *tail)
{
    char name[1200];
    struct stat st;

    snprintf(name, sizeof name, "%s%s", path, tail);
    return stat(name, &st) == 0;
}

struct bytes take_file(const char *path)
{
    struct bytes b;

    b.data = test_read_file(path, &b.n);
    return b;
}

void assert_same_file(struct bytes want, const char *path)
{
    struct bytes got = take_file(path);

    assert_int_equal(got.n, want.n);
    assert_memory_equal(got.data, want.data, want.n);
    free(got.data);
}

void open_checked(struct sl_modelfile *mf, const char *path)
{
    struct sl_error err;

    assert_ok(sl_modelfile_open(mf, path, &err), &err);
    assert_ok(sl_modelfile_verify(mf, true, &err), &err);
}

float *decode(const struct sl_modelfile *mf, size_t i)
{
    const struct sl_model_matrix *m = &mf->matrices[i];
    const struct sl_matrix *g = &m->geom;
    uint32_t seg_rows = sl_matrix_segment_rows(g);
    float *out = calloc((size_t)g->rows * g->cols, sizeof *out);
    uint8_t *w = malloc(m->bytes);
    uint16_t *scale = malloc(m->scale_bytes + 1);
    struct sl_error err;

    assert_ok(sl_modelfile_read(mf, w, m->off, m->bytes, &err), &err);
    if (m->scale_bytes > 0)
        assert_ok(
            sl_modelfile_read(mf, scale, m->scale_off, m->scale_bytes, &err),
            &err);
    for (uint32_t r = 0; r < g->rows; r++) {
        uint32_t seg = r / seg_rows, in = r % seg_rows;

        sl_matrix_decode_row(
            out + (size_t)r * g->cols, g,
            w + sl_matrix_block_offset(g, seg, in / 16),
            scale + sl_matrix_scale_offset(g, seg, in / 16) / 2, in % 16);
    }
    free(w);
    free(scale);
    return out;
}

void assert_weights(const struct fixture *f, double limit)
{
    struct sl_modelfile mf;
    struct sl_error err;

    open_checked(&mf, f->out);
    for (size_t i = 0; i < mf.n_matrices; i++) {
        const struct sl_tensor_spec *s = &mf.matrices[i].spec;
        float *w = decode(&mf, i);

        for (size_t k = 0; k < (size_t)s->rows * s->cols; k++) {
            double d = fabs((double)w[k] - (double)glm_value(&f->g, s, k));

            if (d > limit * 1000 / 4096)
                fail_msg("%s: element %zu is off by %g", s->name, k, d);
        }
        free(w);
    }
    for (size_t i = 0; i < mf.n_small; i++) {
        const struct sl_model_small *v = &mf.small[i];
        float got[256];

        assert_ok(sl_modelfile_read(&mf, got, v->off, v->bytes, &err), &err);
        for (uint32_t k = 0; k < v->spec.rows; k++)
            assert_true(got[k] == glm_value(&f->g, &v->spec, k));
    }
    sl_modelfile_close(&mf);
}
