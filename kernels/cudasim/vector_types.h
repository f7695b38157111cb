/*
 * vector_types.h - the small vectors of CUDA, for the host
 *
 * Sizes and alignments are CUDA's (CUDA C++ Programming Guide, built-in
 * vector types): vectors of 2 and 4 are aligned to their size, up to 16.
 */
#ifndef SL_CUDASIM_VECTOR_TYPES_H
#define SL_CUDASIM_VECTOR_TYPES_H

/* clang-format off */
#define CUDASIM_VECTORS(T, name, bytes)                                        \
    struct name##1 { T x; };                                                   \
    struct __attribute__((aligned(2 * bytes))) name##2 { T x, y; };            \
    struct name##3 { T x, y, z; };                                             \
    struct __attribute__((aligned(4 * bytes > 16 ? 16 : 4 * bytes))) name##4   \
    { T x, y, z, w; };
/* clang-format on */

CUDASIM_VECTORS(signed char, char, 1)
CUDASIM_VECTORS(unsigned char, uchar, 1)
CUDASIM_VECTORS(short, short, 2)
CUDASIM_VECTORS(unsigned short, ushort, 2)
CUDASIM_VECTORS(int, int, 4)
CUDASIM_VECTORS(unsigned int, uint, 4)
CUDASIM_VECTORS(float, float, 4)
CUDASIM_VECTORS(long long, longlong, 8)
CUDASIM_VECTORS(unsigned long long, ulonglong, 8)
CUDASIM_VECTORS(double, double, 8)

#undef CUDASIM_VECTORS

#define CUDASIM_TYPEDEFS(name)                                                 \
    typedef struct name##1 name##1;                                            \
    typedef struct name##2 name##2;                                            \
    typedef struct name##3 name##3;                                            \
    typedef struct name##4 name##4;

CUDASIM_TYPEDEFS(char)
CUDASIM_TYPEDEFS(uchar)
CUDASIM_TYPEDEFS(short)
CUDASIM_TYPEDEFS(ushort)
CUDASIM_TYPEDEFS(int)
CUDASIM_TYPEDEFS(uint)
CUDASIM_TYPEDEFS(float)
CUDASIM_TYPEDEFS(longlong)
CUDASIM_TYPEDEFS(ulonglong)
CUDASIM_TYPEDEFS(double)

#undef CUDASIM_TYPEDEFS

struct dim3 {
    unsigned int x, y, z;
#ifdef __cplusplus
    constexpr dim3(unsigned int vx = 1, unsigned int vy = 1,
                   unsigned int vz = 1)
        : x(vx), y(vy), z(vz)
    {
    }
#endif
};
typedef struct dim3 dim3;

#ifdef __cplusplus

#define CUDASIM_MAKERS(T, name)                                                \
    static inline name##2 make_##name##2(T x, T y)                             \
    {                                                                          \
        return name##2 {x, y};                                                 \
    }                                                                          \
    static inline name##3 make_##name##3(T x, T y, T z)                        \
    {                                                                          \
        return name##3 {x, y, z};                                              \
    }                                                                          \
    static inline name##4 make_##name##4(T x, T y, T z, T w)                   \
    {                                                                          \
        return name##4 {x, y, z, w};                                           \
    }

CUDASIM_MAKERS(signed char, char)
CUDASIM_MAKERS(unsigned char, uchar)
CUDASIM_MAKERS(short, short)
CUDASIM_MAKERS(unsigned short, ushort)
CUDASIM_MAKERS(int, int)
CUDASIM_MAKERS(unsigned int, uint)
CUDASIM_MAKERS(float, float)
CUDASIM_MAKERS(long long, longlong)
CUDASIM_MAKERS(unsigned long long, ulonglong)
CUDASIM_MAKERS(double, double)

#undef CUDASIM_MAKERS

#endif

#endif
