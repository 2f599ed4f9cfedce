// Every other op on every kernel set, against its definition in double: odd widths, misaligned rows, part batches.
#include <algorithm>

#include "pack.hpp"
#include "test.hpp"

using namespace testing;

namespace {

const std::vector<const KernelSet *> &sets() {
    return available_kernel_sets();
}

const uint32_t kWidths[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 100, 257};

std::string at(const KernelSet *kernels, uint32_t x) {
    return std::string(kernels->name) + ", width " + std::to_string(x);
}

bool near(double a, double b, double tolerance) {
    return std::fabs(a - b) <= tolerance || (std::isnan(a) && std::isnan(b));
}

void check_activation(OpCode code, double (*function)(double), double tolerance) {
    for (const KernelSet *kernels : sets())
        for (const uint32_t x : kWidths) {
            Random random(x);
            const Buffer rows(FloatType::f32, 2, 3, x, 4);
            fill(rows, random, 4.0f);
            rows.f32()[0] = -100.0f;
            const Buffer before(FloatType::f32, 2, 3, x);
            before.restore(rows.copy());
            CHECK(run(make_op(code, QuantType::f32_f32_f32, 3, rows, rows), *kernels, 2, 2).fault.kind ==
                  FaultKind::none);
            for (uint32_t z = 0; z < 2; z++) {
                for (uint32_t y = 0; y < 2; y++)
                    for (uint32_t i = 0; i < x; i++)
                        CHECK_SAYING(near(rows.f32(z, y)[i], function(before.f32(z, y)[i]), tolerance), at(kernels, x));
                CHECK(std::memcmp(rows.f32(z, 2), before.f32(z, 2), x * 4) == 0);
            }
        }
}

BlockQ80 quantized(const float *x) {
    float largest = 0;
    for (uint32_t i = 0; i < kBlockSize; i++)
        largest = std::isnan(x[i]) || std::isnan(largest) ? NAN : std::max(largest, std::fabs(x[i]));
    const float d = largest / 127.0f, inverse = d != 0 ? 1.0f / d : 0.0f;
    BlockQ80 block;
    block.d = float_to_half(d);
    for (uint32_t i = 0; i < kBlockSize; i++) {
        const float q = std::nearbyint(x[i] * inverse);
        block.qs[i] = std::isfinite(q) ? int8_t(q) : 0;
    }
    return block;
}

// Blocks with everything that rounds or overflows: ties, zeros, subnormals, infinities, not-a-number.
void fill_with_edges(float *x, uint32_t n, Random &random) {
    for (uint32_t b = 0; b < n / kBlockSize; b++) {
        const float scales[] = {1.0f, 127.0f, 1e-3f, 1e-40f, 3e-44f, 1e38f, 0.0f, 8.4e6f, 5.9e-8f, 7.6e-6f};
        const float scale = scales[b % 10];
        for (uint32_t i = 0; i < kBlockSize; i++)
            x[b * kBlockSize + i] =
                b % 10 == 1 ? float(int(between(random, 0, 254)) - 127) + 0.5f * float(i % 2) : normal(random) * scale;
        if (b % 10 == 1)
            x[b * kBlockSize] = 127.0f; // scale 1: halves are exact ties
        if (b == 11)
            x[b * kBlockSize + 5] = INFINITY;
        if (b == 12)
            x[b * kBlockSize + 31] = NAN;
    }
}

bool same_block(const BlockQ80 &a, const BlockQ80 &b) {
    const bool both_nan = std::isnan(half_to_float(a.d)) && std::isnan(half_to_float(b.d));
    return (a.d == b.d || both_nan) && std::memcmp(a.qs, b.qs, sizeof a.qs) == 0;
}

} // namespace

