// The Python module: the core's classes, and an op's Python context turned into a plain one. No arithmetic here.
#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bandwidth.hpp"
#include "cpu.hpp"
#include "engine.hpp"
#include "pack.hpp"
#include "plan.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using namespace dllama;

const KernelSet &kernel_set_or_throw(const std::string &name) {
    const KernelSet *set = kernel_set_named(name);
    if (set == nullptr)
        throw nb::value_error(("this processor or build has no kernels named " + name).c_str());
    return *set;
}

// Rows that a weight's tiles have, 0 where it is kept as on the wire.
uint32_t tile_rows(const std::string &kernels, FloatType float_type) {
    return float_type == FloatType::q40 ? kernel_set_or_throw(kernels).tile_rows : 0;
}

// An op and the Python objects that own the memory it uses.
class Op {
public:
    Op(nb::object context, const std::string &kernels, std::shared_ptr<Weight> weight)
        : context_(std::move(context)), weight_(std::move(weight)) {
        OpContext &op = planned_.context;
        planned_.kernels = &kernel_set_or_throw(kernels);
        op.code = OpCode(nb::cast<int>(context_.attr("key").attr("code")));
        op.quant = QuantType(nb::cast<int>(context_.attr("key").attr("quant")));
        op.n_batches = nb::cast<uint32_t>(context_.attr("n_batches"));
        op.input = tensor(context_.attr("input"));
        op.output = tensor(context_.attr("output"));
        op.weight = weight_ ? weight_->view() : WeightView{FloatType::unk, 0, 0, 0, nullptr, 0};
        const OpSpec *spec = find_op(*planned_.kernels, op.code);
        if (spec != nullptr) // else the plan says that there is none
            read_params(op, *spec, context_.attr("params"));
    }

    const PlanOp &planned() const { return planned_; }

    nb::tuple memory_need() const {
        const OpNeed need = need_of(planned_);
        return nb::make_tuple(need.prepared, need.scratch);
    }

private:
    static Tensor tensor(nb::handle t) {
        nb::object data = t.attr("data");
        nb::object strides = data.attr("strides");
        Tensor out;
        out.float_type = FloatType(nb::cast<int>(t.attr("float_type")));
        out.z = nb::cast<uint32_t>(t.attr("z"));
        out.y = nb::cast<uint32_t>(t.attr("y"));
        out.x = nb::cast<uint32_t>(t.attr("x"));
        out.data = reinterpret_cast<unsigned char *>(nb::cast<uintptr_t>(data.attr("ctypes").attr("data")));
        out.z_stride = nb::cast<std::ptrdiff_t>(strides[0]);
        out.y_stride = nb::cast<std::ptrdiff_t>(strides[1]);
        return out;
    }

    // The attributes that the op's spec names, each to its place.
    static void read_params(OpContext &op, const OpSpec &spec, nb::handle params) {
        unsigned char *const record = reinterpret_cast<unsigned char *>(&op.params);
        for (const ParamField &field : spec.params) {
            const nb::object value = params.attr(field.name);
            unsigned char *const to = record + field.offset;
            switch (field.kind) {
            case ParamKind::u32: put(to, nb::cast<uint32_t>(value)); break;
            case ParamKind::f32: put(to, nb::cast<float>(value)); break;
            case ParamKind::boolean: put(to, nb::cast<bool>(value)); break;
            case ParamKind::rope_type: put(to, RopeType(nb::cast<int>(value))); break;
            case ParamKind::tensor: put(to, value.is_none() ? Tensor{} : tensor(value)); break;
            }
        }
    }

    template <typename T> static void put(unsigned char *to, const T &value) { std::memcpy(to, &value, sizeof value); }

    nb::object context_; // keeps the memory that tensors point to
    std::shared_ptr<Weight> weight_;
    PlanOp planned_{};
};

// A plan and the ops it was made from.
class BoundPlan {
public:
    BoundPlan(std::vector<std::shared_ptr<Op>> ops, std::shared_ptr<Engine> engine, std::shared_ptr<Stop> stop)
        : ops_(std::move(ops)), plan_(make_plan(ops_, std::move(engine), std::move(stop))) {}

    // None, or (op, kind, value, limit) of an index out of range, or of a stop.
    nb::object run(uint32_t batch_size) {
        Plan::Result result;
        {
            nb::gil_scoped_release release;
            result = plan_.run(batch_size);
        }
        return fault(result);
    }

    // What run returns, and the seconds of each op.
    nb::tuple run_timed(uint32_t batch_size) {
        Plan::Result result;
        std::vector<double> seconds;
        {
            nb::gil_scoped_release release;
            result = plan_.run_timed(batch_size, seconds);
        }
        return nb::make_tuple(fault(result), nb::cast(seconds));
    }

    std::size_t n_steps() const { return plan_.n_steps(); }

private:
    static nb::object fault(const Plan::Result &result) {
        if (result.fault.kind == FaultKind::none)
            return nb::none();
        return nb::make_tuple(result.op, result.fault.kind, result.fault.value, result.fault.limit);
    }

