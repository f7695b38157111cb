#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/bytes.h"
#include "src/model/gguf.h"
#include "tests/support.h"

/* A byte image put together by hand, value by value. */
struct image {
    uint8_t data[8192];
    size_t n;
};

static void put(struct image *m, const void *data, size_t n)
{
    assert_true(m->n + n <= sizeof m->data);
    memcpy(m->data + m->n, data, n);
    m->n += n;
}

static void put_u8(struct image *m, uint8_t v)
{
    put(m, &v, 1);
}

static void put_u32(struct image *m, uint32_t v)
{
    uint8_t b[4];

    sl_store_u32(b, v);
    put(m, b, 4);
}

static void put_u64(struct image *m, uint64_t v)
{
    uint8_t b[8];

    sl_store_u64(b, v);
    put(m, b, 8);
}

static void put_string(struct image *m, const char *s)
{
    put_u64(m, strlen(s));
    put(m, s, strlen(s));
}

static void put_head(struct image *m, uint64_t n_tensors, uint64_t n_keys)
{
    m->n = 0;
    put(m, "GGUF", 4);
    put_u32(m, 3);
    put_u64(m, n_tensors);
    put_u64(m, n_keys);
}

static void put_key(struct image *m, const char *key, uint32_t type)
{
    put_string(m, key);
    put_u32(m, type);
}

static void put_tensor(struct image *m, const char *name, uint64_t ne,
                       uint32_t type, uint64_t off)
{
    put_string(m, name);
    put_u32(m, 1);
    put_u64(m, ne);
    put_u32(m, type);
    put_u64(m, off);
}

static int parse(struct sl_gguf **g, const struct image *m, uint64_t file_bytes,
                 struct sl_error *err)
{
    size_t need = 0;
    /* An exact copy, so that a sanitizer sees a read beyond its end. */
    uint8_t *copy = malloc(m->n ? m->n : 1);
    int rc;

    memcpy(copy, m->data, m->n);
    rc = sl_gguf_parse(g, copy, m->n, file_bytes, &need, err);
    free(copy);
    if (rc > 0)
        assert_true(need > m->n && need <= file_bytes);
    return rc;
}

/* Parses the image as the whole of a file; it must be refused with a message
 * that holds part. */
static void check_refused(const struct image *m, enum sl_code code,
                          const char *part)
{
    struct sl_gguf *g;
    struct sl_error err;

    assert_int_equal(parse(&g, m, m->n, &err), -1);
    if (strstr(err.msg, part) == NULL)
        fail_msg("'%s' is not in: %s", part, err.msg);
    assert_int_equal(err.code, code);
}

/* The bytes of a header with one of each thing, from ggml-org/ggml
 * docs/gguf.md. */
static const char text[] =
    "GGUF\3\0\0\0"      /* magic, version */
    "\2\0\0\0\0\0\0\0"  /* tensors */
    "\10\0\0\0\0\0\0\0" /* keys */
    /* general.alignment = 64: key length, key, type 4 (u32), value */
    "\21\0\0\0\0\0\0\0general.alignment\4\0\0\0\100\0\0\0"
    /* s = "GLM": type 8 (string) */
    "\1\0\0\0\0\0\0\0s\10\0\0\0\3\0\0\0\0\0\0\0GLM"
    /* q = 0x0102030405060708: type 10 (u64) */
    "\1\0\0\0\0\0\0\0q\12\0\0\0\10\7\6\5\4\3\2\1"
    /* i = -2: type 5 (i32) */
    "\1\0\0\0\0\0\0\0i\5\0\0\0\376\377\377\377"
    /* f = 1.5: type 6 (f32) */
    "\1\0\0\0\0\0\0\0f\6\0\0\0\0\0\300\77"
    /* b = true: type 7 (bool), one byte */
    "\1\0\0\0\0\0\0\0b\7\0\0\0\1"
    /* a = [1, 258]: type 9 (array) of type 10, length 2 */
    "\1\0\0\0\0\0\0\0a\11\0\0\0\12\0\0\0\2\0\0\0\0\0\0\0"
    "\1\0\0\0\0\0\0\0\2\1\0\0\0\0\0\0"
    /* t = ["x", ""]: array of type 8 */
    "\1\0\0\0\0\0\0\0t\11\0\0\0\10\0\0\0\2\0\0\0\0\0\0\0"
    "\1\0\0\0\0\0\0\0x\0\0\0\0\0\0\0\0"
    /* tensor "w": 2 dimensions, 3 fastest then 5, type 0 (F32), offset 0 */
    "\1\0\0\0\0\0\0\0w\2\0\0\0\3\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0"
    "\0\0\0\0\0\0\0\0\0\0\0\0"
    /* tensor "v": 1 dimension of 7, type 1 (F16), offset 60 padded to 64 */
    "\1\0\0\0\0\0\0\0v\1\0\0\0\7\0\0\0\0\0\0\0\1\0\0\0\100\0\0\0\0\0\0\0";

