#include "config.h"

#include <stdio.h>

#include "src/base/bytes.h"
#include "src/base/json.h"
#include "src/base/tame.h"
#include "src/cmd/opts.h"
#include "src/model/modelfile.h"

struct args {
    const char *file, *mirror;
    bool quiet, json;
};

enum { OPT_JSON = 0x100, OPT_MIRROR };

static const struct argp_option options[] = {
    {"quiet", 'q', 0, 0, "Show no progress; say nothing unless it is damaged",
     0},
    {"mirror", OPT_MIRROR, "FILE", 0,
     "Compare this copy of it on another disk, too", 0},
    {"json", OPT_JSON, 0, 0, "Print the outcome as one JSON object", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;

    switch (key) {
    case 'q':
        a->quiet = true;
        return 0;
    case OPT_MIRROR:
        a->mirror = arg;
        return 0;
    case OPT_JSON:
        a->json = true;
        return 0;
    case ARGP_KEY_ARG:
        return sl_opt_argument(state, &a->file, "model file", arg);
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "no model file given");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    options, parse, "FILE", "Read a whole model file and check every checksum.",
    0,       0,     0,
};

static int print_json(const struct args *a, uint64_t bytes, size_t n_sections,
                      const struct sl_error *why, struct sl_error *err)
{
    bool ok = why->code == SL_OK;
    json_t *o = json_pack("{s:o, s:b, s:I, s:I}", "file", sl_json_text(a->file),
                          "ok", ok, "bytes", (json_int_t)bytes, "sections",
                          (json_int_t)n_sections);

    if (o != NULL && a->mirror != NULL)
        json_object_set_new(o, "mirror", sl_json_text(a->mirror));
    if (o != NULL && !ok)
        json_object_set_new(o, "message", sl_json_text(why->msg));
    return sl_json_print(stdout, o, 0, err);
}

static int run(int argc, char **argv)
{
    struct sl_error err = {0}, unsaid;
    struct sl_modelfile mf;
    struct args a = {0};
    char size[SL_SIZE_TEXT];
    uint64_t bytes = 0;
    size_t n_sections = 0;
    int rc = sl_parse_args(&argp, argc, argv, &a);

    if (rc != 0)
        return rc;
    if (sl_modelfile_open(&mf, a.file, &err) == 0) {
        bytes = mf.file_bytes;
        n_sections = mf.n_sections;
        if (a.mirror == NULL ||
            sl_modelfile_add_mirror(&mf, a.mirror, NULL, &err) == 0)
            sl_modelfile_verify(&mf, a.quiet, &err);
        sl_modelfile_close(&mf);
    }
    if (a.json && print_json(&a, bytes, n_sections, &err, &unsaid) != 0)
        return sl_finish_stdout(sl_report(&unsaid));
    if (err.code != SL_OK)
        return sl_finish_stdout(sl_report(&err));
    if (!a.quiet && !a.json)
        printf("%s%s%s: %s in %zu sections%s, every checksum is right\n",
               SL_TAMED(a.file), a.mirror != NULL ? " and " : "",
               SL_TAMED(a.mirror != NULL ? a.mirror : ""),
               sl_size_format(size, bytes), n_sections,
               a.mirror != NULL ? " each" : "");
    return sl_finish_stdout(SL_EXIT_OK);
}

const struct sl_command sl_cmd_verify = {
    .name = "verify",
    .summary = "check every checksum of a model file",
    .run = run,
    .argp = &argp,
    .tables = true,
};
