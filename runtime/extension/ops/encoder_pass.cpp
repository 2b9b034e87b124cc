#include "ops/encoder_pass.hpp"

#include <tbb/task_arena.h>

#include <algorithm>

#include "kernels/aligned.hpp"
#include "ops/attention_pass.hpp"
#include "ops/memory.hpp"
#include "ops/stages.hpp"

namespace dynamic_tinybert {
namespace {

/// Buffers of one call.
struct Scratch {
    Aligned<float> projections;  // [B, L, 3 H]: query, key and value
    Aligned<float> states[2];    // [B, L, H]: a half reads one while it writes the other
    Aligned<uint8_t> context;    // [B, L, H], quantised
    AttentionScratch attention;
    LevelBuffers levels;
};

}  // namespace

void compute_halves(const AttentionKernels& attention, const std::vector<EncoderHalf>& halves,
                    const EncoderBatch& in) {
    const Lent<Scratch> lent;
    Scratch& scratch = *lent;
    const size_t rows = in.batch * in.length, numbers = rows * in.hidden;
    at_least(scratch.projections, 3 * numbers);
    at_least(scratch.context, numbers);
    for (Aligned<float>& states : scratch.states)
        at_least(states, numbers);
    for (const EncoderHalf& half : halves)
        for (const BoundChain* chain : {half.first, half.output})
            if (chain)
                make_room(scratch.levels, *chain, rows);

    AttentionBatch attended{};
    attended.batch = in.batch;
    attended.length = attended.queries = in.length;
    attended.width = in.hidden;
    attended.heads = in.heads;
    attended.projections = scratch.projections.data();
    attended.mask = in.mask;
    attended.quantized = scratch.context.data();

    const auto compute = [&] {
        const bool alone = is_worth_one_thread(*halves.front().first, rows);
        Stages stages(alone ? 1 : tbb::this_task_arena::max_concurrency());
        std::vector<ChainTask> between;  // the chains after one attention and before the next
        const float* state = in.state;
        for (size_t half = 0; half < halves.size(); ++half) {
            const EncoderHalf& own = halves[half];
            float* next = half + 1 == halves.size() ? in.result : scratch.states[half % 2].data();
            if (own.output) {
                between.push_back({own.first, {state, nullptr, nullptr, scratch.projections.data(), rows}});
                add_chains(stages, between, scratch.levels);
                attended.inv_scale = own.inv_scale;
                attended.zero_point = own.output->zero_point;
                add_attention(stages, attention, attended, scratch.attention);
                between = {{own.output, {nullptr, scratch.context.data(), state, next, rows}}};
            } else {
                between.push_back({own.first, {state, nullptr, state, next, rows}});
            }
            state = next;
        }
        add_chains(stages, between, scratch.levels);
        stages.run();
    };
    // A thread that waits in here must not pick up another request, which would delay this one.
    tbb::this_task_arena::isolate(compute);
}

}  // namespace dynamic_tinybert
