// How large numbers from the wire may be, and arithmetic that never passes the end of its type.
//
// A column number, and the sum of two, fits 32 bits; a number of rows does too. So loops over columns and rows may
// count in 32 bits. A product of two extents needs 64 bits and always fits; so does its size in bytes, whatever the
// float type. Whatever multiplies more than that asks here.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace dllama {

static_assert(sizeof(size_t) == 8 && sizeof(ptrdiff_t) == 8, "sizes are counted in 64 bits");

// Values of a row, rows of all z, and so experts, positions, heads.
constexpr uint32_t kMaxExtent = (1u << 31) - 1;

static_assert(uint64_t(kMaxExtent) + kMaxExtent <= UINT32_MAX, "two columns add up in 32 bits");
static_assert(uint64_t(kMaxExtent) * kMaxExtent <= UINT64_MAX / 4, "rows times columns of F32 fit 64 bits");

// The product, or the largest number where it does not fit.
static inline uint64_t saturating_product(uint64_t a, uint64_t b) {
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

// The sum, or the largest number where it does not fit.
static inline uint64_t saturating_sum(uint64_t a, uint64_t b) {
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

// n in pieces of size, the last one perhaps smaller.
static inline uint32_t n_pieces(uint32_t n, uint32_t size) {
    return n / size + (n % size != 0);
}

} // namespace dllama
