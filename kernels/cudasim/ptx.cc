/* Instructions that have no CUDA C++ name; see device_ptx.h. */
#include "config.h"

#include <string.h>

#include <cuda_fp16.h>

#include "kernels/cudasim/device_ptx.h"
#include "kernels/cudasim/sim.h"

struct fragments {
    float *c;
    const uint32_t *a, *b;
};

static void spread(float to[2], uint32_t pair)
{
    to[0] = cudasim_to_float((unsigned short)pair);
    to[1] = cudasim_to_float((unsigned short)(pair >> 16));
}

/* Puts the lanes' fragments together, multiplies, gives back. */
static void multiply(void *const records[32])
{
    float a[16][16], b[8][16]; /* b: columns */

    for (unsigned lane = 0; lane < 32; lane++) {
        const struct fragments *f =
            static_cast<const fragments *>(records[lane]);
        unsigned g = lane / 4, t = lane % 4;

        if (!f)
            cudasim_stop("at mma of a warp whose lane %u takes no part", lane);
        for (unsigned i = 0; i < 4; i++)
            spread(&a[g + i % 2 * 8][2 * t + i / 2 * 8], f->a[i]);
        for (unsigned i = 0; i < 2; i++)
            spread(&b[g][2 * t + 8 * i], f->b[i]);
    }
    for (unsigned lane = 0; lane < 32; lane++) {
        const struct fragments *f =
            static_cast<const fragments *>(records[lane]);
        unsigned g = lane / 4, t = lane % 4;

        for (unsigned i = 0; i < 4; i++) {
            const float *x = a[g + i / 2 * 8], *y = b[2 * t + i % 2];
            float sum = 0;

            for (unsigned k = 0; k < 16; k++)
                sum += x[k] * y[k];
            f->c[i] += sum;
        }
    }
}

void cudasim_mma(float c[4], const uint32_t a[4], const uint32_t b[2],
                 cudasim_site site)
{
    struct fragments f = {c, a, b};

    cudasim_meet("mma", 0xffffffffu, multiply, &f, site);
}

void cudasim_check_shared16(const char *what, const void *p)
{
    if (!sim_is_shared(p, 16) || reinterpret_cast<uintptr_t>(p) % 16 != 0)
        cudasim_stop("is at %s with %p, which is not 16 aligned bytes of "
                     "shared memory",
                     what, p);
}

void cudasim_copy_async(void *shared, const void *from, unsigned bytes)
{
    unsigned *group;
    std::vector<sim_async> *copies = sim_async_copies(&group);

    cudasim_check_shared16("cp.async", shared);
    if (bytes > 16 || (bytes && reinterpret_cast<uintptr_t>(from) % 16 != 0))
        cudasim_stop("is at cp.async of %u bytes from %p, not aligned to 16",
                     bytes, from);
    copies->push_back({shared, from, bytes, *group});
}

void cudasim_copy_commit(void)
{
    unsigned *group;

    sim_async_copies(&group);
    ++*group;
}

/* As late as can be, so that a wait that is missing is seen. */
void cudasim_copy_wait(unsigned n)
{
    unsigned *group;
    std::vector<sim_async> *copies = sim_async_copies(&group);
    size_t left = 0;

    for (const sim_async &c : *copies) {
        if (c.group + n >= *group) {
            (*copies)[left++] = c;
            continue;
        }
        sim_reads(c.from, c.bytes);
        sim_writes(c.shared, 16);
        memset(c.shared, 0, 16);
        memcpy(c.shared, c.from, c.bytes);
    }
    copies->resize(left);
}
