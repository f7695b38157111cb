#include "config.h"

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
