#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "tests/ckpt_maker.h"
#include "tests/support.h"

#define N_DATA 512

static int open_bytes(struct sl_ckpt_shard *shard, const void *data, size_t n,
                      const struct sl_log *log, struct sl_error *err)
{
    struct sl_src *src;

    assert_ok(sl_src_open_memory(&src, data, n, "made.pt", err), err);
    return sl_torch_open(shard, src, log, err);
}

static const struct sl_ckpt_tensor *find(const struct sl_ckpt_shard *shard,
                                         const char *name)
{
    for (size_t i = 0; i < shard->n_tensors; i++)
        if (strcmp(shard->tensors[i].name, name) == 0)
            return &shard->tensors[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

/* 1-D, 2-D, views of all kinds; data holds N_DATA distinct 16-bit values. */
static size_t make_tensors(struct maker_tensor *t, const uint16_t *data)
{
    static const struct maker_tensor made[] = {
        {.name = "b.weight", .n_dims = 2, .shape = {8, 12}, .n_elements = 300},
        {.name = "a.bias", .n_dims = 1, .shape = {10}},
        {.name = "transposed",
         .n_dims = 2,
         .shape = {12, 8},
         .stride = {1, 12},
         .offset = 5,
         .shares = 1},
        {.name = "columns",
         .n_dims = 2,
         .shape = {8, 5},
         .stride = {12, 1},
         .offset = 3,
         .shares = 1},
        {.name = "steps",
         .n_dims = 2,
         .shape = {4, 6},
         .stride = {24, 2},
         .shares = 1},
        {.name = "expanded",
         .n_dims = 2,
         .shape = {5, 12},
         .stride = {0, 1},
         .offset = 7,
         .shares = 1},
        {.name = "constant",
         .n_dims = 2,
         .shape = {5, 3},
         .offset = 9,
         .shares = 1,
         .expanded = true},
        {.name = "scalar", .n_dims = 0, .offset = 11, .shares = 1},
        {.name = "empty", .n_dims = 2, .shape = {0, 4}, .shares = 1},
        {.name = "third",
         .n_dims = 3,
         .shape = {2, 3, 4},
         .offset = 20,
         .shares = 1},
        {.name = "every.third",
         .n_dims = 1,
         .shape = {30},
         .stride = {3},
         .shares = 1},
        {.name = "k.long", .dtype = SL_DT_I64, .n_dims = 1, .shape = {3}},
    };
    size_t n = sizeof made / sizeof *made;

    memcpy(t, made, sizeof made);
    for (size_t i = 0; i < n; i++) {
        t[i].data = data;
        if (t[i].dtype != SL_DT_I64)
            t[i].dtype = SL_DT_F16;
    }
    return n;
}

static void fill(uint16_t data[N_DATA])
{
    for (size_t i = 0; i < N_DATA; i++)
        data[i] = (uint16_t)(i * 7 + 1);
}

/* Element (r, c) of a made tensor, by the definition of strides. */
static uint16_t element(const struct maker_tensor *t, uint64_t r, uint64_t c)
{
    const uint16_t *data = t->data;
    uint64_t row = t->stride[0], col = t->stride[1];

    if (t->n_dims == 3) {
        row = t->shape[1] * t->shape[2];
        col = 1;
    } else if (row == 0 && col == 0 && !t->expanded) {
        row = t->n_dims > 1 ? t->shape[1] : 1;
        col = 1;
    }
    return data[t->offset + r * row + c * col];
}

/* Every block of the tensor's matrix. */
static void check_blocks(const struct maker_tensor *want,
                         const struct sl_ckpt_tensor *t)
{
    uint64_t rows = t->n_dims ? t->shape[0] : 1, cols = 1;
    uint16_t got[N_DATA];
    struct sl_error err;

    for (uint32_t d = 1; d < t->n_dims; d++)
        cols *= t->shape[d];
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t n = 1; n <= rows - r; n++)
            for (uint64_t c = 0; c < cols; c++)
                for (uint64_t m = 1; m <= cols - c; m += 3) {
                    memset(got, 0, sizeof got);
                    assert_ok(sl_ckpt_read_block(t, got, r, n, c, m, &err),
                              &err);
                    for (uint64_t i = 0; i < n * m; i++)
                        assert_int_equal(got[i],
                                         element(want, r + i / m, c + i % m));
                    assert_int_equal(got[n * m], 0);
                }
}

static void tensors_come_back_from_each_container(void **state)
{
    static const struct maker_options options[] = {
        {0},
        {.legacy = true},
        {.zip64 = true},
        {.bare = true, .prefix = "some/where"},
        {.parameters = true},
        {.legacy = true, .parameters = true, .bare = true},
    };
    struct maker_tensor t[16];
    uint16_t data[N_DATA];
    size_t n = make_tensors(t, data);
    struct sl_error err;

    fill(data);
    for (size_t o = 0; o < sizeof options / sizeof *options; o++) {
        struct maker_buf b = {0};
        struct sl_ckpt_shard shard;

        maker_torch(&b, t, n, &options[o]);
        assert_ok(open_bytes(&shard, b.at, b.n, NULL, &err), &err);
        assert_int_equal(shard.n_tensors, n);
        for (size_t i = 1; i < n; i++)
            assert_true(
                strcmp(shard.tensors[i - 1].name, shard.tensors[i].name) < 0);
        for (size_t i = 0; i < n; i++) {
            const struct sl_ckpt_tensor *got = find(&shard, t[i].name);

            assert_int_equal(got->dtype, t[i].dtype);
            assert_int_equal(got->n_dims, t[i].n_dims);
            if (got->dtype == SL_DT_F16)
                check_blocks(&t[i], got);
        }
        sl_ckpt_shard_close(&shard);
        maker_fini(&b);
    }
}

static void big_strides_are_read_piece_by_piece(void **state)
{
    /* 3000 x 700 and its transpose: beyond one span in either direction; and
       a matrix of 40 columns in rows of 50000, further apart than a gap. */
    enum { R = 3000, C = 700 };
    uint16_t *data = malloc(R * C * 2), *got = malloc(R * C * 2);
    struct maker_tensor t[] = {
        {.name = "dense", .dtype = SL_DT_I16, .n_dims = 2, .shape = {R, C}},
        {.name = "turned",
         .dtype = SL_DT_I16,
         .n_dims = 2,
         .shape = {C, R},
         .stride = {1, C},
         .shares = 1},
        {.name = "sparse",
         .dtype = SL_DT_I16,
         .n_dims = 2,
         .shape = {40, 40},
         .stride = {50000, 1},
         .shares = 1},
    };
    struct maker_buf b = {0};
    struct sl_ckpt_shard shard;
    struct sl_error err;

    for (size_t i = 0; i < R * C; i++)
        data[i] = (uint16_t)(i * 2654435761u >> 13);
    t[0].data = data;
    maker_torch(&b, t, 3, NULL);
    assert_ok(open_bytes(&shard, b.at, b.n, NULL, &err), &err);
    assert_ok(sl_ckpt_read_rows(find(&shard, "turned"), got, 0, C, &err), &err);
    for (size_t i = 0; i < R * C; i++)
        assert_int_equal(got[i], data[i % R * C + i / R]);
    assert_ok(
        sl_ckpt_read_block(find(&shard, "turned"), got, 5, 600, 1, 2500, &err),
        &err);
    for (size_t i = 0; i < 600 * 2500; i++)
        assert_int_equal(got[i], data[(1 + i % 2500) * C + 5 + i / 2500]);
    assert_ok(sl_ckpt_read_rows(find(&shard, "sparse"), got, 0, 40, &err),
              &err);
    for (size_t i = 0; i < 1600; i++)
        assert_int_equal(got[i], data[i / 40 * 50000 + i % 40]);
    sl_ckpt_shard_close(&shard);
    maker_fini(&b);
    free(data);
    free(got);
}

static void a_file_cut_anywhere_is_refused_by_name(void **state)
{
    struct maker_tensor t[16];
    uint16_t data[N_DATA];
    size_t n = make_tensors(t, data);
    struct sl_ckpt_shard shard;
    struct sl_error err;

    fill(data);
    for (unsigned kind = 0; kind < 3; kind++) {
        struct maker_options o = {.legacy = kind == 1, .zip64 = kind == 2};
        struct maker_buf b = {0};

        maker_torch(&b, t, n, &o);
        for (size_t cut = 0; cut < b.n; cut++) {
            uint8_t *copy = malloc(cut + 1); /* for the address sanitizer */

            memcpy(copy, b.at, cut);
            err.code = SL_OK;
            assert_int_equal(open_bytes(&shard, copy, cut, NULL, &err), -1);
            assert_int_equal(err.code, SL_ERR_CORRUPT);
            assert_non_null(strstr(err.msg, "made.pt"));
            free(copy);
        }
        maker_fini(&b);
    }
}

/* Whatever the flip did: an error with a message, or tensors that can all be
 * read to their ends. */
static void try_damaged(const uint8_t *data, size_t n)
{
    struct sl_ckpt_shard shard;
    struct sl_error err;
    uint8_t out[64];

    err.msg[0] = '\0';
    if (open_bytes(&shard, data, n, NULL, &err) != 0) {
        assert_true(strlen(err.msg) > 0);
        return;
    }
    for (size_t i = 0; i < shard.n_tensors; i++) {
        const struct sl_ckpt_tensor *t = &shard.tensors[i];
        uint64_t cols = 1;

        for (uint32_t d = 1; d < t->n_dims; d++)
            cols *= t->shape[d];
        if (cols > 0 && (t->n_dims == 0 || t->shape[0] > 0))
            sl_ckpt_read_block(t, out, t->n_dims ? t->shape[0] - 1 : 0, 1,
                               cols - 1, 1, &err);
    }
    sl_ckpt_shard_close(&shard);
}

static void flipped_bytes_do_no_harm(void **state)
{
    struct maker_tensor t[16];
    uint16_t data[N_DATA];
    size_t n = make_tensors(t, data);

    fill(data);
    for (unsigned kind = 0; kind < 3; kind++) {
        struct maker_options o = {.legacy = kind == 1, .zip64 = kind == 2};
        struct maker_buf b = {0};

        maker_torch(&b, t, n, &o);
        for (size_t i = 0; i < b.n; i++)
            for (unsigned flip = 1; flip < 256; flip = flip * 2 + 1) {
                b.at[i] ^= (uint8_t)flip;
                try_damaged(b.at, b.n);
                b.at[i] ^= (uint8_t)flip;
            }
        maker_fini(&b);
    }
}

struct pickle_case {
    const char *bytes;
    size_t n;
    enum sl_code code;
    const char *says;
};

#define PICKLE(bytes) (bytes), sizeof(bytes) - 1

static void hostile_pickles_are_refused_with_opcode_and_offset(void **state)
{
    static const struct pickle_case cases[] = {
        {PICKLE(""), SL_ERR_CORRUPT, "offset 0"},
        {PICKLE("\x80\x06}."), SL_ERR_UNSUPPORTED, "PROTO (0x80) at offset 0"},
        {PICKLE("\x80\x02\xff."), SL_ERR_CORRUPT, "(0xff) at offset 2"},
        {PICKLE("}r\xff\xff\xff\x7f."), SL_ERR_CORRUPT, "memo index"},
        {PICKLE("}p999999999\n."), SL_ERR_CORRUPT, "memo index 999999999"},
        {PICKLE("}p99999999999\n."), SL_ERR_CORRUPT, "PUT"},
        {PICKLE("h\x05."), SL_ERR_CORRUPT, "BINGET (0x68) at offset 0"},
        {PICKLE("\x8b\xff\xff\xff\x7f."), SL_ERR_CORRUPT, "LONG4"},
        {PICKLE("\x8b\xff\xff\xff\xff."), SL_ERR_CORRUPT, "LONG4"},
        {PICKLE("\x8d\xff\xff\xff\xff\xff\xff\xff\xff."), SL_ERR_CORRUPT,
         "BINUNICODE8"},
        {PICKLE("\x96\0\0\0\0\1\0\0\0."), SL_ERR_CORRUPT, "BYTEARRAY8"},
        {PICKLE("\x95\0\0\0\0\1\0\0\0}."), SL_ERR_CORRUPT, "FRAME"},
        {PICKLE("0."), SL_ERR_CORRUPT, "POP (0x30) at offset 0"},
        {PICKLE("(a."), SL_ERR_CORRUPT, "APPEND"},
        {PICKLE("](a."), SL_ERR_CORRUPT, "APPEND (0x61) at offset 2"},
        {PICKLE("}(e."), SL_ERR_CORRUPT, "APPENDS (0x65) at offset 2"},
        {PICKLE("e."), SL_ERR_CORRUPT, "APPENDS"},
        {PICKLE("}(Nu."), SL_ERR_CORRUPT, "SETITEMS"},
        {PICKLE("(Nd."), SL_ERR_CORRUPT, "DICT"},
        {PICKLE("t."), SL_ERR_CORRUPT, "TUPLE"},
        {PICKLE("N\x86."), SL_ERR_CORRUPT, "TUPLE2"},
        {PICKLE("N)R."), SL_ERR_CORRUPT, "REDUCE"},
        {PICKLE("cos\nsystem\nNR."), SL_ERR_CORRUPT, "os.system"},
        {PICKLE("NN\x93."), SL_ERR_CORRUPT, "STACK_GLOBAL"},
        {PICKLE("\x82\x01."), SL_ERR_UNSUPPORTED, "EXT1 (0x82) at offset 0"},
        {PICKLE("\x97."), SL_ERR_UNSUPPORTED, "NEXT_BUFFER"},
        {PICKLE("I12x\n."), SL_ERR_CORRUPT, "INT"},
        {PICKLE("L99999999999999999999999Q\n."), SL_ERR_CORRUPT, "LONG"},
        {PICKLE("Fabc\n."), SL_ERR_CORRUPT, "FLOAT"},
        {PICKLE("Sabc\n."), SL_ERR_CORRUPT, "STRING"},
        {PICKLE("S'\\q'\n."), SL_ERR_CORRUPT, "STRING"},
        {PICKLE("V\\u12\n."), SL_ERR_CORRUPT, "UNICODE"},
        {PICKLE("cabc"), SL_ERR_CORRUPT, "GLOBAL"},
        {PICKLE("N."), SL_ERR_CORRUPT, "None"},
        {PICKLE("}."), SL_ERR_CORRUPT, "no tensors"},
        /* A list that holds itself, and a dict of the same kind. */
        {PICKLE("]q\0h\0a."), SL_ERR_CORRUPT, "a list"},
        {PICKLE("}q\0(X\6\0\0\0moduleh\0u."), SL_ERR_CORRUPT, "no tensors"},
        {PICKLE("}(X\6\0\0\0modulecos\nsystem\n(X\1\0\0\0xtRu."),
         SL_ERR_CORRUPT, "os.system"},
        {PICKLE("cos\nsystem\n(X\1\0\0\0xtR."), SL_ERR_CORRUPT, "os.system"},
        {PICKLE("}(X\1\0\0\0t"
                "ctorch._utils\n_rebuild_tensor_v2\n)Ru."),
         SL_ERR_CORRUPT, "tensor t"},
    };
    struct sl_ckpt_shard shard;
    struct sl_error err;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct maker_buf b = {0};

        maker_zip_pickle(&b, cases[i].bytes, cases[i].n);
        assert_int_equal(open_bytes(&shard, b.at, b.n, NULL, &err), -1);
        if (strstr(err.msg, cases[i].says) == NULL)
            print_error("case %zu: %s\n", i, err.msg);
        assert_non_null(strstr(err.msg, cases[i].says));
        assert_non_null(strstr(err.msg, "made.pt"));
        assert_int_equal(err.code, cases[i].code);
        maker_fini(&b);
    }
}