    // A config may have 65,536 ops: other Python threads go on meanwhile.
    static Plan make_plan(const std::vector<std::shared_ptr<Op>> &ops, std::shared_ptr<Engine> engine,
                          std::shared_ptr<Stop> stop) {
        const std::vector<PlanOp> list = planned(ops);
        nb::gil_scoped_release release;
        return Plan(list, std::move(engine), std::move(stop));
    }

    static std::vector<PlanOp> planned(const std::vector<std::shared_ptr<Op>> &ops) {
        std::vector<PlanOp> list;
        list.reserve(ops.size());
        for (const std::shared_ptr<Op> &op : ops)
            list.push_back(op->planned());
        return list;
    }

    std::vector<std::shared_ptr<Op>> ops_;
    Plan plan_;
};

// A contiguous buffer of bytes, for as long as this lives.
class Bytes {
public:
    Bytes(nb::handle source, int flags) {
        if (PyObject_GetBuffer(source.ptr(), &view_, flags) != 0)
            throw nb::python_error();
    }
    Bytes(const Bytes &) = delete;
    ~Bytes() { PyBuffer_Release(&view_); }
    const unsigned char *data() const { return static_cast<const unsigned char *>(view_.buf); }
    std::size_t size() const { return std::size_t(view_.len); }

private:
    Py_buffer view_;
};

// The same, to write into.
class MutableBytes : public Bytes {
public:
    explicit MutableBytes(nb::handle target) : Bytes(target, PyBUF_WRITABLE) {}
    unsigned char *data() { return const_cast<unsigned char *>(Bytes::data()); }
};

void load(Weight &weight, std::size_t offset, nb::handle data) {
    const Bytes bytes(data, PyBUF_SIMPLE);
    nb::gil_scoped_release release;
    weight.load(offset, bytes.data(), bytes.size());
}

// The format of a stored type, or null where a kernel set has none.
const BlockFormat *find_format(const KernelSet &set, uint32_t ggml_type) {
    for (size_t i = 0; i < set.blocks->n_formats; i++)
        if (set.blocks->formats[i].ggml_type == ggml_type)
            return &set.blocks->formats[i];
    return nullptr;
}

void decode_blocks(const std::string &kernels, uint32_t ggml_type, nb::handle blocks, nb::handle out) {
    const BlockFormat *format = find_format(kernel_set_or_throw(kernels), ggml_type);
    const Bytes source(blocks, PyBUF_SIMPLE);
    MutableBytes target(out);
    if (format == nullptr || source.size() % format->n_bytes != 0 ||
        target.size() / sizeof(float) != source.size() / format->n_bytes * format->n_values)
        throw nb::value_error("blocks and values do not fit each other");
    nb::gil_scoped_release release;
    format->decode(source.data(), source.size() / format->n_bytes, reinterpret_cast<float *>(target.data()));
}

void quantize_q40(const std::string &kernels, nb::handle values, nb::handle blocks) {
    constexpr size_t n_values = 32, n_bytes = 18;
    const KernelSet &set = kernel_set_or_throw(kernels);
    const Bytes source(values, PyBUF_SIMPLE);
    MutableBytes target(blocks);
    const size_t n_blocks = target.size() / n_bytes;
    if (target.size() % n_bytes != 0 || source.size() != n_blocks * n_values * sizeof(float))
        throw nb::value_error("values and blocks do not fit each other");
    nb::gil_scoped_release release;
    set.blocks->quantize_q40(reinterpret_cast<const float *>(source.data()), n_blocks, target.data());
}

// The address of a piece of a raw weight, or None: Python makes the view, and keeps the weight alive.
nb::object raw_address(const Weight &weight, std::size_t offset, std::size_t n) {
    unsigned char *data = weight.raw(offset, n);
    return data ? nb::cast(reinterpret_cast<uintptr_t>(data)) : nb::none();
}

} // namespace

