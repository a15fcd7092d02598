// SPDX-License-Identifier: BSD-3-Clause
// Op mlplugins::pair_sum: a function of the distance times a coefficient, summed over the edges of every centre; with
// its gradients. Dispersion (D3) is two of these sums. Second derivatives differentiate the reference.

#include "ops.h"
#include "pair_sum_kernel.h"
#include "processor.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace mlplugins {

extern const PairSumKernels<float> float_pair_sum_generic, float_pair_sum_avx2, float_pair_sum_avx512;
extern const PairSumKernels<double> double_pair_sum_generic, double_pair_sum_avx2, double_pair_sum_avx512;

namespace {

using at::ArrayRef;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <typename T> const PairSumKernels<T> &kernels()
{
  if constexpr (std::is_same_v<T, float>) return MLPLUGINS_BEST(float_pair_sum);
  else return MLPLUGINS_BEST(double_pair_sum);
}

struct Form {
  PairForm form;
  int64_t parameters, constants;
};

Form form_of(const std::string &name)
{
  if (name == "becke-johnson") return {PairForm::becke_johnson, 3, 1};
  if (name == "zero") return {PairForm::zero, 2, 4};
  TORCH_CHECK(name == "count", "pair_sum: unknown form '", name, "'");
  return {PairForm::count, 1, 1};
}

/// All arguments of the op.
struct Sum {
  Tensor vectors, left, right, kind, centers, neighbors, pairs;
  std::string form;
  std::vector<double> constants;

  static Sum of(const Tensor &vectors, at::TensorList factors, const Tensor &kind, at::TensorList edges,
                const Tensor &pairs, std::string form, ArrayRef<double> constants)
  {
    TORCH_CHECK(edges.size() == 2 && factors.size() == 2,
                "pair_sum: expected factors [left, right] and edges [centers, neighbors]");
    return {vectors, factors[0], factors[1], kind, edges[0], edges[1], pairs, std::move(form), constants.vec()};
  }

  Sum contiguous() const
  {
    return {vectors.contiguous(), left.contiguous(),      right.contiguous(), kind.contiguous(), centers.contiguous(),
            neighbors.contiguous(), pairs.contiguous(), form,               constants};
  }

  int64_t n_edges() const { return centers.size(0); }
  int64_t n_centers() const { return left.size(0); }

  void check() const
  {
    const Form f = form_of(form);
    TORCH_CHECK(centers.dim() == 1 && neighbors.sizes() == centers.sizes() &&
                    vectors.sizes() == at::IntArrayRef({centers.size(0), 3}),
                "pair_sum: expected vectors (E, 3), centers and neighbors (E,), got ", vectors.sizes(), ", ",
                centers.sizes(), " and ", neighbors.sizes());
    TORCH_CHECK(kind.dim() == 1 && pairs.dim() == 3 && pairs.size(1) == pairs.size(0) && pairs.size(2) == f.parameters,
                "pair_sum: expected kind (N,) and pairs (P, P, ", f.parameters, "), got ", kind.sizes(), " and ",
                pairs.sizes());
    TORCH_CHECK(left.dim() == 2 && left.size(0) <= kind.size(0) &&
                    right.sizes() == at::IntArrayRef({kind.size(0), pairs.size(0), left.size(1)}),
                "pair_sum: expected left (n_centers, M) and right (N, P, M), got ", left.sizes(), " and ", right.sizes());
    TORCH_CHECK((int64_t) constants.size() == 3 + f.constants, "pair_sum: expected ", 3 + f.constants,
                " constants, got ", constants.size());
    TORCH_CHECK(constants[0] > 0 && constants[1] > 0 && constants[2] >= 0 && constants[2] < 1,
                "pair_sum: expected unit and cutoff above 0 and 0 <= onset < 1");
    for (const Tensor &t : {vectors, left, right, pairs})
      TORCH_CHECK(t.scalar_type() == vectors.scalar_type() && (t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble),
                  "pair_sum: vectors, left, right and pairs must all be float32 or float64");
    for (const Tensor &t : {kind, centers, neighbors})
      TORCH_CHECK(t.scalar_type() == at::kLong, "pair_sum: kind, centers and neighbors must be int64");
    for (const Tensor &t : {left, right, pairs, kind, centers, neighbors})
      TORCH_CHECK(t.device() == vectors.device(), "pair_sum: all tensors must be on one device");
  }

