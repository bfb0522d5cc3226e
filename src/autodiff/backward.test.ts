import { afterAll, describe, expect, it, vi } from 'vitest';
import { expectClose } from '../../tests/support/expect-close.js';
import { toNdArray } from '../../tests/support/ops/op-case.js';
import type { NdArray } from '../../tests/support/ndarray.js';
import type { Value } from '../graph/graph.js';
import { tensor, type Tensor } from '../graph/tensor.js';
import {
  add,
  cast,
  dropoutMask,
  exp,
  less,
  matmul,
  mul,
  neg,
  reduceMean,
  reduceSum,
  sin,
  stopGradient,
  tanh,
  tokenLogProbs,
  where,
} from '../ops/build.js';
import { newGraph, ops } from '../ops/registry.js';
import type { NoAttributes, Vjp } from '../ops/record.js';
import { Runtime } from '../runtime/runtime.js';
import { backward } from './backward.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const f64 = (values: readonly number[]): Tensor => tensor('float64', [values.length], values);

const vector = (values: readonly number[]): NdArray => ({
  shape: [values.length],
  data: Float64Array.from(values),
});

/** Runs a loss and its backward() and gives the gradients in the order of the values. */
async function gradientsOf(loss: Value, values: readonly Value[], feeds: Record<string, Tensor>): Promise<NdArray[]> {
  loss.graph.output('loss', loss);
  const names = backward(loss, values).map((gradient, position) => {
    loss.graph.output(`gradient ${position}`, gradient);
    return `gradient ${position}`;
  });
  const program = await runtime.compile(loss.graph);
  const results = await program.run(feeds);
  return names.map((name) => toNdArray(results[name]!));
}

const X = [0.5, -1.25, 2];