TEST(halves_in_the_tests_are_exact) {
    for (uint32_t half = 0; half < 0x7c00; half++) {
        CHECK(float_to_half(half_to_float(uint16_t(half))) == half);
        // The middle to the next one goes to the even of the two.
        const float middle =
            half == 0x7bff ? 65520.0f : (half_to_float(uint16_t(half)) + half_to_float(uint16_t(half + 1))) / 2;
        CHECK(float_to_half(middle) == (half & 1 ? half + 1 : half));
    }
}

TEST(silu_agrees_with_double) {
    check_activation(
        OpCode::silu, [](double x) { return x / (1 + std::exp(-x)); }, 3e-5); // by the polynomial of the C++ program
}

TEST(gelu_agrees_with_double) {
    check_activation(
        OpCode::gelu,
        [](double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * x * (1 + 0.044715 * x * x))); }, 2e-6);
}

TEST(softmax_agrees_with_double) {
    for (const KernelSet *kernels : sets())
        for (const uint32_t x : kWidths) {
            Random random(x);
            const Buffer rows(FloatType::f32, 1, 3, x, 4), before(FloatType::f32, 1, 3, x);
            fill(rows, random, 5.0f);
            rows.f32()[x - 1] = 90.0f;
            before.restore(rows.copy());
            CHECK(run(make_op(OpCode::softmax, QuantType::f32_f32_f32, 3, rows, rows), *kernels, 3, 2).fault.kind ==
                  FaultKind::none);
            for (uint32_t y = 0; y < 3; y++) {
                double most = -INFINITY, sum = 0;
                for (uint32_t i = 0; i < x; i++)
                    most = std::max(most, double(before.f32(0, y)[i]));
                for (uint32_t i = 0; i < x; i++)
                    sum += std::exp(before.f32(0, y)[i] - most);
                for (uint32_t i = 0; i < x; i++)
                    CHECK_SAYING(near(rows.f32(0, y)[i], std::exp(before.f32(0, y)[i] - most) / sum, 1e-5),
                                 at(kernels, x));
            }
        }
}

TEST(casts_to_q80_are_exact) {
    for (const KernelSet *kernels : sets()) {
        Random random(9);
        const uint32_t x = 20 * kBlockSize;
        const Buffer in(FloatType::f32, 2, 3, x, 4), out(FloatType::q80, 2, 3, x, 2),
            repeated(FloatType::q80, 3, 3, x, 2);
        for (uint32_t z = 0; z < 2; z++)
            for (uint32_t y = 0; y < 3; y++)
                fill_with_edges(in.f32(z, y), x, random);
        CHECK(run(make_op(OpCode::cast, QuantType::f32_f32_q80, 3, in, out), *kernels, 3, 3).fault.kind ==
              FaultKind::none);
        Tensor first = in.tensor();
        first.z = 1;
        CHECK(run(make_op(OpCode::repeat_z, QuantType::f32_f32_q80, 3, first, repeated), *kernels, 3, 3).fault.kind ==
              FaultKind::none);
        for (uint32_t y = 0; y < 3; y++)
            for (uint32_t b = 0; b < x / kBlockSize; b++) {
                for (uint32_t z = 0; z < 2; z++)
                    CHECK_SAYING(same_block(out.q80(z, y)[b], quantized(in.f32(z, y) + b * kBlockSize)),
                                 at(kernels, b));
                for (uint32_t z = 0; z < 3; z++)
                    CHECK_SAYING(same_block(repeated.q80(z, y)[b], out.q80(0, y)[b]), at(kernels, b));
            }
    }
}

TEST(half_scales_of_every_kind_are_read_exactly) {
    for (const KernelSet *kernels : sets()) {
        const uint32_t n = 65536;
        const Buffer in(FloatType::q80, 1, 1, n * kBlockSize, 2), out(FloatType::f32, 1, 1, n * kBlockSize, 4);
        for (uint32_t half = 0; half < n; half++) {
            BlockQ80 block{uint16_t(half), {1, -128, 127}};
            std::memcpy(in.q80() + half, &block, sizeof block);
        }
        CHECK(run(make_op(OpCode::cast, QuantType::q80_q80_f32, 1, in, out), *kernels, 1).fault.kind ==
              FaultKind::none);
        for (uint32_t half = 0; half < n; half++) {
            const float d = half_to_float(uint16_t(half)), *values = out.f32() + half * kBlockSize;
            for (uint32_t i = 0; i < 3; i++) {
                const float expected = d * float(i == 0 ? 1 : i == 1 ? -128 : 127);
                CHECK(values[i] == expected || (std::isnan(values[i]) && std::isnan(expected)));
            }
        }
    }
}

