// MATMUL of every type, against sums in double: odd sizes, groups of rows of every size, experts, threads.
#include "pack.hpp"
#include "test.hpp"

using namespace testing;

namespace {

struct Shape {
    uint32_t n, d, rows;
    uint32_t n_experts = 0, n_active = 0;
};

// A weight in double, and packed as the kernels want it.
class TestWeight {
public:
    TestWeight(FloatType type, const Shape &shape, const KernelSet &kernels, Random &random)
        : n_(shape.n), d_(shape.d), weight_(type, std::max(shape.n_experts, 1u), shape.n, shape.d,
                                            type == FloatType::q40 ? kernels.tile_rows : 0) {
        const std::size_t count = std::size_t(std::max(shape.n_experts, 1u)) * n_ * d_;
        std::vector<unsigned char> wire(n_bytes(type, count));
        values_.resize(count);
        if (type == FloatType::f32) {
            for (std::size_t i = 0; i < count; i++) {
                const float v = normal(random) * 0.1f;
                std::memcpy(&wire[i * 4], &v, 4);
                values_[i] = v;
            }
        } else {
            for (std::size_t b = 0; b < count / kBlockSize; b++) {
                BlockQ40 block;
                block.d = float_to_half((float(between(random, 0, 200)) - 100.0f) / 1000.0f);
                for (uint32_t i = 0; i < 16; i++) {
                    block.qs[i] = uint8_t(between(random, 0, 255));
                    values_[b * kBlockSize + i] = half_to_float(block.d) * float((block.qs[i] & 15) - 8);
                    values_[b * kBlockSize + 16 + i] = half_to_float(block.d) * float((block.qs[i] >> 4) - 8);
                }
                std::memcpy(&wire[b * sizeof block], &block, sizeof block);
            }
        }
        weight_.load(0, wire.data(), wire.size());
    }

    WeightView view() const { return weight_.view(); }
    double at(uint32_t expert, uint32_t d, uint32_t n) const {
        return values_[(std::size_t(expert) * d_ + d) * n_ + n];
    }

private:
    uint32_t n_, d_;
    std::vector<double> values_;
    Weight weight_;
};

void check_matmul(QuantType quant, FloatType in_type, FloatType weight_type, const Shape &shape,
                  const KernelSet &kernels, uint32_t n_threads) {
    Random random(shape.n * 31 + shape.d * 7 + shape.rows);
    const uint32_t z = std::max(shape.n_active, 1u), n_batches = shape.rows + 1;
    const Buffer in(in_type, z, n_batches, shape.n, in_type == FloatType::f32 ? 4 : 2),
        out(FloatType::f32, z, n_batches, shape.d, 4);
    const Buffer indexes(FloatType::f32, 1, n_batches, std::max(shape.n_active, 1u));
    fill(in, random);
    fill(out, random);
    const TestWeight weight(weight_type, shape, kernels, random);
    for (uint32_t y = 0; y < shape.rows; y++)
        for (uint32_t e = 0; e < shape.n_active; e++)
            indexes.f32(0, y)[e] = float(between(random, 0, shape.n_experts - 1));

    OpContext op = make_op(OpCode::matmul, quant, n_batches, in, out);
    op.weight = weight.view();
    op.params.matmul = {shape.n_experts, shape.n_active, indexes};
    const std::vector<unsigned char> before = out.copy();
    CHECK(run(op, kernels, shape.rows, n_threads).fault.kind == FaultKind::none);

    double worst = 0;
    for (uint32_t e = 0; e < z; e++)
        for (uint32_t y = 0; y < shape.rows; y++) {
            const uint32_t expert = shape.n_active ? uint32_t(indexes.f32(0, y)[e]) : 0;
            double largest = 1e-6;
            std::vector<double> expected(shape.d);
            for (uint32_t d = 0; d < shape.d; d++) {
                for (uint32_t n = 0; n < shape.n; n++)
                    expected[d] += weight.at(expert, d, n) * value(in, e, y, n);
                largest = std::max(largest, std::fabs(expected[d]));
            }
            for (uint32_t d = 0; d < shape.d; d++)
                worst = std::max(worst, std::fabs(out.f32(e, y)[d] - expected[d]) / largest);
        }
    CHECK_SAYING(worst < 3e-6, std::string(kernels.name) + " n " + std::to_string(shape.n) + " d " +
                                   std::to_string(shape.d) + " rows " + std::to_string(shape.rows) + " experts " +
                                   std::to_string(shape.n_experts) + " off by " + std::to_string(worst));
    for (uint32_t e = 0; e < z; e++) // the row behind the batch
        CHECK(std::memcmp(out.f32(e, shape.rows), &before[(std::size_t(e) * n_batches + shape.rows) * shape.d * 4],
                          shape.d * 4) == 0);
}

const Shape kQuantized[] = {{32, 1, 1},         {32, 16, 2},      {64, 17, 3},   {96, 33, 4},       {160, 47, 5},
                            {64, 100, 7},       {96, 31, 8},      {32, 48, 9},   {64, 16, 13},      {96, 40, 16},
                            {160, 70, 17},      {64, 130, 31},    {288, 64, 32}, {64, 40, 1, 3, 2}, {96, 33, 5, 4, 3},
                            {64, 50, 20, 2, 2}, {32, 16, 9, 8, 8}};

} // namespace

