import { open, realpath } from 'node:fs/promises';
import path from 'node:path';
import { formatShape } from '../graph/dim.js';
import type { Graph } from '../graph/graph.js';
import { bytesPerElement, elementCount, type DType } from '../graph/tensor.js';
import type { BoundTensor } from '../onnx/emit.js';
import { recordOf } from '../ops/registry.js';

/** A tensor's bytes in a file, little-endian and row-major, as `.safetensors` holds them. */
export interface StoredTensor {
  readonly file: string;
  readonly offset: number;
  readonly length: number;
  /** One of F32, F16, BF16, I8, U8, I32, by their safetensors names. */
  readonly dtype: string;
  readonly shape: readonly number[];
}

const formats = new Map<string, { readonly dtype: BoundTensor['dtype']; readonly bytes: number }>([
  ['F32', { dtype: 'float32', bytes: 4 }],
  ['F16', { dtype: 'float16', bytes: 2 }],
  ['BF16', { dtype: 'bfloat16', bytes: 2 }],
  ['I8', { dtype: 'int8', bytes: 1 }],
  ['I32', { dtype: 'int32', bytes: 4 }],
  ['U8', { dtype: 'uint8', bytes: 1 }],
]);

/** Tensors of at most so many bytes are put into the model, whatever their rank. */
const smallBytes = 4096;

/**
 * Where the runtime finds the parameters that have a file. It refuses absolute locations and `../`, and resolves
 * relative ones from the working directory when the model comes as bytes, so all are named from the root of the file
 * system, after following symbolic links (the hub's cache consists of them). Vectors (biases, norm weights) and
 * small tensors are read here and put into the model: the runtime's fusions and its inference of shapes look at them
 * before it knows where external data is.
 */
export async function bindWeights(
  graph: Graph,
  weights: ReadonlyMap<string, StoredTensor>,
): Promise<{ bound: Map<string, BoundTensor>; root: string | undefined }> {
  const bound = new Map<string, BoundTensor>();
  const resolved = new Map<string, string>();
  let root: string | undefined;
  for (const node of graph.liveNodes()) {
    const name = String(node.attributes['name']);
    const stored = node.op === 'parameter' ? weights.get(name) : undefined;
    if (stored === undefined) continue;
    let file = resolved.get(stored.file);
    if (file === undefined) {
      file = await realpath(stored.file);
      resolved.set(stored.file, file);
    }
    const itsRoot = path.parse(file).root;
    root ??= itsRoot;
    if (root !== itsRoot) throw new Error(`weights lie on two drives, ${root} and ${itsRoot}: put them on one`);
    const location = path.relative(root, file);
    const { offset, length, shape } = stored;
    const format = formats.get(stored.dtype);
    if (format === undefined)
      throw new RangeError(`'${name}' is stored as ${stored.dtype}, not as one of ${[...formats.keys()].join(', ')}`);
    const needed = elementCount(shape) * format.bytes;
    if (length !== needed) {
      const type = `${stored.dtype}${formatShape(shape)}`;
      throw new RangeError(`'${name}' takes ${needed} bytes as ${type}, but its file holds ${length}`);
    }
    const isInline = shape.length < 2 || length <= smallBytes;
    const data = isInline ? await readRange(file, offset, length) : { location, offset, length };
    bound.set(name, { data, dtype: format.dtype, shape });
  }
  return { bound, root };
}

/** A parameter that lives where the computation is, once for all graphs, and what of a file it is. */
export interface ResidentWeight {
  readonly name: string;
  readonly file: string;
  readonly offset: number;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/**
 * The parameters of a graph that are read into memory once for all graphs: those that ops take as they are, and on a GPU
 * float32 weights, of which a session would keep a copy of its own.
 *
 * @throws RangeError when a file's part is not as long as the shape needs
 */
export async function residentWeights(
  graph: Graph,
  weights: ReadonlyMap<string, StoredTensor>,
  device: string,
): Promise<ResidentWeight[]> {
  const nodes = graph.liveNodes();
  const shared = new Set(
    nodes.flatMap(({ op, inputs }) => (recordOf(op).shared ?? []).map((position) => inputs[position]!)),
  );
  const found: ResidentWeight[] = [];
  for (const node of nodes) {
    const name = String(node.attributes['name']);
    const stored = node.op === 'parameter' ? weights.get(name) : undefined;
    if (stored === undefined) continue;
    if (!shared.has(node.outputs[0]!) && !(device === 'webgpu' && stored.dtype === 'F32')) continue;
    const { dtype } = node.outputs[0]!;
    const { offset, length, shape } = stored;
    const needed = elementCount(shape) * bytesPerElement(dtype);
    if (formats.get(stored.dtype)?.dtype !== dtype || length !== needed) {
      const type = `${dtype}${formatShape(shape)}`;
      throw new RangeError(
        `'${name}' takes ${needed} bytes as ${type}, but its file holds ${length} of ${stored.dtype}`,
      );
    }
    found.push({ name, file: await realpath(stored.file), offset, dtype, shape });
  }
  return found;
}

async function readRange(file: string, offset: number, length: number): Promise<Uint8Array> {
  const handle = await open(file);
  try {
    const bytes = new Uint8Array(length);
    const { bytesRead } = await handle.read(bytes, 0, length, offset);
    if (bytesRead !== length) throw new Error(`${file} ends within the tensor at ${offset}`);
    return bytes;
  } finally {
    await handle.close();
  }
}

let turn: Promise<unknown> = Promise.resolve();

/**
 * Runs an action with another working directory. The directory belongs to the whole process: one action at a time, and
 * whoever resolves relative paths must have done so before (the command line does).
 */
export async function withWorkingDirectory<T>(directory: string, action: () => Promise<T>): Promise<T> {
  const mine = turn.then(async () => {
    const before = process.cwd();
    process.chdir(directory);
    try {
      return await action();
    } finally {
      process.chdir(before);
    }
  });
  turn = mine.catch(() => undefined);
  return mine;
}
