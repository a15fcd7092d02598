// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_OPS_H
#define MLPLUGINS_OPS_H

// The ops. Each has up to three functions of one signature, one per dispatch key (library.cpp registers them):
//   cpu         the compiled kernels                                        CPU
//   reference   the same in ATen's own operations, for any other device     CompositeExplicitAutograd
//   autograd    the derivatives, for every device                           Autograd
// A kernel for another device is a file with TORCH_LIBRARY_IMPL(mlplugins, CUDA, library), nothing else. Shapes, for
// torch.compile, are Python's (mlplugins/ops/shapes.py).

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace mlplugins {

using at::Tensor;
using Two = std::tuple<Tensor, Tensor>;
using Three = std::tuple<Tensor, Tensor, Tensor>;
using Five = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
using Wanted = std::array<bool, 3>;    // which gradients; the others are empty

#define MLPLUGINS_DECLARE(result, name, ...)               \
  namespace cpu { result name(__VA_ARGS__); }              \
  namespace reference { result name(__VA_ARGS__); }        \
  namespace autograd { result name(__VA_ARGS__); }

MLPLUGINS_DECLARE(Tensor, convolution, const Tensor &h, const Tensor &y, const Tensor &w, at::TensorList edges,
                  int64_t n_centers, at::TensorList tables)
/// Gradients of ⟨g, convolution⟩ with respect to h, y and w.
MLPLUGINS_DECLARE(Three, convolution_backward, const Tensor &g, const Tensor &h, const Tensor &y, const Tensor &w,
                  at::TensorList edges, int64_t n_centers, at::TensorList tables, Wanted wanted)
MLPLUGINS_DECLARE(Tensor, radial_convolution, const Tensor &h, const Tensor &y, at::TensorList radial,
                  at::TensorList weights, at::TensorList edges, int64_t n_centers, at::TensorList tables)
/// The same with respect to h, y and the distances (E,).
MLPLUGINS_DECLARE(Three, radial_convolution_backward, const Tensor &g, const Tensor &h, const Tensor &y,
                  at::TensorList radial, at::TensorList weights, at::TensorList edges, int64_t n_centers,
                  at::TensorList tables, Wanted wanted)
MLPLUGINS_DECLARE(Tensor, table_convolution, const Tensor &h, const Tensor &y, const Tensor &x, const Tensor &knots,
                  at::TensorList edges, int64_t n_centers, at::TensorList tables)
/// The same with respect to h, y and x (E,).
MLPLUGINS_DECLARE(Three, table_convolution_backward, const Tensor &g, const Tensor &h, const Tensor &y,
                  const Tensor &x, const Tensor &knots, at::TensorList edges, int64_t n_centers,
                  at::TensorList tables, Wanted wanted)
MLPLUGINS_DECLARE(Two, edge_rows, const Tensor &centers, const Tensor &neighbors, const Tensor &vectors)
MLPLUGINS_DECLARE(Tensor, linear, const Tensor &x, at::TensorList weights, at::IntArrayRef terms, int64_t n_out)
/// Sums of linear maps of x with constant weights: those of the sums (`plan`) and of their gradients (`back`).
MLPLUGINS_DECLARE(std::vector<Tensor>, linear_sums, at::TensorList x, const Tensor &species, at::TensorList weights,
                  at::IntArrayRef plan, at::IntArrayRef back)
MLPLUGINS_DECLARE(Tensor, gate, const Tensor &x, at::IntArrayRef sizes, at::ArrayRef<double> factors)
MLPLUGINS_DECLARE(Tensor, gate_backward, const Tensor &g, const Tensor &x, at::IntArrayRef sizes,
                  at::ArrayRef<double> factors)
MLPLUGINS_DECLARE(Two, harmonics, const Tensor &vectors, int64_t l_max, bool solid)
MLPLUGINS_DECLARE(Tensor, harmonics_backward, const Tensor &gr, const Tensor &gy, const Tensor &vectors, int64_t l_max,
                  bool solid)
MLPLUGINS_DECLARE(Tensor, symmetric_contraction, const Tensor &x, const Tensor &coefficients, const Tensor &species,
                  const Tensor &monomials, int64_t n_out)
/// Gradients of Φ = ⟨g, symmetric_contraction⟩ with respect to x and, if wanted, the coefficients.
MLPLUGINS_DECLARE(Two, symmetric_contraction_backward, const Tensor &g, const Tensor &x, const Tensor &coefficients,
                  const Tensor &species, const Tensor &monomials, int64_t n_out, bool wanted)
/// Derivatives of ∂Φ/∂(g, x, coefficients), the last if wanted, along (0, dx, dc); an absent direction is zero.
MLPLUGINS_DECLARE(Three, symmetric_contraction_double_backward, const std::optional<Tensor> &dx,
                  const std::optional<Tensor> &dc, const Tensor &g, const Tensor &x, const Tensor &coefficients,
                  const Tensor &species, const Tensor &monomials, int64_t n_out, bool wanted)
MLPLUGINS_DECLARE(Two, kernel_sum, const Tensor &q, const Tensor &packed, const Tensor &values, std::string kernel,
                  double sigma)
MLPLUGINS_DECLARE(Three, molecular_kernel, const Tensor &positions, at::TensorList tables, std::string kernel,
                  double sigma)
MLPLUGINS_DECLARE(Tensor, pair_sum, const Tensor &vectors, at::TensorList factors, const Tensor &kind,
                  at::TensorList edges, const Tensor &pairs, std::string form, at::ArrayRef<double> constants)
/// Gradients of ⟨g, pair_sum⟩ with respect to vectors and both factors.
MLPLUGINS_DECLARE(Three, pair_sum_backward, const Tensor &g, const Tensor &vectors, at::TensorList factors,
                  const Tensor &kind, at::TensorList edges, const Tensor &pairs, std::string form,
                  at::ArrayRef<double> constants)
MLPLUGINS_DECLARE(Tensor, ghost_exchange, const Tensor &h)
/// Let `ghost_exchange` on this thread return (n_centers, D) and behind it, for every edge, a copy of the row of its
/// neighbour `sources` among the nodes; without sources, no longer. Returns the copies (E, D) of every exchange since.
MLPLUGINS_DECLARE(std::vector<Tensor>, message_copies, const std::optional<Tensor> &sources, int64_t n_nodes)
/// Let exchanges on this thread note the features that they return, and convolutions of them, in backward passes, the
/// moments Σ_e −x_e a_e of what flows back to each node along `edges`: centres, neighbours and vectors x; without edges,
/// no longer. Returns of every exchange since that mattered its features (N, D) and moments (3, N, D) in the last
/// backward pass; empty ones (0) where a single convolution over all edges was not all that read the features.
MLPLUGINS_DECLARE(std::vector<Tensor>, message_moments, at::TensorList edges)
MLPLUGINS_DECLARE(Five, near_pairs, const Tensor &positions, const Tensor &expected, const Tensor &cell,
                  const Tensor &samples, double cutoff)
MLPLUGINS_DECLARE(Three, forces_and_virials, const Tensor &gradient, const Tensor &vectors, const Tensor &centers,
                  const Tensor &neighbors, const Tensor &system, int64_t n_systems, bool per_atom)

#undef MLPLUGINS_DECLARE

/// An op as torch's dispatcher calls it, for the device and the mode at hand.
template <typename Signature> c10::TypedOperatorHandle<Signature> dispatched(const char *name)
{
  return c10::Dispatcher::singleton().findSchemaOrThrow((std::string("mlplugins::") + name).c_str(), "").typed<Signature>();
}

/// Whether autograd has to know of results that depend on `inputs`; a node of it costs a small op as much as itself.
bool differentiable(at::TensorList inputs);

/// Results of an op beneath autograd that depend on `inputs`; asking for their derivatives is an error, which begins
/// with `what`.
std::vector<Tensor> without_derivatives(at::TensorList inputs, const char *what,
                                        const std::function<std::vector<Tensor>()> &results);

/// What stands for a gradient that was not wanted.
inline Tensor given(const Tensor &gradient, const Tensor &like)
{
  return gradient.defined() ? gradient : like.new_empty({0});
}

inline std::vector<Tensor> list(const Three &t) { return {std::get<0>(t), std::get<1>(t), std::get<2>(t)}; }

}    // namespace mlplugins

#endif
