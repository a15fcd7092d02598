// SPDX-License-Identifier: GPL-2.0-only
#ifndef MLPLUGINS_EXCLUSIONS_H
#define MLPLUGINS_EXCLUSIONS_H

#include "pointers.h"

#include <string>
#include <vector>

namespace LAMMPS_NS {
class NeighList;
}

namespace mlplugins {

/// What LAMMPS leaves out of a neighbour list besides distant pairs: `neigh_modify exclude` and `include`, special
/// bonds, and pairs of types that `pair_style hybrid` gives to another style.
///
/// An atom without any pair is no isolated atom but none at all: Monte Carlo fixes try deletions that way. Pairs
/// that are missing between atoms that do count change a many-body energy for all their neighbours.
class Exclusions : protected LAMMPS_NS::Pointers {
 public:
  explicit Exclusions(LAMMPS_NS::LAMMPS *lmp) : Pointers(lmp) {}

  /// Read the rules of the neighbour list that was built last.
  /// @param numbers  atomic number of each LAMMPS type (index 1 …); 0: atoms the model does not see
  void update(const std::vector<int> &numbers);

  /// Is atom `i` (owned or ghost) invisible: of a type the model does not see, or excluded from everything?
  bool hides(int i) const;

  /// Find the pairs of visible atoms closer than `reach` (Å: the cutoff and the skin) that a new list leaves out.
  void find_missing(const LAMMPS_NS::NeighList &list, double reach);

  /// A sentence about one of them that is now closer than `cutoff`; empty: there are none.
  std::string missing_pair(double cutoff) const;

 private:
  struct Missing {
    int i, j;           ///< as long as the list lives
    std::string why;    ///< the command that leaves the pair out
  };
  std::vector<Missing> missing_;
  std::string bonded_;        ///< a sentence about a bonded pair
  std::vector<int> numbers_;
  std::vector<bool> hidden_types_;
  int hidden_groups_ = 0;     ///< bits of the groups that are excluded from the group all
  int only_group_ = 0;        ///< bit of `neigh_modify include`; 0: none

  bool in_type_rule(int itype, int jtype) const;
  bool in_group_rule(int i, int j) const;
  bool in_molecule_rule(int i, int j) const;
  bool touched(const LAMMPS_NS::NeighList &list, int i) const;
  std::string reason(const LAMMPS_NS::NeighList &list, int i, int j) const;
  std::string missing_bonded(double reach) const;
};

}    // namespace mlplugins

#endif
