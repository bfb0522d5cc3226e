import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { runEmitted } from '../../tests/support/onnx-session.js';
import { backward } from '../autodiff/backward.js';
import { addDims, evaluateDim, mulDims, type Dim } from '../graph/dim.js';
import type { Graph } from '../graph/graph.js';
import { tensor, zeros, type Tensor } from '../graph/tensor.js';
import {
  div,
  add,
  broadcastTo,
  cast,
  dropoutMask,
  gelu,
  iota,
  logSoftmax,
  matmul,
  mul,
  nf4Matmul,
  reduceSum,
  reshape,
  rmsNorm,
  layerNorm,
  silu,
  slice,
  softmax,
  tokenLogProbs,
} from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import { emit, type BoundTensor } from './emit.js';
import { decodeModel } from './schema.js';

const entries = z.array(z.object({ key: z.string(), value: z.string() })).default([]);
const valueInfo = z.object({
  name: z.string(),
  type: z.object({
    tensorType: z.object({
      elemType: z.number(),
      shape: z.object({
        dim: z
          .array(z.union([z.strictObject({ dimValue: z.number() }), z.strictObject({ dimParam: z.string() })]))
          .default([]),
      }),
    }),
  }),
});
const model = z.object({
  irVersion: z.number(),
  opsetImport: z.array(z.object({ domain: z.string().default(''), version: z.number() })),
  graph: z.object({
    node: z
      .array(
        z.object({
          opType: z.string(),
          domain: z.string().default(''),
          input: z.array(z.string()).default([]),
          output: z.array(z.string()),
          attribute: z.array(z.looseObject({ name: z.string(), i: z.number().optional() })).default([]),
        }),
      )
      .default([]),
    initializer: z
      .array(
        z.object({
          name: z.string(),
          dataType: z.number(),
          dims: z.array(z.number()).default([]),
          rawData: z.instanceof(Uint8Array).optional(),
          dataLocation: z.number().optional(),
          externalData: entries,
        }),
      )
      .default([]),
    input: z.array(valueInfo).default([]),
    output: z.array(valueInfo),
    valueInfo: z.array(valueInfo).default([]),
  }),
});

const decode = (graph: Graph, device = 'cpu', bound?: ReadonlyMap<string, BoundTensor>) =>
  model.parse(decodeModel(emit(graph, bound === undefined ? { device } : { device, bound }).bytes));

const describeInfo = ({ name, type: { tensorType } }: z.infer<typeof valueInfo>) => {
  const dims = tensorType.shape.dim.map((dim) => ('dimValue' in dim ? dim.dimValue : dim.dimParam));
  return [name, tensorType.elemType, dims];
};

