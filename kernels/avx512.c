#include "config.h"

#include "kernels/isa.h"
#include "kernels/vec_avx512.h"

#include "kernels/vec_attn.h"
#include "kernels/vec_matmul.h"
#include "kernels/vec_misc.h"
#include "kernels/vec_table.h"
