#include "config.h"

#include "kernels/isa.h"
#include "kernels/vec_avx2.h"

#include "kernels/vec_attn.h"
#include "kernels/vec_matmul.h"
#include "kernels/vec_misc.h"
#include "kernels/vec_planes.h"
#include "kernels/vec_q8.h"
#include "kernels/vec_table.h"
