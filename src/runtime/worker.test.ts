import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { tensor, zeros, type Tensor } from '../graph/tensor.js';
import { add, matmul } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';
import { Runtime, type Program } from './runtime.js';

const SIZE = 512;

/** Products that keep a core busy for some hundred milliseconds. */
async function compileLong(runtime: Runtime): Promise<{ program: Program; feeds: Record<string, Tensor> }> {
  const graph = newGraph();
  let x = graph.input('x', 'float32', [SIZE, SIZE]);
  const step = graph.input('step', 'float32', [SIZE, SIZE]);
  for (let product = 0; product < 200; product++) x = matmul(x, step);
  graph.output('y', x);
  return {
    program: await runtime.compile(graph),
    feeds: { x: zeros('float32', [SIZE, SIZE]), step: zeros('float32', [SIZE, SIZE]) },
  };
}

describe('the worker', () => {
  it('leaves the main thread free while it computes', async () => {
    const runtime = new Runtime({ threads: 1 });
    const { program, feeds } = await compileLong(runtime);
    let longestGap = 0;
    let last = performance.now();
    const timer = setInterval(() => {
      longestGap = Math.max(longestGap, performance.now() - last);
      last = performance.now();
    }, 5);
    const started = performance.now();
    last = started;
    await program.run(feeds);
    const elapsed = performance.now() - started;
    longestGap = Math.max(longestGap, performance.now() - last);
    clearInterval(timer);
    expect(longestGap).toBeLessThan(elapsed / 2);
    await runtime.close();
  });

  it('gives up what it was asked when it is closed, and takes nothing after', async () => {
    const runtime = new Runtime({ threads: 1 });
    const { program, feeds } = await compileLong(runtime);
    const held = await runtime.upload(zeros('float32', [2]));
    const pending = [program.run(feeds), program.run(feeds), held.read()].map((call) =>
      expect(call).rejects.toThrow('the runtime was closed'),
    );
    await runtime.close();
    await Promise.all(pending);
    await expect(held.read()).rejects.toThrow('the runtime was closed');
    await expect(runtime.allocate('float32', [2])).rejects.toThrow('the runtime was closed');
    await runtime.close();
  });

  it('answers on after a request that failed', async () => {
    const runtime = new Runtime({ threads: 1 });
    const graph = newGraph();
    graph.output('y', add(graph.input('x', 'float32', [2]), 1));
    const program = await runtime.compile(graph);
    const freed = await runtime.allocate('float32', [2]);
    await freed.dispose();
    const [failed, worked] = await Promise.allSettled([
      program.run({ x: freed }),
      program.run({ x: tensor('float32', [2], [1, 2]) }),
    ]);
    expect(failed.status).toBe('rejected');
    expect(worked).toEqual({ status: 'fulfilled', value: { y: tensor('float32', [2], [2, 3]) } });
    await runtime.close();
  });
});

describe('a process', () => {
  const run = promisify(execFile);
  const moduleOf = (file: string): string => JSON.stringify(new URL(file, import.meta.url).href);
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'process-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  /** Runs a module that has a `runtime`, from a folder of its own. */
  async function outputOf(name: string, body: string): Promise<string> {
    const file = path.join(folder, name);
    await writeFile(
      file,
      `import { Runtime } from ${moduleOf('./runtime.ts')};\nconst runtime = new Runtime({ threads: 1 });\n${body}`,
    );
    const tsx = import.meta.resolve('tsx');
    const { stdout } = await run(process.execPath, ['--import', tsx, file], { cwd: folder, timeout: 60_000 });
    return stdout;
  }

  it('ends although a runtime is idle, and not before its requests are answered', async () => {
    const body = `
      const held = await runtime.upload({ dtype: 'float32', shape: [2], data: Float32Array.of(1, 2) });
      console.log((await held.read()).data.join());`;
    expect(await outputOf('idle.mts', body)).toBe('1,2\n');
  });

  it.each([
    ['when it is told to', 'process.exit(7)', 7],
    ['by an error that nobody catches', 'throw new Error("mine")', 1],
  ])('ends cleanly %s while a runtime computes', async (_, end, code) => {
    const body = `
      import { matmul } from ${moduleOf('../ops/build.ts')};
      import { newGraph } from ${moduleOf('../ops/registry.ts')};
      const graph = newGraph();
      let x = graph.input('x', 'float32', [512, 512]);
      for (let product = 0; product < 100; product++) x = matmul(x, x);
      graph.output('y', x);
      const program = await runtime.compile(graph);
      const feed = { dtype: 'float32', shape: [512, 512], data: new Float32Array(512 * 512) };
      void program.run({ x: feed });
      void program.run({ x: feed });
      setTimeout(() => { ${end}; }, 20);`;
    const ended: unknown = await outputOf('busy.mts', body).catch((error: unknown) => error);
    expect(ended).toMatchObject({ code, signal: null });
    expect(ended).toHaveProperty('stderr', expect.not.stringContaining('terminate'));
  });

  it('ends when a runtime was never used', async () => {
    expect(await outputOf('unused.mts', `console.log('done');`)).toBe('done\n');
  });
});
