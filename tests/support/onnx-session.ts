import { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import type { Graph } from '../../src/graph/graph.js';
import type { DType, Tensor } from '../../src/graph/tensor.js';
import { emit } from '../../src/onnx/emit.js';

/**
 * Runs a graph once on the CPU provider, emitted for whatever device: emission may differ from device to device, what
 * it computes may not.
 */
export async function runEmitted(
  graph: Graph,
  device: string,
  feeds: Readonly<Record<string, Tensor>>,
): Promise<Record<string, Tensor>> {
  const { bytes } = emit(graph, { device });
  const session = await InferenceSession.create(bytes, {
    executionProviders: ['cpu'],
    intraOpNumThreads: 1,
    logSeverityLevel: 3,
  });
  try {
    const results = await session.run(
      Object.fromEntries(
        Object.entries(feeds).map(([name, { dtype, data, shape }]) => [
          name,
          new OrtTensor(dtype, data as never, shape),
        ]),
      ),
    );
    return Object.fromEntries(
      Object.entries(results).map(([name, { type, data, dims }]) => [
        name,
        { dtype: type as DType, shape: dims, data: (data as Float32Array).slice() },
      ]),
    );
  } finally {
    await session.release();
  }
}
