#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/logits_run.h"

void run_sluice(const char *dir, const char *fmt, ...)
{
    const char *sluice = getenv("SLUICE");
    char command[8192], args[6000];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(args, sizeof args, fmt, ap);
    va_end(ap);
    snprintf(command, sizeof command, "'%s' %s >'%s/log' 2>&1",
             sluice ? sluice : "./sluice", args, dir);
    if (system(command) != 0) {
        size_t n;
        char log[1100];

        snprintf(log, sizeof log, "%s/log", dir);
        print_error("failed: %s\n%s", command, (char *)test_read_file(log, &n));
        fail();
    }
}

json_t *json_of_ids(const int32_t *v, size_t n)
{
    json_t *list = json_array();

    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer(v[i]));
    return list;
}

void run_logits(const char *dir, struct test_array *a, const char *flags)
{
    const char *device = strstr(flags, "--device") ? "" : "--device cpu";
    char path[1100];
    uint8_t *data;
    size_t n;

    run_sluice(
        dir,
        "logits -q -m '%s/model.gguf' -i '%s/input.json' -o '%s/out.npy' %s %s",
        dir, dir, dir, device, flags);
    snprintf(path, sizeof path, "%s/out.npy", dir);
    data = test_read_file(path, &n);
    test_npy_parse(data, n, a);
    free(data);
    assert_string_equal(a->dtype, "<f4");
}

void write_logits_input(const char *dir, json_t *list)
{
    char path[1100];

    snprintf(path, sizeof path, "%s/input.json", dir);
    assert_int_equal(json_dump_file(list, path, JSON_COMPACT), 0);
    json_decref(list);
}
