#include <algorithm>

#include "ops/linear_chain.hpp"
#include "ops/memory.hpp"

namespace dynamic_tinybert {
namespace {

constexpr size_t products_worth_a_thread = 256 * 1024;  // with fewer, waking a thread takes longer than computing them
constexpr size_t numbers_worth_a_thread = 4 * 1024;     // likewise, to quantise or to normalise
constexpr size_t tasks_for_a_thread = 3;  // at least, so that others can take over from a thread that is late or slow
constexpr size_t fewest_rows = 24;        // of a task, which reads a whole panel of the weights
constexpr size_t strip = 12;              // rows that kernels take at once, or a multiple of their number

void quantize_rows(const ChainTask& task, size_t first, size_t count, uint8_t* to) {
    const size_t depth = task.chain->depth;
    task.chain->kernels->linear_int8->quantize_rows(task.rows.floats + first * depth, task.chain->inv_scale,
                                                    task.chain->zero_point, count, depth, to + first * depth);
}

void normalize_rows(const ChainTask& task, size_t first, size_t count) {
    const size_t at = first * task.chain->width();
    task.chain->kernels->add_and_normalize(task.chain->normalization, task.rows.result + at, task.rows.added + at,
                                           count, task.rows.result + at);
}

/// Calls compute(linear, from, result, quantized) for each product of a chain, result or quantized being null. The
/// chain's rows in f32 are quantised in buffers[0].
template <typename Compute>
void for_products(const ChainTask& task, LevelBuffers& buffers, const Compute& compute) {
    const uint8_t* levels = task.rows.levels ? task.rows.levels : buffers[0].data();
    for (const Linear& linear : task.chain->linears) {
        uint8_t* quantized = linear.inv_scale ? buffers[levels == buffers[0].data()].data() : nullptr;
        compute(linear, levels, quantized ? nullptr : task.rows.result, quantized);
        levels = quantized;
    }
}

/// Computes a chain on this thread.
void run_chain(const ChainTask& task, LevelBuffers& buffers) {
    const LinearKernels& kernels = *task.chain->kernels->linear_int8;
    if (task.rows.floats)
        quantize_rows(task, 0, task.rows.count, buffers[0].data());
    for_products(task, buffers, [&](const Linear& linear, const uint8_t* from, float* result, uint8_t* quantized) {
        for (size_t panel = 0; panel < panels_of(linear.width); ++panel)
            kernels.multiply_panel(linear, from, task.rows.count, panel, result, quantized);
    });
    if (task.chain->normalizes)
        normalize_rows(task, 0, task.rows.count);
}

ChainTask slice(const ChainTask& task, size_t first, size_t count) {
    const ChainRows& all = task.rows;
    const size_t in = first * task.chain->depth, out = first * task.chain->width();
    return {task.chain,
            {all.floats ? all.floats + in : nullptr, all.levels ? all.levels + in : nullptr,
             all.added ? all.added + out : nullptr, all.result + out, count}};
}

/// Adds a stage that runs compute(first, count) on blocks of all rows, as many as their numbers are worth.
template <typename Compute>
void add_rows(Stages& stages, size_t rows, size_t width, const Compute& compute) {
    const size_t blocks = std::clamp<size_t>(rows * width / numbers_worth_a_thread, 1, stages.threads());
    stages.add(blocks, [=](size_t block) {
        const size_t first = rows * block / blocks, end = rows * (block + 1) / blocks;
        compute(first, end - first);
    });
}

/// Adds stages whose items are one panel of the weights for all rows or, if there are too few panels, for a block of
/// the rows.
void add_by_panels(Stages& stages, const ChainTask& task, LevelBuffers& buffers) {
    const size_t rows = task.rows.count;
    const LinearKernels& kernels = *task.chain->kernels->linear_int8;
    if (task.rows.floats)
        add_rows(stages, rows, task.chain->depth,
                 [task, to = buffers[0].data()](size_t first, size_t count) { quantize_rows(task, first, count, to); });
    for_products(task, buffers, [&](const Linear& linear, const uint8_t* from, float* result, uint8_t* quantized) {
        const size_t panels = panels_of(linear.width);
        const size_t wanted = (tasks_for_a_thread * stages.threads() + panels - 1) / panels;
        const size_t blocks = std::clamp<size_t>(rows / fewest_rows, 1, wanted);
        const size_t block = (rows + blocks - 1) / blocks;
        stages.add(panels * blocks, [=, &kernels, &linear](size_t item) {
            const size_t first = std::min(rows, item % blocks * block), at = first * linear.width;
            kernels.multiply_panel(linear, from + first * linear.depth, std::min(block, rows - first), item / blocks,
                                   result ? result + at : nullptr, quantized ? quantized + at : nullptr);
        });
    });
    if (task.chain->normalizes)
        add_rows(stages, rows, task.chain->width(),
                 [task](size_t first, size_t count) { normalize_rows(task, first, count); });
}

}  // namespace

bool is_worth_one_thread(const BoundChain& chain, size_t rows) {
    size_t products = 0;
    for (const Linear& linear : chain.linears)
        products = std::max(products, rows * linear.depth * linear.width);
    return products < 2 * products_worth_a_thread;
}

void make_room(LevelBuffers& buffers, const BoundChain& chain, size_t rows) {
    size_t widest = chain.inv_scale ? chain.depth : 0;
    for (const Linear& linear : chain.linears)
        if (linear.inv_scale)
            widest = std::max(widest, linear.width);
    for (std::vector<uint8_t>& buffer : buffers)
        at_least(buffer, rows * widest);
}

void add_chains(Stages& stages, const std::vector<ChainTask>& tasks, LevelBuffers& buffers) {
    if (tasks.empty())
        return;
    const size_t rows = tasks.front().rows.count, strips = (rows + strip - 1) / strip;
    if (stages.threads() == 1) {
        stages.add(1, [tasks, &buffers](size_t) {
            for (const ChainTask& task : tasks)
                run_chain(task, buffers);
        });
    } else if (rows >= fewest_rows * stages.threads()) {
        const size_t items = std::min(rows / fewest_rows, stages.threads() * (cores_differ() ? tasks_for_a_thread : 1));
        stages.add(items, [=](size_t item) {
            const Lent<LevelBuffers> lent;
            LevelBuffers& own = *lent;
            const size_t first = strips * item / items * strip;
            const size_t end = std::min(rows, strips * (item + 1) / items * strip);
            for (const ChainTask& task : tasks) {
                make_room(own, *task.chain, end - first);
                run_chain(slice(task, first, end - first), own);
            }
        });
    } else {
        for (const ChainTask& task : tasks)
            add_by_panels(stages, task, buffers);
    }
}

}  // namespace dynamic_tinybert
