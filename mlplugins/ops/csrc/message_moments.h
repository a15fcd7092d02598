// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_MESSAGE_MOMENTS_H
#define MLPLUGINS_MESSAGE_MOMENTS_H

// What op mlplugins::message_moments notes of features that are sent along edges.

#include "convolution.h"

namespace mlplugins {

/// Features that an exchange returned, and what the last backward pass left of them.
struct Sent {
  Tensor features;     ///< (N, D)
  Tensor gradient;     ///< (N, D)
  Tensor summed;       ///< (N, D) what the convolution gave to it
  Tensor moments;      ///< (3, N, D) of that, moved along the edges
  int convolutions = 0;
};

/// Which of them; of record 0: none.
struct Noted {
  int64_t record = 0, place = 0;
};

/// Whether moments are asked for on this thread. Edges must not share what is made of their distance then: all of its
/// gradient would be that of one of them.
bool moments_wanted();

/// `h`, its gradient noted if moments are asked for on this thread.
Tensor noted(const Tensor &h);

/// Those that a convolution of `h` over these edges reads.
Noted read_by_convolution(const Tensor &h, const Graph &graph);

/// Where a backward pass leaves what it finds, while moments are asked for; else null.
Sent *open_note(const Noted &which);

/// Gradients of h, y and of what the weights are made from, with h's moments left in `sent`.
std::vector<Tensor> noting(Sent &sent, const Graph &graph, const Tensor &g, const Tensor &h, const Tensor &y,
                           const RadialInput &radial, Wanted wanted);

}    // namespace mlplugins

#endif