describe('emit', () => {
  it('declares the inputs that outputs need and the outputs, with element types and dimensions', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', ['B', 'T', 4]);
    const ids = graph.input('ids', 'int32', ['B']);
    graph.input('unused', 'float32', [3]);
    const w = graph.parameter('w', 'float64', []);
    graph.output('sum', mul(cast(reduceSum(x, 2), 'float64'), w));
    graph.output('ids64', cast(ids, 'int64'));
    graph.output('flat', reshape(x, ['4*B*T']));
    const { graph: emitted, irVersion, opsetImport } = decode(graph);
    expect(emitted.input.map(describeInfo)).toEqual([
      ['x', 1, ['B', 'T', 4]],
      ['ids', 6, ['B']],
      ['w', 11, []],
    ]);
    expect(emitted.output.map(describeInfo)).toEqual([
      ['sum', 11, ['B', 'T']],
      ['ids64', 7, ['B']],
      ['flat', 1, ['4*B*T']],
    ]);
    expect(irVersion).toBe(10);
    expect(opsetImport).toEqual([
      { domain: '', version: 21 },
      { domain: 'com.microsoft', version: 1 },
    ]);
  });

  it('makes the same bytes every time', () => {
    const build = (): Graph => {
      const graph = newGraph();
      const x = graph.input('x', 'float32', ['B', 4]);
      graph.output('y', softmax(mul(x, 2)));
      return graph;
    };
    expect(emit(build(), { device: 'cpu' }).bytes).toEqual(emit(build(), { device: 'cpu' }).bytes);
  });

  it('writes a constant once, however often it is used', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', [2]);
    const n = graph.input('n', 'int32', [2]);
    graph.output('y', add(mul(add(x, 2), 2), 3));
    graph.output('m', add(n, 2));
    const { initializer, node } = decode(graph).graph;
    expect(initializer.map(({ dataType, dims, rawData }) => [dataType, dims, [...rawData!]])).toEqual([
      [1, [], [...new Uint8Array(Float32Array.of(2).buffer)]],
      [1, [], [...new Uint8Array(Float32Array.of(3).buffer)]],
      [6, [], [...new Uint8Array(Int32Array.of(2).buffer)]],
    ]);
    expect(node.map(({ opType }) => opType)).toEqual(['Add', 'Mul', 'Add', 'Add']);
  });

  it('puts what nothing else reads at the end, the last of the graph first', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', [2]);
    const first = mul(x, 2);
    graph.output('leaf', add(first, 1));
    graph.output('fed', x);
    graph.output('read', first);
    graph.output('last', div(first, 3));
    const { node } = decode(graph).graph;
    expect(node.map(({ output: [name] }) => name)).toEqual(['read', 'fed', 'last', 'leaf']);
  });

  it('reads a symbol once from the shape of an input', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', [2, 'T']);
    graph.output('a', iota(graph, 'T'));
    graph.output('b', iota(graph, 'T+1'));
    graph.output('c', iota(graph, '2*T'));
    graph.output('x2', mul(x, x));
    const shapes = decode(graph).graph.node.filter(({ opType }) => opType === 'Shape');
    expect(shapes).toHaveLength(1);
    expect(shapes[0]!.input).toEqual(['x']);
    expect(shapes[0]!.attribute.map(({ name, i }) => [name, i])).toEqual([
      ['start', 1],
      ['end', 2],
    ]);
  });

  it('leaves bound matrices in their file and widens what is stored in half precision', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', ['B', 2]);
    const names = ['full', 'half', 'brain'] as const;
    const stored = { full: 'float32', half: 'float16', brain: 'bfloat16' } as const;
    for (const name of names) graph.output(`x·${name}`, matmul(x, graph.parameter(name, 'float32', [2, 2])));
    const bound = new Map(
      names.map((name, position): [string, BoundTensor] => {
        const data = { location: 'models/m.safetensors', offset: 100 * position, length: name === 'full' ? 16 : 8 };
        return [name, { data, dtype: stored[name], shape: [2, 2] }];
      }),
    );
    const { initializer, input, node } = decode(graph, 'cpu', bound).graph;
    expect(input.map(({ name }) => name)).toEqual(['x']);
    expect(initializer).toEqual(
      [
        ['full', 1, '0', '16'],
        ['half', 10, '100', '8'],
        ['brain', 16, '200', '8'],
      ].map(([name, dataType, offset, length]) => ({
        name,
        dataType,
        dims: [2, 2],
        dataLocation: 1,
        externalData: [
          { key: 'location', value: 'models/m.safetensors' },
          { key: 'offset', value: offset },
          { key: 'length', value: length },
        ],
      })),
    );
    const casts = node.filter(({ opType }) => opType === 'Cast');
    expect(casts.map(({ input: [from], attribute }) => [from, attribute[0]!.i])).toEqual([
      ['half', 1],
      ['brain', 1],
    ]);
    const products = node.filter(({ opType }) => opType === 'MatMul').map(({ input: [, weight] }) => weight);
    expect(products.toReversed()).toEqual(['full', ...casts.map(({ output: [widened] }) => widened)]);
  });

  it('writes bound bytes into the model', () => {
    const graph = newGraph();
    graph.output('y', add(graph.input('x', 'float32', [2]), graph.parameter('bias', 'float32', [2])));
    const data = new Uint8Array(Float32Array.of(1, -2).buffer);
    const { initializer } = decode(graph, 'cpu', new Map([['bias', { data, dtype: 'float32', shape: [2] }]])).graph;
    expect(initializer).toEqual([{ name: 'bias', dataType: 1, dims: [2], rawData: data, externalData: [] }]);
  });

  it('refuses a bound tensor of another shape', () => {
    const graph = newGraph();
    graph.output('y', graph.parameter('w', 'float32', [2, 3]));
    const bound = new Map<string, BoundTensor>([
      ['w', { data: { location: 'm', offset: 0, length: 24 }, dtype: 'float32', shape: [3, 2] }],
    ]);
    expect(() => emit(graph, { device: 'cpu', bound })).toThrow(
      "the file holds 'w' as (3, 2) where the graph has (2, 3)",
    );
  });

  it('names the node whose attributes have a symbol without a size', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', [9]);
    graph.output('y', slice(x, 0, 'Q', 'Q+2'));
    expect(() => emit(graph, { device: 'cpu' })).toThrow(
      "node 1 slice(float32(9)): the symbol 'Q' is a dimension of no input",
    );
  });

  it('verifies the graph', () => {
    const graph = newGraph();
    graph.output('positions', iota(graph, 'T'));
    expect(() => emit(graph, { device: 'cpu' })).toThrow("node 0 iota(): the symbol 'T' is a dimension of no input");
  });

  it('avoids on other devices what only the CPU provider computes', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', ['N', 4]);
    const weight = graph.parameter('w', 'float32', [4]);
    const seed = graph.input('seed', 'uint32', []);
    const parts = [
      matmul(x, x, { transB: true }),
      silu(x),
      gelu(x),
      logSoftmax(x),
      rmsNorm(x, weight, 1e-6),
      layerNorm(x, weight, weight, 1e-6),
      mul(x, dropoutMask(seed, { shape: x.shape, rate: 0.5, salt: 1, dtype: 'float32' })),
      tokenLogProbs(x, graph.input('ids', 'int32', ['N'])),
    ];
    for (const [position, part] of parts.entries()) graph.output(`y${position}`, part);
    const opsOn = (device: string): Set<string> =>
      new Set(
        decode(graph, device).graph.node.map(({ domain, opType }) => (domain === '' ? opType : `${domain}:${opType}`)),
      );
    const cpuOnly = [
      'com.microsoft:FusedMatMul',
      'com.microsoft:QuickGelu',
      'LogSoftmax',
      'SimplifiedLayerNormalization',
      'LayerNormalization',
      'BitShift',
    ];
    expect([...opsOn('cpu')]).toEqual(expect.arrayContaining(cpuOnly));
    expect(cpuOnly.filter((op) => opsOn('webgpu').has(op))).toEqual([]);
  });
});

