// A team of threads, created once: it runs one job at a time on all of them, the caller being thread 0.
//
// Whoever waits first spins for a short while, since the next step or the next segment is usually microseconds
// away, then sleeps: an idle team uses no processor time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace dllama {

// A counter that threads wait on to change.
class Signal {
public:
    uint32_t value() const { return value_.load(std::memory_order_acquire); }
    void advance();
    // Returns once the value is no longer old.
    void wait_while(uint32_t old);

private:
    alignas(64) std::atomic<uint32_t> value_{0};
    std::atomic<uint32_t> n_sleepers_{0};
    std::mutex mutex_;
    std::condition_variable changed_;
};

class Team {
public:
    using Job = void (*)(void *context, uint32_t thread_index);

    // At least 1 thread, the caller's. Throws std::system_error where a thread cannot be made.
    explicit Team(uint32_t n_threads);
    Team(const Team &) = delete;
    ~Team();

    uint32_t n_threads() const { return n_threads_; }

    // Runs job(context, i) for every thread index i at once, and returns when all have returned. Not for two
    // callers at a time.
    void run(Job job, void *context);

    // Called by every thread of a running job: returns once all have called it.
    void barrier();

private:
    void work(uint32_t thread_index);

    uint32_t n_threads_;
    Job job_ = nullptr; // null ends the threads
    void *context_ = nullptr;
    Signal start_, phase_;
    alignas(64) std::atomic<uint32_t> n_arrived_{0};
    std::vector<std::thread> threads_;
};

} // namespace dllama
