// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_CONVOLUTION_H
#define MLPLUGINS_CONVOLUTION_H

// The arguments of the equivariant convolutions.

#include "ops.h"

#include <ATen/ATen.h>

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
  at::Tensor which;                 // (E,) int64: which of several radial tables an edge has; undefined: there is one

  static Graph of(at::TensorList edges, int64_t n_centers, at::TensorList tables);

  std::vector<at::Tensor> edges() const
  {
    std::vector<at::Tensor> all{centers, neighbors};
    for (const at::Tensor &t : {row, which})
      if (t.defined()) all.push_back(t);
    return all;
  }
  std::vector<at::Tensor> tables() const { return {paths, entries, values}; }

  /// The edges without the rows that they share, for weights that are made.
  Graph with_own_rows() const { return {centers, neighbors, n_centers, paths, entries, values, {}, {}}; }
};

/// Radial weights of the edges: given row by row, or made by a perceptron or from a table.
struct RadialInput {
  enum Kind { rows, perceptron, table } kind;
  at::Tensor x;                       // rows: (U, W); perceptron: basis (U, B); table: (E,), 1 at the cutoff
  std::vector<at::Tensor> weights;    // perceptron: its matrices; table: the knots (K, 3 or 2, W), of several (P, K, 3, W)
  at::Tensor slopes;                  // perceptron: derivative of the basis with respect to the distance (U, B)
  at::Tensor which;                   // table: Graph::which
};

/// The perceptron's input from the op's list: distances, basis and slopes.
RadialInput perceptron_input(at::TensorList radial, at::TensorList weights);

/// That of a table at the places x (E,).
RadialInput table_input(const at::Tensor &x, const at::Tensor &knots, const Graph &graph);

/// Refuse what could not be computed.
void check(const Graph &graph, const at::Tensor &h, const at::Tensor &y, const RadialInput &radial);

/// The same, and that there is one distance r per edge.
void check_perceptron(const Graph &graph, const at::Tensor &h, const at::Tensor &y, const at::Tensor &r,
                      const RadialInput &radial);

/// Gradients as those of the ops' backward pass on the CPU, h among them, and (3, N, D): Σ_e −x_e a_e of what flows back
/// to each row of h along its edges, `vectors` (E, 3).
std::vector<at::Tensor> backward_with_moments(const Graph &graph, const at::Tensor &g, const at::Tensor &h,
                                              const at::Tensor &y, const RadialInput &radial, Wanted wanted,
                                              const at::Tensor &vectors);

/// The weights (U or E, W) of a perceptron or a table, differentiable.
at::Tensor weights_of(const RadialInput &radial);

}    // namespace mlplugins

#endif
