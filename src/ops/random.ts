import { mulDims, sizeOf, type Dim } from '../graph/dim.js';
import type { DType } from '../graph/tensor.js';
import { requireAxis, requireDType, requireRank, requireSameDim } from './infer.js';
import { nonDifferentiable, type Emitter, type OpRecords } from './record.js';

const INT32 = 6;
const UINT32 = 12;

/** The golden ratio in 32 bits: its multiples are spread evenly. */
const SPREAD = 0x9e3779b1;
/** Numbers of keys: those of the axes of a grid's rows count from 0. */
const COLUMN = 100;
const SALTED = 1000;

const uint32 = (emitter: Emitter, value: number): string => emitter.constant('uint32', [], [value >>> 0]);
const plus = (emitter: Emitter, a: string, b: string): string => emitter.node('Add', [a, b]);
const times = (emitter: Emitter, a: string, b: string): string => emitter.node('Mul', [a, b]);

/** Reshapes to (…, −1, …), the symbolic size being the one that is left over. */
function reshape(emitter: Emitter, x: string, dtype: DType, shape: readonly Dim[]): string {
  const sizes = shape.map((size) => (typeof size === 'number' ? size : -1));
  const reshaped = emitter.node('Reshape', [x, emitter.constant('int64', [sizes.length], sizes)]);
  return emitter.typed(reshaped, { dtype, shape });
}

/** Shift right; division by a power of two where the device has no shift. */
function shiftRight(emitter: Emitter, bits: string, shift: number): string {
  return emitter.device === 'cpu'
    ? emitter.node('BitShift', [bits, uint32(emitter, shift)], { direction: 'RIGHT' })
    : emitter.node('Div', [bits, uint32(emitter, 2 ** shift)]);
}

/**
 * Mixes 32 bits: x ↦ x·(a·x + b) mod 2³², a permutation for even a and odd b (Rivest, 2001, "Permutation polynomials
 * modulo 2ʷ"), which unlike a product by a constant leaves no even spacing between the images of neighbours; then the high
 * bits, which a product mixes best, are added to the low ones.
 */
function mix(emitter: Emitter, x: string, [a, b]: readonly [number, number]): string {
  const scrambled = times(emitter, x, plus(emitter, times(emitter, x, uint32(emitter, a)), uint32(emitter, b)));
  return plus(emitter, scrambled, shiftRight(emitter, scrambled, 16));
}

const FIRST = [0xc2b2ae34, 0x27d4eb2f] as const;
const SECOND = [0x165667b0, 0x85ebca6b] as const;
const KEY = [0x9e3779b0, 0x2c1b3c6d] as const;

/** Keys of 32 mixed bits from the seed and one number each: (numbers, 1). */
function keys(emitter: Emitter, seed: string, numbers: readonly number[]): string {
  const spread = numbers.map((number) => Math.imul(number, SPREAD) >>> 0);
  const salted = plus(emitter, seed, emitter.constant('uint32', [numbers.length, 1], spread));
  return mix(emitter, mix(emitter, salted, FIRST), KEY);
}

/** Where an element stands along an axis: its index, or the id of the row that it belongs to. */
interface Axis {
  readonly size: Dim;
  /** ONNX name of int32 (size). */
  readonly ids: string | undefined;
}

/** uint32 (1, size): the coordinates along an axis. */
function coordinates(emitter: Emitter, { size, ids }: Axis): string {
  const one = (value: number): string => emitter.constant('int32', [], [value]);
  const count = (): string =>
    emitter.node('Cast', [emitter.node('Reshape', [emitter.dims([size]), emitter.constant('int64', [0], [])])], {
      to: INT32,
    });
  const along =
    ids ?? emitter.typed(emitter.node('Range', [one(0), count(), one(1)]), { dtype: 'int32', shape: [size] });
  return reshape(emitter, emitter.node('Cast', [along], { to: UINT32 }), 'uint32', [1, size]);
}

/** (2, size): the coordinates of an axis, each hashed to two numbers under keys that `number` names. */
function hashes(emitter: Emitter, seed: string, axis: Axis, number: number): string {
  const key = keys(emitter, seed, [2 * number, 2 * number + 1]);
  const mixed = mix(emitter, plus(emitter, coordinates(emitter, axis), key), FIRST);
  // The key enters twice: entering once, it would make everything drawn a stretch of one and the same sequence.
  return mix(emitter, plus(emitter, mixed, mix(emitter, key, FIRST)), SECOND);
}

/** (2, size of all axes): two numbers for each place that the axes have together, the last axis running fastest. */
const gridRows = (emitter: Emitter, seed: string, axes: readonly Axis[]): string =>
  axes
    .map((axis, at) => ({ hashed: hashes(emitter, seed, axis, at), size: axis.size }))
    .reduce((outer, inner) => {
      const across = reshape(emitter, outer.hashed, 'uint32', [2, outer.size, 1]);
      const sums = plus(emitter, across, reshape(emitter, inner.hashed, 'uint32', [2, 1, inner.size]));
      const size = mulDims(outer.size, inner.size);
      return { hashed: reshape(emitter, mix(emitter, sums, FIRST), 'uint32', [2, size]), size };
    }).hashed;

