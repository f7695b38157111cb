#include "config.h"

#include <immintrin.h>

#define SL_PACK_BLOCK sl_pack_block_avx2
#define LESSER(a, b)  ((vf)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define GREATER(a, b) ((vf)_mm256_max_ps((__m256)(a), (__m256)(b)))
#include "quant/pack_block_tmpl.h"
