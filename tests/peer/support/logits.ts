import { loraOf } from '../../../src/checkpoints/adapter-config.js';
import { join } from 'node:path';
import { expect } from 'vitest';
import { checkAdapter, loraNamesOf, openAdapter, savedTensors } from '../../../src/checkpoints/adapter.js';
import { loadTensors, openModelFolder } from '../../../src/checkpoints/model-folder.js';
import { readFloats, readHeader } from '../../../src/checkpoints/safetensors.js';
import { sourceOfArray, writeSafetensors } from '../../../src/checkpoints/safetensors-writer.js';
import { wrap, type Tensor } from '../../../src/graph/tensor.js';
import type { ModelConfig } from '../../../src/models/config/model-config.js';
import { classifierFeeds, classifierLogits } from '../../../src/models/classifier.js';
import { encoderFeeds, encoderHidden, encoderMaskedLogits } from '../../../src/models/encoder.js';
import { packedFeeds, packedTokens } from '../../../src/models/packed-tokens.js';
import type { PaddedTokens } from '../../../src/models/padded-tokens.js';
import { causalHidden, causalLogits } from '../../../src/models/causal.js';
import { ModelContext } from '../../../src/nn/context.js';
import { flattenRows } from '../../../src/ops/build.js';
import { newGraph } from '../../../src/ops/registry.js';
import { stream } from '../../../src/random.js';
import type { Runtime } from '../../../src/runtime/runtime.js';
import { padded, sequencesOf } from '../../support/packed.js';
import { count, find, python } from './python.js';

/** What is computed: next tokens, classes, or masked tokens. */
export type Head = 'causal' | 'classifier' | 'masked';

export interface Comparison {
  readonly check: string;
  readonly peer: string;
  readonly head: Head;
  readonly model: string;
  readonly adapter?: string;
  /** Scratch space for what the two sides exchange. */
  readonly folder: string;
}

/** Expects the logits of a model folder, with or without an adapter, to be theirs too, on random ids with padding. */
export async function compareLogits(runtime: Runtime, comparison: Comparison): Promise<void> {
  const { check, peer, head, model, adapter, folder } = comparison;
  const { config, quantized } = await openModelFolder(model);
  const batch = randomBatch(config.vocabSize);
  const [batchFile, outFile] = [join(folder, 'batch.safetensors'), join(folder, 'logits.safetensors')];
  const shape = [batch.batch, batch.length];
  await writeSafetensors(batchFile, [
    sourceOfArray('input_ids', 'I32', shape, Int32Array.from(batch.inputIds)),
    sourceOfArray('attention_mask', 'I32', shape, Int32Array.from(batch.attentionMask)),
  ]);

  const loaded = await python('logits', head, model, batchFile, outFile, ...(adapter === undefined ? [] : [adapter]));
  const modules = adapter === undefined ? 0 : loraNamesOf(await openAdapter(adapter)).length / 2;
  expect(loaded).toEqual({ missing: [], unexpected: [], adapted: modules, fourBit: quantized.size });

  const ours = await logitsOf(runtime, head, model, batch, adapter);
  const theirs = await readFloats((await readHeader(outFile)).tensors.get('logits')!);
  expect(ours.length).toBe(theirs.data.length);
  // Rows at padding mean nothing; a classifier has one row for each text.
  const width = theirs.shape.at(-1)!;
  const real = (row: number): boolean => head === 'classifier' || batch.attentionMask[row] === 1;
  let [largest, compared] = [0, 0];
  for (const [at, value] of theirs.data.entries()) {
    if (!real(Math.floor(at / width))) continue;
    const difference = Math.abs(value - ours[at]!);
    largest = Number.isNaN(difference) ? Infinity : Math.max(largest, difference);
    compared += 1;
  }
  find({ check, peer, compared: `${count(compared)} logits`, largest, allowed: 1e-4 });
}

/** Random ids, the rows of different length. */
function randomBatch(vocabSize: number): PaddedTokens {
  const lengths = [23, 1, 14, 8];
  const [batch, length] = [lengths.length, Math.max(...lengths)];
  const random = stream(7, 'peer batch');
  const inputIds = new Int32Array(batch * length);
  const attentionMask = new Int32Array(batch * length);
  for (const [row, real] of lengths.entries()) {
    for (let t = 0; t < real; t++) {
      inputIds[row * length + t] = Math.floor(random.uniform() * vocabSize);
      attentionMask[row * length + t] = 1;
    }
  }
  return { inputIds, attentionMask, batch, length };
}

/** Ids and mask of a batch as tensors. */
function paddedOf({ inputIds, attentionMask, batch, length }: PaddedTokens): [ids: Tensor, mask: Tensor] {
  return [wrap('int32', [batch, length], inputIds), wrap('int32', [batch, length], attentionMask)];
}

async function logitsOf(
  runtime: Runtime,
  head: Head,
  modelDir: string,
  batch: PaddedTokens,
  adapterDir?: string,
): Promise<Float32Array> {
  const folder = await openModelFolder(modelDir);
  const adapter = adapterDir === undefined ? undefined : await openAdapter(adapterDir);
  const context = new ModelContext(newGraph(), adapter === undefined ? {} : { lora: loraOf(adapter) });
  const feeds = addLogits(context, head, folder.config, batch);
  const weights = new Map(folder.weights);
  if (adapter !== undefined) {
    checkAdapter(adapter, folder.weights);
    for (const [name, saved] of savedTensors(adapter)) weights.set(name, saved);
    for (const [name, tensor] of await loadTensors(adapter.weights, loraNamesOf(adapter))) feeds[name] = tensor;
  }
  const program = await runtime.compile(context.graph, weights);
  const { logits } = await program.run(feeds);
  await program.dispose();
  if (head === 'causal') return padded(logits!, paddedOf(batch)[1]);
  return logits!.data as Float32Array;
}

/** Adds the output `logits` to the graph; its feeds for a batch. */
function addLogits(
  context: ModelContext,
  head: Head,
  config: ModelConfig,
  batch: PaddedTokens,
): Record<string, Tensor> {
  if (head === 'classifier') {
    context.graph.output('logits', classifierLogits(context, config));
    return classifierFeeds(config, batch);
  }
  if (config.kind === 'causal') {
    const { hidden } = causalHidden(context, config, packedTokens(context));
    context.graph.output('logits', causalLogits(context, config, hidden));
    return packedFeeds(sequencesOf(...paddedOf(batch)));
  }
  const rows = flattenRows(encoderHidden(context, config));
  context.graph.output('logits', encoderMaskedLogits(context, config, rows));
  return encoderFeeds(config, batch);
}
