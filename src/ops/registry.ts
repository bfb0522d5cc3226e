import { Graph, type TensorType } from '../graph/graph.js';
import { elementwise } from './elementwise.js';
import { indexing } from './indexing.js';
import { language } from './language.js';
import { linearLogProbs } from './linear-log-probs.js';
import { logic } from './logic.js';
import { matmul } from './matmul.js';
import { nf4 } from './nf4.js';
import { normalization } from './normalization.js';
import { quantized } from './quantized.js';
import { random } from './random.js';
import type { OpName, OpRecord, OpRecords } from './record.js';
import { reduce } from './reduce.js';
import { rounded } from './rounded.js';
import { shapeOps } from './shape.js';
import { sources } from './sources.js';
import { streamed } from './streamed.js';

/** Every op. */
export const ops: OpRecords<OpName> = {
  ...sources,
  ...elementwise,
  ...logic,
  ...matmul,
  ...quantized,
  ...rounded,
  ...nf4,
  ...streamed,
  ...linearLogProbs,
  ...reduce,
  ...normalization,
  ...shapeOps,
  ...indexing,
  ...language,
  ...random,
};

/** The record of an op by name; attributes were checked by the types of `build.ts` when the node was made. */
export function recordOf(op: string): OpRecord<unknown> {
  if (!Object.hasOwn(ops, op)) throw new RangeError(`there is no op named '${op}'`);
  return ops[op as OpName] as OpRecord<unknown>;
}

const infer = (op: string, inputs: readonly TensorType[], attributes: unknown): readonly TensorType[] =>
  recordOf(op).infer(inputs, attributes);

/** An empty graph that knows the type rules of all ops. */
export const newGraph = (): Graph => new Graph(infer);
