#include "config.h"

#include "src/base/bytes.h"
#include "src/base/json.h"
#include "src/cmd/run_show.h"

static double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

static void show_disks(FILE *out, const struct sl_runtime *rt,
                       const struct sl_run_stats *s)
{
    const struct sl_mirror *mirror = sl_runtime_modelfile(rt)->mirror;
    char size[SL_SIZE_TEXT];

    for (unsigned i = 0; mirror != NULL && i < SL_IO_FILES; i++) {
        const struct sl_mirror_stats *d = &s->disks[i];

        fprintf(out, "             %s of %s", sl_size_format(size, d->bytes),
                sl_mirror_path(mirror, i));
        if (d->busy_ns > 0)
            fprintf(out, " at %.2f GB/s",
                    (double)d->bytes / (double)d->busy_ns);
        fputs(d->out ? ", then it failed\n" : "\n", out);
    }
}

json_t *sl_run_disks_json(const struct sl_runtime *rt,
                          const struct sl_run_stats *before,
                          const struct sl_run_stats *after)
{
    const struct sl_mirror *mirror = sl_runtime_modelfile(rt)->mirror;
    json_t *list = mirror != NULL ? json_array() : NULL;

    for (unsigned i = 0; list != NULL && i < SL_IO_FILES; i++) {
        const struct sl_mirror_stats *a = &before->disks[i],
                                     *b = &after->disks[i];

        json_array_append_new(
            list,
            json_pack("{s:o, s:I, s:f, s:b}", "path",
                      sl_json_text(sl_mirror_path(mirror, i)), "bytes_read",
                      (json_int_t)(b->bytes - a->bytes), "busy_seconds",
                      seconds(b->busy_ns - a->busy_ns), "failed", b->out));
    }
    return list;
}

void sl_run_show_disk(FILE *out, const struct sl_runtime *rt,
                      const struct sl_run_stats *run)
{
    const struct sl_stream_stats *s = &run->stream;
    char size[SL_SIZE_TEXT];

    fprintf(out, "disk         %s read", sl_size_format(size, s->bytes_read));
    if (s->busy_ns > 0)
        fprintf(out, " at %.2f GB/s",
                (double)s->bytes_read / (double)s->busy_ns);
    fprintf(out, ", waited for %.2f s (%s%s%s)\n", seconds(s->wait_ns),
            s->io_name ? s->io_name : "nothing read",
            s->direct ? ", direct" : "",
            s->registered ? ", registered buffers" : "");
    show_disks(out, rt, run);
    if (s->retries > 0)
        fprintf(out, "             %llu reads were repeated\n",
                (unsigned long long)s->retries);
    if (s->decompressed_bytes > 0)
        fprintf(out, "             %s decompressed in %.2f s\n",
                sl_size_format(size, s->decompressed_bytes),
                seconds(s->decompress_ns));
}

void sl_run_show_memory(FILE *out, const struct sl_runtime *rt,
                        const struct sl_run_stats *s)
{
    char peak[SL_SIZE_TEXT], budget[SL_SIZE_TEXT];

    fprintf(out, "memory       peak %s of a budget of %s\n",
            sl_size_format(peak, s->peak_bytes),
            sl_size_format(budget, sl_runtime_memory(rt)->budget));
}

void sl_run_show_rates(FILE *out, const struct sl_runtime *rt,
                       const struct sl_rates *rates)
{
    fprintf(out,
            "disk %.2f GB/s, memory %.1f GB/s%s, products %.0f GOP/s, "
            "attention %.0f",
            rates->disk_bps / 1e9, rates->dram_bps / 1e9,
            sl_runtime_dram_in_cache(rt) ? " (in cache)" : "",
            rates->worker[SL_HOST].ops_per_s / 1e9,
            rates->worker[SL_HOST].attention_ops_per_s / 1e9);
}
