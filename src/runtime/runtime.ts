import { availableParallelism } from 'node:os';
import path from 'node:path';
import type { Device } from '../config/common.js';
import { evaluateDim, formatShape } from '../graph/dim.js';
import type { Graph, TensorType } from '../graph/graph.js';
import { bytesPerElement, elementCount, type DType, type Tensor } from '../graph/tensor.js';
import { emit } from '../onnx/emit.js';
import { WorkerHost } from './host.js';
import type { PrecedingQuery } from './preceding.js';
import type { CopiedBlock, Held, Operand, Placement } from './protocol.js';
import { bindWeights, residentWeights, withWorkingDirectory, type StoredTensor } from './external.js';

export type { StoredTensor } from './external.js';
export type { CopiedBlock } from './protocol.js';

/** A tensor that lives where the computation does; it stays there between runs until disposed. */
export class DeviceTensor {
  constructor(
    readonly dtype: DType,
    readonly shape: readonly number[],
    private readonly handle: number,
    private readonly host: WorkerHost,
    /** Where it begins in the tensor that it is a view of. */
    private readonly start?: number,
  ) {}

  /** A copy of its present content. */
  async read(): Promise<Tensor> {
    return this.#get([0], this.shape);
  }

  /** A copy of `count` elements from element `first`, in row-major order. */
  async readPart(first: number, count: number): Promise<Tensor> {
    requireElements(this, first, count);
    return this.#get([first], [count]);
  }

  /** A copy of `count` rows of the first axis, from row `first`. */
  async readRows(first: number, count: number): Promise<Tensor> {
    requireRows(this, first, count);
    const rest = this.shape.slice(1);
    return this.#get([first * elementCount(rest)], [count, ...rest]);
  }

  /** Copies of parts, (starts, length): so many elements from each start on, counted in row-major order. */
  async readParts(starts: readonly number[], length: number): Promise<Tensor> {
    for (const start of starts) requireElements(this, start, length);
    return this.#get(starts, [starts.length, length]);
  }

  /**
   * Whether the elements before one, in falling order, have together less than a mass: for each query among `length`
   * elements of a float32 tensor, which stay where they are.
   */
  async precededByLess(queries: readonly PrecedingQuery[], length: number): Promise<boolean[]> {
    if (this.dtype !== 'float32') throw new RangeError(`${describe(this)} is not float32`);
    for (const { start } of queries) requireElements(this, start, length);
    const own = queries.map((query) => ({ ...query, start: (this.start ?? 0) + query.start }));
    return this.host.call({ kind: 'preceding', handle: this.handle, length, queries: own });
  }

  /** The first `count` rows of the first axis, as a tensor that shares their memory and is freed with this one. */
  rows(count: number): DeviceTensor {
    requireRows(this, 0, count);
    return new DeviceTensor(this.dtype, [count, ...this.shape.slice(1)], this.handle, this.host, this.start ?? 0);
  }

  /** `count` elements from element `first` in row-major order, as a vector that shares their memory; see `hasParts`. */
  part(first: number, count: number): DeviceTensor {
    requireElements(this, first, count);
    return new DeviceTensor(this.dtype, [count], this.handle, this.host, (this.start ?? 0) + first);
  }

  /** Overwrites the content with that of a tensor of the same dtype and shape. */
  async write(tensor: Tensor): Promise<void> {
    if (tensor.dtype !== this.dtype || tensor.shape.join() !== this.shape.join()) {
      throw new RangeError(`${describe(tensor)} cannot replace ${describe(this)}`);
    }
    if (this.start !== undefined)
      throw new RangeError(`${describe(this)} is part of another tensor, which alone is written`);
    await this.host.call({ kind: 'set', handle: this.handle, tensor: sendable(tensor) });
  }

  /** How it is named there; throws RangeError when it lives in another runtime, where handles mean other tensors. */
  heldIn(host: WorkerHost): Held {
    if (host !== this.host) throw new RangeError(`${describe(this)} lives in another runtime`);
    return { handle: this.handle, start: this.start ?? 0, shape: this.shape };
  }

  get bytes(): number {
    return elementCount(this.shape) * bytesPerElement(this.dtype);
  }

