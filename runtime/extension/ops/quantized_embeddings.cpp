#include "ops/quantized_embeddings.hpp"

#include <algorithm>

#include "ops/dimensions.hpp"
#include "ops/rows.hpp"

namespace dynamic_tinybert {
namespace {

enum Input : size_t { ids_in, types_in, words_in, numbers_in, num_inputs };

constexpr size_t rows_ahead = 8;  // how far ahead words are prefetched, as the CPU cannot predict their places
constexpr size_t cache_line = 64;

/// Refuses indices outside a table of `rows`.
void check_rows(const char* name, const int32_t* indices, size_t count, size_t rows) {
    for (size_t i = 0; i < count; ++i)
        OPENVINO_ASSERT(indices[i] >= 0 && static_cast<size_t>(indices[i]) < rows, "QuantizedEmbeddings: ", name,
                        " hold ", indices[i], ", which is outside 0 ... ", rows - 1);
}

}  // namespace

bool QuantizedEmbeddings::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("segments", m_segments);
    visitor.on_attribute("positions", m_positions);
    visitor.on_attribute("epsilon", m_epsilon);
    return true;
}

std::shared_ptr<ov::Node> QuantizedEmbeddings::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<QuantizedEmbeddings>();
    copy->m_segments = m_segments;
    copy->m_positions = m_positions;
    copy->m_epsilon = m_epsilon;
    copy->m_kernels = m_kernels;
    copy->set_arguments(inputs);
    copy->constructor_validate_and_infer_types();
    return copy;
}

void QuantizedEmbeddings::validate_and_infer_types() {
    OPENVINO_ASSERT(get_input_size() == num_inputs, "QuantizedEmbeddings: ", get_input_size(),
                    " inputs; give ids, types, words and numbers");
    OPENVINO_ASSERT(m_segments > 0 && m_positions > 0, "QuantizedEmbeddings: ", m_segments, " segments and ",
                    m_positions, " positions; give at least one of each");
    check_size("QuantizedEmbeddings", "segments", m_segments, longest);
    check_size("QuantizedEmbeddings", "positions", m_positions, longest);
    OPENVINO_ASSERT(m_epsilon >= 0.0f, "QuantizedEmbeddings: epsilon ", m_epsilon, " must be at least 0");
    const ov::PartialShape& table = get_input_partial_shape(words_in);
    OPENVINO_ASSERT(table.is_static() && table.size() == 2 && table[0].get_length() > 0 && table[1].get_length() > 0,
                    "QuantizedEmbeddings: words has shape ", table, "; give [V, H], both known and at least 1");
    check_size("QuantizedEmbeddings", "the number of words", table[0], longest);
    check_size("QuantizedEmbeddings", "the width of the words", table[1], largest_size);
    ov::Dimension batch, length, words = table[0], hidden = table[1];
    ov::Dimension numbers = words + (2 + m_segments + m_positions) * hidden.get_length();
    const auto check = [&](size_t input, const char* name, const ov::element::Type& type,
                           std::initializer_list<ov::Dimension*> dimensions) {
        OPENVINO_ASSERT(get_input_element_type(input) == type, "QuantizedEmbeddings: ", name, " is of type ",
                        get_input_element_type(input), "; convert it to ", type);
        const ov::PartialShape& shape = get_input_partial_shape(input);
        OPENVINO_ASSERT(merge_dimensions(shape, dimensions), "QuantizedEmbeddings: ", name, " has shape ", shape,
                        " beside ids of shape ", get_input_partial_shape(ids_in), " and words of shape ", table,
                        "; give ids and types [B, L] and ", numbers, " numbers");
    };
    check(ids_in, "ids", ov::element::i32, {&batch, &length});
    check(types_in, "types", ov::element::i32, {&batch, &length});
    check(words_in, "words", ov::element::i8, {&words, &hidden});
    check(numbers_in, "numbers", ov::element::f32, {&numbers});
    if (!m_kernels)
        m_kernels = &choose_kernels();
    set_output_type(0, ov::element::f32, {batch, length, hidden});
}

bool QuantizedEmbeddings::has_evaluate() const {
    return true;
}

bool QuantizedEmbeddings::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape shape = inputs[ids_in].get_shape(), table = inputs[words_in].get_shape();
    const size_t length = shape[1], rows = shape[0] * length, width = table[1];
    OPENVINO_ASSERT(inputs[types_in].get_shape() == shape, "QuantizedEmbeddings: types have shape ",
                    inputs[types_in].get_shape(), " beside ids of shape ", shape);
    const size_t numbers = table[0] + (2 + m_segments + m_positions) * width;
    check_shape("QuantizedEmbeddings", "numbers", inputs[numbers_in], {numbers});
    OPENVINO_ASSERT(length <= static_cast<size_t>(m_positions), "QuantizedEmbeddings: ", length,
                    " tokens are more than the ", m_positions, " positions");
    const int32_t *ids = inputs[ids_in].data<const int32_t>(), *types = inputs[types_in].data<const int32_t>();
    check_rows("ids", ids, rows, table[0]);
    check_rows("types", types, rows, m_segments);

    const int8_t* words = inputs[words_in].data<const int8_t>();
    const float* scales = inputs[numbers_in].data<const float>();
    const float *gamma = scales + table[0], *beta = gamma + width, *segments = beta + width;
    const float* positions = segments + m_segments * width;
    const Normalization normalization{gamma, beta, m_epsilon, width};
    outputs[0].set_shape({shape[0], length, width});
    float* result = outputs[0].data<float>();
    for_rows(rows, width, [&](size_t first, size_t count) {
        for (size_t row = first; row < first + count; ++row) {
            const size_t word = ids[row], segment = types[row], later = ids[std::min(row + rows_ahead, rows - 1)];
            for (size_t k = 0; k < width; k += cache_line)
                __builtin_prefetch(words + later * width + k);
            __builtin_prefetch(scales + later);
            float* sum = result + row * width;  // normalised while it is still in the first-level cache
            m_kernels->add_word(words + word * width, scales[word], segments + segment * width, width, sum);
            m_kernels->add_and_normalize(normalization, sum, positions + row % length * width, 1, sum);
        }
    });
    return true;
}

}  // namespace dynamic_tinybert
