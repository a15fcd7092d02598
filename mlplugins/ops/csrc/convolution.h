// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_CONVOLUTION_H
#define MLPLUGINS_CONVOLUTION_H

// The two passes of the equivariant convolution on tensors, beneath autograd.

#include <ATen/ATen.h>

#include <array>
#include <vector>

namespace mlplugins {

/// Edges and tables of a convolution, as the ops receive them.
struct Graph {
  at::Tensor centers, neighbors;    // (E,) int64, centers ascending
  int64_t n_centers;
  at::Tensor paths;                 // (P, 7) int64, the fields of Path
  at::Tensor entries;               // (C, 2) int64: target, harmonic
  at::Tensor values;                // (C,) coefficients
  at::Tensor row;                   // (E,) int64: edges of the same length may share a row of weights; undefined: none do

  static Graph of(at::TensorList edges, int64_t n_centers, at::TensorList tables);
};

/// Radial weights of the edges: given row by row, or made by a perceptron or from a table.
struct RadialInput {
  enum Kind { rows, perceptron, table } kind;
  at::Tensor x;                       // rows: (U, W); perceptron: basis (U, B); table: (E,), 1 at the cutoff
  std::vector<at::Tensor> weights;    // perceptron: its matrices; table: the knots (K, 2, W)
  at::Tensor slopes;                  // perceptron: derivative of the basis with respect to the distance (U, B)
};

/// Refuse what the kernels could not compute.
void check(const Graph &graph, const at::Tensor &h, const at::Tensor &y, const RadialInput &radial);

/// m (n_centers, D')
at::Tensor convolve(const Graph &graph, const at::Tensor &h, const at::Tensor &y, const RadialInput &radial);

/// Gradients of ⟨g, m⟩ with respect to h, y and w, those wanted; where the weights are made, the last one is with
/// respect to the edge's distance (perceptron) or x (table), (E,).
std::vector<at::Tensor> convolve_backward(const Graph &graph, const at::Tensor &g, const at::Tensor &h,
                                          const at::Tensor &y, const RadialInput &radial, std::array<bool, 3> wanted);

/// The op mlplugins::convolution, differentiable to any order.
at::Tensor convolution(const at::Tensor &h, const at::Tensor &y, const at::Tensor &w, const Graph &graph);

/// Its gradients with respect to h, y and w, differentiable as well.
std::vector<at::Tensor> convolution_backward(const Graph &graph, const at::Tensor &g, const at::Tensor &h,
                                             const at::Tensor &y, const at::Tensor &w);

}    // namespace mlplugins

#endif
