// A plan computes what its ops compute one by one, however they share steps and on however many threads.
#include <atomic>
#include <stdexcept>
#include <thread>

#include "pack.hpp"
#include "test.hpp"

using namespace testing;

namespace {

// A feed-forward block and an attention-like tail, as a model has them, on small memory.
class Block {
public:
    Block(const KernelSet &kernels, uint32_t dim, uint32_t hidden)
        : zq(FloatType::q80, 1, kBatch, 2 * dim), x(FloatType::f32, 1, kBatch, dim),
          inverse(FloatType::f32, 1, kBatch, 1), y(FloatType::f32, 1, kBatch, dim), yq(FloatType::q80, 1, kBatch, dim),
          d(FloatType::f32, 1, kBatch, hidden), l(FloatType::f32, 1, kBatch, hidden),
          dq(FloatType::q80, 1, kBatch, hidden), positions(FloatType::f32, 1, kBatch, 1),
          cache(FloatType::f32, 1, 1, dim * 64), norm(FloatType::f32, 1, 1, dim, 0),
          w1(FloatType::q40, 1, dim, hidden, kernels.tile_rows), w3(FloatType::q40, 1, dim, hidden, kernels.tile_rows),
          w2(FloatType::q40, 1, hidden, dim, kernels.tile_rows) {
        Random random(dim);
        for (Weight *weight : {&w1, &w2, &w3}) {
            std::vector<unsigned char> wire(weight->n_wire_bytes());
            for (std::size_t i = 0; i < wire.size(); i += sizeof(BlockQ40)) {
                const uint16_t scale = float_to_half(0.01f);
                std::memcpy(&wire[i], &scale, 2);
                for (std::size_t k = 2; k < sizeof(BlockQ40); k++)
                    wire[i + k] = uint8_t(between(random, 0, 255));
            }
            weight->load(0, wire.data(), wire.size());
        }
        for (uint32_t i = 0; i < dim; i++) {
            const float w = 1.0f + 0.1f * normal(random);
            norm.load(i * 4, reinterpret_cast<const unsigned char *>(&w), 4);
        }
        fill(zq, random, 0.1f);
        fill(x, random);
        for (uint32_t i = 0; i < kBatch; i++)
            positions.f32(0, i)[0] = float(i + 7);

        const QuantType f32 = QuantType::f32_f32_f32, to_q80 = QuantType::f32_f32_q80;
        add(make_op(OpCode::merge_add, QuantType::q80_q80_f32, kBatch, zq, x), kernels);
        add(make_op(OpCode::inv_rms, f32, kBatch, x, inverse), kernels).params.inv_rms = {1e-5f, 1};
        OpContext &rms_norm = add(make_op(OpCode::rms_norm, f32, kBatch, x, y), kernels);
        rms_norm.params.rms_norm = {1, inverse};
        rms_norm.weight = norm.view();
        add(make_op(OpCode::cast, to_q80, kBatch, y, yq), kernels);
        add_matmul(yq, d, w1, kernels);
        add_matmul(yq, l, w3, kernels);
        add(make_op(OpCode::silu, f32, kBatch, d, d), kernels);
        add(make_op(OpCode::mul, f32, kBatch, d, d), kernels).params.mul = {l};
        add(make_op(OpCode::cast, to_q80, kBatch, d, dq), kernels);
        add_matmul(dq, y, w2, kernels);
        add(make_op(OpCode::shift, f32, kBatch, y, cache), kernels).params.shift = {positions};
        add(make_op(OpCode::cast, to_q80, kBatch, y, slice(zq, dim, 1)), kernels);
    }

    static constexpr uint32_t kBatch = 33;
    Buffer zq, x, inverse, y, yq, d, l, dq, positions, cache;
    Weight norm, w1, w3, w2;
    std::vector<PlanOp> ops;

    std::vector<std::vector<unsigned char>> memory() const {
        std::vector<std::vector<unsigned char>> all;
        for (const Buffer *buffer : buffers())
            all.push_back(buffer->copy());
        return all;
    }

    void restore(const std::vector<std::vector<unsigned char>> &all) const {
        std::size_t i = 0;
        for (const Buffer *buffer : buffers())
            buffer->restore(all[i++]);
    }

private:
    std::vector<const Buffer *> buffers() const { return {&zq, &x, &inverse, &y, &yq, &d, &l, &dq, &cache}; }

