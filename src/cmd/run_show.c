#include "config.h"

#include "src/base/bytes.h"
#include "src/cmd/run_show.h"

static double seconds(uint64_t ns)
{
    return (double)ns / 1e9;
}

void sl_run_show_disk(FILE *out, const struct sl_stream_stats *s)
{
    char size[SL_SIZE_TEXT];

    fprintf(out, "disk         %s read", sl_size_format(size, s->bytes_read));
    if (s->busy_ns > 0)
        fprintf(out, " at %.2f GB/s",
                (double)s->bytes_read / (double)s->busy_ns);
    fprintf(out, ", waited for %.2f s (%s%s%s)\n", seconds(s->wait_ns),
            s->io_name ? s->io_name : "nothing read",
            s->direct ? ", direct" : "",
            s->registered ? ", registered buffers" : "");
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
