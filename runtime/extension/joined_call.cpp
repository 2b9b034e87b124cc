// C functions for ctypes that evaluate the body of a `JoinedOps` node without OpenVINO's CPU plugin, in the thread that
// calls and in threads of TBB.

#include <oneapi/tbb/task_arena.h>

#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <openvino/core/except.hpp>
#include <string>
#include <utility>

#include "ops/tensor_program.hpp"

using dynamic_tinybert::TensorProgram;

namespace {

/// Evaluates a program, for one caller at a time.
struct Runner {
    Runner(std::shared_ptr<const TensorProgram> of, int threads) : program(std::move(of)), arena(threads, 1) {
        for (const auto& [type, rank] : program->result_types())
            outputs.emplace_back(type, ov::Shape(rank, 0));
    }

    std::shared_ptr<const TensorProgram> program;
    tbb::task_arena arena;
    ov::TensorVector outputs;  // of the last call; their memory is used again
    std::string error;
};

}  // namespace

/// A runner of the program at this address, which is the attribute `program` in the information of a `JoinedOps` node;
/// the node must exist during this call. It uses up to `threads` threads, that of the caller included. Null if it cannot
/// be made.
extern "C" __attribute__((visibility("default"))) void* dynamic_tinybert_runner(const void* program, int threads) {
    try {
        return new Runner(static_cast<const TensorProgram*>(program)->shared_from_this(), threads);
    } catch (...) {
        return nullptr;
    }
}

extern "C" __attribute__((visibility("default"))) void dynamic_tinybert_delete_runner(void* runner) {
    delete static_cast<Runner*>(runner);
}

/// Copies the outputs of the last call to `to`, one behind the other.
extern "C" __attribute__((visibility("default"))) void dynamic_tinybert_copy_outputs(void* runner, char* to) {
    for (const ov::Tensor& output : static_cast<Runner*>(runner)->outputs) {
        if (output.get_byte_size() != 0)
            std::memcpy(to, output.data(), output.get_byte_size());
        to += output.get_byte_size();
    }
}

/// Evaluates the program once. `tensors` holds the address and the dimensions of each input, and gets the dimensions of
/// each output behind them. Copies the outputs to `to`, one behind the other, if they take at most `room` bytes. Returns
/// null, or what went wrong, which is valid until the runner's next call.
extern "C" __attribute__((visibility("default"))) const char* dynamic_tinybert_run(void* runner, int64_t* tensors,
                                                                                  char* to, size_t room) {
    Runner& own = *static_cast<Runner*>(runner);
    try {
        ov::TensorVector inputs;
        for (const auto& [type, rank] : own.program->parameter_types()) {
            void* const address = reinterpret_cast<void*>(static_cast<uintptr_t>(*tensors++));
            inputs.emplace_back(type, ov::Shape(tensors, tensors + rank), address);
            tensors += rank;
        }
        own.arena.execute([&] { own.program->run(own.outputs, inputs); });
        size_t bytes = 0;
        for (const ov::Tensor& output : own.outputs) {
            for (const size_t size : output.get_shape())
                *tensors++ = static_cast<int64_t>(size);
            bytes += output.get_byte_size();
        }
        if (bytes <= room)
            dynamic_tinybert_copy_outputs(runner, to);
        return nullptr;
    } catch (const std::exception& error) {
        try {
            own.error = error.what();
            return own.error.c_str();
        } catch (...) {
            return "there is no memory left";
        }
    } catch (...) {
        return "an unknown error";
    }
}
