#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "offload/io.h"
#include "src/base/mem.h"
#include "tests/support.h"

#define FILE_BYTES (3u << 20)

/* A file of bytes that tell where they lie. */
struct file {
    char dir[1024], path[1100];
    uint8_t *data;
    size_t bytes;
};

static uint8_t byte_at(uint64_t off)
{
    return (uint8_t)(off * 167 + (off >> 8) * 59 + (off >> 16) * 13);
}

static void write_file(struct file *f, size_t bytes)
{
    FILE *out = fopen(f->path, "wb");

    assert_non_null(out);
    f->bytes = bytes;
    assert_int_equal(fwrite(f->data, 1, bytes, out), bytes);
    assert_int_equal(fclose(out), 0);
}

static int setup(void **state)
{
    struct file *f = malloc(sizeof *f);

    assert_non_null(f);
    test_temp_dir(f->dir);
    snprintf(f->path, sizeof f->path, "%s/data", f->dir);
    f->data = malloc(FILE_BYTES);
    assert_non_null(f->data);
    for (size_t i = 0; i < FILE_BYTES; i++)
        f->data[i] = byte_at(i);
    write_file(f, FILE_BYTES);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct file *f = *state;

    test_remove_tree(f->dir);
    free(f->data);
    free(f);
    return 0;
}

static void any_range_is_read_into_any_memory(void **state)
{
    static const struct {
        uint64_t off;
        size_t bytes;
    } ranges[] = {
        {0, 1},         {0, 4096},       {4095, 2},
        {1, 4095},      {8192, 65536},   {777, 300000},
        {4096, 262144}, {4097, 262144},  {FILE_BYTES - 1, 1},
        {5, 0},         {FILE_BYTES, 0}, {FILE_BYTES - 5000, 5000},
        {13, 2000000},  {0, FILE_BYTES},
    };
    struct file *f = *state;
    struct sl_error err;
    struct sl_region r;

    assert_ok(sl_region_init(&r, FILE_BYTES + 8192, "test", &err), &err);
    for (int direct = 0; direct < 2; direct++) {
        bool is_direct;
        int fd;

        assert_ok(sl_io_open_file(&fd, &is_direct, f->path, direct, &err),
                  &err);
        assert_true(direct || !is_direct);
        for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
            for (size_t shift = 0; shift < 4096; shift += 1365) {
                uint8_t *buf = r.base + shift;

                memset(r.base, 0xee, ranges[i].bytes + 4096);
                assert_ok(sl_io_read_full(fd, f->path, buf, ranges[i].off,
                                          ranges[i].bytes, &err),
                          &err);
                assert_memory_equal(buf, f->data + ranges[i].off,
                                    ranges[i].bytes);
                if (shift > 0)
                    assert_int_equal(buf[-1], 0xee);
                if (ranges[i].bytes + shift < 4096)
                    assert_int_equal(buf[ranges[i].bytes], 0xee);
            }
        close(fd);
    }
    sl_region_fini(&r);
}

static void the_end_of_the_file_is_told_to_the_byte(void **state)
{
    static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 10000, 300001};
    struct file *f = *state;
    struct sl_error err;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int direct = 0; direct < 2; direct++) {
            uint8_t *buf = malloc(sizes[i] + 1);
            char want[64];
            bool is_direct;
            int fd;

            assert_non_null(buf);
            write_file(f, sizes[i]);
            assert_ok(sl_io_open_file(&fd, &is_direct, f->path, direct, &err),
                      &err);
            assert_ok(sl_io_read_full(fd, f->path, buf, 0, sizes[i], &err),
                      &err);
            assert_memory_equal(buf, f->data, sizes[i]);
            assert_int_equal(
                sl_io_read_full(fd, f->path, buf, 0, sizes[i] + 1, &err), -1);
            assert_int_equal(err.code, SL_ERR_CORRUPT);
            snprintf(want, sizeof want, "ends at byte %zu,", sizes[i]);
            assert_non_null(strstr(err.msg, want));
            assert_non_null(strstr(err.msg, f->path));
            close(fd);
            free(buf);
        }
}