    static Tensor slice(const Tensor &whole, uint32_t width, uint32_t node) {
        Tensor part = whole;
        part.x = width;
        part.data += n_bytes(whole.float_type, std::size_t(width) * node);
        return part;
    }

    OpContext &add(const OpContext &op, const KernelSet &kernels) {
        ops.push_back({op, &kernels});
        return ops.back().context;
    }

    void add_matmul(const Tensor &in, const Tensor &out, const Weight &weight, const KernelSet &kernels) {
        OpContext &op = add(make_op(OpCode::matmul, QuantType::q80_q40_f32, kBatch, in, out), kernels);
        op.weight = weight.view();
        op.params.matmul = {0, 0, Tensor{}};
    }
};

} // namespace

TEST(a_plan_equals_its_ops_one_by_one_bit_for_bit) {
    for (const KernelSet *kernels : available_kernel_sets())
        for (const auto &[dim, hidden] : {std::pair<uint32_t, uint32_t>{32, 64}, {160, 96}, {64, 544}}) {
            const Block block(*kernels, dim, hidden);
            const auto start = block.memory();
            for (const uint32_t batch : {1u, 2u, 9u, 33u}) {
                block.restore(start);
                for (const PlanOp &op : block.ops)
                    CHECK(run(op.context, *kernels, batch).fault.kind == FaultKind::none);
                const auto expected = block.memory();
                for (const uint32_t n_threads : {1u, 2u, 3u, 8u}) {
                    Plan plan(block.ops, std::make_shared<Engine>(n_threads));
                    for (int again = 0; again < 2; again++) {
                        block.restore(start);
                        CHECK(plan.run(batch).fault.kind == FaultKind::none);
                        CHECK_SAYING(block.memory() == expected,
                                     std::string(kernels->name) + ", dim " + std::to_string(dim) + ", batch " +
                                         std::to_string(batch) + ", threads " + std::to_string(n_threads));
                    }
                }
            }
        }
}

TEST(neighbours_share_steps) {
    const KernelSet &kernels = *available_kernel_sets().back();
    const Block block(kernels, 64, 96);
    // merge, norm, cast and what the matmul reads | both matmuls, silu, mul, cast, ... | w2, shift, cast
    CHECK(Plan(block.ops, std::make_shared<Engine>(2)).n_steps() == 3);
}

TEST(an_input_that_changes_is_prepared_again) {
    const KernelSet &kernels = *available_kernel_sets().back();
    const Block block(kernels, 64, 64);
    // y = w2 dq, then dq = cast(y), then y = w2 dq: the second product must see the new dq.
    std::vector<PlanOp> ops = {block.ops[9], block.ops[8], block.ops[9]};
    ops[1].context.input = block.y;
    const auto start = block.memory();
    for (const PlanOp &op : ops)
        run(op.context, kernels, 5);
    const auto expected = block.memory();
    block.restore(start);
    Plan plan(ops, std::make_shared<Engine>(2));
    CHECK(plan.run(5).fault.kind == FaultKind::none);
    CHECK(block.memory() == expected);
}

TEST(plans_share_an_engine_from_several_threads) {
    const KernelSet &kernels = *available_kernel_sets().back();
    const auto engine = std::make_shared<Engine>(2);
    std::vector<std::thread> callers;
    for (int i = 0; i < 3; i++)
        callers.emplace_back([&] {
            const Block block(kernels, 64, 96);
            Plan plan(block.ops, engine);
            for (int k = 0; k < 10; k++)
                CHECK(plan.run(3).fault.kind == FaultKind::none);
        });
    for (std::thread &caller : callers)
        caller.join();
}

TEST(an_index_that_the_plan_computes_is_checked_too) {
    const KernelSet &kernels = *available_kernel_sets().back();
    const Buffer numbers(FloatType::f32, 1, 4, 1), tokens(FloatType::f32, 1, 4, 1), rows(FloatType::f32, 1, 4, 40),
        after(FloatType::f32, 1, 4, 40);
    Weight weight(FloatType::f32, 1, 3, 40, 0);
    OpContext embed = make_op(OpCode::embedding, QuantType::f32_f32_f32, 4, tokens, rows);
    embed.weight = weight.view();
    const std::vector<PlanOp> ops = {{make_op(OpCode::cast, QuantType::f32_f32_f32, 4, numbers, tokens), &kernels},
                                     {embed, &kernels},
                                     {make_op(OpCode::cast, QuantType::f32_f32_f32, 4, rows, after), &kernels}};
    for (const uint32_t n_threads : {1u, 4u}) {
        Plan plan(ops, std::make_shared<Engine>(n_threads));
        CHECK(plan.run(4).fault.kind == FaultKind::none);
        numbers.f32(0, 2)[0] = 3;
        const Plan::Result result = plan.run(4);
        CHECK(result.fault.kind == FaultKind::token && result.fault.row == 2 && result.op == 1);
        numbers.f32(0, 2)[0] = 2;
        CHECK(plan.run(4).fault.kind == FaultKind::none);
    }
}

