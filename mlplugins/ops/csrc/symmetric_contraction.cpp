// SPDX-License-Identifier: BSD-3-Clause
// Op mlplugins::symmetric_contraction: a sparse polynomial of the channels of each node, with coefficients by species
// and channel (MACE, Batatia et al. 2022, arXiv 2206.07697, eqs. 10-11). The derivatives of its gradients come from
// the same loops with dual numbers.

#include "symmetric_contraction.h"

#include "ops.h"
#include "processor.h"
#include "symmetric_contraction_kernel.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

namespace mlplugins {

extern const ContractionKernels<float> float_contraction_generic, float_contraction_avx2, float_contraction_avx512;
extern const ContractionKernels<double> double_contraction_generic, double_contraction_avx2,
    double_contraction_avx512;

template <> const ContractionKernels<float> &contraction_kernels<float>()
{
  return MLPLUGINS_BEST(float_contraction);
}

template <> const ContractionKernels<double> &contraction_kernels<double>()
{
  return MLPLUGINS_BEST(double_contraction);
}

void check(const Tables &tables, const Tensor &x, const Tensor &c)
{
  TORCH_CHECK(x.dim() == 2 && c.dim() == 3 && tables.species.dim() == 1,
              "symmetric_contraction: expected x (N, D*C), coefficients (S, M, C) and species (N,)");
  TORCH_CHECK(tables.species.size(0) == x.size(0), "symmetric_contraction: expected one species per row of x (",
              x.size(0), "), got ", tables.species.size(0));
  TORCH_CHECK(x.scalar_type() == c.scalar_type(), "symmetric_contraction: x and the coefficients must have one dtype");
  TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble,
              "symmetric_contraction: expected float32 or float64, got ", x.scalar_type());
  TORCH_CHECK(tables.species.scalar_type() == at::kLong && tables.monomials.scalar_type() == at::kLong,
              "symmetric_contraction: species and monomials must be int64");
  for (const Tensor &t : {c, tables.species, tables.monomials})
    TORCH_CHECK(t.device() == x.device(), "symmetric_contraction: all tensors must be on one device, got ", x.device(),
                " and ", t.device());
  TORCH_CHECK(tables.monomials.dim() == 2 && tables.monomials.size(1) == 4 &&
                  tables.monomials.size(0) == c.size(1),
              "symmetric_contraction: expected monomials (M, 4) with one row per coefficient (", c.size(1), ")");
  TORCH_CHECK(tables.n_out >= 0, "symmetric_contraction: n_out must not be negative");
  TORCH_CHECK(c.size(2) > 0 && x.size(1) % c.size(2) == 0, "symmetric_contraction: the width of x (", x.size(1),
              ") is not a multiple of the channels of the coefficients (", c.size(2), ")");
  // everything is counted in 32 bits, and tables go over all pairs of components
  TORCH_CHECK(x.size(1) / c.size(2) <= 4096 && tables.n_out <= 4096 && c.size(1) <= std::numeric_limits<int32_t>::max(),
              "symmetric_contraction: more than 4096 components");
}

void check_gradient(const Tables &tables, const Tensor &g, const Tensor &x, const Tensor &c)
{
  TORCH_CHECK(g.dim() == 2 && g.size(0) == x.size(0) && g.size(1) == tables.n_out * c.size(2) &&
                  g.scalar_type() == x.scalar_type() && g.device() == x.device(),
              "symmetric_contraction: wrong gradient");
}

