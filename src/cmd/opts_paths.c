#include "config.h"

#include <stdlib.h>

#include "src/cmd/opts.h"

void sl_run_paths(struct sl_paths *p, const struct sl_runtime_config *c)
{
    sl_paths_read(p, "-m", c->model);
    sl_paths_read(p, "--prefix", c->prefix);
    for (size_t i = 0; i < c->n_lora; i++)
        sl_paths_read(p, "--lora", c->lora[i].path);
    sl_paths_write(p, "--trace", c->trace);
    sl_paths_write(p, "--prompt-cache", c->prompt_cache);
}

void sl_opt_environment(struct sl_runtime_config *c, struct argp_state *state)
{
    const char *ram = getenv("SLUICE_RAM"), *vram = getenv("SLUICE_VRAM");

    c->model = sl_opt_default_model();
    if (ram != NULL && *ram != '\0')
        c->ram_bytes = sl_opt_ram(state, ram);
    if (vram != NULL && *vram != '\0')
        c->vram_bytes = sl_opt_vram(state, vram);
}

const char *sl_opt_default_model(void)
{
    const char *model = getenv("SLUICE_MODEL");

    return model != NULL && *model != '\0' ? model : NULL;
}
