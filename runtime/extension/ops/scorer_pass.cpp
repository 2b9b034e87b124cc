#include "ops/scorer_pass.hpp"

#include <tbb/task_arena.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/aligned.hpp"
#include "ops/memory.hpp"
#include "ops/stages.hpp"

namespace dynamic_tinybert {
namespace {

using Floats = Aligned<float>;

constexpr size_t block = 12;          // tokens of an item
constexpr size_t panels_of_task = 4;  // of the question's keys: they share the conversion of its states to integers

/// Buffers of one call.
struct Scratch {
    Floats mean;                       // [B, H]: mean state of the question
    Floats bias;                       // [B, W]: bias of the first layer, with what that mean adds
    Floats question;                   // [B, L, H]: states of the question's tokens, then unused rows
    Floats question_keys;              // [B, L + 15, heads * head_size]: see FirstLayer
    Floats projected;                  // [B, L, W + keys]
    Floats features[2];                // [B, L, W]: input and output of a neighbourhood
    Floats mix_bias;                   // [B, W]: of the last neighbourhood, with the pooled context
    std::vector<size_t> num_question;  // [B]: number of the question's tokens
};

/// Copies the states of the question's tokens and writes their mean, zeros if there are none; returns their number.
size_t gather_question(const float* state, const float* is_protected, const float* mask, size_t length, size_t hidden,
                       float* gathered, float* mean) {
    size_t count = 0;
    std::fill_n(mean, hidden, 0.0f);
    for (size_t i = 0; i < length; ++i)
        if (mask[i] == 0.0f && is_protected[i] != 0.0f) {
            std::copy_n(state + i * hidden, hidden, gathered + count++ * hidden);
            for (size_t k = 0; k < hidden; ++k)
                mean[k] += state[i * hidden + k];
        }
    for (size_t k = 0; k < hidden; ++k)
        mean[k] /= static_cast<float>(std::max<size_t>(count, 1));
    return count;
}

/// to[W] = bias + pool * (the largest value of each feature among the tokens of the context, at least 0)
void pool_context(const float* features, const float* is_protected, const float* mask, size_t length, size_t width,
                  const float* pool, const float* bias, float* to) {
    thread_local std::vector<float> largest;
    largest.assign(width, 0.0f);
    for (size_t i = 0; i < length; ++i, features += width)
        if (mask[i] == 0.0f && is_protected[i] == 0.0f)
            for (size_t w = 0; w < width; ++w)
                largest[w] = std::max(largest[w], features[w]);
    std::copy_n(bias, width, to);
    for (size_t k = 0; k < width; ++k)
        for (size_t w = 0; w < width; ++w)
            to[w] += largest[k] * pool[k * width + w];
}

/// Puts `count` columns of the question's keys, from column `first` on, into the layout of FirstLayer.
void place_keys(const float* keys, size_t num_question, size_t first, size_t count, const FirstLayer& layer, float* to) {
    for (size_t c = first; c < std::min(first + count, layer.heads * layer.head_size); ++c) {
        const size_t head = c / layer.head_size, of_head = c % layer.head_size;
        float* at = to + head * layer.num_keys * layer.head_size + of_head * scorer_columns;
        for (size_t j = 0; j < layer.num_keys; j += scorer_columns, at += layer.head_size * scorer_columns)
            for (size_t lane = 0; lane < scorer_columns; ++lane)
                at[lane] = keys[std::min(j + lane, num_question - 1) * count + c - first];
    }
}

float dot(const float* a, const float* b, size_t width) {
    float sums[scorer_columns] = {};  // independent of each other, so that they fit into vectors
    for (size_t w = 0; w < width; w += scorer_columns)
        for (size_t j = 0; j < scorer_columns; ++j)
            sums[j] += a[w + j] * b[w + j];
    return std::accumulate(sums, sums + scorer_columns, 0.0f);
}

/// The computation of one batch, in stages.
class Pass {
public:
    Pass(const ScorerKernels& kernels, const ScorerShape& shape, const ScorerPanels& panels, const float* tensors,
         const ScorerInputs& inputs, Scratch& scratch)
        : m_kernels(kernels), m_shape(shape), m_panels(panels), m_tensors(tensors), m_in(inputs), m_scratch(scratch),
          m_stride(shape.width + shape.key_panels() * scorer_columns) {
        const size_t tokens = m_in.batch * m_in.length;
        at_least(scratch.mean, m_in.batch * m_in.hidden);
        at_least(scratch.bias, m_in.batch * shape.width);
        at_least(scratch.mix_bias, m_in.batch * shape.width);
        at_least(scratch.question, tokens * m_in.hidden);
        at_least(scratch.question_keys, m_in.batch * keys_of_sequence());
        at_least(scratch.projected, tokens * m_stride);
        at_least(scratch.num_question, m_in.batch);
        for (Floats& features : scratch.features)
            at_least(features, tokens * shape.width);
    }