void check_directions(const std::optional<Tensor> &dx, const std::optional<Tensor> &dc, const Tensor &x, const Tensor &c)
{
  TORCH_CHECK((!dx || (dx->sizes() == x.sizes() && dx->scalar_type() == x.scalar_type() && dx->device() == x.device())) &&
                  (!dc || (dc->sizes() == c.sizes() && dc->scalar_type() == c.scalar_type() && dc->device() == c.device())),
              "symmetric_contraction: wrong direction");
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The monomials in nested form, see Polynomial.
class Program {
 public:
  Program(const Tensor &table, int64_t n_in, int64_t n_out, int64_t channels)
  {
    const Tensor contiguous = table.contiguous();
    rows = contiguous.data_ptr<int64_t>();
    n_rows = table.size(0);
    check_rows(n_in, n_out);
    sort_terms(n_in, n_out);
    polynomial = {channels,        (int32_t) n_in,          (int32_t) n_out,       (int32_t) pairs.size(),
                  (int32_t) segments.size(), (int32_t) n_rows, pairs.data(), segments.data(),
                  right.data(),    row.data()};
  }
  Program(const Program &) = delete;

  Polynomial polynomial;

 private:
  struct Term {
    int64_t key;    // output, left
    int32_t right;
  };
  const int64_t *rows;
  int64_t n_rows;
  std::vector<Pair> pairs;
  std::vector<Segment> segments;
  std::vector<int32_t> right, row;

  void check_rows(int64_t n_in, int64_t n_out) const
  {
    for (int64_t m = 0; m < n_rows; m++) {
      const int64_t *r = rows + 4 * m;
      TORCH_CHECK(r[0] >= 0 && r[0] < n_out, "symmetric_contraction: output component ", r[0], " of monomial ", m,
                  " is not in [0, ", n_out, ")");
      TORCH_CHECK(r[1] >= 0 && r[2] >= -1 && r[3] >= -1 && (r[2] >= 0 || r[3] < 0),
                  "symmetric_contraction: malformed monomial ", m, ": expected one to three inputs, then -1");
      TORCH_CHECK(std::max({r[1], r[2], r[3]}) < n_in, "symmetric_contraction: monomial ", m, " needs input ",
                  std::max({r[1], r[2], r[3]}), ", but x has ", n_in, " components");
    }
  }

  /// The pairs of inputs that make up a cubic monomial, each with the input that is left over.
  static std::array<std::array<int64_t, 3>, 3> splits(const int64_t *r)
  {
    return {{{r[1], r[2], r[3]}, {r[2], r[1], r[3]}, {r[3], r[1], r[2]}}};
  }

  void sort_terms(int64_t n_in, int64_t n_out)
  {
    // of the three ways to split a cubic monomial take the one whose pair the most others can use
    std::vector<int32_t> uses(n_in * n_in, 0), slot(n_in * n_in, -1);
    for (int64_t m = 0; m < n_rows; m++)
      if (rows[4 * m + 3] >= 0)
        for (const auto &s : splits(rows + 4 * m)) uses[s[1] * n_in + s[2]]++;
    std::vector<Term> terms(n_rows);
    std::vector<int32_t> begin(n_out * n_in + 1, 0);
    for (int64_t m = 0; m < n_rows; m++) {
      const int64_t *r = rows + 4 * m;
      int64_t left = r[1], value = r[2] < 0 ? n_in : r[2];
      if (r[3] >= 0) {
        auto best = splits(r)[0];
        for (const auto &s : splits(r))
          if (uses[s[1] * n_in + s[2]] > uses[best[1] * n_in + best[2]]) best = s;
        int32_t &pair = slot[best[1] * n_in + best[2]];
        if (pair < 0) {
          pair = (int32_t) pairs.size();
          pairs.push_back({(int32_t) best[1], (int32_t) best[2]});
        }
        left = best[0], value = n_in + 1 + pair;
      }
      terms[m] = {r[0] * n_in + left, (int32_t) value};
      begin[terms[m].key + 1]++;
    }
    for (int64_t key = 0; key < n_out * n_in; key++) {
      begin[key + 1] += begin[key];
      if (begin[key + 1] > begin[key])
        segments.push_back({(int32_t) (key / n_in), (int32_t) (key % n_in), begin[key + 1]});
    }
    right.resize(n_rows);
    row.resize(n_rows);
    for (int64_t m = 0; m < n_rows; m++) {
      const int32_t at = begin[terms[m].key]++;
      right[at] = terms[m].right;
      row[at] = (int32_t) m;
    }
  }
};

/// Nodes sorted by species and cut into chunks. The cut does not depend on the number of threads, and so neither do
/// the sums over the nodes of a species.
struct Chunks {
  static constexpr int64_t size = 128;
  struct Chunk {
    int64_t species, first, last;
  };
  std::vector<int64_t> nodes;
  std::vector<Chunk> chunks;
  bool split = false;    // several chunks of one species

  Chunks(const Tensor &species, int64_t n_species) : nodes(species.size(0))
  {
    const Tensor contiguous = species.contiguous();
    const int64_t *of = contiguous.data_ptr<int64_t>(), n = species.size(0);
    std::vector<int64_t> end(n_species + 1, 0);
    for (int64_t i = 0; i < n; i++) {
      TORCH_CHECK(of[i] >= 0 && of[i] < n_species, "symmetric_contraction: species ", of[i], " of node ", i,
                  " is not in [0, ", n_species, ")");
      end[of[i] + 1]++;
    }
    for (int64_t s = 0; s < n_species; s++) end[s + 1] += end[s];
    for (int64_t s = 0; s < n_species; s++)
      for (int64_t first = end[s]; first < end[s + 1]; first += size) {
        split = split || first > end[s];
        chunks.push_back({s, first, std::min(first + size, end[s + 1])});
      }
    for (int64_t i = 0; i < n; i++) nodes[end[of[i]]++] = i;
  }
};

/// Runs `pass` on every chunk and block of channels; `coefficients` is the gradient to write, if any.
template <typename T>
void over_shares(const Tables &tables, ContractionPass<T> pass, const ContractionInput<T> &input,
                 ContractionOutput<T> output, const std::array<int64_t, 4> &sizes, Tensor coefficients)
{
  const auto [n_species, n_rows, channels, n_in] = sizes;
  const Program program(tables.monomials, n_in, tables.n_out, channels);
  const Chunks cut(tables.species, n_species);
  const int64_t n_chunks = cut.chunks.size(), lanes = contraction_kernels<T>().lanes;
  const int64_t n_blocks = (channels + lanes - 1) / lanes, per_species = n_rows * channels;
  Tensor partial = coefficients;
  if (coefficients.defined() && cut.split) partial = at::empty({n_chunks, n_rows, channels}, coefficients.options());
  T *const to = partial.defined() ? partial.data_ptr<T>() : nullptr;
  const auto work = [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; task++) {
      const auto &chunk = cut.chunks[task / n_blocks];
      ContractionInput<T> in = input;
      ContractionOutput<T> out = output;
      in.c += chunk.species * per_species;
      if (in.dc) in.dc += chunk.species * per_species;
      if (to) out.c = to + (cut.split ? task / n_blocks : chunk.species) * per_species;
      const Share share{cut.nodes.data() + chunk.first, chunk.last - chunk.first, task % n_blocks * lanes};
      pass(program.polynomial, share, in, out);
    }
  };
  const int64_t tasks = n_chunks * n_blocks;
  const bool small = (int64_t) cut.nodes.size() * per_species < 1 << 18;    // not worth waking threads
  if (small) work(0, tasks);
  else at::parallel_for(0, tasks, 1, work);
  if (coefficients.defined() && cut.split) {
    std::vector<int64_t> species;
    for (const auto &chunk : cut.chunks) species.push_back(chunk.species);
    coefficients.index_add_(0, at::tensor(species, at::kLong), partial);
  }
}