/* Without the zero byte that C puts behind it. */
enum { TEXT_BYTES = sizeof text - 1 };

static uint8_t *write_expected(size_t *bytes)
{
    static const uint64_t a[] = {1, 258}, w_ne[] = {3, 5}, v_ne[] = {7};
    static const char *const t[] = {"x", ""};
    struct sl_gguf_writer *w = sl_gguf_writer_create(64);
    struct sl_error err;
    uint8_t *data = NULL;

    sl_gguf_add_string(w, "s", "GLM");
    sl_gguf_add_u64(w, "q", 0x0102030405060708u);
    sl_gguf_add_i32(w, "i", -2);
    sl_gguf_add_f32(w, "f", 1.5f);
    sl_gguf_add_bool(w, "b", true);
    sl_gguf_add_u64_array(w, "a", a, 2);
    sl_gguf_add_string_array(w, "t", t, 2);
    sl_gguf_add_tensor(w, "w", SL_GGML_F32, 2, w_ne);
    sl_gguf_add_tensor(w, "v", SL_GGML_F16, 1, v_ne);
    assert_ok(sl_gguf_writer_finish(w, &data, bytes, &err), &err);
    return data;
}

static void the_header_is_written_as_the_specification_says(void **state)
{
    size_t bytes;
    uint8_t *data = write_expected(&bytes);

    assert_memory_equal(data, text, TEXT_BYTES);
    assert_int_equal(bytes, (size_t)(TEXT_BYTES + 63) / 64 * 64);
    for (size_t i = TEXT_BYTES; i < bytes; i++)
        assert_int_equal(data[i], 0);
    free(data);
}

static void the_same_bytes_are_read_back(void **state)
{
    const size_t data_off = (size_t)(TEXT_BYTES + 63) / 64 * 64;
    const struct sl_gguf_tensor *t;
    const char *const *strings;
    const uint64_t *a;
    const char *s;
    struct sl_gguf *g;
    struct sl_error err;
    uint64_t u;
    int64_t i;
    double f;
    size_t n, need;
    bool b;

    assert_ok(sl_gguf_parse(&g, (const uint8_t *)text, TEXT_BYTES,
                            data_off + 78, &need, &err),
              &err);
    assert_ok(sl_gguf_get_string(g, "s", &s, &err), &err);
    assert_string_equal(s, "GLM");
    assert_ok(sl_gguf_get_u64(g, "q", &u, &err), &err);
    assert_true(u == 0x0102030405060708u);
    assert_ok(sl_gguf_get_i64(g, "i", &i, &err), &err);
    assert_int_equal(i, -2);
    assert_ok(sl_gguf_get_f64(g, "f", &f, &err), &err);
    assert_true(f == 1.5);
    assert_ok(sl_gguf_get_bool(g, "b", &b, &err), &err);
    assert_true(b);
    assert_ok(sl_gguf_get_u64_array(g, "a", &a, &n, &err), &err);
    assert_true(n == 2 && a[0] == 1 && a[1] == 258);
    assert_ok(sl_gguf_get_string_array(g, "t", &strings, &n, &err), &err);
    assert_int_equal(n, 2);
    assert_string_equal(strings[0], "x");
    assert_string_equal(strings[1], "");
    assert_int_equal(sl_gguf_alignment(g), 64);
    assert_int_equal(sl_gguf_data_off(g), data_off);
    assert_int_equal(sl_gguf_end(g), data_off + 128);
    assert_int_equal(sl_gguf_n_tensors(g), 2);
    t = sl_gguf_find(g, "v");
    assert_ptr_equal(t, sl_gguf_tensor_at(g, 1));
    assert_int_equal(t->off, data_off + 64);
    assert_int_equal(t->bytes, 14);
    assert_true(t->n_dims == 1 && t->ne[0] == 7 && t->ne[1] == 1);
    t = sl_gguf_find(g, "w");
    assert_int_equal(t->bytes, 60);
    assert_true(t->n_dims == 2 && t->ne[0] == 3 && t->ne[1] == 5);
    assert_null(sl_gguf_find(g, "x"));
    assert_null(sl_gguf_tensor_at(g, 2));
    assert_memory_equal(text + sl_gguf_value_off(g, "q"),
                        "\x08\x07\x06\x05\x04\x03\x02\x01", 8);
    assert_int_equal(sl_gguf_value_off(g, "nothing"), 0);
    sl_gguf_destroy(g);
}

