import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { stream } from '../random.js';
import { tensor, wrap, zeros, type DType, type Tensor } from '../graph/tensor.js';
import { add, cast, div, mul, reduceSum, sqrt, sub } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import { Runtime, type Program } from './runtime.js';

const runtime = new Runtime({ threads: 1 });
afterAll(() => runtime.close());

const f32 = (shape: readonly number[], values: readonly number[]): Tensor => tensor('float32', shape, values);

describe('Program.run', () => {
  /** joint (B, P+T) comes before the inputs that give P and T their sizes. */
  async function compileSum(): Promise<Program> {
    const graph = newGraph();
    const joint = graph.input('joint', 'float32', ['B', 'P+T']);
    const past = graph.input('past', 'float32', ['B', 'P']);
    const fresh = graph.input('fresh', 'float32', ['T', 'B']);
    graph.output('sum', add(add(reduceSum(joint), reduceSum(past)), reduceSum(fresh)));
    graph.output('double', mul(past, 2));
    return runtime.compile(graph);
  }
  let program: Program;
  beforeAll(async () => {
    program = await compileSum();
  });

  const good = {
    joint: f32([2, 4], [1, 1, 1, 1, 1, 1, 1, 1]),
    past: f32([2, 1], [1, 2]),
    fresh: f32([3, 2], [1, 1, 1, 1, 1, 1]),
  };

  it('computes what comes out for what is fed', async () => {
    expect(await program.run(good)).toEqual({ sum: f32([], [17]), double: f32([2, 1], [2, 4]) });
  });

  it('takes a view of a larger buffer', async () => {
    const all = Float32Array.of(9, 9, 1, 2, 9);
    expect(await program.run({ ...good, past: wrap('float32', [2, 1], all.subarray(2, 4)) })).toEqual(
      await program.run(good),
    );
  });

  it.each<[string, Record<string, Tensor>, string]>([
    ['no feed', { joint: good.joint, past: good.past }, "the feed 'fresh' float32(T, B) is missing"],
    ['an unknown feed', { ...good, extra: good.past }, "the graph has no input named 'extra'"],
    [
      'another dtype',
      { ...good, past: tensor('int32', [2, 1], [1, 2]) },
      "the feed 'past' must be float32(B, P) with B=2, P=1, T=3, got int32(2, 1)",
    ],
    [
      'another number of axes',
      { ...good, past: f32([2], [1, 2]) },
      "the feed 'past' must be float32(B, P) with B=2, got float32(2)",
    ],
    [
      'a size that another feed contradicts',
      { ...good, fresh: f32([3, 1], [1, 1, 1]) },
      "the feed 'fresh' must be float32(T, B) with B=2, P=1, T=3, got float32(3, 1)",
    ],
    [
      'a derived dimension of another size',
      { ...good, joint: f32([2, 1], [1, 1]) },
      "the feed 'joint' must be float32(B, P+T) with B=2, P=1, T=3, got float32(2, 1)",
    ],
    [
      'fewer elements than its shape has',
      { ...good, past: wrap('float32', [2, 1], Float32Array.of(1)) },
      'float32(2, 1) holds 1 elements',
    ],
  ])('refuses %s before anything runs', async (_, feeds, message) => {
    await expect(program.run(feeds)).rejects.toThrow(RangeError);
    await expect(program.run(feeds)).rejects.toThrow(message);
  });

  it('writes an output into a tensor that stays, and sends the others back', async () => {
    const target = await runtime.allocate('float32', [2, 1]);
    expect(await program.run(good, { double: target })).toEqual({ sum: f32([], [17]) });
    expect(await target.read()).toEqual(f32([2, 1], [2, 4]));
    await target.dispose();
  });

  it('refuses a target that is no output, does not fit, or is written twice', async () => {
    const [fitting, wide] = await Promise.all([
      runtime.allocate('float32', [2, 1]),
      runtime.allocate('float32', [2, 2]),
    ]);
    await expect(program.run(good, { triple: fitting })).rejects.toThrow("the graph has no output named 'triple'");
    await expect(program.run(good, { double: wide })).rejects.toThrow(
      "the output 'double' must be float32(B, P) with B=2, P=1, T=3, got float32(2, 2)",
    );
    const graph = newGraph();
    const x = graph.input('x', 'float32', [2, 1]);
    graph.output('up', add(x, 1));
    graph.output('down', sub(x, 1));
    const both = await runtime.compile(graph);
    await expect(both.run({ x: good.past }, { up: fitting, down: fitting })).rejects.toThrow(
      'two of the outputs up, down are written into one tensor',
    );
    expect(await fitting.read()).toEqual(zeros('float32', [2, 1]));
  });

  it('refuses to run after it was disposed', async () => {
    const own = await compileSum();
    await own.dispose();
    await expect(own.run(good)).rejects.toThrow(/session \d+ was used after it was released/);
  });
});

