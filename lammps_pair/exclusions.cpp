// SPDX-License-Identifier: GPL-2.0-only

#include "exclusions.h"

#include "atom.h"
#include "domain.h"
#include "fmt/format.h"
#include "group.h"
#include "neigh_list.h"
#include "neighbor.h"

#include <algorithm>
#include <cmath>

using namespace LAMMPS_NS;

namespace mlplugins {

namespace {

const char *const EXCLUDED = "neigh_modify exclude";

bool skips(const NeighList &list, int itype, int jtype)
{
  return list.listskip && list.ijskip && list.ijskip[itype][jtype];
}

double distance(const double *a, const double *b)
{
  return std::sqrt((a[0] - b[0]) * (a[0] - b[0]) + (a[1] - b[1]) * (a[1] - b[1]) + (a[2] - b[2]) * (a[2] - b[2]));
}

}    // namespace

void Exclusions::update(const std::vector<int> &numbers)
{
  numbers_ = numbers;
  hidden_groups_ = 0;
  for (int k = 0; k < neighbor->nex_group; k++) {    // group 0 is `all`
    if (neighbor->ex2_group[k] == 0) hidden_groups_ |= neighbor->ex1_bit[k];
    if (neighbor->ex1_group[k] == 0) hidden_groups_ |= neighbor->ex2_bit[k];
  }
  only_group_ = neighbor->includegroup ? group->bitmask[neighbor->includegroup] : 0;
  const int n_types = static_cast<int>(numbers.size()) - 1;
  hidden_types_.assign(numbers.size(), false);
  for (int i = 1; i <= n_types; i++) {
    bool all = true;
    for (int j = 1; j <= n_types; j++) all = all && (numbers[j] == 0 || in_type_rule(i, j));
    hidden_types_[i] = numbers[i] == 0 || all;
  }
}

bool Exclusions::hides(int i) const
{
  const int mask = atom->mask[i];
  return hidden_types_[atom->type[i]] || (mask & hidden_groups_) || (only_group_ && !(mask & only_group_));
}

bool Exclusions::in_type_rule(int itype, int jtype) const
{
  return neighbor->nex_type > 0 && neighbor->ex_type[itype][jtype];
}

bool Exclusions::in_group_rule(int i, int j) const
{
  const int *mask = atom->mask;
  for (int k = 0; k < neighbor->nex_group; k++) {
    const int a = neighbor->ex1_bit[k], b = neighbor->ex2_bit[k];
    if (((mask[i] & a) && (mask[j] & b)) || ((mask[i] & b) && (mask[j] & a))) return true;
  }
  return false;
}

bool Exclusions::in_molecule_rule(int i, int j) const
{
  for (int k = 0; k < neighbor->nex_mol; k++) {
    const int bit = neighbor->ex_mol_bit[k];
    const bool same = atom->molecule[i] == atom->molecule[j];
    if ((atom->mask[i] & bit) && (atom->mask[j] & bit) && same == (neighbor->ex_mol_intra[k] != 0)) return true;
  }
  return false;
}

/// Can any rule hold for a pair of atom `i`?
bool Exclusions::touched(const NeighList &list, int i) const
{
  if (hides(i)) return false;
  for (int k = 0; k < neighbor->nex_group; k++) {
    const bool hiding = neighbor->ex1_group[k] == 0 || neighbor->ex2_group[k] == 0;
    if (!hiding && (atom->mask[i] & (neighbor->ex1_bit[k] | neighbor->ex2_bit[k]))) return true;
  }
  for (int k = 0; k < neighbor->nex_mol; k++)
    if (atom->mask[i] & neighbor->ex_mol_bit[k]) return true;
  for (std::size_t j = 1; j < numbers_.size(); j++) {
    const int itype = atom->type[i], jtype = static_cast<int>(j);
    if (!hidden_types_[j] && (in_type_rule(itype, jtype) || skips(list, itype, jtype))) return true;
  }
  return false;
}

/// The command that leaves out the pair of atoms `i` and `j`, empty if none does.
std::string Exclusions::reason(const NeighList &list, int i, int j) const
{
  const int itype = atom->type[i], jtype = atom->type[j];
  if (in_type_rule(itype, jtype) || in_group_rule(i, j) || in_molecule_rule(i, j)) return EXCLUDED;
  if (skips(list, itype, jtype))
    return fmt::format("pair_style hybrid, which gives types {} and {} to another style,", std::min(itype, jtype),
                       std::max(itype, jtype));
  return "";
}

void Exclusions::find_missing(const NeighList &list, double reach)
{
  missing_.clear();
  bonded_ = missing_bonded(reach);
  if (!bonded_.empty()) return;
  const double *const *x = atom->x;
  std::vector<int> atoms;
  for (int i = 0; i < atom->nlocal + atom->nghost; i++)
    if (touched(list, i)) atoms.push_back(i);
  std::sort(atoms.begin(), atoms.end(), [x](int a, int b) { return x[a][0] < x[b][0]; });
  for (std::size_t a = 0; a < atoms.size(); a++)
    for (std::size_t b = a + 1; b < atoms.size() && x[atoms[b]][0] - x[atoms[a]][0] < reach; b++) {
      const int i = atoms[a], j = atoms[b];
      if (i >= atom->nlocal && j >= atom->nlocal) continue;    // another rank's, or an image of an owned pair
      if (distance(x[i], x[j]) >= reach) continue;
      const auto why = reason(list, i, j);
      if (!why.empty()) missing_.push_back({i, j, why});
    }
}

std::string Exclusions::missing_pair(double cutoff) const
{
  for (const auto &[i, j, why] : missing_) {
    const double r = distance(atom->x[i], atom->x[j]);
    if (r < cutoff)
      return fmt::format("{} leaves out the pair of atoms {} and {} ({:.3g} A apart), and without it the energy of "
                           "a many-body model is wrong for all their neighbors. To keep atoms fixed, use fix setforce "
                           "or leave them out of the integrator; to take atoms out altogether, exclude them from "
                           "group all; `exclusions allow` on the pair_style line accepts it",
                           why, atom->tag[i], atom->tag[j], r);
  }
  return bonded_;
}

/// Pairs within molecules that `special_bonds` takes off the list.
std::string Exclusions::missing_bonded(double reach) const
{
  if (atom->molecular != Atom::MOLECULAR || atom->map_style == Atom::MAP_NONE) return "";
  const auto visible = [this](int i) { return !hides(i); };
  for (int i = 0; i < atom->nlocal; i++) {
    if (!visible(i)) continue;
    for (int level = 1, k = 0; level <= 3; level++)
      for (; k < atom->nspecial[i][level - 1]; k++) {
        if (neighbor->special_flag[level] != 0) continue;
        int j = atom->map(atom->special[i][k]);
        if (j < 0) continue;
        j = domain->closest_image(i, j);
        if (visible(j) && distance(atom->x[i], atom->x[j]) < reach)
          return fmt::format("special_bonds leaves out the pair of atoms {} and {} (bonded pairs are missing from the "
                             "neighbor list); use 'special_bonds lj/coul 1 1 1'", atom->tag[i], atom->tag[j]);
      }
  }
  return "";
}

}    // namespace mlplugins
