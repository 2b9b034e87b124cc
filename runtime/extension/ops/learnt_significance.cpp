#include "ops/learnt_significance.hpp"

#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <openvino/op/constant.hpp>
#include <vector>

#include "ops/dimensions.hpp"
#include "ops/isa.hpp"
#include "ops/memory.hpp"

namespace dynamic_tinybert {
namespace {

enum Input : size_t { state_in, question_in, mask_in, scorer_in, num_inputs };

constexpr size_t block = 12;  // tokens of a work item
constexpr size_t panels_of_a_task = 4;  // for the question's tokens, whose conversion to integers they share

/// Memory of one call, kept by its thread for the next one.
struct Scratch {
    Floats mean;         // [B, H]: of the question's states
    Floats bias;         // [B, W]: what the question as a whole adds
    Floats question;     // [B, L, H]: states of the question's tokens, then unused rows
    Floats asked;        // [B, L + 15, compared]: what these are compared by, see FirstLayer
    Floats projected;    // [B, L, W + compared]
    Floats features[2];  // [B, L, W]: what one step reads and the next one writes
    Floats mix_bias;     // [B, W]: of the last neighbourhood, which sees all of the context
    std::vector<size_t> num_question;  // [B]: rows of `question` that are used
};

/// Copies the states of the question's tokens and averages them, to zeros if there are none; returns their number.
size_t gather_question(const float* state, const float* question, const float* mask, size_t length, size_t hidden,
                       float* gathered, float* mean) {
    size_t count = 0;
    std::fill_n(mean, hidden, 0.0f);
    for (size_t i = 0; i < length; ++i)
        if (mask[i] == 0.0f && question[i] != 0.0f) {
            std::copy_n(state + i * hidden, hidden, gathered + count++ * hidden);
            for (size_t k = 0; k < hidden; ++k)
                mean[k] += state[i * hidden + k];
        }
    for (size_t k = 0; k < hidden; ++k)
        mean[k] /= static_cast<float>(std::max<size_t>(count, 1));
    return count;
}

/// Whether a real token stands behind one that is none.
bool has_holes(const float* mask, size_t batch, size_t length) {
    for (size_t i = 1; i < batch * length; ++i)
        if (mask[i] == 0.0f && mask[i - 1] != 0.0f && i % length)
            return true;
    return false;
}

/// Rows of the real tokens to the front of their sequences, behind them those of the others.
void pack_rows(const float* mask, size_t batch, size_t length, const float* from, size_t width, float* to) {
    for (size_t b = 0; b < batch; ++b, mask += length, from += length * width)
        for (const bool real : {true, false})
            for (size_t i = 0; i < length; ++i)
                if ((mask[i] == 0.0f) == real)
                    to = std::copy_n(from + i * width, width, to);
}

/// Takes the scorer's tensors from the front of what is left of them.
struct Reader {
    const float* at;
    const float* take(size_t size) {
        at += size;
        return at - size;
    }
};

/// to[W] = bias + pool * the largest value of each feature among the tokens of the context, at least 0
void pool_context(const float* features, const float* question, const float* mask, size_t length, size_t width,
                  const float* pool, const float* bias, float* to) {
    thread_local std::vector<float> largest;
    largest.assign(width, 0.0f);
    for (size_t i = 0; i < length; ++i, features += width)
        if (mask[i] == 0.0f && question[i] == 0.0f)
            for (size_t w = 0; w < width; ++w)
                largest[w] = std::max(largest[w], features[w]);
    std::copy_n(bias, width, to);
    for (size_t k = 0; k < width; ++k)
        for (size_t w = 0; w < width; ++w)
            to[w] += largest[k] * pool[k * width + w];
}

/// Puts `count` columns, the first of them being `first`, of what the question's tokens are compared by in their place.
void place_asked(const float* compared, size_t num_question, size_t first, size_t count, const FirstLayer& layer,
                 float* asked) {
    for (size_t c = first; c < std::min(first + count, layer.heads * layer.head_size); ++c) {
        const size_t head = c / layer.head_size, of_head = c % layer.head_size;
        float* to = asked + head * layer.num_asked * layer.head_size + of_head * scorer_columns;
        for (size_t j = 0; j < layer.num_asked; j += scorer_columns, to += layer.head_size * scorer_columns)
            for (size_t lane = 0; lane < scorer_columns; ++lane)
                to[lane] = compared[std::min(j + lane, num_question - 1) * count + c - first];
    }
}

float dot(const float* a, const float* b, size_t width) {
    float sums[scorer_columns] = {};  // independent of each other, so that they fit into vectors
    for (size_t w = 0; w < width; w += scorer_columns)
        for (size_t j = 0; j < scorer_columns; ++j)
            sums[j] += a[w + j] * b[w + j];
    return std::accumulate(sums, sums + scorer_columns, 0.0f);
}

}  // namespace

bool LearntSignificance::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("width", m_width);
    visitor.on_attribute("heads", m_heads);
    visitor.on_attribute("head_size", m_head_size);
    visitor.on_attribute("kernel_sizes", m_kernel_sizes);
    visitor.on_attribute("int12", m_int12);
    return true;
}

