#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/half.h"
#include "tests/lora_maker.h"
#include "tests/support.h"

/* 8 bits, the same in all types; the i-th after seed. */
static float number(uint64_t seed, size_t i)
{
    uint64_t x = (seed + i) * 6364136223846793005u + 1442695040888963407u;

    x = (x ^ x >> 29) * 0xbf58476d1ce4e5b9u;
    return (float)((int)(x >> 40 & 255) - 128) / 1024;
}

/* n of them as stored; *as float. Freed by the caller. */
static void *numbers(float *v, size_t n, enum sl_dtype dt, uint64_t seed)
{
    uint32_t bytes = sl_dtype_bytes(dt);
    uint8_t *raw = malloc(n * bytes);

    for (size_t i = 0; i < n; i++) {
        uint16_t half;

        v[i] = number(seed, i);
        half =
            dt == SL_DT_F16 ? sl_float_to_half(v[i]) : sl_float_to_bf16(v[i]);
        if (dt == SL_DT_F32)
            memcpy(raw + i * 4, &v[i], 4);
        else
            memcpy(raw + i * 2, &half, 2);
    }
    return raw;
}

static size_t elements(const struct sl_ckpt_tensor *t)
{
    size_t n = 1;

    for (uint32_t d = 0; d < t->n_dims; d++)
        n *= t->shape[d];
    return n;
}

void maker_model_load(struct maker_model *w, const char *folder)
{
    struct sl_error err;

    assert_ok(sl_ckpt_open(&w->ckpt, folder, NULL, &err), &err);
    w->n = w->ckpt.shards[0].n_tensors;
    assert_in_range(w->n, 1, MAKER_TENSORS);
    for (size_t i = 0; i < w->n; i++) {
        const struct sl_ckpt_tensor *t = &w->ckpt.shards[0].tensors[i];
        size_t n = elements(t), bytes = sl_dtype_bytes(t->dtype);
        uint8_t *raw = malloc(n * bytes);

        w->of[i] = malloc(n * sizeof(float));
        assert_ok(sl_ckpt_read_rows(t, raw, 0, t->shape[0], &err), &err);
        for (size_t k = 0; k < n; k++)
            w->of[i][k] = sl_dtype_load(raw + k * bytes, t->dtype);
        free(raw);
    }
}

void maker_model_fini(struct maker_model *w)
{
    for (size_t i = 0; i < w->n; i++)
        free(w->of[i]);
    sl_ckpt_close(&w->ckpt);
}

static void merge(struct maker_model *w, const char *module, const float *a,
                  const float *b, uint32_t in, uint32_t out, uint32_t r,
                  double scale)
{
    char name[200];
    const struct sl_ckpt_tensor *t;
    float *to;

    snprintf(name, sizeof name, "%s.weight", module);
    t = sl_ckpt_find(&w->ckpt, 0, name);
    assert_non_null(t);
    assert_true(t->shape[0] == out && t->shape[1] == in);
    to = w->of[t - w->ckpt.shards[0].tensors];
    for (uint32_t o = 0; o < out; o++)
        for (uint32_t i = 0; i < in; i++) {
            double sum = 0;

            for (uint32_t k = 0; k < r; k++)
                sum += (double)b[o * r + k] * (double)a[k * in + i];
            to[o * in + i] = (float)((double)to[o * in + i] + scale * sum);
        }
}

static void copy_config(const char *from, const char *to)
{
    char path[1200];
    uint8_t *text;
    size_t n;

    snprintf(path, sizeof path, "%s/config.json", from);
    text = test_read_file(path, &n);
    snprintf(path, sizeof path, "%s/config.json", to);
    maker_file(path, text, n);
    free(text);
}

void maker_model_save(const struct maker_model *w, const char *from,
                      const char *to)
{
    struct maker_tensor t[MAKER_TENSORS] = {0};

    for (size_t i = 0; i < w->n; i++) {
        const struct sl_ckpt_tensor *c = &w->ckpt.shards[0].tensors[i];

        t[i].name = c->name;
        t[i].dtype = SL_DT_F32;
        t[i].n_dims = c->n_dims;
        memcpy(t[i].shape, c->shape, sizeof t[i].shape);
        t[i].data = w->of[i];
    }
    maker_hf(to, t, w->n, MAKER_SAFETENSORS, 1);
    copy_config(from, to);
}

void maker_adapter_files(const char *folder, const char *config,
                         const struct maker_tensor *t, size_t n, bool torch)
{
    const struct maker_options bare = {.bare = true};
    struct maker_buf b = {0};
    char path[1200];

    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    if (config != NULL)
        maker_file(path, config, strlen(config));
    if (torch)
        maker_torch(&b, t, n, &bare);
    else
        maker_safetensors(&b, t, n);
    snprintf(path, sizeof path, "%s/adapter_model.%s", folder,
             torch ? "bin" : "safetensors");
    maker_file(path, b.at, b.n);
    maker_fini(&b);
}

/* Writes an adapter, and adds it, times scale, to w. */
void maker_adapter(const char *folder, const struct maker_adapter *ad,
                   uint32_t n_layers, struct maker_model *w, double scale)
{
    char(*names)[200] = malloc(MAKER_TENSORS * sizeof *names);
    struct maker_tensor t[MAKER_TENSORS] = {0};
    size_t n = 0;

    for (uint32_t l = 0; l < n_layers; l++) {
        for (const struct maker_module *m = ad->modules; m->name != NULL; m++) {
            bool other = ad->other != NULL && strstr(m->name, ad->other);
            uint32_t r = other ? ad->other_r : ad->r;
            float *a = malloc(r * m->in * sizeof *a);
            float *b = malloc(r * m->out * sizeof *b);
            char module[120], *mark;

            snprintf(module, sizeof module, "%s", m->name);
            mark = strstr(module, "%u");
            snprintf(mark, sizeof module - (size_t)(mark - module), "%u%s", l,
                     strstr(m->name, "%u") + 2);
            snprintf(names[n], 200, "base_model.model.%s.lora_A.weight",
                     module);
            t[n] = (struct maker_tensor){
                .name = names[n], .dtype = ad->dtype, .n_dims = 2};
            t[n].shape[0] = r;
            t[n].shape[1] = m->in;
            t[n].data = numbers(a, r * m->in, ad->dtype, n * 7919);
            n++;
            snprintf(names[n], 200, "base_model.model.%s.lora_B.weight",
                     module);
            t[n] = (struct maker_tensor){
                .name = names[n], .dtype = ad->dtype, .n_dims = 2};
            t[n].shape[0] = m->out;
            t[n].shape[1] = r;
            t[n].data = numbers(b, r * m->out, ad->dtype, n * 7919);
            n++;
            merge(w, module, a, b, m->in, m->out, r,
                  scale * (other ? ad->other_scale : ad->scale));
            free(a);
            free(b);
        }
    }
    maker_adapter_files(folder, ad->config, t, n, ad->torch);
    for (size_t i = 0; i < n; i++)
        free((void *)t[i].data);
    free(names);
}
