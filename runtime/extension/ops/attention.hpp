#pragma once

#include <openvino/op/op.hpp>

#include "kernels/attention_kernels.hpp"

namespace dynamic_tinybert {

/// Multi-head self-attention of real tokens.
///
/// Inputs:
/// - projections: f32 [B, L, 3 D], query, key and value side by side; or, with a third input, [B, L, 2 D], key and
///   value.
/// - mask: f32 [B, L], exactly 0 for a real token.
/// - query, optional: f32 [B, Q, D], of the first Q tokens alone.
///
/// Output: context [B, L, D], or [B, Q, D] with a third input. Scores are scaled by 1 / sqrt(D / heads). Padding has probability and context 0; padding,
/// other sequences and the number of threads do not change a bit of a real token's result.
///
/// Attributes:
/// - heads: attention heads; D is a multiple of it.
/// - int16: multiply integers, which is faster than f32: 12-bit queries and keys, 16-bit probabilities and values.
/// - inv_scale, zero_point: if inv_scale is above 0, the context is u8, context * inv_scale + zero_point, rounded to
///   even and clamped to 0 ... 255; else it is f32.
class Attention : public ov::op::Op {
public:
    OPENVINO_OP("Attention", "dynamic_tinybert");

    Attention() = default;

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

protected:
    void copy_to(Attention& copy, const ov::OutputVector& inputs) const;
    /// Computes the context and, unless `significance` is null, the significance [B, L].
    void compute(ov::Tensor& context, float* significance, const ov::TensorVector& inputs) const;

    int64_t m_heads = 0;
    bool m_int16 = false;

private:
    float m_inv_scale = 0.0f;
    float m_zero_point = 0.0f;
    const AttentionKernels* m_kernels = nullptr;  // chosen once; copies of the op keep it
};

/// Attention whose context is f32, with a second output: significance f32 [B, L], the attention probability that a
/// token receives, summed over heads and real query tokens; 0 at padding.
class AttentionWithSignificance : public Attention {
public:
    OPENVINO_OP("AttentionWithSignificance", "dynamic_tinybert", Attention);

    AttentionWithSignificance() = default;

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;
};

}  // namespace dynamic_tinybert