static void a_range_beyond_any_file_is_refused(void **state)
{
    struct file *f = *state;
    struct sl_error err;
    bool direct;
    int fd;

    assert_ok(sl_io_open_file(&fd, &direct, f->path, true, &err), &err);
    assert_int_equal(
        sl_io_read_full(fd, f->path, f->data, UINT64_MAX - 10, 8, &err), -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    assert_int_equal(
        sl_io_read_full(fd, f->path, f->data, 10, SIZE_MAX - 5, &err), -1);
    assert_int_equal(err.code, SL_ERR_CORRUPT);
    close(fd);
}

static void a_file_that_is_not_there_is_named(void **state)
{
    struct sl_error err;
    bool direct;
    int fd = -7;

    assert_int_equal(
        sl_io_open_file(&fd, &direct, "/nowhere/a.gguf", true, &err), -1);
    assert_int_equal(err.code, SL_ERR_IO);
    assert_int_equal(err.os_errno, ENOENT);
    assert_int_equal(fd, -7);
    assert_non_null(strstr(err.msg, "/nowhere/a.gguf"));
}

/* Reads the whole file in reads of `bytes`, deepest first, and checks it. */
static void read_all(struct sl_io *io, const struct file *f, uint8_t *base,
                     uint32_t bytes, unsigned depth)
{
    size_t n = f->bytes / bytes, next = 0, ended = 0;
    struct sl_error err;

    memset(base, 0, f->bytes);
    while (ended < n) {
        struct sl_io_done done[3];
        int got;

        while (next < n && next - ended < depth) {
            struct sl_io_read r = {
                .buf = base + next * bytes,
                .off = next * bytes,
                .bytes = bytes,
                .tag = next + 1000,
            };

            assert_ok(io->ops->submit(io, &r, &err), &err);
            next++;
        }
        got = io->ops->wait(io, done, 3, &err);
        assert_ok(got < 0 ? -1 : 0, &err);
        for (int i = 0; i < got; i++) {
            assert_int_equal(done[i].result, bytes);
            assert_true(done[i].tag >= 1000 && done[i].tag < 1000 + n);
        }
        ended += (size_t)got;
    }
    assert_memory_equal(base, f->data, f->bytes);
}

struct said {
    char line[1024];
    unsigned n;
};

static void note(void *opaque, enum sl_log_level level, const char *line)
{
    struct said *said = opaque;

    snprintf(said->line, sizeof said->line, "%s", line);
    said->n++;
}

static void every_reader_reads_what_is_there(void **state)
{
    static const enum sl_io_kind kinds[] = {SL_IO_AUTO, SL_IO_URING,
                                            SL_IO_PREAD};
    struct file *f = *state;
    struct sl_error err;
    struct sl_region r;

    assert_ok(sl_region_init(&r, FILE_BYTES, "test", &err), &err);
    for (int run = 0; run < 3 * 2 * 2; run++) {
        struct sl_io_buffer buffer = {r.base, r.bytes};
        struct sl_io_config config = {
            .path = f->path,
            .kind = kinds[run % 3],
            .direct = run / 3 % 2,
            .buffers = &buffer,
            .n_buffers = run / 6,
        };
        struct sl_io *io;
        int rc = sl_io_open(&io, &config, &err);

        if (rc != 0 && config.kind == SL_IO_URING) {
            assert_int_equal(err.code, SL_ERR_UNSUPPORTED);
            continue;
        }
        assert_ok(rc, &err);
        assert_true(config.direct || !io->direct);
        read_all(io, f, r.base, 65536, SL_IO_DEPTH);
        read_all(io, f, r.base, 4096, 3);
        io->ops->close(io);
    }
    sl_region_fini(&r);
}

static void a_read_beyond_the_end_gives_what_there_is(void **state)
{
    struct file *f = *state;
    struct sl_error err;
    struct sl_region r;

    write_file(f, 3 * 4096);
    assert_ok(sl_region_init(&r, 65536, "test", &err), &err);
    for (int kind = 0; kind < 2; kind++) {
        struct sl_io_config config = {
            .path = f->path,
            .kind = kind ? SL_IO_PREAD : SL_IO_AUTO,
            .direct = true,
        };
        struct sl_io_read read = {.buf = r.base, .bytes = 65536};
        struct sl_io_done done;
        struct sl_io *io;

        assert_ok(sl_io_open(&io, &config, &err), &err);
        assert_ok(io->ops->submit(io, &read, &err), &err);
        assert_int_equal(io->ops->wait(io, &done, 1, &err), 1);
        assert_int_equal(done.result, 3 * 4096);
        read.off = 65536;
        assert_ok(io->ops->submit(io, &read, &err), &err);
        assert_int_equal(io->ops->wait(io, &done, 1, &err), 1);
        assert_int_equal(done.result, 0);
        io->ops->close(io);
    }
    sl_region_fini(&r);
}

static void *wake_later(void *arg)
{
    struct sl_io *io = arg;

    usleep(2000);
    io->ops->wake(io);
    return NULL;
}

static void a_wake_ends_the_wait_in_progress_or_the_next(void **state)
{
    struct file *f = *state;
    struct sl_error err;

    for (int kind = 0; kind < 2; kind++) {
        struct sl_io_config config = {
            .path = f->path,
            .kind = kind ? SL_IO_PREAD : SL_IO_AUTO,
            .direct = true,
        };
        struct sl_io_done done;
        struct sl_io *io;

        assert_ok(sl_io_open(&io, &config, &err), &err);
        for (int i = 0; i < 20; i++) {
            pthread_t t;

            io->ops->wake(io);
            io->ops->wake(io);
            assert_int_equal(io->ops->wait(io, &done, 1, &err), 0);
            pthread_create(&t, NULL, wake_later, io);
            assert_int_equal(io->ops->wait(io, &done, 1, &err), 0);
            pthread_join(t, NULL);
        }
        io->ops->close(io);
    }
}

static void closing_waits_for_reads_in_flight(void **state)
{
    struct file *f = *state;
    struct sl_error err;

    for (int run = 0; run < 40; run++) {
        struct sl_region r;
        struct sl_io *io;

        assert_ok(sl_region_init(&r, FILE_BYTES, "test", &err), &err);
        struct sl_io_buffer buffer = {r.base, r.bytes};
        struct sl_io_config config = {
            .path = f->path,
            .kind = run % 2 ? SL_IO_PREAD : SL_IO_AUTO,
            .direct = true,
            .buffers = &buffer,
            .n_buffers = 1,
        };
        assert_ok(sl_io_open(&io, &config, &err), &err);
        for (uint32_t i = 0; i < 12; i++) {
            struct sl_io_read read = {.buf = r.base + i * 262144,
                                      .off = i * 262144,
                                      .bytes = 262144,
                                      .tag = i};

            assert_ok(io->ops->submit(io, &read, &err), &err);
        }
        io->ops->close(io);
        sl_region_fini(&r); /* a late read would hit what is mapped next */
    }
}

/* Runs fn in a child after `enter`. Returns its exit status. */
static int in_child(int (*enter)(void), int (*fn)(const char *path),
                    const char *path)
{
    pid_t pid = fork();
    int status;

    if (pid == 0)
        _exit(enter() != 0 ? 99 : fn(path));
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int become_nobody(rlim_t locked)
{
    struct rlimit limit = {locked, locked};

    return setrlimit(RLIMIT_MEMLOCK, &limit) || setgid(65534) || setuid(65534);
}

static int nobody_with_64_kib(void)
{
    return become_nobody(65536);
}

static int nobody_with_nothing(void)
{
    return become_nobody(0);
}

/* From now on system call nr fails with error where its third argument has
   all bits of mask (openat's flags; 0: always), as in a container. */
static int forbid(uint32_t nr, uint32_t mask, uint32_t error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                 offsetof(struct seccomp_data, args[2])),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, mask, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {sizeof code / sizeof *code, code};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

static int no_io_uring(void)
{
    return forbid(__NR_io_uring_setup, 0, EPERM);
}

static int no_direct_reads(void)
{
    return forbid(__NR_openat, O_DIRECT, EINVAL);
}

/* Reads 1 MiB into a buffer offered for registration. Returns 0, or a number
   that tells what was wrong. */
static int read_a_mebibyte(const char *path, struct said *said,
                           struct sl_io *seen)
{
    struct sl_log log = {note, said, SL_LOG_INFO};
    struct sl_error err;
    struct sl_region r;
    struct sl_io_buffer buffer;
    struct sl_io_config config = {
        .path = path,
        .direct = true,
        .buffers = &buffer,
        .n_buffers = 1,
        .log = &log,
    };
    struct sl_io_read read = {.bytes = 1u << 20};
    struct sl_io_done done;
    struct sl_io *io;

    if (sl_region_init(&r, 1u << 20, "test", &err) != 0)
        return 1;
    read.buf = buffer.base = r.base;
    buffer.bytes = r.bytes;
    if (sl_io_open(&io, &config, &err) != 0)
        return 2;
    if (io->ops->submit(io, &read, &err) != 0 ||
        io->ops->wait(io, &done, 1, &err) != 1 || done.result != 1 << 20)
        return 3;
    for (uint32_t i = 0; i < 1u << 20; i++)
        if (r.base[i] != byte_at(i))
            return 4;
    *seen = *io;
    io->ops->close(io);
    sl_region_fini(&r);
    return said->n > 1 ? 5 : 0;
}

static int plain_reads_and_a_hint(const char *path)
{
    struct said said = {.n = 0};
    struct sl_io io;
    int rc = read_a_mebibyte(path, &said, &io);

    if (rc != 0 || strcmp(io.ops->name, "io_uring") != 0)
        return rc;
    return io.registered || strstr(said.line, "ulimit -l 1024") == NULL ? 6 : 0;
}

static int threads_and_a_word(const char *path)
{
    struct said said = {.n = 0};
    struct sl_io io;
    int rc = read_a_mebibyte(path, &said, &io);

    if (rc != 0)
        return rc;
    if (strcmp(io.ops->name, "pread") != 0 || !io.direct)
        return 6;
    return strstr(said.line, "io_uring") == NULL ? 7 : 0;
}

/* Pages of the file that are in the page cache. */
static size_t cached_pages(const char *path)
{
    unsigned char in[FILE_BYTES / 4096];
    int fd = open(path, O_RDONLY);
    void *map = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    size_t n = 0;

    if (fd < 0 || map == MAP_FAILED || mincore(map, FILE_BYTES, in) != 0)
        return SIZE_MAX;
    for (size_t i = 0; i < sizeof in; i++)
        n += in[i] & 1;
    munmap(map, FILE_BYTES);
    close(fd);
    return n;
}

static int buffered_reads_and_a_word(const char *path)
{
    struct said said = {.n = 0};
    size_t before = cached_pages(path);
    struct sl_io io;
    int rc = read_a_mebibyte(path, &said, &io);

    if (rc != 0)
        return rc;
    if (strcmp(io.ops->name, "pread") != 0 || io.direct)
        return 6;
    if (strstr(said.line, "has no direct reads") == NULL)
        return 7;
    return cached_pages(path) > before ? 8 : 0;
}

static void reading_works_where_io_uring_is_forbidden(void **state)
{
    struct file *f = *state;

    assert_int_equal(in_child(no_io_uring, threads_and_a_word, f->path), 0);
}

/* Also leaves nothing in the page cache. */
static void reading_works_where_direct_reads_are_refused(void **state)
{
    struct file *f = *state;
    int fd = open(f->path, O_RDONLY);

    assert_int_equal(fsync(fd), 0);
    assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    close(fd);
    assert_int_equal(
        in_child(no_direct_reads, buffered_reads_and_a_word, f->path), 0);
}

static void reading_works_where_no_memory_may_be_locked(void **state)
{
    struct file *f = *state;

    assert_int_equal(chmod(f->dir, 0755), 0);
    assert_int_equal(
        in_child(nobody_with_64_kib, plain_reads_and_a_hint, f->path), 0);
    assert_int_equal(
        in_child(nobody_with_nothing, plain_reads_and_a_hint, f->path), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(any_range_is_read_into_any_memory),
        T(the_end_of_the_file_is_told_to_the_byte),
        T(a_range_beyond_any_file_is_refused),
        T(a_file_that_is_not_there_is_named),
        T(every_reader_reads_what_is_there),
        T(a_read_beyond_the_end_gives_what_there_is),
        T(a_wake_ends_the_wait_in_progress_or_the_next),
        T(closing_waits_for_reads_in_flight),
        T(reading_works_where_io_uring_is_forbidden),
        T(reading_works_where_direct_reads_are_refused),
        T(reading_works_where_no_memory_may_be_locked),
    };
    size_t n = sizeof tests / sizeof *tests;

    /* the last one becomes another user */
    return _cmocka_run_group_tests("io", tests, geteuid() == 0 ? n : n - 1,
                                   NULL, NULL);
}
