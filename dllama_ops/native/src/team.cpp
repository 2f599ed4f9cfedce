#include "team.hpp"

#include <chrono>

namespace dllama {

namespace {

// Long enough for a sync between two segments on one machine, short enough not to show up as load.
constexpr std::chrono::microseconds kSpinTime{100};
// Spins before the processor is offered to others: where there are more threads than cores, the one that is
// waited for may need it.
constexpr int kSpinsBeforeYield = 200;

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

} // namespace

void Signal::advance() {
    value_.fetch_add(1, std::memory_order_seq_cst);
    if (n_sleepers_.load(std::memory_order_seq_cst) > 0) {
        // With the lock held, a sleeper has either seen the new value or is already waiting.
        std::lock_guard<std::mutex> lock(mutex_);
        changed_.notify_all();
    }
}

void Signal::wait_while(uint32_t old) {
    for (int i = 0; i < kSpinsBeforeYield; i++) {
        if (value() != old)
            return;
        pause();
    }
    const auto end = std::chrono::steady_clock::now() + kSpinTime;
    while (std::chrono::steady_clock::now() < end) {
        for (int i = 0; i < 16; i++) {
            if (value() != old)
                return;
            pause();
        }
        std::this_thread::yield();
    }
    std::unique_lock<std::mutex> lock(mutex_);
    n_sleepers_.fetch_add(1, std::memory_order_seq_cst);
    changed_.wait(lock, [&] { return value_.load(std::memory_order_seq_cst) != old; });
    n_sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

Team::Team(uint32_t n_threads) : n_threads_(n_threads == 0 ? 1 : n_threads) {
    try {
        for (uint32_t i = 1; i < n_threads_; i++)
            threads_.emplace_back(&Team::work, this, i);
    } catch (...) {
        start_.advance(); // the job is still null
        for (std::thread &thread : threads_)
            thread.join();
        throw;
    }
}

Team::~Team() {
    job_ = nullptr;
    start_.advance();
    for (std::thread &thread : threads_)
        thread.join();
}

void Team::work(uint32_t thread_index) {
    for (uint32_t seen = 0;;) {
        start_.wait_while(seen);
        seen++;
        if (job_ == nullptr)
            return;
        job_(context_, thread_index);
        barrier();
    }
}

void Team::run(Job job, void *context) {
    job_ = job;
    context_ = context;
    start_.advance();
    job(context, 0);
    barrier();
}

void Team::barrier() {
    const uint32_t phase = phase_.value();
    if (n_arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == n_threads_) {
        n_arrived_.store(0, std::memory_order_relaxed);
        phase_.advance();
    } else {
        phase_.wait_while(phase);
    }
}

} // namespace dllama