/* n times the same bytes, then an end. */
static void try_repeated(const char *head, const char *unit, size_t n_unit,
                         size_t n, const char *tail)
{
    struct maker_buf p = {0}, b = {0};
    struct sl_ckpt_shard shard;
    struct sl_error err;

    maker_put(&p, head, strlen(head));
    for (size_t i = 0; i < n; i++)
        maker_put(&p, unit, n_unit);
    maker_put(&p, tail, strlen(tail));
    maker_zip_pickle(&b, p.at, p.n);
    assert_int_equal(open_bytes(&shard, b.at, b.n, NULL, &err), -1);
    assert_non_null(strstr(err.msg, "made.pt"));
    maker_fini(&b);
    maker_fini(&p);
}

static void depth_and_repetition_are_bounded(void **state)
{
    try_repeated("", "]", 1, 6000000, ".");     /* too many values */
    try_repeated("", "(", 1, 6000000, ".");     /* too many marks */
    try_repeated("N", "2", 1, 6000000, ".");    /* too deep a stack */
    try_repeated("N", "\x85", 1, 1000000, "."); /* deep nesting */
    try_repeated("", "]", 1, 1000000, ".");     /* and lists left behind */
    try_repeated("]", "2a", 2, 1000000, ".");   /* in itself, often */
    try_repeated("](N2\x86"
                 "2\x86"
                 "2\x86"
                 "2\x86"
                 "e",
                 "2\x86", 2, 500000,
                 "."); /* doubles at each step, if it were walked */
}

