// What a config claims costs nothing until memory is touched: plans of ops as large as numbers from the wire can say,
// on memory that is not there. Kernels are replaced by one that only looks at the regions it is given.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <stdexcept>

#include "extents.hpp"
#include "pack.hpp"
#include "test.hpp"

using namespace testing;

namespace {

std::mutex visit_mutex;
std::map<const void *, uint64_t> visited; // values of each output, by its address
std::string wrong_region;
const KernelSet *specs = nullptr;
uint32_t n_threads = 1;

std::string describe(const Region &region, const Work &work) {
    return "columns " + std::to_string(region.x0) + " to " + std::to_string(region.x1) + " of " +
           std::to_string(work.columns) + ", grain " + std::to_string(work.grain);
}

Fault visit(const OpContext &op, const Region &region, Scratch) {
    const Work work = find_op(*specs, op.code)->work(op, n_threads);
    const bool starts_well = region.x0 % work.grain == 0 && region.x0 < region.x1;
    const bool ends_well = region.x1 == work.columns || (region.x1 < work.columns && region.x1 % work.grain == 0);
    const bool has_rows = region.y0 < region.y1 && region.y1 <= region.batch_size;
    std::lock_guard<std::mutex> lock(visit_mutex);
    if (!starts_well || !ends_well || !has_rows)
        wrong_region = describe(region, work);
    if (!is_internal(op.code))
        visited[op.output.data] += uint64_t(region.x1 - region.x0) * (region.y1 - region.y0);
    return kNoFault;
}

// All ops of a kernel set, with kernels that do not compute.
class Visitors {
public:
    explicit Visitors(const KernelSet &kernels) : set_(kernels) {
        for (const OpTable *table : kernels.tables)
            for (const OpSpec &spec : *table) {
                std::vector<KernelEntry> &entries = entries_.emplace_back();
                for (KernelEntry entry : spec.kernels) {
                    entry.kernel = visit;
                    entries.push_back(entry);
                }
                specs_.push_back(spec);
            }
        for (std::size_t i = 0; i < specs_.size(); i++) {
            specs_[i].kernels.items = entries_[i].data();
            specs_[i].kernels.n = entries_[i].size();
        }
        table_.items = specs_.data();
        table_.n = specs_.size();
        set_.tables.items = &tables_;
        set_.tables.n = 1;
        specs = &kernels;
    }

    const KernelSet *set() const { return &set_; }

private:
    std::vector<std::vector<KernelEntry>> entries_;
    std::vector<OpSpec> specs_;
    OpTable table_;
    const OpTable *tables_ = &table_;
    KernelSet set_;
};

// Ops with random claims; their memory is addresses far from any that is in use.
class Claims {
public:
    explicit Claims(uint32_t seed) : random_(seed), n_batches_(between(random_, 1, 5)) {
        for (uint32_t &width : widths_)
            width = extent();
    }

    uint32_t n_batches() const { return n_batches_; }

