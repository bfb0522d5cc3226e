import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it } from 'vitest';
import { readHeader } from '../checkpoints/safetensors.js';
import { sourceOfArray, writeSafetensors } from '../checkpoints/safetensors-writer.js';
import { wrap } from '../graph/tensor.js';
import { int8Names, ModelContext, multiply } from '../nn/context.js';
import { newGraph } from '../ops/registry.js';
import { Runtime } from './runtime.js';

const [ROWS, INNER, OUTER] = [3, 96, 64];
const NAME = 'matrix';

it('sums the largest products of 8 bits exactly', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'duanzi-integers-'));
  const runtime = new Runtime({ threads: 1 });
  try {
    const names = int8Names(NAME);
    const file = path.join(folder, 'model.safetensors');
    const all = new Int8Array(INNER * OUTER).fill(127);
    await writeSafetensors(file, [
      sourceOfArray(names.inputScale, 'F32', [INNER], new Float32Array(INNER).fill(1)),
      sourceOfArray(names.outputScale, 'F32', [OUTER], new Float32Array(OUTER).fill(1)),
      sourceOfArray(names.inputOutliers, 'I32', [0], new Int32Array(0)),
      sourceOfArray(names.outputOutliers, 'I32', [0], new Int32Array(0)),
      sourceOfArray(names.transposed, 'I8', [OUTER, INNER], all),
      sourceOfArray(names.weight, 'I8', [INNER, OUTER], all),
    ]);
    const context = new ModelContext(newGraph(), { quantization: 'int8' });
    const x = context.graph.input('x', 'float32', [ROWS, INNER]);
    context.graph.output('y', multiply(x, context.linearWeight(NAME, [OUTER, INNER])));
    const program = await runtime.compile(context.graph, (await readHeader(file)).tensors);
    const { y } = await program.run({ x: wrap('float32', [ROWS, INNER], new Float32Array(ROWS * INNER).fill(127)) });
    expect(new Set(y!.data as Float32Array)).toEqual(new Set([INNER * 127 * 127]));
  } finally {
    await runtime.close();
    await rm(folder, { recursive: true });
  }
});
