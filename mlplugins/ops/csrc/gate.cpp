// SPDX-License-Identifier: BSD-3-Clause
// Op mlplugins::gate: scalars through silu (even) and tanh (odd), blocks of vectors times a function of their gates.
// Checks, the way of the CPU, and derivatives; second ones are those of the reference.

#include "gate.h"

#include "node_kernel.h"
#include "ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

namespace mlplugins {

GatePlan::GatePlan(const Tensor &x, at::IntArrayRef sizes, at::ArrayRef<double> factors) : blocks(sizes.vec())
{
  TORCH_CHECK(sizes.size() >= 3 && sizes.size() % 2 == 1 && factors.size() == 3,
              "gate: expected even and odd scalars, sigmoid, then pairs of components and channels; and three factors");
  for (const int64_t size : sizes) TORCH_CHECK(size >= 0 && size < (int64_t(1) << 31), "gate: malformed sizes");
  blocks.erase(blocks.begin(), blocks.begin() + 3);
  n_even = sizes[0], n_odd = sizes[1], sigmoid = sizes[2] != 0;
  silu = factors[0], tanh = factors[1], gate = factors[2];
  for (size_t b = 0; b < blocks.size(); b += 2) n_gates += blocks[b + 1], n_gated += blocks[b] * blocks[b + 1];
  TORCH_CHECK(x.layout() == at::kStrided && x.dim() == 2 && x.size(1) == n_even + n_odd + n_gates + n_gated,
              "gate: expected rows of ", n_even + n_odd + n_gates + n_gated, " numbers, got ", x.sizes());
  TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble,
              "gate: expected float32 or float64, got ", x.scalar_type());
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

GateShape shape_of(const GatePlan &p)
{
  return {p.n_even, p.n_odd, p.n_gates, (int64_t) p.blocks.size() / 2, p.blocks.data(), p.sigmoid, p.silu, p.tanh,
          p.gate};
}

void check_gradient(const GatePlan &p, const Tensor &g, const Tensor &x)
{
  TORCH_CHECK(g.dim() == 2 && g.size(0) == x.size(0) && g.size(1) == p.n_even + p.n_odd + p.n_gated &&
                  g.scalar_type() == x.scalar_type() && g.device() == x.device(),
              "gate: wrong gradient");
}

constexpr int64_t NODES = 32;    // of a thread

template <typename T> Tensor forward_pass(const GatePlan &p, const Tensor &x)
{
  const Tensor out = at::empty({x.size(0), p.n_even + p.n_odd + p.n_gated}, x.options());
  at::parallel_for(0, x.size(0), NODES, [&](int64_t first, int64_t last) {
    node_kernels<T>().gate(shape_of(p), first, last, x.const_data_ptr<T>(), out.data_ptr<T>());
  });
  return out;
}

template <typename T> Tensor backward_pass(const GatePlan &p, const Tensor &g, const Tensor &x)
{
  const Tensor gx = at::empty_like(x);
  at::parallel_for(0, x.size(0), NODES, [&](int64_t first, int64_t last) {
    node_kernels<T>().gate_backward(shape_of(p), first, last, g.const_data_ptr<T>(), x.const_data_ptr<T>(),
                                    gx.data_ptr<T>());
  });
  return gx;
}

class Gate : public torch::autograd::Function<Gate> {
 public:
  static Tensor forward(AutogradContext *context, const Tensor &x, at::IntArrayRef sizes, at::ArrayRef<double> factors)
  {
    static const auto op = dispatched<decltype(cpu::gate)>("gate");
    context->save_for_backward({x});
    context->saved_data["sizes"] = sizes.vec();
    context->saved_data["factors"] = factors.vec();
    at::AutoDispatchBelowADInplaceOrView guard;
    return op.call(x, sizes, factors);
  }

  static variable_list backward(AutogradContext *context, variable_list g)
  {
    static const auto op = dispatched<decltype(cpu::gate_backward)>("gate_backward");
    const Tensor x = context->get_saved_variables()[0];
    const std::vector<int64_t> sizes = context->saved_data["sizes"].toIntVector();
    const std::vector<double> factors = context->saved_data["factors"].toDoubleVector();
    if (!at::GradMode::is_enabled()) return {op.call(g[0], x, sizes, factors), Tensor(), Tensor()};
    const Tensor y = gated(x, GatePlan(x, sizes, factors));
    return {torch::autograd::grad({y}, {x}, {g[0]}, /*retain_graph=*/true, /*create_graph=*/true)[0], Tensor(), Tensor()};
  }
};

}    // namespace

Tensor cpu::gate(const Tensor &x_, at::IntArrayRef sizes, at::ArrayRef<double> factors)
{
  const GatePlan plan(x_, sizes, factors);
  at::AutoDispatchBelowADInplaceOrView guard;
  const Tensor x = x_.contiguous();
  return x.scalar_type() == at::kFloat ? forward_pass<float>(plan, x) : forward_pass<double>(plan, x);
}

Tensor cpu::gate_backward(const Tensor &g_, const Tensor &x_, at::IntArrayRef sizes, at::ArrayRef<double> factors)
{
  const GatePlan plan(x_, sizes, factors);
  check_gradient(plan, g_, x_);
  at::AutoDispatchBelowADInplaceOrView guard;
  const Tensor g = g_.contiguous(), x = x_.contiguous();
  return x.scalar_type() == at::kFloat ? backward_pass<float>(plan, g, x) : backward_pass<double>(plan, g, x);
}

Tensor autograd::gate(const Tensor &x, at::IntArrayRef sizes, at::ArrayRef<double> factors)
{
  static const auto op = dispatched<decltype(cpu::gate)>("gate");
  if (differentiable({x})) return Gate::apply(x, sizes, factors);
  at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(x, sizes, factors);
}

Tensor autograd::gate_backward(const Tensor &g, const Tensor &x, at::IntArrayRef sizes, at::ArrayRef<double> factors)
{
  static const auto op = dispatched<decltype(cpu::gate_backward)>("gate_backward");
  return without_derivatives(variable_list{g, x}, "gate: second derivatives of the fused gradient",
                             [&] { return variable_list{op.call(g, x, sizes, factors)}; })[0];
}

}    // namespace mlplugins