describe('backward', () => {
  it('adds up the shares of a value that is read several times, also twice by one node', async () => {
    const graph = newGraph();
    const x = graph.input('x', 'float64', [3]);
    // Σ x² + sin x · x + 3x
    const loss = reduceSum(add(add(mul(x, x), mul(sin(x), x)), mul(x, 3)));
    const [gradient] = await gradientsOf(loss, [x], { x: f64(X) });
    expectClose(gradient!, vector(X.map((v) => 2 * v + Math.cos(v) * v + Math.sin(v) + 3)), 1e-14, 'the gradient');
  });

  it('differentiates a shared subexpression once', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float64', [3]);
    const shared = exp(x);
    const loss = reduceSum(add(mul(shared, 2), mul(shared, x)));
    const before = graph.nodes.length;
    const [gradient] = backward(loss, [x]);
    // Of the nodes that were added, one multiplies by eˣ to pass through the exponential, and one by eˣ for the product.
    const readers = graph.nodes.slice(before).filter(({ inputs }) => inputs.includes(shared));
    expect(readers.map(({ op }) => op)).toEqual(['mul', 'mul']);
    expect(gradient!.shape).toEqual([3]);
  });

  it('goes through a deep graph with symbolic shapes, broadcasting, and a value between', async () => {
    const graph = newGraph();
    const x = graph.input('x', 'float64', ['B', 'D']);
    const w = graph.parameter('w', 'float64', ['D', 1]);
    const b = graph.parameter('b', 'float64', []);
    const hidden = tanh(add(matmul(x, w), b));
    const loss = reduceMean(mul(hidden, hidden));
    const feeds = {
      x: tensor('float64', [2, 2], [1, 2, -0.5, 0.25]),
      w: tensor('float64', [2, 1], [0.3, -0.2]),
      b: tensor('float64', [], [0.1]),
    };
    const [dw, db, dHidden] = await gradientsOf(loss, [w, b, hidden], feeds);
    const h = [0.3 - 0.4 + 0.1, -0.15 - 0.05 + 0.1].map(Math.tanh);
    // d loss / d pre-activation, with loss = mean h²
    const pre = h.map((value) => value * (1 - value * value));
    expectClose(dHidden!, { shape: [2, 1], data: Float64Array.from(h) }, 1e-14, 'the gradient of the hidden value');
    expectClose(
      dw!,
      { shape: [2, 1], data: Float64Array.of(pre[0]! - 0.5 * pre[1]!, 2 * pre[0]! + 0.25 * pre[1]!) },
      1e-14,
      'the gradient of w',
    );
    expectClose(db!, { shape: [], data: Float64Array.of(pre[0]! + pre[1]!) }, 1e-14, 'the gradient of b');
  });

  it('gives 1 for the loss itself and zeros for what the loss does not depend on', async () => {
    const graph = newGraph();
    const x = graph.input('x', 'float64', ['N']);
    const unused = graph.input('unused', 'float64', ['N', 2]);
    const loss = reduceSum(x);
    const [own, zeros, again] = await gradientsOf(loss, [loss, unused, unused], { x: f64(X) });
    expect(own).toEqual({ shape: [], data: Float64Array.of(1) });
    expect(zeros).toEqual({ shape: [3, 2], data: new Float64Array(6) });
    expect(again).toEqual(zeros);
  });

  it('stops where it is told to', async () => {
    const graph = newGraph();
    const x = graph.input('x', 'float64', [3]);
    const stopped = stopGradient(exp(x));
    const loss = reduceSum(mul(stopped, x));
    const [dx, dStopped] = await gradientsOf(loss, [x, stopped], { x: f64(X) });
    expectClose(dx!, vector(X.map(Math.exp)), 1e-14, 'the gradient of x');
    expectClose(dStopped!, vector(X), 1e-14, 'the gradient of the stopped value');
  });

  it('adds no node for the sake of frozen parameters', () => {
    const build = (): { loss: Value; x: Value; frozen: Value; adapter: Value } => {
      const graph = newGraph();
      const x = graph.input('x', 'float32', ['B', 4]);
      const frozen = graph.parameter('frozen', 'float32', [4, 4]);
      const adapter = graph.parameter('adapter', 'float32', [4, 4]);
      const first = tanh(matmul(x, frozen));
      return { loss: reduceSum(mul(matmul(first, adapter), matmul(first, frozen))), x, frozen, adapter };
    };
    const added = (choose: (built: ReturnType<typeof build>) => Value[]): string[] => {
      const built = build();
      const before = built.loss.graph.nodes.length;
      backward(built.loss, choose(built));
      return built.loss.graph.nodes.slice(before).map(({ op }) => op);
    };
    const forAdapter = added(({ adapter }) => [adapter]);
    // dW = firstᵀ · (1 ⊙ other) is all that the adapter's gradient needs.
    expect(forAdapter.filter((op) => op === 'matmul')).toHaveLength(1);
    expect(forAdapter).not.toContain('tanh');
    expect(added(({ adapter, frozen }) => [adapter, frozen]).length).toBeGreaterThan(forAdapter.length);
  });

  it('differentiates nothing when nothing is asked for', () => {
    const graph = newGraph();
    const loss = reduceSum(exp(graph.input('x', 'float32', [3])));
    const before = graph.nodes.length;
    expect(backward(loss, [])).toEqual([]);
    expect(graph.nodes.slice(before).map(({ op }) => op)).toEqual(['constant']);
  });

  it('passes through selection, but not into its condition', async () => {
    const graph = newGraph();
    const x = graph.input('x', 'float64', [3]);
    const loss = reduceSum(where(less(x, 0), neg(x), mul(x, 2)));
    const [gradient] = await gradientsOf(loss, [x], { x: f64(X) });
    expect(gradient!.data).toEqual(Float64Array.of(2, -1, 2));
  });

  it('can be applied to its own result', async () => {
    const graph = newGraph();
    const x = graph.input('x', 'float64', [3]);
    const [slope] = backward(reduceSum(mul(sin(x), x)), [x]);
    const [curvature] = await gradientsOf(reduceSum(slope!), [x], { x: f64(X) });
    // (x sin x)″ = 2 cos x − x sin x
    expectClose(curvature!, vector(X.map((v) => 2 * Math.cos(v) - v * Math.sin(v))), 1e-14, 'the second derivative');
  });

  describe('refuses', () => {
    it('a path through an op without a gradient, with the reason', () => {
      const graph = newGraph();
      const x = graph.input('x', 'float32', [2, 3]);
      const ids = graph.input('ids', 'int32', [2]);
      // The gradient of a log-probability is itself an op, which has none.
      const [slope] = backward(reduceSum(tokenLogProbs(x, ids)), [x]);
      expect(() => backward(reduceSum(slope!), [x])).toThrow(
        /^node \d+ tokenLogProbsGrad has no gradient: second derivatives of the log-probability are not needed$/,
      );
    });

    it('no path when the op without a gradient lies beside it', () => {
      const graph = newGraph();
      const x = graph.input('x', 'float32', [4]);
      const seed = graph.input('seed', 'uint32', []);
      const loss = reduceSum(mul(x, dropoutMask(seed, { shape: [4], rate: 0.5, salt: 1, dtype: 'float32' })));
      expect(() => backward(loss, [x])).not.toThrow();
    });

    it('a path through an output that has no gradient', () => {
      const graph = newGraph();
      const x = graph.input('x', 'float32', [2, 3]);
      const [, mean] = graph.add(
        'layerNorm',
        [x, graph.parameter('w', 'float32', [3]), graph.parameter('b', 'float32', [3])],
        {
          epsilon: 1e-5,
        },
      );
      expect(() => backward(reduceSum(mean!), [x])).toThrow(
        'node 3 layerNorm is differentiated through its output 1: only output 0 has a gradient',
      );
    });

    it('a gradient rule that does not name every input', () => {
      const graph = newGraph();
      const x = graph.input('x', 'float32', []);
      vi.spyOn(ops.neg as { vjp: Vjp<NoAttributes> }, 'vjp').mockReturnValueOnce([]);
      expect(() => backward(neg(x), [x])).toThrow('the gradient of neg names 0 inputs of 1');
    });

    it('a loss that is no scalar, or no float', () => {
      const graph = newGraph();
      const x = graph.input('x', 'float32', [3]);
      expect(() => backward(x, [x])).toThrow('the loss must be a scalar, got (3)');
      const count = cast(reduceSum(x), 'int32');
      expect(() => backward(count, [x])).toThrow('the loss must be of a float dtype, got int32');
    });

    it('a value of another graph', () => {
      const graph = newGraph();
      const x = graph.input('x', 'float32', [3]);
      const foreign = newGraph().input('x', 'float32', [3]);
      expect(() => backward(reduceSum(x), [x, foreign])).toThrow('value 1 belongs to another graph than the loss');
    });
  });
});
