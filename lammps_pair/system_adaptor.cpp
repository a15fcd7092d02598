// SPDX-License-Identifier: GPL-2.0-only

#include "system_adaptor.h"

#include "atom.h"
#include "domain.h"
#include "neigh_list.h"
#include "neighbor.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <unordered_map>

using namespace LAMMPS_NS;

namespace mlplugins {

const Graph &SystemAdaptor::update(const NeighList &list, const std::vector<int> &numbers, double cutoff, Mode mode,
                                   bool ghost_edges)
{
  const int n_all = atom->nlocal + atom->nghost;
  rebuilt_ = neighbor->ago == 0 || built_ != neighbor->lastcall || n_all_ != n_all;
  if (rebuilt_) {
    rebuild(list, numbers, mode, ghost_edges);
    built_ = neighbor->lastcall;
    n_all_ = n_all;
  } else {
    require_same_atoms(numbers);
  }
  update_nodes(numbers, mode);
  update_edges(list, cutoff);
  return graph_;
}

void SystemAdaptor::rebuild(const NeighList &list, const std::vector<int> &numbers, Mode mode, bool ghost_edges)
{
  const int n_all = atom->nlocal + atom->nghost;
  const int n_seen = mode == Mode::fold ? atom->nlocal : n_all;
  exclusions_.update(numbers);
  atoms_.clear();
  seen_.resize(n_seen);
  nodes_.assign(n_all, -1);
  shifts_.assign(3 * static_cast<std::size_t>(n_all), 0);
  for (int i = 0; i < n_seen; i++) {
    if (i == atom->nlocal) graph_.n_centers = static_cast<int>(atoms_.size());
    seen_[i] = numbers[atom->type[i]] != 0;
    if (!exclusions_.hides(i)) atoms_.push_back(i);
  }
  const bool by_tag = by_tag_ && mode == Mode::fold;
  if (by_tag) std::sort(atoms_.begin(), atoms_.end(), [this](int a, int b) { return atom->tag[a] < atom->tag[b]; });
  for (std::size_t n = 0; n < atoms_.size(); n++) nodes_[atoms_[n]] = static_cast<int>(n);
  if (n_seen == atom->nlocal) graph_.n_centers = static_cast<int>(atoms_.size());
  graph_.n_nodes = static_cast<int>(atoms_.size());
  if (mode == Mode::fold) fold_ghosts();

  graph_.types.resize(graph_.n_nodes);
  graph_.positions.resize(3 * static_cast<std::size_t>(graph_.n_nodes));
  std::size_t capacity = 0;    // every pair of the list, skin included
  const int inum = list.inum + (ghost_edges ? list.gnum : 0);
  for (int ii = 0; ii < inum; ii++) capacity += list.numneigh[list.ilist[ii]];
  centers_.assign(list.ilist, list.ilist + inum);
  if (by_tag)    // edges stay sorted by centre
    std::sort(centers_.begin(), centers_.end(), [this](int a, int b) { return nodes_[a] < nodes_[b]; });
  graph_.samples.resize(5 * capacity);
  graph_.vectors.resize(3 * capacity);
}

/// Trial moves may change types without new neighbour lists: fine as long as the model sees the same atoms.
void SystemAdaptor::require_same_atoms(const std::vector<int> &numbers) const
{
  for (std::size_t i = 0; i < seen_.size(); i++)
    if (seen_[i] != (numbers[atom->type[i]] != 0))
      throw std::runtime_error("atom " + std::to_string(atom->tag[i]) + " changed between a type of the model and a NULL "
                               "type without a new neighbor list (as fix atom/swap does)");
}

std::string SystemAdaptor::missing_pair(const NeighList &list, double cutoff)
{
  if (rebuilt_) exclusions_.find_missing(list, cutoff + neighbor->skin);
  return exclusions_.missing_pair(cutoff);
}

/// Ghosts become their owner plus whole cell vectors. Needs no atom map: one rank owns every atom.
void SystemAdaptor::fold_ghosts()
{
  std::unordered_map<tagint, int> owner;
  owner.reserve(atom->nlocal);
  for (int i = 0; i < atom->nlocal; i++) owner[atom->tag[i]] = i;
  double image[3], original[3];
  for (int j = atom->nlocal; j < atom->nlocal + atom->nghost; j++) {
    const auto found = owner.find(atom->tag[j]);
    if (found == owner.end()) throw std::runtime_error("a ghost atom has no owner on this rank");
    const int i = found->second;
    nodes_[j] = nodes_[i];
    domain->x2lamda(atom->x[j], image);
    domain->x2lamda(atom->x[i], original);
    for (int d = 0; d < 3; d++)
      shifts_[3 * static_cast<std::size_t>(j) + d] = static_cast<int>(std::lround(image[d] - original[d]));
  }
}

void SystemAdaptor::update_nodes(const std::vector<int> &numbers, Mode mode)
{
  for (int n = 0; n < graph_.n_nodes; n++) {
    const int i = atoms_[n];
    graph_.types[n] = numbers[atom->type[i]];
    std::copy_n(atom->x[i], 3, &graph_.positions[3 * static_cast<std::size_t>(n)]);
  }
  std::fill_n(graph_.cell, 9, 0.0);
  std::fill_n(graph_.periodic, 3, false);
  graph_.volume = domain->xprd * domain->yprd * domain->zprd;
  if (mode != Mode::fold) return;
  const double vectors[3][3] = {{domain->h[0], 0.0, 0.0},
                                {domain->h[5], domain->h[1], 0.0},
                                {domain->h[4], domain->h[3], domain->h[2]}};
  for (int d = 0; d < 3; d++) {
    graph_.periodic[d] = domain->periodicity[d];
    if (graph_.periodic[d]) std::copy_n(vectors[d], 3, graph_.cell + 3 * d);
  }
}

void SystemAdaptor::update_edges(const NeighList &list, double cutoff)
{
  const double cutoff_squared = cutoff * cutoff;
  const double *const *x = atom->x;
  int32_t *sample = graph_.samples.data();
  double *vector = graph_.vectors.data();
  for (const int i : centers_) {
    if (nodes_[i] < 0) continue;
    const double xi = x[i][0], yi = x[i][1], zi = x[i][2];
    const int *neighbors = list.firstneigh[i];
    const int count = list.numneigh[i];
    for (int jj = 0; jj < count; jj++) {
      const int j = neighbors[jj] & NEIGHMASK;
      const double dx = x[j][0] - xi, dy = x[j][1] - yi, dz = x[j][2] - zi;
      if (dx * dx + dy * dy + dz * dz >= cutoff_squared || nodes_[j] < 0) continue;
      const int *shift = &shifts_[3 * static_cast<std::size_t>(j)];
      sample[0] = nodes_[i];
      sample[1] = nodes_[j];
      sample[2] = shift[0];
      sample[3] = shift[1];
      sample[4] = shift[2];
      vector[0] = dx;
      vector[1] = dy;
      vector[2] = dz;
      sample += 5;
      vector += 3;
    }
  }
  graph_.n_edges = static_cast<std::size_t>(vector - graph_.vectors.data()) / 3;
}

void SystemAdaptor::scatter_edges(const double *gradients, const Accumulators &out) const
{
  double total[9] = {};    // Σ v ⊗ g
  const double *v = graph_.vectors.data();
  const double *g = gradients;
  const int32_t *sample = graph_.samples.data();
  for (std::size_t e = 0; e < graph_.n_edges; e++, v += 3, g += 3, sample += 5) {
    const int centre = atoms_[sample[0]];
    const int neighbour = atoms_[sample[1]];
    for (int d = 0; d < 3; d++) {
      const double force = out.scale * g[d];
      out.forces[centre][d] += force;
      out.forces[neighbour][d] -= force;
    }
    if (out.virial)
      for (int a = 0; a < 3; a++)
        for (int b = 0; b < 3; b++) total[3 * a + b] += v[a] * g[b];
    if (!out.atom_virial && !out.centroid_virial) continue;
    double w[9];
    for (int a = 0; a < 3; a++)
      for (int b = 0; b < 3; b++) w[3 * a + b] = -out.scale * v[a] * g[b];
    if (out.atom_virial) {
      const double symmetric[6] = {w[0], w[4], w[8], 0.5 * (w[1] + w[3]), 0.5 * (w[2] + w[6]), 0.5 * (w[5] + w[7])};
      for (int k = 0; k < 6; k++) {
        out.atom_virial[centre][k] += 0.5 * symmetric[k];
        out.atom_virial[neighbour][k] += 0.5 * symmetric[k];
      }
    }
    if (out.centroid_virial) {
      const double full[9] = {w[0], w[4], w[8], w[1], w[2], w[5], w[3], w[6], w[7]};
      for (int k = 0; k < 9; k++) out.centroid_virial[neighbour][k] += full[k];
    }
  }
  if (out.virial) {
    const double symmetric[6] = {total[0], total[4], total[8], 0.5 * (total[1] + total[3]),
                                 0.5 * (total[2] + total[6]), 0.5 * (total[5] + total[7])};
    for (int k = 0; k < 6; k++) out.virial[k] -= out.scale * symmetric[k];
  }
}

}    // namespace mlplugins
