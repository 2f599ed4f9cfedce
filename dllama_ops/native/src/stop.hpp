// Whether the ops of a node are to stop: set from any thread, looked at between ops.
#pragma once

#include <atomic>

namespace dllama {

// In a cache line of its own: every thread reads it between two ops, and nothing beside it is ever written.
class alignas(64) Stop {
public:
    void set() { is_set_.store(true, std::memory_order_relaxed); }
    bool is_set() const { return is_set_.load(std::memory_order_relaxed); }

private:
    std::atomic<bool> is_set_{false};
};

} // namespace dllama
