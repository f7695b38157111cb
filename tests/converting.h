/*
 * converting.h - a made checkpoint, converted and looked at
 */
#ifndef SL_TESTS_CONVERTING_H
#define SL_TESTS_CONVERTING_H

#include "src/convert/convert.h"
#include "src/model/modelfile.h"
#include "tests/glm_maker.h"

struct fixture {
    char dir[1024];
    char source[1100], out[1100];
    struct glm_maker g;
    struct sl_convert_options o; /* source to out, two threads, force */
    char said[4096];             /* what was logged */
    struct sl_log log;
};

int fixture_setup(void **state);
int fixture_teardown(void **state);

void convert(struct fixture *f, const char *quant);

/* Converts in vain; the message must hold each of the words. */
void refuse(struct fixture *f, enum sl_code code, const char *const *words);
#define REFUSE(f, code, ...)                                                   \
    refuse((f), (code), (const char *const[]){__VA_ARGS__, NULL})

bool file_exists(const char *path, const char *tail);

struct bytes {
    uint8_t *data;
    size_t n;
};
struct bytes take_file(const char *path);
void assert_same_file(struct bytes want, const char *path);

/* Opens a model file and verifies its checksums. */
void open_checked(struct sl_modelfile *mf, const char *path);
/* All rows of matrix i as floats, row-major; free it. */
float *decode(const struct sl_modelfile *mf, size_t i);
/* Every weight of out within limit * (the largest there is) of glm_value;
 * 0: equal. Vectors are equal. */
void assert_weights(const struct fixture *f, double limit);

#endif
