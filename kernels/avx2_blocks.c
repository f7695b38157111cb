#include "config.h"

#include "kernels/isa.h"
#include "kernels/vec_avx2.h"

#include "kernels/vec_blocks_floats.h"
