#include "config.h"

#define SL_PACK8 sl_pack8_avx2
#include "quant/pack8_tmpl.h"