std::shared_ptr<ov::Node> LearntSignificance::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<LearntSignificance>();
    copy->m_width = m_width;
    copy->m_heads = m_heads;
    copy->m_head_size = m_head_size;
    copy->m_kernel_sizes = m_kernel_sizes;
    copy->m_int12 = m_int12;
    copy->m_kernels = m_kernels;
    copy->set_arguments(inputs);
    copy->constructor_validate_and_infer_types();
    return copy;
}

/// Panels of what tokens are compared by.
size_t LearntSignificance::compared_panels() const {
    return (m_heads * m_head_size + scorer_columns - 1) / scorer_columns;
}

size_t LearntSignificance::num_panels() const {
    return 2 * (m_width / scorer_columns + compared_panels());
}

/// Floats of the scorer's tensors together.
size_t LearntSignificance::scorer_size(size_t hidden) const {
    const size_t width = m_width;
    size_t size = num_panels() * hidden * scorer_columns + (m_heads + 2) * width + 1;
    for (int64_t kernel_size : m_kernel_sizes)
        size += (kernel_size + width + 2) * width;
    if (!m_kernel_sizes.empty())
        size += width * width;
    return size;
}

void LearntSignificance::validate_and_infer_types() {
    OPENVINO_ASSERT(get_input_size() == num_inputs, "LearntSignificance: ", get_input_size(),
                    " inputs; give state, question, mask and the scorer's tensors");
    OPENVINO_ASSERT(m_width > 0 && m_width % scorer_columns == 0, "LearntSignificance: width ", m_width,
                    " is not a multiple of ", scorer_columns, "; fill the scorer up with zeros");
    OPENVINO_ASSERT(m_heads > 0 && m_head_size > 0, "LearntSignificance: ", m_heads, " heads of ", m_head_size,
                    " numbers; give at least one of each");
    for (int64_t size : m_kernel_sizes) {
        OPENVINO_ASSERT(size > 0 && size % 2 == 1, "LearntSignificance: a convolution sees ", size,
                        " tokens; it must be an odd number, to centre on one");
        check_size("LearntSignificance", "the number of tokens that a convolution sees", size, largest_size);
    }
    check_size("LearntSignificance", "width", m_width, largest_size);
    check_size("LearntSignificance", "heads", m_heads, largest_size);
    check_size("LearntSignificance", "head_size", m_head_size, largest_size);
    check_size("LearntSignificance", "the number of convolutions", m_kernel_sizes.size(), largest_size);
    ov::Dimension batch, length, hidden, size;
    const auto check = [&](size_t input, const char* name, std::initializer_list<ov::Dimension*> dimensions) {
        OPENVINO_ASSERT(get_input_element_type(input) == ov::element::f32, "LearntSignificance: ", name,
                        " is of type ", get_input_element_type(input), "; convert it to f32");
        const ov::PartialShape& shape = get_input_partial_shape(input);
        OPENVINO_ASSERT(merge_dimensions(shape, dimensions), "LearntSignificance: ", name, " has shape ", shape,
                        " beside a state of shape ",
                        get_input_partial_shape(state_in),
                        "; give state [B, L, H], question and mask [B, L], the scorer's tensors as one vector");
    };
    check(state_in, "the state", {&batch, &length, &hidden});
    check(question_in, "the question", {&batch, &length});
    check(mask_in, "the mask", {&batch, &length});
    check(scorer_in, "the scorer", {&size});
    check_size("LearntSignificance", "the width of the states", hidden, largest_size);
    OPENVINO_ASSERT(hidden.is_dynamic() || size.compatible(scorer_size(hidden.get_length())),
                    "LearntSignificance: the scorer has ", size, " numbers where width ", m_width,
                    " and states as wide as ", hidden, " need ", scorer_size(hidden.get_length()));
    if (!m_kernels) {
        const Kernels& kernels = choose_kernels();
        m_kernels = m_int12 ? kernels.scorer_int12 : kernels.scorer_f32;
    }
    set_output_type(0, ov::element::f32, {batch, length});
}

