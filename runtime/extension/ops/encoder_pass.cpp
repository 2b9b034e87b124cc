#include "ops/encoder_pass.hpp"

#include <tbb/task_arena.h>

#include <algorithm>

#include "kernels/aligned.hpp"
#include "ops/attention_pass.hpp"
#include "ops/memory.hpp"
#include "ops/task_sharing.hpp"

namespace dynamic_tinybert {
namespace {

/// Buffers of one call, which its thread keeps for the next one.
struct Scratch {
    Aligned<float> projections;  // [B, L, 3 H]: query, key and value
    Aligned<float> states[2];    // [B, L, H]: a half reads one while it writes the other
    Aligned<uint8_t> context;    // [B, L, H], quantised
};

constexpr size_t strip = 12;          // rows that kernels take at once, or a multiple of their number
constexpr size_t strips_of_share = 2;  // at least, of a thread: each share reads all weights

/// The products between two attentions, in order: each row goes through all of them on one thread.
struct RowStages {
    std::vector<std::pair<const BoundChain*, ChainRows>> steps;

    void add(const BoundChain* chain, const ChainRows& rows) { steps.emplace_back(chain, rows); }

    void run(size_t rows) {
        const size_t strips = (rows + strip - 1) / strip;
        const size_t threads = tbb::this_task_arena::max_concurrency();
        if (threads == 1 || strips < strips_of_share * threads) {
            for (auto& [chain, all] : steps)
                run_chain(*chain, all);
        } else {
            share_tasks(strips, strips_of_share, [&](size_t first, size_t end) {
                const size_t row = first * strip, count = std::min(rows, end * strip) - row;
                for (const auto& [chain, all] : steps)
                    run_chain_alone(*chain, slice(*chain, all, row, count));
            });
        }
        steps.clear();
    }

private:
    static ChainRows slice(const BoundChain& chain, const ChainRows& all, size_t first, size_t count) {
        const size_t in = first * chain.depth, out = first * chain.width();
        return {all.floats ? all.floats + in : nullptr, all.levels ? all.levels + in : nullptr,
                all.added ? all.added + out : nullptr, all.result + out, count};
    }
};

}  // namespace

void compute_halves(const AttentionKernels& attention, const std::vector<EncoderHalf>& halves,
                    const EncoderBatch& in) {
    thread_local Scratch thread_scratch;
    Scratch& scratch = thread_scratch;
    const size_t rows = in.batch * in.length, numbers = rows * in.hidden;
    at_least(scratch.projections, 3 * numbers);
    at_least(scratch.context, numbers);
    for (Aligned<float>& states : scratch.states)
        at_least(states, numbers);

    AttentionBatch attended{};
    attended.batch = in.batch;
    attended.length = attended.queries = in.length;
    attended.width = in.hidden;
    attended.heads = in.heads;
    attended.projections = scratch.projections.data();
    attended.mask = in.mask;
    attended.quantized = scratch.context.data();

    const auto compute = [&] {
        RowStages stages;
        const float* state = in.state;
        for (size_t half = 0; half < halves.size(); ++half) {
            const EncoderHalf& own = halves[half];
            float* next = half + 1 == halves.size() ? in.result : scratch.states[half % 2].data();
            if (own.output) {
                stages.add(own.first, {state, nullptr, nullptr, scratch.projections.data(), rows});
                stages.run(rows);
                attended.inv_scale = own.inv_scale;
                attended.zero_point = own.output->zero_point;
                attend_batch(attention, attended);
                stages.add(own.output, {nullptr, scratch.context.data(), state, next, rows});
            } else {
                stages.add(own.first, {state, nullptr, state, next, rows});
            }
            state = next;
        }
        stages.run(rows);
    };
    // A thread that waits in here must not pick up another request, which would use the same buffers.
    tbb::this_task_arena::isolate(compute);
}

}  // namespace dynamic_tinybert
