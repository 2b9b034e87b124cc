#pragma once

#include <memory>
#include <mutex>
#include <openvino/op/op.hpp>
#include <vector>

#include "kernels/aligned.hpp"
#include "kernels/scorer_kernels.hpp"
#include "ops/scorer_pass.hpp"

namespace dynamic_tinybert {

/// Learnt significance: the sigmoid of the logit that a layer's scorer (docs/bundle-format.md) gives a token, plus 1
/// for protected tokens, which the scorer treats as the question.
///
/// Inputs, all f32. There are few of them, because OpenVINO prepares each input at every call.
/// - state: [B, L, H].
/// - protected: [B, L], 1 for protected tokens, else 0.
/// - mask: [B, L], exactly 0 for a real token.
/// - scorer: vector that concatenates the scorer's tensors, W being its width:
///   - weights in panels [H, 16]: of the first layer for the state (W / 16 panels); of the tokens' keys, head by head,
///     divided by sqrt(head_size) (heads * head_size / 16 panels); of the question's keys (as many); of the first layer
///     for the mean state of the question (W / 16 panels).
///   - the bias of the first layer, [W], and the weights of the similarities, [heads, W].
///   - for each neighbourhood of K tokens the convolution [K, W], its bias [W], the mixing matrix [W, W] with a row for
///     each input, and its bias [W]; for the last neighbourhood also the matrix [W, W] of the pooled context.
///   - the weights [W] and bias [1] of the output.
///
/// Output: significance f32 [B, L]; at padding, the value of `protected`. Padding, wherever it is, other sequences and
/// the number of threads do not change a bit of a real token's significance.
///
/// Attributes:
/// - width: W, a multiple of 16.
/// - heads: number of similarities between a token and the question.
/// - head_size: length of the keys that are compared for each similarity.
/// - kernel_sizes: K of each neighbourhood, odd.
/// - int12: project states with integers of 12 bits, which is faster than f32.
class LearntSignificance : public ov::op::Op {
public:
    OPENVINO_OP("LearntSignificance", "dynamic_tinybert");

    LearntSignificance() = default;

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    bool has_evaluate() const override;
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    using Floats = Aligned<float>;

    void evaluate_with_holes(ov::TensorVector& outputs, const ov::TensorVector& inputs) const;
    std::shared_ptr<const Floats> packed(const float* columns, size_t hidden) const;

    int64_t m_width = 0;
    int64_t m_heads = 0;
    int64_t m_head_size = 0;
    std::vector<int64_t> m_kernel_sizes;
    bool m_int12 = false;
    ScorerShape m_shape;  // of these attributes
    const ScorerKernels* m_kernels = nullptr;  // chosen once; copies of the op keep it
    mutable std::mutex m_packing;
    mutable std::shared_ptr<const Floats> m_packed;  // of the constant at m_packed_from
    mutable const float* m_packed_from = nullptr;
};

}  // namespace dynamic_tinybert