/// The columns of a constant are packed once, which spares each call to read and convert them. A caller holds on to what
/// it got, since another thread's may replace it.
std::shared_ptr<const Floats> LearntSignificance::packed(const float* columns, size_t hidden) const {
    const bool is_constant = ov::is_type<ov::op::v0::Constant>(get_input_node_ptr(scorer_in));
    const std::lock_guard<std::mutex> lock(m_packing);
    if (is_constant && m_packed && m_packed_from == columns)
        return m_packed;
    const auto floats = std::make_shared<Floats>(m_kernels->packed_size(hidden, num_panels()));
    const ScorerPanels panels{columns, floats->data(), hidden, num_panels()};
    for (size_t panel = 0; panel < panels.count; ++panel)
        m_kernels->pack(panels, panel, floats->data());
    m_packed = floats;
    m_packed_from = columns;
    return m_packed;
}

bool LearntSignificance::has_evaluate() const {
    return true;
}

/// What a mask leaves out among real tokens is no neighbour of theirs: they are put side by side.
void LearntSignificance::evaluate_packed(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape shape = inputs[state_in].get_shape();
    const size_t batch = shape[0], length = shape[1];
    const float *question = inputs[question_in].data<const float>(), *mask = inputs[mask_in].data<const float>();
    ov::TensorVector packed_outputs{{ov::element::f32, {batch, length}}}, packed_inputs = inputs;
    for (size_t input : {state_in, question_in, mask_in}) {
        packed_inputs[input] = {ov::element::f32, inputs[input].get_shape()};
        pack_rows(mask, batch, length, inputs[input].data<const float>(), input == state_in ? shape[2] : 1,
                  packed_inputs[input].data<float>());
    }
    evaluate(packed_outputs, packed_inputs);
    outputs[0].set_shape({batch, length});
    const float* significance = packed_outputs[0].data<const float>();
    for (size_t b = 0, token = 0; b < batch; ++b, token = b * length)
        for (size_t i = b * length; i < (b + 1) * length; ++i)
            outputs[0].data<float>()[i] = mask[i] == 0.0f ? significance[token++] : question[i];
}

