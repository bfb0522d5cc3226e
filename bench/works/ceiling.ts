import { join } from 'node:path';
import { readHeader } from '../../src/checkpoints/safetensors.js';
import { sourceOfFloats, writeSafetensors } from '../../src/checkpoints/safetensors-writer.js';
import { wrap, type Tensor } from '../../src/graph/tensor.js';
import { matmul } from '../../src/ops/build.js';
import { newGraph } from '../../src/ops/registry.js';
import { stream } from '../../src/random.js';
import { Runtime } from '../../src/runtime/runtime.js';
import { timed, type Setup, type Work } from '../work.js';

/** Products between two looks at the clock, so that one look covers some tenths of a second. */
const PRODUCTS = 4;

/** The runtime's float32 matrix product at a size where it is at its best: (512, 2048) · (2048, 6144), constant right side. */
export async function ceiling({ threads, quick, scratch }: Setup): Promise<Work> {
  const [rows, inner, columns] = quick ? [64, 256, 768] : [512, 2048, 6144];
  const runtime = new Runtime({ threads });
  const file = join(scratch, 'ceiling.safetensors');
  await writeSafetensors(file, [sourceOfFloats('right', filled([inner, columns]))]);
  const graph = newGraph();
  const left = graph.input('left', 'float32', [rows, inner]);
  graph.output('product', matmul(left, graph.parameter('right', 'float32', [inner, columns])));
  const program = await runtime.compile(graph, (await readHeader(file)).tensors);
  const feeds = { left: await runtime.upload(filled([rows, inner])) };
  const into = { product: await runtime.allocate('float32', [rows, columns]) };
  return {
    description: `MatMul ${rows}×${inner}×${columns} in float32`,
    once: async () => ({
      seconds: await timed(async () => {
        for (let i = 0; i < PRODUCTS; i++) await program.run(feeds, into);
      }),
      flops: PRODUCTS * 2 * rows * inner * columns,
      amounts: { products: PRODUCTS },
    }),
  };
}

function filled(shape: readonly [number, number]): Tensor<'float32'> {
  const random = stream(0, 'ceiling', ...shape);
  return wrap(
    'float32',
    shape,
    Float32Array.from({ length: shape[0] * shape[1] }, () => random.uniform() - 0.5),
  );
}
