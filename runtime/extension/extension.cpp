// What the library exports: the opset to OpenVINO, and to ctypes which instruction set it uses.

#include <exception>
#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <string>

#include "attention_with_significance.hpp"
#include "context_significance.hpp"
#include "isa.hpp"
#include "learnt_significance.hpp"
#include "quantized_embeddings.hpp"
#include "quantized_linears.hpp"
#include "restore_logits.hpp"
#include "select_tokens.hpp"

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>({
    std::make_shared<ov::OpExtension<dynamic_tinybert::SelectTokens>>(),
    std::make_shared<ov::OpExtension<dynamic_tinybert::AttentionWithSignificance>>(),
    std::make_shared<ov::OpExtension<dynamic_tinybert::ContextSignificance>>(),
    std::make_shared<ov::OpExtension<dynamic_tinybert::LearntSignificance>>(),
    std::make_shared<ov::OpExtension<dynamic_tinybert::QuantizedEmbeddings>>(),
    std::make_shared<ov::OpExtension<dynamic_tinybert::QuantizedLinears>>(),
    std::make_shared<ov::OpExtension<dynamic_tinybert::RestoreLogits>>(),
}));

/// The instruction set that an op made now would use, or "error: " and why there is none.
/// The text is valid until the thread's next call.
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

/// Whether attention is faster in integers than in f32 with the instruction set that an op made now would use.
extern "C" __attribute__((visibility("default"))) bool dynamic_tinybert_int16_attention() {
    try {
        return dynamic_tinybert::choose_kernels().int16_attention != nullptr;
    } catch (const std::exception&) {
        return false;
    }
}
