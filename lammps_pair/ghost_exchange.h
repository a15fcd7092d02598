// SPDX-License-Identifier: GPL-2.0-only
#ifndef MLPLUGINS_LAMMPS_GHOST_EXCHANGE_H
#define MLPLUGINS_LAMMPS_GHOST_EXCHANGE_H

#include "exchange_api.h"    // of libmlplugins_ops

#include <vector>

namespace LAMMPS_NS {
class Comm;
class Pair;
}    // namespace LAMMPS_NS

namespace mlplugins {

class SystemAdaptor;

/// Carries node features between the ranks of LAMMPS for the op mlplugins::ghost_exchange, with LAMMPS' own
/// forward and reverse communication. `Pair::pack_…` and `unpack_…` delegate to the members of the same names.
class LammpsExchange {
 public:
  LammpsExchange(LAMMPS_NS::Comm *comm, LAMMPS_NS::Pair *pair, const SystemAdaptor &adaptor, int max_width);

  /// While it lives, the op communicates; afterwards it is what it was before.
  class Installed {
   public:
    explicit Installed(const LammpsExchange &exchange) : previous_(mlplugins_set_exchange(&exchange.callbacks_)) {}
    ~Installed() { mlplugins_set_exchange(previous_); }
    Installed(const Installed &) = delete;
    Installed &operator=(const Installed &) = delete;

   private:
    const mlplugins_exchange *previous_;
  };

  int pack_forward(int n, const int *atoms, double *buffer) const;
  void unpack_forward(int n, int first, const double *buffer);
  int pack_reverse(int n, int first, double *buffer) const;
  void unpack_reverse(int n, const int *atoms, const double *buffer);

 private:
  LAMMPS_NS::Comm *comm_;
  LAMMPS_NS::Pair *pair_;
  const SystemAdaptor &adaptor_;
  int max_width_;                  ///< what LAMMPS' buffers hold per atom
  mlplugins_exchange callbacks_;
  // the features being communicated
  void *data_ = nullptr;
  int64_t width_ = 0;
  int bytes_ = 8;

  void start(void *data, int64_t width, int bytes);
  void forward(void *data, int64_t width, int bytes);
  void backward(void *data, int64_t rows, int64_t width, int bytes);
  void load(int node, double *buffer) const;
  template <bool add> void store(int node, const double *buffer);
};

}    // namespace mlplugins

#endif