  async dispose(): Promise<void> {
    if (this.start !== undefined) {
      throw new Error(`${describe(this)} is part of another tensor, which alone can be freed`);
    }
    await this.host.call({ kind: 'free', handle: this.handle });
  }

  async #get(starts: readonly number[], shape: readonly number[]): Promise<Tensor> {
    const own = starts.map((start) => (this.start ?? 0) + start);
    return this.host.call({ kind: 'get', handle: this.handle, starts: own, shape });
  }
}

function requireElements(
  tensor: TensorType & { readonly shape: readonly number[] },
  first: number,
  count: number,
): void {
  if (!isWithin(first, count, elementCount(tensor.shape))) {
    throw new RangeError(`${count} elements from ${first} are not all in ${describe(tensor)}`);
  }
}

function requireRows(tensor: TensorType, first: number, count: number): void {
  const size = tensor.shape[0];
  const whole = Number.isInteger(first) && Number.isInteger(count) && first >= 0 && count >= 0;
  if (typeof size !== 'number' || !whole || first + count > size) {
    throw new RangeError(`rows ${first} to ${first + count} are not all in ${describe(tensor)}`);
  }
}

const describe = (type: TensorType): string => `${type.dtype}${formatShape(type.shape)}`;

/** A tensor whose data fill its shape and own their buffer: a view would be sent with all that it is a view of. */
function sendable(tensor: Tensor): Tensor {
  const { data, shape } = tensor;
  if (data.length !== elementCount(shape)) throw new RangeError(`${describe(tensor)} holds ${data.length} elements`);
  return data.byteLength === data.buffer.byteLength ? tensor : { ...tensor, data: data.slice() };
}

type Feed = Tensor | DeviceTensor;

/** A compiled graph. */
export class Program {
  constructor(
    readonly inputs: ReadonlyMap<string, TensorType>,
    readonly outputs: ReadonlyMap<string, TensorType>,
    private readonly session: number,
    private readonly host: WorkerHost,
    /** Weights that stay on the device, by the graph's names. */
    private readonly resident: Readonly<Record<string, Held>> = {},
    private readonly trace?: string,
  ) {}

  /**
   * Runs the graph once. Outputs named in `into` are written there; a tensor may be fed and written in one run only
   * where the graph reads each element before it writes it (optimizer updates, caches). All other outputs come back.
   *
   * @throws RangeError before anything runs when a feed is missing, unknown, or of another dtype or shape
   */
  async run(
    feeds: Readonly<Record<string, Feed>>,
    into: Readonly<Record<string, DeviceTensor>> = {},
  ): Promise<Record<string, Tensor>> {
    const symbols: Sizes = new Map();
    for (const [name, type] of this.inputs) {
      const feed = feeds[name];
      if (feed === undefined) throw new RangeError(`the feed '${name}' ${describe(type)} is missing`);
      bindSymbols(`the feed '${name}'`, type, feed, symbols);
    }
    const unknown = Object.keys(feeds).find((name) => !this.inputs.has(name));
    if (unknown !== undefined) throw new RangeError(`the graph has no input named '${unknown}'`);
    const operands: Record<string, Operand> = { ...this.resident };
    for (const [name, type] of this.inputs) {
      const feed = feeds[name]!;
      requireFit(`the feed '${name}'`, type, feed, symbols);
      operands[name] = feed instanceof DeviceTensor ? feed.heldIn(this.host) : { tensor: sendable(feed) };
    }
    const targets: Record<string, Held> = {};
    for (const [name, target] of Object.entries(into)) {
      const type = this.outputs.get(name);
      if (type === undefined) throw new RangeError(`the graph has no output named '${name}'`);
      requireFit(`the output '${name}'`, type, target, symbols);
      targets[name] = target.heldIn(this.host);
    }
    if (overlap(Object.values(targets))) {
      throw new RangeError(`two of the outputs ${Object.keys(targets).join(', ')} are written into one tensor`);
    }
    const fetch: Record<string, { dtype: DType; shape: readonly number[] }> = {};
    for (const [name, { dtype, shape }] of this.outputs) {
      if (Object.hasOwn(targets, name)) continue;
      fetch[name] = { dtype, shape: shape.map((dim) => evaluateDim(dim, symbols)) };
    }
    return this.host.call({ kind: 'run', session: this.session, feeds: operands, into: targets, fetch });
  }

