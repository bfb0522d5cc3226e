import { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import { elementCount, zeros, type DType, type Tensor } from '../graph/tensor.js';
import { encodeModel, onnxTypes } from '../onnx/schema.js';
import { fromOrt, Handles, toOrt, type Memory, type Run } from './memory.js';
import type { CopiedBlock, Held } from './protocol.js';

interface Buffer {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly ort: OrtTensor;
}

interface HelperNode {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly output: string;
}

/**
 * Buffers of the GPU, which every session of the process can read and write in place. The runtime's binding has no
 * calls to fill, read or copy a buffer, so small models do: on tensors of any rank, one session a dtype.
 */
export class GpuMemory implements Memory {
  readonly #held = new Handles<Buffer>();
  readonly #helpers = new Map<string, Promise<InferenceSession>>();

  constructor(private readonly device: string) {}

  async put(tensor: Tensor): Promise<number> {
    const { dtype, shape } = tensor;
    if (dtype === 'uint8') return this.#putBytes(tensor as Tensor<'uint8'>);
    const upload = await this.#identity(dtype, 'gpu-buffer');
    const { y } = await upload.run({ x: toOrt(tensor) });
    return this.#held.keep({ dtype, shape, ort: y! });
  }

  /** Bytes, which no kernel copies: as words, which fill a buffer alike. */
  async #putBytes({ dtype, shape, data }: Tensor<'uint8'>): Promise<number> {
    const words = new Int32Array(Math.ceil(data.length / 4));
    new Uint8Array(words.buffer).set(data);
    const upload = await this.#identity('int32', 'gpu-buffer');
    const { y } = await upload.run({ x: toOrt({ dtype: 'int32', shape: [words.length], data: words }) });
    const ort = view({ dtype, shape, ort: y! }, shape);
    return this.#held.keep({ dtype, shape, ort });
  }

  async allocate(dtype: DType, shape: readonly number[]): Promise<number> {
    return this.put(zeros(dtype, shape));
  }

  operand({ handle, start, shape }: Held): OrtTensor {
    if (start !== 0) throw new Error('a part of a buffer of the GPU is no operand, unless it is the first');
    const buffer = this.#held.at(handle);
    return shape.join() === buffer.shape.join() ? buffer.ort : view(buffer, shape);
  }

  async elements(handle: number, start: number, count: number): Promise<Float32Array> {
    return (await this.get(handle, [start], [count])).data as Float32Array;
  }

  async get(handle: number, starts: readonly number[], shape: readonly number[]): Promise<Tensor> {
    const buffer = this.#held.at(handle);
    const [start = 0] = starts;
    if (starts.length > 1) {
      const length = elementCount(shape) / starts.length;
      const read = starts.flatMap((first) => Array.from({ length }, (_, i) => first + i));
      const { y } = await (await this.#gather(buffer.dtype)).run({ x: flat(buffer), read: integers('int32', read) });
      return { ...taken(y!), shape };
    }
    if (start === 0) {
      const { y } = await (await this.#identity(buffer.dtype)).run({ x: this.operand({ handle, start, shape }) });
      return taken(y!);
    }
    const end = start + elementCount(shape);
    const ends = { start: integers('int64', [start]), end: integers('int64', [end]) };
    const { y } = await (await this.#slice(buffer.dtype)).run({ x: flat(buffer), ...ends });
    return { ...taken(y!), shape };
  }

  async set(handle: number, tensor: Tensor): Promise<void> {
    await (await this.#identity(tensor.dtype)).run({ x: toOrt(tensor) }, { y: this.#held.at(handle).ort });
  }

  async clear(handle: number): Promise<void> {
    const { dtype, shape } = this.#held.at(handle);
    await this.set(handle, zeros(dtype, shape));
  }

  async copy(pairs: readonly (readonly [number, number])[], blocks: readonly CopiedBlock[]): Promise<void> {
    const count = blocks.reduce((sum, { length }) => sum + length, 0);
    if (count === 0) return;
    const indices = (side: 'from' | 'to'): OrtTensor =>
      integers(
        'int32',
        blocks.flatMap((block) => Array.from({ length: block.length }, (_, i) => block[side] + i)),
      );
    const [read, written] = [indices('from'), indices('to')];
    for (const [source, target] of pairs) {
      const [from, to] = [this.#held.at(source), this.#held.at(target)];
      const all = flat(to);
      await (await this.#scatter(to.dtype)).run({ from: flat(from), to: all, read, written }, { y: all });
    }
  }

  free(handle: number): void {
    this.#held.delete(handle)?.ort.dispose();
  }

  async run(session: InferenceSession, { feeds, into, fetch }: Run): Promise<Record<string, Tensor>> {
    const names = Object.keys(fetch);
    const results = await session.run(feeds, { ...into, ...Object.fromEntries(names.map((name) => [name, null])) });
    return Object.fromEntries(names.map((name) => [name, taken(results[name]!)]));
  }

  /** y = x, on the device or in the process's memory. */
  async #identity(dtype: DType, location: 'gpu-buffer' | 'cpu' = 'cpu'): Promise<InferenceSession> {
    return this.#helper(`identity ${location}`, dtype, { x: dtype }, [{ op: 'Identity', inputs: ['x'], output: 'y' }]);
  }

  async #slice(dtype: DType): Promise<InferenceSession> {
    const inputs = { x: dtype, start: 'int64', end: 'int64' } as const;
    return this.#helper('slice', dtype, inputs, [{ op: 'Slice', inputs: ['x', 'start', 'end'], output: 'y' }]);
  }

  async #gather(dtype: DType): Promise<InferenceSession> {
    const inputs = { x: dtype, read: 'int32' } as const;
    return this.#helper('gather', dtype, inputs, [{ op: 'Gather', inputs: ['x', 'read'], output: 'y' }]);
  }

  /** y = to, with from[read] at the positions `written`. */
  async #scatter(dtype: DType): Promise<InferenceSession> {
    const inputs = { from: dtype, to: dtype, read: 'int32', written: 'int32' } as const;
    return this.#helper('scatter', dtype, inputs, [
      { op: 'Gather', inputs: ['from', 'read'], output: 'copied' },
      { op: 'ScatterElements', inputs: ['to', 'written', 'copied'], output: 'y' },
    ]);
  }

  async #helper(
    kind: string,
    dtype: DType,
    inputs: Readonly<Record<string, DType>>,
    nodes: readonly HelperNode[],
  ): Promise<InferenceSession> {
    const key = `${kind} ${dtype}`;
    let session = this.#helpers.get(key);
    if (session === undefined) {
      session = InferenceSession.create(helperModel(inputs, nodes, dtype), {
        executionProviders: [this.device],
        logSeverityLevel: 4,
        ...(kind.endsWith('gpu-buffer') && { preferredOutputLocation: 'gpu-buffer' as const }),
      });
      this.#helpers.set(key, session);
    }
    return session;
  }
}