  /// The first edge of every centre, and the end; edges must be sorted by centre, and everything must exist.
  std::vector<int64_t> begins() const
  {
    const int64_t *const i = centers.const_data_ptr<int64_t>(), *const j = neighbors.const_data_ptr<int64_t>(),
                  *const of = kind.const_data_ptr<int64_t>(), n_nodes = kind.size(0), n_kinds = pairs.size(0);
    for (int64_t k = 0; k < n_nodes; k++)
      TORCH_CHECK(of[k] >= 0 && of[k] < n_kinds, "pair_sum: node ", k, " is of kind ", of[k], ", which does not exist");
    uint64_t sorted = 1, exist = 1;    // no branches
    for (int64_t e = 1; e < n_edges(); e++) sorted &= i[e] >= i[e - 1];
    TORCH_CHECK(sorted, "pair_sum: edges must be sorted by centre");
    for (int64_t e = 0; e < n_edges(); e++) exist &= (uint64_t) j[e] < (uint64_t) n_nodes;
    const bool within = n_edges() == 0 || (i[0] >= 0 && i[n_edges() - 1] < n_centers());
    TORCH_CHECK(exist && within, "pair_sum: an edge has no such atom");
    std::vector<int64_t> begin(n_centers() + 1, 0);
    for (int64_t c = 0; c < n_centers(); c++)
      begin[c + 1] = std::upper_bound(i + begin[c], i + n_edges(), c) - i;
    return begin;
  }

  template <typename T> PairSum<T> as_kernel(const std::vector<T> &numbers) const
  {
    return {vectors.const_data_ptr<T>(), neighbors.const_data_ptr<int64_t>(), kind.const_data_ptr<int64_t>(),
            left.const_data_ptr<T>(),    right.const_data_ptr<T>(),           pairs.const_data_ptr<T>(),
            pairs.size(0),               left.size(1),                        pairs.size(2),
            form_of(form).form,          numbers[0],                          numbers[1],
            numbers[2],                  numbers.data() + 3};
  }

  std::vector<Tensor> edges() const { return {centers, neighbors}; }
  std::vector<Tensor> factors() const { return {left, right}; }
};

constexpr int64_t GRAIN = 32;    ///< centres worth a thread

template <typename T> Tensor energies(const Sum &sum)
{
  const auto begin = sum.begins();
  const std::vector<T> numbers(sum.constants.begin(), sum.constants.end());
  const PairSum<T> kernel = sum.as_kernel(numbers);
  const Tensor energy = at::empty({sum.n_centers()}, sum.vectors.options());
  T *const to = energy.data_ptr<T>();
  at::parallel_for(0, sum.n_centers(), GRAIN, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i++) to[i] = kernels<T>().energy(kernel, i, begin[i], begin[i + 1]);
  });
  return energy;
}

template <typename T> Three gradients(const Sum &sum, const Tensor &g)
{
  const auto begin = sum.begins();
  const std::vector<T> numbers(sum.constants.begin(), sum.constants.end());
  const PairSum<T> kernel = sum.as_kernel(numbers);
  const T *const by = g.const_data_ptr<T>();
  const Tensor vectors = at::empty_like(sum.vectors), left = at::zeros_like(sum.left);
  const Tensor right = at::zeros_like(sum.right);    // of one neighbour from several centres: one copy a thread
  std::vector<Tensor> copies(at::get_num_threads());
  at::parallel_for(0, sum.n_centers(), GRAIN, [&](int64_t first, int64_t last) {
    Tensor &own = copies[at::get_thread_num()];
    if (!own.defined()) own = at::zeros_like(right);
    const PairSlopes<T> to{vectors.data_ptr<T>(), left.data_ptr<T>(), own.data_ptr<T>()};
    for (int64_t i = first; i < last; i++) kernels<T>().slopes(kernel, by[i], i, begin[i], begin[i + 1], to);
  });
  for (const Tensor &copy : copies)
    if (copy.defined()) right.add_(copy);
  return {vectors, left, right};
}

