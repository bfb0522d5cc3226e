import { sizeOf } from '../graph/dim.js';
import { arity, requireDType, requireRank } from './infer.js';
import { nonDifferentiable, type Emitter, type OpRecords } from './record.js';

const UINT32 = 12;
const FLOAT32 = 1;

/**
 * x ↦ x·(a·x + b) mod 2³², a permutation for even a and odd b (Rivest, 2001, "Permutation polynomials modulo 2ʷ"). Unlike
 * a product by a constant it leaves no even spacing between the images of neighbouring positions.
 */
function scramble(emitter: Emitter, x: string, a: number, b: number): string {
  const slope = emitter.node('Mul', [x, emitter.constant('uint32', [], [a])]);
  return emitter.node('Mul', [x, plus(emitter, slope, emitter.constant('uint32', [], [b]))]);
}

const plus = (emitter: Emitter, a: string, b: string): string => emitter.node('Add', [a, b]);

/** Brings the high bits, which a product mixes best, down to the low ones. */
const fold = (emitter: Emitter, x: string, shift: number): string => plus(emitter, x, shiftRight(emitter, x, shift));

/** Shift right; division by a power of two where the device has no shift. */
function shiftRight(emitter: Emitter, bits: string, shift: number): string {
  return emitter.device === 'cpu'
    ? emitter.node('BitShift', [bits, emitter.constant('uint32', [], [shift])], { direction: 'RIGHT' })
    : emitter.node('Div', [bits, emitter.constant('uint32', [], [2 ** shift])]);
}

/**
 * A counter-based generator: bits = hash(position, seed, salt), with 32-bit multiplications, additions and shifts alone,
 * which every device has. No state is kept, so the same seed gives the same mask wherever and however often it is
 * computed.
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
      const scalarShape = emitter.constant('int64', [0], []);
      const count = emitter.node('Cast', [emitter.node('Reshape', [emitter.dims([sizeOf(shape)]), scalarShape])], {
        to: 6,
      });
      const positions = emitter.node('Range', [
        emitter.constant('int32', [], [0]),
        count,
        emitter.constant('int32', [], [1]),
      ]);
      const salted = plus(
        emitter,
        emitter.name(node.inputs[0]!),
        emitter.constant('uint32', [], [Math.imul(salt, 0x9e3779b1) >>> 0]),
      );
      const seeded = fold(emitter, scramble(emitter, salted, 0x7feb352c, 0x846ca68b), 15);
      const key = fold(emitter, scramble(emitter, seeded, 0x9e3779b0, 0x2c1b3c6d), 16);
      const counter = plus(emitter, emitter.node('Cast', [positions], { to: UINT32 }), key);
      const mixed = fold(emitter, scramble(emitter, counter, 0xc2b2ae34, 0x27d4eb2f), 16);
      // The key enters twice: entering once, it would make every mask a stretch of one and the same sequence.
      const rekeyed = plus(emitter, mixed, scramble(emitter, key, 0xc2b2ae34, 0x27d4eb2f));
      const bits = scramble(emitter, rekeyed, 0x165667b0, 0x85ebca6b);
      // The upper 24 bits are exact as a float32 in [0, 1).
      const unit = emitter.node('Cast', [shiftRight(emitter, bits, 8)], { to: FLOAT32 });
      const kept = emitter.node('Less', [unit, emitter.constant('float32', [], [(1 - rate) * 2 ** 24])]);
      const scale = [emitter.constant(dtype, [], [1 / (1 - rate)]), emitter.constant(dtype, [], [0])] as const;
      return [emitter.node('Reshape', [emitter.node('Where', [kept, ...scale]), emitter.dims(shape)])];
    },
    vjp: nonDifferentiable('a mask is drawn, not computed from its seed'),
  },
};
