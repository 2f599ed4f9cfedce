// MULTIHEAD_ATT: attention of a batch of rows over the key and value caches.
//
// Query heads that share a KV head are done together, positions in blocks, so that a deep cache is read from
// memory once: scores of all positions first (into the op's scratch), softmax, then the weighted sum of values.
#include "isa_kernels.hpp"
#include "simd.hpp"
#include "softmax.hpp"

namespace dllama {
namespace DLLAMA_ISA {

namespace {

constexpr uint32_t kPositions = 32; // of a block: with 128 values a head, 16 KiB of keys stay in the first cache
constexpr int kMostHeads = 4;       // query heads that share the loads of one value row

DLLAMA_INLINE void prefetch_row(const float *p, uint32_t n) {
    for (uint32_t i = 0; i < n; i += 16)
        __builtin_prefetch(p + i);
}

float dot(const float *a, const float *b, uint32_t n) {
    F s = zero();
    uint32_t i = 0;
    for (; i + kWidth <= n; i += kWidth)
        s = fma(load(a + i), load(b + i), s);
    float total = sum(s);
    for (; i < n; i++)
        total += a[i] * b[i];
    return total;
}

// scores[0..4) = query . key of four positions
DLLAMA_INLINE void dot_4(float *scores, const float *query, const float *keys, size_t stride, uint32_t n) {
    F s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
    uint32_t i = 0;
    for (; i + kWidth <= n; i += kWidth) {
        const F q = load(query + i);
        s0 = fma(q, load(keys + i), s0);
        s1 = fma(q, load(keys + stride + i), s1);
        s2 = fma(q, load(keys + 2 * stride + i), s2);
        s3 = fma(q, load(keys + 3 * stride + i), s3);
    }
    store_sums(scores, s0, s1, s2, s3);
    for (; i < n; i++)
        for (uint32_t t = 0; t < 4; t++)
            scores[t] += query[i] * keys[t * stride + i];
}

// scores[0..n_positions) = query . key / root
void score_block(float *scores, const float *query, const float *keys, size_t stride, uint32_t n_positions, uint32_t head_dim, float root) {
    uint32_t t = 0;
    for (; t + 4 <= n_positions; t += 4) {
        dot_4(scores + t, query, keys + t * stride, stride, head_dim);
        for (uint32_t k = 0; k < 4; k++)
            scores[t + k] /= root;
    }
    for (; t < n_positions; t++)
        scores[t] = dot(query, keys + t * stride, head_dim) / root;
}

// out[h] (columns) += sum over positions of weights[h][t] * values[t], for kHeads heads and 4 vectors of columns
template <int kHeads, int kVectors>
DLLAMA_INLINE void add_values(float *const *out, const float *const *weights, const float *values, size_t stride, uint32_t n_positions, uint32_t column) {
    F total[kHeads][kVectors];
    for (int h = 0; h < kHeads; h++)
        for (int v = 0; v < kVectors; v++)
            total[h][v] = load(out[h] + column + v * kWidth);
    for (uint32_t t = 0; t < n_positions; t++) {
        const float *value = values + t * stride + column;
        F loaded[kVectors];
        for (int v = 0; v < kVectors; v++)
            loaded[v] = load(value + v * kWidth);
        for (int h = 0; h < kHeads; h++) {
            const F weight = set(weights[h][t]);
            for (int v = 0; v < kVectors; v++)
                total[h][v] = fma(weight, loaded[v], total[h][v]);
        }
    }
    for (int h = 0; h < kHeads; h++)
        for (int v = 0; v < kVectors; v++)
            store(out[h] + column + v * kWidth, total[h][v]);
}

template <int kHeads>
void add_value_block(float *const *out, const float *const *weights, const float *values, size_t stride, uint32_t n_positions, uint32_t head_dim) {
    uint32_t column = 0;
    for (; column + 4 * kWidth <= head_dim; column += 4 * kWidth)
        add_values<kHeads, 4>(out, weights, values, stride, n_positions, column);
    for (; column + kWidth <= head_dim; column += kWidth)
        add_values<kHeads, 1>(out, weights, values, stride, n_positions, column);
    for (; column < head_dim; column++)
        for (int h = 0; h < kHeads; h++)
            for (uint32_t t = 0; t < n_positions; t++)
                out[h][column] += weights[h][t] * values[t * stride + column];
}

void add_value_block(uint32_t n_heads, float *const *out, const float *const *weights, const float *values, size_t stride, uint32_t n_positions, uint32_t head_dim) {
    switch (n_heads) {
    case 1: return add_value_block<1>(out, weights, values, stride, n_positions, head_dim);
    case 2: return add_value_block<2>(out, weights, values, stride, n_positions, head_dim);
    case 3: return add_value_block<3>(out, weights, values, stride, n_positions, head_dim);
    default: return add_value_block<kMostHeads>(out, weights, values, stride, n_positions, head_dim);
    }
}

// Query heads h0..h1 of batch row y; all use one KV head, at most kMostHeads of them.
void attend(const OpContext &op, uint32_t y, uint32_t n_positions, uint32_t h0, uint32_t h1) {
    const MultiHeadAttParams &params = op.params.multihead_att;
    const uint32_t head_dim = params.head_dim, kv_head = h0 / (params.n_heads / params.n_kv_heads);
    const size_t key_stride = (size_t)params.key_cache.y_stride / sizeof(float);
    const size_t value_stride = (size_t)params.value_cache.y_stride / sizeof(float);
    const float *keys = f32_row(params.key_cache, 0, 0) + (size_t)kv_head * head_dim;
    const float *values = f32_row(params.value_cache, 0, 0) + (size_t)kv_head * head_dim;
    const float root = __builtin_sqrtf((float)head_dim);

    const float *query[kMostHeads];
    float *out[kMostHeads], *scores[kMostHeads];
    const float *weights[kMostHeads];
    for (uint32_t h = h0; h < h1; h++) {
        query[h - h0] = f32_row(params.query, 0, y) + (size_t)h * head_dim;
        out[h - h0] = f32_row(op.output, 0, y) + (size_t)h * head_dim;
        scores[h - h0] = f32_row(params.att, 0, y) + (size_t)h * params.seq_len;
    }

    for (uint32_t t = 0; t < n_positions; t += kPositions) {
        const uint32_t n = n_positions - t < kPositions ? n_positions - t : kPositions;
        for (uint32_t k = 0; k < kPositions && t + kPositions + k < n_positions; k++)
            prefetch_row(keys + (t + kPositions + k) * key_stride, head_dim);
        for (uint32_t h = 0; h < h1 - h0; h++)
            score_block(scores[h] + t, query[h], keys + t * key_stride, key_stride, n, head_dim, root);
    }
    for (uint32_t h = 0; h < h1 - h0; h++) {
        softmax(scores[h], scores[h], n_positions);
        memset(out[h], 0, head_dim * sizeof(float));
    }
    for (uint32_t t = 0; t < n_positions; t += kPositions) {
        const uint32_t n = n_positions - t < kPositions ? n_positions - t : kPositions;
        for (uint32_t k = 0; k < kPositions && t + kPositions + k < n_positions; k++)
            prefetch_row(values + (t + kPositions + k) * value_stride, head_dim);
        for (uint32_t h = 0; h < h1 - h0; h++)
            weights[h] = scores[h] + t;
        add_value_block(h1 - h0, out, weights, values + t * value_stride, value_stride, n, head_dim);
    }
}

} // namespace

// out (n_batches, n_heads0 * head_dim) = softmax(query . keys / sqrt(head_dim)) . values, over positions 0 .. position
Fault multihead_att_f32(const OpContext &op, const Region &region, Scratch) {
    const MultiHeadAttParams &params = op.params.multihead_att;
    const uint32_t kv_mul = params.n_heads / params.n_kv_heads;
    const uint32_t h_start = region.x0 / params.head_dim, h_end = region.x1 / params.head_dim;
    for (uint32_t y = region.y0; y < region.y1; y++) {
        const float position = f32_row(params.positions, 0, y)[0];
        if (!is_index(position, params.seq_len))
            return Fault{Fault::position, y, position, params.seq_len};
    }
    // Rows inside heads: one KV head's part of the cache stays near while the batch goes over it.
    for (uint32_t h0 = h_start; h0 < h_end;) {
        uint32_t h1 = (h0 / kv_mul + 1) * kv_mul;
        h1 = h1 < h0 + kMostHeads ? h1 : h0 + kMostHeads;
        h1 = h1 < h_end ? h1 : h_end;
        for (uint32_t y = region.y0; y < region.y1; y++)
            attend(op, y, (uint32_t)f32_row(params.positions, 0, y)[0] + 1, h0, h1);
        h0 = h1;
    }
    return kNoFault;
}

} // namespace DLLAMA_ISA
} // namespace dllama