static void wrong_types_and_missing_keys_are_named(void **state)
{
    struct sl_gguf *g;
    struct sl_error err;
    const char *const *strings;
    const uint64_t *a;
    const char *s;
    uint64_t u;
    int64_t i;
    double f;
    size_t n, need;
    bool b;

    assert_ok(
        sl_gguf_parse(&g, (const uint8_t *)text, TEXT_BYTES, 1000, &need, &err),
        &err);
    assert_int_equal(sl_gguf_get_u64(g, "none", &u, &err), -1);
    assert_string_equal(err.msg, "metadata 'none' is missing");
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    assert_int_equal(sl_gguf_get_u64(g, "i", &u, &err), -1); /* negative */
    assert_int_equal(sl_gguf_get_u64(g, "b", &u, &err), -1);
    assert_int_equal(sl_gguf_get_i64(g, "s", &i, &err), -1);
    assert_int_equal(sl_gguf_get_f64(g, "q", &f, &err), -1);
    assert_int_equal(sl_gguf_get_bool(g, "q", &b, &err), -1);
    assert_int_equal(sl_gguf_get_string(g, "t", &s, &err), -1);
    assert_int_equal(sl_gguf_get_u64_array(g, "t", &a, &n, &err), -1);
    assert_int_equal(sl_gguf_get_string_array(g, "a", &strings, &n, &err), -1);
    assert_non_null(strstr(err.msg, "'a'"));
    sl_gguf_destroy(g);
}

/* Little-endian bytes of a number of any width. */
static void put_number(struct image *m, uint32_t type, uint64_t bits)
{
    static const uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

    for (unsigned i = 0; i < sizes[type]; i++)
        put_u8(m, (uint8_t)(bits >> 8 * i));
}

static void every_kind_of_value_is_read(void **state)
{
    static const struct {
        uint32_t type;
        uint64_t bits;
        int64_t value;
    } numbers[] = {
        {SL_GGUF_U8, 0xff, 255},
        {SL_GGUF_I8, 0xff, -1},
        {SL_GGUF_U16, 0xfffe, 65534},
        {SL_GGUF_I16, 0xfffe, -2},
        {SL_GGUF_U32, 0xfffffffd, 4294967293},
        {SL_GGUF_I32, 0xfffffffd, -3},
        {SL_GGUF_U64, 0x7ffffffffffffffc, 0x7ffffffffffffffc},
        {SL_GGUF_I64, 0xfffffffffffffffc, -4},
    };
    enum { N = sizeof numbers / sizeof *numbers };
    struct image m = {{0}, 0};
    struct sl_gguf *g;
    struct sl_error err;
    const uint64_t *a;
    char key[8];
    int64_t v;
    double f;
    size_t n;

    put_head(&m, 0, 2 * N + 2);
    for (size_t i = 0; i < N; i++) {
        snprintf(key, sizeof key, "n%zu", i);
        put_key(&m, key, numbers[i].type);
        put_number(&m, numbers[i].type, numbers[i].bits);
        snprintf(key, sizeof key, "a%zu", i);
        put_key(&m, key, SL_GGUF_ARRAY);
        put_u32(&m, numbers[i].type);
        put_u64(&m, 2);
        put_number(&m, numbers[i].type, 5);
        put_number(&m, numbers[i].type, numbers[i].bits);
    }
    put_key(&m, "d", SL_GGUF_F64);
    put_u64(&m, 0xbff8000000000000u); /* -1.5 */
    /* Arrays of arrays, of floats, of bools are passed over. */
    put_key(&m, "deep", SL_GGUF_ARRAY);
    put_u32(&m, SL_GGUF_ARRAY);
    put_u64(&m, 3);
    put_u32(&m, SL_GGUF_F32);
    put_u64(&m, 1);
    put_u32(&m, 0);
    put_u32(&m, SL_GGUF_BOOL);
    put_u64(&m, 2);
    put(&m, "\1\0", 2);
    put_u32(&m, SL_GGUF_STRING);
    put_u64(&m, 1);
    put_string(&m, "inside");
    assert_ok(parse(&g, &m, 4096, &err), &err);
    for (size_t i = 0; i < N; i++) {
        snprintf(key, sizeof key, "n%zu", i);
        assert_ok(sl_gguf_get_i64(g, key, &v, &err), &err);
        assert_true(v == numbers[i].value);
        snprintf(key, sizeof key, "a%zu", i);
        if (numbers[i].value < 0) {
            assert_int_equal(sl_gguf_get_u64_array(g, key, &a, &n, &err), -1);
        } else {
            assert_ok(sl_gguf_get_u64_array(g, key, &a, &n, &err), &err);
            assert_true(n == 2 && a[0] == 5 &&
                        a[1] == (uint64_t)numbers[i].value);
        }
    }
    assert_ok(sl_gguf_get_f64(g, "d", &f, &err), &err);
    assert_true(f == -1.5);
    assert_true(sl_gguf_has(g, "deep"));
    sl_gguf_destroy(g);
}

