import { sizeOf } from '../graph/dim.js';
import { arity, requireDType, requireRank } from './infer.js';
import { nonDifferentiable, type Emitter, type OpRecords } from './record.js';

const INT32 = 6;
const UINT32 = 12;

/** Positions that share a row of the grid that masks are drawn on; a power of two. */
const COLUMNS = 2048;

const uint32 = (emitter: Emitter, value: number): string => emitter.constant('uint32', [], [value >>> 0]);

/**
 * x ↦ x·(a·x + b) mod 2³², a permutation for even a and odd b (Rivest, 2001, "Permutation polynomials modulo 2ʷ"). Unlike
 * a product by a constant it leaves no even spacing between the images of neighbouring positions.
 */
function scramble(emitter: Emitter, x: string, a: number, b: number): string {
  const slope = emitter.node('Mul', [x, uint32(emitter, a)]);
  return emitter.node('Mul', [x, plus(emitter, slope, uint32(emitter, b))]);
}

const plus = (emitter: Emitter, a: string, b: string): string => emitter.node('Add', [a, b]);

/** Brings the high bits, which a product mixes best, down to the low ones. */
const fold = (emitter: Emitter, x: string, shift: number): string => plus(emitter, x, shiftRight(emitter, x, shift));

/** Shift right; division by a power of two where the device has no shift. */
function shiftRight(emitter: Emitter, bits: string, shift: number): string {
  return emitter.device === 'cpu'
    ? emitter.node('BitShift', [bits, uint32(emitter, shift)], { direction: 'RIGHT' })
    : emitter.node('Div', [bits, uint32(emitter, 2 ** shift)]);
}

/** A key of 32 mixed bits from the seed and a number. */
function keyOf(emitter: Emitter, seed: string, salt: number): string {
  const salted = plus(emitter, seed, uint32(emitter, Math.imul(salt, 0x9e3779b1)));
  const seeded = fold(emitter, scramble(emitter, salted, 0x7feb352c, 0x846ca68b), 15);
  return fold(emitter, scramble(emitter, seeded, 0x9e3779b0, 0x2c1b3c6d), 16);
}

/** 0, 1, …, count − 1 under a key, each mixed to 32 bits. */
function hashes(emitter: Emitter, count: string, key: string): string {
  const positions = emitter.node('Range', [
    emitter.constant('int32', [], [0]),
    count,
    emitter.constant('int32', [], [1]),
  ]);
  const counter = plus(emitter, emitter.node('Cast', [positions], { to: UINT32 }), key);
  const mixed = fold(emitter, scramble(emitter, counter, 0xc2b2ae34, 0x27d4eb2f), 16);
  // The key enters twice: entering once, it would make everything drawn a stretch of one and the same sequence.
  const rekeyed = plus(emitter, mixed, scramble(emitter, key, 0xc2b2ae34, 0x27d4eb2f));
  return fold(emitter, scramble(emitter, rekeyed, 0x165667b0, 0x85ebca6b), 16);
}

/**
 * A counter-based generator: bits = hash(position, seed, salt), with 32-bit multiplications, additions and shifts alone,
 * which every device has. No state is kept, so the same seed gives the same mask wherever and however often it is
 * computed.
 *
 * A position is a row and a column of a grid. Only the rows r and the columns c are hashed, to two numbers each; an
 * element's bits are (r₁ + c₁)·(r₂ + c₂) mod 2³², with r₁ odd and c₁ even, so that the first factor is a unit and the bits
 * are as uniform as the second. That is three cheap passes over the elements, where a hash of each takes twelve.
 */
export const random: OpRecords<'dropoutMask'> = {
  dropoutMask: {
    infer: (inputs, { shape, rate, dtype }) => {
      arity(inputs, 1);
      requireDType(['uint32'], inputs[0]!);
      requireRank(inputs[0]!, 0, 'the seed');
      if (!(rate > 0 && rate < 1)) throw new RangeError(`the rate ${rate} is not between 0 and 1`);
      return [{ dtype, shape }];
    },
    emit: (emitter, node, { shape, rate, salt, dtype }) => {
      const seed = emitter.name(node.inputs[0]!);
      const count = emitter.dims([sizeOf(shape)]);
      const one = (value: number): string => emitter.constant('int64', [1], [value]);
      const reached = emitter.node('Add', [count, one(COLUMNS - 1)]);
      const rowCount = emitter.node(
        'Cast',
        [emitter.node('Reshape', [emitter.node('Div', [reached, one(COLUMNS)]), emitter.constant('int64', [0], [])])],
        { to: INT32 },
      );
      const rows = (which: number): string => hashes(emitter, rowCount, keyOf(emitter, seed, 4 * salt + which));
      const columns = (which: number): string =>
        hashes(emitter, emitter.constant('int32', [], [COLUMNS]), keyOf(emitter, seed, 4 * salt + which));
      const signed = (bits: string): string => emitter.node('Cast', [bits], { to: INT32 });
      const upright = (bits: string): string =>
        emitter.node('Reshape', [signed(bits), emitter.constant('int64', [2], [-1, 1])]);
      const even = emitter.node('Mul', [columns(2), uint32(emitter, 2)]);
      const odd = plus(emitter, emitter.node('Mul', [rows(0), uint32(emitter, 2)]), uint32(emitter, 1));
      const bits = emitter.node('Mul', [
        plus(emitter, upright(odd), signed(even)),
        plus(emitter, upright(rows(1)), signed(columns(3))),
      ]);
      // As signed integers the bits are uniform from −2³¹ to 2³¹ − 1.
      const limit = emitter.constant('int32', [], [keptBelow(rate)]);
      const kept = emitter.node('Reshape', [emitter.node('Less', [bits, limit]), one(-1)]);
      const part = emitter.node('Slice', [kept, one(0), count, one(0)]);
      const shaped = emitter.node('Reshape', [part, emitter.dims(shape)]);
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
