#pragma once

#include <memory>
#include <mutex>
#include <openvino/op/op.hpp>
#include <vector>

#include "kernels/aligned.hpp"
#include "kernels/scorer_kernels.hpp"

namespace dynamic_tinybert {

using Floats = Aligned<float>;

/// How much each token matters, by the scorer of a layer (docs/bundle-format.md): the sigmoid of its logit, plus
/// 1 for protected tokens.
///
/// Inputs, all f32: state [B, L, H]; question [B, L], 1 for protected tokens, else 0; mask [B, L], exactly 0 for
/// a real token; and the scorer's tensors of width W, one behind the other (few inputs: OpenVINO prepares each of
/// them at every call): weights in panels [H, 16], of the state (W / 16), of what a token is compared by, one
/// head after the other (heads * head_size / 16, divided by sqrt(head_size)), of what the question's tokens are compared
/// by (as many), and of the mean of their states (W / 16); a bias [W]; weights of the likeness [heads, W]; for each
/// neighbourhood a convolution [K, W], its bias [W], a mixing matrix [W, W] with a row for each input, its bias [W], and
/// for the last one another such matrix for the largest features of the context; weights [W] and bias [1] of the output.
///
/// Output: significance f32 [B, L], the question's value at padding. Whatever padding holds, and how much there
/// is behind or within a sequence, other sequences and threads do not change a real token's significance by a bit.
///
/// Attributes:
/// - width: W, a multiple of 16.
/// - heads: ways in which a token may be like one of the question's.
/// - head_size: numbers that are compared for each.
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
    size_t compared_panels() const;
    size_t num_panels() const;
    size_t scorer_size(size_t hidden) const;
    void evaluate_packed(ov::TensorVector& outputs, const ov::TensorVector& inputs) const;
    std::shared_ptr<const Floats> packed(const float* columns, size_t hidden) const;

    int64_t m_width = 0;
    int64_t m_heads = 0;
    int64_t m_head_size = 0;
    std::vector<int64_t> m_kernel_sizes;
    bool m_int12 = false;
    const ScorerKernels* m_kernels = nullptr;  // chosen once; copies of the op keep it
    mutable std::mutex m_packing;
    mutable std::shared_ptr<const Floats> m_packed;  // of the tensors at m_packed_from, a constant's
    mutable const float* m_packed_from = nullptr;
};

}  // namespace dynamic_tinybert