bool LearntSignificance::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape shape = inputs[state_in].get_shape();
    const size_t batch = shape[0], length = shape[1], hidden = shape[2];
    check_shape("LearntSignificance", "the question", inputs[question_in], {batch, length});
    check_shape("LearntSignificance", "the mask", inputs[mask_in], {batch, length});
    check_size("LearntSignificance", "the width of the states", hidden, largest_size);
    check_shape("LearntSignificance", "the scorer", inputs[scorer_in], {scorer_size(hidden)});
    if (has_holes(inputs[mask_in].data<const float>(), batch, length)) {
        evaluate_packed(outputs, inputs);
        return true;
    }
    const size_t width = m_width, panels = width / scorer_columns;
    const size_t stride = width + compared_panels() * scorer_columns;
    const float* state = inputs[state_in].data<const float>();
    const float* question = inputs[question_in].data<const float>();
    const float* mask = inputs[mask_in].data<const float>();
    Reader scorer{inputs[scorer_in].data<const float>()};
    outputs[0].set_shape({batch, length});
    float* significance = outputs[0].data<float>();

    thread_local Scratch thread_scratch;
    Scratch& scratch = thread_scratch;  // by this name the threads below share it
    const float* columns = scorer.take(num_panels() * hidden * scorer_columns);
    const auto packed_columns = packed(columns, hidden);
    const ScorerPanels weights{columns, packed_columns->data(), hidden, num_panels()};
    at_least(scratch.mean, batch * hidden);
    at_least(scratch.bias, batch * width);
    at_least(scratch.mix_bias, batch * width);
    at_least(scratch.question, batch * length * hidden);
    at_least(scratch.asked, batch * (length + scorer_columns - 1) * m_heads * m_head_size);
    at_least(scratch.projected, batch * length * stride);
    at_least(scratch.num_question, batch);
    for (Floats& features : scratch.features)
        at_least(features, batch * length * width);

    // Runs `compute(b, first, last)` on blocks of tokens; then padding gets zeros, which no neighbour notices.
    const size_t blocks = (length + block - 1) / block;
    const auto for_blocks = [&](Floats& features, const auto& compute) {
        tbb::parallel_for(size_t{0}, batch * blocks, [&](size_t item) {
            const size_t b = item / blocks, first = item % blocks * block, last = std::min(first + block, length);
            compute(b, first, last);
            for (size_t i = first; i < last; ++i)
                if (mask[b * length + i] != 0.0f)
                    std::fill_n(features.data() + (b * length + i) * width, width, 0.0f);
        });
    };

    // A thread that waits in here must not pick up another request, which would use the same scratch.
    tbb::this_task_arena::isolate([&] {
        for (size_t b = 0; b < batch; ++b)
            scratch.num_question[b] =
                gather_question(state + b * length * hidden, question + b * length, mask + b * length, length, hidden,
                                scratch.question.data() + b * length * hidden, scratch.mean.data() + b * hidden);
        const float *bias = scorer.take(width), *match = scorer.take(m_heads * width);
        const size_t of_question = panels + compared_panels(), of_mean = of_question + compared_panels();
        const auto asked = [&](size_t b) {
            return scratch.asked.data() + b * (length + scorer_columns - 1) * m_heads * m_head_size;
        };
        const auto first_layer = [&](size_t b) {
            const size_t num_asked = (scratch.num_question[b] + scorer_columns - 1) / scorer_columns * scorer_columns;
            return FirstLayer{scratch.bias.data() + b * width,
                              asked(b),
                              match,
                              num_asked,
                              static_cast<size_t>(m_heads),
                              static_cast<size_t>(m_head_size),
                              stride};
        };
        const size_t tasks = (of_mean - of_question + panels_of_a_task - 1) / panels_of_a_task;
        tbb::parallel_for(size_t{0}, batch * (tasks + 1), [&](size_t item) {
            thread_local Floats compared;
            const size_t b = item / (tasks + 1), task = item % (tasks + 1);
            if (task == tasks) {
                float* to = scratch.bias.data() + b * width;
                m_kernels->project(weights, of_mean, panels, scratch.mean.data() + b * hidden, 1, to, width);
                for (size_t w = 0; w < width; ++w)
                    to[w] += bias[w];
            } else {
                const size_t first = of_question + task * panels_of_a_task, rows = scratch.num_question[b];
                const size_t count = std::min(panels_of_a_task, of_mean - first);
                m_kernels->project(weights, first, count, scratch.question.data() + b * length * hidden, rows,
                                   at_least(compared, rows * count * scorer_columns), count * scorer_columns);
                place_asked(compared.data(), rows, (first - of_question) * scorer_columns, count * scorer_columns,
                            first_layer(b), asked(b));
            }
        });
        Floats *features = &scratch.features[0], *next = &scratch.features[1];
        for_blocks(*features, [&](size_t b, size_t first, size_t last) {
            float* projected = scratch.projected.data() + (b * length + first) * stride;
            m_kernels->project(weights, 0, of_question, state + (b * length + first) * hidden, last - first, projected,
                               stride);
            m_kernels->features(first_layer(b), projected, last - first, width,
                                features->data() + (b * length + first) * width);
        });
        for (size_t stage = 0; stage < m_kernel_sizes.size(); ++stage) {
            Neighbourhood neighbourhood{};
            neighbourhood.size = m_kernel_sizes[stage];
            neighbourhood.kernel = scorer.take(neighbourhood.size * width);
            neighbourhood.bias = scorer.take(width);
            neighbourhood.mix = scorer.take(width * width);
            neighbourhood.mix_bias = scorer.take(width);
            const bool is_last = stage + 1 == m_kernel_sizes.size();
            if (is_last) {
                const float* pool = scorer.take(width * width);
                for (size_t b = 0; b < batch; ++b)
                    pool_context(features->data() + b * length * width, question + b * length, mask + b * length,
                                 length, width, pool, neighbourhood.mix_bias, scratch.mix_bias.data() + b * width);
            }
            for_blocks(*next, [&](size_t b, size_t first, size_t last) {
                Neighbourhood around = neighbourhood;
                if (is_last)
                    around.mix_bias = scratch.mix_bias.data() + b * width;
                m_kernels->look_around(around, features->data() + b * length * width, length, width, first, last,
                                       next->data() + b * length * width);
            });
            std::swap(features, next);
        }
        const float *weight = scorer.take(width), *output_bias = scorer.take(1);
        for (size_t i = 0; i < batch * length; ++i) {
            const float logit = dot(features->data() + i * width, weight, width) + *output_bias;
            significance[i] = question[i] + (mask[i] == 0.0f ? 1.0f / (1.0f + std::exp(-logit)) : 0.0f);
        }
    });
    return true;
}

}  // namespace dynamic_tinybert
