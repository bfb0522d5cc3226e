import { afterAll, describe, expect, it } from 'vitest';
import { expectClose } from '../../tests/support/expect-close.js';
import { at, ndarray, range, sum, type NdArray } from '../../tests/support/ndarray.js';
import { toNdArray, toTensor } from '../../tests/support/ops/op-case.js';
import { stream, type RandomStream } from '../random.js';
import type { Graph } from '../graph/graph.js';
import { tensor, zeros, type Tensor } from '../graph/tensor.js';
import { Runtime } from '../runtime/runtime.js';
import { groupQueryAttention } from './build.js';
import { newGraph } from './registry.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const BATCH = 3;
const CAPACITY = 8;
const HEAD_SIZE = 16;
const SCALE = 0.3;

interface Heads {
  readonly heads: number;
  readonly kvHeads: number;
}

function attentionGraph({ heads, kvHeads }: Heads): Graph {
  const graph = newGraph();
  const float = (name: string, shape: (number | string)[]) => graph.input(name, 'float32', shape);
  const cache = ['B', kvHeads, 'M', HEAD_SIZE];
  const { output, presentKey, presentValue } = groupQueryAttention(
    {
      query: float('query', ['B', 'T', heads * HEAD_SIZE]),
      key: float('key', ['B', 'T', kvHeads * HEAD_SIZE]),
      value: float('value', ['B', 'T', kvHeads * HEAD_SIZE]),
      pastKey: float('past_key', cache),
      pastValue: float('past_value', cache),
      lastIndex: graph.input('last_index', 'int32', ['B']),
      totalLength: graph.input('total_length', 'int32', []),
    },
    { heads, kvHeads, scale: SCALE },
  );
  graph.output('output', output);
  graph.output('present_key', presentKey);
  graph.output('present_value', presentValue);
  return graph;
}

const normal = (random: RandomStream, shape: readonly number[]): NdArray =>
  ndarray(shape, () => Math.fround(random.normal()));

/** Keys and values of each row so far: history[row][position] is a vector of all key/value heads. */
type History = number[][][];

const vectorAt = (x: NdArray, row: number, step: number): number[] =>
  range(x.shape[2]!).map((feature) => at(x, [row, step, feature]));

/** softmax(scale · q·K) · V for one query vector over a row's history, head by head. */
function attend({ heads, kvHeads }: Heads, query: readonly number[], keys: number[][], values: number[][]): number[] {
  return range(heads).flatMap((head) => {
    const shared = Math.floor(head / (heads / kvHeads));
    const part = (vector: readonly number[], which: number): number[] =>
      vector.slice(which * HEAD_SIZE, (which + 1) * HEAD_SIZE);
    const q = part(query, head);
    const weights = keys.map((key) => Math.exp(SCALE * sum(part(key, shared).map((k, i) => k * q[i]!))));
    return range(HEAD_SIZE).map(
      (i) => sum(weights.map((weight, t) => weight * part(values[t]!, shared)[i]!)) / sum(weights),
    );
  });
}

describe.each([
  { heads: 2, kvHeads: 2 },
  { heads: 4, kvHeads: 2 },
  { heads: 3, kvHeads: 1 },
])('groupQueryAttention of $heads heads over $kvHeads', (shape) => {
  it('equals attention over each row’s own history, in a cache that is fed and written in place', async () => {
    const random = stream(17, shape.heads, shape.kvHeads);
    const program = await runtime.compile(attentionGraph(shape));
    const [pastKey, pastValue] = await Promise.all([
      runtime.allocate('float32', [BATCH, shape.kvHeads, CAPACITY, HEAD_SIZE]),
      runtime.allocate('float32', [BATCH, shape.kvHeads, CAPACITY, HEAD_SIZE]),
    ]);
    const keys: History = range(BATCH).map(() => []);
    const values: History = range(BATCH).map(() => []);

    /** Feeds `length` new positions of which `fresh[row]` count, and compares what counts. */
    const advance = async (length: number, fresh: readonly number[]): Promise<void> => {
      const [query, key, value] = [shape.heads, shape.kvHeads, shape.kvHeads].map((heads) =>
        normal(random, [BATCH, length, heads * HEAD_SIZE]),
      ) as [NdArray, NdArray, NdArray];
      const lengths = fresh.map((count, row) => keys[row]!.length + count);
      const feeds: Record<string, Tensor> = {
        query: toTensor('float32', query),
        key: toTensor('float32', key),
        value: toTensor('float32', value),
        last_index: tensor(
          'int32',
          [BATCH],
          lengths.map((total) => total - 1),
        ),
        total_length: tensor('int32', [], [Math.max(...lengths)]),
      };
      const { output } = await program.run(
        { ...feeds, past_key: pastKey, past_value: pastValue },
        { present_key: pastKey, present_value: pastValue },
      );
      const actual = toNdArray(output!);
      for (const [row, count] of fresh.entries()) {
        for (let step = 0; step < count; step++) {
          keys[row]!.push(vectorAt(key, row, step));
          values[row]!.push(vectorAt(value, row, step));
          const expected = attend(shape, vectorAt(query, row, step), keys[row]!, values[row]!);
          const vector = (data: readonly number[]): NdArray => ({
            shape: [data.length],
            data: Float64Array.from(data),
          });
          expectClose(vector(vectorAt(actual, row, step)), vector(expected), 1e-5, `row ${row}, step ${step}`);
        }
      }
    };

    // Prompts of 4, 2 and 3 tokens, padded on the right, then token by token.
    await advance(4, [4, 2, 3]);
    for (let step = 0; step < 3; step++) await advance(1, [1, 1, 1]);

    const cache = toNdArray(await pastKey.read());
    for (const [row, history] of keys.entries()) {
      for (const [position, vector] of history.entries()) {
        const stored = range(shape.kvHeads).flatMap((head) =>
          range(HEAD_SIZE).map((feature) => at(cache, [row, head, position, feature])),
        );
        expect(stored, `the cached key of row ${row} at ${position}`).toEqual(vector);
      }
    }
  });
});

