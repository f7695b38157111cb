#include "config.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "offload/device.h"
#include "src/base/bytes.h"
#include "tests/support.h"

static const char *existing(char *path, const char *root, const char *name)
{
    struct stat st;

    snprintf(path, 1024, "%s/%s", root, name);
    return stat(path, &st) == 0 ? path : NULL;
}

const char *test_source(char *path, const char *name)
{
    const char *root = getenv("SLUICE_SOURCE");

    return existing(path, root ? root : ".", name);
}

const char *test_shared(char *path, const char *name)
{
    static const char golden[] = "golden/";
    const char *set = getenv("SLUICE_SHARED");
    const char *source = getenv("SLUICE_SOURCE");
    char root[768];

    snprintf(root, sizeof root, "%s/../shared", source ? source : ".");
    if (existing(path, set ? set : root, name) != NULL)
        return path;
    if (strncmp(name, golden, sizeof golden - 1) != 0)
        return NULL;
    snprintf(root, sizeof root, "%s/tests", source ? source : ".");
    return existing(path, root, name);
}

const char *test_variant(char *path, const char *name)
{
    if (test_shared(path, name) != NULL)
        return path;
    print_message("# no %s here\n", name);
    return NULL;
}

void test_skip_all(const char *why)
{
    printf("1..0 # SKIP %s\n", why);
    exit(0);
}

void test_temp_dir(char *dir)
{
    const char *tmp = getenv("TMPDIR");

    snprintf(dir, 1024, "%s/sluice-test-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
}

static int remove_one(const char *path, const struct stat *st, int flag,
                      struct FTW *ftw)
{
    return remove(path);
}

void test_remove_tree(const char *dir)
{
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

char test_dir[1024];

int test_dir_set_up(void **state)
{
    test_temp_dir(test_dir);
    *state = test_dir;
    return 0;
}

int test_dir_tear_down(void **state)
{
    test_remove_tree(test_dir);
    return 0;
}

void test_assert_ok(int rc, const struct sl_error *err, const char *file,
                    int line)
{
    if (rc == 0)
        return;
    print_error("%s:%d: %s\n", file, line, err->msg);
    fail();
}

uint8_t *test_read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data;
    long size;

    if (f == NULL)
        print_error("cannot open %s\n", path);
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    size = ftell(f);
    rewind(f);
    data = malloc((size_t)size + 1);
    assert_non_null(data);
    *n = fread(data, 1, (size_t)size, f);
    assert_int_equal(*n, size);
    data[*n] = 0;
    fclose(f);
    return data;
}

json_t *test_json(const char *path)
{
    json_error_t e;
    json_t *j = json_load_file(path, JSON_ALLOW_NUL, &e);

    if (j == NULL)
        print_error("%s:%d: %s\n", path, e.line, e.text);
    assert_non_null(j);
    return j;
}

/* .npz: a zip of stored members, read through its central directory. */
struct test_npz {
    uint8_t *data;
    size_t n;
    size_t dir; /* first central record */
    unsigned n_members;
};

struct test_npz *test_npz_open(const char *path)
{
    struct test_npz *z = calloc(1, sizeof *z);
    size_t end;

    assert_non_null(z);
    z->data = test_read_file(path, &z->n);
    assert_true(z->n > 22);
    for (end = z->n - 22; sl_load_u32(z->data + end) != 0x06054b50; end--)
        assert_true(end > 0);
    z->n_members = sl_load_u16(z->data + end + 10);
    z->dir = sl_load_u32(z->data + end + 16);
    return z;
}

void test_npz_close(struct test_npz *z)
{
    free(z->data);
    free(z);
}

static const uint8_t *npz_member(const struct test_npz *z, const char *name,
                                 size_t *n)
{
    const uint8_t *p = z->data + z->dir;
    char want[256];

    snprintf(want, sizeof want, "%s.npy", name);
    for (unsigned i = 0; i < z->n_members; i++) {
        size_t len = sl_load_u16(p + 28);

        if (len == strlen(want) && memcmp(p + 46, want, len) == 0) {
            const uint8_t *local = z->data + sl_load_u32(p + 42);

            assert_int_equal(sl_load_u16(p + 10), 0); /* stored */
            *n = sl_load_u32(p + 24);
            return local + 30 + sl_load_u16(local + 26) +
                   sl_load_u16(local + 28);
        }
        p += 46 + len + sl_load_u16(p + 30) + sl_load_u16(p + 32);
    }
    return NULL;
}

bool test_npz_has(const struct test_npz *z, const char *name)
{
    size_t n;

    return npz_member(z, name, &n) != NULL;
}

void test_npz_get(const struct test_npz *z, const char *name,
                  struct test_array *a)
{
    size_t n;
    const uint8_t *p = npz_member(z, name, &n);

    if (p == NULL)
        print_error("no array %s\n", name);
    assert_non_null(p);
    test_npy_parse(p, n, a);
}

void test_npy_parse(const uint8_t *data, size_t n, struct test_array *a)
{
    size_t head, bytes;
    const char *s;
    char *text;

    memset(a, 0, sizeof *a);
    assert_true(n > 12 && memcmp(data, "\x93NUMPY", 6) == 0);
    head = data[6] == 1 ? 10 + (size_t)sl_load_u16(data + 8)
                        : 12 + (size_t)sl_load_u32(data + 8);
    assert_true(head <= n);
    text = strndup((const char *)data + 10, head - 10);
    assert_null(strstr(text, "'fortran_order': True"));
    s = strstr(text, "'descr': '");
    assert_non_null(s);
    sscanf(s + 10, "%7[^']", a->dtype);
    s = strchr(strstr(text, "'shape': "), '(');
    a->n = 1;
    for (s++; *s != ')' && a->n_dims < 4;) {
        char *end;
        size_t v = strtoull(s, &end, 10);

        if (end == s)
            break;
        a->shape[a->n_dims++] = v;
        a->n *= v;
        for (s = end; *s == ',' || *s == ' '; s++)
            ;
    }
    free(text);
    bytes = a->n * (size_t)atoi(a->dtype + 2);
    assert_true(head + bytes <= n);
    a->data = malloc(bytes + 1);
    assert_non_null(a->data);
    memcpy(a->data, data + head, bytes);
}

void test_array_fini(struct test_array *a)
{
    free(a->data);
    memset(a, 0, sizeof *a);
}

#ifdef HAVE_CUDA
bool test_has_gpu(void)
{
    struct sl_device_info infos[8];
    struct sl_error err;
    size_t n;

    if (sl_device_list(infos, 8, &n, &err) == 0) {
        for (size_t i = 0; i < n && i < 8; i++) {
            if (infos[i].why_not.code == SL_OK)
                return true;
        }
        err = infos[0].why_not;
    }
    print_message("# %s\n", err.msg);
    return false;
}
#endif
