#include "config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offload/trace.h"
#include "src/base/clock.h"
#include "src/base/mem.h"
#include "src/base/newfile.h"

/* GLM-130B at INT4 is 16,000 reads of 4 MiB a pass: seven passes. */
#define MAX_EVENTS   131072u
#define BUFFER_BYTES (64u << 10)
/* Written between two visits to the disk: about a megabyte. */
#define SETTLE_EVENTS 4096u

struct event {
    uint64_t begin_ns, end_ns, bytes;
    uint32_t track;
    char name[SL_TRACE_NAME];
};

struct sl_trace {
    struct sl_newfile to;  /* what is there stays until it is whole */
    char *buffer;          /* of its stream */
    pthread_mutex_t mutex; /* guards what follows */
    uint64_t start_ns;     /* time 0 of the trace */
    uint64_t least_ns;     /* no span begins before */
    struct sl_region region;
    struct event *events; /* (MAX_EVENTS) in region */
    uint32_t n;
    uint64_t dropped;
};

static const char *const track_names[SL_TRACK_COUNT] = {
    [SL_TRACK_READS] = "disk reads",      [SL_TRACK_WAITS] = "waiting for disk",
    [SL_TRACK_STAGES] = "stages",         [SL_TRACK_COPIES] = "copies to GPU",
    [SL_TRACK_KERNELS] = "GPU kernels",   [SL_TRACK_MIRROR] = "mirror's reads",
    [SL_TRACK_GUESSES] = "guesses ahead",
};

uint64_t sl_trace_bytes(void)
{
    return sl_round_up(MAX_EVENTS * sizeof(struct event), SL_PAGE_BYTES) +
           BUFFER_BYTES + (1u << 20);
}

static void trace_free(struct sl_trace *t)
{
    sl_newfile_drop(&t->to);
    sl_region_fini(&t->region);
    free(t->buffer);
    free(t);
}

int sl_trace_open(struct sl_trace **trace, const char *path,
                  struct sl_error *err)
{
    struct sl_trace *t = calloc(1, sizeof *t);

    if (t == NULL)
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory for a trace", path);
    t->buffer = malloc(BUFFER_BYTES);
    if (t->buffer == NULL) {
        trace_free(t);
        return sl_fail(err, SL_ERR_NOMEM, "%s: no memory for a trace", path);
    }
    if (sl_region_init(&t->region, MAX_EVENTS * sizeof(struct event), "trace",
                       err) != 0) {
        trace_free(t);
        return -1;
    }
    t->events = (struct event *)t->region.base;
    if (sl_newfile_open(&t->to, path, err) != 0) {
        trace_free(t);
        sl_error_prefix(err, "the trace ");
        return -1;
    }
    setvbuf(t->to.file, t->buffer, _IOFBF, BUFFER_BYTES);
    pthread_mutex_init(&t->mutex, NULL);
    t->start_ns = sl_clock_ns();
    *trace = t;
    return 0;
}

void sl_trace_start_at(struct sl_trace *t, uint64_t start_ns)
{
    if (t == NULL)
        return;
    pthread_mutex_lock(&t->mutex);
    t->start_ns = t->least_ns = start_ns;
    t->n = 0;
    t->dropped = 0;
    pthread_mutex_unlock(&t->mutex);
}

void sl_trace_span(struct sl_trace *t, enum sl_track track, const char *name,
                   uint64_t begin_ns, uint64_t end_ns, uint64_t bytes)
{
    struct event *e;

    if (t == NULL)
        return;
    pthread_mutex_lock(&t->mutex);
    if (t->n < MAX_EVENTS && begin_ns >= t->least_ns) {
        e = &t->events[t->n++];
        *e = (struct event){begin_ns, end_ns, bytes, (uint32_t)track, ""};
        snprintf(e->name, sizeof e->name, "%s", name);
    } else if (begin_ns >= t->least_ns) {
        t->dropped++;
    }
    pthread_mutex_unlock(&t->mutex);
}

/* Prints a JSON string. What is not ASCII becomes '?': a name that was cut
   need not be whole UTF-8. */
static void write_string(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s != '\0'; s++) {
        if (*s == '"' || *s == '\\')
            fputc('\\', f);
        fputc(*s >= ' ' && *s <= '~' ? *s : '?', f);
    }
    fputc('"', f);
}