function helperModel(inputs: Readonly<Record<string, DType>>, nodes: readonly HelperNode[], dtype: DType): Uint8Array {
  const typed = (name: string, type: DType): unknown => ({ name, type: { tensorType: { elemType: onnxTypes[type] } } });
  return encodeModel({
    irVersion: 10,
    opsetImport: [{ domain: '', version: 21 }],
    graph: {
      name: 'helper',
      node: nodes.map(({ op, inputs: names, output }) => ({ opType: op, name: op, input: names, output: [output] })),
      input: Object.entries(inputs).map(([name, type]) => typed(name, type)),
      output: [typed('y', dtype)],
    },
  });
}

/** The first elements of a buffer in another shape: its memory. */
const view = ({ dtype, ort }: Buffer, shape: readonly number[]): OrtTensor =>
  OrtTensor.fromGpuBuffer(ort.gpuBuffer, { dataType: dtype as 'float32', dims: [...shape] });

const flat = (buffer: Buffer): OrtTensor => view(buffer, [elementCount(buffer.shape)]);

function integers(dtype: 'int32' | 'int64', values: readonly number[]): OrtTensor {
  const shape = [values.length];
  if (dtype === 'int32') return new OrtTensor(dtype, Int32Array.from(values), shape);
  return new OrtTensor(dtype, BigInt64Array.from(values, BigInt), shape);
}

function taken(value: OrtTensor): Tensor {
  const tensor = fromOrt(value);
  value.dispose();
  return tensor;
}
