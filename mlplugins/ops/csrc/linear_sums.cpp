// SPDX-License-Identifier: BSD-3-Clause
// Op mlplugins::linear_sums: sums of equivariant linear maps of several inputs, with weights that are constants, by
// species or not, packed once and for all. The gradient is a sum of the same kind, with the transposed matrices, whose
// plan and weights stand beside those of the sum itself. Checks, the way of the CPU, and derivatives.

#include "linear_sums.h"

#include "node_kernel.h"
#include "ops.h"
#include "processor.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

namespace mlplugins {

extern const NodeKernels<float> float_node_generic, float_node_avx2, float_node_avx512;
extern const NodeKernels<double> double_node_generic, double_node_avx2, double_node_avx512;

template <> const NodeKernels<float> &node_kernels<float>() { return MLPLUGINS_BEST(float_node); }
template <> const NodeKernels<double> &node_kernels<double>() { return MLPLUGINS_BEST(double_node); }

SumPlan read_plan(at::IntArrayRef numbers)
{
  size_t at = 0;
  const auto next = [&] {
    TORCH_CHECK(at < numbers.size() && numbers[at] >= 0 && numbers[at] < (int64_t(1) << 40),
                "linear_sums: malformed plan (number ", at, " of ", numbers.size(), ")");
    return numbers[at++];
  };
  SumPlan plan;
  const int64_t n_results = next();
  for (int64_t k = 0; k < n_results; k++) plan.widths.push_back(next());
  std::vector<int64_t> end(plan.widths.size(), 0);
  while (at < numbers.size()) {
    SumTarget t{next(), next(), next(), next(), {}};
    TORCH_CHECK(t.tensor < n_results && t.components > 0 && t.columns > 0 && t.offset == end[t.tensor],
                "linear_sums: the blocks of a result must cover it, one after the other");
    end[t.tensor] += t.components * t.columns;
    const int64_t n_sources = next();
    for (int64_t k = 0; k < n_sources; k++) {
      t.sources.push_back({next(), next(), next(), next(), next()});
      plan.by_species = plan.by_species || t.sources.back().species_stride > 0;
    }
    plan.targets.push_back(std::move(t));
  }
  for (size_t k = 0; k < end.size(); k++)
    TORCH_CHECK(end[k] == plan.widths[k], "linear_sums: the blocks of a result must cover it, one after the other");
  return plan;
}

void check(const SumPlan &plan, at::TensorList x, const Tensor &species, at::TensorList weights)
{
  TORCH_CHECK(x.size() > 0, "linear_sums: expected one input or more");
  TORCH_CHECK(weights.size() == 2, "linear_sums: expected the weights of the sum and of its gradient, got ",
              weights.size(), " tensors");
  TORCH_CHECK(x[0].scalar_type() == at::kFloat || x[0].scalar_type() == at::kDouble,
              "linear_sums: expected float32 or float64, got ", x[0].scalar_type());
  for (const Tensor &t : x)
    TORCH_CHECK(t.layout() == at::kStrided && t.dim() == 2 && t.size(0) == x[0].size(0) &&
                    t.scalar_type() == x[0].scalar_type() && t.device() == x[0].device(),
                "linear_sums: the inputs must be dense matrices of the same rows, dtype and device");
  for (const Tensor &w : weights)
    TORCH_CHECK(w.layout() == at::kStrided && w.dim() == 1 && w.scalar_type() == x[0].scalar_type() &&
                    w.device() == x[0].device(),
                "linear_sums: the weights must be one row of numbers of the dtype and the device of the inputs");
  TORCH_CHECK(!plan.by_species || (species.layout() == at::kStrided && species.dim() == 1 &&
                  species.size(0) == x[0].size(0) && species.scalar_type() == at::kLong && species.device() == x[0].device()),
              "linear_sums: expected the species of every row (", x[0].size(0), "), int64");
  for (const SumTarget &t : plan.targets)
    for (const SumSource &s : t.sources)
      TORCH_CHECK(s.tensor < (int64_t) x.size() && s.channels > 0 &&
                      s.offset + t.components * s.channels <= x[s.tensor].size(1) &&
                      s.matrix + (t.columns + STRIP - 1) / STRIP * STRIP * s.channels <= weights[0].size(0),
                  "linear_sums: a block does not fit its input or the weights");
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The rows by species, in pieces for the threads.
struct Pieces {
  static constexpr int64_t size = 32;
  struct Piece {
    int64_t species, first, last;
  };
  std::vector<int64_t> nodes;
  std::vector<Piece> pieces;

  Pieces(const SumPlan &plan, int64_t n_rows, const Tensor &species, int64_t n_weights) : nodes(n_rows)
  {
    const int64_t n = n_rows;
    std::vector<int64_t> begin{0, 0};
    if (!plan.by_species) {
      for (int64_t i = 0; i < n; i++) nodes[i] = i;
      begin[1] = n;
    } else {
      const Tensor contiguous = species.contiguous();
      const int64_t *const of = contiguous.const_data_ptr<int64_t>(), n_species = known(plan, n_weights);
      begin.assign(n_species + 1, 0);
      for (int64_t i = 0; i < n; i++) {
        TORCH_CHECK(of[i] >= 0 && of[i] < n_species, "linear_sums: species ", of[i], " of row ", i, " is not in [0, ",
                    n_species, ")");
        begin[of[i] + 1]++;
      }
      for (int64_t s = 0; s < n_species; s++) begin[s + 1] += begin[s];
      auto at = begin;
      for (int64_t i = 0; i < n; i++) nodes[at[of[i]]++] = i;
    }
    for (int64_t s = 0; s + 1 < (int64_t) begin.size(); s++)
      for (int64_t first = begin[s]; first < begin[s + 1]; first += size)
        pieces.push_back({s, first, std::min(first + size, begin[s + 1])});
  }

 private:
  /// The number of species whose matrices stand in the weights.
  static int64_t known(const SumPlan &plan, int64_t n_weights)
  {
    int64_t n = n_weights;
    for (const SumTarget &t : plan.targets)
      for (const SumSource &s : t.sources) {
        const int64_t size = (t.columns + STRIP - 1) / STRIP * STRIP * s.channels;
        if (s.species_stride > 0) n = std::min(n, 1 + (n_weights - s.matrix - size) / s.species_stride);
      }
    return n;
  }
};

template <typename T>
std::vector<Tensor> sums(const SumPlan &plan, at::TensorList inputs, const Tensor &species, const Tensor &weights)
{
  std::vector<Tensor> x, out;
  for (const Tensor &t : inputs) x.push_back(t.contiguous());
  const Tensor w = weights.contiguous();
  const Pieces cut(plan, x[0].size(0), species, w.size(0));
  for (const int64_t width : plan.widths) out.push_back(at::empty({x[0].size(0), width}, x[0].options()));
  std::vector<MapSource<T>> sources;
  size_t n_sources = 0;
  for (const SumTarget &t : plan.targets) n_sources += t.sources.size();
  sources.reserve(n_sources);    // they are pointed to
  std::vector<MapTarget<T>> targets;
  for (const SumTarget &t : plan.targets) {
    MapTarget<T> target{out[t.tensor].template data_ptr<T>(), plan.widths[t.tensor], t.offset, t.components, t.columns,
                        sources.data() + sources.size(), (int64_t) t.sources.size(), 0};
    for (const SumSource &s : t.sources) {
      sources.push_back({x[s.tensor].template const_data_ptr<T>(), x[s.tensor].size(1), s.offset, s.channels,
                         w.template const_data_ptr<T>() + s.matrix, s.species_stride});
      target.depth += s.channels;
    }
    targets.push_back(target);
  }
  const auto work = [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; k++) {
      const auto &[kind, first, last] = cut.pieces[k];
      node_kernels<T>().sums(targets.data(), (int64_t) targets.size(), cut.nodes.data() + first, last - first, kind);
    }
  };
  const int64_t n_pieces = (int64_t) cut.pieces.size();
  if (x[0].size(0) < 64) work(0, n_pieces);    // not worth waking threads
  else at::parallel_for(0, n_pieces, 1, work);
  return out;
}

class LinearSums : public torch::autograd::Function<LinearSums> {
 public:
  static variable_list forward(AutogradContext *context, at::TensorList x, const Tensor &species,
                               at::TensorList weights, at::IntArrayRef plan, at::IntArrayRef back)
  {
    static const auto op = dispatched<decltype(cpu::linear_sums)>("linear_sums");
    context->save_for_backward({species, weights[0], weights[1]});
    context->saved_data["plan"] = plan.vec();
    context->saved_data["back"] = back.vec();
    context->saved_data["inputs"] = (int64_t) x.size();
    at::AutoDispatchBelowADInplaceOrView guard;
    return op.call(x, species, weights, plan, back);
  }

