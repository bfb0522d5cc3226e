import { expect, it } from 'vitest';
import type { TensorInfo } from './safetensors.js';
import { withStandardNames } from './standard-names.js';

const tensors = (...names: string[]): ReadonlyMap<string, TensorInfo> =>
  new Map(names.map((name) => [name, { name, dtype: 'F32', shape: [2], file: 'x', offset: 8, length: 8 }]));

it('names the parts of a LayerNorm as models do today, and leaves others', () => {
  const old = tensors('bert.embeddings.LayerNorm.gamma', 'bert.embeddings.LayerNorm.beta', 'gamma', 'bert.x.weight');
  const named = withStandardNames(old);
  const names = ['bert.embeddings.LayerNorm.weight', 'bert.embeddings.LayerNorm.bias', 'gamma', 'bert.x.weight'];
  expect([...named.keys()]).toEqual(names);
  expect([...named.values()].map(({ name }) => name)).toEqual(names);
  const today = tensors('bert.embeddings.LayerNorm.weight');
  expect(withStandardNames(today)).toBe(today);
});
