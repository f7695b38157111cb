#include "config.h"

#include <string.h>

#include "src/arch/arch.h"

static const struct sl_arch *const archs[] = {
    &sl_arch_glm130b,
};

const struct sl_arch *sl_arch_at(size_t n)
{
    return n < sizeof archs / sizeof *archs ? archs[n] : NULL;
}

const struct sl_arch *sl_arch_find(const char *name)
{
    for (size_t i = 0; sl_arch_at(i) != NULL; i++) {
        if (strcmp(archs[i]->name, name) == 0)
            return archs[i];
    }
    return NULL;
}
