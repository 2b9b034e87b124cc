#include "ops/attention_pass.hpp"

#include <algorithm>
#include <memory>

#include "ops/memory.hpp"

namespace dynamic_tinybert {
namespace {

/// The steps of one attention.
class AttentionPass {
public:
    AttentionPass(const AttentionKernels& kernels, const AttentionBatch& batch, AttentionScratch& scratch)
        : m_kernels(kernels), m_in(batch), m_scratch(scratch), m_dim(batch.width / batch.heads),
          m_max_blocks((batch.queries + query_block - 1) / query_block),
          m_packed_size(kernels.packed_size(batch.length, m_dim)),
          m_sums_size(batch.significance ? batch.length + column_padding : 0) {
        at_least(scratch.tokens, m_in.batch * m_in.length);
        at_least(scratch.num_tokens, m_in.batch);
        at_least(scratch.num_queries, m_in.batch);
        at_least(scratch.packed, heads() * m_packed_size);
        at_least(scratch.column_sums, heads() * m_max_blocks * m_sums_size);
        for (size_t b = 0; b < m_in.batch; ++b) {
            const float* mask = m_in.mask + b * m_in.length;
            int32_t *tokens = scratch.tokens.data() + b * m_in.length, *end = tokens;
            for (size_t i = 0; i < m_in.length; ++i)
                if (mask[i] == 0.0f)
                    *end++ = static_cast<int32_t>(i);
            scratch.num_tokens[b] = end - tokens;
            scratch.num_queries[b] = std::lower_bound(tokens, end, static_cast<int32_t>(m_in.queries)) - tokens;
        }
    }

    size_t heads() const { return m_in.batch * m_in.heads; }  // of all sequences
    size_t blocks() const { return heads() * m_max_blocks; }

    /// Packs keys and values of a head, and fills its columns of the context of padding.
    void pack(size_t head) const {
        const size_t b = head / m_in.heads;
        const Head view = head_of(head);
        m_kernels.pack(view, packed_of(head));
        const float* mask = m_in.mask + b * m_in.length;
        for (size_t i = 0; i < m_in.queries; ++i)
            if (mask[i] != 0.0f) {
                if (view.quantized)
                    std::fill_n(view.quantized + i * m_in.width, m_dim, quantize(m_in.zero_point));
                else
                    std::fill_n(view.context + i * m_in.width, m_dim, 0.0f);
            }
    }

    void attend(size_t block_of_all) const {
        const size_t head = block_of_all / m_max_blocks, block = block_of_all % m_max_blocks;
        const size_t first = block * query_block;
        const size_t last = std::min(first + query_block, m_scratch.num_queries[head / m_in.heads]);
        if (first < last)
            m_kernels.attend(head_of(head), packed_of(head), first, last,
                             m_in.significance ? sums_of(head, block) : nullptr);
    }

    /// Always in the order of heads and blocks, so that the number of threads cannot change a bit of the result.
    void add_columns(size_t b) const {
        const size_t num_tokens = m_scratch.num_tokens[b];
        const int32_t* tokens = m_scratch.tokens.data() + b * m_in.length;
        for (size_t h = 0; h < m_in.heads; ++h)
            for (size_t block = 0; block * query_block < num_tokens; ++block)
                for (size_t i = 0; i < num_tokens; ++i)
                    m_in.significance[b * m_in.length + tokens[i]] += sums_of(b * m_in.heads + h, block)[i];
    }

    size_t blocks_of_head() const { return m_max_blocks; }

private:
    Head head_of(size_t head_of_all) const {
        const size_t b = head_of_all / m_in.heads, h = head_of_all % m_in.heads, parts = m_in.query ? 2 : 3;
        const float* projected = m_in.projections + parts * b * m_in.length * m_in.width + h * m_dim;
        const size_t to = b * m_in.queries * m_in.width + h * m_dim;
        Head head{};
        head.query = m_in.query ? m_in.query + to : projected;
        head.query_stride = m_in.query ? m_in.width : 3 * m_in.width;
        head.key = projected + (parts - 2) * m_in.width;
        head.value = head.key + m_in.width;
        head.stride = parts * m_in.width;
        head.context = m_in.context ? m_in.context + to : nullptr;
        head.quantized = m_in.quantized ? m_in.quantized + to : nullptr;
        head.context_stride = m_in.width;
        head.inv_scale = m_in.inv_scale;
        head.zero_point = m_in.zero_point;
        head.dim = m_dim;
        head.tokens = m_scratch.tokens.data() + b * m_in.length;
        head.num_tokens = m_scratch.num_tokens[b];
        return head;
    }

    float* packed_of(size_t head) const { return m_scratch.packed.data() + head * m_packed_size; }
    float* sums_of(size_t head, size_t block) const {
        return m_scratch.column_sums.data() + (head * m_max_blocks + block) * m_sums_size;
    }

    const AttentionKernels& m_kernels;
    const AttentionBatch m_in;
    AttentionScratch& m_scratch;
    size_t m_dim, m_max_blocks, m_packed_size, m_sums_size;
};

}  // namespace

void add_attention(Stages& stages, const AttentionKernels& kernels, const AttentionBatch& batch,
                   AttentionScratch& scratch) {
    const auto pass = std::make_shared<const AttentionPass>(kernels, batch, scratch);
    if (pass->heads() % stages.threads() == 0) {
        stages.add(pass->heads(), [pass](size_t head) {
            pass->pack(head);
            for (size_t block = 0; block < pass->blocks_of_head(); ++block)
                pass->attend(head * pass->blocks_of_head() + block);
        });
    } else {
        stages.add(pass->heads(), [pass](size_t head) { pass->pack(head); });
        stages.add(pass->blocks(), [pass](size_t block) { pass->attend(block); });
    }
    if (batch.significance)
        stages.add(batch.batch, [pass](size_t b) { pass->add_columns(b); });
}

}  // namespace dynamic_tinybert
