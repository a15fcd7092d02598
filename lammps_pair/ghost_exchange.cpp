// SPDX-License-Identifier: GPL-2.0-only

#include "ghost_exchange.h"

#include "system_adaptor.h"

#include "comm.h"
#include "pair.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

namespace mlplugins {

LammpsExchange::LammpsExchange(LAMMPS_NS::Comm *comm, LAMMPS_NS::Pair *pair, const SystemAdaptor &adaptor,
                               int max_width) :
    comm_(comm), pair_(pair), adaptor_(adaptor), max_width_(max_width)
{
  callbacks_.context = this;
  callbacks_.forward = [](void *self, void *data, int64_t, int64_t width, int bytes) {
    static_cast<LammpsExchange *>(self)->forward(data, width, bytes);
  };
  callbacks_.backward = [](void *self, void *data, int64_t rows, int64_t width, int bytes) {
    static_cast<LammpsExchange *>(self)->backward(data, rows, width, bytes);
  };
}

void LammpsExchange::start(void *data, int64_t width, int bytes)
{
  if (width > max_width_)
    throw std::runtime_error("the model exchanges rows of " + std::to_string(width) + " numbers but its file says " +
                             std::to_string(max_width_));
  data_ = data;
  width_ = width;
  bytes_ = bytes;
}

void LammpsExchange::forward(void *data, int64_t width, int bytes)
{
  start(data, width, bytes);
  comm_->forward_comm(pair_, static_cast<int>(width));
}

void LammpsExchange::backward(void *data, int64_t rows, int64_t width, int bytes)
{
  start(data, width, bytes);
  comm_->reverse_comm(pair_, static_cast<int>(width));
  // the values of ghost rows were overwritten by the forward communication: nothing flows back through them
  const int64_t n_centers = adaptor_.n_centers();
  std::memset(static_cast<char *>(data) + n_centers * width * bytes, 0, (rows - n_centers) * width * bytes);
}

void LammpsExchange::load(int node, double *buffer) const
{
  if (node < 0) {
    std::fill_n(buffer, width_, 0.0);    // an atom the model does not see
  } else if (bytes_ == 8) {
    std::copy_n(static_cast<const double *>(data_) + node * width_, width_, buffer);
  } else {
    std::copy_n(static_cast<const float *>(data_) + node * width_, width_, buffer);
  }
}

template <bool add> void LammpsExchange::store(int node, const double *buffer)
{
  const auto write = [&](auto *row) {
    using Scalar = std::remove_pointer_t<decltype(row)>;
    for (int64_t k = 0; k < width_; k++)
      row[k] = static_cast<Scalar>(add ? row[k] + buffer[k] : buffer[k]);
  };
  if (node < 0) return;
  if (bytes_ == 8)
    write(static_cast<double *>(data_) + node * width_);
  else
    write(static_cast<float *>(data_) + node * width_);
}

int LammpsExchange::pack_forward(int n, const int *atoms, double *buffer) const
{
  for (int k = 0; k < n; k++) load(adaptor_.node_of(atoms[k]), buffer + k * width_);
  return static_cast<int>(n * width_);
}

void LammpsExchange::unpack_forward(int n, int first, const double *buffer)
{
  for (int k = 0; k < n; k++) store<false>(adaptor_.node_of(first + k), buffer + k * width_);
}

int LammpsExchange::pack_reverse(int n, int first, double *buffer) const
{
  for (int k = 0; k < n; k++) load(adaptor_.node_of(first + k), buffer + k * width_);
  return static_cast<int>(n * width_);
}

void LammpsExchange::unpack_reverse(int n, const int *atoms, const double *buffer)
{
  for (int k = 0; k < n; k++) store<true>(adaptor_.node_of(atoms[k]), buffer + k * width_);
}

}    // namespace mlplugins
