// SPDX-License-Identifier: BSD-3-Clause
// Op mlplugins::linear: an equivariant linear map, block by block where the blocks stand, without copies of them.
// It is linear in x and in W; its derivatives are maps of the same kind and products of blocks. Checks, the way of the
// CPU, and derivatives.

#include "linear.h"

#include "convolution_kernel.h"
#include "ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <map>
#include <vector>

namespace mlplugins {
constexpr int64_t FIELDS = 6;

Blocks read(at::IntArrayRef terms, int64_t n_out)
{
  TORCH_CHECK(terms.size() % FIELDS == 0, "linear: a term has ", FIELDS, " numbers, got ", terms.size(), " in all");
  TORCH_CHECK(n_out >= 0, "linear: n_out is ", n_out);
  Blocks blocks{{}, n_out};
  for (const int64_t field : terms)
    TORCH_CHECK(field >= 0 && field < (int64_t(1) << 31), "linear: malformed term with ", field);
  for (size_t k = 0; k < terms.size(); k += FIELDS)
    blocks.terms.push_back({terms[k], terms[k + 1], terms[k + 2], terms[k + 3], terms[k + 4], terms[k + 5]});
  return blocks;
}

void check(const Tensor &x, at::TensorList weights, const Blocks &blocks)
{
  TORCH_CHECK(x.layout() == at::kStrided && x.dim() == 2, "linear: x must be dense and have two dimensions");
  TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble,
              "linear: expected float32 or float64, got ", x.scalar_type());
  for (const Tensor &w : weights)
    TORCH_CHECK(w.layout() == at::kStrided && w.dim() == 2 && w.scalar_type() == x.scalar_type() && w.device() == x.device(),
                "linear: the weights must be matrices of the dtype and the device of x");
  std::map<int64_t, int64_t> ends;    // of the blocks of the result, by their offset
  for (const Term &t : blocks.terms) {
    TORCH_CHECK(t.matrix < (int64_t) weights.size(), "linear: there is no matrix ", t.matrix);
    const Tensor &w = weights[t.matrix];
    TORCH_CHECK(t.components > 0 && t.channels > 0 && w.size(1) > 0 && t.row + t.channels <= w.size(0) &&
                    t.input + t.components * t.channels <= x.size(1) &&
                    w.size(1) < (int64_t(1) << 31) && t.output + t.components * w.size(1) <= blocks.width,
                "linear: a term does not fit x, its matrix or the result");
    const int64_t end = ends.emplace(t.output, t.output + t.components * w.size(1)).first->second;
    TORCH_CHECK(end == t.output + t.components * w.size(1), "linear: terms of one output block differ in shape");
  }
  int64_t last = 0;
  for (const auto &[start, end] : ends) {
    TORCH_CHECK(start >= last, "linear: output blocks overlap");
    last = end;
  }
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <typename T> Tensor product(const Tensor &x_, at::TensorList weights, const Blocks &blocks)
{
  const Tensor x = x_.contiguous();
  const Kernels<T> &k = kernels<T>();
  std::vector<LinearTerm<T>> terms;
  std::vector<Tensor> packed;
  std::map<int64_t, int64_t> covered;
  for (const Term &term : blocks.terms) {
    const Tensor &w = weights[term.matrix];
    packed.push_back(at::empty({term.channels, (w.size(1) + k.panel - 1) / k.panel * k.panel}, w.options()));
    T *const to = packed.back().template data_ptr<T>();
    k.pack({w.template data_ptr<T>() + term.row * w.stride(0), term.channels, w.size(1), w.stride(0), w.stride(1)}, to);
    const bool first = covered.emplace(term.output, term.components * w.size(1)).second;
    terms.push_back({term.input, term.output, term.components, term.channels, w.size(1), !first, to});
  }
  int64_t written = 0;
  for (const auto &[offset, size] : covered) written += size;
  Tensor out = written == blocks.width ? at::empty({x.size(0), blocks.width}, x.options())
                                       : at::zeros({x.size(0), blocks.width}, x.options());
  const LinearMap<T> map{terms.data(), (int64_t) terms.size(), x.size(1), blocks.width};
  at::parallel_for(0, x.size(0), 64, [&](int64_t first, int64_t last) {
    k.linear(map, first, last, x.template data_ptr<T>(), out.template data_ptr<T>());
  });
  return out;
}

Tensor mapped(const Tensor &x, at::TensorList weights, at::IntArrayRef terms, int64_t n_out)
{
  static const auto op = dispatched<decltype(cpu::linear)>("linear");
  return op.call(x, weights, terms, n_out);
}

class Linear : public torch::autograd::Function<Linear> {
 public:
  static Tensor forward(AutogradContext *context, const Tensor &x, at::TensorList weights, at::IntArrayRef terms,
                        int64_t n_out)
  {
    variable_list saved{x};
    saved.insert(saved.end(), weights.begin(), weights.end());
    context->save_for_backward(saved);
    context->saved_data["terms"] = terms.vec();
    context->saved_data["width"] = n_out;
    at::AutoDispatchBelowADInplaceOrView guard;
    return mapped(x, weights, terms, n_out);
  }

  static variable_list backward(AutogradContext *context, variable_list g)
  {
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0];
    const Blocks blocks = read(context->saved_data["terms"].toIntVector(), context->saved_data["width"].toInt());
    variable_list d(saved.size() + 2), transposed;    // of x, the matrices, the terms and the width
    std::vector<int64_t> back;
    for (const Term &t : blocks.terms) {
      const Tensor w = saved[t.matrix + 1];
      back.insert(back.end(), {t.output, t.input, t.components, w.size(1), (int64_t) transposed.size(), 0});
      transposed.push_back(w.narrow(0, t.row, t.channels).t());
      if (!context->needs_input_grad(t.matrix + 1)) continue;
      const Tensor a = x.narrow(1, t.input, t.components * t.channels).reshape({-1, t.channels});
      const Tensor b = g[0].narrow(1, t.output, t.components * w.size(1)).reshape({-1, w.size(1)});
      Tensor block = a.t().matmul(b), &sum = d[t.matrix + 1];
      if (t.channels < w.size(0)) block = at::constant_pad_nd(block, {0, 0, t.row, w.size(0) - t.row - t.channels});
      sum = sum.defined() ? sum + block : block;
    }
    if (context->needs_input_grad(0)) d[0] = mapped(g[0], transposed, back, x.size(1));
    return d;
  }
};

}    // namespace

Tensor cpu::linear(const Tensor &x, at::TensorList weights, at::IntArrayRef terms, int64_t n_out)
{
  const Blocks blocks = read(terms, n_out);
  check(x, weights, blocks);
  at::AutoDispatchBelowADInplaceOrView guard;
  return x.scalar_type() == at::kFloat ? product<float>(x, weights, blocks) : product<double>(x, weights, blocks);
}

Tensor autograd::linear(const Tensor &x, at::TensorList weights, at::IntArrayRef terms, int64_t n_out)
{
  return Linear::apply(x, weights, terms, n_out);
}

}    // namespace mlplugins