  /** Where its nodes ran so far, of a runtime made with `trace`; it can be asked once. */
  async placement(): Promise<readonly Placement[]> {
    if (this.trace === undefined) throw new Error('the runtime was made without a trace');
    return this.host.call({ kind: 'placement', session: this.session, trace: this.trace });
  }

  async dispose(): Promise<void> {
    await this.host.call({ kind: 'release', session: this.session });
  }
}

/** Whether two of the tensors share elements. */
function overlap(tensors: readonly Held[]): boolean {
  const ordered = tensors.toSorted((a, b) => a.handle - b.handle || a.start - b.start);
  return ordered.some((each, i) => {
    const before = ordered[i - 1];
    return before?.handle === each.handle && each.start < before.start + elementCount(before.shape);
  });
}

/** The handle of a tensor that begins where its memory does. */
function wholeIn(host: WorkerHost, tensor: DeviceTensor): number {
  const { handle, start } = tensor.heldIn(host);
  if (start !== 0) throw new RangeError(`${describe(tensor)} is a later part of another tensor`);
  return handle;
}

type Sizes = Map<string, number>;

/** Learns from a feed the values of the symbols that are dimensions of it; the first feed that has one decides. */
function bindSymbols(what: string, type: TensorType, feed: Feed, symbols: Sizes): void {
  if (feed.shape.length !== type.shape.length) throw misfit(what, type, feed, symbols);
  for (const [axis, dim] of type.shape.entries()) {
    if (typeof dim === 'string' && /^\w+$/.test(dim) && !symbols.has(dim)) symbols.set(dim, feed.shape[axis]!);
  }
}

function requireFit(what: string, type: TensorType, given: TensorType, symbols: Sizes): void {
  const fits =
    given.dtype === type.dtype &&
    given.shape.length === type.shape.length &&
    type.shape.every((dim, axis) => evaluateDim(dim, symbols) === given.shape[axis]);
  if (!fits) throw misfit(what, type, given, symbols);
}

function misfit(what: string, type: TensorType, given: TensorType, symbols: Sizes): RangeError {
  const bound = [...symbols].map(([symbol, size]) => `${symbol}=${size}`).join(', ');
  return new RangeError(
    `${what} must be ${describe(type)}${bound === '' ? '' : ` with ${bound}`}, got ${describe(given)}`,
  );
}

const isWithin = (start: number, length: number, size: number): boolean =>
  Number.isInteger(start) && Number.isInteger(length) && start >= 0 && length >= 0 && start + length <= size;

export interface RuntimeOptions {
  /** Execution provider of ONNX Runtime. */
  readonly device?: Device;
  /** Threads of one computation; fixed for a run, because the last bits of results depend on it. */
  readonly threads?: number;
  /** Folder for notes of where everything is computed, for `Program.placement`. */
  readonly trace?: string;
}

/** The engine: one worker thread that holds sessions and tensors. Close it when done. */
export class Runtime {
  readonly device: Device;
  readonly threads: number;
  readonly #host: WorkerHost;
  readonly #trace: string | undefined;
  #traced = 0;
  readonly #weights = new Map<string, DeviceTensor>();

  constructor(options: RuntimeOptions = {}) {
    this.device = options.device ?? 'cpu';
    this.threads = options.threads ?? availableParallelism();
    this.#trace = options.trace;
    this.#host = new WorkerHost(this.device);
  }

