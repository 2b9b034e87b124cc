#pragma once

#include <openvino/op/op.hpp>

#include "attention_kernels.hpp"

namespace dynamic_tinybert {

/// Multi-head self-attention that also says how much attention each token receives.
///
/// Inputs: query, key, value f32 [B, L, D]; mask f32 [B, L], exactly 0 for a real token.
///
/// Outputs: context f32 [B, L, D]; significance f32 [B, L], the sum over heads and real query rows of the
/// softmax probability of that token. Scores are scaled by 1 / sqrt(D / heads). Padding has probability,
/// context and significance 0; a real token's results do not change by a bit with padding, other sequences or
/// threads.
///
/// Attributes:
/// - heads: attention heads; D is a multiple of it.
/// - significance: false leaves the second output out.
/// - int16: multiply integers, queries and keys of 12 bits, probabilities and values of 16, where this CPU does
///   that faster than f32; elsewhere nothing changes.
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
    const AttentionKernels* m_kernels = nullptr;  // chosen once; copies of the op keep it
};

}  // namespace dynamic_tinybert