/* Microseconds since the trace began, to the nanosecond. */
static void write_time(FILE *f, const char *key, uint64_t ns)
{
    fprintf(f, ",\"%s\":%" PRIu64 ".%03u", key, ns / 1000,
            (unsigned)(ns % 1000));
}

static void write_head(FILE *f, const struct event *e, const char *phase)
{
    fputs(",\n{\"name\":", f);
    write_string(f, e->name);
    fprintf(f, ",\"ph\":\"%s\",\"pid\":1,\"tid\":%u", phase,
            (unsigned)e->track + 1);
}

static void write_args(FILE *f, const struct event *e)
{
    if (e->bytes != 0)
        fprintf(f, ",\"args\":{\"bytes\":%" PRIu64 "}", e->bytes);
    fputc('}', f);
}

/* Spans of one track nest in the viewer; reads overlap and so are pairs of
   asynchronous events, told apart by id. */
static void write_event(FILE *f, const struct sl_trace *t, uint32_t i)
{
    const struct event *e = &t->events[i];
    uint64_t begin = e->begin_ns > t->start_ns ? e->begin_ns - t->start_ns : 0;
    uint64_t end = e->end_ns > t->start_ns ? e->end_ns - t->start_ns : 0;

    if (end < begin)
        end = begin;
    if (e->track != SL_TRACK_READS && e->track != SL_TRACK_MIRROR) {
        write_head(f, e, "X");
        write_time(f, "ts", begin);
        write_time(f, "dur", end - begin);
        write_args(f, e);
        return;
    }
    write_head(f, e, "b");
    fprintf(f, ",\"cat\":\"disk\",\"id\":%" PRIu32, i);
    write_time(f, "ts", begin);
    write_args(f, e);
    write_head(f, e, "e");
    fprintf(f, ",\"cat\":\"disk\",\"id\":%" PRIu32, i);
    write_time(f, "ts", end);
    fputc('}', f);
}

static void write_tracks(FILE *f)
{
    for (unsigned i = 0; i < SL_TRACK_COUNT; i++)
        fprintf(f,
                ",\n{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,"
                "\"tid\":%u,\"args\":{\"name\":\"%s\"}}"
                ",\n{\"name\":\"thread_sort_index\",\"ph\":\"M\",\"pid\":1,"
                "\"tid\":%u,\"args\":{\"sort_index\":%u}}",
                i + 1, track_names[i], i + 1, i);
}

/* Puts what was written on the disk and out of the page cache, which counts
   as memory of ours. Returns 0 or an errno. */
static int settle(struct sl_newfile *to)
{
    int e = sl_newfile_flush(to);

    posix_fadvise(fileno(to->file), 0, 0, POSIX_FADV_DONTNEED);
    return e;
}

static int write_all(struct sl_trace *t)
{
    FILE *f = t->to.file;
    int rc;

    fprintf(f,
            "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"dropped\":%" PRIu64
            "},\"traceEvents\":[\n"
            "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,"
            "\"args\":{\"name\":\"sluice\"}}",
            t->dropped);
    write_tracks(f);
    for (uint32_t i = 0; i < t->n; i++) {
        write_event(f, t, i);
        if (i % SETTLE_EVENTS == SETTLE_EVENTS - 1 &&
            (rc = settle(&t->to)) != 0)
            return rc;
    }
    fputs("\n]}\n", f);
    return settle(&t->to);
}

int sl_trace_close(struct sl_trace *t, struct sl_error *err)
{
    struct sl_newfile to;
    int rc, e;

    if (t == NULL)
        return 0;
    e = write_all(t);
    to = t->to;
    t->to = (struct sl_newfile){0};
    if (e != 0) {
        rc = sl_fail_os(err, e, "%s: cannot write", to.path);
        sl_newfile_drop(&to);
    } else {
        rc = sl_newfile_close(&to, err);
    }
    if (rc != 0)
        sl_error_prefix(err, "the trace ");
    pthread_mutex_destroy(&t->mutex);
    trace_free(t);
    return rc;
}

void sl_trace_drop(struct sl_trace *t)
{
    if (t == NULL)
        return;
    pthread_mutex_destroy(&t->mutex);
    trace_free(t);
}