describe('requests', () => {
  it('are served in the order in which they were made, without waiting in between', async () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', [3]);
    graph.output('next', add(x, 1));
    const program = await runtime.compile(graph);
    const counter = await runtime.allocate('float32', [3]);
    const step = (): Promise<unknown> => program.run({ x: counter }, { next: counter });
    const [, , afterTwo, , afterThree] = await Promise.all([
      step(),
      step(),
      counter.read(),
      step(),
      counter.read(),
      counter.write(f32([3], [7, 8, 9])),
      program.dispose(),
    ]);
    expect(afterTwo).toEqual(f32([3], [2, 2, 2]));
    expect(afterThree).toEqual(f32([3], [3, 3, 3]));
    expect(await counter.read()).toEqual(f32([3], [7, 8, 9]));
  });
});

describe('DeviceTensor', () => {
  it.each<[DType, readonly number[]]>([
    ['float32', [1.5, -2]],
    ['float64', [0.1, -2]],
    ['int32', [-1, 2 ** 31 - 1]],
    ['int64', [-1, 2 ** 40]],
    ['uint32', [0, 2 ** 32 - 1]],
    ['bool', [0, 1]],
  ])('holds %s', async (dtype, values) => {
    const content = tensor(dtype, [2, 1], values);
    const held = await runtime.upload(content);
    expect(await held.read()).toEqual(content);
    const graph = newGraph();
    graph.output('same', cast(graph.input('x', dtype, ['N', 1]), dtype));
    const program = await runtime.compile(graph);
    expect(await program.run({ x: held })).toEqual({ same: content });
    expect(await program.run({ x: content })).toEqual({ same: content });
  });

  it('starts as zeros and keeps what is written, which later changes of the source do not reach', async () => {
    const held = await runtime.allocate('float32', [2]);
    expect(await held.read()).toEqual(zeros('float32', [2]));
    expect(held.bytes).toBe(8);
    const source = Float32Array.of(1, 2);
    await held.write(wrap('float32', [2], source));
    source[0] = 9;
    const copy = await held.read();
    expect(copy).toEqual(f32([2], [1, 2]));
    (copy.data as Float32Array)[1] = 9;
    expect(await held.read()).toEqual(f32([2], [1, 2]));
  });

  it('refuses content of another dtype, shape, or count', async () => {
    const held = await runtime.allocate('float32', [2]);
    await expect(held.write(tensor('int32', [2], [1, 2]))).rejects.toThrow('int32(2) cannot replace float32(2)');
    await expect(held.write(f32([1, 2], [1, 2]))).rejects.toThrow('float32(1, 2) cannot replace float32(2)');
    await expect(held.write(wrap('float32', [2], Float32Array.of(1)))).rejects.toThrow('float32(2) holds 1 elements');
    await expect(runtime.upload(wrap('float32', [2], Float32Array.of(1)))).rejects.toThrow('holds 1 elements');
  });

  it('is read by rows', async () => {
    const held = await runtime.upload(f32([3, 2], [1, 2, 3, 4, 5, 6]));
    expect(await held.readRows(1, 2)).toEqual(f32([2, 2], [3, 4, 5, 6]));
    expect(await held.readRows(3, 0)).toEqual(f32([0, 2], []));
    await expect(held.readRows(2, 2)).rejects.toThrow('rows 2 to 4 are not all in float32(3, 2)');
    await expect(held.readRows(-1, 1)).rejects.toThrow(RangeError);
  });

  it('is fed and written by its first rows, which are the same memory', async () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', ['B', 2]);
    graph.output('double', mul(x, 2));
    const program = await runtime.compile(graph);
    const held = await runtime.upload(f32([3, 2], [1, 2, 3, 4, 5, 6]));
    const part = held.rows(2);
    await program.run({ x: part }, { double: part });
    expect(await held.read()).toEqual(f32([3, 2], [2, 4, 6, 8, 5, 6]));
    expect(await part.read()).toEqual(f32([2, 2], [2, 4, 6, 8]));
    await expect(part.dispose()).rejects.toThrow('float32(2, 2) is part of another tensor');
    expect(() => held.rows(4)).toThrow('rows 0 to 4 are not all in float32(3, 2)');
  });

  it('is fed, written and read by parts from any element on, which are the same memory', async () => {
    const graph = newGraph();
    const [x, y] = [graph.input('x', 'float32', ['N']), graph.input('y', 'float32', ['M'])];
    graph.output('double', mul(x, 2));
    graph.output('triple', mul(y, 3));
    const program = await runtime.compile(graph);
    const held = await runtime.upload(f32([3, 2], [1, 2, 3, 4, 5, 6]));
    const [first, second] = [held.part(1, 2), held.part(3, 2)];
    await program.run({ x: first, y: second }, { double: first, triple: second });
    expect(await held.read()).toEqual(f32([3, 2], [1, 4, 6, 12, 15, 6]));
    expect(await second.read()).toEqual(f32([2], [12, 15]));
    expect(await held.readPart(4, 2)).toEqual(f32([2], [15, 6]));
    await expect(program.run({ x: first, y: second }, { double: first, triple: held.part(2, 2) })).rejects.toThrow(
      'are written into one tensor',
    );
    await expect(second.write(f32([2], [0, 0]))).rejects.toThrow('float32(2) is part of another tensor');
    await expect(runtime.clear([second])).rejects.toThrow('float32(2) is a later part of another tensor');
    expect(() => held.part(5, 2)).toThrow('2 elements from 5 are not all in float32(3, 2)');
  });

  it('is cleared, and takes a tensor over that is given away', async () => {
    const given = f32([2], [1, NaN]);
    const held = await runtime.upload(given, { move: true });
    expect(given.data.byteLength).toBe(0);
    expect(await held.read()).toEqual(f32([2], [1, NaN]));
    await runtime.clear([held]);
    expect(await held.read()).toEqual(f32([2], [0, 0]));
  });

  it('is written by a run that makes no copy of it', async () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', ['N']);
    graph.output('next', add(x, 1));
    graph.output('sum', reduceSum(x));
    const program = await runtime.compile(graph);
    const held = await runtime.allocate('float32', [2 ** 22]);
    const { rss } = process.memoryUsage();
    for (let i = 0; i < 20; i++) await program.run({ x: held }, { next: held });
    expect((process.memoryUsage().rss - rss) / 2 ** 20).toBeLessThan(100); // 20 copies are 320 MiB
    expect(await held.readPart(2 ** 22 - 1, 1)).toEqual(f32([1], [20]));
    await held.dispose();
  });

  it('is copied in blocks, to another or within itself', async () => {
    const [from, to] = [await runtime.upload(f32([2, 3], [1, 2, 3, 4, 5, 6])), await runtime.allocate('float32', [4])];
    const blocks = [
      { from: 4, to: 0, length: 2 },
      { from: 0, to: 3, length: 1 },
    ];
    await runtime.copy([[from, to]], blocks);
    expect(await to.read()).toEqual(f32([4], [5, 6, 0, 1]));
    await runtime.copy([[from, from]], [{ from: 0, to: 1, length: 3 }]);
    expect(await from.read()).toEqual(f32([2, 3], [1, 1, 2, 3, 5, 6]));
    await expect(runtime.copy([[from, to]], [{ from: 0, to: 2, length: 3 }])).rejects.toThrow(
      '3 elements from 0 of float32(2, 3) do not fit at 2 of float32(4)',
    );
    const whole = await runtime.allocate('int32', [4]);
    await expect(runtime.copy([[whole, to]], [])).rejects.toThrow('int32(4) cannot be copied into float32(4)');
  });

  it('cannot be read, written or fed after it was disposed', async () => {
    const graph = newGraph();
    graph.output('y', add(graph.input('x', 'float32', [2]), 1));
    const program = await runtime.compile(graph);
    const held = await runtime.allocate('float32', [2]);
    const other = await runtime.allocate('float32', [2]);
    await held.dispose();
    const message = /tensor \d+ was used after it was freed/;
    await expect(held.read()).rejects.toThrow(message);
    await expect(held.write(f32([2], [1, 2]))).rejects.toThrow(message);
    await expect(program.run({ x: held })).rejects.toThrow(message);
    await expect(program.run({ x: other }, { y: held })).rejects.toThrow(message);
  });

  it('is refused by another runtime', async () => {
    const elsewhere = new Runtime({ threads: 1 });
    const graph = newGraph();
    graph.output('y', add(graph.input('x', 'float32', [2]), 1));
    const program = await elsewhere.compile(graph);
    const held = await runtime.allocate('float32', [2]);
    await expect(program.run({ x: held })).rejects.toThrow('float32(2) lives in another runtime');
    await elsewhere.close();
  });
});

