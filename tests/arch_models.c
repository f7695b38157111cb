#include "config.h"

#include <stdio.h>
#include <string.h>

#include "tests/arch_models.h"

static const struct size {
    uint32_t n_layers, hidden, inner, n_heads, n_kv_heads, head_dim, vocab;
    bool untied;
} sizes[] = {
    {2, 40, 37, 5, 1, 8, 61, true},
    {3, 48, 200, 4, 2, 16, 97, false},
    {1, 72, 52, 3, 3, 24, 130, true},
    {2, 96, 160, 6, 3, 32, 200, false},
};

_Static_assert(ARCH_MODELS == sizeof sizes / sizeof *sizes * PLAIN_LM_VARIANTS,
               "models of an architecture");

struct test_model arch_model(const struct sl_arch *arch, size_t n)
{
    const struct size *s = &sizes[n / PLAIN_LM_VARIANTS];
    struct test_model m;

    test_model_init(&m);
    m.arch = arch;
    m.hp.n_layers = s->n_layers;
    m.hp.hidden = s->hidden;
    m.hp.inner = s->inner;
    m.hp.n_heads = s->n_heads;
    m.hp.n_kv_heads = s->n_kv_heads;
    m.hp.head_dim = s->head_dim;
    m.hp.vocab = m.hp.text.n_tokens = s->vocab;
    m.hp.untied = s->untied;
    memset(&m.hp.text.special, -1, sizeof m.hp.text.special); /* none */
    m.fmt = m.head_fmt = SL_FMT_F32;
    m.seed = n + 1;
    plain_lm_vary(&m.hp, arch->name, (unsigned)n % PLAIN_LM_VARIANTS);
    return m;
}

struct sl_hparams arch_hparams(const struct sl_arch *arch, size_t n)
{
    struct sl_hparams hp = arch_model(arch, n).hp;

    sl_arch_derive(arch, &hp);
    return hp;
}

const char *arch_model_write(char path[ARCH_PATH], const char *folder,
                             const struct test_model *m)
{
    snprintf(path, ARCH_PATH, "%s/model.gguf", folder);
    test_model_write(path, m);
    return path;
}
