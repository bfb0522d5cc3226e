import type { DType, Tensor } from '../graph/tensor.js';
import type { PrecedingQuery } from './preceding.js';

/** A tensor that lives in the worker, or its elements from `start`, which fill the shape. */
export interface Held {
  readonly handle: number;
  readonly start: number;
  readonly shape: readonly number[];
}

/** A feed: a tensor sent along, or one that lives in the worker. */
export type Operand = { readonly tensor: Tensor } | Held;

/** Elements that are copied from one tensor to another, by their positions in row-major order. */
export interface CopiedBlock {
  readonly from: number;
  readonly to: number;
  readonly length: number;
}

export interface SessionSettings {
  readonly threads: number;
  /** Whether threads that wait for the next node of a run keep their cores instead of sleeping. */
  readonly spins: boolean;
  /** Start of the path of a file in which the runtime notes where it computed what. */
  readonly trace?: string;
}

/** Where one kind of node ran: the execution provider, and the dtypes that it made there. */
export interface Placement {
  readonly op: string;
  readonly provider: string;
  readonly outputs: readonly string[];
}

/** What the worker can be asked. */
export type Request =
  | { readonly kind: 'create'; readonly bytes: Uint8Array; readonly settings: SessionSettings }
  | { readonly kind: 'release'; readonly session: number }
  /** Ends the trace of a session. */
  | { readonly kind: 'placement'; readonly session: number; readonly trace: string }
  | {
      readonly kind: 'run';
      readonly session: number;
      readonly feeds: Readonly<Record<string, Operand>>;
      /** Outputs written into tensors that live in the worker. */
      readonly into: Readonly<Record<string, Held>>;
      /** Outputs sent back, and what they are. */
      readonly fetch: Readonly<Record<string, { readonly dtype: DType; readonly shape: readonly number[] }>>;
    }
  | { readonly kind: 'put'; readonly tensor: Tensor }
  /** Takes in a tensor of a file. */
  | {
      readonly kind: 'load';
      readonly file: string;
      readonly offset: number;
      readonly dtype: DType;
      readonly shape: readonly number[];
    }
  | { readonly kind: 'allocate'; readonly dtype: DType; readonly shape: readonly number[] }
  /** Elements from each of the starts on, so many of each, together filling the shape. */
  | {
      readonly kind: 'get';
      readonly handle: number;
      readonly starts: readonly number[];
      readonly shape: readonly number[];
    }
  /** Each on so many elements of a tensor. */
  | {
      readonly kind: 'preceding';
      readonly handle: number;
      readonly length: number;
      readonly queries: readonly PrecedingQuery[];
    }
  | {
      readonly kind: 'copy';
      /** Handles of sources and targets; the same blocks are copied for each pair. */
      readonly pairs: readonly (readonly [number, number])[];
      readonly blocks: readonly CopiedBlock[];
    }
  | { readonly kind: 'set'; readonly handle: number; readonly tensor: Tensor }
  | { readonly kind: 'clear'; readonly handles: readonly number[] }
  | { readonly kind: 'free'; readonly handle: number }
  | { readonly kind: 'close' };

export interface Replies {
  create: number;
  release: undefined;
  placement: Placement[];
  run: Record<string, Tensor>;
  put: number;
  load: number;
  allocate: number;
  get: Tensor;
  preceding: boolean[];
  copy: undefined;
  set: undefined;
  clear: undefined;
  free: undefined;
  close: undefined;
}

/** What the worker is started with. */
export interface WorkerData {
  /** The memory of the gate that it enters for each request. */
  readonly gate: SharedArrayBuffer;
  /** Execution provider of ONNX Runtime that its sessions use. */
  readonly device: string;
}

export type Envelope = { readonly id: number; readonly request: Request };

export type Answer =
  | { readonly id: number; readonly ok: true; readonly value: unknown }
  | { readonly id: number; readonly ok: false; readonly message: string };
