"""The two loops that nearly all the time of the compiled engine goes to, spelled out in vectors.

Left to itself, LLVM keeps in memory the sums that belong in registers. All runs are multiples of eight long.
"""

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from .compiled import FLAGS

if config.DISABLE_JIT:  # as in debuggers and some continuous integration
    raise RuntimeError("NUMBA_DISABLE_JIT = 1: must be unset, since the sparse engine has to be compiled")
LANES = 8
# (lanes of a vector, vectors at once) of `combine`, whose sums are the same to the last bit in any: where the
# processor has vectors of sixteen and 32 registers, they take a third of the time off a sparse step.
SHAPES = ((8, 8), (8, 4), (8, 1))
if get_host_cpu_features().get("avx512f"):
    SHAPES = ((16, 8), (16, 4), (16, 1), (8, 1))


class Vectors:
    """Writes LLVM's instructions on runs of `lanes` numbers in the arrays among a function's arguments."""

    def __init__(self, context, builder, kinds, values, lanes=LANES):
        self.builder, self.align, self.lanes = builder, kinds[0].dtype.bitwidth // 8, lanes
        self.vector = ir.VectorType(context.get_value_type(kinds[0].dtype), lanes)
        self.data = {
            value: context.make_array(kind)(context, builder, value).data
            for kind, value in zip(kinds, values, strict=True)
            if isinstance(kind, types.Array)
        }

    def integer(self, value):
        return ir.Constant(ir.IntType(64), value)

    def loop(self, start, stop, step):
        return cgutils.for_range_slice(self.builder, start, stop, self.integer(step), inc=True)

    def item(self, array, at):
        return self.builder.load(self.builder.gep(self.data[array], [at]))

    def _run(self, array, at):
        return self.builder.bitcast(self.builder.gep(self.data[array], [at]), self.vector.as_pointer())

    def load(self, array, at):
        return self.builder.load(self._run(array, at), align=self.align)

    def store(self, array, at, value):
        self.builder.store(value, self._run(array, at), align=self.align)

    def shuffle(self, a, b, lanes):
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))

    def spread(self, number):
        """A vector of the same number."""
        first = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), number, self.integer(0))
        return self.shuffle(first, first, [0] * self.lanes)

    def add_product(self, total, a, b):
        product = self.builder.fmul(a, b, flags=FLAGS)
        self.builder.store(self.builder.fadd(self.builder.load(total), product, flags=FLAGS), total)

    def totals(self, sums):
        """The sum over the lanes of each of 8 vectors, as one vector: neighbours are interleaved and added, 3 times."""
        for width in (1, 2, 4):
            low = [i - i % (2 * width) + i % width + LANES * (i // width % 2) for i in range(LANES)]
            high = [i + width for i in low]
            sums = [
                self.builder.fadd(self.shuffle(a, b, low), self.shuffle(a, b, high), flags=FLAGS)
                for a, b in zip(sums[::2], sums[1::2], strict=True)
            ]
        return sums[0]


@intrinsic
def combine(typing, z, d, x, s, offset, w, t, end, n, run):
    """Add to z[d : d + run] the runs of `x` under the taps t..end, weighted."""

    def generate(context, builder, signature, values):
        z, d, x, s, offset, w, t, end, n, run = values
        done = cgutils.alloca_once_value(builder, ir.Constant(ir.IntType(64), 0))
        for lanes, count in SHAPES:  # so many vectors of sums stay in registers while all the taps are gone through
            v = Vectors(context, builder, signature.args, values, lanes)
            stop = builder.and_(run, v.integer(-lanes * count))
            sums = [cgutils.alloca_once(builder, v.vector) for _ in range(count)]
            with v.loop(builder.load(done), stop, lanes * count) as (j, _):
                places = [builder.add(j, v.integer(lanes * i)) for i in range(count)]
                for total, place in zip(sums, places, strict=True):
                    builder.store(v.load(z, builder.add(d, place)), total)
                with v.loop(t, end, 1) as (tap, _):
                    at = builder.add(s, builder.mul(builder.zext(v.item(offset, tap), n.type), n))
                    weight = v.spread(v.item(w, tap))
                    for total, place in zip(sums, places, strict=True):
                        v.add_product(total, weight, v.load(x, builder.add(at, place)))
                for total, place in zip(sums, places, strict=True):
                    v.store(z, builder.add(d, place), builder.load(total))
            builder.store(stop, done)
        return context.get_dummy_value()

    return types.void(z, d, x, s, offset, w, t, end, n, run), generate


@intrinsic
def correlate8(typing, z, d, x, s, offset, out, t, n, run, rows, step):
    """Add to out[t : t + 8] the products of `rows` runs of `z` with those of `x` under these taps, `step` apart."""

    def generate(context, builder, signature, values):
        z, d, x, s, offset, out, t, n, run, rows, step = values
        v = Vectors(context, builder, signature.args, values)
        taps = [builder.add(t, v.integer(i)) for i in range(LANES)]
        places = [builder.add(s, builder.mul(builder.zext(v.item(offset, tap), n.type), n)) for tap in taps]
        sums = [cgutils.alloca_once_value(builder, ir.Constant(v.vector, None)) for _ in taps]
        with cgutils.for_range(builder, rows) as row:
            here, there = builder.mul(row.index, run), builder.mul(row.index, step)
            with v.loop(v.integer(0), run, LANES) as (j, _):
                value = v.load(z, builder.add(d, builder.add(here, j)))
                for total, place in zip(sums, places, strict=True):
                    v.add_product(total, value, v.load(x, builder.add(place, builder.add(there, j))))
        v.store(out, t, builder.fadd(v.load(out, t), v.totals([builder.load(total) for total in sums]), flags=FLAGS))
        return context.get_dummy_value()

    return types.void(z, d, x, s, offset, out, t, n, run, rows, step), generate
