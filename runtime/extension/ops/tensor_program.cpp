#include "ops/tensor_program.hpp"

#include <map>
#include <openvino/op/constant.hpp>
#include <openvino/op/parameter.hpp>
#include <openvino/op/result.hpp>
#include <set>
#include <utility>

namespace dynamic_tinybert {

namespace {

TensorProgram::TypeAndRank type_and_rank(const ov::Output<const ov::Node>& value) {
    const ov::Rank rank = value.get_partial_shape().rank();
    return {value.get_element_type(), rank.is_static() ? static_cast<size_t>(rank.get_length()) : 0};
}

}  // namespace

TensorProgram::TensorProgram(const ov::Model& model) {
    std::map<ov::Output<ov::Node>, size_t> places;
    std::set<size_t> given;
    const auto add = [&](const ov::Output<ov::Node>& value, const ov::Tensor& tensor) {
        places[value] = m_first.size();
        m_first.push_back(tensor);
        return m_first.size() - 1;
    };
    for (const auto& parameter : model.get_parameters()) {  // first, so that inputs have the places from 0 on
        given.insert(add(parameter->output(0), {}));
        m_parameter_types.push_back(type_and_rank(parameter->output(0)));
    }
    for (const auto& node : model.get_ordered_ops()) {
        if (ov::is_type<ov::op::v0::Parameter>(node) || ov::is_type<ov::op::v0::Result>(node))
            continue;
        if (const auto constant = ov::as_type_ptr<ov::op::v0::Constant>(node)) {
            given.insert(add(node->output(0), constant->get_tensor_view()));
            continue;
        }
        OPENVINO_ASSERT(node->has_evaluate(), "JoinedOps: ", node->get_friendly_name(), " of type ",
                        node->get_type_name(), " cannot be evaluated by itself; leave it out of the body");
        Step step{node, {}, {}};
        for (const auto& value : node->input_values())
            step.reads.push_back(places.at(value));
        for (const auto& value : node->outputs())
            step.writes.push_back(add(value, {value.get_element_type(), ov::Shape{0}}));
        m_steps.push_back(std::move(step));
    }
    for (const auto& result : model.get_results()) {
        m_results.push_back(places.at(result->input_value(0)));
        m_is_given.push_back(!given.insert(m_results.back()).second);
        m_result_types.push_back(type_and_rank(result->input_value(0)));
    }
}

std::unique_ptr<ov::TensorVector> TensorProgram::unused_table() const {
    {
        const std::lock_guard<std::mutex> lock(m_mutex);
        if (!m_tables.empty()) {
            auto table = std::move(m_tables.back());
            m_tables.pop_back();
            return table;
        }
    }
    auto table = std::make_unique<ov::TensorVector>(m_first);
    for (const Step& step : m_steps)
        for (const size_t place : step.writes)
            (*table)[place] = {m_first[place].get_element_type(), ov::Shape{0}};  // copies share their memory
    return table;
}

void TensorProgram::run(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    auto owner = unused_table();  // lost if a node throws
    ov::TensorVector& table = *owner;
    std::copy(inputs.begin(), inputs.end(), table.begin());
    const auto exchange_results = [&] {
        for (size_t i = 0; i < outputs.size(); ++i)
            if (!m_is_given[i])
                std::swap(outputs[i], table[m_results[i]]);
    };
    exchange_results();  // so that nodes write the outputs themselves
    ov::TensorVector read, written;
    for (const Step& step : m_steps) {
        read.clear();
        written.clear();
        for (const size_t place : step.reads)
            read.push_back(table[place]);
        for (const size_t place : step.writes)
            written.push_back(table[place]);
        OPENVINO_ASSERT(step.node->evaluate(written, read), "JoinedOps: ", step.node->get_friendly_name(), " of type ",
                        step.node->get_type_name(), " was not evaluated");
        for (size_t i = 0; i < written.size(); ++i)
            table[step.writes[i]] = written[i];  // if it is another one now
    }
    for (size_t i = 0; i < outputs.size(); ++i)
        if (m_is_given[i]) {
            outputs[i].set_shape(table[m_results[i]].get_shape());
            table[m_results[i]].copy_to(outputs[i]);
        }
    exchange_results();
    std::fill_n(table.begin(), inputs.size(), ov::Tensor{});
    const std::lock_guard<std::mutex> lock(m_mutex);
    m_tables.push_back(std::move(owner));
}

}  // namespace dynamic_tinybert