Tensor beneath_autograd(const Sum &s)
{
  static const auto op = dispatched<decltype(cpu::pair_sum)>("pair_sum");
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(s.vectors, s.factors(), s.kind, s.edges(), s.pairs, s.form, s.constants);
}

Three gradients_of(const Sum &s, const Tensor &g)
{
  static const auto op = dispatched<decltype(cpu::pair_sum_backward)>("pair_sum_backward");
  return op.call(g, s.vectors, s.factors(), s.kind, s.edges(), s.pairs, s.form, s.constants);
}

Tensor reference_of(const Sum &s)
{
  return reference::pair_sum(s.vectors, s.factors(), s.kind, s.edges(), s.pairs, s.form, s.constants);
}

/// Gradients by differentiating the reference.
variable_list differentiated(const Sum &s, const Tensor &g, bool again)
{
  const variable_list inputs{s.vectors, s.left, s.right};
  variable_list asked;
  for (const Tensor &t : inputs)
    if (t.requires_grad()) asked.push_back(t);
  const auto found = torch::autograd::grad({reference_of(s)}, asked, {g}, again, again, /*allow_unused=*/true);
  variable_list d(3);
  size_t next = 0;
  for (size_t k = 0; k < 3; k++)
    if (inputs[k].requires_grad()) d[k] = found[next++];
  return d;
}

class PairSumFunction : public torch::autograd::Function<PairSumFunction> {
 public:
  static Tensor forward(AutogradContext *context, const Tensor &vectors, const Tensor &left, const Tensor &right,
                        const Sum &rest)
  {
    context->save_for_backward({vectors, left, right, rest.kind, rest.centers, rest.neighbors, rest.pairs});
    context->saved_data["form"] = rest.form;
    context->saved_data["constants"] = rest.constants;
    return beneath_autograd(rest);
  }

  static variable_list backward(AutogradContext *context, variable_list g)
  {
    const auto s = context->get_saved_variables();
    const Sum sum{s[0], s[1], s[2], s[3], s[4], s[5], s[6], context->saved_data["form"].toStringRef(),
                  context->saved_data["constants"].toDoubleVector()};
    variable_list d = at::GradMode::is_enabled() ? differentiated(sum, g[0], true) : list(gradients_of(sum, g[0]));
    for (size_t k = 0; k < 3; k++)
      if (!context->needs_input_grad(k)) d[k] = Tensor();
    return {d[0], d[1], d[2], Tensor()};
  }
};

}    // namespace

#define MLPLUGINS_SUM Sum::of(vectors, factors, kind, edges, pairs, form, constants)
#define MLPLUGINS_SUM_ARGUMENTS                                                                  \
  const Tensor &vectors, at::TensorList factors, const Tensor &kind, at::TensorList edges,       \
      const Tensor &pairs, std::string form, ArrayRef<double> constants

Tensor cpu::pair_sum(MLPLUGINS_SUM_ARGUMENTS)
{
  const Sum sum = MLPLUGINS_SUM.contiguous();
  sum.check();
  return vectors.scalar_type() == at::kFloat ? energies<float>(sum) : energies<double>(sum);
}

Three cpu::pair_sum_backward(const Tensor &g, MLPLUGINS_SUM_ARGUMENTS)
{
  const Sum sum = MLPLUGINS_SUM.contiguous();
  sum.check();
  TORCH_CHECK(g.sizes() == at::IntArrayRef({sum.n_centers()}) && g.scalar_type() == vectors.scalar_type(),
              "pair_sum: expected a gradient (n_centers,) of the same dtype");
  const Tensor by = g.contiguous();
  return vectors.scalar_type() == at::kFloat ? gradients<float>(sum, by) : gradients<double>(sum, by);
}