TEST(copies_move_the_rows_of_the_batch_and_no_others) {
    for (const KernelSet *kernels : sets())
        for (const uint32_t x : {32u, 96u})
            for (const bool quantized_rows : {false, true}) {
                Random random(x);
                const FloatType type = quantized_rows ? FloatType::q80 : FloatType::f32;
                const QuantType quant = quantized_rows ? QuantType::q80_q80_q80 : QuantType::f32_f32_f32;
                const Buffer in(type, 2, 4, x, quantized_rows ? 2 : 4), out(type, 2, 4, x, quantized_rows ? 2 : 4);
                fill(in, random);
                CHECK(run(make_op(OpCode::cast, quant, 4, in, out), *kernels, 3, 2).fault.kind == FaultKind::none);
                const std::size_t row_bytes = n_bytes(type, x);
                const std::vector<unsigned char> zeros(row_bytes);
                for (uint32_t z = 0; z < 2; z++) {
                    for (uint32_t y = 0; y < 3; y++)
                        CHECK(std::memcmp(row(out, z, y), row(in, z, y), row_bytes) == 0);
                    CHECK(std::memcmp(row(out, z, 3), zeros.data(), row_bytes) == 0);
                }
            }
}

TEST(norms_agree_with_double) {
    for (const KernelSet *kernels : sets())
        for (const uint32_t width : kWidths)
            for (const uint32_t n_columns : {1u, 3u}) {
                Random random(width);
                const uint32_t x = width * n_columns;
                const Buffer in(FloatType::f32, 1, 3, x, 4), inverse(FloatType::f32, 1, 3, n_columns + 1),
                    out(FloatType::f32, 1, 3, x, 4);
                fill(in, random);
                Weight weight(FloatType::f32, 1, 1, width, 0);
                for (uint32_t i = 0; i < width; i++) {
                    const float w = normal(random);
                    weight.load(i * 4, reinterpret_cast<const unsigned char *>(&w), 4);
                }
                OpContext first = make_op(OpCode::inv_rms, QuantType::f32_f32_f32, 3, in, inverse);
                first.params.inv_rms = {1e-5f, n_columns};
                OpContext second = make_op(OpCode::rms_norm, QuantType::f32_f32_f32, 3, in, out);
                second.params.rms_norm = {n_columns, inverse};
                second.weight = weight.view();
                Plan plan({{first, kernels}, {second, kernels}}, std::make_shared<Engine>(2));
                CHECK(plan.run(3).fault.kind == FaultKind::none);
                for (uint32_t y = 0; y < 3; y++)
                    for (uint32_t c = 0; c < n_columns; c++) {
                        double sum = 0;
                        for (uint32_t i = 0; i < width; i++)
                            sum += double(in.f32(0, y)[c * width + i]) * in.f32(0, y)[c * width + i];
                        const double expected = 1 / std::sqrt(sum / width + 1e-5);
                        CHECK_SAYING(near(inverse.f32(0, y)[c] / expected, 1, 1e-6), at(kernels, width));
                        for (uint32_t i = 0; i < width; i++) {
                            const double normed = expected * in.f32(0, y)[c * width + i] *
                                                  reinterpret_cast<const float *>(weight.view().data)[i];
                            CHECK_SAYING(near(out.f32(0, y)[c * width + i], normed, 1e-5), at(kernels, width));
                        }
                    }
            }
}

