#include "cpu.hpp"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace dllama {

namespace baseline {
const KernelSet &kernel_set();
}
#if defined(DLLAMA_TESTS)
namespace portable {
const KernelSet &kernel_set();
}
#endif
#if defined(__x86_64__)
namespace avx2 {
const KernelSet &kernel_set();
}
namespace avx512 {
const KernelSet &kernel_set();
}
#elif defined(__aarch64__)
namespace neon {
const KernelSet &kernel_set();
}
#endif

namespace {

#if defined(__x86_64__)
// The compiler's own check also asks the operating system whether it saves the registers.
bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}
#elif defined(__aarch64__)
bool has_dotprod() {
#if defined(__linux__)
    return getauxval(AT_HWCAP) & (1ul << 20); // HWCAP_ASIMDDP
#elif defined(__APPLE__)
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname("hw.optional.arm.FEAT_DotProd", &value, &size, nullptr, 0) == 0 && value == 1;
#else
    return false;
#endif
}
#endif

std::vector<const KernelSet *> detect() {
    std::vector<const KernelSet *> sets = {&baseline::kernel_set()};
#if defined(DLLAMA_TESTS)
    sets.push_back(&portable::kernel_set());
#endif
#if defined(__x86_64__)
    if (has_avx2())
        sets.push_back(&avx2::kernel_set());
    if (has_avx512())
        sets.push_back(&avx512::kernel_set());
#elif defined(__aarch64__)
    if (has_dotprod())
        sets.push_back(&neon::kernel_set());
#endif
    return sets;
}

} // namespace

const std::vector<const KernelSet *> &available_kernel_sets() {
    static const std::vector<const KernelSet *> sets = detect();
    return sets;
}

const KernelSet *kernel_set_named(const std::string &name) {
    for (const KernelSet *set : available_kernel_sets())
        if (name == set->name)
            return set;
    return nullptr;
}

} // namespace dllama