struct heard {
    unsigned n;
    char line[512];
};

static void hear(void *opaque, enum sl_log_level level, const char *line)
{
    struct heard *h = opaque;

    h->n++;
    snprintf(h->line, sizeof h->line, "%s", line);
}

static void foreign_objects_are_passed_over_and_dangerous_ones_named(void **s)
{
    /* What stands beside the tensors; NULL: not worth a word. */
    static const struct {
        const char *bytes;
        size_t n;
        const char *named;
    } cases[] = {
        {PICKLE("cos\nsystem\n(X\4\0\0\0exittR"), "os.system"},
        {PICKLE("cposix\nsystem\n(X\4\0\0\0exittR"), "posix.system"},
        {PICKLE("c__builtin__\neval\n(X\1\0\0\0xtR"), "__builtin__.eval"},
        {PICKLE("X\2\0\0\0osX\6\0\0\0system\x93(X\1\0\0\0xtR"), "os.system"},
        {PICKLE("(ios\nsystem\n"), "os.system"},
        {PICKLE("(cos\nsystem\nX\1\0\0\0xo"), "os.system"},
        {PICKLE("cargparse\nNamespace\n)\x81}(X\1\0\0\0aK\1ub"), NULL},
        {PICKLE("c__builtin__\nset\n](K\1K\2e\x85R"), NULL},
        {PICKLE("cnumpy\ndtype\n(X\2\0\0\0f4I0\nI1\ntR(K\3NtR"), NULL},
        {PICKLE("ccollections\ndefaultdict\nc__builtin__\nlist\n\x85R(NNu"),
         NULL},
        {PICKLE("ccollections\nOrderedDict\n](](NI01\nee\x85R"), NULL},
        {PICKLE("(lp1\nF1.5\naL12L\na(dp2\nS'a\\'\\x41'\nV\\u00e9\xe9\nsa"),
         NULL},
        {PICKLE("cx\nencode\n)}\x92"), "x.encode"},
        {PICKLE("c_codecs\nopen\n)R"), "_codecs.open"},
        {PICKLE("\x8f(K\1K\2\x90"), NULL},
        {PICKLE("(K\1K\2\x91"), NULL},
        {PICKLE("Pwhatever\n"), NULL},
        {PICKLE("(NNN1N"), NULL},
    };
    struct maker_tensor t[16];
    uint16_t data[N_DATA];
    size_t n = make_tensors(t, data);
    struct sl_error err;

    fill(data);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (unsigned legacy = 0; legacy < 2; legacy++) {
            struct maker_options o = {.legacy = legacy,
                                      .extra = cases[i].bytes,
                                      .n_extra = cases[i].n};
            struct heard heard = {0};
            struct sl_log log = {hear, &heard, SL_LOG_WARN};
            struct maker_buf b = {0};
            struct sl_ckpt_shard shard;

            maker_torch(&b, t, n, &o);
            assert_ok(open_bytes(&shard, b.at, b.n, &log, &err), &err);
            assert_int_equal(shard.n_tensors, n);
            assert_int_equal(heard.n, cases[i].named != NULL);
            if (cases[i].named != NULL) {
                assert_non_null(strstr(heard.line, cases[i].named));
                assert_non_null(strstr(heard.line, "made.pt"));
            }
            sl_ckpt_shard_close(&shard);
            maker_fini(&b);
        }
}

