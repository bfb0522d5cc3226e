import { formatShape, sameShape, type Dim } from '../graph/dim.js';
import type { TensorType } from '../graph/graph.js';
import type { DType } from '../graph/tensor.js';

/** The checks that ops share; each throws a RangeError with what it expected. */

export function arity(inputs: readonly TensorType[], count: number): void {
  if (inputs.length !== count) throw new RangeError(`takes ${count} inputs, got ${inputs.length}`);
}

const floats: readonly DType[] = ['float32', 'float64'];
const numbers: readonly DType[] = [...floats, 'int32', 'int64', 'uint32'];

export function requireFloat(...inputs: readonly TensorType[]): void {
  requireDType(floats, ...inputs);
}

export function requireNumber(...inputs: readonly TensorType[]): void {
  requireDType(numbers, ...inputs);
}

export function requireDType(allowed: readonly DType[], ...inputs: readonly TensorType[]): void {
  for (const input of inputs) {
    if (!allowed.includes(input.dtype)) throw new RangeError(`takes ${allowed.join(' or ')}, got ${input.dtype}`);
  }
}

export function requireSameDType(...inputs: readonly TensorType[]): DType {
  const first = inputs[0]!.dtype;
  const other = inputs.find((input) => input.dtype !== first);
  if (other !== undefined) throw new RangeError(`takes operands of one dtype, got ${first} and ${other.dtype}`);
  return first;
}

export function requireRank(input: TensorType, rank: number, what: string): void {
  if (input.shape.length !== rank)
    throw new RangeError(`${what} must have ${rank} axes, got ${formatShape(input.shape)}`);
}

export function requireShape(input: TensorType, shape: readonly Dim[], what: string): void {
  if (!sameShape(input.shape, shape))
    throw new RangeError(`${what} must be ${formatShape(shape)}, got ${formatShape(input.shape)}`);
}

export function requireAxis(input: TensorType, axis: number): Dim {
  const dim = input.shape[axis];
  if (!Number.isInteger(axis) || dim === undefined) {
    throw new RangeError(`axis ${axis} is outside ${formatShape(input.shape)}`);
  }
  return dim;
}

export function requireSameDim(a: Dim, b: Dim, what: string): void {
  if (a !== b) throw new RangeError(`${what} differ: ${a} and ${b}`);
}

/** The shape that two shapes broadcast to. */
export function broadcastShapes(a: readonly Dim[], b: readonly Dim[]): Dim[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, axis) => {
    const left = a[axis - rank + a.length] ?? 1;
    const right = b[axis - rank + b.length] ?? 1;
    if (left === right || right === 1) return left;
    if (left === 1) return right;
    throw new RangeError(`shapes ${formatShape(a)} and ${formatShape(b)} do not broadcast`);
  });
}
