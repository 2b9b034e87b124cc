#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <openvino/core/model.hpp>
#include <openvino/runtime/tensor.hpp>
#include <utility>
#include <vector>

namespace dynamic_tinybert {

/// The nodes of a model in the order in which they are evaluated, and the tensors that each reads and writes. Several
/// threads may run it at the same time.
class TensorProgram : public std::enable_shared_from_this<TensorProgram> {
public:
    using TypeAndRank = std::pair<ov::element::Type, size_t>;  // the rank is 0 if it is not known

    /// Throws ov::AssertFailure if a node cannot be evaluated by itself.
    explicit TensorProgram(const ov::Model& model);

    /// Evaluates the model; `outputs` get their shapes.
    void run(ov::TensorVector& outputs, const ov::TensorVector& inputs) const;

    const std::vector<TypeAndRank>& parameter_types() const { return m_parameter_types; }
    const std::vector<TypeAndRank>& result_types() const { return m_result_types; }

private:
    struct Step {
        std::shared_ptr<ov::Node> node;
        std::vector<size_t> reads;  // places in a table of tensors
        std::vector<size_t> writes;
    };

    std::unique_ptr<ov::TensorVector> unused_table() const;

    std::vector<TypeAndRank> m_parameter_types;
    std::vector<TypeAndRank> m_result_types;
    std::vector<Step> m_steps;
    ov::TensorVector m_first;       // a table with constants in their places, and empty tensors of the right types
    std::vector<size_t> m_results;  // the place of each result
    std::vector<bool> m_is_given;   // whether a result is a parameter, a constant, or another result, too
    mutable std::mutex m_mutex;
    mutable std::vector<std::unique_ptr<ov::TensorVector>> m_tables;  // of earlier calls, so that memory is used again
};

}  // namespace dynamic_tinybert