static void a_tensor_beyond_its_storage_is_refused_by_name(void **state)
{
    static const struct maker_tensor cases[] = {
        {.n_dims = 2, .shape = {8, 8}, .n_elements = 63},
        {.n_dims = 1, .shape = {1}, .n_elements = 4, .offset = 4},
        {.n_dims = 2, .shape = {4, 4}, .stride = {5, 1}, .n_elements = 16},
        {.n_dims = 2,
         .shape = {1ull << 33, 1ull << 33},
         .n_elements = 16,
         .expanded = true},
        {.n_dims = 2,
         .shape = {3, 3},
         .stride = {1ull << 62, 1ull << 62},
         .n_elements = 16},
        {.n_dims = 0, .n_elements = 4, .offset = 1ull << 63},
    };
    uint64_t data[64] = {0};
    struct sl_ckpt_shard shard;
    struct sl_error err;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct maker_tensor t = cases[i];
        struct maker_buf b = {0};

        t.name = "layer.weight";
        t.dtype = SL_DT_F64;
        t.data = data;
        maker_torch(&b, &t, 1, NULL);
        assert_int_equal(open_bytes(&shard, b.at, b.n, NULL, &err), -1);
        assert_int_equal(err.code, SL_ERR_CORRUPT);
        assert_non_null(strstr(err.msg, "tensor layer.weight"));
        assert_non_null(strstr(err.msg, "made.pt"));
        maker_fini(&b);
    }
}

