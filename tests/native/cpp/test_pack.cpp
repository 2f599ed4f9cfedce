// A packed weight is the same however its bytes are cut into pieces.
#include <stdexcept>
#include <thread>

#include "pack.hpp"
#include "test.hpp"

using namespace testing;

namespace {

std::vector<unsigned char> random_bytes(std::size_t n, Random &random) {
    std::vector<unsigned char> bytes(n);
    for (unsigned char &byte : bytes)
        byte = uint8_t(between(random, 0, 255));
    return bytes;
}

std::size_t stored_bytes(const Weight &weight) {
    return weight.view().z_stride * weight.view().z;
}

// By the layout's definition, one byte at a time.
std::vector<unsigned char> packed(const std::vector<unsigned char> &wire, uint32_t z, uint32_t y, uint32_t x,
                                  uint32_t tile_rows) {
    const std::size_t n_blocks = y / kBlockSize, row = n_blocks * sizeof(BlockQ40), tile_bytes = tile_rows * row;
    const std::size_t n_tiles = (x + tile_rows - 1) / tile_rows;
    std::vector<unsigned char> out(z * n_tiles * tile_bytes);
    for (std::size_t i = 0; i < wire.size(); i++) {
        const std::size_t expert = i / (row * x), r = i / row % x, b = i % row / sizeof(BlockQ40),
                          k = i % sizeof(BlockQ40);
        const std::size_t first = b & ~std::size_t(1), pair = std::min<std::size_t>(2, n_blocks - first);
        std::size_t at =
            expert * n_tiles * tile_bytes + r / tile_rows * tile_bytes + first * tile_rows * sizeof(BlockQ40);
        if (k < 2)
            at += (b - first) * tile_rows * 2 + r % tile_rows * 2 + k;
        else
            at += pair * tile_rows * 2 + (b - first) * tile_rows * 16 + (k - 2) / 4 * tile_rows * 4 +
                  r % tile_rows * 4 + (k - 2) % 4;
        out[at] = wire[i];
    }
    return out;
}

} // namespace

TEST(any_cut_gives_the_same_packed_weight) {
    Random random(5);
    for (const uint32_t tile_rows : {8u, 16u})
        for (const uint32_t x : {1u, 15u, 16u, 40u})
            for (const uint32_t y : {32u, 64u, 96u, 160u})
                for (const uint32_t z : {1u, 3u}) {
                    const std::vector<unsigned char> wire =
                        random_bytes(n_bytes(FloatType::q40, std::size_t(x) * y * z), random);
                    const std::vector<unsigned char> expected = packed(wire, z, y, x, tile_rows);
                    for (int way = 0; way < 4; way++) {
                        Weight weight(FloatType::q40, z, y, x, tile_rows);
                        CHECK(weight.n_wire_bytes() == wire.size() && stored_bytes(weight) == expected.size());
                        std::vector<std::pair<std::size_t, std::size_t>> pieces;
                        for (std::size_t at = 0; at < wire.size();) {
                            const std::size_t n =
                                way == 0 ? wire.size()
                                         : std::min<std::size_t>(wire.size() - at, between(random, 1,
                                                                                           way == 1   ? 5
                                                                                           : way == 2 ? 700
                                                                                                      : 5000));
                            pieces.push_back({at, n});
                            at += n;
                        }
                        std::shuffle(pieces.begin(), pieces.end(), random);
                        for (const auto &[at, n] : pieces)
                            weight.load(at, wire.data() + at, n);
                        CHECK(std::memcmp(weight.view().data, expected.data(), expected.size()) == 0);
                        CHECK(weight.raw(0, 1) == nullptr);
                    }
                }
}

TEST(pieces_from_several_threads_do_not_meet) {
    Random random(6);
    const std::vector<unsigned char> wire = random_bytes(n_bytes(FloatType::q40, 128 * 100), random);
    Weight weight(FloatType::q40, 1, 128, 100, 16);
    std::vector<std::thread> threads;
    const std::size_t part = wire.size() / 4; // not a whole number of rows
    for (std::size_t i = 0; i < 4; i++)
        threads.emplace_back(
            [&, i] { weight.load(i * part, wire.data() + i * part, i == 3 ? wire.size() - 3 * part : part); });
    for (std::thread &thread : threads)
        thread.join();
    const std::vector<unsigned char> expected = packed(wire, 1, 128, 100, 16);
    CHECK(std::memcmp(weight.view().data, expected.data(), expected.size()) == 0);
}

TEST(raw_weights_stay_as_they_came) {
    Random random(7);
    const std::vector<unsigned char> wire = random_bytes(7 * 5 * 2 * 4, random);
    Weight weight(FloatType::f32, 2, 5, 7, 0);
    weight.load(100, wire.data() + 100, wire.size() - 100);
    std::memcpy(weight.raw(0, 100), wire.data(), 100);
    CHECK(std::memcmp(weight.view().data, wire.data(), wire.size()) == 0);
    CHECK(weight.view().z_stride == 7 * 5 * 4);
}

TEST(pieces_beyond_the_weight_are_refused) {
    const std::vector<unsigned char> bytes(4096);
    for (const uint32_t tile_rows : {0u, 16u}) {
        Weight weight(FloatType::q40, 1, 64, 3, tile_rows);
        const std::size_t size = weight.n_wire_bytes();
        CHECK(size == 3 * 36);
        for (const auto &[at, n] : {std::pair<std::size_t, std::size_t>{size, 1},
                                    {size - 1, 2},
                                    {0, size + 1},
                                    {SIZE_MAX, 1},
                                    {1, SIZE_MAX}}) {
            bool refused = false;
            try {
                if (n == SIZE_MAX)
                    weight.raw(at, n);
                else
                    weight.load(at, bytes.data(), n);
            } catch (const std::out_of_range &) {
                refused = true;
            }
            CHECK(refused);
        }
        weight.load(size, bytes.data(), 0);
    }
}
