// What the ops of a node share while they run: the threads, and memory that no op needs for longer than its turn.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "kernels.hpp"
#include "memory.hpp"
#include "team.hpp"

namespace dllama {

class Engine {
public:
    explicit Engine(uint32_t n_threads) : team(n_threads), scratch_(n_threads == 0 ? 1 : n_threads) {}

    // Gives every thread at least so many bytes of scratch. Not while something runs.
    void reserve_scratch(std::size_t size);
    Scratch scratch(uint32_t thread_index) const { return {scratch_[thread_index].data()}; }

    // Memory for n_bytes of prepared rows of an input. Ops that prepare the same input alike get the same memory, also
    // from different plans: each plan prepares again what it uses.
    std::shared_ptr<Memory> prepared_rows(const Tensor &input, const PrepareParams &params, std::size_t n_bytes);

    Team team;
    std::mutex running; // held while a plan runs

private:
    using Key = std::tuple<const void *, std::ptrdiff_t, std::ptrdiff_t, uint32_t, uint32_t, uint32_t, uint32_t>;

    std::vector<Memory> scratch_;
    std::map<Key, std::weak_ptr<Memory>> prepared_;
    std::size_t n_prepared_after_sweep_ = 0; // entries that were left when the unused ones were last removed
};

} // namespace dllama