  /**
   * Compiles a graph. Parameters that `weights` names are read from their files: by each session itself, or once for all
   * graphs of this runtime where ops take them as they are. All others become feeds.
   *
   * @param options.spins keeps the cores between the nodes of a run: for graphs of many short nodes, whose threads would
   *   take longer to wake than to compute
   * @param options.onSent called once everything is with the thread that computes, which takes seconds for a large model;
   *   relative paths are not to be resolved until it is done: see `withWorkingDirectory`
   */
  async compile(
    graph: Graph,
    weights: ReadonlyMap<string, StoredTensor> = new Map(),
    { spins = false, onSent }: { readonly spins?: boolean; readonly onSent?: (() => void) | undefined } = {},
  ): Promise<Program> {
    const resident = await this.#residentWeights(graph, weights);
    const inFiles = new Map([...weights].filter(([name]) => !Object.hasOwn(resident, name)));
    const { bound, root } = await bindWeights(graph, inFiles);
    const model = emit(graph, { device: this.device, bound, noTensor: this.hasParts });
    const trace = this.#trace === undefined ? undefined : path.join(this.#trace, `program-${this.#traced++}`);
    const settings = { threads: this.threads, spins, ...(trace !== undefined && { trace }) };
    const create = async (): Promise<number> => {
      const created = this.#host.call({ kind: 'create', bytes: model.bytes, settings }, [
        model.bytes.buffer as ArrayBuffer,
      ]);
      onSent?.();
      return created;
    };
    const session = root === undefined ? await create() : await withWorkingDirectory(root, create);
    const inputs = new Map([...model.inputs].filter(([name]) => !Object.hasOwn(resident, name)));
    return new Program(inputs, model.outputs, session, this.#host, resident, trace);
  }

  /** Weights that are read once for all graphs: see `residentWeights`. */
  async #residentWeights(
    graph: Graph,
    weights: ReadonlyMap<string, StoredTensor>,
  ): Promise<Readonly<Record<string, Held>>> {
    const held: Record<string, Held> = {};
    for (const { name, file, offset, dtype, shape } of await residentWeights(graph, weights, this.device)) {
      const key = `${file}:${offset}`;
      let there = this.#weights.get(key);
      if (there === undefined) {
        const handle = await this.#host.call({ kind: 'load', file, offset, dtype, shape });
        there = new DeviceTensor(dtype, shape, handle, this.#host);
        this.#weights.set(key, there);
      }
      held[name] = there.heldIn(this.#host);
    }
    return held;
  }

  /** Whether parts of tensors can be fed and written, from any element on: a buffer of the GPU is taken whole. */
  get hasParts(): boolean {
    return this.device !== 'webgpu';
  }

  /**
   * Copies a tensor to where computation happens.
   *
   * @param options.move gives the tensor away instead, which is not to be read any more: it is not there twice
   */
  async upload(tensor: Tensor, { move = false }: { readonly move?: boolean } = {}): Promise<DeviceTensor> {
    const sent = sendable(tensor);
    const moved = move ? [sent.data.buffer as ArrayBuffer] : [];
    const handle = await this.#host.call({ kind: 'put', tensor: sent }, moved);
    return new DeviceTensor(tensor.dtype, tensor.shape, handle, this.#host);
  }

  /** Makes all elements of tensors 0. */
  async clear(tensors: Iterable<DeviceTensor>): Promise<void> {
    const handles = Array.from(tensors, (each) => wholeIn(this.#host, each));
    await this.#host.call({ kind: 'clear', handles });
  }

  /** A tensor of zeros there. */
  async allocate(dtype: DType, shape: readonly number[]): Promise<DeviceTensor> {
    const handle = await this.#host.call({ kind: 'allocate', dtype, shape });
    return new DeviceTensor(dtype, shape, handle, this.#host);
  }

  /**
   * Copies blocks of elements from one tensor to another, for each pair the same blocks. A block of a tensor may be
   * copied within it.
   *
   * @throws RangeError before anything is copied when dtypes differ or a block reaches over an end
   */
  async copy(
    pairs: readonly (readonly [from: DeviceTensor, to: DeviceTensor])[],
    blocks: readonly CopiedBlock[],
  ): Promise<void> {
    const handles = pairs.map(([from, to]): [number, number] => {
      if (from.dtype !== to.dtype) throw new RangeError(`${describe(from)} cannot be copied into ${describe(to)}`);
      const sizes = [elementCount(from.shape), elementCount(to.shape)] as const;
      for (const block of blocks) {
        if (!isWithin(block.from, block.length, sizes[0]) || !isWithin(block.to, block.length, sizes[1])) {
          const { length } = block;
          throw new RangeError(
            `${length} elements from ${block.from} of ${describe(from)} do not fit at ${block.to} of ${describe(to)}`,
          );
        }
      }
      return [wholeIn(this.#host, from), wholeIn(this.#host, to)];
    });
    await this.#host.call({ kind: 'copy', pairs: handles, blocks });
  }

  async close(): Promise<void> {
    await this.#host.close();
  }
}
