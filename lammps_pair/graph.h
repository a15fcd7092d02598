// SPDX-License-Identifier: GPL-2.0-only
#ifndef MLPLUGINS_GRAPH_H
#define MLPLUGINS_GRAPH_H

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mlplugins {

/// Which atoms of a rank the model sees (see docs/lammps.md).
enum class Mode {
  automatic,
  fold,        ///< one rank: ghosts are replaced by their owners and a cell shift
  exchange,    ///< ghosts to one cutoff, node features are communicated between layers
  ghost        ///< ghosts to the whole interaction range, no communication inside the model
};

/// This rank's atoms (nodes) and neighbour pairs (edges), as the model takes them. Lengths in Å.
struct Graph {
  int n_centers = 0;                 ///< nodes [0, n_centers) are owned atoms
  int n_nodes = 0;                   ///< owned atoms, then ghosts
  std::vector<int32_t> types;        ///< (n_nodes) atomic numbers
  std::vector<double> positions;     ///< (n_nodes, 3)
  std::size_t n_edges = 0;           ///< used rows of the next two
  std::vector<int32_t> samples;      ///< (n_edges, 5) centre, neighbour, cell shift; sorted by centre
  std::vector<double> vectors;       ///< (n_edges, 3) from the centre to the neighbour
  double cell[9] = {};               ///< rows are the cell vectors; zero along non-periodic directions
  bool periodic[3] = {};
  double volume = 0.0;               ///< of the whole box
};

}    // namespace mlplugins

#endif
