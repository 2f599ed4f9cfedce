// MULTIHEAD_ATT: attention of a batch of rows over the key and value caches.
//
// Query heads that share a KV head are done together, positions in blocks, so that a deep cache is read from
// memory once: scores of all positions first (into the op's scratch), softmax, then the weighted sum of values.
// With many queries on one KV head (the rows of a batch times its query heads) a block of keys is transposed first:
// each lane of a vector is then a position, and nothing is summed across lanes.
#include "op_table.hpp"
#include "simd.hpp"
#include "softmax.hpp"

namespace dllama {
namespace DLLAMA_ISA {

namespace {

// Positions of a block of keys, which are transposed into scratch together.
constexpr uint32_t kAttentionPositions = 64;

constexpr uint32_t kMaxHeads = 4; // query heads that share the loads of one value row

// Heads that share the loads of four keys, and vectors of positions in a tile of four queries: as many sums as
// registers allow.
#if defined(__AVX512F__) || defined(__ARM_NEON)
constexpr uint32_t kDotHeads = 4, kTileVectors = 4;
#else
constexpr uint32_t kDotHeads = 2, kTileVectors = 2;
#endif

DLLAMA_INLINE void prefetch_row(const float *p, uint32_t n) {
    for (uint32_t i = 0; i < n; i += 16)
        __builtin_prefetch(p + i, 0, 2);
}

// scores[h][0..4) = query[h] . key of four positions
template <uint32_t kHeads>
DLLAMA_INLINE void dot_4(float *const *scores, const float *const *query, const float *keys, size_t stride,
                         uint32_t head_dim) {
    F s[kHeads][4];
    for (uint32_t h = 0; h < kHeads; h++)
        for (uint32_t t = 0; t < 4; t++)
            s[h][t] = zero();
    uint32_t i = 0;
    for (; i + kWidth <= head_dim; i += kWidth) {
        F key[4];
        for (uint32_t t = 0; t < 4; t++)
            key[t] = load(keys + t * stride + i);
        for (uint32_t h = 0; h < kHeads; h++) {
            const F q = load(query[h] + i);
            for (uint32_t t = 0; t < 4; t++)
                s[h][t] = fma(q, key[t], s[h][t]);
        }
    }
    for (uint32_t h = 0; h < kHeads; h++)
        store_sums(scores[h], s[h][0], s[h][1], s[h][2], s[h][3]);
    for (; i < head_dim; i++)
        for (uint32_t h = 0; h < kHeads; h++)
            for (uint32_t t = 0; t < 4; t++)
                scores[h][t] += query[h][i] * keys[t * stride + i];
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

// scores[h][0..n_positions) = query[h] . key / root, for n_heads <= kMaxHeads
void score_block(float *const *scores, const float *const *query, uint32_t n_heads, const float *keys, size_t stride,
                 uint32_t n_positions, uint32_t head_dim, float root) {
    uint32_t t = 0;
    for (; t + 4 <= n_positions; t += 4)
        for (uint32_t h = 0; h < n_heads;) {
            float *to[kDotHeads];
            for (uint32_t k = 0; k < kDotHeads && h + k < n_heads; k++)
                to[k] = scores[h + k] + t;
            const float *from = keys + t * stride;
            const uint32_t left = n_heads - h;
            if (left >= kDotHeads) {
                dot_4<kDotHeads>(to, query + h, from, stride, head_dim);
                h += kDotHeads;
            } else if (left >= 2) {
                dot_4<2>(to, query + h, from, stride, head_dim);
                h += 2;
            } else {
                dot_4<1>(to, query + h, from, stride, head_dim);
                h++;
            }
        }
    for (; t < n_positions; t++)
        for (uint32_t h = 0; h < n_heads; h++)
            scores[h][t] = dot(query[h], keys + t * stride, head_dim);
    for (uint32_t h = 0; h < n_heads; h++) {
        uint32_t i = 0;
        for (; i + kWidth <= n_positions; i += kWidth)
            store(scores[h] + i, load(scores[h] + i) / root);
        for (; i < n_positions; i++)
            scores[h][i] /= root;
    }
}

// Queries from which on transposing the keys pays.
constexpr uint32_t kManyQueries = 16;

static_assert(kAttentionPositions % (kTileVectors * kWidth) == 0, "a block is a whole number of tiles");

// transposed (head_dim, kAttentionPositions) = keys (n_positions, head_dim), zeros behind them
void transpose(float *transposed, const float *keys, size_t stride, uint32_t n_positions, uint32_t head_dim) {
    for (uint32_t t = 0; t < n_positions; t++)
        for (uint32_t i = 0; i < head_dim; i++)
            transposed[(size_t)i * kAttentionPositions + t] = keys[t * stride + i];
    for (uint32_t i = 0; i < head_dim && n_positions < kAttentionPositions; i++)
        memset(transposed + (size_t)i * kAttentionPositions + n_positions, 0,
               (kAttentionPositions - n_positions) * sizeof(float));
}

// scores[q] (kAttentionPositions) = query[q] . transposed / root
template <uint32_t kQueries>
void score_transposed(float (*scores)[kAttentionPositions], const float *const *query, const float *transposed,
                      uint32_t head_dim, float root) {
    for (uint32_t t = 0; t < kAttentionPositions; t += kTileVectors * kWidth) {
        F total[kQueries][kTileVectors];
        for (uint32_t q = 0; q < kQueries; q++)
            for (uint32_t v = 0; v < kTileVectors; v++)
                total[q][v] = zero();
        for (uint32_t i = 0; i < head_dim; i++) {
            F key[kTileVectors];
            for (uint32_t v = 0; v < kTileVectors; v++)
                key[v] = load(transposed + (size_t)i * kAttentionPositions + t + v * kWidth);
            for (uint32_t q = 0; q < kQueries; q++) {
                const F x = set(query[q][i]);
                for (uint32_t v = 0; v < kTileVectors; v++)
                    total[q][v] = fma(x, key[v], total[q][v]);
            }
        }
        for (uint32_t q = 0; q < kQueries; q++)
            for (uint32_t v = 0; v < kTileVectors; v++)
                store(scores[q] + t + v * kWidth, total[q][v] / root);
    }
}

// out[h] (columns) += sum over positions of weights[h][t] * values[t], for kHeads heads and 4 vectors of columns
template <uint32_t kHeads, uint32_t kVectors>
DLLAMA_INLINE void add_values(float *const *out, const float *const *weights, const float *values, size_t stride,
                              uint32_t n_positions, uint32_t column) {
    F total[kHeads][kVectors];
    for (uint32_t h = 0; h < kHeads; h++)
        for (uint32_t v = 0; v < kVectors; v++)
            total[h][v] = load(out[h] + column + v * kWidth);
    for (uint32_t t = 0; t < n_positions; t++) {
        const float *value = values + t * stride + column;
        F loaded[kVectors];
        for (uint32_t v = 0; v < kVectors; v++)
            loaded[v] = load(value + v * kWidth);
        for (uint32_t h = 0; h < kHeads; h++) {
            const F weight = set(weights[h][t]);
            for (uint32_t v = 0; v < kVectors; v++)
                total[h][v] = fma(weight, loaded[v], total[h][v]);
        }
    }
    for (uint32_t h = 0; h < kHeads; h++)
        for (uint32_t v = 0; v < kVectors; v++)
            store(out[h] + column + v * kWidth, total[h][v]);
}

template <uint32_t kHeads>
void add_value_block(float *const *out, const float *const *weights, const float *values, size_t stride,
                     uint32_t n_positions, uint32_t head_dim) {
    uint32_t column = 0;
    for (; column + 4 * kWidth <= head_dim; column += 4 * kWidth)
        add_values<kHeads, 4>(out, weights, values, stride, n_positions, column);
    for (; column + kWidth <= head_dim; column += kWidth)
        add_values<kHeads, 1>(out, weights, values, stride, n_positions, column);
    for (; column < head_dim; column++)
        for (uint32_t h = 0; h < kHeads; h++)
            for (uint32_t t = 0; t < n_positions; t++)
                out[h][column] += weights[h][t] * values[t * stride + column];
}

void add_value_block(uint32_t n_heads, float *const *out, const float *const *weights, const float *values,
                     size_t stride, uint32_t n_positions, uint32_t head_dim) {
    switch (n_heads) {
    case 1: return add_value_block<1>(out, weights, values, stride, n_positions, head_dim);
    case 2: return add_value_block<2>(out, weights, values, stride, n_positions, head_dim);
    case 3: return add_value_block<3>(out, weights, values, stride, n_positions, head_dim);
    default: return add_value_block<kMaxHeads>(out, weights, values, stride, n_positions, head_dim);
    }
}

// One KV head's keys and values, and the queries that look at them: heads h0..h1 of batch rows y0..y1, at most
// kMaxHeads heads. Query i is head h0 + i % n_heads of row y0 + i / n_heads.
class Queries {
public:
    Queries(const OpContext &op, uint32_t y0, uint32_t y1, uint32_t h0, uint32_t h1)
        : op_(op), params_(op.params.multihead_att), y0_(y0), h0_(h0), n_heads_(h1 - h0), n_((y1 - y0) * (h1 - h0)) {
        const size_t head = (size_t)(h0 / (params_.n_heads / params_.n_kv_heads)) * params_.head_dim;
        keys_ = f32_row(params_.key_cache, 0, 0) + head;
        values_ = f32_row(params_.value_cache, 0, 0) + head;
        key_stride_ = (size_t)params_.key_cache.y_stride / sizeof(float);
        value_stride_ = (size_t)params_.value_cache.y_stride / sizeof(float);
        root_ = __builtin_sqrtf((float)params_.head_dim);
    }

    // Scores of positions t .. t + n, of at most kAttentionPositions; transposed is room for as many keys.
    void score(uint32_t t, uint32_t n, float *transposed) const {
        if (n_ >= kManyQueries)
            return score_all(t, n, transposed);
        for (uint32_t i = 0; i < n_; i += n_heads_)
            score_row(i, t, n);
    }

    // Scores to weights; nothing is summed yet.
    void weigh() const {
        for (uint32_t i = 0; i < n_; i++) {
            softmax(scores(i), scores(i), n_positions(i));
            memset(out(i), 0, params_.head_dim * sizeof(float));
        }
    }

    // Values of positions t .. t + n, times their weights.
    void add(uint32_t t, uint32_t n) const {
        prefetch(values_, value_stride_, t + n, n);
        for (uint32_t i = 0; i < n_; i += kMaxHeads)
            add_weighted_values(i, n_ - i < kMaxHeads ? n_ - i : kMaxHeads, t, n);
    }

private:
    uint32_t max_positions(uint32_t i, uint32_t end) const {
        uint32_t most = 0;
        for (; i < end; i++)
            most = n_positions(i) > most ? n_positions(i) : most;
        return most;
    }
    uint32_t row_of(uint32_t i) const { return y0_ + i / n_heads_; }
    uint32_t head_of(uint32_t i) const { return h0_ + i % n_heads_; }
    uint32_t n_positions(uint32_t i) const { return (uint32_t)f32_row(params_.positions, 0, row_of(i))[0] + 1; }
    const float *query(uint32_t i) const {
        return f32_row(params_.query, 0, row_of(i)) + (size_t)head_of(i) * params_.head_dim;
    }
    float *scores(uint32_t i) const {
        return f32_row(params_.att, 0, row_of(i)) + (size_t)head_of(i) * params_.seq_len;
    }
    float *out(uint32_t i) const { return f32_row(op_.output, 0, row_of(i)) + (size_t)head_of(i) * params_.head_dim; }

    // The same values of the next block, which is asked for while this one is worked on.
    void prefetch(const float *rows, size_t stride, uint32_t t, uint32_t n) const {
        for (uint32_t k = t; k < t + n && k < params_.seq_len; k++)
            prefetch_row(rows + k * stride, params_.head_dim);
    }

    // The heads of one row, the first of them query i.
    void score_row(uint32_t i, uint32_t t, uint32_t n) const {
        if (n_positions(i) <= t)
            return;
        float *to[kMaxHeads];
        const float *from[kMaxHeads];
        for (uint32_t h = 0; h < n_heads_; h++) {
            to[h] = scores(i + h) + t;
            from[h] = query(i + h);
        }
        prefetch(keys_, key_stride_, t + n, n);
        const uint32_t left = n_positions(i) - t;
        score_block(to, from, n_heads_, keys_ + t * key_stride_, key_stride_, left < n ? left : n, params_.head_dim,
                    root_);
    }

    // All queries, four at a time.
    void score_all(uint32_t t, uint32_t n, float *transposed) const {
        transpose(transposed, keys_ + t * key_stride_, key_stride_, n, params_.head_dim);
        for (uint32_t i = 0; i < n_; i += 4) {
            float tile[4][kAttentionPositions];
            const float *from[4];
            const uint32_t n_tile = n_ - i < 4 ? n_ - i : 4;
            if (max_positions(i, i + n_tile) <= t)
                continue;
            for (uint32_t q = 0; q < n_tile; q++)
                from[q] = query(i + q);
            switch (n_tile) {
            case 1: score_transposed<1>(tile, from, transposed, params_.head_dim, root_); break;
            case 2: score_transposed<2>(tile, from, transposed, params_.head_dim, root_); break;
            case 3: score_transposed<3>(tile, from, transposed, params_.head_dim, root_); break;
            default: score_transposed<4>(tile, from, transposed, params_.head_dim, root_); break;
            }
            for (uint32_t q = 0; q < n_tile; q++) {
                const uint32_t all = n_positions(i + q), left = all > t ? all - t : 0;
                memcpy(scores(i + q) + t, tile[q], (left < n ? left : n) * sizeof(float));
            }
        }
    }

    // Queries i .. i + n_queries, positions t .. t + n: together as far as all of them go, then one by one, since what
    // lies behind a query's position must not touch it, not even times zero.
    void add_weighted_values(uint32_t i, uint32_t n_queries, uint32_t t, uint32_t n) const {
        float *to[kMaxHeads];
        const float *weights[kMaxHeads];
        uint32_t shared = t + n;
        for (uint32_t q = 0; q < n_queries; q++) {
            to[q] = out(i + q);
            weights[q] = scores(i + q) + t;
            shared = n_positions(i + q) < shared ? n_positions(i + q) : shared;
        }
        const float *values = values_ + t * value_stride_;
        if (shared > t)
            add_value_block(n_queries, to, weights, values, value_stride_, shared - t, params_.head_dim);
        const uint32_t done = shared > t ? shared - t : 0;
        for (uint32_t q = 0; q < n_queries; q++) {
            const uint32_t end = n_positions(i + q) < t + n ? n_positions(i + q) : t + n;
            const float *rest = weights[q] + done;
            if (end > t + done)
                add_value_block(1, to + q, &rest, values + done * value_stride_, value_stride_, end - t - done,
                                params_.head_dim);
        }
    }

    const OpContext &op_;
    const MultiHeadAttParams &params_;
    uint32_t y0_, h0_, n_heads_, n_;
    const float *keys_, *values_;
    size_t key_stride_, value_stride_;
    float root_;
};

// out (n_batches, n_heads0 * head_dim) = softmax(query . keys / sqrt(head_dim)) . values, over positions 0 .. position
Fault multihead_att_f32(const OpContext &op, const Region &region, Scratch scratch) {
    const MultiHeadAttParams &params = op.params.multihead_att;
    const uint32_t kv_mul = params.n_heads / params.n_kv_heads;
    const uint32_t h_start = region.x0 / params.head_dim, h_end = region.x1 / params.head_dim;
    for (uint32_t y = region.y0; y < region.y1; y++) {
        const float position = f32_row(params.positions, 0, y)[0];
        if (!is_index(position, params.seq_len))
            return Fault{FaultKind::position, y, position, params.seq_len};
    }
    const auto for_each_group = [&](auto &&call) {
        for (uint32_t h0 = h_start, h1; h0 < h_end; h0 = h1) {
            h1 = (h0 / kv_mul + 1) * kv_mul;
            h1 = h1 < h0 + kMaxHeads ? h1 : h0 + kMaxHeads;
            h1 = h1 < h_end ? h1 : h_end;
            call(Queries(op, region.y0, region.y1, h0, h1));
        }
    };
    uint32_t most = 0;
    for (uint32_t y = region.y0; y < region.y1; y++) {
        const uint32_t n = (uint32_t)f32_row(params.positions, 0, y)[0] + 1;
        most = n > most ? n : most;
    }
    const auto for_each_block = [&](auto &&call) {
        for (uint32_t t = 0; t < most; t += kAttentionPositions)
            call(t, most - t < kAttentionPositions ? most - t : kAttentionPositions);
    };
    float *transposed = (float *)scratch.data;
    if (region.y1 - region.y0 == 1) {
        // Blocks of positions outside, heads inside: the caches are read from one end to the other.
        for_each_block([&](uint32_t t, uint32_t n) {
            for_each_group([&](const Queries &group) { group.score(t, n, transposed); });
        });
        for_each_group([](const Queries &group) { group.weigh(); });
        for_each_block([&](uint32_t t, uint32_t n) { for_each_group([&](const Queries &group) { group.add(t, n); }); });
    } else {
        // One KV head after the other, so that its queries' scores stay near.
        for_each_group([&](const Queries &group) {
            for_each_block([&](uint32_t t, uint32_t n) { group.score(t, n, transposed); });
            group.weigh();
            for_each_block([&](uint32_t t, uint32_t n) { group.add(t, n); });
        });
    }
    return kNoFault;
}

// ---- spec

void check_attention(const OpContext &op, ShapeCheck &check) {
    const MultiHeadAttParams &p = op.params.multihead_att;
    check.require(p.n_kv_heads > 0 && p.n_heads0 > 0 && p.head_dim > 0 && p.seq_len > 0,
                  "heads, their width and the sequence must not be empty");
    check.require(p.n_kv_heads > 0 && p.n_heads % p.n_kv_heads == 0 && p.n_heads >= p.n_kv_heads,
                  "heads must be a multiple of KV heads");
    if (check.wrong() != nullptr)
        return;
    const uint64_t kv_heads0 = (p.n_heads0 - 1) / (p.n_heads / p.n_kv_heads) + 1;
    check.require(op.output.float_type == FloatType::f32 && op.output.x == (uint64_t)p.n_heads0 * p.head_dim,
                  "the output must have all heads");
    check.require(kv_heads0 * p.head_dim <= p.kv_dim0, "the caches must have all KV heads");
    check.require_rows(p.positions, FloatType::f32, 1, 1, "positions must be F32 [n_batches][1]");
    check.require_rows(p.query, FloatType::f32, 1, (uint64_t)p.n_heads0 * p.head_dim, "the query must have all heads");
    check.require((uint64_t)p.n_heads0 * p.seq_len <= p.att.x, "att must hold all scores");
    check.require_rows(p.att, FloatType::f32, 1, 1, "att must be F32 [n_batches][n_heads0 * seq_len]");
    for (const Tensor *cache : {&p.key_cache, &p.value_cache})
        check.require_cache(*cache, p.seq_len, p.kv_dim0, "caches must be F32 [seq_len][kv_dim0]");
}

// Whole KV heads, so that a cache is read once for all its query heads, unless that leaves threads idle.
Work attention_work(const OpContext &op, uint32_t n_threads) {
    const MultiHeadAttParams &p = op.params.multihead_att;
    const uint32_t kv_mul = p.n_heads / p.n_kv_heads;
    const bool is_enough = p.n_heads0 % kv_mul == 0 && p.n_heads0 / kv_mul >= n_threads;
    return {p.n_heads0 * p.head_dim, p.head_dim * (is_enough ? kv_mul : 1), false, false, true};
}

void touch_attention(const OpContext &op, Accesses &touched) {
    const MultiHeadAttParams &p = op.params.multihead_att;
    touched.reads(p.query, Access::same_columns);
    touched.reads(p.positions, Access::same_row);
    touched.reads(p.key_cache, Access::anything);
    touched.reads(p.value_cache, Access::anything);
    touched.writes(p.att, Access::anything);
    touched.writes(op.output, Access::same_columns);
}

IndexUse attention_positions(const OpContext &op) {
    return {op.params.multihead_att.positions, 1, op.params.multihead_att.seq_len, FaultKind::position};
}

// A block of keys, transposed.
size_t attention_scratch(const OpContext &op) {
    return (size_t)kAttentionPositions * op.params.multihead_att.head_dim * sizeof(float);
}

constexpr KernelEntry kKernels[] = {{QuantType::f32_f32_f32, multihead_att_f32, attention_scratch}};
constexpr ParamField kParams[] = {
    DLLAMA_PARAM(MultiHeadAttParams, n_heads),    DLLAMA_PARAM(MultiHeadAttParams, n_heads0),
    DLLAMA_PARAM(MultiHeadAttParams, n_kv_heads), DLLAMA_PARAM(MultiHeadAttParams, head_dim),
    DLLAMA_PARAM(MultiHeadAttParams, seq_len),    DLLAMA_PARAM(MultiHeadAttParams, kv_dim0),
    DLLAMA_PARAM(MultiHeadAttParams, positions),  DLLAMA_PARAM(MultiHeadAttParams, query),
    DLLAMA_PARAM(MultiHeadAttParams, key_cache),  DLLAMA_PARAM(MultiHeadAttParams, value_cache),
    DLLAMA_PARAM(MultiHeadAttParams, att),
};

constexpr OpSpec kOps[] = {
    {OpCode::multihead_att, "multihead_att", kKernels, kParams, check_attention, attention_work, touch_attention,
     attention_positions, nullptr, kIgnoresInput},
};

} // namespace

const OpTable attention_ops = kOps;

} // namespace DLLAMA_ISA
} // namespace dllama