TEST(norms_of_q80_agree_with_double) {
    for (const KernelSet *kernels : sets())
        for (const uint32_t width : {32u, 48u, 96u}) { // 48: groups end inside blocks
            Random random(width);
            const uint32_t n_columns = 2, x = width * n_columns;
            const Buffer in(FloatType::q80, 1, 2, x, 2), inverse(FloatType::f32, 1, 2, n_columns),
                out(FloatType::f32, 1, 2, x, 4);
            fill(in, random);
            fill(inverse, random);
            Weight weight(FloatType::f32, 1, 1, width, 0);
            for (uint32_t i = 0; i < width; i++) {
                const float w = normal(random);
                weight.load(i * 4, reinterpret_cast<const unsigned char *>(&w), 4);
            }
            OpContext op = make_op(OpCode::rms_norm, QuantType::q80_f32_f32, 2, in, out);
            op.params.rms_norm = {n_columns, inverse};
            op.weight = weight.view();
            CHECK(run(op, *kernels, 2, 2).fault.kind == FaultKind::none);
            for (uint32_t y = 0; y < 2; y++)
                for (uint32_t i = 0; i < x; i++) {
                    const double expected = value(in, 0, y, i) * inverse.f32(0, y)[i / width] *
                                            reinterpret_cast<const float *>(weight.view().data)[i % width];
                    CHECK_SAYING(near(out.f32(0, y)[i], expected, 1e-5 * std::fabs(expected) + 1e-6),
                                 at(kernels, width));
                }
        }
}

TEST(arithmetic_agrees_with_its_definition) {
    for (const KernelSet *kernels : sets())
        for (const uint32_t x : kWidths) {
            Random random(x);
            const Buffer in(FloatType::f32, 3, 3, x, 4), by(FloatType::f32, 3, 3, x, 4), scale(FloatType::f32, 3, 3, 1),
                product(FloatType::f32, 3, 3, x, 4), scaled(FloatType::f32, 3, 3, x, 4),
                total(FloatType::f32, 1, 3, x, 4);
            fill(in, random);
            fill(by, random);
            fill(scale, random);
            OpContext mul = make_op(OpCode::mul, QuantType::f32_f32_f32, 3, in, product);
            mul.params.mul = {by};
            OpContext times = make_op(OpCode::scale, QuantType::f32_f32_f32, 3, in, scaled);
            times.params.scale = {scale};
            CHECK(run(mul, *kernels, 3, 2).fault.kind == FaultKind::none);
            CHECK(run(times, *kernels, 3, 2).fault.kind == FaultKind::none);
            CHECK(run(make_op(OpCode::merge_sum, QuantType::f32_f32_f32, 3, in, total), *kernels, 3, 2).fault.kind ==
                  FaultKind::none);
            for (uint32_t y = 0; y < 3; y++)
                for (uint32_t i = 0; i < x; i++) {
                    double sum = 0;
                    for (uint32_t z = 0; z < 3; z++) {
                        CHECK(product.f32(z, y)[i] == in.f32(z, y)[i] * by.f32(z, y)[i]);
                        CHECK(scaled.f32(z, y)[i] == in.f32(z, y)[i] * scale.f32(z, y)[0]);
                        sum += in.f32(z, y)[i];
                    }
                    CHECK_SAYING(near(total.f32(0, y)[i], sum, 1e-6), at(kernels, x));
                }
        }
}

