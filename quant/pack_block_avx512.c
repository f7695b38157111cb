#include "config.h"

#include <immintrin.h>

#define SL_PACK_BLOCK sl_pack_block_avx512
#define LANES         16
#define LESSER(a, b)  ((vf)_mm512_min_ps((__m512)(a), (__m512)(b)))
#define GREATER(a, b) ((vf)_mm512_max_ps((__m512)(a), (__m512)(b)))
#include "quant/pack_block_tmpl.h"