static void a_header_cut_anywhere_is_refused_or_asked_for(void **state)
{
    size_t bytes;
    uint8_t *data = write_expected(&bytes);
    struct sl_gguf *g;
    struct sl_error err;
    struct image m;

    for (size_t n = 0; n < TEXT_BYTES; n++) {
        m.n = 0;
        put(&m, data, n);
        /* The file ends here. */
        assert_int_equal(parse(&g, &m, n, &err), -1);
        assert_int_equal(err.code, SL_ERR_CORRUPT);
        assert_non_null(strstr(err.msg, "cut short"));
        /* The file goes on: more is asked for, and asked for again. */
        assert_int_equal(parse(&g, &m, bytes + 128, &err), 1);
    }
    /* Whole, but the tensors' data is not. */
    m.n = 0;
    put(&m, data, bytes);
    for (size_t n = bytes; n < bytes + 64 + 14; n++) {
        assert_int_equal(parse(&g, &m, n, &err), -1);
        assert_non_null(strstr(err.msg, "cut short"));
    }
    assert_ok(parse(&g, &m, bytes + 64 + 14, &err), &err);
    sl_gguf_destroy(g);
    free(data);
}

static void a_reader_that_starts_small_ends_soon(void **state)
{
    uint8_t file[1024] = {0};
    size_t n, need = 1;
    struct sl_gguf *g;
    struct sl_error err;
    int rc, turns = 0;

    memcpy(file, text, TEXT_BYTES);
    do {
        assert_true(need <= sizeof file && ++turns < 12);
        n = need;
        rc = sl_gguf_parse(&g, file, n, sizeof file, &need, &err);
        assert_true(rc != 1 || need >= 2 * n || need == sizeof file);
    } while (rc == 1);
    assert_ok(rc, &err);
    sl_gguf_destroy(g);
}

static void counts_that_cannot_be_take_no_memory(void **state)
{
    static const uint64_t counts[] = {
        1, 100, 1u << 20, UINT32_MAX, 1ull << 40, UINT64_MAX / 33, UINT64_MAX};
    struct sl_gguf *g;
    struct sl_error err;
    struct image m;

    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        for (int k = 0; k < 2; k++) {
            put_head(&m, k ? counts[i] : 0, k ? 0 : counts[i]);
            assert_int_equal(parse(&g, &m, m.n, &err), -1);
            assert_true(err.code == SL_ERR_CORRUPT);
            /* The same in front of a file that seems to be huge. */
            assert_true(parse(&g, &m, 1ull << 50, &err) != 0);
        }
        put_head(&m, 0, 1);
        put_key(&m, "a", SL_GGUF_ARRAY);
        for (uint32_t type = 0; type <= 13; type++) {
            size_t n = m.n;

            put_u32(&m, type);
            put_u64(&m, counts[i]);
            assert_int_equal(parse(&g, &m, m.n, &err), -1);
            assert_true(parse(&g, &m, 1ull << 50, &err) != 0);
            m.n = n;
        }
        put_head(&m, 0, 1);
        put_u64(&m, counts[i]); /* length of a key */
        assert_int_equal(parse(&g, &m, m.n, &err), -1);
        put_head(&m, 0, 1);
        put_key(&m, "s", SL_GGUF_STRING);
        put_u64(&m, counts[i]);
        assert_int_equal(parse(&g, &m, m.n, &err), -1);
    }
}

