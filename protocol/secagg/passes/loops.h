/* The passes of `arrays.py` over long vectors, each as one loop that gives the same bits. Plain C, for any language.
 *
 * Pointers are of whole, aligned elements but for packed bytes; the caller has checked that lengths fit. Nothing is
 * allocated, and no branch or address depends on an element's value.
 */
#ifndef PEERPLAN_LOOPS_H
#define PEERPLAN_LOOPS_H

#include <float.h>
#include <stdint.h>
#include <string.h>

#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || FLT_EVAL_METHOD != 0
#error "every operation must be rounded by itself: no fast math, no extended precision"
#endif
#if !defined(_WIN32) && (!defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
#error "packed elements are read as words of a little-endian processor"
#endif

/* Where the loader can choose between versions of a function, loops are compiled for wider vectors too. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__SANITIZE_ADDRESS__)
#define WIDE __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define WIDE
#endif
#if defined(_MSC_VER)
#define INLINE static __forceinline
#define restrict __restrict
#else
#define INLINE static inline __attribute__((always_inline))
#endif

#define INFINITY_BITS 0x7F800000u /* of a binary32 without its sign: finite ones are below */
enum { BLOCK = 1024 }; /* elements unpacked at once, an even number: 4 KiB stay in the first cache */

/* Two elements of k = 16, 20, 24 or 32 bits fill k / 4 bytes. They are moved as eight, which the next pair
 * overwrites; the last pair of a buffer has no room for that. */

INLINE void pack_pairs(const uint32_t *restrict values, size_t pairs, const unsigned k, unsigned char *restrict out)
{
    const uint64_t low = ((uint64_t)1 << k) - 1;
    const size_t bytes = k / 4;
    uint64_t word = 0;
    size_t i;
    for (i = 0; i < pairs; i++) {
        word = (values[2 * i] & low) | (values[2 * i + 1] & low) << k;
        if (i + 1 < pairs)
            memcpy(out + i * bytes, &word, 8);
    }
    if (pairs)
        memcpy(out + (pairs - 1) * bytes, &word, bytes);
}

INLINE void unpack_pairs(const unsigned char *restrict data, size_t pairs, const unsigned k, uint32_t *restrict out)
{
    const uint64_t low = ((uint64_t)1 << k) - 1;
    const size_t bytes = k / 4;
    uint64_t word = 0;
    size_t i;
    for (i = 0; i + 1 < pairs; i++) {
        memcpy(&word, data + i * bytes, 8);
        out[2 * i] = (uint32_t)(word & low);
        out[2 * i + 1] = (uint32_t)(word >> k & low);
    }
    if (pairs) {
        word = 0;
        memcpy(&word, data + i * bytes, bytes);
        out[2 * i] = (uint32_t)(word & low);
        out[2 * i + 1] = (uint32_t)(word >> k & low);
    }
}

WIDE static void pack_loop(const uint32_t *values, size_t count, unsigned k, unsigned char *out)
{
    switch (k) {
    case 16: pack_pairs(values, count / 2, 16, out); break;
    case 20: pack_pairs(values, count / 2, 20, out); break;
    case 24: pack_pairs(values, count / 2, 24, out); break;
    default: memcpy(out, values, 4 * count);
    }
}

INLINE void unpack_block(const unsigned char *data, size_t count, unsigned k, uint32_t *out)
{
    switch (k) {
    case 16: unpack_pairs(data, count / 2, 16, out); break;
    case 20: unpack_pairs(data, count / 2, 20, out); break;
    case 24: unpack_pairs(data, count / 2, 24, out); break;
    default: memcpy(out, data, 4 * count);
    }
}

WIDE static void add_packed_loop(uint32_t *total, size_t count, const unsigned char *data, unsigned k)
{
    uint32_t block[BLOCK];
    size_t start, i;
    for (start = 0; start < count; start += BLOCK) {
        const size_t size = count - start < BLOCK ? count - start : BLOCK;
        unpack_block(data + start / 2 * (k / 4), size, k, block);
        for (i = 0; i < size; i++)
            total[start + i] += block[i];
    }
}

WIDE static void unpack_signed_loop(const unsigned char *data, size_t count, unsigned k, int32_t *out, int32_t *range)
{
    uint32_t block[BLOCK];
    int32_t least = count ? INT32_MAX : 0, most = count ? INT32_MIN : 0;
    const uint32_t sign = (uint32_t)1 << (k - 1);
    size_t start, i;
    for (start = 0; start < count; start += BLOCK) {
        const size_t size = count - start < BLOCK ? count - start : BLOCK;
        unpack_block(data + start / 2 * (k / 4), size, k, block);
        for (i = 0; i < size; i++) {
            const int32_t value = (int32_t)((block[i] ^ sign) - sign);
            out[start + i] = value;
            least = value < least ? value : least;
            most = value > most ? value : most;
        }
    }
    range[0] = least;
    range[1] = most;
}

/* A mask is taken away by adding its two's complement: (m ^ ~0) + 1. */
WIDE static void add_mask_loop(uint32_t *part, const uint32_t *mask, size_t count, int add)
{
    const uint32_t flip = add ? 0 : ~(uint32_t)0;
    size_t i;
    for (i = 0; i < count; i++)
        part[i] += (mask[i] ^ flip) - flip;
}

WIDE static void add_two_masks_loop(
    uint32_t *restrict part, const uint32_t *restrict one, const uint32_t *restrict two, size_t count, int add_one, int add_two)
{
    const uint32_t flip_one = add_one ? 0 : ~(uint32_t)0, flip_two = add_two ? 0 : ~(uint32_t)0;
    size_t i;
    for (i = 0; i < count; i++)
        part[i] += ((one[i] ^ flip_one) - flip_one) + ((two[i] ^ flip_two) - flip_two);
}

WIDE static uint32_t quantise_loop(
    const float *restrict update, uint32_t *restrict words, size_t count, double fraction, double clip, double scale, double least)
{
    uint32_t worst = 0;
    size_t i;
    for (i = 0; i < count; i++) {
        const double uniform = (double)(int32_t)(words[i] >> 8) * 0x1p-24;
        double value = (double)update[i] * fraction;
        uint32_t bits;
        int32_t whole;
        memcpy(&bits, &update[i], 4);
        bits &= 0x7FFFFFFF;
        worst = bits > worst ? bits : worst;
        value = value > -clip ? value : -clip; /* not-a-number too: the caller refuses it afterwards */
        value = value < clip ? value : clip;
        value = value * scale + uniform;
        whole = (int32_t)value;
        whole -= (double)whole > value; /* the floor: conversion cuts towards zero */
        value = (double)whole;
        words[i] = (uint32_t)(int32_t)(value > least ? value : least);
    }
    return worst;
}

WIDE static void mean_loop(const int32_t *restrict sums, double *restrict out, size_t count, double clip, double weight)
{
    size_t i;
    for (i = 0; i < count; i++)
        out[i] = (double)sums[i] * clip / weight;
}

WIDE static void advance_loop(const float *restrict model, const double *restrict change, float *restrict out, size_t count)
{
    size_t i;
    for (i = 0; i < count; i++)
        out[i] = (float)((double)model[i] + change[i]);
}

#endif
