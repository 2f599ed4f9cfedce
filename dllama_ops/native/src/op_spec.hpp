// What an op is, told once: its kernels, its parameters, what shapes it takes, how its work is cut.
//
// Each source file of kernels has the specs of its ops beside them, as one table. These files are compiled once for
// each instruction set, and the linker keeps one copy of every inline function: where that copy has instructions
// that a processor lacks, the processor dies, also in code that never asked for them. So specs hold plain data and
// pointers to functions of their own file, and what those functions call is either static or defined in a file that
// is compiled once (check.cpp, work.cpp, op_spec.cpp). A test looks at the symbols.
#pragma once

#include "check.hpp"
#include "ggml_blocks.hpp"
#include "kernels.hpp"
#include "work.hpp"

namespace dllama {

// An array that lives as long as the program.
template <typename T> struct Span {
    const T *items = nullptr;
    size_t n = 0;

    constexpr Span() noexcept = default;
    template <size_t kSize> constexpr Span(const T (&array)[kSize]) noexcept : items(array), n(kSize) {}

    constexpr const T *begin() const noexcept { return items; }
    constexpr const T *end() const noexcept { return items + n; }
};

// The kernel of one key.
struct KernelEntry {
    QuantType quant;
    Kernel kernel;
    size_t (*scratch_bytes)(const OpContext &op) = nullptr; // that the kernel needs on each thread; null: none
};

enum class ParamKind : uint8_t { u32, f32, boolean, rope_type, tensor };

static constexpr ParamKind param_kind(const uint32_t *) {
    return ParamKind::u32;
}
static constexpr ParamKind param_kind(const float *) {
    return ParamKind::f32;
}
static constexpr ParamKind param_kind(const bool *) {
    return ParamKind::boolean;
}
static constexpr ParamKind param_kind(const RopeType *) {
    return ParamKind::rope_type;
}
static constexpr ParamKind param_kind(const Tensor *) {
    return ParamKind::tensor;
}

// A field of an op's record in Params: what the Python side calls it, and where it goes.
struct ParamField {
    const char *name;
    ParamKind kind;
    size_t offset;
};

#define DLLAMA_PARAM(Record, field)                                                                        \
    ParamField {                                                                                           \
        #field, param_kind(static_cast<const decltype(Record::field) *>(nullptr)), offsetof(Record, field) \
    }

// What is to be done to an op's input first, once for all ops of a plan that want the same done to the same input.
// The result is OpContext::prepared, of both.
struct Preparation {
    OpCode code; // the op that does it
    QuantType quant;
    PrepareParams params;
    size_t n_bytes; // of the result; 0: nothing is to be done
};

constexpr Preparation kNoPreparation = {OpCode::prepare_rows, QuantType::f32_f32_f32, {0}, 0};

// What sets an op apart from the others.
enum Trait : uint32_t {
    kIgnoresInput = 1,    // its input is only named; it reads what its parameters point to
    kWritesRawOutput = 2, // its output is memory of one row, in which it finds places by itself
    kLooksUpWeight = 4,   // of its weight little is read at a time
};

struct OpSpec {
    OpCode code;
    const char *name;
    Span<KernelEntry> kernels;
    Span<ParamField> params;

    // What the op's shapes and parameters must be like, beyond what holds for all (see check.cpp).
    void (*check)(const OpContext &op, ShapeCheck &check);

    Work (*work)(const OpContext &op, uint32_t n_threads);

    // Neighbours share a step where what they touch allows it: this is all that fusing is decided by.
    void (*touch)(const OpContext &op, Accesses &touched);

    IndexUse (*index_use)(const OpContext &op) = nullptr;      // null: it uses no indexes
    Preparation (*preparation)(const OpContext &op) = nullptr; // null: it takes its input as it is
    uint32_t traits = 0;                                       // of Trait
};

using OpTable = Span<OpSpec>;

// All ops, with the kernels of one instruction set.
struct KernelSet {
    const char *name;             // "baseline", "avx2", "avx512", "neon"
    uint32_t tile_rows;           // rows interleaved in a packed Q40 weight
    Span<const OpTable *> tables; // one for each source file
    // Adds up n_bytes (a multiple of 256) as 32-bit numbers: reading, and next to nothing else.
    int32_t (*sum_bytes)(const unsigned char *data, size_t n_bytes);
    const BlockFormats *blocks; // weights in other projects' types
};

// The op of a code, or null where there is none.
const OpSpec *find_op(const KernelSet &kernels, OpCode code);

// The entry of a key, or null where the op has none.
const KernelEntry *find_kernel(const OpSpec &spec, QuantType quant);

} // namespace dllama