  static variable_list backward(AutogradContext *context, variable_list g)
  {
    static const auto op = dispatched<decltype(cpu::linear_sums)>("linear_sums");
    const auto saved = context->get_saved_variables();
    const std::vector<int64_t> plan = context->saved_data["plan"].toIntVector(),
                               back = context->saved_data["back"].toIntVector();
    variable_list d = op.call(g, saved[0], variable_list{saved[2], saved[1]}, back, plan);
    TORCH_CHECK((int64_t) d.size() == context->saved_data["inputs"].toInt(),
                "linear_sums: the plan of the gradient gives ", d.size(), " results");
    for (int64_t k = 0; k < (int64_t) d.size(); k++)
      if (!context->needs_input_grad(k)) d[k] = Tensor();
    d.resize(d.size() + 5);    // of the species, the two weights and the plans
    return d;
  }
};

}    // namespace

std::vector<Tensor> cpu::linear_sums(at::TensorList x, const Tensor &species, at::TensorList weights,
                                     at::IntArrayRef numbers, at::IntArrayRef)
{
  const SumPlan plan = read_plan(numbers);
  check(plan, x, species, weights);
  at::AutoDispatchBelowADInplaceOrView guard;
  return x[0].scalar_type() == at::kFloat ? sums<float>(plan, x, species, weights[0])
                                          : sums<double>(plan, x, species, weights[0]);
}

std::vector<Tensor> autograd::linear_sums(at::TensorList x, const Tensor &species, at::TensorList weights,
                                          at::IntArrayRef plan, at::IntArrayRef back)
{
  static const auto op = dispatched<decltype(cpu::linear_sums)>("linear_sums");
  for (const Tensor &w : weights)
    TORCH_CHECK(!(at::GradMode::is_enabled() && w.requires_grad()), "linear_sums: the weights are constants");
  if (!differentiable(x)) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return op.call(x, species, weights, plan, back);
  }
  return LinearSums::apply(x, species, weights, plan, back);
}

}    // namespace mlplugins