TEST(a_plan_that_is_stopped_computes_nothing_more) {
    const KernelSet &kernels = *available_kernel_sets().back();
    const Buffer a(FloatType::f32, 1, 4, 40), b(FloatType::f32, 1, 4, 40);
    const std::vector<PlanOp> ops(100, {make_op(OpCode::cast, QuantType::f32_f32_f32, 4, a, b), &kernels});
    for (const uint32_t n_threads : {1u, 4u}) {
        const auto stop = std::make_shared<Stop>();
        Plan plan(ops, std::make_shared<Engine>(n_threads), stop);
        a.f32(0, 0)[0] = 1;
        CHECK(plan.run(4).fault.kind == FaultKind::none && b.f32(0, 0)[0] == 1);
        stop->set();
        a.f32(0, 0)[0] = 2;
        const Plan::Result result = plan.run(4);
        CHECK(result.fault.kind == FaultKind::stopped && result.op == ops.size() && b.f32(0, 0)[0] == 1);
        CHECK(Plan(ops, std::make_shared<Engine>(n_threads), stop).run(4).fault.kind == FaultKind::stopped);
    }
}

TEST(a_plan_is_stopped_between_two_ops_while_it_runs) {
    const KernelSet &kernels = *available_kernel_sets().back();
    const Buffer a(FloatType::f32, 1, 4, 40), b(FloatType::f32, 1, 4, 40);
    std::vector<PlanOp> ops;
    for (int i = 0; i < 1000; i++)
        ops.push_back({make_op(OpCode::cast, QuantType::f32_f32_f32, 4, i % 2 ? b : a, i % 2 ? a : b), &kernels});
    for (const uint32_t n_threads : {1u, 3u}) {
        const auto stop = std::make_shared<Stop>();
        Plan plan(ops, std::make_shared<Engine>(n_threads), stop);
        std::atomic<int> n_runs{0};
        std::thread other([&] {
            while (n_runs < 3)
                std::this_thread::yield();
            stop->set();
        });
        while (plan.run(4).fault.kind != FaultKind::stopped)
            n_runs++;
        other.join();
        CHECK(n_runs >= 3);
    }
}

TEST(ops_that_do_not_fit_are_refused) {
    const KernelSet &kernels = *available_kernel_sets().back();
    const Buffer a(FloatType::f32, 1, 4, 40), b(FloatType::f32, 1, 4, 41), q(FloatType::q80, 1, 4, 64);
    const auto engine = std::make_shared<Engine>(1);
    const auto refuses = [&](const OpContext &op, uint32_t batch = 1) {
        try {
            Plan({{op, &kernels}}, engine).run(batch);
        } catch (const std::invalid_argument &) {
            return true;
        }
        return false;
    };
    CHECK(refuses(make_op(OpCode::silu, QuantType::f32_f32_f32, 4, a, b)));
    CHECK(refuses(make_op(OpCode::silu, QuantType::f32_f32_f32, 5, a, a)));
    CHECK(refuses(make_op(OpCode::silu, QuantType::f32_f32_f32, 4, a, a), 5));
    CHECK(refuses(make_op(OpCode::silu, QuantType::q80_q80_q80, 4, q, q)));
    CHECK(refuses(make_op(OpCode::cast, QuantType::f32_f32_q80, 4, a, q)));
    CHECK(refuses(make_op(OpCode::matmul, QuantType::f32_f32_f32, 4, a, b)));
    Tensor crooked = a.tensor();
    crooked.data += 1;
    crooked.y = 3;
    CHECK(refuses(make_op(OpCode::silu, QuantType::f32_f32_f32, 3, crooked, crooked)));
    CHECK(!refuses(make_op(OpCode::silu, QuantType::f32_f32_f32, 4, a, a), 0));
}