    /// Adds the stages that write the significance; this object must outlive them.
    void add_to(Stages& stages, float* significance) {
        for (size_t b = 0; b < m_in.batch; ++b)
            m_scratch.num_question[b] = gather_question(
                m_in.state + b * m_in.length * m_in.hidden, m_in.is_protected + b * m_in.length,
                m_in.mask + b * m_in.length, m_in.length, m_in.hidden,
                m_scratch.question.data() + b * m_in.length * m_in.hidden, m_scratch.mean.data() + b * m_in.hidden);
        const float *bias = take(m_shape.width), *mix = take(m_shape.heads * m_shape.width);
        Floats *features = &m_scratch.features[0], *next = &m_scratch.features[1];
        add_first_layer(stages, bias, mix, *features);
        for (size_t k = 0; k < m_shape.kernel_sizes.size(); ++k) {
            add_neighbourhood(stages, k, *features, *next);
            std::swap(features, next);
        }
        const float *weight = take(m_shape.width), *output_bias = take(1);
        add_blocks(stages, [=, this](size_t b, size_t first, size_t last) {
            for (size_t i = b * m_in.length + first; i < b * m_in.length + last; ++i) {
                const float logit = dot(features->data() + i * m_shape.width, weight, m_shape.width) + *output_bias;
                const bool is_real = m_in.mask[i] == 0.0f;
                significance[i] = m_in.is_protected[i] + (is_real ? 1.0f / (1.0f + std::exp(-logit)) : 0.0f);
            }
        });
    }

private:
    /// Takes the next tensor of the scorer.
    const float* take(size_t size) {
        m_tensors += size;
        return m_tensors - size;
    }

    size_t keys_of_sequence() const {
        return (m_in.length + scorer_columns - 1) * m_shape.heads * m_shape.head_size;
    }

    float* question_keys(size_t b) const { return m_scratch.question_keys.data() + b * keys_of_sequence(); }

    FirstLayer first_layer(size_t b, const float* mix) const {
        const size_t num_keys = (m_scratch.num_question[b] + scorer_columns - 1) / scorer_columns * scorer_columns;
        FirstLayer layer{};
        layer.bias = m_scratch.bias.data() + b * m_shape.width;
        layer.question_keys = question_keys(b);
        layer.mix = mix;
        layer.num_keys = num_keys;
        layer.heads = m_shape.heads;
        layer.head_size = m_shape.head_size;
        layer.stride = m_stride;
        return layer;
    }

    /// Panels of the question's keys lie between those of the first layer and those of the question's mean state.
    size_t first_question_panel() const { return m_shape.feature_panels() + m_shape.key_panels(); }
    size_t first_mean_panel() const { return first_question_panel() + m_shape.key_panels(); }

    /// Computes the bias of a sequence, which includes the mean state of the question.
    void project_mean(size_t b, const float* bias) const {
        float* to = m_scratch.bias.data() + b * m_shape.width;
        const float* mean = m_scratch.mean.data() + b * m_in.hidden;
        m_kernels.project(m_panels, first_mean_panel(), m_shape.feature_panels(), mean, 1, to, m_shape.width);
        for (size_t w = 0; w < m_shape.width; ++w)
            to[w] += bias[w];
    }

    /// Computes some of the keys of the question's tokens.
    void project_question(size_t b, size_t task, const float* mix) const {
        thread_local Floats keys;
        const size_t first = first_question_panel() + task * panels_of_task, rows = m_scratch.num_question[b];
        const size_t count = std::min(panels_of_task, first_mean_panel() - first), columns = count * scorer_columns;
        const float* states = m_scratch.question.data() + b * m_in.length * m_in.hidden;
        m_kernels.project(m_panels, first, count, states, rows, at_least(keys, rows * columns), columns);
        place_keys(keys.data(), rows, (first - first_question_panel()) * scorer_columns, columns, first_layer(b, mix),
                   question_keys(b));
    }

    float* projected(size_t token) const { return m_scratch.projected.data() + token * m_stride; }

    /// Projects the states of tokens `from` ... `end` - 1 of all sequences.
    void project_states(size_t from, size_t end) const {
        m_kernels.project(m_panels, 0, first_question_panel(), m_in.state + from * m_in.hidden, end - from,
                          projected(from), m_stride);
    }

