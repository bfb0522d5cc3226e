import { describe, expect, it } from 'vitest';
import { add, exp, matmul, mul, reshape } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import { activationBytes } from './activations.js';

describe('the memory of intermediate values', () => {
  it('is that of those that live at the same time', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', ['B', 8]);
    const wide = matmul(x, graph.parameter('w', 'float32', [8, 32])); // B × 32
    const narrow = matmul(wide, graph.parameter('v', 'float32', [32, 4])); // B × 4, wide still there
    graph.output('y', matmul(narrow, graph.parameter('u', 'float32', [4, 2])));
    expect(activationBytes(graph, { B: 10 })).toBe(10 * (32 + 4) * 4);
  });

  it('counts a value that is needed again until then, and one written over another once', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', ['B']);
    const kept = mul(x, x);
    const chain = exp(exp(exp(kept)));
    graph.output('y', add(kept, chain));
    expect(activationBytes(graph, { B: 100 })).toBe(2 * 400);
  });

  it('takes a reshaped value for the same memory, and outputs that are written elsewhere for none', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', ['B', 6]);
    const y = graph.output('y', reshape(mul(x, x), ['B', 2, 3]));
    expect(activationBytes(graph, { B: 10 })).toBe(240);
    const z = newGraph();
    const given = z.input('x', 'float32', ['B', 6]);
    const out = z.output('z', mul(given, given));
    expect(activationBytes(z, { B: 10 }, new Set([out]))).toBe(0);
    expect(y.shape).toEqual(['B', 2, 3]);
  });
});