TEST(merges_add_every_slice) {
    for (const KernelSet *kernels : sets())
        for (const bool quantized_rows : {false, true})
            for (const uint32_t x : {32u, 64u, 160u}) {
                Random random(x);
                const Buffer in(quantized_rows ? FloatType::q80 : FloatType::f32, 1, 3, 4 * x, quantized_rows ? 2 : 4),
                    out(FloatType::f32, 1, 3, x, 4), before(FloatType::f32, 1, 3, x);
                fill(in, random);
                fill(out, random);
                before.restore(out.copy());
                CHECK(run(make_op(OpCode::merge_add, quantized_rows ? QuantType::q80_q80_f32 : QuantType::f32_f32_f32,
                                  3, in, out),
                          *kernels, 2, 2)
                          .fault.kind == FaultKind::none);
                for (uint32_t y = 0; y < 3; y++)
                    for (uint32_t i = 0; i < x; i++) {
                        double sum = before.f32(0, y)[i];
                        for (uint32_t slice = 0; y < 2 && slice < 4; slice++)
                            sum += value(in, 0, y, slice * x + i);
                        CHECK_SAYING(near(out.f32(0, y)[i], sum, 1e-4), at(kernels, x));
                    }
            }
}

TEST(embeddings_and_shifts_check_their_indexes) {
    for (const KernelSet *kernels : sets()) {
        Random random(3);
        const uint32_t x = 64, vocab = 10;
        const Buffer tokens(FloatType::f32, 1, 3, 1), rows(FloatType::f32, 1, 3, x, 4),
            blocks(FloatType::q80, 1, 3, x, 2), cache(FloatType::f32, 1, 1, x * 7 + 5, 4);
        Weight weight(FloatType::f32, 1, vocab, x, 0);
        std::vector<float> table(vocab * x);
        for (float &v : table)
            v = normal(random);
        weight.load(0, reinterpret_cast<const unsigned char *>(table.data()), table.size() * 4);
        tokens.f32(0, 0)[0] = 9;
        tokens.f32(0, 1)[0] = 0;
        tokens.f32(0, 2)[0] = 4.75f; // cut off, as in C
        OpContext embed = make_op(OpCode::embedding, QuantType::f32_f32_f32, 3, tokens, rows);
        embed.weight = weight.view();
        OpContext embed_q80 = make_op(OpCode::embedding, QuantType::f32_f32_q80, 3, tokens, blocks);
        embed_q80.weight = weight.view();
        CHECK(run(embed, *kernels, 3, 2).fault.kind == FaultKind::none &&
              run(embed_q80, *kernels, 3, 2).fault.kind == FaultKind::none);
        const uint32_t expected[] = {9, 0, 4};
        for (uint32_t y = 0; y < 3; y++) {
            CHECK(std::memcmp(rows.f32(0, y), &table[expected[y] * x], x * 4) == 0);
            for (uint32_t b = 0; b < 2; b++)
                CHECK(same_block(blocks.q80(0, y)[b], quantized(&table[expected[y] * x + b * 32])));
        }
        tokens.f32(0, 0)[0] = 6; // the cache's last whole row
        OpContext shift = make_op(OpCode::shift, QuantType::f32_f32_f32, 3, rows, cache);
        shift.params.shift = {tokens};
        CHECK(run(shift, *kernels, 3, 2).fault.kind == FaultKind::none);
        const uint32_t places[] = {6, 0, 4};
        for (uint32_t y = 0; y < 3; y++)
            CHECK(std::memcmp(cache.f32() + places[y] * x, rows.f32(0, y), x * 4) == 0);
        for (const float bad : {10.0f, 1e9f, -1.0f, -INFINITY, INFINITY, NAN}) {
            tokens.f32(0, 1)[0] = bad;
            const std::vector<unsigned char> before = rows.copy(), before_cache = cache.copy();
            const Plan::Result result = run(embed, *kernels, 3, 2);
            CHECK(result.fault.kind == FaultKind::token && result.fault.row == 1 && result.fault.limit == vocab);
            CHECK(run(shift, *kernels, 3, 2).fault.kind == FaultKind::cache_row);
            CHECK(rows.copy() == before && cache.copy() == before_cache);
        }
    }
}

