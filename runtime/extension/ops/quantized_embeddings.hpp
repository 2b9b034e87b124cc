#pragma once

#include <openvino/op/op.hpp>

#include "ops/isa.hpp"

namespace dynamic_tinybert {

/// BERT's embeddings: the sum of each token's word, segment and position embedding, then LayerNorm. Word embeddings are
/// quantised to 8 bits.
///
/// Inputs:
/// - ids: i32 [B, L], indices of words, 0 ... V - 1.
/// - types: i32 [B, L], indices of segments, 0 ... T - 1.
/// - words: i8 [V, H].
/// - numbers: f32 vector that concatenates the scale of each word, [V]; gamma and beta, [2, H]; the segment embeddings,
///   [T, H]; and the position embeddings, [P, H], where P is at least L.
///
/// Output: f32 [B, L, H], (x - mean) / sqrt(variance + epsilon) * gamma + beta, where
/// x[b, i] = words[ids[b, i]] * scale[ids[b, i]] + segments[types[b, i]] + positions[i].
///
/// Attributes:
/// - segments: T.
/// - positions: P.
/// - epsilon: added to the variance.
class QuantizedEmbeddings : public ov::op::Op {
public:
    OPENVINO_OP("QuantizedEmbeddings", "dynamic_tinybert");

    QuantizedEmbeddings() = default;

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    bool has_evaluate() const override;
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    int64_t m_segments = 0;
    int64_t m_positions = 0;
    float m_epsilon = 1e-12f;
    const Kernels* m_kernels = nullptr;  // chosen once; copies of the op keep them
};

}  // namespace dynamic_tinybert
