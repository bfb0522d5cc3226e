/** The thread that computes: `session.run()` blocks whoever calls it, so sessions and buffers live here. */
import { InferenceSession, Tensor as OrtTensor, env } from 'onnxruntime-node';
import { parentPort, workerData } from 'node:worker_threads';
import { elementCount, zeros, type DType, type Tensor, type TypedArrays } from '../graph/tensor.js';
import { Gate } from './gate.js';
import type { Answer, Envelope, Held, Operand, Replies, Request, SessionSettings, WorkerData } from './protocol.js';

if (parentPort === null) throw new Error('this file is the entry of a worker thread');
const port = parentPort;
const gate = new Gate((workerData as WorkerData).gate);
// What fails comes back as an error: nothing is to be written past the command line's own output.
env.logLevel = 'fatal';

const sessions = new Map<number, InferenceSession>();
const buffers = new Map<number, { tensor: Tensor; ort: OrtTensor }>();
let lastId = 0;

const toOrt = ({ dtype, data, shape }: Tensor): OrtTensor => new OrtTensor(dtype, data as never, shape);

/** Copies out of memory that the runtime may own, so that the copy can be transferred. */
const fromOrt = (value: OrtTensor): Tensor => ({
  dtype: value.type as DType,
  shape: value.dims,
  data: (value.data as Float32Array).slice(),
});

function held(handle: number): { tensor: Tensor; ort: OrtTensor } {
  const buffer = buffers.get(handle);
  if (buffer === undefined) throw new Error(`tensor ${handle} was used after it was freed`);
  return buffer;
}

function keep(tensor: Tensor): number {
  buffers.set(++lastId, { tensor, ort: toOrt(tensor) });
  return lastId;
}

/** `length` elements from `start` of a tensor that lives here: a view, not a copy. */
const part = <D extends DType>({ data }: Tensor<D>, start: number, length: number): TypedArrays[D] =>
  data.subarray(start, start + length) as TypedArrays[D];

function heldAs({ handle, shape }: Held): OrtTensor {
  const { tensor, ort } = held(handle);
  const length = elementCount(shape);
  return length === tensor.data.length ? ort : toOrt({ dtype: tensor.dtype, shape, data: part(tensor, 0, length) });
}

const operand = (value: Operand): OrtTensor => ('tensor' in value ? toOrt(value.tensor) : heldAs(value));

async function create(bytes: Uint8Array, { threads, device }: SessionSettings): Promise<number> {
  const session = await InferenceSession.create(bytes, {
    executionProviders: [device],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    executionMode: 'sequential',
    graphOptimizationLevel: 'all',
    enableMemPattern: false,
    logSeverityLevel: 4,
    // Waiting threads sleep: as fast on an idle machine, and spinning would take the cores of whatever else runs.
    // Without x64quantprecision a processor that lacks VNNI would let 16-bit sums of int8 products saturate.
    extra: { session: { intra_op: { allow_spinning: '0' }, x64quantprecision: '1' } },
  });
  sessions.set(++lastId, session);
  return lastId;
}

/** For tests: a run that is fed more bytes than this fails as one does for which there is no memory. */
const feedLimit = Number(process.env['DUANZI_FAULT_FEED_BYTES'] ?? Infinity);

function failWhenTooLarge(feeds: Readonly<Record<string, Operand>>): void {
  const bytes = Object.values(feeds).reduce(
    (sum, each) => sum + ('tensor' in each ? each.tensor.data.byteLength : 0),
    0,
  );
  if (bytes > feedLimit) throw new Error(`Failed to allocate memory for requested buffer of size ${bytes}`);
}

async function run(request: Request & { kind: 'run' }): Promise<Record<string, Tensor>> {
  const session = sessions.get(request.session);
  if (session === undefined) throw new Error(`session ${request.session} was used after it was released`);
  failWhenTooLarge(request.feeds);
  const feeds: Record<string, OrtTensor> = {};
  for (const [name, value] of Object.entries(request.feeds)) feeds[name] = operand(value);
  const fetches: Record<string, OrtTensor | null> = {};
  for (const [name, target] of Object.entries(request.into)) fetches[name] = heldAs(target);
  for (const name of request.fetch) fetches[name] = null;
  const results = await session.run(feeds, fetches);
  const sent: Record<string, Tensor> = {};
  for (const name of request.fetch) {
    const result = results[name]!;
    sent[name] = fromOrt(result);
    result.dispose();
  }
  return sent;
}

async function handle(request: Request): Promise<Replies[Request['kind']]> {
  switch (request.kind) {
    case 'create':
      return create(request.bytes, request.settings);
    case 'release':
      await sessions.get(request.session)?.release();
      sessions.delete(request.session);
      return undefined;
    case 'run':
      return run(request);
    case 'put':
      return keep(request.tensor);
    case 'allocate':
      return keep(zeros(request.dtype, request.shape));
    case 'get': {
      const { tensor } = held(request.handle);
      const { shape } = request;
      const data = part(tensor, request.start, elementCount(shape)).slice() as typeof tensor.data;
      return { dtype: tensor.dtype, shape, data };
    }
    case 'copy':
      for (const [source, target] of request.pairs) {
        const [from, to] = [held(source).tensor, held(target).tensor.data];
        for (const block of request.blocks) to.set(part(from, block.from, block.length) as never, block.to);
      }
      return undefined;
    case 'set':
      held(request.handle).tensor.data.set(request.tensor.data as never);
      return undefined;
    case 'free':
      buffers.delete(request.handle);
      return undefined;
    case 'close':
      return undefined;
  }
}

/** Buffers of an answer that were made for it alone and can be moved instead of copied. */
function movable(value: unknown): ArrayBuffer[] {
  if (typeof value !== 'object' || value === null) return [];
  const tensors = 'data' in value ? [value as Tensor] : (Object.values(value) as Tensor[]);
  return tensors.map(({ data }) => data.buffer as ArrayBuffer);
}

async function reply({ id, request }: Envelope): Promise<void> {
  if (!gate.enter()) {
    port.close();
    return;
  }
  let answer: Answer;
  try {
    answer = { id, ok: true, value: await handle(request) };
  } catch (error) {
    answer = { id, ok: false, message: error instanceof Error ? error.message : String(error) };
  } finally {
    gate.leave();
  }
  port.postMessage(answer, answer.ok ? movable(answer.value) : []);
}

// One request after the other, as they came: a run only starts after it was asked for, and a later request that frees or
// reads what it uses must wait for its end.
let last = Promise.resolve();
port.on('message', (envelope: Envelope) => {
  last = last.then(() => reply(envelope));
});
