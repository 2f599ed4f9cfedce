// ROPE: rotates pairs of a row by its position, with cosines and sines from the cache.
#include "isa_kernels.hpp"
#include "simd.hpp"

namespace dllama {
namespace DLLAMA_ISA {

namespace {

// Pairs are neighbours: x (2i, 2i+1), cache (cos, sin).
void rotate_neighbours(float *out, const float *in, const float *__restrict cache, uint32_t x0, uint32_t x1) {
    for (uint32_t i = x0; i < x1; i += 2) {
        const float c = cache[i], s = cache[i + 1], a = in[i], b = in[i + 1];
        out[i] = a * c - b * s;
        out[i + 1] = a * s + b * c;
    }
}

// Pairs are half a head apart; the cache row has all cosines, then all sines.
void rotate_halves(float *out, const float *in, const float *cache, uint32_t half) {
    uint32_t j = 0;
    for (; j + kWidth <= half; j += kWidth) {
        const F c = load(cache + j), s = load(cache + half + j), a = load(in + j), b = load(in + half + j);
        store(out + j, a * c - b * s);
        store(out + half + j, a * s + b * c);
    }
    for (; j < half; j++) {
        const float c = cache[j], s = cache[half + j], a = in[j], b = in[half + j];
        out[j] = a * c - b * s;
        out[half + j] = a * s + b * c;
    }
}

} // namespace

// out (n_batches, dim0) = in rotated by positions (n_batches, 1)
Fault rope_f32(const OpContext &op, const Region &region, Scratch) {
    const RopeParams &params = op.params.rope;
    for (uint32_t y = region.y0; y < region.y1; y++) {
        const float position = f32_row(params.positions, 0, y)[0];
        if (!is_index(position, params.seq_len))
            return Fault{FaultKind::position, y, position, params.seq_len};
        const float *in = f32_row(op.input, 0, y), *cache = f32_row(params.cache, 0, (uint32_t)position);
        float *out = f32_row(op.output, 0, y);
        if (params.type == RopeType::falcon)
            for (uint32_t x = region.x0; x < region.x1; x += params.head_dim)
                rotate_halves(out + x, in + x, cache, params.head_dim / 2);
        else
            rotate_neighbours(out, in, cache + (params.is_q ? params.q_shift : 0), region.x0, region.x1);
    }
    return kNoFault;
}

} // namespace DLLAMA_ISA
} // namespace dllama
