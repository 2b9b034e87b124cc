#pragma once

#include <memory>
#include <openvino/op/op.hpp>
#include <string>
#include <vector>

#include "ops/linear_chain.hpp"

namespace dynamic_tinybert {

/// Consecutive halves of encoder layers, in each of which 8-bit integers are multiplied: the attention half, which ends
/// with the LayerNorm after attention's output projection, and the feed-forward half. It computes what one Attention
/// and two QuantizedLinears, or one QuantizedLinears, compute for each half, to the bit. As one node it costs OpenVINO
/// one inference of shapes instead of many, and threads meet twice a layer instead of ten times.
///
/// Inputs:
/// - state: f32 [B, L, H].
/// - mask: f32 [B, L], exactly 0 for a real token.
/// - numbers: f32 [2, halves], a Constant, as attributes that are lists of floats lose digits in a stored graph. For
///   each half 0 or the inv_scale by which attention quantises its context, see Attention; then for each half what its
///   LayerNorm adds to the variance.
/// - then the constants of each half as QuantizedLinears takes them: for an attention half i8 vectors of query, key and
///   value side by side, and of the output projection; for a feed-forward half one i8 vector.
///
/// Output: the state after the last half, f32 [B, L, H].
///
/// Attributes:
/// - inner_widths: for each half the width of its inner rows in feed-forward halves, 0 in attention halves.
/// - heads: attention heads; H is a multiple of it.
/// - zero_points: two for each half, whole numbers: of the rows of its first product, and of those of its second one.
/// - isa, weight_bytes: see QuantizedLinears; two sizes for each half.
class EncoderLayers : public ov::op::Op {
public:
    OPENVINO_OP("EncoderLayers", "dynamic_tinybert");

    EncoderLayers() = default;

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    /// A chain of products and the input that holds its constants.
    struct Part {
        LinearChain chain;
        ChainConstants constants;
        size_t input;
        bool quantizes;
    };

    /// What the attributes and the constants say, after checks.
    struct Halves {
        std::vector<std::unique_ptr<Part>> parts;  // in the order of their inputs
        std::vector<float> inv_scales;             // for each half
        const AttentionKernels* attention;
    };

    std::shared_ptr<const Halves> checked() const;

    std::vector<int64_t> m_inner_widths;
    int64_t m_heads = 0;
    std::vector<float> m_zero_points;
    std::string m_isa;
    std::vector<int64_t> m_weight_bytes;
    std::shared_ptr<const Halves> m_halves;  // checked once; copies of the op share it, and the weights that it packs
};

}  // namespace dynamic_tinybert
