// The team: every thread takes part in every job, barriers hold, and nobody is left behind.
#include <atomic>
#include <chrono>

#include "team.hpp"
#include "test.hpp"

using namespace testing;

namespace {

struct Rounds {
    Team *team;
    uint32_t n_rounds;
    std::vector<uint32_t> counts; // of each thread, written without atomics
    std::atomic<uint32_t> n_wrong{0};
};

void count_together(void *context, uint32_t thread_index) {
    Rounds &rounds = *static_cast<Rounds *>(context);
    for (uint32_t i = 1; i <= rounds.n_rounds; i++) {
        rounds.counts[thread_index] = i;
        rounds.team->barrier();
        for (const uint32_t count : rounds.counts)
            if (count != i)
                rounds.n_wrong++;
        rounds.team->barrier();
    }
}

} // namespace

TEST(barriers_hold_for_any_number_of_threads) {
    for (uint32_t n_threads = 1; n_threads <= 8; n_threads++) {
        Team team(n_threads);
        for (int job = 0; job < 20; job++) {
            Rounds rounds{&team, 10, std::vector<uint32_t>(n_threads)};
            team.run(count_together, &rounds);
            CHECK(rounds.n_wrong == 0);
        }
    }
}

TEST(a_team_wakes_up_after_it_has_slept) {
    Team team(3);
    for (int job = 0; job < 5; job++) {
        // Longer than a team spins: the other threads sleep on the condition.
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        Rounds rounds{&team, 2, std::vector<uint32_t>(3)};
        team.run(count_together, &rounds);
        CHECK(rounds.n_wrong == 0 && rounds.counts == std::vector<uint32_t>(3, 2));
    }
}

TEST(a_thread_that_is_late_is_waited_for) {
    Team team(2);
    Rounds rounds{&team, 1, std::vector<uint32_t>(2)};
    team.run(
        [](void *context, uint32_t thread_index) {
            if (thread_index == 1)
                std::this_thread::sleep_for(std::chrono::milliseconds(2));
            count_together(context, thread_index);
        },
        &rounds);
    CHECK(rounds.n_wrong == 0);
}

TEST(teams_come_and_go) {
    for (uint32_t i = 0; i < 50; i++)
        Team team(1 + i % 4);
}
