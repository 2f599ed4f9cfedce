// MATMUL: out[d] = sum over n of weight[d][n] * in[n], for F32, and for Q40 weights with Q80 rows.
//
// A Q40 weight is packed into tiles of kTileRows rows (pack.hpp): each vector register holds four bytes of every
// row of the tile, so one row's result stays in one lane and nothing is ever summed across lanes. Nibbles are
// multiplied as they are, 0 to 15; that they stand for -8 to 7 is made good by -8 times the sum of the input's
// block, which prepare_rows works out once for all tiles.
#include "op_table.hpp"
#include "q40_tile.hpp"
#include "simd.hpp"

namespace dllama {
namespace DLLAMA_ISA {

namespace {

// ---- F32

// out[r][0..4) = four weight rows (w + c * stride) times kRows inputs
template <uint32_t kRows>
void f32_tile(float *const *out, const float *const *in, const float *w, size_t stride, uint32_t n) {
    F s[kRows][4];
    for (uint32_t r = 0; r < kRows; r++)
        for (uint32_t c = 0; c < 4; c++)
            s[r][c] = zero();
    uint32_t k = 0;
    for (; k + kWidth <= n; k += kWidth) {
        F weight[4];
        for (uint32_t c = 0; c < 4; c++)
            weight[c] = load(w + c * stride + k);
        for (uint32_t r = 0; r < kRows; r++) {
            const F x = load(in[r] + k);
            for (uint32_t c = 0; c < 4; c++)
                s[r][c] = fma(x, weight[c], s[r][c]);
        }
    }
    if (k < n) {
        const int rest = (int)(n - k);
        for (uint32_t c = 0; c < 4; c++) {
            const F weight = load_n(w + c * stride + k, rest);
            for (uint32_t r = 0; r < kRows; r++)
                s[r][c] = fma(load_n(in[r] + k, rest), weight, s[r][c]);
        }
    }
    for (uint32_t r = 0; r < kRows; r++)
        store_sums(out[r], s[r][0], s[r][1], s[r][2], s[r][3]);
}

float f32_dot(const float *in, const float *w, uint32_t n) {
    F s = zero();
    uint32_t k = 0;
    for (; k + kWidth <= n; k += kWidth)
        s = fma(load(in + k), load(w + k), s);
    if (k < n)
        s = fma(load_n(in + k, (int)(n - k)), load_n(w + k, (int)(n - k)), s);
    return sum(s);
}

// Columns x0..x1 of n_rows <= kF32GroupRows outputs.
void f32_rows(float *const *out, const float *const *in, uint32_t n_rows, const float *w, uint32_t n, uint32_t x0,
              uint32_t x1) {
    uint32_t x = x0;
    for (; x + 4 <= x1; x += 4) {
        float *to[kF32GroupRows];
        for (uint32_t r = 0; r < n_rows; r++)
            to[r] = out[r] + x;
        const float *weight = w + (size_t)x * n;
        switch (n_rows) {
        case 1: f32_tile<1>(to, in, weight, n, n); break;
#if defined(__AVX512F__) || defined(__ARM_NEON)
        case 2: f32_tile<2>(to, in, weight, n, n); break;
        case 3: f32_tile<3>(to, in, weight, n, n); break;
        default: f32_tile<4>(to, in, weight, n, n); break;
#else
        default: f32_tile<2>(to, in, weight, n, n); break;
#endif
        }
    }
    for (; x < x1; x++)
        for (uint32_t r = 0; r < n_rows; r++)
            out[r][x] = f32_dot(in[r], w + (size_t)x * n, n);
}

// ---- which expert a row goes to

struct Expert {
    uint32_t number;
    bool is_valid;
};

Expert expert_of(const OpContext &op, uint32_t y, uint32_t slot, Fault *fault) {
    const MatmulParams &params = op.params.matmul;
    if (params.n_active_experts == 0)
        return Expert{0, true};
    const float value = f32_row(params.active_expert_indexes, 0, y)[slot];
    if (!is_index(value, params.n_experts)) {
        *fault = Fault{FaultKind::expert, y, value, params.n_experts};
        return Expert{0, false};
    }
    return Expert{(uint32_t)value, true};
}

// Columns of the region for all its rows, as many together as go to the same expert. kQuantized inputs are decoded to
// scratch first.
template <bool kQuantized> Fault f32_weight(const OpContext &op, const Region &region, Scratch scratch) {
    Fault fault = kNoFault;
    const uint32_t n = op.weight.y;
    for (uint32_t z = 0; z < op.output.z; z++)
        for (uint32_t y = region.y0; y < region.y1;) {
            const Expert expert = expert_of(op, y, z, &fault);
            if (!expert.is_valid)
                return fault;
            const float *in[kF32GroupRows];
            float *out[kF32GroupRows];
            uint32_t n_rows = 0;
            for (; n_rows < kF32GroupRows && y < region.y1; n_rows++, y++) {
                const Expert next = expert_of(op, y, z, &fault);
                if (!next.is_valid)
                    return fault;
                if (next.number != expert.number)
                    break;
                if (kQuantized) {
                    float *decoded = (float *)scratch.data + (size_t)n_rows * n;
                    dequantize_q80(decoded, q80_row(op.input, z, y), n);
                    in[n_rows] = decoded;
                } else {
                    in[n_rows] = f32_row(op.input, z, y);
                }
                out[n_rows] = f32_row(op.output, z, y);
            }
            const float *w = (const float *)(op.weight.data + expert.number * op.weight.z_stride);
            f32_rows(out, in, n_rows, w, n, region.x0, region.x1);
        }
    return fault;
}

// out (z, n_batches, d) = in (z, n_batches, n) times weight (experts, d, n); without experts z is 1
Fault matmul_f32(const OpContext &op, const Region &region, Scratch scratch) {
    return f32_weight<false>(op, region, scratch);
}

// The same with Q80 rows.
Fault matmul_q80_f32(const OpContext &op, const Region &region, Scratch scratch) {
    return f32_weight<true>(op, region, scratch);
}

// ---- F32 x Q40

// One row of input times one tile: a nibble of each of the tile's rows at a time.
void f32_q40_tile(float *out, uint32_t n_columns, const float *in, const unsigned char *tile, uint32_t n_blocks) {
    for (uint32_t c0 = 0; c0 < kTileRows; c0 += kWidth) {
        F total = zero();
        for (uint32_t b = 0; b < n_blocks; b++) {
            const TileBlock block = tile_block(tile, b, n_blocks);
            float scales[kWidth];
            for (uint32_t c = 0; c < (uint32_t)kWidth; c++)
                scales[c] = f16_to_f32(load_as<uint16_t>(block.scales + (c0 + c) * 2));
            const float *x = in + (size_t)b * kBlockSize;
            F dot = zero();
            for (uint32_t j = 0; j < 4; j++) {
                const I bytes = load_as<I>(block.nibbles + (j * kTileRows + c0) * 4);
                for (uint32_t i = 0; i < 4; i++) {
                    const I low = ((bytes >> (8 * i)) & 15) - 8, high = ((bytes >> (8 * i + 4)) & 15) - 8;
                    dot = fma(to_float(low), set(x[j * 4 + i]), dot);
                    dot = fma(to_float(high), set(x[16 + j * 4 + i]), dot);
                }
            }
            total = fma(dot, load(scales), total);
        }
        if (n_columns >= c0 + kWidth)
            store(out + c0, total);
        else if (n_columns > c0)
            store_n(out + c0, total, (int)(n_columns - c0));
    }
}

// out (z, n_batches, d) = in (z, n_batches, n) times a packed Q40 weight (experts, d, n)
Fault matmul_f32_q40(const OpContext &op, const Region &region, Scratch) {
    Fault fault = kNoFault;
    const uint32_t n_blocks = op.weight.y / kBlockSize;
    const size_t tile_bytes = (size_t)n_blocks * kTileRows * sizeof(BlockQ40);
    for (uint32_t z = 0; z < op.output.z; z++)
        for (uint32_t y = region.y0; y < region.y1; y++) {
            const Expert expert = expert_of(op, y, z, &fault);
            if (!expert.is_valid)
                return fault;
            const unsigned char *weight = op.weight.data + expert.number * op.weight.z_stride;
            const float *in = f32_row(op.input, z, y);
            float *out = f32_row(op.output, z, y);
            for (uint32_t x = region.x0; x < region.x1; x += kTileRows) {
                const uint32_t n_columns = region.x1 - x < kTileRows ? region.x1 - x : kTileRows;
                f32_q40_tile(out + x, n_columns, in, weight + x / kTileRows * tile_bytes, n_blocks);
            }
        }
    return fault;
}

// ---- Q80 x Q40

// Rows are prepared in groups of at most group_rows, as equal as can be, so that no group is left with one row.
uint32_t n_row_groups(uint32_t batch_size, uint32_t group_rows) {
    return (batch_size + group_rows - 1) / group_rows;
}

uint32_t group_start(uint32_t group, uint32_t n_groups, uint32_t batch_size) {
    return (uint32_t)((uint64_t)group * batch_size / n_groups);
}

// The blocks of rows prepared one by one, side by side as one group.
void gather(unsigned char *to, const unsigned char *const *rows, uint32_t n_rows, uint32_t n_blocks) {
    for (uint32_t b = 0; b < n_blocks; b++)
        for (uint32_t r = 0; r < n_rows; r++) {
            const unsigned char *from = rows[r] + (size_t)b * kPreparedBlockBytes;
            unsigned char *group = to + (size_t)b * n_rows * kPreparedBlockBytes;
            memcpy(group + r * 32, from, 32);
            memcpy(group + n_rows * 32 + r * 4, from + 32, 4);
            memcpy(group + n_rows * 36 + r * 4, from + 36, 4);
        }
}

// Rows that go to the same expert are gathered into groups; the others go one by one.
Fault q40_experts(const OpContext &op, const Region &region, Scratch scratch) {
    const uint32_t n_blocks = op.weight.y / kBlockSize, n_rows = op.output.z * region.batch_size;
    const size_t row_bytes = (size_t)n_blocks * kPreparedBlockBytes;
    // Scratch: room for one group, then the expert of each row (z, y), -1 once it is done.
    unsigned char *group = scratch.data;
    int32_t *expert_of_row = (int32_t *)(scratch.data + kGroupRows * row_bytes);
    Fault fault = kNoFault;
    for (uint32_t i = 0; i < n_rows; i++) {
        const Expert expert = expert_of(op, i % region.batch_size, i / region.batch_size, &fault);
        if (!expert.is_valid)
            return fault;
        expert_of_row[i] = (int32_t)expert.number;
    }
    for (uint32_t i = 0; i < n_rows; i++) {
        const int32_t expert = expert_of_row[i];
        if (expert < 0)
            continue;
        const unsigned char *rows[kGroupRows];
        float *out[kGroupRows];
        uint32_t n = 0;
        for (uint32_t k = i; k < n_rows && n < kGroupRows; k++)
            if (expert_of_row[k] == expert) {
                expert_of_row[k] = -1;
                rows[n] = op.prepared + k * row_bytes;
                out[n++] = f32_row(op.output, k / region.batch_size, k % region.batch_size);
            }
        if (n > 1)
            gather(group, rows, n, n_blocks);
        q40_tiles(out, region.x0, region.x1, n > 1 ? group : rows[0], n,
                  op.weight.data + (size_t)expert * op.weight.z_stride, n_blocks);
    }
    return fault;
}

// The same with Q80 rows, prepared by prepare_rows, and a packed Q40 weight. The region has all rows.
Fault matmul_q80_q40(const OpContext &op, const Region &region, Scratch scratch) {
    if (op.params.matmul.n_active_experts != 0)
        return q40_experts(op, region, scratch);
    const uint32_t n_blocks = op.weight.y / kBlockSize;
    const uint32_t n_groups = n_row_groups(region.batch_size, kGroupRows);
    // A few tiles at a time for all groups, so that they are still in the second cache for the last group.
    const uint32_t columns = n_groups == 1 ? region.x1 - region.x0 : 2 * kTileRows;
    for (uint32_t x = region.x0; x < region.x1; x += columns)
        for (uint32_t group = 0; group < n_groups; group++) {
            const uint32_t y0 = group_start(group, n_groups, region.batch_size);
            const uint32_t n_rows = group_start(group + 1, n_groups, region.batch_size) - y0;
            float *out[kGroupRows];
            for (uint32_t r = 0; r < n_rows; r++)
                out[r] = f32_row(op.output, 0, y0 + r);
            const uint32_t end = region.x1 - x < columns ? region.x1 : x + columns;
            q40_tiles(out, x, end, op.prepared + (size_t)y0 * n_blocks * kPreparedBlockBytes, n_rows, op.weight.data,
                      n_blocks);
        }
    return kNoFault;
}

// Q80 rows (z, n_batches, n) into groups of rows as q40_tile reads them
Fault prepare_rows(const OpContext &op, const Region &region, Scratch) {
    const bool is_alone = op.params.prepare.group_rows == 1;
    const uint32_t n_blocks = op.input.x / kBlockSize, n_rows = op.input.z * region.batch_size;
    const uint32_t n_groups = is_alone ? n_rows : n_row_groups(region.batch_size, op.params.prepare.group_rows);
    for (uint32_t z = 0; z < op.input.z; z++)
        for (uint32_t y = region.y0; y < region.y1; y++) {
            uint32_t first = z * region.batch_size + y, group_size = 1; // of the group that the row is in
            if (!is_alone) {
                uint32_t group = (uint32_t)((uint64_t)y * n_groups / region.batch_size);
                while (group_start(group + 1, n_groups, region.batch_size) <= y)
                    group++;
                first = group_start(group, n_groups, region.batch_size);
                group_size = group_start(group + 1, n_groups, region.batch_size) - first;
            }
            const uint32_t r = z * region.batch_size + y - first;
            const BlockQ80 *in = q80_row(op.input, z, y);
            for (uint32_t b = region.x0 / kBlockSize; b < region.x1 / kBlockSize; b++) {
                unsigned char *to =
                    op.prepared + ((size_t)first * n_blocks + (size_t)b * group_size) * kPreparedBlockBytes;
                int32_t total = 0;
                for (uint32_t i = 0; i < kBlockSize; i++)
                    total += in[b].qs[i];
                const int32_t correction = -8 * total;
                const float d = f16_to_f32(in[b].d);
                memcpy(to + r * 32, in[b].qs, 32);
                memcpy(to + group_size * 32 + r * 4, &correction, 4);
                memcpy(to + group_size * 36 + r * 4, &d, 4);
            }
        }
    return kNoFault;
}

// ---- specs

void check_matmul(const OpContext &op, ShapeCheck &check) {
    const MatmulParams &p = op.params.matmul;
    const bool has_q40_weight = op.quant == QuantType::q80_q40_f32 || op.quant == QuantType::f32_q40_f32;
    const uint32_t z = p.n_active_experts > 0 ? p.n_active_experts : 1;
    check.require(op.input.z == z && op.output.z == z, "input and output must have one z for each active expert");
    check.require_weight(has_q40_weight ? FloatType::q40 : FloatType::f32, p.n_experts > 0 ? p.n_experts : 1,
                         op.input.x, op.output.x);
    if (p.n_active_experts > 0) {
        check.require(p.n_experts > 0, "active experts need experts");
        check.require_rows(p.active_expert_indexes, FloatType::f32, 1, p.n_active_experts,
                           "expert indexes must be F32 [n_batches][n_active_experts]");
    }
}

Work matmul_work(const OpContext &op, uint32_t) {
    return {op.output.x, kLine, false, op.quant == QuantType::q80_q40_f32, true};
}

// What prepare_rows wrote as a tensor of bytes, so that it takes part in the ordering.
Tensor prepared_tensor(const OpContext &op) {
    const ptrdiff_t row_bytes = (ptrdiff_t)(op.input.x / kBlockSize) * kPreparedBlockBytes;
    return {FloatType::unk, op.input.z, op.input.y, op.input.x, op.prepared, row_bytes * op.input.y, row_bytes};
}

void touch_matmul(const OpContext &op, Accesses &touched) {
    touched.reads(op.input, Access::anything);
    touched.writes(op.output, Access::same_columns);
    if (op.prepared != nullptr)
        touched.reads(prepared_tensor(op), Access::anything);
    if (op.params.matmul.n_active_experts != 0)
        touched.reads(op.params.matmul.active_expert_indexes, Access::anything);
}

IndexUse matmul_experts(const OpContext &op) {
    const MatmulParams &p = op.params.matmul;
    if (p.n_active_experts == 0)
        return kNoIndexes;
    return {p.active_expert_indexes, p.n_active_experts, p.n_experts, FaultKind::expert};
}

Preparation matmul_preparation(const OpContext &op) {
    if (op.quant != QuantType::q80_q40_f32)
        return kNoPreparation;
    const size_t n_blocks = (size_t)op.input.z * op.input.y * (op.input.x / kBlockSize);
    const uint32_t group_rows = op.params.matmul.n_active_experts != 0 ? 1 : kGroupRows;
    return {OpCode::prepare_rows, QuantType::q80_q80_q80, {group_rows}, n_blocks * kPreparedBlockBytes};
}

// A group of rows in F32.
size_t decoded_scratch(const OpContext &op) {
    return (size_t)kF32GroupRows * op.input.x * sizeof(float);
}

// See q40_experts.
size_t experts_scratch(const OpContext &op) {
    if (op.params.matmul.n_active_experts == 0)
        return 0;
    const size_t row_bytes = (size_t)(op.input.x / kBlockSize) * kPreparedBlockBytes;
    return kGroupRows * row_bytes + (size_t)op.input.z * op.n_batches * sizeof(int32_t);
}

void check_prepare(const OpContext &, ShapeCheck &) {} // the matmul's check has seen the input

Work prepare_work(const OpContext &op, uint32_t) {
    return {op.input.x, kBlockSize, false, false, false};
}

void touch_prepare(const OpContext &op, Accesses &touched) {
    touched.reads(op.input, Access::same_columns);
    touched.writes(prepared_tensor(op), Access::same_columns);
}

constexpr KernelEntry kMatmul[] = {
    {QuantType::f32_f32_f32, matmul_f32},
    {QuantType::f32_q40_f32, matmul_f32_q40},
    {QuantType::q80_q40_f32, matmul_q80_q40, experts_scratch},
    {QuantType::q80_f32_f32, matmul_q80_f32, decoded_scratch},
};
constexpr ParamField kMatmulParams[] = {
    DLLAMA_PARAM(MatmulParams, n_experts),
    DLLAMA_PARAM(MatmulParams, n_active_experts),
    DLLAMA_PARAM(MatmulParams, active_expert_indexes),
};

constexpr KernelEntry kPrepareRows[] = {{QuantType::q80_q80_q80, prepare_rows}};

constexpr OpSpec kOps[] = {
    {OpCode::matmul, "matmul", kMatmul, kMatmulParams, check_matmul, matmul_work, touch_matmul, matmul_experts,
     matmul_preparation},
    {OpCode::prepare_rows, "prepare_rows", kPrepareRows, {}, check_prepare, prepare_work, touch_prepare},
};

} // namespace

const OpTable matmul_ops = kOps;

} // namespace DLLAMA_ISA
} // namespace dllama
