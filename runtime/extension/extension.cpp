// The exports of the library: the ops for OpenVINO, and C functions about instruction sets for ctypes.

#include <exception>
#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <string>

#include "kernels/tiles.hpp"
#include "ops/attention.hpp"
#include "ops/context_significance.hpp"
#include "ops/encoder_layers.hpp"
#include "ops/float_linear.hpp"
#include "ops/isa.hpp"
#include "ops/joined_ops.hpp"
#include "ops/learnt_significance.hpp"
#include "ops/quantized_embeddings.hpp"
#include "ops/quantized_linears.hpp"
#include "ops/restore_logits.hpp"
#include "ops/select_tokens.hpp"

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>({
    std::make_shared<ov::OpExtension<dynamic_tinybert::SelectTokens>>(),
    std::make_shared<ov::OpExtension<dynamic_tinybert::Attention>>(),
    std::make_shared<ov::OpExtension<dynamic_tinybert::AttentionWithSignificance>>(),
    std::make_shared<ov::OpExtension<dynamic_tinybert::ContextSignificance>>(),
    std::make_shared<ov::OpExtension<dynamic_tinybert::EncoderLayers>>(),
    std::make_shared<ov::OpExtension<dynamic_tinybert::FloatLinear>>(),
    std::make_shared<ov::OpExtension<dynamic_tinybert::JoinedOps>>(),
    std::make_shared<ov::OpExtension<dynamic_tinybert::LearntSignificance>>(),
    std::make_shared<ov::OpExtension<dynamic_tinybert::QuantizedEmbeddings>>(),
    std::make_shared<ov::OpExtension<dynamic_tinybert::QuantizedLinears>>(),
    std::make_shared<ov::OpExtension<dynamic_tinybert::RestoreLogits>>(),
}));

/// The instruction set that an op created now would use, or "error: " followed by the reason why there is none.
/// The text is valid until the next call of the same thread.
extern "C" __attribute__((visibility("default"))) const char* dynamic_tinybert_isa() {
    thread_local std::string text;
    try {
        text = dynamic_tinybert::choose_kernels().isa;
    } catch (const std::exception& error) {
        text = std::string("error: ") + error.what();
    }
    return text.c_str();
}

/// The instruction sets that this CPU can run, fastest first, separated by commas.
extern "C" __attribute__((visibility("default"))) const char* dynamic_tinybert_isas() {
    static const std::string names = dynamic_tinybert::runnable_isas();
    return names.c_str();
}

/// The instruction sets that this CPU has but the operating system does not let this process use, separated by commas.
extern "C" __attribute__((visibility("default"))) const char* dynamic_tinybert_refused_isas() {
    return dynamic_tinybert::cpu_has_tiles() && !dynamic_tinybert::may_use_tiles() ? "amx" : "";
}

/// The instruction sets that were passed over because their kernels give wrong results here, separated by commas.
extern "C" __attribute__((visibility("default"))) const char* dynamic_tinybert_distrusted_isas() {
    static const std::string names = dynamic_tinybert::distrusted_isas();
    return names.c_str();
}

/// Whether a graph of these ops is faster than one of OpenVINO's nodes, with the instruction set of an op created now.
extern "C" __attribute__((visibility("default"))) bool dynamic_tinybert_is_worth_fusing() {
    try {
        return dynamic_tinybert::choose_kernels().worth_fusing;
    } catch (const std::exception&) {
        return false;
    }
}

/// Packs weights, i8 [width, depth], for an instruction set that this CPU can run. If `packed` is null, only returns
/// the number of bytes that they will take; else writes them there and returns 0.
extern "C" __attribute__((visibility("default"))) size_t dynamic_tinybert_pack(const char* isa, const int8_t* weights,
                                                                               size_t width, size_t depth,
                                                                               int8_t* packed) {
    const dynamic_tinybert::LinearKernels& kernels = *dynamic_tinybert::runnable_kernels(isa)->linear_int8;
    if (!packed)
        return kernels.packed_size(weights, width, depth);
    kernels.pack(weights, width, depth, packed);
    return 0;
}
