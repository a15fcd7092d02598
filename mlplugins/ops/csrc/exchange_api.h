// SPDX-License-Identifier: BSD-3-Clause
#ifndef MLPLUGINS_EXCHANGE_API_H
#define MLPLUGINS_EXCHANGE_API_H

// C interface between the op mlplugins::ghost_exchange and the engine that can fill ghost rows.

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MLPLUGINS_EXPORT __attribute__((visibility("default")))

/// Communication of node features between domains. `data` is (rows, width), contiguous, in main memory,
/// of `bytes` = 4 (float) or 8 (double) per number, and is changed in place.
typedef struct mlplugins_exchange {
  /// Given back to both functions.
  void *context;
  /// Copy the rows of the owners to their ghosts.
  void (*forward)(void *context, void *data, int64_t rows, int64_t width, int bytes);
  /// Adjoint of `forward`: add the rows of the ghosts to their owners', then zero the ghosts' rows.
  void (*backward)(void *context, void *data, int64_t rows, int64_t width, int bytes);
} mlplugins_exchange;

/// Install the communication (NULL: the op is the identity) for the whole process; returns what was installed.
/// The struct must live until it is replaced.
MLPLUGINS_EXPORT const mlplugins_exchange *mlplugins_set_exchange(const mlplugins_exchange *exchange);

/// 1 if the process runs the op of this library, 0 if another definition came first (the Python fallback).
MLPLUGINS_EXPORT int mlplugins_exchange_active(void);

#ifdef __cplusplus
}
#endif

#endif
