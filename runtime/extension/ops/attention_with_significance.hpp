#pragma once

#include <openvino/op/op.hpp>

#include "kernels/attention_kernels.hpp"

namespace dynamic_tinybert {

/// Multi-head self-attention that also says how much attention each token receives.
///
/// Inputs: query, key and value side by side, f32 [B, L, 3 D]; mask f32 [B, L], exactly 0 for a real token.
///
/// Outputs: context [B, L, D]; significance f32 [B, L], the sum over heads and real query rows of the softmax
/// probability of that token. Scores are scaled by 1 / sqrt(D / heads). Padding has probability, context and
/// significance 0; a real token's results do not change by a bit with padding, other sequences or threads.
///
/// Attributes:
/// - heads: attention heads; D is a multiple of it.
/// - significance: false leaves the second output out.
/// - int16: multiply integers, queries and keys of 12 bits, probabilities and values of 16, which is faster than f32.
/// - units, zero_point: with units above 0 the context is u8, context * units + zero_point, rounded to even and held
///   within 0 ... 255; else f32.
class AttentionWithSignificance : public ov::op::Op {
public:
    OPENVINO_OP("AttentionWithSignificance", "dynamic_tinybert");

    AttentionWithSignificance() = default;

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    bool has_evaluate() const override;
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    int64_t m_heads = 0;
    bool m_significance = true;
    bool m_int16 = false;
    float m_units = 0.0f;
    float m_zero_point = 0.0f;
    const AttentionKernels* m_kernels = nullptr;  // chosen once; copies of the op keep it
};

}  // namespace dynamic_tinybert