    OpContext next(const OpSpec &spec) {
        const KernelEntry &entry = spec.kernels.items[between(random_, 0, uint32_t(spec.kernels.n) - 1)];
        const bool from_q80 = entry.quant == QuantType::q80_q80_q80 || entry.quant == QuantType::q80_q80_f32 ||
                              entry.quant == QuantType::q80_q40_f32 || entry.quant == QuantType::q80_f32_f32;
        const bool to_q80 = entry.quant == QuantType::q80_q80_q80 || entry.quant == QuantType::f32_f32_q80;
        const uint32_t x = from_q80 || to_q80 ? blocks(width()) : width();
        OpContext op = make_op(spec.code, entry.quant, n_batches_, rows(from_q80 ? FloatType::q80 : FloatType::f32, x),
                               rows(to_q80 ? FloatType::q80 : FloatType::f32, x));
        switch (spec.code) {
        case OpCode::embedding:
            op.input.x = 1;
            op.input = indexes();
            op.weight = {FloatType::f32, 1, extent(), x, somewhere(), 0};
            break;
        case OpCode::inv_rms: op.params.inv_rms = {1e-5f, groups(x)}; break;
        case OpCode::rms_norm: {
            const uint32_t n = groups(x);
            op.params.rms_norm = {n, rows(FloatType::f32, n)};
            op.weight = {FloatType::f32, 1, 1, x / n, somewhere(), 0};
            break;
        }
        case OpCode::matmul: {
            const bool has_experts = between(random_, 0, 3) == 0;
            const uint32_t n_active = has_experts ? between(random_, 1, 3) : 0;
            op.output.x = width();
            op.input.z = op.output.z = std::max(n_active, 1u);
            op.params.matmul = {has_experts ? extent() : 0, n_active, indexes()};
            op.params.matmul.active_expert_indexes.x = std::max(n_active, 1u);
            const bool is_q40 = entry.quant == QuantType::q80_q40_f32 || entry.quant == QuantType::f32_q40_f32;
            op.weight = {is_q40 ? FloatType::q40 : FloatType::f32,
                         std::max(op.params.matmul.n_experts, 1u),
                         x,
                         op.output.x,
                         somewhere(),
                         0};
            break;
        }
        case OpCode::rope: {
            const bool halves = between(random_, 0, 1) == 0;
            const uint32_t dim0 = x & ~1u, head = halves ? heads_of(dim0) : 2;
            op.params.rope = {halves ? RopeType::falcon : RopeType::llama,
                              true,
                              indexes(),
                              rows(FloatType::f32, x),
                              dim0,
                              dim0,
                              0,
                              x,
                              1,
                              head};
            break;
        }
        case OpCode::multihead_att: {
            MultiHeadAttParams &p = op.params.multihead_att;
            p = {};
            p.n_heads0 = groups(x);
            p.head_dim = x / p.n_heads0;
            p.n_heads = p.n_heads0 * between(random_, 1, 4);
            p.n_kv_heads = groups(p.n_heads);
            p.kv_dim0 = x;
            p.seq_len = between(random_, 1, 3);
            p.positions = indexes();
            p.query = rows(FloatType::f32, x);
            p.key_cache = p.value_cache = rows(FloatType::f32, x);
            p.key_cache.y = p.value_cache.y = p.seq_len;
            p.att = rows(FloatType::f32, kMaxExtent);
            break;
        }
        case OpCode::mul: op.params.mul = {rows(FloatType::f32, x)}; break;
        case OpCode::scale: op.params.scale = {rows(FloatType::f32, 1)}; break;
        case OpCode::shift:
            op.params.shift = {indexes()};
            op.output.y = 1;
            break;
        case OpCode::moe_gate: {
            const uint32_t k = std::min(x, between(random_, 1, 4));
            op.output.z = k;
            op.params.moe_gate = {k, true, rows(FloatType::f32, k)};
            break;
        }
        default: break;
        }
        return op;
    }

private:
    // Where arithmetic in 32 bits went wrong, or could.
    uint32_t extent() {
        static constexpr uint32_t kTurns[] = {1,
                                              2,
                                              16,
                                              32,
                                              33,
                                              1u << 16,
                                              (1u << 29) + 2,
                                              (1u << 30),
                                              (1u << 30) + 32,
                                              kMaxExtent - 31,
                                              kMaxExtent - 1,
                                              kMaxExtent,
                                              kMaxExtent + 1,
                                              UINT32_MAX - 15,
                                              UINT32_MAX};
        if (between(random_, 0, 2) == 0)
            return between(random_, 1, UINT32_MAX);
        return kTurns[between(random_, 0, uint32_t(std::size(kTurns)) - 1)];
    }

    // Ops that have a width in common may share a step.
    uint32_t width() { return widths_[between(random_, 0, uint32_t(widths_.size()) - 1)]; }
    uint32_t blocks(uint32_t x) const { return std::max(kBlockSize, x / kBlockSize * kBlockSize); }

    // A number of equal groups that x values divide into.
    uint32_t groups(uint32_t x) {
        for (uint32_t n : {between(random_, 1, 1000), between(random_, 1, 8), 2u})
            if (x % n == 0)
                return n;
        return between(random_, 0, 1) == 0 ? 1 : x;
    }

