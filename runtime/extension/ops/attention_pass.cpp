#include "ops/attention_pass.hpp"

#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <vector>

#include "kernels/aligned.hpp"
#include "ops/memory.hpp"

namespace dynamic_tinybert {
namespace {

/// Buffers of one call, which its thread keeps for the next one.
struct Scratch {
    std::vector<int32_t> tokens;     // [B, L]: positions of the real tokens, then unused space
    std::vector<size_t> num_tokens;  // [B]
    std::vector<size_t> num_queries; // [B]: how many of the real tokens have a query
    Aligned<float> packed;           // [B, heads, packed_size]
    Aligned<float> column_sums;      // [B, heads, blocks, L + column_padding]
};

/// Lists the real tokens and returns their number; fills the context rows of the others, of the first `rows`, with `zero`.
template <typename T>
size_t split_padding(const float* mask, size_t length, size_t rows, size_t width, int32_t* tokens, T* context, T zero) {
    size_t count = 0;
    for (size_t i = 0; i < length; ++i) {
        if (mask[i] == 0.0f)
            tokens[count++] = static_cast<int32_t>(i);
        else if (i < rows)
            std::fill_n(context + i * width, width, zero);
    }
    return count;
}

}  // namespace

void attend_batch(const AttentionKernels& kernels, const AttentionBatch& in) {
    const size_t batch = in.batch, length = in.length, queries = in.queries, width = in.width, heads = in.heads;
    const size_t dim = width / heads, parts = in.query ? 2 : 3;
    const size_t max_blocks = (queries + query_block - 1) / query_block;
    const size_t packed_size = kernels.packed_size(length, dim);
    const size_t sums_size = in.significance ? length + column_padding : 0;
    thread_local Scratch thread_scratch;
    Scratch& scratch = thread_scratch;  // a name under which the threads below share it
    at_least(scratch.tokens, batch * length);
    at_least(scratch.num_tokens, batch);
    at_least(scratch.num_queries, batch);
    at_least(scratch.packed, batch * heads * packed_size);
    at_least(scratch.column_sums, batch * heads * max_blocks * sums_size);
    for (size_t b = 0; b < batch; ++b) {
        const float* real = in.mask + b * length;
        int32_t* tokens = scratch.tokens.data() + b * length;
        const size_t from = b * queries * width;
        scratch.num_tokens[b] =
            in.quantized ? split_padding(real, length, queries, width, tokens, in.quantized + from, quantize(in.zero_point))
                      : split_padding(real, length, queries, width, tokens, in.context + from, 0.0f);
        scratch.num_queries[b] = std::lower_bound(tokens, tokens + scratch.num_tokens[b], static_cast<int32_t>(queries)) - tokens;
    }

    const auto head_of = [&](size_t b, size_t h) {
        const float* projected = in.projections + parts * b * length * width + h * dim;
        const size_t to = b * queries * width + h * dim;
        Head head{};
        head.query = in.query ? in.query + to : projected;
        head.query_stride = in.query ? width : 3 * width;
        head.key = projected + (parts - 2) * width;
        head.value = head.key + width;
        head.stride = parts * width;
        head.context = in.context ? in.context + to : nullptr;
        head.quantized = in.quantized ? in.quantized + to : nullptr;
        head.context_stride = width;
        head.inv_scale = in.inv_scale;
        head.zero_point = in.zero_point;
        head.dim = dim;
        head.tokens = scratch.tokens.data() + b * length;
        head.num_tokens = scratch.num_tokens[b];
        return head;
    };
    const auto packed_of = [&](size_t head) { return scratch.packed.data() + head * packed_size; };
    const auto sums_of = [&](size_t head, size_t block) {
        return scratch.column_sums.data() + (head * max_blocks + block) * sums_size;
    };

    const auto pack = [&](size_t head) {
        kernels.pack(head_of(head / heads, head % heads), packed_of(head));
    };

    const auto attend = [&](size_t item) {
        const size_t head = item / max_blocks, block = item % max_blocks;
        const Head view = head_of(head / heads, head % heads);
        const size_t first = block * query_block, last = std::min(first + query_block, scratch.num_queries[head / heads]);
        if (first < last)
            kernels.attend(view, packed_of(head), first, last,
                              in.significance ? sums_of(head, block) : nullptr);
    };

    // Always in the order of heads and blocks, so that the number of threads cannot change a bit of the result.
    const auto add_columns = [&](size_t b) {
        const size_t num_tokens = scratch.num_tokens[b];
        const int32_t* tokens = scratch.tokens.data() + b * length;
        for (size_t h = 0; h < heads; ++h)
            for (size_t block = 0; block * query_block < num_tokens; ++block)
                for (size_t i = 0; i < num_tokens; ++i)
                    in.significance[b * length + tokens[i]] += sums_of(b * heads + h, block)[i];
    };

    // A thread that waits in here must not pick up another request, which would use the same scratch.
    tbb::this_task_arena::isolate([&] {
        tbb::parallel_for(size_t{0}, batch * heads, pack);
        tbb::parallel_for(size_t{0}, batch * heads * max_blocks, attend);
        if (in.significance)
            tbb::parallel_for(size_t{0}, batch, add_columns);
    });
}

}  // namespace dynamic_tinybert
