#include "config.h"

#include <immintrin.h>

#define SL_PACK8      sl_pack8_avx2
#define LESSER(a, b)  ((v8f)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define GREATER(a, b) ((v8f)_mm256_max_ps((__m256)(a), (__m256)(b)))
#include "quant/pack8_tmpl.h"