template <typename T> const T *pointer(const Tensor &t) { return t.defined() ? t.data_ptr<T>() : nullptr; }
template <typename T> T *writable(const Tensor &t) { return t.defined() ? t.data_ptr<T>() : nullptr; }

Tensor contiguous(const Tensor &t) { return t.defined() ? t.contiguous() : t; }

std::array<int64_t, 4> sizes_of(const Tensor &x, const Tensor &c)
{
  return {c.size(0), c.size(1), c.size(2), x.size(1) / c.size(2)};
}

template <typename T> Tensor forward_pass(const Tables &tables, const Tensor &x_, const Tensor &c_)
{
  const Tensor x = x_.contiguous(), c = c_.contiguous();
  Tensor out = at::empty({x.size(0), tables.n_out * c.size(2)}, x.options());
  over_shares<T>(tables, contraction_kernels<T>().forward, {nullptr, pointer<T>(x), pointer<T>(c), nullptr, nullptr},
                 {writable<T>(out), nullptr, nullptr}, sizes_of(x, c), Tensor());
  return out;
}

template <typename T>
variable_list backward_pass(const Tables &tables, const Tensor &g_, const Tensor &x_, const Tensor &c_,
                            bool coefficients)
{
  const Tensor g = g_.contiguous(), x = x_.contiguous(), c = c_.contiguous();
  const Tensor gx = at::empty_like(x), gc = coefficients ? at::zeros_like(c) : Tensor();
  over_shares<T>(tables, contraction_kernels<T>().backward,
                 {pointer<T>(g), pointer<T>(x), pointer<T>(c), nullptr, nullptr},
                 {nullptr, writable<T>(gx), nullptr}, sizes_of(x, c), gc);
  return {gx, gc};
}