/**
 * A counter-based generator: bits = hash(place, seed, salt), with 32-bit multiplications, additions and shifts alone,
 * which every device has. No state is kept, so the same seed gives the same mask wherever and however often it is
 * computed. A place is its coordinate along each axis, never a flat position; along the axis of the batch's rows it is
 * the id that a row is fed with. So what a row draws does not depend on who shares its batch, or how far it is padded.
 *
 * The last axis makes the columns of a grid, all others its rows. Only the rows r and the columns c are hashed, to two
 * numbers each; an element's bits are (r₁ + c₁)·(r₂ + c₂) mod 2³², with r₁ odd and c₁ even, so that the first factor is a
 * unit and the bits are as uniform as the second. That is three cheap passes over the elements, where a hash of each takes
 * twelve. What is hashed before the salt is added, all masks of a graph share.
 */
export const random: OpRecords<'dropoutMask'> = {
  dropoutMask: {
    infer: ([seed, ids, ...more], { shape, rowAxis, rate, dtype }) => {
      if (seed === undefined || more.length > 0) throw new RangeError('takes a seed and the ids of rows');
      if ((ids === undefined) !== (rowAxis === undefined)) throw new RangeError('takes ids where an axis holds rows');
      requireDType(['uint32'], seed);
      requireRank(seed, 0, 'the seed');
      if (shape.length === 0) throw new RangeError('takes a shape with an axis, got ()');
      if (ids !== undefined) {
        requireDType(['int32'], ids);
        requireRank(ids, 1, 'the ids');
        requireSameDim(ids.shape[0]!, requireAxis({ dtype, shape }, rowAxis!), 'ids and rows');
      }
      if (!(rate > 0 && rate < 1)) throw new RangeError(`the rate ${rate} is not between 0 and 1`);
      return [{ dtype, shape }];
    },
    emit: (emitter, node, { shape, rowAxis, rate, salt, dtype }) => {
      const [seed, ids] = node.inputs.map((input) => emitter.name(input));
      const axes = shape.map((size, axis): Axis => ({ size, ids: axis === rowAxis ? ids : undefined }));
      const [outer, last] = [axes.slice(0, -1), axes.at(-1)!];
      if (outer.length === 0) outer.push({ size: 1, ids: undefined });
      const places = sizeOf(outer.map(({ size }) => size));
      const name = (parts: readonly Axis[]): string => parts.map((axis) => `${axis.size} of ${axis.ids}`).join(', ');
      const rows = emitter.once(`mask rows ${seed} ${name(outer)}`, () => gridRows(emitter, seed!, outer));
      const columns = emitter.once(`mask columns ${seed} ${name([last])}`, () => hashes(emitter, seed!, last, COLUMN));
      const base = emitter.once(`mask keys ${seed}`, () =>
        keys(
          emitter,
          seed!,
          [0, 1, 2, 3].map((which) => SALTED + which),
        ),
      );
      const ofSalt = mix(emitter, plus(emitter, base, uint32(emitter, Math.imul(salt, SPREAD))), KEY);
      const two = emitter.constant('int64', [2], [2, 2]);
      const one = emitter.constant('int64', [2], [1, 1]);
      const [rowKeys, columnKeys] = emitter.nodes(2, 'Split', [ofSalt, two], { axis: 0 }) as [string, string];
      const even = emitter.constant('uint32', [2, 1], [2, 1]);
      const odd = emitter.constant('uint32', [2, 1], [1, 0]);
      /** Two numbers as int32 (1, size) each. */
      const apart = (pair: string): string[] =>
        emitter.nodes(2, 'Split', [emitter.node('Cast', [pair], { to: INT32 }), one], { axis: 0 });
      const salted = (hashed: string, key: string): string =>
        times(emitter, mix(emitter, plus(emitter, hashed, key), SECOND), even);
      const r = apart(plus(emitter, salted(rows, rowKeys), odd)).map((each) =>
        reshape(emitter, each, 'int32', [places, 1]),
      );
      const c = apart(salted(columns, columnKeys));
      const bits = times(emitter, plus(emitter, r[0]!, c[0]!), plus(emitter, r[1]!, c[1]!));
      // As signed integers the bits are uniform from −2³¹ to 2³¹ − 1.
      const kept = emitter.node('Less', [bits, emitter.constant('int32', [], [keptBelow(rate)])]);
      const shaped = emitter.typed(emitter.node('Reshape', [kept, emitter.dims(shape)]), { dtype: 'bool', shape });
      return [
        emitter.node('Where', [
          shaped,
          emitter.constant(dtype, [], [1 / (1 - rate)]),
          emitter.constant(dtype, [], [0]),
        ]),
      ];
    },
    vjp: nonDifferentiable('a mask is drawn, not computed from its seed'),
  },
};

/** The bound below which a uniform int32 is with probability 1 − rate. */
const keptBelow = (rate: number): number => Math.min(2 ** 31 - 1, Math.round((1 - rate) * 2 ** 32 - 2 ** 31));
