// A plan: the ops of a segment as steps that the whole team works on, run in one call.
//
// Ops that touch only their own rows and columns of each other's results share a step: each thread takes a piece
// (some columns, or some rows) through all of them while it is still in its cache, with no barrier between. That
// is how neighbours are fused: norm and cast, matmul and activation and cast, rope and shift. A barrier stands
// where an op needs what other threads computed.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "engine.hpp"
#include "op_spec.hpp"
#include "stop.hpp"

namespace dllama {

// Addresses from start up to end, end not included.
struct AddressRange {
    uintptr_t start, end;
};

// Addresses that something was done to, as ranges that do not touch each other.
class AddressSet {
public:
    void add(AddressRange range);
    bool overlaps(AddressRange range) const;

private:
    std::map<uintptr_t, uintptr_t> end_of_; // by start
};

// An op and the kernels it is to run with.
struct PlanOp {
    OpContext context;
    const KernelSet *kernels;
};

// What an op takes beside its weight, in bytes of whole pages.
struct OpNeed {
    uint64_t prepared; // of all ops that prepare the same input alike
    uint64_t scratch;  // of each thread, of all ops together as much as the one that takes most
};

// Nothing for an op without a kernel: a plan refuses it. Reads no memory that the op points to.
OpNeed need_of(const PlanOp &op);

class Plan {
public:
    // Throws std::invalid_argument where there is no kernel for an op or its shapes do not fit. Once stop is set,
    // planning ends after the op that it is at, and no run computes anything more.
    Plan(const std::vector<PlanOp> &ops, std::shared_ptr<Engine> engine, std::shared_ptr<const Stop> stop = nullptr);

    struct Result {
        Fault fault;
        std::size_t op; // its place in the list, where there is a fault; behind the last, where it was stopped
    };

    // Runs all ops on the first batch_size rows of each z. Indexes that are there before are checked before
    // anything is written; after a fault in one that an op of the plan computed, the ops behind have not run. The same
    // where it is stopped, between two ops; it is not where all had run by then. Throws std::invalid_argument for more
    // rows than the ops have.
    Result run(uint32_t batch_size);

    // The same computation, with the time it took in seconds, op by op: each thread reads the clock around each op of
    // each piece, and the time of the whole is divided as the ops' times add up, waits for other threads included.
    Result run_timed(uint32_t batch_size, std::vector<double> &seconds);

    std::size_t n_steps() const { return steps_.size(); }

    // Bytes that an op takes in a plan, at most: with the op that prepares its input, a step of its own, and vectors
    // that have grown to twice what they hold.
    static constexpr std::size_t bytes_per_op();

private:
    struct PlannedOp {
        OpContext context;
        Kernel kernel;
        Work work;
        std::vector<Access> accesses;
        std::size_t index; // in the list the plan was made from
    };

    struct Step {
        std::vector<PlannedOp> ops;
        std::map<uint32_t, uint32_t> grains; // by number of columns, and no larger
        bool whole_rows = false, whole_batch = false, is_heavy = false;
    };

    // How a step is cut up for one batch size.
    struct Cut {
        uint32_t column_parts, row_parts;
    };

    struct PreparedInput {
        Tensor input;
        const Memory *memory;
    };

    struct IndexCheck {
        IndexUse use;
        std::size_t op;
    };

    // What makes two index checks the same.
    using IndexKey = std::tuple<const void *, std::ptrdiff_t, std::ptrdiff_t, uint32_t, uint32_t>;

    struct alignas(64) Counter {
        std::atomic<uint64_t> next{0};
    };

    void prepare_input(OpContext &context, const Preparation &needed, const KernelSet &kernels, std::size_t index);
    void add(const OpContext &context, const OpSpec &spec, const KernelEntry &entry, std::size_t index);
    void add_index_check(const IndexUse &use, std::size_t index);
    Result check_indexes(uint32_t batch_size) const;
    void add(PlannedOp op);
    bool try_join(Step &step, const PlannedOp &op) const;
    Cut cut(const Step &step, uint32_t batch_size) const;
    // Adds to ticks, by place in the list, where it is not null.
    void run_part(const Step &step, const Cut &cut, uint64_t part, uint32_t batch_size, Scratch scratch,
                  int64_t *ticks);
    void run_thread(uint32_t thread_index);
    void report(const Fault &fault, std::size_t op);
    bool is_cut_short();

    std::shared_ptr<Engine> engine_;
    std::shared_ptr<const Stop> stop_;
    std::vector<Step> steps_;
    std::vector<std::shared_ptr<Memory>> prepared_;
    std::vector<PreparedInput> prepared_inputs_; // still as they were when they were prepared
    std::vector<IndexCheck> index_checks_;
    std::set<IndexKey> known_index_checks_;
    AddressSet written_; // by the ops so far
    uint32_t n_batches_ = 0;
    std::size_t n_ops_;
    std::size_t scratch_bytes_ = 0; // of each thread

    // State of a run.
    std::unique_ptr<Counter[]> counters_;
    uint32_t batch_size_ = 0;
    std::vector<std::vector<int64_t>> ticks_; // nanoseconds of each thread by op, empty when nobody asked
    std::atomic<bool> has_fault_{false};
    std::mutex fault_mutex_;
    Result result_{};
};

constexpr std::size_t Plan::bytes_per_op() {
    constexpr std::size_t kAccesses = 8, kTreeNodes = 5, kTreeNodeBytes = 128;
    constexpr std::size_t kPlanned = sizeof(PlannedOp) + kAccesses * sizeof(Access) + sizeof(Step) + sizeof(Counter);
    return 2 * (2 * kPlanned + sizeof(PlanOp) + sizeof(IndexCheck) + sizeof(PreparedInput)) +
           kTreeNodes * kTreeNodeBytes;
}

} // namespace dllama
