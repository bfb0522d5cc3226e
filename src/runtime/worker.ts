/** The thread that computes: `session.run()` blocks whoever calls it, so sessions and buffers live here. */
import { InferenceSession, env, type Tensor as OrtTensor } from 'onnxruntime-node';
import { parentPort, workerData } from 'node:worker_threads';
import type { Tensor } from '../graph/tensor.js';
import { integerProductsAreExact } from './exact-integers.js';
import { Gate } from './gate.js';
import { GpuMemory } from './gpu-memory.js';
import { HostMemory, toOrt, type Memory } from './memory.js';
import { readPlacement } from './placement.js';
import { isPrecededByLess } from './preceding.js';
import { readTensor } from './read-tensor.js';
import type { Answer, Envelope, Operand, Replies, Request, SessionSettings, WorkerData } from './protocol.js';

if (parentPort === null) throw new Error('this file is the entry of a worker thread');
const port = parentPort;
// What fails comes back as an error: nothing is to be written past the command line's own output.
env.logLevel = 'fatal';

const { gate: gateMemory, device } = workerData as WorkerData;
const gate = new Gate(gateMemory);
const sessions = new Map<number, InferenceSession>();
// Other devices' sessions take and give tensors in the process's memory and copy them themselves.
const memory: Memory = device === 'webgpu' ? new GpuMemory(device) : new HostMemory();
let lastId = 0;
let exactIntegers: Promise<boolean> | undefined;

const operand = (value: Operand): OrtTensor => ('tensor' in value ? toOrt(value.tensor) : memory.operand(value));

async function create(bytes: Uint8Array, { threads, spins, trace }: SessionSettings): Promise<number> {
  exactIntegers ??= integerProductsAreExact();
  const session = await InferenceSession.create(bytes, {
    executionProviders: [device],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    executionMode: 'sequential',
    graphOptimizationLevel: 'all',
    enableMemPattern: false,
    logSeverityLevel: 4,
    ...(trace !== undefined && { enableProfiling: true, profileFilePrefix: trace }),
    extra: {
      // A norm of its own, after the sum, is computed several times as fast as the two in one kernel.
      optimization: { disable_specified_optimizers: 'SkipLayerNormFusion' },
      session: {
        // Where nodes take long, threads that sleep are as fast on an idle machine, and leave the cores to what else runs.
        intra_op: { allow_spinning: spins ? '1' : '0' },
        force_spinning_stop: '1',
        x64quantprecision: (await exactIntegers) ? '0' : '1',
      },
    },
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
  const into: Record<string, OrtTensor> = {};
  for (const [name, target] of Object.entries(request.into)) into[name] = memory.operand(target);
  return memory.run(session, { feeds, into, fetch: request.fetch });
}

async function preceding({ handle, length, queries }: Request & { kind: 'preceding' }): Promise<boolean[]> {
  const answers: boolean[] = [];
  for (const query of queries) {
    answers.push(await isPrecededByLess(query, length, async (start, count) => memory.elements(handle, start, count)));
  }
  return answers;
}

async function handle(request: Request): Promise<Replies[Request['kind']]> {
  switch (request.kind) {
    case 'create':
      return create(request.bytes, request.settings);
    case 'release':
      await sessions.get(request.session)?.release();
      sessions.delete(request.session);
      return undefined;
    case 'placement':
      sessions.get(request.session)?.endProfiling();
      return readPlacement(request.trace);
    case 'run':
      return run(request);
    case 'put':
      return memory.put(request.tensor);
    case 'load':
      return memory.put(readTensor(request));
    case 'allocate':
      return memory.allocate(request.dtype, request.shape);
    case 'get':
      return memory.get(request.handle, request.starts, request.shape);
    case 'preceding':
      return preceding(request);
    case 'copy':
      await memory.copy(request.pairs, request.blocks);
      return undefined;
    case 'set':
      await memory.set(request.handle, request.tensor);
      return undefined;
    case 'clear':
      for (const each of request.handles) await memory.clear(each);
      return undefined;
    case 'free':
      memory.free(request.handle);
      return undefined;
    case 'close':
      return undefined;
  }
}

/** Buffers of an answer that were made for it alone and can be moved instead of copied. */
function movable(value: unknown): ArrayBuffer[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [];
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
