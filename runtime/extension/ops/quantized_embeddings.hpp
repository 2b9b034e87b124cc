#pragma once

#include <openvino/op/op.hpp>

#include "ops/isa.hpp"

namespace dynamic_tinybert {

/// What enters the first layer: each token's word, of a table of 8 bits, its segment and its position, normalised.
///
/// Inputs:
/// - ids: i32 [B, L], of words, in 0 ... V - 1.
/// - types: i32 [B, L], of segments, in 0 ... T - 1.
/// - words: i8 [V, H].
/// - numbers: f32 vector, one behind the other: the scale of each word, [V]; gamma and beta, [2, H]; the segments,
///   [T, H]; the positions, [P, H]; L is at most P.
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
