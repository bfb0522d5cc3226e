import { sizeOf } from '../graph/dim.js';
import { arity, requireDType, requireRank } from './infer.js';
import { nonDifferentiable, type Emitter, type OpRecords } from './record.js';

const UINT32 = 12;
const FLOAT32 = 1;

/** One round: multiply (mod 2³²), then fold the high bits into the low ones by an addition. */
function round(emitter: Emitter, bits: string, factor: number, shift: number): string {
  const product = emitter.node('Mul', [bits, emitter.constant('uint32', [], [factor])]);
  return emitter.node('Add', [product, shiftRight(emitter, product, shift)]);
}

/** Shift right; division by a power of two where the device has no shift. */
function shiftRight(emitter: Emitter, bits: string, shift: number): string {
  return emitter.device === 'cpu'
    ? emitter.node('BitShift', [bits, emitter.constant('uint32', [], [shift])], { direction: 'RIGHT' })
    : emitter.node('Div', [bits, emitter.constant('uint32', [], [2 ** shift])]);
}

/**
 * A counter-based generator: bits = hash(position, seed, salt), with 32-bit multiply-add-shift rounds alone, which
 * every device has. No state is kept, so the same seed gives the same mask wherever and however often it is computed.
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
      const salted = emitter.node('Add', [
        emitter.name(node.inputs[0]!),
        emitter.constant('uint32', [], [Math.imul(salt, 0x9e3779b1) >>> 0]),
      ]);
      const key = round(emitter, round(emitter, salted, 0x85ebca6b, 15), 0xc2b2ae35, 13);
      const first = emitter.node('Add', [emitter.node('Cast', [positions], { to: UINT32 }), key]);
      const bits = round(
        emitter,
        round(emitter, round(emitter, first, 0x7feb352d, 16), 0x846ca68b, 15),
        0x9e3779b1,
        16,
      );
      // The upper 24 bits are exact as a float32 in [0, 1).
      const unit = emitter.node('Cast', [shiftRight(emitter, bits, 8)], { to: FLOAT32 });
      const kept = emitter.node('Less', [unit, emitter.constant('float32', [], [(1 - rate) * 2 ** 24])]);
      const scale = [emitter.constant(dtype, [], [1 / (1 - rate)]), emitter.constant(dtype, [], [0])] as const;
      return [emitter.node('Reshape', [emitter.node('Where', [kept, ...scale]), emitter.dims(shape)])];
    },
    vjp: nonDifferentiable('a mask is drawn, not computed from its seed'),
  },
};
