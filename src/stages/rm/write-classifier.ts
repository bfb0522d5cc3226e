import { openAdapter, writeAdapter } from '../../checkpoints/adapter.js';
import { mergedSources } from '../../checkpoints/merge.js';
import { openModelFolder } from '../../checkpoints/model-folder.js';
import { writeCheckpoint, writeModelFolder } from '../../checkpoints/write-model-folder.js';
import { toHuggingFaceConfig, type ModelConfig } from '../../models/config/model-config.js';
import type { LoraSettings } from '../../nn/context.js';
import { Classifier, type ClassifyOptions } from '../../rewards/classifier.js';
import { writeFolderAtomic } from '../../runs/atomic.js';
import type { RunFolder } from '../../runs/run-folder.js';
import type { Runtime } from '../../runtime/runtime.js';
import { recordMaxLength } from '../../text/max-length.js';
import { adapterConfigOf, peftTensors, type ClassifierStart } from '../../training/classifier-lora.js';
import type { Learner } from '../../training/learner.js';
import { compareMerged } from '../../training/merge-report.js';

/** Texts on which a merged model is compared with model and adapter apart. */
const COMPARED = 8;

/** A classifier that has learned. */
export interface LearnedClassifier {
  readonly config: ModelConfig;
  /** Folder that it started from; its tokenizer is copied. */
  readonly base: string;
  /** Tokens that its texts are cut to. */
  readonly maxLength: number;
  readonly lora: LoraSettings | undefined;
  readonly start: ClassifierStart;
  readonly learner: Learner;
  /** The same classifier, computing with the learner's weights. */
  readonly classifier: Classifier;
  /** Token ids of texts that it learned from. */
  readonly texts: readonly (readonly number[])[];
  readonly padTokenId: number;
}

/**
 * Leaves a classifier in a run folder: `model/`, and where an adapter learned `adapter/` too, which `model/` has merged in.
 *
 * @throws UserError where the merged model answers otherwise than model and adapter apart (see `compareMerged`)
 */
export async function writeClassifier(runtime: Runtime, run: RunFolder, learned: LearnedClassifier): Promise<void> {
  const { config, base, lora, start, learner, maxLength } = learned;
  const [model, adapter] = [run.file('model'), run.file('adapter')];
  if (lora === undefined) {
    await writeFolderAtomic(model, async (target) => {
      await writeModelFolder(target, { config, tensors: learner.optimizer.weights, tokenizerFrom: base });
      await recordMaxLength(target, maxLength);
    });
    return;
  }
  const tensors = peftTensors(lora, await learner.optimizer.readWeights());
  await writeFolderAtomic(adapter, (target) => writeAdapter(target, { config: adapterConfigOf(lora, base), tensors }));
  await writeFolderAtomic(model, async (target) => {
    const sources = mergedSources({ weights: start.frozen }, await openAdapter(adapter), 'float32');
    await writeCheckpoint(target, { json: toHuggingFaceConfig(config), sources, tokenizerFrom: base });
    await recordMaxLength(target, maxLength);
    await compareWithMerged(runtime, learned, target, model);
  });
}

async function compareWithMerged(
  runtime: Runtime,
  { config, learner, classifier, texts, padTokenId }: LearnedClassifier,
  folder: string,
  out: string,
): Promise<void> {
  const { weights } = await openModelFolder(folder);
  const merged = await Classifier.create(runtime, config, weights, { streamed: true });
  const logitsOf = async (model: Classifier, more: Partial<ClassifyOptions>): Promise<Float32Array> => {
    const logits = await model.logits(texts.slice(0, COMPARED), { batchSize: 1, padTokenId, ...more });
    return Float32Array.from(logits.flat());
  };
  const apart = await logitsOf(classifier, { weights: learner.weights });
  compareMerged({ form: 'float32', apart, merged: await logitsOf(merged, {}), width: config.labels.length, out });
  await merged.dispose();
}