static void bad_beginnings_are_told_apart(void **state)
{
    struct image m;

    put_head(&m, 0, 0);
    m.data[0] = 'g';
    check_refused(&m, SL_ERR_CORRUPT, "not a model file");
    put_head(&m, 0, 0);
    m.data[4] = 1;
    check_refused(&m, SL_ERR_UNSUPPORTED, "version 1");
    m.data[4] = 4;
    check_refused(&m, SL_ERR_UNSUPPORTED, "version 4");
    put_head(&m, 0, 0);
    memcpy(m.data + 4, "\0\0\0\3", 4);
    check_refused(&m, SL_ERR_UNSUPPORTED, "big-endian");
}

static void bad_keys_and_values_are_refused(void **state)
{
    struct image m;

    put_head(&m, 0, 2);
    for (int i = 0; i < 2; i++) {
        put_key(&m, "twice", SL_GGUF_U8);
        put_u8(&m, 1);
    }
    check_refused(&m, SL_ERR_CORRUPT, "'twice' is there more than once");
    put_head(&m, 0, 1);
    put_key(&m, "b", SL_GGUF_BOOL);
    put_u8(&m, 2);
    check_refused(&m, SL_ERR_CORRUPT, "bool of value 2");
    put_head(&m, 0, 1);
    put_key(&m, "b", 13);
    put_u64(&m, 0);
    check_refused(&m, SL_ERR_CORRUPT, "type 13");
    put_head(&m, 0, 1);
    put_key(&m, "b", SL_GGUF_ARRAY);
    put_u32(&m, 13);
    put_u64(&m, 0);
    check_refused(&m, SL_ERR_CORRUPT, "type 13");
    put_head(&m, 0, 1);
    put_key(&m, "esc\033[2J", SL_GGUF_U8);
    put_u8(&m, 1);
    check_refused(&m, SL_ERR_CORRUPT, "not plain ASCII");
    put_head(&m, 0, 1);
    put_key(&m, "s", SL_GGUF_STRING);
    put_u64(&m, 3);
    put(&m, "a\0b", 3);
    check_refused(&m, SL_ERR_CORRUPT, "zero byte");
    put_head(&m, 0, 1);
    put_key(&m, "", SL_GGUF_U32);
    put_u32(&m, 1);
    check_refused(&m, SL_ERR_CORRUPT, "0 bytes");
    put_head(&m, 0, 1);
    put_key(&m, "nest", SL_GGUF_ARRAY);
    for (int i = 0; i < 64; i++) {
        put_u32(&m, SL_GGUF_ARRAY);
        put_u64(&m, 1);
    }
    check_refused(&m, SL_ERR_UNSUPPORTED, "deep");
    for (uint32_t v = 0; v < 64; v += 12) {
        put_head(&m, 0, 1);
        put_key(&m, "general.alignment", SL_GGUF_U32);
        put_u32(&m, v);
        check_refused(&m, SL_ERR_CORRUPT, "general.alignment");
    }
}