Tensor reference::pair_sum(MLPLUGINS_SUM_ARGUMENTS)
{
  const Sum sum = MLPLUGINS_SUM;
  sum.check();
  const Tensor &left = sum.left, &right = sum.right;
  const double cutoff = constants[1], onset = constants[2];
  const Tensor length = at::linalg_vector_norm(vectors, 2, at::IntArrayRef{1});
  const Tensor near = (length < cutoff).nonzero().squeeze(1);
  const Tensor i = edges[0].index_select(0, near), j = edges[1].index_select(0, near);
  const Tensor r = length.index_select(0, near) / constants[0], of_i = kind.index_select(0, i);
  const Tensor p = pairs.flatten(0, 1).index_select(0, of_i * pairs.size(0) + kind.index_select(0, j));
  Tensor f;
  if (form == "becke-johnson") {
    const Tensor r6 = r.pow(6);
    f = constants[3] / (r6 + p.select(1, 0)) + p.select(1, 2) / (r6 * r * r + p.select(1, 1));
  } else if (form == "zero") {
    const Tensor x = p.select(1, 0) / r;
    const Tensor six = constants[3] / (1 + 6 * (constants[4] * x).pow(constants[6]));
    const Tensor eight = p.select(1, 1) / (1 + 6 * (constants[5] * x).pow(constants[6] + 2));
    f = (six + eight / (r * r)) / r.pow(6);
  } else {
    f = at::sigmoid(constants[3] * (p.select(1, 0) / r - 1));
  }
  const Tensor t = ((r * (constants[0] / cutoff) - onset) / (1 - onset)).clamp(0, 1);
  f = f * (1 - t * t * t * (10 - t * (15 - 6 * t)));
  if (left.size(1) > 0) {
    const Tensor row = right.flatten(0, 1).index_select(0, j * pairs.size(0) + of_i);
    f = f * (left.index_select(0, i) * row).sum(1);
  }
  return at::zeros({left.size(0)}, vectors.options()).index_add(0, i, f);
}

Three reference::pair_sum_backward(const Tensor &g, MLPLUGINS_SUM_ARGUMENTS)
{
  auto keys = c10::impl::tls_local_dispatch_key_set();
  keys.excluded_ = keys.excluded_ - c10::autograd_dispatch_keyset_with_ADInplaceOrView;
  const c10::impl::ForceDispatchKeyGuard above(keys);
  const at::AutoGradMode recording(true);
  Sum sum = MLPLUGINS_SUM;
  for (Tensor *t : {&sum.vectors, &sum.left, &sum.right}) *t = t->detach().requires_grad_();
  variable_list d = differentiated(sum, g.detach(), false);
  const Tensor *const like[3] = {&sum.vectors, &sum.left, &sum.right};
  for (size_t k = 0; k < 3; k++) d[k] = d[k].defined() ? d[k].detach() : at::zeros_like(*like[k]).detach();
  return {d[0], d[1], d[2]};
}

Tensor autograd::pair_sum(MLPLUGINS_SUM_ARGUMENTS)
{
  const Sum sum = MLPLUGINS_SUM;
  TORCH_CHECK(!differentiable({pairs}), "pair_sum: derivatives by the parameters of pairs are not implemented");
  return PairSumFunction::apply(vectors, sum.left, sum.right, sum);
}

Three autograd::pair_sum_backward(const Tensor &g, MLPLUGINS_SUM_ARGUMENTS)
{
  const Sum sum = MLPLUGINS_SUM;
  const auto found = without_derivatives({g, vectors, sum.left, sum.right}, "pair_sum_backward: derivatives",
                                         [&] { return list(gradients_of(sum, g)); });
  return {found[0], found[1], found[2]};
}

}    // namespace mlplugins