NB_MODULE(_core, m) {
    m.doc() = "Native kernels: weights, plans and the threads that run them.";
    m.attr("__all__") =
        nb::make_tuple("Engine", "FaultKind", "Op", "Plan", "Stop", "Weight", "decode_blocks", "has_block_decoder",
                       "has_kernel", "kernel_sets", "memory_held", "plan_bytes_per_op", "quantize_q40",
                       "read_bandwidth", "weight_memory_bytes");

    m.def("decode_blocks", &decode_blocks, "kernels"_a, "ggml_type"_a, "blocks"_a, "out"_a,
          "Decode stored blocks into float32 values, both contiguous.");
    m.def(
        "has_block_decoder",
        [](const std::string &kernels, uint32_t ggml_type) {
            return find_format(kernel_set_or_throw(kernels), ggml_type) != nullptr;
        },
        "kernels"_a, "ggml_type"_a, "Whether a kernel set can decode a stored type.");
    m.def("quantize_q40", &quantize_q40, "kernels"_a, "values"_a, "blocks"_a,
          "Quantise float32 values to Q40 blocks as model converters do, both contiguous.");

    m.def(
        "kernel_sets",
        [] {
            std::vector<std::string> names;
            for (const KernelSet *set : available_kernel_sets())
                names.push_back(set->name);
            return names;
        },
        "Names of the kernel sets that this processor can run, slowest first.");
    m.def(
        "has_kernel",
        [](const std::string &kernels, int code, int quant) {
            const OpSpec *spec = find_op(kernel_set_or_throw(kernels), OpCode(code));
            return spec != nullptr && !is_internal(spec->code) && find_kernel(*spec, QuantType(quant)) != nullptr;
        },
        "kernels"_a, "code"_a, "quant"_a, "Whether a kernel set has a kernel for a key.");

    m.def("memory_held", &Memory::held, "Bytes of all weights, scratch and prepared rows that there are now.");
    m.def("plan_bytes_per_op", &Plan::bytes_per_op, "Bytes that an op takes in a plan, at most.");
    m.def(
        "weight_memory_bytes",
        [](const std::string &kernels, int float_type, uint32_t z, uint32_t y, uint32_t x) {
            return weight_memory_bytes(FloatType(float_type), z, y, x, tile_rows(kernels, FloatType(float_type)));
        },
        "kernels"_a, "float_type"_a, "z"_a, "y"_a, "x"_a, "Bytes that a Weight takes, in whole tiles and pages.");

    nb::enum_<FaultKind>(m, "FaultKind", "What an index out of range was to be.")
        .value("TOKEN", FaultKind::token, "a row of an embedding")
        .value("POSITION", FaultKind::position, "a position in the sequence")
        .value("CACHE_ROW", FaultKind::cache_row, "a row of a cache")
        .value("EXPERT", FaultKind::expert, "one of the experts")
        .value("STOPPED", FaultKind::stopped, "no index: somebody asked to stop");

    nb::class_<Stop>(m, "Stop", "Whether the plans that were made with it are to stop between two ops.")
        .def(nb::init<>())
        .def("set", &Stop::set, "Stop them, from any thread and for good.")
        .def_prop_ro("is_set", &Stop::is_set, "Whether they are to stop.");

    m.def("read_bandwidth", &read_bandwidth, "n_bytes"_a, "n_passes"_a, nb::call_guard<nb::gil_scoped_release>(),
          "Bytes per second that one thread reads from memory, at best.");

    nb::class_<Engine>(m, "Engine", nb::is_weak_referenceable(), "A team of threads and the scratch memory they share.")
        .def(nb::init<uint32_t>(), "n_threads"_a);

    nb::class_<Weight>(m, "Weight", "A weight in the layout that its kernel reads.")
        .def(
            "__init__",
            [](Weight *self, const std::string &kernels, int code, int float_type, uint32_t z, uint32_t y, uint32_t x) {
                const KernelSet &set = kernel_set_or_throw(kernels);
                const OpSpec *spec = find_op(set, OpCode(code));
                const FloatType type = FloatType(float_type);
                const bool is_looked_up = spec != nullptr && (spec->traits & kLooksUpWeight) != 0;
                new (self) Weight(type, z, y, x, tile_rows(kernels, type), is_looked_up);
            },
            "kernels"_a, "code"_a, "float_type"_a, "z"_a, "y"_a, "x"_a)
        .def("load", &load, "offset"_a, "data"_a,
             "Take a piece of the wire's bytes. Raises IndexError where it does not fit.")
        .def("touch", &Weight::touch, nb::call_guard<nb::gil_scoped_release>(),
             "Have the memory made ready before anything is loaded.")
        .def("raw_address", &raw_address, "offset"_a, "n"_a,
             "Address of a piece to be filled in place, or None where the layout is not the wire's.");

    nb::class_<Op>(m, "Op", "An op's context, read once.")
        .def(nb::init<nb::object, const std::string &, std::shared_ptr<Weight>>(), "context"_a, "kernels"_a,
             "weight"_a.none())
        .def("memory_need", &Op::memory_need,
             "Bytes of prepared rows, which ops of the same input share, and of scratch for each thread.");

    nb::class_<BoundPlan>(m, "Plan", "Ops that run in one call, on all threads, without the interpreter's lock.")
        .def(nb::init<std::vector<std::shared_ptr<Op>>, std::shared_ptr<Engine>, std::shared_ptr<Stop>>(), "ops"_a,
             "engine"_a, "stop"_a.none() = nb::none())
        .def("run", &BoundPlan::run, "batch_size"_a,
             "Run on the first rows; returns None, or (op, kind, value, limit) of an index out of range or a stop.")
        .def("run_timed", &BoundPlan::run_timed, "batch_size"_a,
             "Run as run does; returns what it returns, and the seconds of each op.")
        .def_prop_ro("n_steps", &BoundPlan::n_steps, "Steps between two barriers.");
}