    size_t blocks() const { return (m_in.length + block - 1) / block; }  // of a sequence

    /// Adds a stage that runs compute(b, first, last) on blocks of tokens.
    template <typename Compute>
    void add_blocks(Stages& stages, const Compute& compute) const {
        stages.add(m_in.batch * blocks(), [this, compute](size_t item) {
            const size_t first = item % blocks() * block;
            compute(item / blocks(), first, std::min(first + block, m_in.length));
        });
    }

    /// Sets padding to zeros, so that it does not count as a neighbour.
    void clear_padding(size_t b, size_t first, size_t last, Floats& features) const {
        for (size_t i = b * m_in.length + first; i < b * m_in.length + last; ++i)
            if (m_in.mask[i] != 0.0f)
                std::fill_n(features.data() + i * m_shape.width, m_shape.width, 0.0f);
    }

    void add_first_layer(Stages& stages, const float* bias, const float* mix, Floats& features) const {
        const size_t of_question = (m_shape.key_panels() + panels_of_task - 1) / panels_of_task;
        const size_t items = of_question + 1 + blocks();  // of a sequence; the largest first
        stages.add(m_in.batch * items, [=, this](size_t all) {
            const size_t b = all / items, item = all % items;
            if (item < of_question) {
                project_question(b, item, mix);
            } else if (item < items - 1) {
                const size_t first = (item - of_question) * block, start = b * m_in.length;
                project_states(start + first, start + std::min(first + block, m_in.length));
            } else {
                project_mean(b, bias);
            }
        });
        add_blocks(stages, [=, this, &features](size_t b, size_t first, size_t last) {
            const size_t at = b * m_in.length + first;
            m_kernels.features(first_layer(b, mix), projected(at), last - first, m_shape.width,
                               features.data() + at * m_shape.width);
            clear_padding(b, first, last, features);
        });
    }

    /// The last neighbourhood also sees all of the context, by its pooled features.
    void add_neighbourhood(Stages& stages, size_t k, const Floats& features, Floats& next) {
        const size_t length = m_in.length, width = m_shape.width;
        Neighbourhood neighbourhood{};
        neighbourhood.size = m_shape.kernel_sizes[k];
        neighbourhood.kernel = take(neighbourhood.size * width);
        neighbourhood.bias = take(width);
        neighbourhood.mix = take(width * width);
        neighbourhood.mix_bias = take(width);
        const bool is_last = k + 1 == m_shape.kernel_sizes.size();
        if (is_last) {
            const float* pool = take(width * width);
            stages.add(m_in.batch, [=, this, &features](size_t b) {
                pool_context(features.data() + b * length * width, m_in.is_protected + b * length,
                             m_in.mask + b * length, length, width, pool, neighbourhood.mix_bias,
                             m_scratch.mix_bias.data() + b * width);
            });
        }
        add_blocks(stages, [=, this, &features, &next](size_t b, size_t first, size_t last) {
            Neighbourhood of_sequence = neighbourhood;
            if (is_last)
                of_sequence.mix_bias = m_scratch.mix_bias.data() + b * width;
            m_kernels.convolve_mix(of_sequence, features.data() + b * length * width, length, width, first, last,
                                   next.data() + b * length * width);
            clear_padding(b, first, last, next);
        });
    }

    const ScorerKernels& m_kernels;
    const ScorerShape& m_shape;
    const ScorerPanels& m_panels;
    const float* m_tensors;  // the next tensor to take
    const ScorerInputs& m_in;
    Scratch& m_scratch;
    size_t m_stride;  // floats of a projected row
};

}  // namespace

size_t ScorerShape::floats(size_t hidden) const {
    size_t size = floats_of_panels(hidden) + (heads + 2) * width + 1;
    for (size_t kernel_size : kernel_sizes)
        size += (kernel_size + width + 2) * width;
    if (!kernel_sizes.empty())
        size += width * width;
    return size;
}

void compute_significance(const ScorerKernels& kernels, const ScorerShape& shape, const ScorerPanels& panels,
                          const float* tensors, const ScorerInputs& inputs, float* significance) {
    const Lent<Scratch> scratch;
    Pass pass(kernels, shape, panels, tensors, inputs, *scratch);
    // A thread that waits in here must not pick up another request, which would delay this one.
    tbb::this_task_arena::isolate([&] {
        Stages stages(tbb::this_task_arena::max_concurrency());
        pass.add_to(stages, significance);
        stages.run();
    });
}

}  // namespace dynamic_tinybert