static void bad_tensors_are_refused(void **state)
{
    struct image m;
    char long_name[80];

    put_head(&m, 2, 0);
    put_tensor(&m, "t", 8, SL_GGML_F32, 0);
    put_tensor(&m, "t", 8, SL_GGML_F32, 32);
    check_refused(&m, SL_ERR_CORRUPT, "tensor t is there more than once");
    put_head(&m, 2, 0);
    put_tensor(&m, "t", 8, SL_GGML_F32, 0);
    put_tensor(&m, "u", 8, SL_GGML_F32, 16); /* overlaps */
    check_refused(&m, SL_ERR_CORRUPT, "tensor u lies at 16");
    put_head(&m, 1, 0);
    put_tensor(&m, "t", 8, 4, 0); /* it was taken out of ggml */
    check_refused(&m, SL_ERR_UNSUPPORTED, "ggml type 4");
    put_head(&m, 1, 0);
    put_tensor(&m, "t", 40, 2, 0);
    check_refused(&m, SL_ERR_CORRUPT, "no blocks of 32, as Q4_0 has them");
    put_head(&m, 1, 0);
    put_tensor(&m, "t", 0, SL_GGML_F32, 0);
    check_refused(&m, SL_ERR_CORRUPT, "tensor t: its size");
    put_head(&m, 1, 0);
    put_tensor(&m, "t", UINT64_MAX / 2, SL_GGML_F32, 0);
    check_refused(&m, SL_ERR_CORRUPT, "overflows");
    put_head(&m, 2, 0);
    put_tensor(&m, "t", INT64_MAX - 100, SL_GGML_I8, 0);
    put_tensor(&m, "u", INT64_MAX - 100, SL_GGML_I8,
               (INT64_MAX - 100 + 31ull) / 32 * 32);
    check_refused(&m, SL_ERR_CORRUPT, "beyond what a file can hold");
    memset(long_name, 'n', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    put_head(&m, 1, 0);
    put_tensor(&m, long_name, 1, SL_GGML_I8, 0);
    check_refused(&m, SL_ERR_CORRUPT, "79 bytes");
    put_head(&m, 1, 0);
    put_string(&m, "dims");
    put_u32(&m, 5);
    for (int i = 0; i < 6; i++)
        put_u64(&m, 1);
    check_refused(&m, SL_ERR_CORRUPT, "5 dimensions");
}

static void what_cannot_be_written_is_remembered(void **state)
{
    static const uint64_t huge[] = {1ull << 40, 1ull << 40};
    static const uint64_t one[] = {1};
    struct sl_gguf_writer *w;
    struct sl_error err;
    uint8_t *data = NULL;
    char name[70];
    size_t n;

    w = sl_gguf_writer_create(48);
    assert_int_equal(sl_gguf_writer_finish(w, &data, &n, &err), -1);
    w = sl_gguf_writer_create(4096);
    sl_gguf_add_tensor(w, "big", SL_GGML_F32, 2, huge);
    sl_gguf_add_u32(w, "after", 1);
    assert_int_equal(sl_gguf_writer_finish(w, &data, &n, &err), -1);
    assert_non_null(strstr(err.msg, "tensor big"));
    memset(name, 'n', sizeof name);
    name[65] = '\0';
    w = sl_gguf_writer_create(4096);
    sl_gguf_add_tensor(w, name, SL_GGML_F32, 1, one);
    assert_int_equal(sl_gguf_writer_finish(w, &data, &n, &err), -1);
    assert_non_null(strstr(err.msg, "65 bytes"));
    w = sl_gguf_writer_create(4096);
    sl_gguf_add_string(w, "", "no key");
    assert_int_equal(sl_gguf_writer_finish(w, &data, &n, &err), -1);
    /* What stands for a writer that found no memory. */
    sl_gguf_add_u32(NULL, "x", 1);
    sl_gguf_add_string_array(NULL, "x", NULL, 0);
    sl_gguf_add_tensor(NULL, "x", SL_GGML_F32, 1, one);
    assert_int_equal(sl_gguf_writer_finish(NULL, &data, &n, &err), -1);
    assert_int_equal(err.code, SL_ERR_NOMEM);
    assert_null(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_header_is_written_as_the_specification_says),
        cmocka_unit_test(the_same_bytes_are_read_back),
        cmocka_unit_test(wrong_types_and_missing_keys_are_named),
        cmocka_unit_test(every_kind_of_value_is_read),
        cmocka_unit_test(a_header_cut_anywhere_is_refused_or_asked_for),
        cmocka_unit_test(a_reader_that_starts_small_ends_soon),
        cmocka_unit_test(counts_that_cannot_be_take_no_memory),
        cmocka_unit_test(bad_beginnings_are_told_apart),
        cmocka_unit_test(bad_keys_and_values_are_refused),
        cmocka_unit_test(bad_tensors_are_refused),
        cmocka_unit_test(what_cannot_be_written_is_remembered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