    uint32_t heads_of(uint32_t dim0) {
        const uint32_t n = groups(std::max(dim0, 2u));
        return dim0 / n % 2 == 0 ? std::max(dim0 / n, 2u) : std::max(dim0, 2u);
    }

    unsigned char *somewhere() {
        next_ += uint64_t(1) << 44;                      // more than any tensor here has
        return reinterpret_cast<unsigned char *>(next_); // never read
    }

    Tensor rows(FloatType type, uint32_t x) {
        const std::ptrdiff_t row = std::ptrdiff_t(n_bytes(type, x));
        return {type, 1, n_batches_, x, somewhere(), row * n_batches_, row};
    }

    // The only memory that is there: every row is the same zero.
    Tensor indexes() const {
        static float zeros[4] = {};
        return {FloatType::f32, 1, n_batches_, 1, reinterpret_cast<unsigned char *>(zeros), 0, 0};
    }

    Random random_;
    uint32_t n_batches_;
    std::array<uint32_t, 2> widths_{};
    uint64_t next_ = uint64_t(1) << 50;
};

const KernelSet &fastest() {
    return *available_kernel_sets().back();
}

// Whether the ops could be planned; what is wrong with the regions that they were given, if anything.
bool runs(const std::vector<PlanOp> &ops, uint32_t batch_size, uint32_t threads) {
    n_threads = threads;
    visited.clear();
    wrong_region.clear();
    try {
        Plan plan(ops, std::make_shared<Engine>(threads));
        return plan.run(batch_size).fault.kind == FaultKind::none;
    } catch (const std::invalid_argument &) {
        return false; // said what does not fit
    } catch (const std::bad_alloc &) {
        return false; // rows to be prepared that no memory holds
    }
}

uint32_t n_rounds() {
    const char *const rounds = std::getenv("DLLAMA_CLAIMS");
    return rounds == nullptr ? 3000 : uint32_t(std::atoi(rounds));
}

} // namespace

// Grains of 2^29 + 2 and of 16 have 2^32 + 16 in common, which is 16 in 32 bits: a thread then began inside a head.
TEST(grains_of_a_step_are_counted_in_64_bits) {
    const Visitors visitors(fastest());
    constexpr uint32_t kWidth = (1u << 29) + 2;
    static float position = 0.0f;
    const Tensor x = {FloatType::f32, 1, 1, kWidth, reinterpret_cast<unsigned char *>(uint64_t(1) << 50), 0, 0};
    Tensor y = x, cache = x;
    y.data += uint64_t(1) << 44;
    cache.data += uint64_t(2) << 44;
    const Tensor positions = {FloatType::f32, 1, 1, 1, reinterpret_cast<unsigned char *>(&position), 0, 0};
    OpContext rope = make_op(OpCode::rope, QuantType::f32_f32_f32, 1, x, y);
    rope.params.rope = {RopeType::falcon, true, positions, cache, kWidth, kWidth, 0, kWidth, 1, kWidth};
    const OpContext silu = make_op(OpCode::silu, QuantType::f32_f32_f32, 1, y, y);
    for (const uint32_t threads : {1u, 2u, 3u}) {
        CHECK(runs({{rope, visitors.set()}, {silu, visitors.set()}}, 1, threads));
        CHECK_SAYING(wrong_region.empty(), wrong_region);
        CHECK(visited[y.data] == 2 * uint64_t(kWidth));
    }
}

// Its grain is nothing too, where a neighbour takes whole rows: dividing by it ended the process.
TEST(a_rope_without_columns_turns_nothing) {
    static float rows[2][32] = {}, position = 0.0f;
    const Tensor x = {FloatType::f32, 1, 1, 32, reinterpret_cast<unsigned char *>(rows[0]), 128, 128};
    const Tensor cache = {FloatType::f32, 1, 1, 32, reinterpret_cast<unsigned char *>(rows[1]), 128, 128};
    const Tensor positions = {FloatType::f32, 1, 1, 1, reinterpret_cast<unsigned char *>(&position), 4, 4};
    OpContext rope = make_op(OpCode::rope, QuantType::f32_f32_f32, 1, x, x);
    rope.params.rope = {RopeType::llama, true, positions, cache, 0, 0, 0, 32, 1, 2};
    const OpContext softmax = make_op(OpCode::softmax, QuantType::f32_f32_f32, 1, x, x);
    for (const std::vector<PlanOp> &ops :
         {std::vector<PlanOp>{{rope, &fastest()}}, {{softmax, &fastest()}, {rope, &fastest()}}}) {
        Plan plan(ops, std::make_shared<Engine>(2));
        CHECK(plan.n_steps() == 1);
        CHECK(plan.run(1).fault.kind == FaultKind::none);
    }
}

