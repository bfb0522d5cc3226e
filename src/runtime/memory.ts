import { Tensor as OrtTensor, type InferenceSession } from 'onnxruntime-node';
import { elementCount, zeros, type DType, type Tensor, type TypedArrays } from '../graph/tensor.js';
import { NO_TENSOR } from '../onnx/emit.js';
import type { CopiedBlock, Held, Request } from './protocol.js';

/** How the binding refuses to hand out what is no tensor; the run is over then, and its outputs are written. */
const NO_TENSOR_REFUSED = 'Non tensor type is temporarily not supported.';

/** Where tensors live between runs, by the handles that the calling side knows them by. */
export interface Memory {
  /** Takes a tensor in. */
  put(tensor: Tensor): Promise<number>;
  /** A tensor of zeros. */
  allocate(dtype: DType, shape: readonly number[]): Promise<number>;
  /** As an operand or target of a run: all of it, or elements of it; its memory, not a copy. */
  operand(held: Held): OrtTensor;
  /** So many elements of a float32 tensor: its memory, where that can be read, to be read at once. */
  elements(handle: number, start: number, count: number): Promise<Float32Array>;
  /** A copy of as many elements from each start on as together fill the shape. */
  get(handle: number, starts: readonly number[], shape: readonly number[]): Promise<Tensor>;
  set(handle: number, tensor: Tensor): Promise<void>;
  /** Makes all elements 0. */
  clear(handle: number): Promise<void>;
  copy(pairs: readonly (readonly [from: number, to: number])[], blocks: readonly CopiedBlock[]): Promise<void>;
  free(handle: number): void;
  /** Runs a session, and gives the outputs that are not written into tensors here. */
  run(session: InferenceSession, run: Run): Promise<Record<string, Tensor>>;
}

/** A run of a session with operands and targets at hand. */
export interface Run {
  readonly feeds: Readonly<Record<string, OrtTensor>>;
  readonly into: Readonly<Record<string, OrtTensor>>;
  readonly fetch: (Request & { kind: 'run' })['fetch'];
}

export const toOrt = ({ dtype, data, shape }: Tensor): OrtTensor => new OrtTensor(dtype, data as never, shape);

/** Copies out of memory that the runtime may own, so that the copy can be transferred. */
export const fromOrt = (value: OrtTensor): Tensor => ({
  dtype: value.type as DType,
  shape: value.dims,
  data: (value.data as Float32Array).slice(),
});

/** Values by the numbers that they are given. */
export class Handles<T> {
  readonly #values = new Map<number, T>();
  #last = 0;

  keep(value: T): number {
    this.#values.set(++this.#last, value);
    return this.#last;
  }

  at(handle: number): T {
    const value = this.#values.get(handle);
    if (value === undefined) throw new Error(`tensor ${handle} was used after it was freed`);
    return value;
  }

  delete(handle: number): T | undefined {
    const value = this.#values.get(handle);
    this.#values.delete(handle);
    return value;
  }
}

/** `length` elements from `start` of a tensor that lives here: a view, not a copy. */
const part = <D extends DType>({ data }: Tensor<D>, start: number, length: number): TypedArrays[D] =>
  data.subarray(start, start + length) as TypedArrays[D];

/** The process's own memory, which runs read and write in place. */
export class HostMemory implements Memory {
  readonly #held = new Handles<{ readonly tensor: Tensor; readonly ort: OrtTensor }>();

  async put(tensor: Tensor): Promise<number> {
    return Promise.resolve(this.#held.keep({ tensor, ort: toOrt(tensor) }));
  }

  async allocate(dtype: DType, shape: readonly number[]): Promise<number> {
    return this.put(zeros(dtype, shape));
  }

  operand({ handle, start, shape }: Held): OrtTensor {
    const { tensor, ort } = this.#held.at(handle);
    const length = elementCount(shape);
    if (length === tensor.data.length) return ort;
    return toOrt({ dtype: tensor.dtype, shape, data: part(tensor, start, length) });
  }

  async elements(handle: number, start: number, count: number): Promise<Float32Array> {
    return Promise.resolve(part(this.#held.at(handle).tensor, start, count) as Float32Array);
  }

  async get(handle: number, starts: readonly number[], shape: readonly number[]): Promise<Tensor> {
    const { tensor } = this.#held.at(handle);
    const copy = zeros(tensor.dtype, shape);
    const length = starts.length === 0 ? 0 : copy.data.length / starts.length;
    for (const [i, start] of starts.entries()) copy.data.set(part(tensor, start, length) as never, i * length);
    return Promise.resolve(copy);
  }

  async set(handle: number, { data }: Tensor): Promise<void> {
    this.#held.at(handle).tensor.data.set(data as never);
    return Promise.resolve();
  }

  async clear(handle: number): Promise<void> {
    this.#held.at(handle).tensor.data.fill(0 as never);
    return Promise.resolve();
  }

  async copy(pairs: readonly (readonly [number, number])[], blocks: readonly CopiedBlock[]): Promise<void> {
    for (const [source, target] of pairs) {
      const [from, to] = [this.#held.at(source).tensor, this.#held.at(target).tensor.data];
      for (const block of blocks) to.set(part(from, block.from, block.length) as never, block.to);
    }
    return Promise.resolve();
  }

  free(handle: number): void {
    this.#held.delete(handle);
  }

  /** All outputs are given memory to be written into, and none is copied out of it afterwards. */
  async run(session: InferenceSession, { feeds, into, fetch }: Run): Promise<Record<string, Tensor>> {
    const made = Object.entries(fetch).map(([name, { dtype, shape }]) => [name, zeros(dtype, shape)] as const);
    const own = Object.fromEntries(made.map(([name, tensor]) => [name, toOrt(tensor)]));
    try {
      await session.run(feeds, { ...into, ...own, [NO_TENSOR]: null });
    } catch (error) {
      if (!(error instanceof Error) || error.message !== NO_TENSOR_REFUSED) throw error;
    }
    return Object.fromEntries(made);
  }
}