static void a_storage_of_another_size_is_refused(void **state)
{
    /* BININT2 300, as t[0]'s storage has it, becomes 299. */
    static const uint8_t count[] = {'M', 300 & 255, 300 >> 8};

    for (unsigned legacy = 0; legacy < 2; legacy++) {
        struct maker_options o = {.legacy = legacy, .unsummed = true};
        struct maker_tensor t[16];
        struct maker_buf b = {0};
        struct sl_ckpt_shard shard;
        struct sl_error err;
        uint16_t data[N_DATA];
        size_t changed = 0;

        fill(data);
        make_tensors(t, data);
        maker_torch(&b, t, 1, &o);
        for (size_t i = 0; i + sizeof count <= b.n; i++)
            if (memcmp(b.at + i, count, sizeof count) == 0) {
                b.at[i + 1]--;
                changed++;
            }
        assert_int_equal(changed, 1);
        assert_int_equal(open_bytes(&shard, b.at, b.n, NULL, &err), -1);
        assert_int_equal(err.code, SL_ERR_CORRUPT);
        assert_non_null(strstr(err.msg, "299"));
        assert_non_null(strstr(err.msg, legacy ? "300" : "600"));
        maker_fini(&b);
    }
}

static void uneven_rows_are_refused_not_misread(void **state)
{
    struct maker_tensor t = {.name = "uneven",
                             .dtype = SL_DT_F16,
                             .n_dims = 3,
                             .shape = {2, 3, 4},
                             .stride = {50, 10, 1},
                             .n_elements = 100};
    struct maker_buf b = {0};
    struct sl_ckpt_shard shard;
    struct sl_error err;
    uint16_t data[N_DATA], out[24];

    fill(data);
    t.data = data;
    maker_torch(&b, &t, 1, NULL);
    assert_ok(open_bytes(&shard, b.at, b.n, NULL, &err), &err);
    assert_int_equal(sl_ckpt_read_rows(&shard.tensors[0], out, 0, 2, &err), -1);
    assert_int_equal(err.code, SL_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.msg, "uneven"));
    sl_ckpt_shard_close(&shard);
    maker_fini(&b);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_come_back_from_each_container),
        cmocka_unit_test(big_strides_are_read_piece_by_piece),
        cmocka_unit_test(a_file_cut_anywhere_is_refused_by_name),
        cmocka_unit_test(flipped_bytes_do_no_harm),
        cmocka_unit_test(hostile_pickles_are_refused_with_opcode_and_offset),
        cmocka_unit_test(depth_and_repetition_are_bounded),
        cmocka_unit_test(
            foreign_objects_are_passed_over_and_dangerous_ones_named),
        cmocka_unit_test(a_tensor_beyond_its_storage_is_refused_by_name),
        cmocka_unit_test(a_storage_of_another_size_is_refused),
        cmocka_unit_test(uneven_rows_are_refused_not_misread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
