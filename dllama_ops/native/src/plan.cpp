#include "plan.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <stdexcept>

#include "extents.hpp"

namespace dllama {

namespace {

// Values that are worth another thread in a light step.
constexpr uint32_t kLightShare = 4096;
// Bytes of outputs that a piece of a heavy step may have, so that its ops find them in the second cache.
constexpr uint64_t kHeavyPieceBytes = 512 * 1024;
// Pieces for each thread in a heavy step.
constexpr uint32_t kPiecesPerThread = 4;
// Ops in a step, and prepared inputs that are remembered. A model needs a tenth. Each new op is compared with all of
// them, so without a limit the time to plan would grow with the square of the number of ops.
constexpr std::size_t kMaxStepOps = 64, kMaxPreparedInputs = 64;

AddressRange range_of(const Tensor &t) {
    const uintptr_t start = reinterpret_cast<uintptr_t>(t.data);
    const uint64_t row = t.float_type == FloatType::unk ? uint64_t(t.y_stride) : n_bytes(t.float_type, t.x);
    const uint64_t to_last_z = saturating_product(t.z - 1, uint64_t(t.z_stride));
    const uint64_t to_last_y = saturating_product(t.y - 1, uint64_t(t.y_stride));
    return {start, saturating_sum(start, saturating_sum(saturating_sum(to_last_z, to_last_y), row))};
}

bool overlap(AddressRange a, AddressRange b) {
    return a.start < b.end && b.start < a.end;
}

// Pieces that are multiples of both are multiples of this; not more than the columns, which are one piece then.
uint32_t common_grain(uint32_t a, uint32_t b, uint32_t columns) {
    const uint64_t common = std::lcm(uint64_t(a), uint64_t(b));
    return uint32_t(std::max<uint64_t>(1, std::min<uint64_t>(common, columns)));
}

int64_t nanoseconds() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

bool overlap(const Tensor &a, const Tensor &b) {
    return overlap(range_of(a), range_of(b));
}

bool is_same(const Tensor &a, const Tensor &b) {
    return a.data == b.data && a.float_type == b.float_type && a.x == b.x && a.z == b.z && a.z_stride == b.z_stride &&
           a.y_stride == b.y_stride;
}

// Row y of one lies in row y of the other, z by z.
bool has_same_rows(const Tensor &a, const Tensor &b) {
    const std::ptrdiff_t apart = a.data - b.data;
    return a.y_stride == b.y_stride && (a.z_stride == b.z_stride || a.z == 1 || b.z == 1) && apart < a.y_stride &&
           -apart < a.y_stride;
}

// Whether a thread may do b right after a on its own columns (or, with rows, on its own rows).
bool may_follow(const Access &a, const Access &b, bool rows) {
    if ((!a.is_write && !b.is_write) || !overlap(a.tensor, b.tensor))
        return true;
    if (a.reach == Access::anything || b.reach == Access::anything)
        return false;
    if (rows)
        return has_same_rows(a.tensor, b.tensor);
    return a.reach == Access::same_columns && b.reach == Access::same_columns && is_same(a.tensor, b.tensor);
}

std::string describe(const PlanOp &op, const OpSpec *spec, std::size_t index) {
    const std::string name = spec != nullptr ? spec->name : "code " + std::to_string(int(op.context.code));
    return "op " + std::to_string(index) + " (" + name + ", quant " + std::to_string(int(op.context.quant)) + ")";
}

} // namespace

void AddressSet::add(AddressRange range) {
    auto next = end_of_.upper_bound(range.start);
    if (next != end_of_.begin() && std::prev(next)->second >= range.start)
        --next;
    while (next != end_of_.end() && next->first <= range.end) {
        range.start = std::min(range.start, next->first);
        range.end = std::max(range.end, next->second);
        next = end_of_.erase(next);
    }
    end_of_.emplace(range.start, range.end);
}

bool AddressSet::overlaps(AddressRange range) const {
    const auto next = end_of_.lower_bound(range.end);
    return next != end_of_.begin() && std::prev(next)->second > range.start;
}

OpNeed need_of(const PlanOp &op) {
    const OpSpec *spec = is_internal(op.context.code) ? nullptr : find_op(*op.kernels, op.context.code);
    const KernelEntry *entry = spec == nullptr ? nullptr : find_kernel(*spec, op.context.quant);
    if (entry == nullptr)
        return {0, 0};
    const uint64_t prepared = spec->preparation == nullptr ? 0 : spec->preparation(op.context).n_bytes;
    const uint64_t scratch = entry->scratch_bytes == nullptr ? 0 : entry->scratch_bytes(op.context);
    return {Memory::reserved(prepared), Memory::reserved(scratch)};
}

Plan::Plan(const std::vector<PlanOp> &ops, std::shared_ptr<Engine> engine, std::shared_ptr<const Stop> stop)
    : engine_(std::move(engine)), stop_(stop ? std::move(stop) : std::make_shared<const Stop>()), n_ops_(ops.size()) {
    for (std::size_t i = 0; i < ops.size() && !stop_->is_set(); i++) {
        const PlanOp &op = ops[i];
        const OpSpec *spec = is_internal(op.context.code) ? nullptr : find_op(*op.kernels, op.context.code);
        const KernelEntry *entry = spec == nullptr ? nullptr : find_kernel(*spec, op.context.quant);
        if (entry == nullptr)
            throw std::invalid_argument(describe(op, spec, i) + " has no " + op.kernels->name + " kernel");
        const std::string wrong = check(*spec, op.context);
        if (!wrong.empty())
            throw std::invalid_argument(describe(op, spec, i) + ": " + wrong);
        n_batches_ = i == 0 ? op.context.n_batches : std::min(n_batches_, op.context.n_batches);

        OpContext context = op.context;
        context.prepared = nullptr;
        const Preparation needed = spec->preparation == nullptr ? kNoPreparation : spec->preparation(context);
        if (needed.n_bytes > 0)
            prepare_input(context, needed, *op.kernels, i);
        if (spec->index_use != nullptr)
            add_index_check(spec->index_use(context), i);
        add(context, *spec, *entry, i);
    }
    for (Step &step : steps_)
        for (PlannedOp &op : step.ops)
            op.work.grain = step.grains[op.work.columns];
    engine_->reserve_scratch(scratch_bytes_);
    counters_ = std::make_unique<Counter[]>(steps_.size());
}

// Has the op's input prepared, unless it was for an earlier op of the plan, and has not been written to since.
void Plan::prepare_input(OpContext &context, const Preparation &needed, const KernelSet &kernels, std::size_t index) {
    const std::shared_ptr<Memory> memory = engine_->prepared_rows(context.input, needed.params, needed.n_bytes);
    context.prepared = memory->data();
    prepared_.push_back(memory);
    for (const PreparedInput &known : prepared_inputs_)
        if (known.memory == memory.get() && is_same(known.input, context.input))
            return;
    if (prepared_inputs_.size() == kMaxPreparedInputs)
        prepared_inputs_.erase(prepared_inputs_.begin()); // if it is used again, it is prepared again
    prepared_inputs_.push_back({context.input, memory.get()});
    OpContext prepare{};
    prepare.code = needed.code;
    prepare.quant = needed.quant;
    prepare.n_batches = context.n_batches;
    prepare.input = prepare.output = context.input;
    prepare.params.prepare = needed.params;
    prepare.prepared = memory->data();
    const OpSpec *spec = find_op(kernels, needed.code);
    const KernelEntry *entry = spec == nullptr ? nullptr : find_kernel(*spec, needed.quant);
    if (entry == nullptr)
        throw std::logic_error(std::string(kernels.name) + " kernels lack the op that prepares an input");
    add(prepare, *spec, *entry, index);
}

void Plan::add(const OpContext &context, const OpSpec &spec, const KernelEntry &entry, std::size_t index) {
    PlannedOp op{context, entry.kernel, spec.work(context, engine_->team.n_threads()), {}, index};
    Accesses touched(op.accesses);
    spec.touch(context, touched);
    if (entry.scratch_bytes != nullptr)
        scratch_bytes_ = std::max(scratch_bytes_, entry.scratch_bytes(context));
    add(std::move(op));
}

// Indexes that are there before the plan runs are checked before anything is written; those that the plan computes
// itself are left to the kernels.
void Plan::add_index_check(const IndexUse &use, std::size_t index) {
    if (use.kind == FaultKind::none)
        return;
    const Tensor &tensor = use.tensor;
    if (written_.overlaps(range_of(tensor)))
        return;
    if (known_index_checks_.emplace(tensor.data, tensor.z_stride, tensor.y_stride, use.limit, use.n).second)
        index_checks_.push_back({use, index});
}

Plan::Result Plan::check_indexes(uint32_t batch_size) const {
    for (const IndexCheck &check : index_checks_) {
        if (stop_->is_set())
            return {kStopped, n_ops_};
        for (uint32_t y = 0; y < batch_size; y++)
            for (uint32_t k = 0; k < check.use.n; k++) {
                const float value = f32_row(check.use.tensor, 0, y)[k];
                if (!is_index(value, check.use.limit))
                    return {Fault{check.use.kind, y, value, check.use.limit}, check.op};
            }
    }
    return {kNoFault, 0};
}

void Plan::add(PlannedOp op) {
    for (const Access &access : op.accesses)
        if (access.is_write) {
            written_.add(range_of(access.tensor));
            prepared_inputs_.erase(
                std::remove_if(prepared_inputs_.begin(), prepared_inputs_.end(),
                               [&](const PreparedInput &known) { return overlap(known.input, access.tensor); }),
                prepared_inputs_.end());
        }
    if (steps_.empty() || !try_join(steps_.back(), op))
        steps_.emplace_back();
    Step &step = steps_.back();
    step.whole_rows |= op.work.whole_rows;
    step.whole_batch |= op.work.whole_batch;
    step.is_heavy |= op.work.is_heavy;
    uint32_t &grain = step.grains[op.work.columns];
    grain = common_grain(grain == 0 ? 1 : grain, op.work.grain, op.work.columns);
    step.ops.push_back(std::move(op));
}

bool Plan::try_join(Step &step, const PlannedOp &op) const {
    if (step.ops.size() == kMaxStepOps)
        return false;
    const bool whole_rows = step.whole_rows || op.work.whole_rows;
    if (whole_rows && (step.is_heavy || op.work.is_heavy))
        return false; // would leave all columns of a row to one thread
    if (whole_rows && (step.whole_batch || op.work.whole_batch))
        return false;
    for (const PlannedOp &earlier : step.ops)
        for (const Access &a : earlier.accesses)
            for (const Access &b : op.accesses) {
                if (!may_follow(a, b, whole_rows))
                    return false;
                // Cut by columns, both must be cut alike.
                const bool shared = (a.is_write || b.is_write) && overlap(a.tensor, b.tensor);
                if (shared && !whole_rows && earlier.work.columns != op.work.columns)
                    return false;
            }
    return true;
}

Plan::Cut Plan::cut(const Step &step, uint32_t batch_size) const {
    const uint32_t n_threads = engine_->team.n_threads();
    if (step.whole_rows)
        return {1, n_threads == 1 ? 1 : batch_size};
    uint64_t columns = 0;
    uint32_t units = 1;
    for (const auto &[width, grain] : step.grains)
        units = std::max(units, n_pieces(width, grain));
    for (const PlannedOp &op : step.ops)
        columns += op.work.columns;
    const uint64_t values = saturating_product(columns, batch_size);
    uint64_t wanted;
    if (step.is_heavy) {
        wanted = n_threads == 1 ? 1 : uint64_t(n_threads) * kPiecesPerThread;
        wanted = std::max(wanted, values / (kHeavyPieceBytes / sizeof(float)));
    } else {
        wanted = std::min<uint64_t>(n_threads, std::max<uint64_t>(1, values / kLightShare));
    }
    const uint32_t column_parts = uint32_t(std::min<uint64_t>(wanted, units));
    uint32_t row_parts = 1;
    if (!step.whole_batch && column_parts < n_threads && column_parts < wanted)
        row_parts = std::min(batch_size, uint32_t((wanted + column_parts - 1) / column_parts));
    return {column_parts, row_parts};
}

void Plan::run_part(const Step &step, const Cut &cut, uint64_t part, uint32_t batch_size, Scratch scratch,
                    int64_t *ticks) {
    const uint64_t column_part = part % cut.column_parts, row_part = part / cut.column_parts;
    const uint32_t y0 = uint32_t(row_part * batch_size / cut.row_parts),
                   y1 = uint32_t((row_part + 1) * batch_size / cut.row_parts);
    // Light ops take a row at a time through all of them, heavy ones want all rows at once.
    const uint32_t rows = step.is_heavy ? y1 - y0 : 1;
    for (uint32_t y = y0; y < y1; y += rows)
        for (const PlannedOp &op : step.ops) {
            const uint32_t columns = op.work.columns, grain = step.whole_rows ? columns : op.work.grain;
            if (columns == 0)
                continue; // a rope may have nothing to turn
            const uint64_t units = n_pieces(columns, grain);
            Region region;
            region.y0 = y;
            region.y1 = y + rows;
            region.x0 = uint32_t(std::min<uint64_t>(columns, column_part * units / cut.column_parts * grain));
            region.x1 = uint32_t(std::min<uint64_t>(columns, (column_part + 1) * units / cut.column_parts * grain));
            region.batch_size = batch_size;
            if (region.x0 == region.x1)
                continue;
            if (is_cut_short())
                return;
            const int64_t before = ticks == nullptr ? 0 : nanoseconds();
            const Fault fault = op.kernel(op.context, region, scratch);
            if (ticks != nullptr)
                ticks[op.index] += nanoseconds() - before;
            if (fault.kind != FaultKind::none)
                return report(fault, op.index);
        }
}

// Keeps the fault of the earliest op.
void Plan::report(const Fault &fault, std::size_t op) {
    std::lock_guard<std::mutex> lock(fault_mutex_);
    if (!has_fault_.load() || op < result_.op || (op == result_.op && fault.row < result_.fault.row))
        result_ = {fault, op};
    has_fault_.store(true);
}

// Whether what is left of the run is left out: after a fault, or because somebody asked to stop.
bool Plan::is_cut_short() {
    if (has_fault_.load(std::memory_order_relaxed))
        return true;
    if (!stop_->is_set())
        return false;
    report(kStopped, n_ops_);
    return true;
}

void Plan::run_thread(uint32_t thread_index) {
    const Scratch scratch = engine_->scratch(thread_index);
    int64_t *const ticks = ticks_.empty() ? nullptr : ticks_[thread_index].data();
    for (std::size_t i = 0; i < steps_.size(); i++) {
        const Step &step = steps_[i];
        const Cut cut = this->cut(step, batch_size_);
        const uint64_t n_parts = uint64_t(cut.column_parts) * cut.row_parts;
        // After a fault nothing more is computed, but all threads still meet at every barrier.
        for (uint64_t part;
             (part = counters_[i].next.fetch_add(1, std::memory_order_relaxed)) < n_parts && !is_cut_short();)
            run_part(step, cut, part, batch_size_, scratch, ticks);
        if (i + 1 < steps_.size())
            engine_->team.barrier();
    }
}

Plan::Result Plan::run(uint32_t batch_size) {
    if (batch_size > n_batches_ && !steps_.empty())
        throw std::invalid_argument("batch of " + std::to_string(batch_size) + " rows, at most " +
                                    std::to_string(n_batches_) + " fit");
    if (stop_->is_set())
        return {kStopped, n_ops_};
    if (batch_size == 0 || steps_.empty())
        return {kNoFault, 0};
    std::lock_guard<std::mutex> lock(engine_->running);
    const Result checked = check_indexes(batch_size);
    if (checked.fault.kind != FaultKind::none)
        return checked;
    batch_size_ = batch_size;
    has_fault_.store(false);
    result_ = {kNoFault, 0};
    for (std::size_t i = 0; i < steps_.size(); i++)
        counters_[i].next.store(0, std::memory_order_relaxed);
    engine_->team.run([](void *plan, uint32_t thread_index) { static_cast<Plan *>(plan)->run_thread(thread_index); },
                      this);
    return result_;
}

Plan::Result Plan::run_timed(uint32_t batch_size, std::vector<double> &seconds) {
    seconds.assign(n_ops_, 0.0);
    ticks_.assign(engine_->team.n_threads(), std::vector<int64_t>(n_ops_, 0));
    const int64_t before = nanoseconds();
    const Result result = run(batch_size);
    const double total = double(nanoseconds() - before) * 1e-9;
    int64_t sum = 0;
    for (const std::vector<int64_t> &thread : ticks_)
        for (std::size_t i = 0; i < n_ops_; i++) {
            seconds[i] += double(thread[i]);
            sum += thread[i];
        }
    for (double &s : seconds)
        s *= sum == 0 ? 0.0 : total / double(sum);
    ticks_.clear();
    return result;
}

} // namespace dllama