describe('an emitted model', () => {
  const leaf: fc.Arbitrary<Dim> = fc.oneof(fc.integer({ min: 1, max: 3 }), fc.constantFrom('B', 'T', 'P'));
  const dim: fc.Arbitrary<Dim> = fc.oneof(
    fc.constantFrom<Dim>('B*T', '2*T-1', 'P+T', 'B*T+P', '3*B*B'),
    fc.tuple(leaf, leaf, leaf).map(([a, b, c]) => addDims(mulDims(a, b), c)),
  );

  it('computes derived dimensions from the sizes that it is fed', async () => {
    const size = fc.integer({ min: 1, max: 5 });
    await fc.assert(
      fc.asyncProperty(fc.array(dim, { minLength: 1, maxLength: 3 }), size, size, size, async (dims, B, T, P) => {
        const graph = newGraph();
        const x = graph.input('x', 'float32', ['B', 'T']);
        graph.output('sum', add(reduceSum(x), reduceSum(graph.input('p', 'float32', ['P']))));
        for (const [position, each] of dims.entries()) graph.output(`y${position}`, iota(graph, each));
        const feeds = { x: zeros('float32', [B, T]), p: zeros('float32', [P]) };
        const results = await runEmitted(graph, 'cpu', feeds);
        const bindings = new Map(Object.entries({ B, T, P }));
        for (const [position, each] of dims.entries()) {
          const length = evaluateDim(each, bindings);
          expect(results[`y${position}`]!.data).toEqual(Int32Array.from({ length }, (_, index) => index));
        }
      }),
      { numRuns: 20 },
    );
  });

  it('says what shape lies between inputs and outputs, also where it is computed at run time', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', ['B', 'T']);
    const flat = reshape(broadcastTo(reshape(x, ['B', 1, 'T']), ['B', 2, 'T']), ['2*B*T']);
    graph.output('sum', reduceSum(mul(flat, 2)));
    const { valueInfo: between, input, output } = decode(graph).graph;
    const shapes = between.map(({ type }) =>
      type.tensorType.shape.dim.map((size) => ('dimValue' in size ? size.dimValue : size.dimParam)),
    );
    expect(shapes).toEqual(expect.arrayContaining([['B', 2, 'T'], ['2*B*T']]));
    const ends = new Set([...input, ...output].map(({ name }) => name));
    expect(between.filter(({ name }) => ends.has(name))).toEqual([]);
  });

  it('says the sizes of what its nodes reshape: each that the runtime must guess makes large graphs slow to load', () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', ['B', 'T', 64]);
    const rows = { ids: graph.input('rows', 'int32', ['B']), axis: 0 };
    const mask = dropoutMask(graph.input('seed', 'uint32', []), { ...x, rate: 0.1, salt: 3, rows });
    const codes = graph.parameter('codes', 'uint8', [2048]);
    const product = nf4Matmul(mul(x, mask), {
      rows: 64,
      columns: 64,
      codes,
      absmax: graph.parameter('a', 'float32', [64]),
    });
    graph.output('dx', backward(reduceSum(mul(product, product)), [x])[0]!);
    const { node, initializer, valueInfo: between, output } = decode(graph).graph;
    const known = new Set([...between, ...output].map(({ name }) => name));
    const fixed = new Set(
      initializer.flatMap(({ name, dataType, rawData }) =>
        dataType === 7 && new BigInt64Array((rawData ?? new Uint8Array()).slice().buffer).every((size) => size >= 0n)
          ? [name]
          : [],
      ),
    );
    const reshapes = node.filter(({ opType, input }) => opType === 'Reshape' && !fixed.has(input[1]!));
    expect(reshapes.length).toBeGreaterThan(5);
    expect(reshapes.flatMap(({ output: [name] }) => (known.has(name!) ? [] : [name]))).toEqual([]);
  });

  it('gives an input back as an output, and one value under two names', async () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', ['N']);
    const double = mul(x, 2);
    graph.output('same', x);
    graph.output('double', double);
    graph.output('twice', double);
    const fed: Tensor = tensor('float32', [3], [1, 2, 3]);
    const { same, double: once, twice } = await runEmitted(graph, 'cpu', { x: fed });
    expect(same).toEqual(fed);
    expect(once).toEqual(tensor('float32', [3], [2, 4, 6]));
    expect(twice).toEqual(once);
  });
});