describe('groupQueryAttention', () => {
  it('leaves the caches that it was given alone when they are not written in place', async () => {
    const random = stream(4);
    const shape = { heads: 2, kvHeads: 1 };
    const program = await runtime.compile(attentionGraph(shape));
    const past = zeros('float32', [1, 1, CAPACITY, HEAD_SIZE]);
    const feeds = {
      query: toTensor('float32', normal(random, [1, 1, 2 * HEAD_SIZE])),
      key: toTensor('float32', normal(random, [1, 1, HEAD_SIZE])),
      value: toTensor('float32', normal(random, [1, 1, HEAD_SIZE])),
      last_index: tensor('int32', [1], [0]),
      total_length: tensor('int32', [], [1]),
    };
    const first = await program.run({ ...feeds, past_key: past, past_value: past });
    const held = await runtime.upload(past);
    const again = await program.run({ ...feeds, past_key: held, past_value: held });
    expect(again['output']).toEqual(first['output']);
    expect((await held.read()).data).toEqual(past.data);
  });

  it('refuses caches, keys and lengths that do not fit each other', () => {
    const graph = newGraph();
    const float = (name: string, shape: readonly (number | string)[]) => graph.input(name, 'float32', shape);
    const inputs = {
      query: float('query', ['B', 'T', 4 * HEAD_SIZE]),
      key: float('key', ['B', 'T', 2 * HEAD_SIZE]),
      value: float('value', ['B', 'T', 2 * HEAD_SIZE]),
      pastKey: float('past_key', ['B', 2, 'M', HEAD_SIZE]),
      pastValue: float('past_value', ['B', 2, 'M', HEAD_SIZE]),
      lastIndex: graph.input('last_index', 'int32', ['B']),
      totalLength: graph.input('total_length', 'int32', []),
    };
    const attributes = { heads: 4, kvHeads: 2, scale: 1 };
    const wrong = {
      otherBatch: float('other_batch', ['C', 'T', 2 * HEAD_SIZE]),
      narrow: float('narrow', ['B', 'T', HEAD_SIZE]),
      smallCache: float('small_cache', ['B', 2, 'N', HEAD_SIZE]),
      oneIndex: graph.input('one_index', 'int32', [1]),
      long: graph.input('long', 'int64', []),
    };
    const attempt = (change: Partial<typeof inputs>, changed: Partial<typeof attributes> = {}) => {
      return () => groupQueryAttention({ ...inputs, ...change }, { ...attributes, ...changed });
    };
    expect(attempt({})).not.toThrow();
    expect(attempt({ key: wrong.otherBatch })).toThrow('keys and values must be (B, T, 32), got (C, T, 32)');
    expect(attempt({ value: wrong.narrow })).toThrow('keys and values must be (B, T, 32), got (B, T, 16)');
    expect(attempt({ pastValue: wrong.smallCache })).toThrow('the cache must be (B, 2, M, 16), got (B, 2, N, 16)');
    expect(attempt({ lastIndex: wrong.oneIndex })).toThrow('the last indices must be (B), got (1)');
    expect(attempt({ totalLength: wrong.long })).toThrow('takes int32, got int64');
    expect(attempt({}, { heads: 3 })).toThrow('3 heads cannot share 2 key/value heads evenly');
    expect(attempt({}, { heads: 2 })).toThrow('the query must be (B, T, 32), got (B, T, 64)');
  });
});