template <typename T>
variable_list double_backward_pass(const Tables &tables, const variable_list &point, const variable_list &along,
                                   bool coefficients)
{
  const Tensor g = point[0].contiguous(), x = point[1].contiguous(), c = point[2].contiguous();
  const Tensor dx = contiguous(along[0]), dc = contiguous(along[1]);
  const Tensor out = at::empty_like(g), gx = at::empty_like(x), gc = coefficients ? at::zeros_like(c) : Tensor();
  over_shares<T>(tables, contraction_kernels<T>().double_backward,
                 {pointer<T>(g), pointer<T>(x), pointer<T>(c), pointer<T>(dx), pointer<T>(dc)},
                 {writable<T>(out), writable<T>(gx), nullptr}, sizes_of(x, c), gc);
  return {out, gx, gc};
}

void save(AutogradContext *context, const Tables &tables, variable_list tensors)
{
  tensors.insert(tensors.end(), {tables.species, tables.monomials});
  context->save_for_backward(tensors);
  context->set_materialize_grads(false);
  context->saved_data["n_out"] = tables.n_out;
}

Tables saved_tables(AutogradContext *context, const variable_list &saved, size_t first)
{
  return {saved[first], saved[first + 1], context->saved_data["n_out"].toInt()};
}

Tensor forward_of(const Tables &t, const Tensor &x, const Tensor &c)
{
  static const auto op = dispatched<decltype(cpu::symmetric_contraction)>("symmetric_contraction");
  return op.call(x, c, t.species, t.monomials, t.n_out);
}

Two backward_of(const Tables &t, const Tensor &g, const Tensor &x, const Tensor &c, bool wanted)
{
  static const auto op = dispatched<decltype(cpu::symmetric_contraction_backward)>("symmetric_contraction_backward");
  return op.call(g, x, c, t.species, t.monomials, t.n_out, wanted);
}

using MaybeTensor = std::optional<Tensor>;

Three double_backward_of(const Tables &t, const variable_list &point, const MaybeTensor &dx, const MaybeTensor &dc, bool wanted)
{
  static const auto op =
      dispatched<decltype(cpu::symmetric_contraction_double_backward)>("symmetric_contraction_double_backward");
  return op.call(dx, dc, point[0], point[1], point[2], t.species, t.monomials, t.n_out, wanted);
}

/// (g, x, c) → gradients of Φ = ⟨g, B(x, c)⟩ with respect to x and c.
class ContractionBackward : public torch::autograd::Function<ContractionBackward> {
 public:
  static variable_list forward(AutogradContext *context, const Tensor &g, const Tensor &x, const Tensor &c,
                               const Tables &tables, bool wanted)
  {
    save(context, tables, {g, x, c});
    context->saved_data["wanted"] = wanted;
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [gx, gc] = backward_of(tables, g, x, c, wanted);
    return {gx, gc};
  }

  /// The gradient of ⟨dx, ∂Φ/∂x⟩ + ⟨dc, ∂Φ/∂c⟩ is the derivative of ∂Φ/∂(g, x, c) along (0, dx, dc).
  static variable_list backward(AutogradContext *context, variable_list along)
  {
    const auto saved = context->get_saved_variables();
    const Tables tables = saved_tables(context, saved, 3);
    const Tensor &c = saved[2], none;
    MaybeTensor dx, dc;
    if (along[0].defined()) dx = along[0];
    if (along[1].defined() && context->saved_data["wanted"].toBool()) dc = along[1];
    if (!dx && !dc) return variable_list(5);
    const bool wanted = context->needs_input_grad(2);
    const auto [out, gx, gc] = double_backward_of(tables, {saved[0], saved[1], c}, dx, dc, wanted);
    return {out, gx, wanted ? gc : none, none, none};
  }
};

