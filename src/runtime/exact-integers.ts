import { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import { encodeModel, onnxTypes } from '../onnx/schema.js';

const [ROWS, INNER, COLUMNS] = [8, 64, 32];
const LARGEST = { left: 255, right: 127 };

/**
 * Whether products of unsigned and signed 8-bit integers come out exact as the runtime multiplies them by itself. On a
 * processor without VNNI sums of two products saturate at 16 bits; there it can be told to take another kernel, which on
 * one with VNNI is less than half as fast. The largest possible product tells.
 */
export async function integerProductsAreExact(): Promise<boolean> {
  const right = new Int8Array(INNER * COLUMNS).fill(LARGEST.right);
  const valueInfo = (name: string, elemType: number, sizes: readonly number[]) => ({
    name,
    type: { tensorType: { elemType, shape: { dim: sizes.map((dimValue) => ({ dimValue })) } } },
  });
  const model = encodeModel({
    irVersion: 10,
    producerName: 'duanzi',
    opsetImport: [{ domain: '', version: 21 }],
    graph: {
      name: 'largest_product',
      node: [{ opType: 'MatMulInteger', name: 'product', input: ['left', 'right'], output: ['product'] }],
      initializer: [{ name: 'right', dims: [INNER, COLUMNS], dataType: onnxTypes.int8, rawData: right }],
      input: [valueInfo('left', onnxTypes.uint8, [ROWS, INNER])],
      output: [valueInfo('product', onnxTypes.int32, [ROWS, COLUMNS])],
    },
  });
  const session = await InferenceSession.create(model, { intraOpNumThreads: 1, logSeverityLevel: 4 });
  try {
    const left = new Uint8Array(ROWS * INNER).fill(LARGEST.left);
    const { product } = await session.run({ left: new OrtTensor('uint8', left, [ROWS, INNER]) });
    return (product!.data as Int32Array).every((sum) => sum === INNER * LARGEST.left * LARGEST.right);
  } finally {
    await session.release();
  }
}
