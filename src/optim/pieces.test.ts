import { afterAll, expect, it } from 'vitest';
import { expectClose } from '../../tests/support/expect-close.js';
import { toNdArray } from '../../tests/support/ops/op-case.js';
import { wrap } from '../graph/tensor.js';
import { Runtime } from '../runtime/runtime.js';
import { Optimizer, type InitialValue } from './optimizer.js';
import { piecesOf } from './pieces.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const large = { name: 'large', shape: [3, 2 ** 19 + 1], decay: true };
const small = { name: 'small', shape: [2, 2], decay: false };

it('cuts what is large, and only that, into vectors that make it up', () => {
  const pieces = piecesOf([large, small]);
  expect(pieces.map(({ shape, decay, of }) => ({ shape, decay, of }))).toEqual([
    { shape: [2 ** 20], decay: true, of: { parameter: 'large', start: 0 } },
    { shape: [2 ** 19 + 3], decay: true, of: { parameter: 'large', start: 2 ** 20 } },
    { shape: [2, 2], decay: false, of: undefined },
  ]);
  expect(new Set(pieces.map(({ name }) => name)).size).toBe(3);
});

it('updates every element of them by its own gradient, and sees all in the norm', async () => {
  const elements = 3 * (2 ** 19 + 1);
  const optimizer = await Optimizer.create(
    runtime,
    [large, small],
    new Map<string, InitialValue>([
      ['large', async () => Promise.resolve(wrap('float32', large.shape, new Float32Array(elements).fill(1)))],
      ['small', wrap('float32', small.shape, new Float32Array(4).fill(1))],
    ]),
    { weightDecay: 0.1 },
  );
  const gradient = Float32Array.from({ length: elements }, (_, i) => (i % 3) - 1);
  await optimizer.gradients.get('large')!.write(wrap('float32', large.shape, gradient));
  await optimizer.gradients.get('small')!.write(wrap('float32', small.shape, Float32Array.of(3, 0, 0, 4)));
  const norm = await optimizer.gradNorm();
  expect(norm).toBeCloseTo(Math.sqrt((elements / 3) * 2 + 25), 2);
  await optimizer.update(0.01, norm);
  // The first step of Adam is the learning rate in the direction of the gradient's sign.
  const weights = await optimizer.readWeights();
  const expected = gradient.map((g) => 0.999 - 0.01 * Math.sign(g));
  expectClose(
    toNdArray(weights.get('large')!),
    { shape: large.shape, data: Float64Array.from(expected) },
    1e-6,
    'large',
  );
  const four = Float64Array.of(0.99, 1, 1, 0.99);
  expectClose(toNdArray(weights.get('small')!), { shape: small.shape, data: four }, 1e-6, 'small');
  await optimizer.clearGradients();
  expect(await optimizer.gradNorm()).toBe(0);
  await optimizer.dispose();
});