describe('an update in place', () => {
  it('equals the one with separate buffers, over several steps', async () => {
    // A momentum step: m' = 0.9 m + g, v' = 0.5 v + g², w' = w − 0.1 m' / (√v' + ε)
    const graph = newGraph();
    const [w, m, v, g] = ['w', 'm', 'v', 'g'].map((name) => graph.input(name, 'float32', ['N', 8]));
    const momentum = graph.output('new_m', add(mul(m!, 0.9), g!));
    const energy = graph.output('new_v', add(mul(v!, 0.5), mul(g!, g!)));
    graph.output('new_w', sub(w!, mul(div(momentum, add(sqrt(energy), 1e-6)), 0.1)));
    const program = await runtime.compile(graph);

    const shape = [257, 8];
    const random = stream(3);
    const draw = (): Tensor =>
      wrap(
        'float32',
        shape,
        Float32Array.from({ length: 257 * 8 }, () => random.normal()),
      );
    const start = { w: draw(), m: zeros('float32', shape), v: zeros('float32', shape) };
    const [heldW, heldM, heldV] = await Promise.all([start.w, start.m, start.v].map((each) => runtime.upload(each)));
    let separate: Record<string, Tensor> = { new_w: start.w, new_m: start.m, new_v: start.v };
    for (let step = 0; step < 4; step++) {
      const gradient = draw();
      separate = await program.run({
        w: separate['new_w']!,
        m: separate['new_m']!,
        v: separate['new_v']!,
        g: gradient,
      });
      const back = await program.run(
        { w: heldW!, m: heldM!, v: heldV!, g: gradient },
        { new_w: heldW!, new_m: heldM!, new_v: heldV! },
      );
      expect(back).toEqual({});
    }
    expect(await heldW!.read()).toEqual(separate['new_w']);
    expect(await heldM!.read()).toEqual(separate['new_m']);
    expect(await heldV!.read()).toEqual(separate['new_v']);
  });

  it('reaches the target also where the output is an input as it is, or another output', async () => {
    const graph = newGraph();
    const x = graph.input('x', 'float32', [2]);
    const y = mul(x, 3);
    graph.output('same', x);
    graph.output('y', y);
    graph.output('again', y);
    const program = await runtime.compile(graph);
    const [same, once, again] = await Promise.all([1, 2, 3].map(() => runtime.allocate('float32', [2])));
    await program.run({ x: f32([2], [1, 2]) }, { same: same!, y: once!, again: again! });
    expect(await same!.read()).toEqual(f32([2], [1, 2]));
    expect(await once!.read()).toEqual(f32([2], [3, 6]));
    expect(await again!.read()).toEqual(f32([2], [3, 6]));
  });
});