TEST(q80_q40_matmul_agrees_with_double) {
    for (const KernelSet *kernels : available_kernel_sets())
        for (const Shape &shape : kQuantized)
            check_matmul(QuantType::q80_q40_f32, FloatType::q80, FloatType::q40, shape, *kernels, 1 + shape.d % 3);
}

TEST(every_group_of_rows_agrees_with_double) {
    for (const KernelSet *kernels : available_kernel_sets())
        for (uint32_t rows = 1; rows <= 33; rows++)
            check_matmul(QuantType::q80_q40_f32, FloatType::q80, FloatType::q40, {64, 35, rows}, *kernels, 1);
}

TEST(f32_q40_matmul_agrees_with_double) {
    for (const KernelSet *kernels : available_kernel_sets())
        for (const Shape &shape : kQuantized)
            check_matmul(QuantType::f32_q40_f32, FloatType::f32, FloatType::q40, shape, *kernels, 1 + shape.d % 3);
}

TEST(f32_matmul_agrees_with_double) {
    for (const KernelSet *kernels : available_kernel_sets())
        for (const Shape &shape : {Shape{1, 1, 1},
                                   {3, 5, 2},
                                   {7, 9, 3},
                                   {16, 16, 4},
                                   {33, 18, 5},
                                   {130, 70, 9},
                                   {40, 3, 32},
                                   {24, 20, 6, 3, 2}})
            check_matmul(QuantType::f32_f32_f32, FloatType::f32, FloatType::f32, shape, *kernels, 1 + shape.d % 3);
}

TEST(q80_f32_matmul_agrees_with_double) {
    for (const KernelSet *kernels : available_kernel_sets())
        for (const Shape &shape : {Shape{32, 1, 1}, {64, 18, 5}, {96, 70, 9}, {32, 20, 6, 3, 2}})
            check_matmul(QuantType::q80_f32_f32, FloatType::q80, FloatType::f32, shape, *kernels, 1 + shape.d % 3);
}

TEST(an_expert_that_is_not_there_is_a_fault) {
    for (const KernelSet *kernels : available_kernel_sets())
        for (const float bad : {3.0f, -1.0f, NAN, INFINITY, 1e30f}) {
            Random random(1);
            const Shape shape{64, 40, 4, 3, 2};
            const Buffer in(FloatType::q80, 2, 4, 64), out(FloatType::f32, 2, 4, 40), indexes(FloatType::f32, 1, 4, 2);
            const TestWeight weight(FloatType::q40, shape, *kernels, random);
            indexes.f32(0, 2)[1] = bad;
            OpContext op = make_op(OpCode::matmul, QuantType::q80_q40_f32, 4, in, out);
            op.weight = weight.view();
            op.params.matmul = {3, 2, indexes};
            const std::vector<unsigned char> before = out.copy();
            const Plan::Result result = run(op, *kernels, 4, 2);
            CHECK(result.fault.kind == FaultKind::expert && result.fault.row == 2 && result.fault.limit == 3);
            CHECK(out.copy() == before);
            CHECK(run(op, *kernels, 2).fault.kind == FaultKind::none); // the bad row is not in this batch
        }
}
