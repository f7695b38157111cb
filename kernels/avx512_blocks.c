#include "config.h"

#include "kernels/isa.h"
#include "kernels/vec_avx512.h"

#include "kernels/vec_blocks_floats.h"
