// SPDX-License-Identifier: BSD-3-Clause
// Op mlplugins::linear: an equivariant linear map, block by block where the blocks stand, without copies of them.
// It is linear in x and in W; its derivatives are maps of the same kind and products of blocks.

#include "convolution_kernel.h"
#include "ops.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <map>
#include <vector>

namespace mlplugins {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// `components` blocks of channels of x, from `input` on, times rows `row` … row + `channels` of a matrix, are added
/// to the result from `output` on.
struct Term {
  int64_t input, output, components, channels, matrix, row;
};
constexpr int64_t FIELDS = 6;

struct Blocks {
  std::vector<Term> terms;
  int64_t width;    // of the result
};

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

/// The map's own matrices, one per term.
variable_list matrices_of(at::TensorList weights, const Blocks &blocks)
{
  variable_list matrices;
  for (const Term &t : blocks.terms) matrices.push_back(weights[t.matrix].narrow(0, t.row, t.channels));
  return matrices;
}

template <typename T> Tensor product(const Tensor &x_, const variable_list &matrices, const Blocks &blocks)
{
  const Tensor x = x_.contiguous();
  const Kernels<T> &k = kernels<T>();
  std::vector<LinearTerm<T>> terms;
  std::vector<Tensor> packed;
  std::map<int64_t, int64_t> covered;
  for (size_t t = 0; t < matrices.size(); t++) {
    const Term &term = blocks.terms[t];
    const Tensor &w = matrices[t];
    packed.push_back(at::empty({w.size(0), (w.size(1) + k.panel - 1) / k.panel * k.panel}, w.options()));
    T *const to = packed.back().template data_ptr<T>();
    k.pack({w.template data_ptr<T>(), w.size(0), w.size(1), w.stride(0), w.stride(1)}, to);
    const bool first = covered.emplace(term.output, term.components * w.size(1)).second;
    terms.push_back({term.input, term.output, term.components, w.size(0), w.size(1), !first, to});
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

Tensor mapped(const Tensor &x, const variable_list &matrices, const Blocks &blocks);

class Linear : public torch::autograd::Function<Linear> {
 public:
  static Tensor forward(AutogradContext *context, const Tensor &x, at::TensorList matrices, const Blocks &blocks)
  {
    variable_list saved{x};
    saved.insert(saved.end(), matrices.begin(), matrices.end());
    context->save_for_backward(saved);
    std::vector<int64_t> terms;
    for (const Term &t : blocks.terms) terms.insert(terms.end(), {t.input, t.output, t.components, t.channels, t.matrix, t.row});
    context->saved_data["terms"] = terms;
    context->saved_data["width"] = blocks.width;
    at::AutoDispatchBelowADInplaceOrView guard;
    return x.scalar_type() == at::kFloat ? product<float>(x, matrices.vec(), blocks)
                                         : product<double>(x, matrices.vec(), blocks);
  }

  static variable_list backward(AutogradContext *context, variable_list g)
  {
    const auto saved = context->get_saved_variables();
    const Tensor &x = saved[0];
    const Blocks blocks = read(context->saved_data["terms"].toIntVector(), context->saved_data["width"].toInt());
    variable_list d(saved.size() + 1);    // of x, the matrices and the blocks
    Blocks back{{}, x.size(1)};
    variable_list transposed;
    for (size_t t = 0; t < blocks.terms.size(); t++) {
      const Term &term = blocks.terms[t];
      const Tensor &w = saved[t + 1];
      transposed.push_back(w.t());
      back.terms.push_back({term.output, term.input, term.components, w.size(1), 0, 0});
      if (!context->needs_input_grad(t + 1)) continue;
      const Tensor a = x.narrow(1, term.input, term.components * w.size(0)).reshape({-1, w.size(0)});
      const Tensor b = g[0].narrow(1, term.output, term.components * w.size(1)).reshape({-1, w.size(1)});
      d[t + 1] = a.t().matmul(b);
    }
    if (context->needs_input_grad(0)) d[0] = mapped(g[0], transposed, back);
    return d;
  }
};

/// In ATen's own operations, for devices that the kernels do not know.
Tensor composed(const Tensor &x, const variable_list &matrices, const Blocks &blocks)
{
  std::map<int64_t, Tensor> sums;
  for (size_t t = 0; t < matrices.size(); t++) {
    const Term &term = blocks.terms[t];
    const Tensor &w = matrices[t];
    const Tensor block = x.narrow(1, term.input, term.components * w.size(0)).reshape({x.size(0) * term.components, w.size(0)});
    const Tensor y = block.matmul(w).reshape({x.size(0), term.components * w.size(1)});
    const auto [place, first] = sums.emplace(term.output, y);
    if (!first) place->second = place->second + y;
  }
  variable_list parts;
  int64_t end = 0;
  const auto fill = [&](int64_t to) {
    if (to > end) parts.push_back(at::zeros({x.size(0), to - end}, x.options()));
  };
  for (const auto &[offset, block] : sums) {
    fill(offset);
    parts.push_back(block);
    end = offset + block.size(1);
  }
  fill(blocks.width);
  return parts.empty() ? at::zeros({x.size(0), 0}, x.options()) : at::cat(parts, 1);
}

Tensor mapped(const Tensor &x, const variable_list &matrices, const Blocks &blocks)
{
  if (!x.is_cpu()) return composed(x, matrices, blocks);
  return Linear::apply(x, at::TensorList(matrices), blocks);
}

}    // namespace

Tensor linear(const Tensor &x, at::TensorList weights, at::IntArrayRef terms, int64_t n_out)
{
  const Blocks blocks = read(terms, n_out);
  check(x, weights, blocks);
  return mapped(x, matrices_of(weights, blocks), blocks);
}

}    // namespace mlplugins
