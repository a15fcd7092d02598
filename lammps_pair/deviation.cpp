// SPDX-License-Identifier: GPL-2.0-only

#include "deviation.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "pair.h"
#include "update.h"
#include "utils.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <set>

using namespace LAMMPS_NS;

namespace mlplugins {

namespace {

constexpr double ROUNDING = 1e-6;    // relative differences of forces that are those of single precision
constexpr double ZERO = 1e-9;        // forces of a perfect crystal, which tell nothing of the models

constexpr double ANOTHER_ZERO = 0.2;     // eV per atom: see committee.py
constexpr double PER_DEVIATION = 5.0;    // the same, over the differences of forces (eV/Å) and virials per atom (eV)

}    // namespace

Deviation::Deviation(LAMMPS *lmp, Pair *pair, const DeviationSettings &settings, int n_models) :
    Pointers(lmp), pair_(pair), settings_(settings), n_models_(n_models), again_(lmp->update->first_update != 0),
    forces_(n_models), virials_(6 * n_models)
{
}

Deviation::~Deviation()
{
  if (file_) std::fclose(file_);
}

/// A run that continues appends, without a second header: at a step above 0, or where the style is declared again after
/// a run that began the file (with reset_timestep 0 between). A deck that starts anew (clear, another instance) does not.
void Deviation::init()
{
  if (settings_.atomic && !atom->tag_consecutive())
    error->all(FLERR, "Pair style mlplugins: keyword atomic writes one column per atom ID and needs IDs from 1 to the "
               "number of atoms (reset_atoms id)");
  if (settings_.every == 0 || opened_) return;
  opened_ = true;
  n_columns_ = atom->natoms;
  if (comm->me != 0) return;
  static std::set<std::filesystem::path> begun;
  const bool known = !begun.insert(std::filesystem::absolute(settings_.file)).second;
  const bool append = update->beginstep > 0 || (known && again_);
  file_ = std::fopen(settings_.file.c_str(), append ? "a" : "w");
  if (!file_)
    error->one(FLERR, "Pair style mlplugins: keyword out_file: cannot write '{}': {}", settings_.file,
               utils::getsyserror());
  std::fseek(file_, 0, SEEK_END);
  if (std::ftell(file_) > 0) return;
  std::fprintf(file_, "#%11s", "step");
  for (const char *name : {"max_devi_v", "min_devi_v", "avg_devi_v", "max_devi_f", "min_devi_f", "avg_devi_f"})
    std::fprintf(file_, "%19s", name);
  if (settings_.atomic) std::fprintf(file_, "%19s", fmt::format("atm_devi_f({})", atom->natoms).c_str());
  std::fprintf(file_, "\n");
  std::fflush(file_);
}

bool Deviation::due() const
{
  return settings_.every > 0 && update->ntimestep % settings_.every == 0;
}

Accumulators Deviation::of_model(int m, double scale)
{
  const auto n = static_cast<std::size_t>(std::max(atom->nlocal + atom->nghost, 1));
  forces_[m].assign(3 * n, 0.0);
  rows_.resize(n);
  for (std::size_t i = 0; i < n; i++) rows_[i] = &forces_[m][3 * i];
  std::fill_n(&virials_[6 * m], 6, 0.0);
  Accumulators out;
  out.forces = rows_.data();
  out.virial = &virials_[6 * m];
  out.scale = scale;
  return out;
}

/// Norm of the standard deviations of the components.
double Deviation::of_atom(int i) const
{
  double squares = 0.0, norm = 0.0;
  for (std::size_t k = 3 * static_cast<std::size_t>(i); k < 3 * static_cast<std::size_t>(i) + 3; k++) {
    double mean = 0.0;
    for (const auto &forces : forces_) mean += forces[k] / n_models_;
    for (const auto &forces : forces_) squares += (forces[k] - mean) * (forces[k] - mean);
    norm += mean * mean;
  }
  const double deviation = std::sqrt(squares / n_models_);
  return settings_.relative < 0.0 ? deviation : deviation / (std::sqrt(norm) + settings_.relative);
}

void Deviation::evaluate(const SystemAdaptor &adaptor, bool ghosts)
{
  if (ghosts)
    for (current_ = 0; current_ < n_models_; current_++) comm->reverse_comm(pair_, 3);
  current_ = -1;
  of_atoms_.assign(std::max(atom->nlocal, 1), 0.0);
  n_own_ = adaptor.n_centers();
  double sums[2] = {0.0, static_cast<double>(n_own_)}, all[2];
  const double infinity = std::numeric_limits<double>::infinity();
  double extremes[2] = {-infinity, -infinity};    // largest, minus the smallest
  tagint worst = 0;
  for (int n = 0; n < adaptor.n_centers(); n++) {
    const int i = adaptor.atom_of(n);
    const double deviation = of_atoms_[i] = of_atom(i);
    if (!compared_) compare(i);
    sums[0] += deviation;
    if (deviation > extremes[0]) worst = atom->tag[i];
    extremes[0] = std::max(extremes[0], deviation);
    extremes[1] = std::max(extremes[1], -deviation);
  }
  const double own = extremes[0];
  MPI_Allreduce(MPI_IN_PLACE, extremes, 2, MPI_DOUBLE, MPI_MAX, world);
  MPI_Allreduce(sums, all, 2, MPI_DOUBLE, MPI_SUM, world);
  if (own < extremes[0]) worst = 0;
  MPI_Allreduce(&worst, &worst_, 1, MPI_LMP_TAGINT, MPI_MAX, world);
  const bool empty = all[1] == 0.0;
  columns_[3] = empty ? 0.0 : extremes[0];
  columns_[4] = empty ? 0.0 : -extremes[1];
  columns_[5] = empty ? 0.0 : all[0] / all[1];
  add_virials(all[1]);
  if (due()) write();
}

/// Over the nine components of the virial per atom; of a symmetric tensor three count twice.
void Deviation::add_virials(double n_atoms)
{
  std::vector<double> total(virials_.size());
  MPI_Allreduce(virials_.data(), total.data(), static_cast<int>(total.size()), MPI_DOUBLE, MPI_SUM, world);
  double largest = 0.0, smallest = std::numeric_limits<double>::infinity(), squares = 0.0;
  for (int k = 0; k < 6; k++) {
    double mean = 0.0, square = 0.0;
    for (int m = 0; m < n_models_; m++) mean += total[6 * m + k] / n_models_;
    for (int m = 0; m < n_models_; m++) square += (total[6 * m + k] - mean) * (total[6 * m + k] - mean);
    const double n = std::max(n_atoms, 1.0);
    double deviation = std::sqrt(square / n_models_) / n;
    if (settings_.relative_virial > 0.0) deviation /= std::fabs(mean) / n + settings_.relative_virial;
    largest = std::max(largest, deviation);
    smallest = std::min(smallest, deviation);
    squares += (k < 3 ? 1.0 : 2.0) * deviation * deviation;
  }
  columns_[0] = largest;
  columns_[1] = smallest;
  columns_[2] = std::sqrt(squares / 9.0);
}

/// Keep the largest difference of a force component between any two models, and the largest component.
void Deviation::compare(int i)
{
  const int width = n_models_ + 1;
  differences_.resize(static_cast<std::size_t>(n_models_) * width, 0.0);
  squares_.resize(n_models_, 0.0);
  for (int m = 0; m < n_models_; m++)
    for (std::size_t k = 3 * static_cast<std::size_t>(i); k < 3 * static_cast<std::size_t>(i) + 3; k++) {
      squares_[m] += (forces_[m][k] - forces_[0][k]) * (forces_[m][k] - forces_[0][k]);
      for (int n = 0; n < m; n++) {
        auto &largest = differences_[m * width + n];
        largest = std::max(largest, std::fabs(forces_[m][k] - forces_[n][k]));
      }
      auto &largest = differences_[m * width + n_models_];
      largest = std::max(largest, std::fabs(forces_[m][k]));
    }
}

std::string Deviation::zeros(const std::vector<Result> &results, double unit)
{
  if (zeros_known_ || unit == 0.0) return "";
  zeros_known_ = true;
  std::vector<double> sums(8 * static_cast<std::size_t>(n_models_) + 1, 0.0);    // energies, squares, virials, atoms
  squares_.resize(n_models_, 0.0);    // no atoms on this rank
  for (int m = 0; m < n_models_; m++) {
    sums[m] = results[m].energy;
    sums[n_models_ + m] = squares_[m] / (unit * unit);
    for (int k = 0; k < 6; k++) sums[2 * n_models_ + 6 * m + k] = virials_[6 * m + k] / unit;
  }
  sums.back() = n_own_;
  MPI_Allreduce(MPI_IN_PLACE, sums.data(), static_cast<int>(sums.size()), MPI_DOUBLE, MPI_SUM, world);
  const double n = std::max(sums.back(), 1.0);
  std::string found;
  for (int m = 1; m < n_models_; m++) {
    double virial = 0.0;
    for (int k = 0; k < 6; k++)
      virial = std::max(virial, std::fabs(sums[2 * n_models_ + 6 * m + k] - sums[2 * n_models_ + k]) / n);
    const double apart = (sums[m] - sums[0]) / n;
    if (std::fabs(apart) > ANOTHER_ZERO + PER_DEVIATION * (std::sqrt(sums[n_models_ + m] / n) + virial))
      found += fmt::format("{}{} by {:.3g} eV", found.empty() ? "" : ", ", m + 1, apart);
  }
  return found;
}

std::string Deviation::copies()
{
  if (compared_) return "";
  const int width = n_models_ + 1;
  differences_.resize(static_cast<std::size_t>(n_models_) * width, 0.0);    // no atoms on this rank
  MPI_Allreduce(MPI_IN_PLACE, differences_.data(), n_models_ * width, MPI_DOUBLE, MPI_MAX, world);
  std::string same;
  for (int m = 0; m < n_models_; m++) {
    const double largest = differences_[m * width + n_models_];
    compared_ = compared_ || largest > ZERO;
    for (int n = 0; n < m && largest > ZERO; n++)
      if (differences_[m * width + n] <= ROUNDING * largest) {
        same += fmt::format("{}{} = {}", same.empty() ? "" : ", ", n + 1, m + 1);
        break;
      }
  }
  differences_.clear();
  return same;
}

/// Fixes that insert and delete atoms change their number and leave gaps among the IDs.
void Deviation::require_columns() const
{
  const bool consecutive = atom->tag_consecutive() != 0;
  if (consecutive && atom->natoms == n_columns_) return;
  error->all(FLERR, "Pair style mlplugins: keyword atomic: '{}' has one column for each of {} atoms, but at step {} "
             "there are {}{}; leave the keyword out where atoms are inserted or deleted (fix pair has the deviations)",
             settings_.file, n_columns_, update->ntimestep, atom->natoms,
             consecutive ? "" : ", with gaps among their IDs");
}

/// A row that repeats the last one (the first step of a further run) is left out.
void Deviation::write()
{
  std::vector<double> of_ids;
  if (settings_.atomic) {
    require_columns();
    std::vector<double> own(static_cast<std::size_t>(atom->natoms), 0.0);
    of_ids.resize(own.size());
    for (int i = 0; i < atom->nlocal; i++) own[atom->tag[i] - 1] = of_atoms_[i];
    MPI_Reduce(own.data(), of_ids.data(), static_cast<int>(own.size()), MPI_DOUBLE, MPI_SUM, 0, world);
  }
  if (!file_) return;
  std::string row = fmt::format("{:12d}", update->ntimestep);
  for (const double value : columns_) row += fmt::format(" {:18.6e}", value);
  for (const double value : of_ids) row += fmt::format(" {:18.6e}", value);
  if (row == last_row_) return;
  last_row_ = row;
  std::fprintf(file_, "%s\n", row.c_str());
  if (std::fflush(file_) != 0 || std::ferror(file_))
    error->one(FLERR, "Pair style mlplugins: cannot write '{}': {}", settings_.file, utils::getsyserror());
}

}    // namespace mlplugins