class ContractionForward : public torch::autograd::Function<ContractionForward> {
 public:
  static Tensor forward(AutogradContext *context, const Tensor &x, const Tensor &c, const Tables &tables)
  {
    save(context, tables, {x, c});
    at::AutoDispatchBelowADInplaceOrView guard;
    return forward_of(tables, x, c);
  }

  static variable_list backward(AutogradContext *context, variable_list g)
  {
    if (!g[0].defined()) return variable_list(3);
    const auto saved = context->get_saved_variables();
    const bool wanted = context->needs_input_grad(1);
    const auto [gx, gc] = backward_of(saved_tables(context, saved, 2), g[0], saved[0], saved[1], wanted);
    return {gx, wanted ? gc : Tensor(), Tensor()};
  }
};

}    // namespace

Tensor cpu::symmetric_contraction(const Tensor &x, const Tensor &c, const Tensor &species, const Tensor &monomials,
                                  int64_t n_out)
{
  const Tables tables{species, monomials, n_out};
  check(tables, x, c);
  at::AutoDispatchBelowADInplaceOrView guard;
  return x.scalar_type() == at::kFloat ? forward_pass<float>(tables, x, c) : forward_pass<double>(tables, x, c);
}

Two cpu::symmetric_contraction_backward(const Tensor &g, const Tensor &x, const Tensor &c, const Tensor &species,
                                        const Tensor &monomials, int64_t n_out, bool wanted)
{
  const Tables tables{species, monomials, n_out};
  check(tables, x, c);
  check_gradient(tables, g, x, c);
  at::AutoDispatchBelowADInplaceOrView guard;
  const auto d = x.scalar_type() == at::kFloat ? backward_pass<float>(tables, g, x, c, wanted)
                                               : backward_pass<double>(tables, g, x, c, wanted);
  return {d[0], given(d[1], x)};
}

Three cpu::symmetric_contraction_double_backward(const MaybeTensor &dx, const MaybeTensor &dc, const Tensor &g,
                                                 const Tensor &x, const Tensor &c, const Tensor &species,
                                                 const Tensor &monomials, int64_t n_out, bool wanted)
{
  const Tables tables{species, monomials, n_out};
  check(tables, x, c);
  check_gradient(tables, g, x, c);
  check_directions(dx, dc, x, c);
  at::AutoDispatchBelowADInplaceOrView guard;
  const variable_list along{dx.value_or(Tensor()), dc.value_or(Tensor())};
  const auto d = x.scalar_type() == at::kFloat ? double_backward_pass<float>(tables, {g, x, c}, along, wanted)
                                               : double_backward_pass<double>(tables, {g, x, c}, along, wanted);
  return {d[0], d[1], given(d[2], x)};
}

Tensor autograd::symmetric_contraction(const Tensor &x, const Tensor &c, const Tensor &species,
                                       const Tensor &monomials, int64_t n_out)
{
  return ContractionForward::apply(x, c, Tables{species, monomials, n_out});
}

Two autograd::symmetric_contraction_backward(const Tensor &g, const Tensor &x, const Tensor &c, const Tensor &species,
                                             const Tensor &monomials, int64_t n_out, bool wanted)
{
  const auto d = ContractionBackward::apply(g, x, c, Tables{species, monomials, n_out}, wanted);
  return {d[0], d[1]};
}

Three autograd::symmetric_contraction_double_backward(const MaybeTensor &dx, const MaybeTensor &dc, const Tensor &g,
                                                      const Tensor &x, const Tensor &c, const Tensor &species,
                                                      const Tensor &monomials, int64_t n_out, bool wanted)
{
  variable_list inputs{g, x, c};
  for (const auto &along : {dx, dc})
    if (along) inputs.push_back(*along);
  const auto d = without_derivatives(inputs, "symmetric_contraction: third derivatives", [&] {
    return list(double_backward_of({species, monomials, n_out}, {g, x, c}, dx, dc, wanted));
  });
  return {d[0], d[1], d[2]};
}

}    // namespace mlplugins