TEST(rope_rotates_both_kinds_of_pairs) {
    for (const KernelSet *kernels : sets())
        for (const bool falcon : {false, true})
            for (const uint32_t head_dim : {2u, 6u, 32u, 50u}) {
                Random random(head_dim);
                const uint32_t dim = head_dim * 3, shift = falcon ? 0 : head_dim * 2,
                               width = falcon ? head_dim : shift + dim, seq_len = 5;
                const Buffer rows(FloatType::f32, 1, 3, dim, 4), before(FloatType::f32, 1, 3, dim),
                    positions(FloatType::f32, 1, 3, 1), cache(FloatType::f32, 1, seq_len, width, 4);
                fill(rows, random);
                fill(cache, random);
                before.restore(rows.copy());
                OpContext op = make_op(OpCode::rope, QuantType::f32_f32_f32, 3, rows, rows);
                RopeParams params{};
                params.type = falcon ? RopeType::falcon : RopeType::llama;
                params.is_q = true;
                params.positions = positions;
                params.cache = cache;
                params.q_dim0 = params.kv_dim0 = dim;
                params.q_shift = shift;
                params.slice_dim = falcon ? 0 : width;
                params.seq_len = seq_len;
                params.head_dim = head_dim;
                op.params.rope = params;
                for (uint32_t y = 0; y < 3; y++)
                    positions.f32(0, y)[0] = float(4 - y);
                CHECK(run(op, *kernels, 3, 2).fault.kind == FaultKind::none);
                for (uint32_t y = 0; y < 3; y++)
                    for (uint32_t h = 0; h < 3; h++)
                        for (uint32_t j = 0; j < head_dim / 2; j++) {
                            const uint32_t a = h * head_dim + (falcon ? j : 2 * j),
                                           b = falcon ? a + head_dim / 2 : a + 1;
                            const double c = cache.f32(0, 4 - y)[falcon ? j : shift + a],
                                         s = cache.f32(0, 4 - y)[falcon ? j + head_dim / 2 : shift + b];
                            const double u = before.f32(0, y)[a], v = before.f32(0, y)[b];
                            CHECK_SAYING(near(rows.f32(0, y)[a], u * c - v * s, 2e-6) &&
                                             near(rows.f32(0, y)[b], u * s + v * c, 2e-6),
                                         at(kernels, head_dim));
                        }
                positions.f32(0, 2)[0] = float(seq_len);
                const std::vector<unsigned char> rotated = rows.copy();
                CHECK(run(op, *kernels, 3, 2).fault.kind == FaultKind::position && rows.copy() == rotated);
            }
}

