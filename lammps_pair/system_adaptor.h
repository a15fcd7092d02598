// SPDX-License-Identifier: GPL-2.0-only
#ifndef MLPLUGINS_SYSTEM_ADAPTOR_H
#define MLPLUGINS_SYSTEM_ADAPTOR_H

#include "exclusions.h"
#include "graph.h"

#include "pointers.h"

#include <vector>

namespace LAMMPS_NS {
class NeighList;
}

namespace mlplugins {

/// Where the results of one evaluation are added; null pointers are skipped.
struct Accumulators {
  double **forces = nullptr;         ///< per atom, ghosts included
  double *virial = nullptr;          ///< 6: xx yy zz xy xz yz
  double **atom_virial = nullptr;    ///< per atom 6
  double **centroid_virial = nullptr;    ///< per atom 9: xx yy zz xy xz yz yx zx zy
  double scale = 1.0;                ///< eV to the energy unit of the run
};

/// Translates between LAMMPS' atoms and neighbour list and the model's graph.
class SystemAdaptor : protected LAMMPS_NS::Pointers {
 public:
  /// @param by_tag  number the nodes by atom ID (mode fold): what models of whole molecules need
  SystemAdaptor(LAMMPS_NS::LAMMPS *lmp, bool by_tag) : Pointers(lmp), by_tag_(by_tag), exclusions_(lmp) {}

  /// Fill the graph with all pairs closer than `cutoff`. What only changes when LAMMPS rebuilds its neighbour
  /// list is kept between rebuilds. Atoms that are excluded from everything are no nodes.
  /// @param numbers  atomic number of each LAMMPS type (index 1 …); 0: atoms the model does not see
  /// @param ghost_edges  also the edges around ghosts (ghost mode of message-passing models)
  const Graph &update(const LAMMPS_NS::NeighList &list, const std::vector<int> &numbers, double cutoff, Mode mode,
                      bool ghost_edges);

  /// Add forces F_centre += g, F_neighbour -= g and virials -v ⊗ g from the gradients g = dE/dv of each edge.
  /// The 6-component per-atom virial halves each edge between its ends, as stock pair styles do; the 9-component
  /// one belongs to the neighbour: then Σ W_n · v_n is the potential part of the heat flux (one-layer models).
  void scatter_edges(const double *gradients, const Accumulators &out) const;

  /// A sentence about a pair that the neighbour list lacks though both atoms are nodes; empty: all pairs are there.
  /// Found when the list is new, with the skin; named when they are within the cutoff.
  std::string missing_pair(const LAMMPS_NS::NeighList &list, double cutoff);

  /// Number of owned atoms the model sees.
  int n_centers() const { return graph_.n_centers; }
  /// LAMMPS index of node `n`.
  int atom_of(int n) const { return atoms_[n]; }
  /// Node of LAMMPS atom `i` (owned or ghost), -1 if the model does not see it.
  int node_of(int i) const { return nodes_[i]; }

 private:
  const bool by_tag_;
  Exclusions exclusions_;
  Graph graph_;
  bool rebuilt_ = false;             ///< at the last update
  std::vector<bool> seen_;           ///< LAMMPS atom → its type belonged to the model when the list was built
  std::vector<int> atoms_;      ///< node → LAMMPS atom
  std::vector<int> centers_;    ///< LAMMPS atoms with edges, in the order of their edges
  std::vector<int> nodes_;      ///< LAMMPS atom (owned and ghost) → node
  std::vector<int> shifts_;     ///< (atoms, 3) cell shift of each LAMMPS atom against its node
  LAMMPS_NS::bigint built_ = -1;           ///< neighbour list the maps belong to: step of its build …
  int n_all_ = -1;              ///< … and number of atoms

  void rebuild(const LAMMPS_NS::NeighList &list, const std::vector<int> &numbers, Mode mode, bool ghost_edges);
  void fold_ghosts();
  void require_same_atoms(const std::vector<int> &numbers) const;
  void update_nodes(const std::vector<int> &numbers, Mode mode);
  void update_edges(const LAMMPS_NS::NeighList &list, double cutoff);
};

}    // namespace mlplugins

#endif