TEST(whatever_is_claimed_every_kernel_gets_whole_grains_inside_its_rows) {
    const Visitors visitors(fastest());
    uint32_t n_run = 0;
    for (uint32_t seed = 0; seed < n_rounds(); seed++) {
        Claims claims(seed);
        Random random(seed);
        std::vector<PlanOp> ops;
        for (uint32_t n = between(random, 1, 4); ops.size() < n;) {
            const OpTable &table = *visitors.set()->tables.items[0];
            const OpSpec &spec = table.items[between(random, 0, uint32_t(table.n) - 1)];
            if (!is_internal(spec.code))
                ops.push_back({claims.next(spec), visitors.set()});
        }
        const uint32_t batch_size = between(random, 1, claims.n_batches()), threads = between(random, 1, 3);
        if (!runs(ops, batch_size, threads))
            continue;
        n_run++;
        CHECK_SAYING(wrong_region.empty(), "seed " + std::to_string(seed) + ": " + wrong_region);
        for (const PlanOp &op : ops) {
            const uint64_t columns = find_op(fastest(), op.context.code)->work(op.context, threads).columns;
            CHECK_SAYING(visited[op.context.output.data] == columns * batch_size, "seed " + std::to_string(seed));
        }
    }
    CHECK_SAYING(n_run > n_rounds() / 20, std::to_string(n_run) + " plans ran");
}

// Ops that all fit one step, and ops whose inputs are all prepared: the work to plan them must not grow with the
// square of their number. 65,536 ops are the most that a config may have.
TEST(planning_many_ops_compares_each_with_a_few) {
    const Visitors visitors(fastest());
    static float memory[2][32] = {};
    std::vector<PlanOp> ops;
    for (uint32_t i = 0; i < 65536; i++) {
        const Tensor x = {FloatType::f32, 1, 1, 32, reinterpret_cast<unsigned char *>(memory[i % 2]), 128, 128};
        ops.push_back({make_op(OpCode::silu, QuantType::f32_f32_f32, 1, x, x), visitors.set()});
    }
    Plan plan(ops, std::make_shared<Engine>(1));
    CHECK(plan.n_steps() == 65536 / 64);
}

TEST(a_weight_that_no_memory_holds_is_refused) {
    for (const FloatType type : {FloatType::f32, FloatType::q40})
        for (const uint32_t z : {1u << 2, UINT32_MAX}) {
            bool refused = false;
            try {
                const Weight weight(type, z, UINT32_MAX, UINT32_MAX, type == FloatType::q40 ? 16 : 0);
            } catch (const std::length_error &) {
                refused = true;
            } catch (const std::bad_alloc &) {
                refused = true;
            }
            CHECK(refused);
        }
}

TEST(addresses_that_were_written_are_found_again) {
    Random random(7);
    for (int round = 0; round < 200; round++) {
        AddressSet set;
        std::array<bool, 64> known{};
        for (int i = 0; i < 12; i++) {
            const uintptr_t start = between(random, 0, 62), end = between(random, uint32_t(start) + 1, 63);
            bool expected = false;
            for (uintptr_t k = start; k < end; k++)
                expected = expected || known[k];
            CHECK(set.overlaps({start, end}) == expected);
            if (between(random, 0, 1) == 0) {
                set.add({start, end});
                std::fill(known.begin() + std::ptrdiff_t(start), known.begin() + std::ptrdiff_t(end), true);
            }
        }
    }
}