TEST(attention_agrees_with_double) {
    struct Case {
        uint32_t n_heads, n_heads0, n_kv_heads, head_dim, seq_len, rows, n_threads;
    };
    for (const KernelSet *kernels : sets())
        for (const Case &c : {Case{4, 4, 4, 8, 9, 3, 1},
                              {8, 8, 2, 64, 80, 2, 1},
                              {8, 4, 4, 16, 40, 5, 2},
                              {6, 3, 2, 10, 33, 2, 8},
                              {16, 16, 2, 128, 70, 3, 2},
                              {5, 5, 1, 33, 35, 4, 3},
                              {12, 5, 4, 6, 200, 1, 4}}) {
            Random random(c.head_dim);
            const uint32_t kv_mul = c.n_heads / c.n_kv_heads, kv_dim0 = ((c.n_heads0 - 1) / kv_mul + 1) * c.head_dim,
                           dim = c.n_heads0 * c.head_dim;
            const Buffer out(FloatType::f32, 1, c.rows, dim, 4), query(FloatType::f32, 1, c.rows, dim, 4),
                positions(FloatType::f32, 1, c.rows, 1);
            const Buffer keys(FloatType::f32, 1, c.seq_len, kv_dim0, 4),
                values(FloatType::f32, 1, c.seq_len, kv_dim0, 4),
                att(FloatType::f32, 1, c.rows, c.n_heads0 * c.seq_len, 4);
            fill(query, random, 2.0f);
            fill(keys, random);
            fill(values, random);
            for (uint32_t y = 0; y < c.rows; y++)
                positions.f32(0, y)[0] = float(y == 0 ? 0 : between(random, 0, c.seq_len - 1));
            positions.f32(0, c.rows - 1)[0] = float(c.seq_len - 1);
            OpContext op = make_op(OpCode::multihead_att, QuantType::f32_f32_f32, c.rows, out, out);
            op.params.multihead_att = {c.n_heads, c.n_heads0, c.n_kv_heads, c.head_dim, c.seq_len, kv_dim0,
                                       positions, query,      keys,         values,     att};
            CHECK(run(op, *kernels, c.rows, c.n_threads).fault.kind == FaultKind::none);
            for (uint32_t y = 0; y < c.rows; y++)
                for (uint32_t h = 0; h < c.n_heads0; h++) {
                    const uint32_t n = uint32_t(positions.f32(0, y)[0]) + 1, kv = h / kv_mul * c.head_dim;
                    std::vector<double> weights(n);
                    double sum = 0, most = -INFINITY;
                    for (uint32_t t = 0; t < n; t++) {
                        for (uint32_t i = 0; i < c.head_dim; i++)
                            weights[t] += double(query.f32(0, y)[h * c.head_dim + i]) * keys.f32(0, t)[kv + i] /
                                          std::sqrt(c.head_dim);
                        most = std::max(most, weights[t]);
                    }
                    for (double &w : weights)
                        sum += w = std::exp(w - most);
                    for (uint32_t i = 0; i < c.head_dim; i++) {
                        double expected = 0;
                        for (uint32_t t = 0; t < n; t++)
                            expected += weights[t] / sum * values.f32(0, t)[kv + i];
                        CHECK_SAYING(near(out.f32(0, y)[h * c.head_dim + i], expected, 3e-5), at(kernels, c.head_dim));
                    }
                }
            positions.f32(0, 0)[0] = float(c.seq_len);
            const std::vector<unsigned char> before = out.copy();
            CHECK(run(op, *kernels, c.rows, c.n_threads).fault.kind == FaultKind::position && out.copy() == before);
        }
}

TEST(the_gate_picks_the_largest_and_the_first_of_equals) {
    for (const KernelSet *kernels : sets())
        for (const bool norm : {false, true}) {
            const Buffer in(FloatType::f32, 1, 3, 6), out(FloatType::f32, 3, 3, 1), indexes(FloatType::f32, 1, 3, 3);
            const float rows[3][6] = {{1, 5, 2, 5, 0, 4}, {3, 3, 3, 3, 3, 3}, {-1, -2, -3, -4, -0.5f, -6}};
            for (uint32_t y = 0; y < 3; y++)
                std::memcpy(in.f32(0, y), rows[y], sizeof rows[y]);
            OpContext op = make_op(OpCode::moe_gate, QuantType::f32_f32_f32, 3, in, out);
            op.params.moe_gate = {3, norm, indexes};
            CHECK(run(op, *kernels, 3, 2).fault.kind == FaultKind::none);
            const uint32_t expected[3][3] = {{1, 3, 5}, {0, 1, 2}, {4, 0, 1}};
            for (uint32_t y = 0; y < 3; y++) {
                float sum = 0;
                for (const uint32_t expert : expected[y])
                    sum += rows[y][expert];
                for (uint32_t k = 0; k < 3; k++) {
                    CHECK(indexes.f32(0, y)[k] == float(expected[y][k]));
                    CHECK(near(out.f32(k, y)[0], rows[y][expected[y][k]] / (norm ? sum : 1), 1e-6));
                }
            }
            for (uint32_t i = 0; i < 6; i++)
                in.f32()[i] = NAN; // whatever is picked has to exist
            CHECK(run(op, *kernels, 3, 2).fault.kind == FaultKind::none);
            for (uint32_t k = 0; k < 3; k++)
                CHECK(indexes.f32()[k] >= 0 && indexes.f32()[k] < 6);
        }
}
