import { openModelFolder, type ModelFolder } from '../checkpoints/model-folder.js';
import { requireParameters } from '../checkpoints/require-parameters.js';
import { UserError } from '../errors.js';
import { checkSequence } from '../generation/check-sequence.js';
import { requireTokenizer } from '../generation/policy.js';
import { isClassifier, positionLimit, type ModelConfig } from '../models/config/model-config.js';
import type { Runtime } from '../runtime/runtime.js';
import { loadTokenizerIfThere } from '../text/load-tokenizer.js';
import { assertTokenizerFits, type Tokenizer } from '../text/tokenizer.js';
import { Classifier, classifierContext, type ClassifierOptions, type ClassifyOptions } from './classifier.js';

/** Labels of a reward model by their index; the reward is the logit of the second. One of pairs has a single label. */
export const REWARD_LABELS = ['not_humorous', 'humorous'] as const;

export type RewardOptions = Pick<ClassifyOptions, 'batchSize' | 'onProgress'>;

export interface TextPair {
  readonly prompt: string;
  readonly completion: string;
}

/** A trained classifier of texts: how humorous is what stands after a prompt? */
export class RewardModel {
  private constructor(
    private readonly classifier: Classifier,
    readonly folder: ModelFolder,
    private readonly config: ModelConfig,
    /** Undefined where the folder has none: then only token ids go in. */
    readonly tokenizer: Tokenizer | undefined,
  ) {}

  /**
   * Opens a model folder; its weights stay in their files.
   *
   * @throws UserError when the folder is missing or wrong, holds no classifier of one or two labels, or its parts do not fit
   */
  static async open(
    runtime: Runtime,
    dir: string,
    options?: Pick<ClassifierOptions, 'precision'>,
  ): Promise<RewardModel> {
    const folder = await openModelFolder(dir);
    const config = classifierConfig(folder);
    const tokenizer = await loadTokenizerIfThere(dir);
    if (tokenizer !== undefined) assertTokenizerFits(tokenizer, config.vocabSize, dir);
    requireParameters(folder.weights, classifierContext(config).weights);
    const classifier = await Classifier.create(runtime, config, folder.weights, options);
    return new RewardModel(classifier, folder, config, tokenizer);
  }

  /** Tokens to which a text is cut, those around it included: as in training, where the folder says. */
  get maxLength(): number {
    return textLimit(this.config, this.tokenizer?.modelMaxLength);
  }

  /**
   * Token ids of one text, `[CLS] text [SEP]`, cut at the end to `maxLength`.
   *
   * @throws UserError when the folder has no tokenizer
   */
  encode(text: string): number[] {
    return requireTokenizer(this).encode(text, {
      maxLength: this.maxLength,
    });
  }

  /** Logits of each text, in order: (texts) × (labels). */
  async logits(texts: readonly string[], options: RewardOptions): Promise<number[][]> {
    return this.logitsOfIds(
      texts.map((text) => this.encode(text)),
      options,
    );
  }

  /**
   * Logits of each sequence of token ids, in order: (sequences) × (labels).
   *
   * @throws UserError for a sequence without tokens, with an unknown id, or longer than the model can take
   */
  async logitsOfIds(sequences: readonly (readonly number[])[], options: RewardOptions): Promise<number[][]> {
    for (const [i, sequence] of sequences.entries()) this.check(sequence, `text ${i + 1}`);
    const padTokenId = this.tokenizer?.special.pad ?? this.config.padTokenId ?? 0;
    return this.classifier.logits(sequences, { ...options, padTokenId });
  }

  /** The reward of each completion after its prompt, read as one text: the logit of "humorous", or of the only label. */
  async score(pairs: readonly TextPair[], options: RewardOptions): Promise<number[]> {
    return (await this.pairLogits(pairs, options)).map((row) => row.at(-1)!);
  }

  /** Logits of each completion after its prompt, read as one text. */
  async pairLogits(pairs: readonly TextPair[], options: RewardOptions): Promise<number[][]> {
    return this.logits(
      pairs.map(({ prompt, completion }) => prompt + completion),
      options,
    );
  }

  /** Refuses token ids that the model cannot take; `where` names the input. */
  check(sequence: readonly number[], where: string): void {
    const { vocabSize } = this.config;
    checkSequence(sequence, { vocabSize, maxPositionEmbeddings: positionLimit(this.config) }, { room: 0, where });
  }

  async dispose(): Promise<void> {
    await this.classifier.dispose();
  }
}

/** Log-odds of "humorous" of a row of logits; of a single label, the reward of which differences are log-odds. */
export const logOdds = (logits: readonly number[]): number =>
  logits.length === 1 ? logits[0]! : logits[1]! - logits[0]!;

/** P("humorous") of a row of logits; of a single label, the chance to beat a text of reward 0. */
export const humorousProbability = (logits: readonly number[]): number => 1 / (1 + Math.exp(-logOdds(logits)));

/** The length, in tokens, that texts are cut to: what the tokenizer was told, within what the model has positions for. */
export function textLimit(config: ModelConfig, told = Infinity): number {
  const limit = Math.min(told, positionLimit(config));
  return limit < Infinity ? limit : config.maxPositionEmbeddings;
}

function classifierConfig({ config, dir }: ModelFolder): ModelConfig {
  if (!isClassifier(config)) {
    throw new UserError({
      code: 'model.not-classifier',
      message: `This is a ${config.architecture}, not a reward model.`,
      where: dir,
      fix: 'Give a classifier (…ForSequenceClassification), such as `duanzi rm` leaves in model/.',
    });
  }
  requireLabels(config, dir, [1, REWARD_LABELS.length]);
  return config;
}

/** Refuses a classifier whose number of labels is none of `counts`. */
export function requireLabels({ labels }: ModelConfig, where: string, counts: readonly number[]): void {
  if (counts.includes(labels.length)) return;
  throw new UserError({
    code: 'model.labels',
    message: `The classifier has ${labels.length} label${labels.length === 1 ? '' : 's'} (${labels.join(', ')}), where a reward model of labels has two, 0 for not humorous and 1 for humorous, and one of pairs has one.`,
    where,
    fix: `Give a classifier of ${counts.join(' or ')} label${counts.join() === '1' ? '' : 's'}, or a model without a head.`,
  });
}
